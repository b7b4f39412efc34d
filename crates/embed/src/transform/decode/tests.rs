use std::io::Cursor;

use super::*;
use image::{GrayImage, ImageBuffer, Luma, Rgb, Rgba, RgbaImage};

fn encode(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn gradient(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| Rgb([(x * 4) as u8, (y * 4) as u8, 128]))
}

fn decode_default(bytes: &[u8]) -> Result<RgbImage, ImageErrorKind> {
    decode(bytes, &Limits::default())
}

fn near(a: &RgbImage, b: &RgbImage, tolerance: i32) -> bool {
    a.dimensions() == b.dimensions()
        && a.as_raw().iter().zip(b.as_raw()).all(|(a, b)| (i32::from(*a) - i32::from(*b)).abs() <= tolerance)
}

#[test]
fn all_formats_by_content() {
    let picture = gradient(40, 30);
    let dynamic = DynamicImage::ImageRgb8(picture.clone());
    for (format, tolerance) in [
        (ImageFormat::Jpeg, 16),
        (ImageFormat::Png, 0),
        (ImageFormat::WebP, 0),
        (ImageFormat::Bmp, 0),
        (ImageFormat::Tiff, 0),
    ] {
        let decoded = decode_default(&encode(&dynamic, format)).unwrap();
        assert!(near(&decoded, &picture, tolerance), "{format:?}");
    }
    // GIF has a palette of 256 colours.
    let few = RgbImage::from_fn(40, 30, |x, _| if x < 20 { Rgb([200, 10, 10]) } else { Rgb([10, 10, 200]) });
    let gif = encode(&DynamicImage::ImageRgb8(few.clone()), ImageFormat::Gif);
    assert!(near(&decode_default(&gif).unwrap(), &few, 8));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.jpg");
    std::fs::write(&path, encode(&dynamic, ImageFormat::Png)).unwrap();
    assert_eq!(decode_file(&path, &Limits::default()).unwrap(), picture);
}

#[test]
fn grey_alpha_and_16_bit() {
    let grey = GrayImage::from_pixel(5, 4, Luma([77]));
    let decoded = decode_default(&encode(&DynamicImage::ImageLuma8(grey), ImageFormat::Png)).unwrap();
    assert!(decoded.pixels().all(|p| p.0 == [77; 3]));
    let alpha = RgbaImage::from_fn(3, 1, |x, _| Rgba([200, 100, 0, [0, 128, 255][x as usize]]));
    let decoded = decode_default(&encode(&DynamicImage::ImageRgba8(alpha), ImageFormat::Png)).unwrap();
    // 255 - (255 - c) * alpha / 255, rounded
    assert_eq!(decoded.as_raw(), &[255, 255, 255, 227, 177, 127, 200, 100, 0]);
    let deep: ImageBuffer<Rgb<u16>, Vec<u16>> = ImageBuffer::from_pixel(3, 2, Rgb([0, 0x8080, 0xffff]));
    for format in [ImageFormat::Png, ImageFormat::Tiff] {
        let decoded = decode_default(&encode(&DynamicImage::ImageRgb16(deep.clone()), format)).unwrap();
        assert!(decoded.pixels().all(|p| p.0 == [0, 128, 255]), "{format:?}");
    }
}

/// A JPEG of 24 × 16 pixels with an EXIF block that holds nothing but the orientation.
fn oriented_jpeg(orientation: u8) -> Vec<u8> {
    oriented(orientation, gradient(24, 16))
}

fn oriented(orientation: u8, picture: RgbImage) -> Vec<u8> {
    let jpeg = encode(&DynamicImage::ImageRgb8(picture), ImageFormat::Jpeg);
    let mut exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
    exif.extend([orientation, 0, 0, 0, 0, 0, 0, 0]);
    let mut bytes = jpeg[..2].to_vec();
    bytes.extend([0xff, 0xe1]);
    bytes.extend((exif.len() as u16 + 2).to_be_bytes());
    bytes.extend(exif);
    bytes.extend(&jpeg[2..]);
    bytes
}

#[test]
fn orientation_is_obeyed() {
    let upright = decode_default(&oriented_jpeg(1)).unwrap();
    assert_eq!(upright.dimensions(), (24, 16));
    // The EXIF standard's values: 3 turns by 180°, 6 by 90° clockwise, 8 by 270°, 2 mirrors.
    assert_eq!(decode_default(&oriented_jpeg(2)).unwrap(), image::imageops::flip_horizontal(&upright));
    assert_eq!(decode_default(&oriented_jpeg(3)).unwrap(), image::imageops::rotate180(&upright));
    assert_eq!(decode_default(&oriented_jpeg(6)).unwrap(), image::imageops::rotate90(&upright));
    assert_eq!(decode_default(&oriented_jpeg(8)).unwrap(), image::imageops::rotate270(&upright));
    assert_eq!(decode_default(&oriented_jpeg(99)).unwrap(), upright);
}

