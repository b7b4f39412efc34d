//! TIFF and BigTIFF: the first page that is no thumbnail.

use std::borrow::Cow;
use std::io::Cursor;

use image::metadata::Orientation;
use tiff::decoder::{Decoder, DecodingResult};
use tiff::tags::Tag;
use tiff::{TiffError, TiffUnsupportedError};

use super::colour_profile::ColourSpace;
use super::{Decoded, ImageErrorKind, Limits};

mod chunk;
mod directory;
mod samples;

use chunk::Chunks;
use directory::{Directory, tag};
use samples::{Layout, Palette};

/// Decodes one page.
pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<Decoded, ImageErrorKind> {
    let first = Directory::first(bytes).ok_or(ImageErrorKind::Truncated)?;
    let (page, directory) = main_page(first);
    read(bytes, page, directory, limits).map_err(|fault| match fault {
        Fault::Named(kind) => kind,
        Fault::Decoder(error) => translate(error, directory, limits),
    })
}

/// Pages looked at.
const MAX_PAGES: usize = 64;

/// The first page that is neither a smaller version of another nor a mask; the first one if all are.
fn main_page(first: Directory<'_>) -> (usize, Directory<'_>) {
    const SMALLER: u64 = 1;
    const MASK: u64 = 4;
    std::iter::successors(Some(first), Directory::next)
        .take(MAX_PAGES)
        .enumerate()
        .find(|(_, page)| page.value(tag::NEW_SUBFILE_TYPE).unwrap_or(0) & (SMALLER | MASK) == 0)
        .unwrap_or((0, first))
}

/// Why a page cannot be read.
enum Fault {
    Named(ImageErrorKind),
    Decoder(TiffError),
}

impl From<ImageErrorKind> for Fault {
    fn from(kind: ImageErrorKind) -> Self {
        Self::Named(kind)
    }
}

impl From<TiffError> for Fault {
    fn from(error: TiffError) -> Self {
        Self::Decoder(error)
    }
}

type Reader<'a> = Decoder<Cursor<&'a [u8]>>;

fn open<'a>(bytes: &'a [u8], page: usize, limits: &Limits) -> Result<Reader<'a>, Fault> {
    let most = usize::try_from(limits.max_decoded_bytes).unwrap_or(usize::MAX);
    let mut memory = tiff::decoder::Limits::default();
    (memory.decoding_buffer_size, memory.intermediate_buffer_size) = (most, most);
    memory.ifd_value_size = most.min(16 << 20);
    let mut decoder = Decoder::new(Cursor::new(bytes))?.with_limits(memory);
    if page > 0 {
        decoder.seek_to_image(page)?;
    }
    Ok(decoder)
}

fn read(bytes: &[u8], page: usize, directory: Directory<'_>, limits: &Limits) -> Result<Decoded, Fault> {
    let mut decoder = open(bytes, page, limits)?;
    let (width, height) = decoder.dimensions()?;
    limits.check_size(width, height)?;
    let chunks = Chunks::of(&mut decoder)?;
    chunks.check(bytes, &mut decoder, directory)?;
    let palette = Palette::read(&mut decoder, directory)?;
    let changed = changed(bytes, &chunks, directory, palette.is_some())?;
    if let Cow::Owned(changed) = &changed {
        decoder = open(changed, page, limits)?;
    }
    let layout = Layout::of(&mut decoder, directory.value(tag::EXTRA_SAMPLES), width, height)?;
    let mut result = DecodingResult::U8(Vec::new());
    let planes = decoder.read_image_to_buffer(&mut result).map_err(|error| match chunks.cut(bytes) {
        Some(cut) if is_end(&error) => Fault::Named(cut),
        _ => error.into(),
    })?;
    let pixels = samples::pixels(result, &layout, planes.planes, palette.as_ref())?;
    let orientation = directory
        .value(tag::ORIENTATION)
        .and_then(|value| Orientation::from_exif(u8::try_from(value).ok()?))
        .unwrap_or(Orientation::NoTransforms);
    let space = decoder.get_tag_u8_vec(Tag::IccProfile).ok().map(ColourSpace::Icc);
    Ok(Decoded { pixels, space, orientation, width, height })
}

/// The file as its decoder can take it: palettes are read as grey, since the decoder does not look colours up; a sample
/// beside RGB that means nothing is read as alpha, since the decoder undoes prediction wrongly where it leaves samples out;
/// and bits that are stored in reverse are turned round.
fn changed<'a>(
    bytes: &'a [u8],
    chunks: &Chunks,
    directory: Directory<'_>,
    palette: bool,
) -> Result<Cow<'a, [u8]>, Fault> {
    const BLACK_IS_ZERO: u64 = 1;
    const RGB: u64 = 2;
    const UNASSOCIATED_ALPHA: u64 = 2;
    const REVERSED: u64 = 2;
    let mut changed = Cow::Borrowed(bytes);
    let mut set = |tag, value| {
        if let Some((at, size)) = directory.place(tag)
            && let Some(place) = changed.to_mut().get_mut(at..at.saturating_add(size))
        {
            place.copy_from_slice(&directory.bytes_of(value, size));
        }
    };
    if palette {
        set(tag::PHOTOMETRIC, BLACK_IS_ZERO);
    }
    if directory.value(tag::PHOTOMETRIC) == Some(RGB)
        && directory.value(tag::SAMPLES_PER_PIXEL) == Some(4)
        && directory.value(tag::EXTRA_SAMPLES) == Some(0)
    {
        set(tag::EXTRA_SAMPLES, UNASSOCIATED_ALPHA);
    } else if directory.value(tag::EXTRA_SAMPLES).is_some()
        && directory.value(tag::SAMPLES_PER_PIXEL).is_some_and(|samples| samples > 4)
        && directory.value(tag::PREDICTOR).is_some_and(|predictor| predictor > 1)
    {
        let kind = "a TIFF of more than four samples per pixel, stored as differences";
        return Err(ImageErrorKind::UnsupportedKind(kind.to_owned()).into());
    }
    if directory.value(tag::FILL_ORDER) == Some(REVERSED) {
        for (start, end) in chunks.ranges(bytes) {
            changed.to_mut()[start.min(end)..end].iter_mut().for_each(|byte| *byte = byte.reverse_bits());
        }
    }
    Ok(changed)
}

/// Whether data ended before the picture did.
fn is_end(error: &TiffError) -> bool {
    matches!(error, TiffError::IoError(e) if e.kind() == std::io::ErrorKind::UnexpectedEof)
}

fn translate(error: TiffError, directory: Directory<'_>, limits: &Limits) -> ImageErrorKind {
    match error {
        error if is_end(&error) => ImageErrorKind::Truncated,
        TiffError::LimitsExceeded => ImageErrorKind::TooMuchMemory { limit: limits.max_decoded_bytes },
        TiffError::UnsupportedError(error) => unsupported(&error, directory),
        other => ImageErrorKind::Decode(other.to_string()),
    }
}

fn unsupported(error: &TiffUnsupportedError, directory: Directory<'_>) -> ImageErrorKind {
    let kind = directory.oddity();
    ImageErrorKind::UnsupportedKind(kind.unwrap_or_else(|| format!("a TIFF of a rare kind ({error})")))
}
