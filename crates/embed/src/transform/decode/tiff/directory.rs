//! Tags of a TIFF, for choosing a page and for saying which kind of TIFF a file is.

/// Tags by the names of the TIFF 6.0 specification.
pub(super) mod tag {
    pub(in super::super) const NEW_SUBFILE_TYPE: u16 = 254;
    pub(in super::super) const BITS_PER_SAMPLE: u16 = 258;
    pub(in super::super) const COMPRESSION: u16 = 259;
    pub(in super::super) const PHOTOMETRIC: u16 = 262;
    pub(in super::super) const FILL_ORDER: u16 = 266;
    pub(in super::super) const ORIENTATION: u16 = 274;
    pub(in super::super) const SAMPLES_PER_PIXEL: u16 = 277;
    pub(in super::super) const PREDICTOR: u16 = 317;
    pub(in super::super) const EXTRA_SAMPLES: u16 = 338;
    pub(in super::super) const SAMPLE_FORMAT: u16 = 339;
}

/// One image file directory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Directory<'a> {
    bytes: &'a [u8],
    big_endian: bool,
    /// BigTIFF has offsets of 8 bytes.
    big_tiff: bool,
    at: usize,
}

impl<'a> Directory<'a> {
    pub(super) fn first(bytes: &'a [u8]) -> Option<Self> {
        let big_endian = bytes.starts_with(b"MM");
        let start = Self { bytes, big_endian, big_tiff: false, at: 0 };
        let big_tiff = start.number(2, 2)? == 43;
        let at = if big_tiff { start.number(8, 8)? } else { start.number(4, 4)? };
        Some(Self { big_tiff, at: usize::try_from(at).ok()?, ..start })
    }

    /// An unsigned number of `size` bytes.
    fn number(&self, at: usize, size: usize) -> Option<u64> {
        let bytes = self.bytes.get(at..at.checked_add(size)?)?;
        let append = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        Some(if self.big_endian { bytes.iter().fold(0, append) } else { bytes.iter().rev().fold(0, append) })
    }

    /// Bytes of the number of entries, of an entry, and of an offset.
    fn sizes(&self) -> (usize, usize, usize) {
        if self.big_tiff { (8, 20, 8) } else { (2, 12, 4) }
    }

    /// The end of the entries, where the offset of the next directory stands.
    fn end(&self) -> Option<usize> {
        let (count, entry, _) = self.sizes();
        let entries = usize::try_from(self.number(self.at, count)?).ok()?;
        self.at.checked_add(count)?.checked_add(entries.checked_mul(entry)?)
    }

    /// The directory of the next page.
    pub(super) fn next(&self) -> Option<Self> {
        let at = usize::try_from(self.number(self.end()?, self.sizes().2)?).ok()?;
        (at > 0).then_some(Self { at, ..*self })
    }

    /// Where a tag's entry stands.
    fn entry(&self, tag: u16) -> Option<usize> {
        let (count, entry, _) = self.sizes();
        let end = self.end()?.min(self.bytes.len());
        (self.at + count..end).step_by(entry).find(|at| self.number(*at, 2) == Some(tag.into()))
    }

    /// The first value of a tag of integers.
    pub(super) fn value(&self, tag: u16) -> Option<u64> {
        let (at, size) = self.place(tag)?;
        self.number(at, size)
    }

    /// Where the first value of a tag stands, and its bytes.
    pub(super) fn place(&self, tag: u16) -> Option<(usize, usize)> {
        let entry = self.entry(tag)?;
        let (_, _, offset) = self.sizes();
        let size = match self.number(entry + 2, 2)? {
            1 => 1,
            3 => 2,
            4 => 4,
            16 => 8,
            _ => return None,
        };
        let count = self.number(entry + 4, offset)?;
        let at = entry + 4 + offset;
        if count.checked_mul(size as u64)? <= offset as u64 {
            return Some((at, size));
        }
        Some((usize::try_from(self.number(at, offset)?).ok()?, size))
    }

    /// A number as this file writes it.
    pub(super) fn bytes_of(&self, number: u64, size: usize) -> Vec<u8> {
        let bytes = number.to_be_bytes();
        let mut bytes = bytes[8 - size.min(8)..].to_vec();
        if !self.big_endian {
            bytes.reverse();
        }
        bytes
    }

