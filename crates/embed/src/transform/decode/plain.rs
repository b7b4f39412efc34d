//! Formats that need no step beside their library: WebP and BMP.

use std::io::Cursor;

use image::error::{ImageError, UnsupportedErrorKind};
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader};

use super::colour_profile::{ColourSpace, Pixels};
use super::{Decoded, ImageErrorKind, Limits, orientation};

/// Decodes a picture, of an animation the first frame.
pub(super) fn decode(bytes: &[u8], format: ImageFormat, limits: &Limits) -> Result<Decoded, ImageErrorKind> {
    let failed = |error: ImageError| translate(&error, limits);
    if format == ImageFormat::WebP && is_cut(bytes) {
        return Err(ImageErrorKind::Truncated);
    }
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut memory = image::Limits::default();
    memory.max_alloc = Some(limits.max_decoded_bytes);
    reader.limits(memory);
    let mut decoder = reader.into_decoder().map_err(failed)?;
    let (width, height) = decoder.dimensions();
    limits.check_size(width, height)?;
    limits.check_memory(decoder.total_bytes())?;
    // Damaged metadata costs what it states, not the picture.
    let exif = decoder.exif_metadata().ok().flatten();
    let xmp = decoder.xmp_metadata().ok().flatten();
    let space = decoder.icc_profile().ok().flatten().map(ColourSpace::Icc);
    let image = DynamicImage::from_decoder(decoder).map_err(failed)?;
    let orientation = orientation::stated(exif.as_deref(), xmp.as_deref());
    Ok(Decoded { pixels: Pixels::Image(image), space, orientation, width, height })
}

/// Whether a WebP file is shorter than it states, which libwebp refuses too. The decoder takes what is missing for zeros.
fn is_cut(bytes: &[u8]) -> bool {
    const HEADER: u64 = 8;
    let stated = bytes.get(4..8).and_then(|size| size.try_into().ok()).map_or(0, u32::from_le_bytes);
    HEADER + u64::from(stated) > bytes.len() as u64
}

fn translate(error: &ImageError, limits: &Limits) -> ImageErrorKind {
    match error {
        ImageError::Limits(_) => ImageErrorKind::TooMuchMemory { limit: limits.max_decoded_bytes },
        ImageError::IoError(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => ImageErrorKind::Truncated,
        ImageError::Unsupported(e) if matches!(e.kind(), UnsupportedErrorKind::Format(_)) => {
            ImageErrorKind::UnknownFormat
        }
        other => ImageErrorKind::Decode(other.to_string()),
    }
}
