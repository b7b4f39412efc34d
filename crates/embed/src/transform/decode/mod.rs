//! Image files to upright 8-bit RGB, within limits.

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use image::error::UnsupportedErrorKind;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, RgbImage};
use serde::{Deserialize, Serialize};

mod jpeg;

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

/// Why a picture cannot be had, and which.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{kind}", path.as_ref().map(|p| format!("{}: ", p.display())).unwrap_or_default())]
pub struct ImageError {
    /// The file; `None` for bytes from elsewhere.
    pub path: Option<PathBuf>,
    /// The reason.
    pub kind: ImageErrorKind,
}

/// Why a picture cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImageErrorKind {
    /// There is no such file.
    #[error("the file is missing")]
    Missing,
    /// The operating system refused.
    #[error("cannot be read: {0}")]
    Io(String),
    /// A folder, pipe or device.
    #[error("is not a regular file")]
    NotAFile,
    /// Zero bytes.
    #[error("the file is empty")]
    Empty,
    /// More bytes than allowed.
    #[error("the file has {bytes} bytes, more than the limit of {limit}")]
    FileTooLarge {
        /// Its size.
        bytes: u64,
        /// [`Limits::max_file_bytes`].
        limit: u64,
    },
    /// Text or another kind of file, whatever its name says.
    #[error("is none of the image formats known (JPEG, PNG, WebP, GIF, BMP, TIFF)")]
    UnknownFormat,
    /// More pixels than allowed.
    #[error("{width} × {height} pixels are more than the limit of {max_side} a side and {max_pixels} in all")]
    TooManyPixels {
        /// Its width.
        width: u32,
        /// Its height.
        height: u32,
        /// [`Limits::max_side`].
        max_side: u32,
        /// [`Limits::max_pixels`].
        max_pixels: u64,
    },
    /// The decoder needs more memory than allowed.
    #[error("needs more than the limit of {limit} bytes to decode")]
    TooMuchMemory {
        /// [`Limits::max_decoded_bytes`].
        limit: u64,
    },
    /// No pixels at all.
    #[error("has {width} × {height} pixels")]
    NoPixels {
        /// Its width.
        width: u32,
        /// Its height.
        height: u32,
    },
    /// The file ends before its picture does.
    #[error("the file is truncated: its picture is not complete")]
    Truncated,
    /// Damaged, or of a kind the decoder does not know.
    #[error("cannot be decoded: {0}")]
    Decode(String),
    /// A fault of the program while it worked on this picture.
    #[error("the decoder failed on it: {0}")]
    Panicked(String),
    /// A batch asked for a photograph the data set has not.
    #[error("photograph number {index} was asked for, but the data set has {len}")]
    NoSuchSample {
        /// The number, from 0.
        index: usize,
        /// The size of the data set.
        len: usize,
    },
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
/// converted. The format is told from the content, never from the name; of animations the first frame counts.
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

/// As [`decode_file`], for whoever then makes the short side `short` pixels: a JPEG comes at a quarter or an eighth of its
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

/// In full, or with a short side of at least so many pixels.
fn decode_to(bytes: &[u8], limits: &Limits, short: Option<u32>) -> Result<Small, ImageErrorKind> {
    if bytes.is_empty() {
        return Err(ImageErrorKind::Empty);
    }
    if bytes.len() as u64 > limits.max_file_bytes {
        return Err(ImageErrorKind::FileTooLarge { bytes: bytes.len() as u64, limit: limits.max_file_bytes });
    }
    let failed = |error: image::ImageError| translate(&error, limits);
    let mut reader = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(|e| ImageErrorKind::Io(e.to_string()))?;
    let format = reader.format().ok_or(ImageErrorKind::UnknownFormat)?;
    if format == ImageFormat::Jpeg && !jpeg_ends(bytes) {
        return Err(ImageErrorKind::Truncated);
    }
    let mut memory = image::Limits::default();
    memory.max_alloc = Some(limits.max_decoded_bytes);
    reader.limits(memory);
    let mut decoder = reader.into_decoder().map_err(failed)?;
    let (width, height) = decoder.dimensions();
    if width == 0 || height == 0 {
        return Err(ImageErrorKind::NoPixels { width, height });
    }
    let &Limits { max_side, max_pixels, .. } = limits;
    if width.max(height) > max_side || u64::from(width) * u64::from(height) > max_pixels {
        return Err(ImageErrorKind::TooManyPixels { width, height, max_side, max_pixels });
    }
    if decoder.total_bytes() > limits.max_decoded_bytes {
        return Err(ImageErrorKind::TooMuchMemory { limit: limits.max_decoded_bytes });
    }
    // A damaged EXIF block costs the orientation, not the picture.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let reduced = short
        .filter(|_| format == ImageFormat::Jpeg)
        .and_then(|short| jpeg::reduced(bytes, (width, height), short, limits.max_decoded_bytes));
    let mut picture = match reduced {
        Some(picture) => DynamicImage::ImageRgb8(picture),
        None => DynamicImage::from_decoder(decoder).map_err(failed)?,
    };
    picture.apply_orientation(orientation);
    let turned = matches!(
        orientation,
        Orientation::Rotate90
            | Orientation::Rotate270
            | Orientation::Rotate90FlipH
            | Orientation::Rotate270FlipH
    );
    let (width, height) = if turned { (height, width) } else { (width, height) };
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

fn translate(error: &image::ImageError, limits: &Limits) -> ImageErrorKind {
    use image::ImageError;
    match error {
        ImageError::Limits(_) => ImageErrorKind::TooMuchMemory { limit: limits.max_decoded_bytes },
        ImageError::IoError(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => ImageErrorKind::Truncated,
        ImageError::Unsupported(e) if matches!(e.kind(), UnsupportedErrorKind::Format(_)) => {
            ImageErrorKind::UnknownFormat
        }
        other => ImageErrorKind::Decode(other.to_string()),
    }
}

/// Whether a JPEG's scans are followed by its end marker. The decoder fills the missing part of a truncated file with
/// grey and says nothing. Marker segments are walked first, because a preview inside one has an end marker of its own;
/// within a scan a byte FF is always followed by 00 or a marker (ITU-T T.81, B.1.1.5), so FF D9 is the end.
fn jpeg_ends(bytes: &[u8]) -> bool {
    let mut at = 2;
    while let Some(&[0xff, marker]) = bytes.get(at..at + 2) {
        match marker {
            0xff => at += 1,
            0xda => return bytes[at..].windows(2).any(|pair| pair == [0xff, 0xd9]),
            0x01 | 0xd0..=0xd8 => at += 2,
            _ => match bytes.get(at + 2..at + 4) {
                Some(&[high, low]) => at += 2 + usize::from(u16::from_be_bytes([high, low])).max(2),
                _ => return false,
            },
        }
    }
    false
}

#[cfg(test)]
mod tests;