#[test]
fn a_small_picture_is_upright_and_knows_the_size_it_had() {
    let picture = image::imageops::resize(&gradient(48, 32), 384, 256, image::imageops::FilterType::Triangle);
    let limits = Limits::default();
    for orientation in [1, 2, 3, 6, 8] {
        let bytes = oriented(orientation, picture.clone());
        let full = decode(&bytes, &limits).unwrap();
        for (short, divisor) in [(16, 8), (17, 4), (32, 4), (33, 1)] {
            let small = decode_small_bytes(&bytes, &limits, short).unwrap();
            assert_eq!((small.width, small.height), full.dimensions());
            let (width, height) = (small.width / divisor, small.height / divisor);
            let wanted = image::imageops::thumbnail(&full, width, height);
            assert!(near(&small.picture, &wanted, 8), "orientation {orientation}, short side {short}");
        }
    }
    let png = encode(&DynamicImage::ImageRgb8(picture.clone()), ImageFormat::Png);
    assert_eq!(decode_small_bytes(&png, &limits, 8).unwrap().picture, picture);
    let jpeg = oriented(1, picture);
    let kind = decode_small_bytes(&jpeg[..jpeg.len() / 2], &limits, 8).unwrap_err().kind;
    assert_eq!(kind, ImageErrorKind::Truncated);
}

#[test]
fn broken_files_are_named_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let fault = |name: &str, content: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        let error = decode_file(&path, &Limits::default()).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
        assert_eq!(error.path.as_deref(), Some(path.as_path()));
        error.kind
    };
    assert_eq!(fault("text.jpg", b"these are words, no picture"), ImageErrorKind::UnknownFormat);
    assert_eq!(fault("nothing.jpg", b""), ImageErrorKind::Empty);
    let picture = DynamicImage::ImageRgb8(gradient(64, 64));
    let jpeg = encode(&picture, ImageFormat::Jpeg);
    assert_eq!(fault("half.jpg", &jpeg[..jpeg.len() / 2]), ImageErrorKind::Truncated);
    assert_eq!(fault("header.jpg", &jpeg[..20]), ImageErrorKind::Truncated);
    for format in [ImageFormat::Png, ImageFormat::WebP, ImageFormat::Gif, ImageFormat::Bmp, ImageFormat::Tiff]
    {
        let bytes = encode(&picture, format);
        let kind = fault("half.bin", &bytes[..bytes.len() / 2]);
        assert!(
            matches!(kind, ImageErrorKind::Truncated | ImageErrorKind::Decode(_)),
            "{format:?}: {kind:?}"
        );
    }
    let missing = decode_file(&dir.path().join("none.jpg"), &Limits::default()).unwrap_err();
    assert_eq!(missing.kind, ImageErrorKind::Missing);
    assert_eq!(decode_file(dir.path(), &Limits::default()).unwrap_err().kind, ImageErrorKind::NotAFile);
    let thumbnail_only =
        [&jpeg[..2], &[0xff, 0xe1, 0, 6, 0xff, 0xd9, 0, 0], &jpeg[2..jpeg.len() * 3 / 4]].concat();
    assert_eq!(fault("thumb.jpg", &thumbnail_only), ImageErrorKind::Truncated);
}

/// A PNG that claims a size and holds no data.
fn png_of_size(width: u32, height: u32) -> Vec<u8> {
    let mut png = encode(&DynamicImage::ImageRgb8(gradient(1, 1)), ImageFormat::Png);
    png[16..20].copy_from_slice(&width.to_be_bytes());
    png[20..24].copy_from_slice(&height.to_be_bytes());
    // The checksum of IHDR: CRC-32 (reflected, 0xEDB88320) over its type and content.
    let crc = !png[12..29].iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |c, _| if c & 1 == 1 { c >> 1 ^ 0xedb8_8320 } else { c >> 1 })
    });
    png[29..33].copy_from_slice(&crc.to_be_bytes());
    png
}

#[test]
fn limits_hold_before_memory_is_taken() {
    assert!(decode_default(&png_of_size(1, 1)).is_ok());
    let kind = decode_default(&png_of_size(20_000, 20_000)).unwrap_err();
    assert!(matches!(kind, ImageErrorKind::TooManyPixels { width: 20_000, height: 20_000, .. }), "{kind:?}");
    let kind = decode_default(&png_of_size(2_000_000_000, 2_000_000_000)).unwrap_err();
    assert!(
        matches!(kind, ImageErrorKind::TooManyPixels { .. } | ImageErrorKind::TooMuchMemory { .. }),
        "{kind:?}"
    );
    let kind = decode_default(&png_of_size(40_000, 10)).unwrap_err();
    assert!(matches!(kind, ImageErrorKind::TooManyPixels { .. }), "{kind:?}");
    let bytes = encode(&DynamicImage::ImageRgb8(gradient(64, 64)), ImageFormat::Png);
    let small = Limits { max_file_bytes: 50, ..Limits::default() };
    assert!(matches!(decode(&bytes, &small), Err(ImageErrorKind::FileTooLarge { limit: 50, .. })));
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.png"), &bytes).unwrap();
    let error = decode_file(&dir.path().join("a.png"), &small).unwrap_err();
    assert!(matches!(error.kind, ImageErrorKind::FileTooLarge { limit: 50, .. }));
    let small = Limits { max_decoded_bytes: 64 * 64 * 3 - 1, ..Limits::default() };
    assert!(matches!(decode(&bytes, &small), Err(ImageErrorKind::TooMuchMemory { .. })));
}

proptest::proptest! {
    #[test]
    fn garbage_never_panics(start in 0usize..6, at in 12usize..400, value: u8, cut in 0usize..600) {
        let formats =
            [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP, ImageFormat::Gif, ImageFormat::Bmp, ImageFormat::Tiff];
        let mut bytes = encode(&DynamicImage::ImageRgb8(gradient(29, 19)), formats[start]);
        let len = bytes.len();
        bytes[at % len] = value;
        bytes.truncate(len.saturating_sub(cut));
        let _ = decode(&bytes, &Limits::default());
        let _ = decode_small_bytes(&bytes, &Limits::default(), 1);
    }
}
