//! JPEG, in full or at a part of its size.

use std::borrow::Cow;

use image::{DynamicImage, GrayImage, RgbImage};
use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::colour_profile::Pixels;
use super::{Decoded, ImageErrorKind, Limits};

mod block;
mod header;
mod huffman;
mod reduced;
mod scan;

use header::{END_OF_IMAGE, Header};
use scan::{Fault, Irregularities};

/// Decodes a JPEG of which every pixel is there; `short` is what [`super::decode_small_bytes`] says.
pub(super) fn decode(bytes: &[u8], limits: &Limits, short: Option<u32>) -> Result<Decoded, ImageErrorKind> {
    let header = Header::read(bytes)?;
    let (width, height) = (header.frame.width, header.frame.height);
    limits.check_size(width, height)?;
    limits.check_memory(memory(&header))?;
    let mut separate = false;
    let whole = match scan::check(bytes, &header.frame) {
        Ok(irregularities) => {
            separate = irregularities.separate;
            without(bytes, &irregularities)
        }
        Err(fault) => {
            refuse(fault)?;
            Cow::Borrowed(bytes)
        }
    };
    let reduced = short.and_then(|short| {
        reduced::jpeg(&whole, (width, height), short, limits.max_decoded_bytes).map(DynamicImage::from)
    });
    let other = || {
        reduced::divided(&whole, (width, height), 1, limits.max_decoded_bytes)
            .map(|picture| Pixels::Image(picture.into()))
    };
    let pixels = match reduced {
        Some(picture) => Pixels::Image(picture),
        // The quick decoder puts separate components of different sizes together wrongly.
        None if separate => match other() {
            Some(pixels) => pixels,
            None => full(&whole, &header)?,
        },
        None => full(&whole, &header).or_else(|kind| other().ok_or(kind))?,
    };
    Ok(Decoded { pixels, space: header.space, orientation: header.orientation, width, height })
}

/// Whether every pixel of a JPEG is there, also of one that is a part of another file. What is not coded as the check knows
/// passes.
pub(super) fn check(bytes: &[u8]) -> Result<(), ImageErrorKind> {
    let header = Header::read(bytes)?;
    scan::check(bytes, &header.frame).map(drop).or_else(refuse)
}

/// The error of a fault that leaves pixels out.
fn refuse(fault: Fault) -> Result<(), ImageErrorKind> {
    match fault {
        Fault::Truncated => Err(ImageErrorKind::Truncated),
        Fault::Damaged => Err(ImageErrorKind::Damaged("part of its picture cannot be decoded".into())),
        Fault::Unknown => Ok(()),
    }
}

/// The width and height that a JPEG states, also one that is a part of another file.
pub(super) fn stated_size(bytes: &[u8]) -> Option<(u32, u32)> {
    let mut segments = header::Segments::new(bytes);
    let frame = segments.find(|segment| matches!(segment.marker, 0xc0..=0xc2))?;
    let side = |at: usize| frame.content.get(at..at + 2).map(|s| u32::from(u16::from_be_bytes([s[0], s[1]])));
    Some((side(3)?, side(1)?))
}

/// Bytes that decoding in full takes: the samples, and for progressive JPEGs the coefficients of all blocks.
fn memory(header: &Header) -> u64 {
    let frame = &header.frame;
    let area = u64::from(frame.width) * u64::from(frame.height);
    let samples = frame.components.len() as u64;
    let coefficients: u64 = if frame.progressive {
        let most =
            |side: fn(&header::Component) -> usize| frame.components.iter().map(side).max().unwrap_or(1);
        let unit = (most(|c| c.sampling.0) * most(|c| c.sampling.1)) as u64;
        frame.components.iter().map(|c| area * (c.sampling.0 * c.sampling.1) as u64 / unit * 2).sum()
    } else {
        0
    };
    area * samples + coefficients
}

/// The file without bytes that stand nowhere, and with an end: decoders differ in how they take both.
fn without<'a>(bytes: &'a [u8], irregularities: &Irregularities) -> Cow<'a, [u8]> {
    if irregularities.gaps.is_empty() && irregularities.end.is_none() {
        return Cow::Borrowed(bytes);
    }
    let end = irregularities.end.unwrap_or(bytes.len());
    let (mut whole, mut from) = (Vec::with_capacity(end + 2), 0);
    for gap in &irregularities.gaps {
        whole.extend_from_slice(&bytes[from..gap.start]);
        from = gap.end;
    }
    whole.extend_from_slice(&bytes[from.min(end)..end]);
    if irregularities.end.is_some() {
        whole.extend([0xff, END_OF_IMAGE]);
    }
    Cow::Owned(whole)
}

/// All pixels, as grey, RGB or inks.
fn full(bytes: &[u8], header: &Header) -> Result<Pixels, ImageErrorKind> {
    let options = DecoderOptions::default()
        .set_strict_mode(false)
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX));
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(translate)?;
    let output = match decoder.input_colorspace() {
        Some(grey_or_inks @ (ColorSpace::Luma | ColorSpace::CMYK | ColorSpace::YCCK)) => grey_or_inks,
        _ => ColorSpace::RGB,
    };
    // Three components with Adobe's transform 0 are RGB; the decoder finds out while it decodes.
    let output = if header.frame.components.len() == 3 { ColorSpace::RGB } else { output };
    decoder.set_options(options.jpeg_set_out_colorspace(output));
    let mut samples = decoder.decode().map_err(translate)?;
    let (width, height) = (header.frame.width, header.frame.height);
    let pixels = match output {
        ColorSpace::Luma => {
            GrayImage::from_raw(width, height, samples).map(|grey| Pixels::Image(grey.into()))
        }
        ColorSpace::CMYK | ColorSpace::YCCK => {
            let expected = 4 * width as usize * height as usize;
            make_inks(&mut samples, output == ColorSpace::YCCK, header.adobe.is_some());
            (samples.len() == expected).then_some(Pixels::Cmyk { width, height, inks: samples })
        }
        _ => RgbImage::from_raw(width, height, samples).map(|rgb| Pixels::Image(rgb.into())),
    };
    pixels.ok_or_else(|| ImageErrorKind::Decode("the JPEG decoder returned another size".to_owned()))
}

/// Samples of four components as inks. Adobe's programs, whose segment says so, store them inverted.
fn make_inks(samples: &mut [u8], ycck: bool, inverted: bool) {
    for pixel in samples.as_chunks_mut::<4>().0 {
        if ycck {
            let [y, cb, cr, _] = pixel.map(f32::from);
            let (cb, cr) = (cb - 128.0, cr - 128.0);
            let rgb = [y + 1.402 * cr, y - 0.344_136 * cb - 0.714_136 * cr, y + 1.772 * cb];
            // Luma and chroma stand for what the inks let through.
            for (ink, through) in pixel.iter_mut().zip(rgb) {
                *ink = 255 - (through + 0.5) as u8;
            }
        }
        if inverted {
            *pixel = pixel.map(|ink| 255 - ink);
        }
    }
}

fn translate(error: DecodeErrors) -> ImageErrorKind {
    match error {
        DecodeErrors::ExhaustedData | DecodeErrors::IoErrors(_) => ImageErrorKind::Truncated,
        other => ImageErrorKind::Decode(format!("{other:?}")),
    }
}
