//! What a file is, by its name and by its first bytes.

use std::io::Read;
use std::path::Path;

/// Endings of files that are decoded, whatever is in them.
pub(super) const PICTURE_ENDINGS: [&str; 19] = [
    "jpg",
    "jpeg",
    "jpe",
    "jfif",
    "jfi",
    "jif",
    "jfif-tbnl",
    "pjpeg",
    "pjpg",
    "pjp",
    "mpo",
    "png",
    "apng",
    "webp",
    "gif",
    "bmp",
    "dib",
    "tif",
    "tiff",
];

/// Formats of pictures that are not decoded, by the endings of their files.
const OTHER_FORMATS: [(&str, &[&str]); 19] = [
    ("HEIC", &["heic", "heif", "heics", "heifs", "hif"]),
    ("AVIF", &["avif", "avifs"]),
    ("JPEG XL", &["jxl"]),
    ("JPEG 2000", &["jp2", "j2k", "jpf", "jpx", "jpm", "j2c", "jpc"]),
    ("JPEG XR", &["jxr", "hdp", "wdp"]),
    ("Photoshop", &["psd", "psb"]),
    ("GIMP", &["xcf"]),
    ("SVG", &["svg", "svgz"]),
    ("PDF", &["pdf", "ai"]),
    ("PostScript", &["eps", "ps", "epsf"]),
    (
        "camera raw",
        &[
            "raw", "dng", "cr2", "cr3", "crw", "nef", "nrw", "arw", "srf", "sr2", "orf", "rw2", "raf", "pef",
            "srw", "x3f", "3fr", "erf", "kdc", "dcr", "mrw", "rwl", "iiq", "gpr",
        ],
    ),
    ("icon", &["ico", "cur", "icns"]),
    ("Netpbm", &["pbm", "pgm", "ppm", "pnm", "pam"]),
    ("Targa", &["tga"]),
    ("OpenEXR", &["exr"]),
    ("Radiance HDR", &["hdr"]),
    ("DirectDraw", &["dds"]),
    ("QOI", &["qoi"]),
    ("DICOM", &["dcm", "dicom"]),
];

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileKind {
    /// A picture that can be decoded.
    Picture,
    /// A picture in a format of this name, which cannot.
    OtherPicture(&'static str),
    /// Something else.
    Other,
}

/// The ending of a file's name in lower case, without the dot; empty if there is none.
pub(super) fn ending(name: &str) -> String {
    Path::new(name).extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default()
}

/// Whether a name ends like a picture's that can be decoded.
pub(super) fn is_picture_name(name: &str) -> bool {
    PICTURE_ENDINGS.contains(&ending(name).as_str())
}

/// The format of pictures that are not decoded, if a name ends like one's.
pub(super) fn other_format(name: &str) -> Option<&'static str> {
    let ending = ending(name);
    OTHER_FORMATS.iter().find(|(_, endings)| endings.contains(&ending.as_str())).map(|(format, _)| *format)
}

/// What a regular file without a picture's ending is, by its first bytes.
///
/// # Errors
/// If it cannot be read.
pub(super) fn look_inside(path: &Path) -> std::io::Result<FileKind> {
    let mut start = Vec::with_capacity(512);
    std::fs::File::open(path)?.take(512).read_to_end(&mut start)?;
    let by_name = other_format(&path.to_string_lossy());
    let mime = infer::get(&start).map(|kind| kind.mime_type());
    Ok(match (mime, by_name) {
        (Some("image/jpeg" | "image/png" | "image/gif" | "image/webp"), _) => FileKind::Picture,
        // The first bytes of many raw files are a TIFF file's.
        (Some("image/tiff"), None) => FileKind::Picture,
        (_, Some(format)) => FileKind::OtherPicture(format),
        (Some("image/bmp"), _) if is_bmp(&start) => FileKind::Picture,
        (Some("image/heif"), _) => FileKind::OtherPicture("HEIC"),
        (Some("image/avif"), _) => FileKind::OtherPicture("AVIF"),
        (Some("image/jxl"), _) => FileKind::OtherPicture("JPEG XL"),
        (Some("image/jp2"), _) => FileKind::OtherPicture("JPEG 2000"),
        (Some("image/vnd.ms-photo"), _) => FileKind::OtherPicture("JPEG XR"),
        (Some("image/vnd.adobe.photoshop"), _) => FileKind::OtherPicture("Photoshop"),
        (Some("image/x-canon-cr2"), _) => FileKind::OtherPicture("camera raw"),
        (Some("image/vnd.microsoft.icon"), _) => FileKind::OtherPicture("icon"),
        _ => FileKind::Other,
    })
}

/// Texts begin with "BM", too: the header's reserved bytes are zero, and its size is one of a few.
fn is_bmp(start: &[u8]) -> bool {
    start.get(6..10) == Some(&[0; 4]) && matches!(start.get(14), Some(12 | 40 | 52 | 56 | 64 | 108 | 124))
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{ImageFormat, RgbImage};

    fn kind(name: &str, content: &[u8]) -> FileKind {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        look_inside(&path).unwrap()
    }

    #[test]
    fn pictures_are_known_by_their_first_bytes() {
        for format in [
            ImageFormat::Jpeg,
            ImageFormat::Png,
            ImageFormat::Gif,
            ImageFormat::WebP,
            ImageFormat::Tiff,
            ImageFormat::Bmp,
        ] {
            let mut bytes = std::io::Cursor::new(Vec::new());
            RgbImage::new(3, 2).write_to(&mut bytes, format).unwrap();
            assert_eq!(kind("0001", bytes.get_ref()), FileKind::Picture, "{format:?}");
            let raw = if format == ImageFormat::Tiff || format == ImageFormat::Bmp {
                FileKind::OtherPicture("camera raw")
            } else {
                FileKind::Picture
            };
            assert_eq!(kind("x.nef", bytes.get_ref()), raw, "{format:?}");
        }
        assert_eq!(kind("a", b"BMW is a car maker of Munich."), FileKind::Other);
        assert_eq!(kind("a.txt", b"words"), FileKind::Other);
        assert_eq!(kind("a", b""), FileKind::Other);
    }

    #[test]
    fn formats_that_are_not_decoded_are_known_by_name_and_content() {
        let heic = b"\0\0\0\x18ftypheic\0\0\0\0heicmif1";
        let avif = b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf";
        assert_eq!(kind("a", heic), FileKind::OtherPicture("HEIC"));
        assert_eq!(kind("a.dat", avif), FileKind::OtherPicture("AVIF"));
        assert_eq!(kind("a", b"8BPS\0\x01\0\0\0\0\0\0"), FileKind::OtherPicture("Photoshop"));
        for (name, format) in
            [("a.HEIC", "HEIC"), ("b.Avif", "AVIF"), ("c.svg", "SVG"), ("d.CR2", "camera raw")]
        {
            assert_eq!(other_format(name), Some(format));
        }
        assert_eq!(other_format("a.jpg"), None);
        assert!(is_picture_name("a.JFIF") && is_picture_name("b.pjpeg") && !is_picture_name("jpg"));
    }
}
