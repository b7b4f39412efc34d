//! Strips and tiles: where they lie in the file, and whether each is whole.

use std::borrow::Cow;
use std::io::Read;

use tiff::tags::{CompressionMethod, Tag};

use super::super::{ImageErrorKind, jpeg};
use super::directory::{Directory, tag};
use super::{Fault, Reader};

/// The strips or tiles of a page.
pub(super) struct Chunks {
    /// `strip` or `tile`.
    name: &'static str,
    /// The first byte of each and the byte behind its last, as the file states them.
    ranges: Vec<(u64, u64)>,
}

impl Chunks {
    pub(super) fn of(decoder: &mut Reader<'_>) -> Result<Self, Fault> {
        let tiled = decoder.find_tag(Tag::TileOffsets)?.is_some();
        let (name, offsets, counts) = if tiled {
            ("tile", Tag::TileOffsets, Tag::TileByteCounts)
        } else {
            ("strip", Tag::StripOffsets, Tag::StripByteCounts)
        };
        let (offsets, counts) = (decoder.get_tag_u64_vec(offsets)?, decoder.get_tag_u64_vec(counts)?);
        let ends = offsets.iter().zip(&counts).map(|(offset, count)| offset.saturating_add(*count));
        let ranges = offsets.iter().copied().zip(ends).collect();
        Ok(Self { name, ranges })
    }

    /// The bytes of each that are inside the file.
    pub(super) fn ranges(&self, bytes: &[u8]) -> impl Iterator<Item = (usize, usize)> {
        let length = bytes.len();
        let inside = move |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(length);
        self.ranges.iter().map(move |(start, end)| (inside(*start), inside(*end)))
    }

    /// The error of a file that ends within one of them; `None` if all are inside the file.
    pub(super) fn cut(&self, bytes: &[u8]) -> Option<ImageErrorKind> {
        let place = self.ranges.iter().position(|(_, end)| *end > bytes.len() as u64)?;
        Some(self.damaged(place, "is cut off at the end of the file"))
    }

    fn damaged(&self, place: usize, how: &str) -> ImageErrorKind {
        let Self { name, ranges } = self;
        ImageErrorKind::Damaged(Cow::Owned(format!("{name} {} of {} {how}", place + 1, ranges.len())))
    }

    /// Refuses what the decoder takes without a word: JPEG data with a hole, JPEG data larger than its strip or tile (the
    /// decoder takes memory for what the JPEG says), and Deflate data that does not have its checksum. LZW, PackBits and
    /// uncompressed data carry nothing that would tell a changed byte.
    pub(super) fn check(
        &self,
        bytes: &[u8],
        decoder: &mut Reader<'_>,
        directory: Directory<'_>,
    ) -> Result<(), Fault> {
        let compression = directory.value(tag::COMPRESSION).and_then(|value| u16::try_from(value).ok());
        match compression.map(CompressionMethod::from_u16_exhaustive) {
            Some(CompressionMethod::ModernJPEG) => self.check_jpeg(bytes, decoder),
            Some(CompressionMethod::Deflate | CompressionMethod::OldDeflate) => {
                self.check_deflate(bytes, decoder, directory)
            }
            _ => Ok(()),
        }
    }

    fn check_jpeg(&self, bytes: &[u8], decoder: &mut Reader<'_>) -> Result<(), Fault> {
        // Sides are rounded up to whole units of blocks.
        const UNIT: u32 = 32;
        let (width, height) = decoder.chunk_dimensions();
        let (width, height) = (width.saturating_add(UNIT), height.saturating_add(UNIT));
        let tables = if decoder.find_tag(Tag::JPEGTables)?.is_some() {
            decoder.get_tag_u8_vec(Tag::JPEGTables)?
        } else {
            Vec::new()
        };
        for (place, (start, end)) in self.ranges(bytes).enumerate() {
            let chunk = &bytes[start.min(end)..end];
            if let Some((w, h)) = jpeg::stated_size(chunk)
                && (w > width || h > height)
            {
                return Err(self.damaged(place, "has another size than it should").into());
            }
            // The tables stand for the beginning, up to their end of image.
            let whole = match tables.split_last_chunk::<2>() {
                Some((tables, _)) => Cow::Owned([tables, chunk.get(2..).unwrap_or_default()].concat()),
                None => Cow::Borrowed(chunk),
            };
            match jpeg::check(&whole) {
                Ok(()) => {}
                Err(ImageErrorKind::Truncated) if self.ranges[place].1 > bytes.len() as u64 => {
                    return Err(self.damaged(place, "is cut off at the end of the file").into());
                }
                Err(ImageErrorKind::Truncated) => {
                    return Err(self.damaged(place, "is not complete").into());
                }
                Err(ImageErrorKind::Damaged(_) | ImageErrorKind::Decode(_)) => {
                    return Err(self.damaged(place, "cannot be decoded").into());
                }
                Err(other) => return Err(other.into()),
            }
        }
        Ok(())
    }

    fn check_deflate(
        &self,
        bytes: &[u8],
        decoder: &mut Reader<'_>,
        directory: Directory<'_>,
    ) -> Result<(), Fault> {
        const SEPARATE: u64 = 2;
        const SLACK: u64 = 64 << 10;
        let value = |tag| directory.value(tag).unwrap_or(1);
        let separate = decoder.find_tag_unsigned(Tag::PlanarConfiguration)? == Some(SEPARATE);
        let samples = if separate { 1 } else { value(tag::SAMPLES_PER_PIXEL) };
        let ((width, rows), (page_width, page_height)) = (decoder.chunk_dimensions(), decoder.dimensions()?);
        if width == 0 || rows == 0 {
            return Ok(());
        }
        let (across, down) = (page_width.div_ceil(width) as usize, page_height.div_ceil(rows) as usize);
        let row =
            u64::from(width).saturating_mul(value(tag::BITS_PER_SAMPLE).saturating_mul(samples)).div_ceil(8);
        for (place, (start, end)) in self.ranges(bytes).enumerate() {
            // Planes come one behind another. The last chunks of each may reach beyond the page.
            let above = (place / across.max(1) % down.max(1)) as u32 * rows;
            let with_pixels = rows.min(page_height - above);
            // Far more than the pixels is not unpacked to its end; what ends sooner is held against its checksum.
            let most = row.saturating_mul(rows.min(with_pixels.saturating_mul(64)).into()).saturating_mul(2);
            let most = most.saturating_add(SLACK);
            let mut unpacked = flate2::read::ZlibDecoder::new(&bytes[start.min(end)..end]).take(most);
            match std::io::copy(&mut unpacked, &mut std::io::sink()) {
                Ok(count) if count >= row.saturating_mul(with_pixels.into()) => {}
                Ok(_) if self.ranges[place].1 > bytes.len() as u64 => {
                    return Err(self.damaged(place, "is cut off at the end of the file").into());
                }
                Ok(_) => return Err(self.damaged(place, "is not complete").into()),
                Err(_) => return Err(self.damaged(place, "cannot be unpacked").into()),
            }
        }
        Ok(())
    }
}
