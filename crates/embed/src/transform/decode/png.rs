//! PNG, with the metadata that may lie behind its pixels.

use std::io::Cursor;

use image::{DynamicImage, ImageBuffer};
use png::text_metadata::ITXtChunk;
use png::{BitDepth, ColorType, Decoder, DecodingError, Info, Transformations};

use super::colour_profile::{ColourSpace, Pixels};
use super::{Decoded, ImageErrorKind, Limits, orientation};

/// Decodes the default picture; frames of an animation are not looked at.
pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<Decoded, ImageErrorKind> {
    let failed = |error: DecodingError| translate(&error, limits);
    let memory = png::Limits { bytes: usize::try_from(limits.max_decoded_bytes).unwrap_or(usize::MAX) };
    let mut decoder = Decoder::new_with_limits(Cursor::new(bytes), memory);
    decoder.set_ignore_text_chunk(false);
    // Palettes and fewer than 8 bits to bytes; transparent colours to alpha.
    decoder.set_transformations(Transformations::EXPAND);
    let (width, height) = decoder.read_header_info().map_err(failed)?.size();
    limits.check_size(width, height)?;
    let mut reader = decoder.read_info().map_err(failed)?;
    let (colour, depth) = reader.output_color_type();
    let size = reader.output_buffer_size().unwrap_or(usize::MAX);
    limits.check_memory(size as u64)?;
    let mut samples = vec![0; size];
    reader.next_frame(&mut samples).map_err(failed)?;
    // Whatever is wrong behind the pixels costs the metadata there, not the picture.
    let _ = reader.finish();
    let info = reader.info();
    let image = assemble(width, height, colour, depth, samples)
        .ok_or_else(|| ImageErrorKind::Decode(format!("a PNG of {colour:?} at {depth:?} bits")))?;
    Ok(Decoded {
        pixels: Pixels::Image(image),
        space: colour_space(info),
        orientation: stated_orientation(info),
        width,
        height,
    })
}

fn assemble(
    width: u32,
    height: u32,
    colour: ColorType,
    depth: BitDepth,
    samples: Vec<u8>,
) -> Option<DynamicImage> {
    if depth == BitDepth::Eight {
        return match colour {
            ColorType::Grayscale => {
                ImageBuffer::from_raw(width, height, samples).map(DynamicImage::ImageLuma8)
            }
            ColorType::GrayscaleAlpha => {
                ImageBuffer::from_raw(width, height, samples).map(DynamicImage::ImageLumaA8)
            }
            ColorType::Rgb => ImageBuffer::from_raw(width, height, samples).map(DynamicImage::ImageRgb8),
            ColorType::Rgba => ImageBuffer::from_raw(width, height, samples).map(DynamicImage::ImageRgba8),
            ColorType::Indexed => None,
        };
    }
    let samples = samples.as_chunks::<2>().0.iter().map(|pair| u16::from_be_bytes(*pair)).collect();
    match colour {
        ColorType::Grayscale => ImageBuffer::from_raw(width, height, samples).map(DynamicImage::ImageLuma16),
        ColorType::GrayscaleAlpha => {
            ImageBuffer::from_raw(width, height, samples).map(DynamicImage::ImageLumaA16)
        }
        ColorType::Rgb => ImageBuffer::from_raw(width, height, samples).map(DynamicImage::ImageRgb16),
        ColorType::Rgba => ImageBuffer::from_raw(width, height, samples).map(DynamicImage::ImageRgba16),
        ColorType::Indexed => None,
    }
}

/// The colour space by the order of the PNG specification: `cICP`, `iCCP`, `sRGB`, then `gAMA` and `cHRM`.
fn colour_space(info: &Info<'_>) -> Option<ColourSpace> {
    if let Some(points) = info.coding_independent_code_points
        && points.matrix_coefficients == 0
        && points.is_video_full_range_image
    {
        let (primaries, transfer) = (points.color_primaries, points.transfer_function);
        return Some(ColourSpace::CodePoints { primaries, transfer });
    }
    if let Some(profile) = &info.icc_profile {
        return Some(ColourSpace::Icc(profile.to_vec()));
    }
    if info.srgb.is_some() {
        return None;
    }
    let gamma = info.gama_chunk.map(|gamma| gamma.into_scaled());
    let chromaticities = info.chrm_chunk.map(|c| {
        let [white, red, green, blue] = [c.white, c.red, c.green, c.blue];
        [white.0, white.1, red.0, red.1, green.0, green.1, blue.0, blue.1].map(|value| value.into_scaled())
    });
    (gamma.is_some() || chromaticities.is_some()).then_some(ColourSpace::Calibrated { gamma, chromaticities })
}

/// The orientation of `eXIf`, of the text chunks that stood for it before, or of XMP.
fn stated_orientation(info: &Info<'_>) -> image::metadata::Orientation {
    const PROFILES: [&str; 2] = ["Raw profile type exif", "Raw profile type APP1"];
    let plain = info.uncompressed_latin1_text.iter().map(|chunk| (&chunk.keyword, Some(chunk.text.clone())));
    let packed = info.compressed_latin1_text.iter().map(|chunk| (&chunk.keyword, chunk.get_text().ok()));
    let utf8 = info.utf8_text.iter().map(|chunk| (&chunk.keyword, utf8_text(chunk)));
    let mut blocks: Vec<Vec<u8>> = info.exif_metadata.iter().map(|exif| exif.to_vec()).collect();
    let mut xmp = None;
    // Only the chunks that are wanted are unpacked.
    for (keyword, text) in plain.chain(packed).chain(utf8) {
        if PROFILES.contains(&keyword.as_str()) {
            blocks.extend(text.as_deref().and_then(raw_profile));
        } else if keyword == "XML:com.adobe.xmp" {
            xmp = text;
        }
    }
    orientation::stated(blocks.iter().map(Vec::as_slice), xmp.as_deref().map(str::as_bytes))
}

fn utf8_text(chunk: &ITXtChunk) -> Option<String> {
    chunk.get_text().ok()
}

/// The content of a profile as ImageMagick writes it: its name and its length, then hexadecimal digits in lines.
fn raw_profile(text: &str) -> Option<Vec<u8>> {
    let mut lines = text.trim_start().lines();
    let (_name, length) = (lines.next()?, lines.next()?);
    let length: usize = length.trim().parse().ok()?;
    let digits: Vec<u8> = lines
        .flat_map(str::bytes)
        .filter_map(|digit| char::from(digit).to_digit(16).map(|value| value as u8))
        .collect();
    let bytes: Vec<u8> = digits.as_chunks::<2>().0.iter().map(|[high, low]| high << 4 | low).collect();
    (bytes.len() == length).then_some(bytes)
}

fn translate(error: &DecodingError, limits: &Limits) -> ImageErrorKind {
    match error {
        DecodingError::LimitsExceeded => ImageErrorKind::TooMuchMemory { limit: limits.max_decoded_bytes },
        DecodingError::IoError(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
            ImageErrorKind::Truncated
        }
        other => ImageErrorKind::Decode(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_profiles_are_hexadecimal_lines() {
        assert_eq!(raw_profile("\nexif\n       4\n4578\n6966\n").as_deref(), Some(&b"Exif"[..]));
        assert_eq!(raw_profile("\nexif\n       5\n45786966\n"), None);
        assert_eq!(raw_profile("exif"), None);
        assert_eq!(raw_profile(""), None);
    }
}