    /// What is unusual about this kind of TIFF, in words; `None` if nothing is known to be.
    pub(super) fn oddity(&self) -> Option<String> {
        let compression = self.value(tag::COMPRESSION).unwrap_or(1);
        if let Some(name) = compression_name(compression) {
            return Some(format!("a TIFF with {name} compression"));
        }
        match self.value(tag::PHOTOMETRIC) {
            None => return Some("a TIFF that does not state what its samples mean".to_owned()),
            Some(0..=3 | 5 | 6) => {}
            Some(4) => return Some("a TIFF of a transparency mask".to_owned()),
            Some(8..=10) => return Some("a TIFF in L*a*b* colours".to_owned()),
            Some(32_803 | 34_892) => return Some("a camera raw picture".to_owned()),
            Some(32_844 | 32_845) => return Some("a TIFF in logarithmic luminance".to_owned()),
            Some(other) => return Some(format!("a TIFF of the colour interpretation {other}")),
        }
        let bits = self.value(tag::BITS_PER_SAMPLE).unwrap_or(1);
        if !matches!(bits, 1 | 2 | 4 | 8 | 16 | 32 | 64) {
            return Some(format!("a TIFF of {bits} bits per sample"));
        }
        match self.value(tag::SAMPLE_FORMAT) {
            Some(2) => return Some("a TIFF of signed samples".to_owned()),
            Some(5 | 6) => return Some("a TIFF of complex numbers".to_owned()),
            _ => {}
        }
        (self.value(tag::PHOTOMETRIC) == Some(6) && compression != 7)
            .then(|| "a TIFF in YCbCr colours without JPEG compression".to_owned())
    }
}

/// The name of a compression that is not decoded; `None` for those that are.
fn compression_name(compression: u64) -> Option<String> {
    let name = match compression {
        1 | 4 | 5 | 7 | 8 | 32_773 | 32_946 => return None,
        2 => "CCITT run-length",
        3 => "CCITT Group 3 fax",
        6 => "old-style JPEG",
        9 | 10 | 34_661 => "JBIG",
        33_003 | 33_004 | 33_005 | 34_712 => "JPEG 2000",
        34_676 | 34_677 => "logarithmic luminance",
        34_887 => "LERC",
        34_892 => "lossy JPEG",
        34_925 => "LZMA",
        34_926 | 50_000 => "Zstandard",
        34_927 | 50_001 => "WebP",
        50_002 | 52_546 => "JPEG XL",
        other => return Some(format!("unknown ({other})")),
    };
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory of SHORT tags.
    fn file(tags: &[(u16, u16)]) -> Vec<u8> {
        let mut bytes = b"II*\0\x08\0\0\0".to_vec();
        bytes.extend((tags.len() as u16).to_le_bytes());
        for (tag, value) in tags {
            bytes.extend(tag.to_le_bytes());
            bytes.extend([3, 0, 1, 0, 0, 0]);
            bytes.extend(value.to_le_bytes());
            bytes.extend([0, 0]);
        }
        bytes.extend([0; 4]);
        bytes
    }

    #[test]
    fn odd_kinds_are_named() {
        for (tags, words) in [
            (&[(259, 3), (262, 0)][..], "Group 3 fax"),
            (&[(259, 6), (262, 6)], "old-style JPEG"),
            (&[(259, 50_000), (262, 2)], "Zstandard"),
            (&[(259, 77), (262, 2)], "unknown (77)"),
            (&[(262, 8)], "L*a*b*"),
            (&[(262, 32_803)], "camera raw"),
            (&[(258, 12), (262, 1)], "12 bits"),
            (&[(258, 8), (262, 1), (339, 2)], "signed"),
            (&[(258, 8), (262, 6)], "YCbCr"),
            (&[(258, 8)], "does not state"),
        ] {
            let bytes = file(tags);
            let oddity = Directory::first(&bytes).unwrap().oddity().unwrap();
            assert!(oddity.contains(words), "{oddity}");
        }
        let bytes = file(&[(258, 8), (259, 5), (262, 2)]);
        assert_eq!(Directory::first(&bytes).unwrap().oddity(), None);
    }

    #[test]
    fn damaged_directories_have_no_values() {
        let bytes = file(&[(259, 3), (262, 0)]);
        for end in 0..bytes.len() {
            if let Some(directory) = Directory::first(&bytes[..end]) {
                let _ = (directory.value(262), directory.next().is_some(), directory.oddity());
            }
        }
        assert!(
            Directory::first(b"II+\0\x08\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff").unwrap().end().is_none()
        );
    }
}
