//! Image formats, recognised by the content of a file.

use super::ImageErrorKind;

/// A format that is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Jpeg,
    Png,
    WebP,
    Gif,
    Bmp,
    Tiff,
}

impl Format {
    /// The format of a file with these first bytes.
    ///
    /// # Errors
    /// [`ImageErrorKind::ForeignFormat`] names a format that is recognised but not decoded,
    /// [`ImageErrorKind::UnknownFormat`] is any other content.
    pub(super) fn of(bytes: &[u8]) -> Result<Self, ImageErrorKind> {
        let starts = |signature: &[u8]| bytes.starts_with(signature);
        let riff = |kind: &[u8]| starts(b"RIFF") && bytes.get(8..12) == Some(kind);
        if starts(b"\xff\xd8\xff\xf7") {
            return Err(ImageErrorKind::ForeignFormat("a JPEG-LS picture"));
        }
        if starts(b"\xff\xd8") {
            return Ok(Self::Jpeg);
        }
        if starts(b"\x89PNG\r\n\x1a\n") {
            return Ok(Self::Png);
        }
        if riff(b"WEBP") {
            return Ok(Self::WebP);
        }
        if starts(b"GIF87a") || starts(b"GIF89a") {
            return Ok(Self::Gif);
        }
        // A classic TIFF has the version 42, a BigTIFF 43.
        if starts(b"II*\0") || starts(b"MM\0*") || starts(b"II+\0") || starts(b"MM\0+") {
            return Ok(Self::Tiff);
        }
        if let Some(foreign) = foreign(bytes) {
            return Err(ImageErrorKind::ForeignFormat(foreign));
        }
        if starts(b"BM") { Ok(Self::Bmp) } else { Err(ImageErrorKind::UnknownFormat) }
    }
}

/// What the file is, for formats that people take for photographs.
fn foreign(bytes: &[u8]) -> Option<&'static str> {
    if bytes.get(4..8) == Some(b"ftyp") {
        return media_brand(bytes);
    }
    const SIGNATURES: [(&[u8], &str); 19] = [
        (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 picture"),
        (b"\xff\x4f\xff\x51", "a JPEG 2000 picture"),
        (b"\xff\x0a", "a JPEG XL picture"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL picture"),
        (b"II\xbc\x01", "a JPEG XR picture"),
        (b"8BPS", "a Photoshop document"),
        (b"gimp xcf", "a GIMP document"),
        (b"%PDF", "a PDF document"),
        (b"%!PS", "a PostScript document"),
        (b"\xc5\xd0\xd3\xc6", "a PostScript document"),
        (b"\0\0\x01\0", "an icon file"),
        (b"FUJIFILMCCD-RAW", "a camera raw picture"),
        (b"IIRO", "a camera raw picture"),
        (b"IIU\0", "a camera raw picture"),
        (b"\x76\x2f\x31\x01", "an OpenEXR picture"),
        (b"#?RADIANCE", "a Radiance HDR picture"),
        (b"qoif", "a QOI picture"),
        (b"DDS ", "a DirectDraw surface"),
        (b"PK\x03\x04", "a ZIP archive"),
    ];
    if let Some((_, name)) = SIGNATURES.iter().find(|(signature, _)| bytes.starts_with(signature)) {
        return Some(name);
    }
    if let [b'P', b'1'..=b'7', b' ' | b'\n' | b'\r' | b'\t', ..] = bytes {
        return Some("a Netpbm picture");
    }
    markup(bytes)
}

/// The brand of a file in the ISO base media format. The major brand may be a generic one: the compatible brands follow.
fn media_brand(bytes: &[u8]) -> Option<&'static str> {
    let size = u32::from_be_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let brands = bytes.get(8..size.clamp(12, 256).min(bytes.len()))?;
    let named = |brand: &[u8]| match brand {
        b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"hevx" => Some("a HEIC picture"),
        b"avif" | b"avis" => Some("an AVIF picture"),
        b"crx " => Some("a camera raw picture"),
        b"jp2 " | b"jpx " => Some("a JPEG 2000 picture"),
        b"isom" | b"iso2" | b"mp41" | b"mp42" | b"M4V " | b"qt  " | b"avc1" => Some("a video"),
        _ => None,
    };
    brands.chunks_exact(4).find_map(named).or(Some("a HEIF picture or a video"))
}

/// Error pages of web servers are often saved under the name of the picture.
fn markup(bytes: &[u8]) -> Option<&'static str> {
    let head = String::from_utf8_lossy(&bytes[..bytes.len().min(512)]).to_ascii_lowercase();
    let head = head.trim_start_matches(['\u{feff}', '\u{fffd}']).trim_start();
    if !head.starts_with('<') {
        return None;
    }
    if head.contains("<svg") {
        Some("an SVG drawing")
    } else if head.starts_with("<!doctype html") || head.contains("<html") {
        Some("an HTML page")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_without_a_decoder_are_named() {
        let heic = b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic";
        for (bytes, name) in [
            (&b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"[..], "HEIC"),
            (heic, "HEIC"),
            (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf", "AVIF"),
            (b"\xff\x0a\xfa\x1f", "JPEG XL"),
            (b"\0\0\0\x0cJXL \r\n\x87\n....", "JPEG XL"),
            (b"\0\0\0\x0cjP  \r\n\x87\n....", "JPEG 2000"),
            (b"\xff\xd8\xff\xf7\0\x0b", "JPEG-LS"),
            (b"8BPS\0\x01", "Photoshop"),
            (b"%PDF-1.7", "PDF"),
            (b"P6\n4 4\n255\n", "Netpbm"),
            (b"  <!DOCTYPE html><title>404</title>", "HTML"),
            (b"<?xml version='1.0'?>\n<svg xmlns=''>", "SVG"),
        ] {
            let error = Format::of(bytes).unwrap_err();
            assert!(matches!(error, ImageErrorKind::ForeignFormat(_)), "{name}: {error:?}");
            let message = error.to_string();
            assert!(message.contains(name) && message.contains("convert it to JPEG or PNG"), "{message}");
        }
        assert_eq!(Format::of(b"these are words"), Err(ImageErrorKind::UnknownFormat));
        assert_eq!(Format::of(b"<"), Err(ImageErrorKind::UnknownFormat));
    }

    #[test]
    fn tiff_and_bigtiff_of_both_byte_orders() {
        for start in [b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"] {
            assert_eq!(Format::of(start), Ok(Format::Tiff));
        }
    }
}
