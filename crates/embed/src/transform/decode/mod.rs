//! Image files to upright 8-bit RGB, within limits.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use image::metadata::Orientation;
use image::{DynamicImage, ImageFormat, RgbImage};
use serde::{Deserialize, Serialize};

mod colour_profile;
mod error;
mod format;
mod gif;
mod jpeg;
mod orientation;
mod plain;
mod png;
mod tiff;

use colour_profile::{ColourSpace, Pixels};
pub use error::{ImageError, ImageErrorKind};
use format::Format;

/// What a file may cost. All are checked from the header, before memory for pixels is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Largest file in bytes.
    pub max_file_bytes: u64,
    /// Largest width or height in pixels.
    pub max_side: u32,
    /// Largest number of pixels.
    pub max_pixels: u64,
    /// Most memory the decoded picture and its decoder may take, in bytes.
    pub max_decoded_bytes: u64,
}

impl Limits {
    fn check_size(&self, width: u32, height: u32) -> Result<(), ImageErrorKind> {
        if width == 0 || height == 0 {
            return Err(ImageErrorKind::NoPixels { width, height });
        }
        let &Self { max_side, max_pixels, .. } = self;
        if width.max(height) > max_side || u64::from(width) * u64::from(height) > max_pixels {
            return Err(ImageErrorKind::TooManyPixels { width, height, max_side, max_pixels });
        }
        Ok(())
    }

    fn check_memory(&self, bytes: u64) -> Result<(), ImageErrorKind> {
        let limit = self.max_decoded_bytes;
        if bytes > limit { Err(ImageErrorKind::TooMuchMemory { limit }) } else { Ok(()) }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_file_bytes: 64 << 20,
            max_side: 30_000,
            max_pixels: 100_000_000,
            max_decoded_bytes: 1 << 30,
        }
    }
}

/// A picture, perhaps smaller than its file has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Small {
    /// The picture, upright.
    pub picture: RgbImage,
    /// The upright width of the file's picture.
    pub width: u32,
    /// The upright height of the file's picture.
    pub height: u32,
}

/// Reads a picture as upright RGB: EXIF orientation applied, transparency laid over white, grey, palette and 16-bit
/// converted. The format is found from the content, never from the name; of animations the first frame counts.
///
/// # Errors
/// [`ImageError`] names the file.
pub fn decode_file(path: &Path, limits: &Limits) -> Result<RgbImage, ImageError> {
    let named = |kind| ImageError { path: Some(path.to_path_buf()), kind };
    let bytes = read(path, limits).map_err(named)?;
    decode(&bytes, limits).map_err(named)
}

/// As [`decode_file`], for the content of a file.
///
/// # Errors
/// [`ImageError`] without a path.
pub fn decode_bytes(bytes: &[u8], limits: &Limits) -> Result<RgbImage, ImageError> {
    decode(bytes, limits).map_err(|kind| ImageError { path: None, kind })
}

/// As [`decode_file`], for callers that then scale the short side to `short` pixels: a JPEG comes at a quarter or an eighth of its
/// size, as long as that leaves twice as many (2,048 in the file for 256). Of twelve megapixels that takes half to two thirds
/// of the time and a sixteenth of the pixels in memory.
///
/// # Errors
/// [`ImageError`] names the file.
pub fn decode_small_file(path: &Path, limits: &Limits, short: u32) -> Result<Small, ImageError> {
    let named = |kind| ImageError { path: Some(path.to_path_buf()), kind };
    let bytes = read(path, limits).map_err(named)?;
    decode_to(&bytes, limits, Some(short)).map_err(named)
}

/// As [`decode_small_file`], for the content of a file.
///
/// # Errors
/// [`ImageError`] without a path.
pub fn decode_small_bytes(bytes: &[u8], limits: &Limits, short: u32) -> Result<Small, ImageError> {
    decode_to(bytes, limits, Some(short)).map_err(|kind| ImageError { path: None, kind })
}

/// The content of a regular file within the limit.
pub(crate) fn read(path: &Path, limits: &Limits) -> Result<Vec<u8>, ImageErrorKind> {
    let io = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => ImageErrorKind::Missing,
        _ => ImageErrorKind::Io(error.to_string()),
    };
    let limit = limits.max_file_bytes;
    let too_large = |bytes| ImageErrorKind::FileTooLarge { bytes, limit };
    // Before opening: a pipe would block.
    let meta = std::fs::metadata(path).map_err(io)?;
    if !meta.is_file() {
        return Err(ImageErrorKind::NotAFile);
    }
    if meta.len() > limit {
        return Err(too_large(meta.len()));
    }
    let mut bytes = Vec::with_capacity(meta.len() as usize);
    File::open(path).and_then(|f| f.take(limit.saturating_add(1)).read_to_end(&mut bytes)).map_err(io)?;
    if bytes.len() as u64 > limit { Err(too_large(bytes.len() as u64)) } else { Ok(bytes) }
}

pub(crate) fn decode(bytes: &[u8], limits: &Limits) -> Result<RgbImage, ImageErrorKind> {
    decode_to(bytes, limits, None).map(|small| small.picture)
}

/// A picture as its file has it: before colours are converted and before it is turned.
struct Decoded {
    pixels: Pixels,
    space: Option<ColourSpace>,
    orientation: Orientation,
    /// The width in the file.
    width: u32,
    /// The height in the file.
    height: u32,
}

/// In full, or with a short side of at least so many pixels.
fn decode_to(bytes: &[u8], limits: &Limits, short: Option<u32>) -> Result<Small, ImageErrorKind> {
    if bytes.is_empty() {
        return Err(ImageErrorKind::Empty);
    }
    if bytes.len() as u64 > limits.max_file_bytes {
        return Err(ImageErrorKind::FileTooLarge { bytes: bytes.len() as u64, limit: limits.max_file_bytes });
    }
    let decoded = match Format::of(bytes)? {
        Format::Jpeg => jpeg::decode(bytes, limits, short)?,
        Format::Png => png::decode(bytes, limits)?,
        Format::Gif => gif::decode(bytes, limits)?,
        Format::Tiff => tiff::decode(bytes, limits)?,
        Format::WebP => plain::decode(bytes, ImageFormat::WebP, limits)?,
        Format::Bmp => plain::decode(bytes, ImageFormat::Bmp, limits)?,
    };
    let Decoded { pixels, space, orientation, width, height } = decoded;
    let mut picture = pixels.into_srgb(space.as_ref());
    picture.apply_orientation(orientation);
    let (width, height) = if orientation::turns(orientation) { (height, width) } else { (width, height) };
    let picture = if picture.color().has_alpha() { over_white(&picture) } else { picture.into_rgb8() };
    Ok(Small { picture, width, height })
}

fn over_white(picture: &DynamicImage) -> RgbImage {
    let rgba = picture.to_rgba8();
    let mut rgb = RgbImage::new(rgba.width(), rgba.height());
    for (to, from) in rgb.pixels_mut().zip(rgba.pixels()) {
        let alpha = u32::from(from.0[3]);
        to.0 =
            std::array::from_fn(|c| ((u32::from(from.0[c]) * alpha + 255 * (255 - alpha) + 127) / 255) as u8);
    }
    rgb
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod damage_tests;

#[cfg(test)]
mod kinds_tests;
