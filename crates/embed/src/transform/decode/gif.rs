//! GIF: the first frame.

use std::io::Cursor;
use std::num::NonZeroU64;

use gif::{ColorOutput, DecodeOptions, DecodingError, MemoryLimit};
use image::metadata::Orientation;
use image::{DynamicImage, RgbaImage};

use super::colour_profile::{ColourSpace, Pixels};
use super::{Decoded, ImageErrorKind, Limits};

/// Decodes the first frame onto the logical screen, which grows where the frame does not fit: many writers leave the screen
/// at 0 × 0, and other readers show the frame.
pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<Decoded, ImageErrorKind> {
    let failed = |error: DecodingError| translate(&error, limits);
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::RGBA);
    if let Some(bytes) = NonZeroU64::new(limits.max_decoded_bytes) {
        options.set_memory_limit(MemoryLimit::Bytes(bytes));
    }
    let mut decoder = options.read_info(Cursor::new(bytes)).map_err(failed)?;
    let screen = (u32::from(decoder.width()), u32::from(decoder.height()));
    let Some(frame) = decoder.next_frame_info().map_err(failed)? else {
        return Err(ImageErrorKind::Decode("the GIF holds no frame".to_owned()));
    };
    let (left, top) = (u32::from(frame.left), u32::from(frame.top));
    let (frame_width, frame_height) = (u32::from(frame.width), u32::from(frame.height));
    let (width, height) = (screen.0.max(left + frame_width), screen.1.max(top + frame_height));
    limits.check_size(width, height)?;
    let pixels = u64::from(width) * u64::from(height) + u64::from(frame_width) * u64::from(frame_height);
    limits.check_memory(4 * pixels)?;
    let mut samples = vec![0; decoder.buffer_size()];
    decoder.read_into_buffer(&mut samples).map_err(failed)?;
    let frame = RgbaImage::from_raw(frame_width, frame_height, samples)
        .ok_or_else(|| ImageErrorKind::Decode("the GIF's first frame is incomplete".to_owned()))?;
    let picture = if (width, height) == frame.dimensions() {
        frame
    } else {
        let mut picture = RgbaImage::new(width, height);
        image::imageops::replace(&mut picture, &frame, left.into(), top.into());
        picture
    };
    Ok(Decoded {
        pixels: Pixels::Image(DynamicImage::ImageRgba8(picture)),
        space: decoder.icc_profile().map(|profile| ColourSpace::Icc(profile.to_vec())),
        orientation: Orientation::NoTransforms,
        width,
        height,
    })
}

fn translate(error: &DecodingError, limits: &Limits) -> ImageErrorKind {
    match error {
        DecodingError::MemoryLimit | DecodingError::OutOfMemory => {
            ImageErrorKind::TooMuchMemory { limit: limits.max_decoded_bytes }
        }
        DecodingError::UnexpectedEof => ImageErrorKind::Truncated,
        DecodingError::Io(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => ImageErrorKind::Truncated,
        other => ImageErrorKind::Decode(other.to_string()),
    }
}
