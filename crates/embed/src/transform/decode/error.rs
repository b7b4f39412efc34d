//! Why a picture cannot be decoded.

use std::borrow::Cow;
use std::path::PathBuf;

/// Why a picture cannot be decoded, and which picture.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{kind}", path.as_ref().map(|p| format!("{}: ", p.display())).unwrap_or_default())]
pub struct ImageError {
    /// The file; `None` for bytes from elsewhere.
    pub path: Option<PathBuf>,
    /// The reason.
    pub kind: ImageErrorKind,
}

/// Why a picture cannot be decoded.
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
        /// [`Limits::max_file_bytes`](super::Limits::max_file_bytes).
        limit: u64,
    },
    /// Text or another kind of file, whatever its name says.
    #[error("is none of the image formats known (JPEG, PNG, WebP, GIF, BMP, TIFF)")]
    UnknownFormat,
    /// A format that is recognised but not decoded, such as HEIC, whatever the file's name says.
    #[error("is {0}; convert it to JPEG or PNG")]
    ForeignFormat(&'static str),
    /// A known format of a kind that is not decoded, such as an arithmetic-coded JPEG.
    #[error("is {0}, a kind that is not supported; convert it to an ordinary JPEG or PNG")]
    UnsupportedKind(String),
    /// More pixels than allowed.
    #[error(
        "{width} × {height} pixels are more than the limit of {max_side} per side and {max_pixels} in all"
    )]
    TooManyPixels {
        /// Its width.
        width: u32,
        /// Its height.
        height: u32,
        /// [`Limits::max_side`](super::Limits::max_side).
        max_side: u32,
        /// [`Limits::max_pixels`](super::Limits::max_pixels).
        max_pixels: u64,
    },
    /// The decoder needs more memory than allowed.
    #[error("needs more than the limit of {limit} bytes to decode")]
    TooMuchMemory {
        /// [`Limits::max_decoded_bytes`](super::Limits::max_decoded_bytes).
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
    /// The file has its full length, but part of its picture does not decode.
    #[error("the file is damaged: {0}; replace it with an intact copy")]
    Damaged(Cow<'static, str>),
    /// The decoder refused the file.
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
