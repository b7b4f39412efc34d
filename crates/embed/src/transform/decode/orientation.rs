//! Which way up a picture is: EXIF, and XMP where EXIF does not say.

use image::metadata::Orientation;

/// The tag of EXIF and TIFF.
const ORIENTATION: u16 = 0x0112;

/// The orientation stated by the first EXIF block that has one, otherwise by the XMP packet. A damaged block costs the
/// orientation, not the picture.
pub(super) fn stated<'a>(exif: impl IntoIterator<Item = &'a [u8]>, xmp: Option<&[u8]>) -> Orientation {
    exif.into_iter()
        .find_map(from_exif)
        .or_else(|| xmp.and_then(from_xmp))
        .unwrap_or(Orientation::NoTransforms)
}

/// The orientation of an EXIF block, with or without the header that JPEG puts before it.
pub(super) fn from_exif(block: &[u8]) -> Option<Orientation> {
    let block = block.strip_prefix(b"Exif\0\0").unwrap_or(block);
    let big = match block.get(..4)? {
        b"MM\0*" => true,
        b"II*\0" => false,
        _ => return None,
    };
    let short = |at: usize| {
        let bytes = block.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(if big { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
    };
    let long = |at: usize| {
        let bytes = block.get(at..at.checked_add(4)?)?.try_into().ok()?;
        Some(if big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    };
    let directory = long(4)? as usize;
    let entries = usize::from(short(directory)?);
    (0..entries).find_map(|entry| {
        let at = directory.checked_add(2 + 12 * entry)?;
        if short(at)? != ORIENTATION {
            return None;
        }
        // The standard wants a SHORT; some writers take a BYTE or a LONG.
        let value = match short(at + 2)? {
            1 => u32::from(*block.get(at + 8)?),
            3 => u32::from(short(at + 8)?),
            4 => long(at + 8)?,
            _ => return None,
        };
        Orientation::from_exif(u8::try_from(value).ok()?)
    })
}

/// The orientation of an XMP packet: `tiff:Orientation` as an attribute or an element.
fn from_xmp(packet: &[u8]) -> Option<Orientation> {
    const NAME: &[u8] = b"tiff:Orientation";
    let at = packet.windows(NAME.len()).position(|window| window == NAME)? + NAME.len();
    let value =
        packet[at..].iter().take(4).find(|byte| !matches!(byte, b'=' | b'"' | b'\'' | b'>' | b' '))?;
    Orientation::from_exif(value.checked_sub(b'0')?)
}

/// Whether width and height change places.
pub(super) fn turns(orientation: Orientation) -> bool {
    matches!(
        orientation,
        Orientation::Rotate90
            | Orientation::Rotate270
            | Orientation::Rotate90FlipH
            | Orientation::Rotate270FlipH
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(kind: u16, value: [u8; 4]) -> Vec<u8> {
        let mut block = b"MM\0*\0\0\0\x08\0\x02\x01\x0f\0\x02\0\0\0\x01A\0\0\0\x01\x12".to_vec();
        block.extend(kind.to_be_bytes());
        block.extend([0, 0, 0, 1]);
        block.extend(value);
        block
    }

    #[test]
    fn all_integer_types_and_headers() {
        for (kind, value) in [(1, [6, 0, 0, 0]), (3, [0, 6, 0, 0]), (4, [0, 0, 0, 6])] {
            let plain = block(kind, value);
            assert_eq!(from_exif(&plain), Some(Orientation::Rotate90), "type {kind}");
            assert_eq!(from_exif(&[b"Exif\0\0", plain.as_slice()].concat()), Some(Orientation::Rotate90));
        }
        assert_eq!(from_exif(&block(3, [0, 0, 0, 0])), None);
        assert_eq!(from_exif(&block(3, [0, 9, 0, 0])), None);
        let whole = block(3, [0, 6, 0, 0]);
        for end in 0..whole.len() - 2 {
            assert_eq!(from_exif(&whole[..end]), None, "{end} bytes");
        }
    }

    #[test]
    fn exif_goes_before_xmp() {
        let xmp: &[u8] = br#"<rdf:Description tiff:Make="A" tiff:Orientation="8"/>"#;
        let exif = block(3, [0, 6, 0, 0]);
        assert_eq!(stated([&b"damaged"[..], &exif], Some(xmp)), Orientation::Rotate90);
        assert_eq!(stated([&b"damaged"[..]], Some(xmp)), Orientation::Rotate270);
        assert_eq!(stated([], Some(b"<tiff:Orientation>3</tiff:Orientation>")), Orientation::Rotate180);
        assert_eq!(stated([], Some(b"tiff:Orientation")), Orientation::NoTransforms);
        assert_eq!(stated([], None), Orientation::NoTransforms);
    }
}
