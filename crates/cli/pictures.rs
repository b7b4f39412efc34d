//! Pictures in the terminal, by the protocols of kitty, iTerm2 and sixel.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::imageops::ColorMap;
use image::{ImageFormat, RgbImage};
use semblance_embed::transform::{Limits, decode_small_bytes};
use semblance_index::Item;
use semblance_query::Engine;

use crate::answer_args::PicturesArg;
use crate::printer::{Printer, shown};
use crate::search::Answered;

/// Longest side of a picture in pixels.
const SIDE: u32 = 160;
/// Bytes of base64 in one escape sequence of kitty's protocol.
const CHUNK: usize = 4096;

/// How a terminal takes pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Kitty,
    Iterm,
    Sixel,
}

/// The protocol to use, if any: only on a terminal, and never among JSON.
pub(crate) fn protocol(wanted: PicturesArg, printer: Printer) -> Option<Protocol> {
    if printer.json || !io::stdout().is_terminal() {
        return None;
    }
    match wanted {
        PicturesArg::Never => None,
        PicturesArg::Kitty => Some(Protocol::Kitty),
        PicturesArg::Iterm => Some(Protocol::Iterm),
        PicturesArg::Sixel => Some(Protocol::Sixel),
        PicturesArg::Auto => detect(&|name| std::env::var(name).unwrap_or_default()),
    }
}

/// What the environment says of the terminal. Inside tmux and screen, which keep pictures to themselves, nothing.
fn detect(variable: &dyn Fn(&str) -> String) -> Option<Protocol> {
    let (term, program) = (variable("TERM"), variable("TERM_PROGRAM"));
    if term.starts_with("screen") || term.starts_with("tmux") {
        return None;
    }
    let kitty = term == "xterm-kitty" || term == "xterm-ghostty" || !variable("KITTY_WINDOW_ID").is_empty();
    match program.as_str() {
        _ if kitty => Some(Protocol::Kitty),
        "ghostty" => Some(Protocol::Kitty),
        "iTerm.app" | "WezTerm" | "mintty" => Some(Protocol::Iterm),
        _ if term.starts_with("foot") || term.starts_with("mlterm") || term.contains("sixel") => {
            Some(Protocol::Sixel)
        }
        _ => None,
    }
}

/// Writes the answers with the picture of each hit above its line.
pub(crate) fn show(results: &[Answered<'_>], engine: &Engine, protocol: Protocol) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    let draw = |out: &mut io::StdoutLock<'_>, image: &RgbImage| -> anyhow::Result<()> {
        Ok(out.write_all(encode(&shrink(image), protocol)?.as_bytes())?)
    };
    for answer in results.iter().filter(|answer| answer.error.is_none()) {
        // A picture that is gone leaves its line.
        if let Ok(image) = engine.read(answer.photo) {
            draw(&mut out, &image)?;
        }
        writeln!(out, "{}", shown(&answer.title()))?;
        if let Some(remark) = answer.remark() {
            writeln!(out, "  {}", shown(&remark))?;
        }
        for hit in &answer.hits {
            if let Some(image) = of_item(engine, &hit.item) {
                draw(&mut out, &image)?;
            }
            let line = crate::search::hits(std::slice::from_ref(hit), engine.pictures());
            out.write_all(shown(&line).as_bytes())?;
        }
    }
    Ok(out.flush()?)
}

fn of_item(engine: &Engine, item: &Item) -> Option<RgbImage> {
    let limits = Limits::default();
    let (bytes, _) = engine.pictures().open(item).ok()?.read(&limits).ok()?;
    Some(decode_small_bytes(&bytes, &limits, SIDE).ok()?.picture)
}

fn shrink(picture: &RgbImage) -> RgbImage {
    let longest = picture.width().max(picture.height());
    if longest <= SIDE {
        return picture.clone();
    }
    let scaled = |length: u32| (u64::from(length) * u64::from(SIDE) / u64::from(longest)).max(1) as u32;
    image::imageops::thumbnail(picture, scaled(picture.width()), scaled(picture.height()))
}

/// A picture as escape sequences, and the line break after it.
fn encode(picture: &RgbImage, protocol: Protocol) -> anyhow::Result<String> {
    let png = || -> anyhow::Result<Vec<u8>> {
        let mut bytes = io::Cursor::new(Vec::new());
        picture.write_to(&mut bytes, ImageFormat::Png)?;
        Ok(bytes.into_inner())
    };
    let mut out = String::new();
    match protocol {
        // https://sw.kovidgoyal.net/kitty/graphics-protocol/: PNG (f=100), shown at once (a=T), more to come (m=1).
        Protocol::Kitty => {
            let text = STANDARD.encode(png()?);
            let chunks: Vec<&[u8]> = text.as_bytes().chunks(CHUNK).collect();
            for (number, chunk) in chunks.iter().enumerate() {
                let first = if number == 0 { "f=100,a=T,q=2," } else { "" };
                let more = u8::from(number + 1 < chunks.len());
                let _ = write!(out, "\x1b_G{first}m={more};{}\x1b\\", String::from_utf8_lossy(chunk));
            }
        }
        // https://iterm2.com/documentation-images.html
        Protocol::Iterm => {
            let bytes = png()?;
            let _ = write!(
                out,
                "\x1b]1337;File=inline=1;size={};width={}px;height={}px:{}\x07",
                bytes.len(),
                picture.width(),
                picture.height(),
                STANDARD.encode(&bytes)
            );
        }
        Protocol::Sixel => sixels(picture, &mut out),
    }
    out.push('\n');
    Ok(out)
}

/// The colours of sixels: a cube of 6 × 6 × 6.
struct Cube;

impl Cube {
    fn level(value: u8) -> usize {
        (usize::from(value) * 5 + 127) / 255
    }
}

impl ColorMap for Cube {
    type Color = image::Rgb<u8>;

    fn index_of(&self, color: &Self::Color) -> usize {
        color.0.iter().fold(0, |index, value| index * 6 + Self::level(*value))
    }

    fn map_color(&self, color: &mut Self::Color) {
        color.0.iter_mut().for_each(|value| *value = (Self::level(*value) * 51) as u8);
    }
}

/// A picture as sixels, dithered (DEC, *VT330/VT340 Programmer Reference Manual*, chapter 14): bands of six rows, each
/// drawn once for every colour in it.
fn sixels(picture: &RgbImage, out: &mut String) {
    let mut picture = picture.clone();
    image::imageops::dither(&mut picture, &Cube);
    let (width, height) = picture.dimensions();
    let _ = write!(out, "\x1bPq\"1;1;{width};{height}");
    for colour in 0..216 {
        let percent = |part: usize| part * 20;
        let _ = write!(
            out,
            "#{colour};2;{};{};{}",
            percent(colour / 36),
            percent(colour / 6 % 6),
            percent(colour % 6)
        );
    }
    for top in (0..height).step_by(6) {
        let mut bands = std::collections::BTreeMap::<usize, Vec<u8>>::new();
        for (x, y) in (0..width).flat_map(|x| (top..height.min(top + 6)).map(move |y| (x, y))) {
            let bits = bands.entry(Cube.index_of(picture.get_pixel(x, y))).or_insert(vec![0; width as usize]);
            bits[x as usize] |= 1 << (y - top);
        }
        for (colour, bits) in bands {
            let _ = write!(out, "#{colour}");
            for run in bits.chunk_by(|a, b| a == b) {
                let _ = write!(out, "!{}{}", run.len(), char::from(63 + run[0]));
            }
            out.push('$');
        }
        out.push('-');
    }
    out.push_str("\x1b\\");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise() -> RgbImage {
        RgbImage::from_fn(90, 60, |x, y| {
            image::Rgb([((x * 31) ^ (y * 17)) as u8, (x * y) as u8, (x * 7) as u8])
        })
    }

    #[test]
    fn kitty_gets_a_png_in_chunks() {
        let text = encode(&noise(), Protocol::Kitty).unwrap();
        let parts: Vec<&str> = text.trim_end().split_terminator("\x1b\\").collect();
        assert!(parts.len() > 1, "long enough for several chunks");
        assert!(parts[0].starts_with("\x1b_Gf=100,a=T,q=2,m=1;"));
        assert!(parts.last().unwrap().starts_with("\x1b_Gm=0;"));
        let data: String = parts.iter().map(|part| part.split_once(';').unwrap().1).collect();
        let back = image::load_from_memory(&STANDARD.decode(data).unwrap()).unwrap();
        assert_eq!(back.to_rgb8(), noise());
    }

    #[test]
    fn iterm_gets_a_file_and_sixel_terminals_sixels() {
        let text = encode(&noise(), Protocol::Iterm).unwrap();
        let (head, data) = text.trim_end().trim_end_matches('\x07').split_once(':').unwrap();
        assert!(
            head.starts_with("\x1b]1337;File=inline=1;size=") && head.ends_with("width=90px;height=60px")
        );
        assert_eq!(image::load_from_memory(&STANDARD.decode(data).unwrap()).unwrap().to_rgb8(), noise());
    }

    /// Reads sixels back as a terminal does.
    fn draw(text: &str, width: usize, height: usize) -> Vec<Option<usize>> {
        let mut pixels = vec![None; width * height];
        let body = text.trim_end().strip_prefix("\x1bPq").unwrap().strip_suffix("\x1b\\").unwrap();
        let (mut x, mut top, mut colour, mut repeat, mut number) = (0, 0, 0, 1, String::new());
        let mut kind = ' ';
        for sign in body.chars() {
            if sign.is_ascii_digit() || sign == ';' {
                number.push(sign);
                continue;
            }
            match kind {
                '#' if !number.contains(';') => colour = number.parse().unwrap(),
                '!' => repeat = number.parse().unwrap(),
                _ => {}
            }
            (kind, number) = (sign, String::new());
            match sign {
                '$' => x = 0,
                '-' => (x, top) = (0, top + 6),
                '?'..='~' => {
                    for _ in 0..repeat {
                        for row in (0..6).filter(|row| (sign as u8 - 63) >> row & 1 == 1) {
                            pixels[(top + row) * width + x] = Some(colour);
                        }
                        x += 1;
                    }
                    repeat = 1;
                }
                _ => {}
            }
        }
        pixels
    }

    #[test]
    fn sixels_draw_every_pixel_in_its_dithered_colour() {
        let mut dithered = noise();
        image::imageops::dither(&mut dithered, &Cube);
        let drawn = draw(&encode(&noise(), Protocol::Sixel).unwrap(), 90, 60);
        let expected: Vec<_> = dithered.pixels().map(|pixel| Some(Cube.index_of(pixel))).collect();
        assert_eq!(drawn, expected);
        let average =
            |picture: &RgbImage| picture.as_raw().iter().map(|v| f64::from(*v)).sum::<f64>() / 16200.0;
        assert!((average(&dithered) - average(&noise())).abs() < 4.0, "dithering keeps the brightness");
    }

    #[test]
    fn terminals_are_told_by_their_environment() {
        let with = |pairs: &[(&str, &str)]| {
            detect(&|name| {
                pairs.iter().find(|pair| pair.0 == name).map_or_else(String::new, |pair| pair.1.to_owned())
            })
        };
        assert_eq!(with(&[("TERM", "xterm-kitty")]), Some(Protocol::Kitty));
        assert_eq!(with(&[("TERM", "xterm-256color"), ("TERM_PROGRAM", "iTerm.app")]), Some(Protocol::Iterm));
        assert_eq!(with(&[("TERM", "foot")]), Some(Protocol::Sixel));
        assert_eq!(with(&[("TERM", "xterm-256color")]), None);
        assert_eq!(with(&[("TERM", "tmux-256color"), ("KITTY_WINDOW_ID", "3")]), None);
    }
}
