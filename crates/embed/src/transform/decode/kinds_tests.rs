//! Kinds of files that other programs write, each showing the picture of `reference.png` unless it says otherwise. They were
//! made with Pillow, tifffile, cjpeg and libtiff, and their right values with Pillow.

use std::path::PathBuf;

use image::{DynamicImage, ImageFormat, RgbImage};

use super::*;

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/pictures").join(name)
}

fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(path(name)).unwrap()
}

fn reference() -> RgbImage {
    image::open(path("reference.png")).unwrap().into_rgb8()
}

fn of(bytes: &[u8]) -> Result<RgbImage, ImageErrorKind> {
    decode(bytes, &Limits::default())
}

/// The largest difference of two samples.
#[track_caller]
fn difference(a: &RgbImage, b: &RgbImage) -> u8 {
    assert_eq!(a.dimensions(), b.dimensions());
    a.as_raw().iter().zip(b.as_raw()).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}

#[track_caller]
fn assert_shows(name: &str, wanted: &RgbImage, tolerance: u8) {
    let picture = of(&bytes(name)).unwrap_or_else(|kind| panic!("{name}: {kind}"));
    let difference = difference(&picture, wanted);
    assert!(difference <= tolerance, "{name}: off by {difference}");
}

/// As Pillow makes grey.
fn grey() -> RgbImage {
    let mut picture = reference();
    for pixel in picture.pixels_mut() {
        let [r, g, b] = pixel.0.map(u32::from);
        pixel.0 = [((r * 19_595 + g * 38_470 + b * 7_471 + 0x8000) >> 16) as u8; 3];
    }
    picture
}

#[test]
fn orientation_is_found_wherever_programs_write_it() {
    let upright = reference();
    for (name, tolerance) in [
        ("exif_behind_pixels.png", 0),
        ("exif_as_text.png", 0),
        ("exif.webp", 0),
        ("orientation.tif", 0),
        ("two_exif.jpg", 6),
    ] {
        assert_shows(name, &upright, tolerance);
    }
}

#[test]
fn jpegs_of_all_codings() {
    let wanted = reference();
    for (name, tolerance) in [
        ("progressive.jpg", 6),
        ("progressive_restarts.jpg", 6),
        ("restarts.jpg", 6),
        ("subsampled.jpg", 12),
        ("separate_scans.jpg", 12),
        ("inks.jpg", 10),
        ("inks_ycck.jpg", 12),
    ] {
        assert_shows(name, &wanted, tolerance);
    }
    let kind = of(&bytes("arithmetic.jpg")).unwrap_err();
    assert!(kind.to_string().contains("an arithmetic-coded JPEG"), "{kind}");
}

/// Where scans start: the first byte behind their headers.
fn scans(jpeg: &[u8]) -> Vec<usize> {
    (2..jpeg.len()).filter(|at| jpeg[at - 2..].starts_with(&[0xff, 0xda])).collect()
}

fn inserted(jpeg: &[u8], at: usize, new: &[u8]) -> Vec<u8> {
    [&jpeg[..at], new, &jpeg[at..]].concat()
}

#[test]
fn jpegs_with_all_pixels_are_decoded_whatever_stands_around_them() {
    let wanted = reference();
    for name in ["progressive.jpg", "restarts.jpg", "subsampled.jpg", "separate_scans.jpg"] {
        let jpeg = bytes(name);
        let (end, scans) = (jpeg.len() - 2, scans(&jpeg));
        let adobe = [&[0xff, 0xee, 0, 14][..], b"Adobe\0\x64\0\0\0\0\x07"].concat();
        let mut variants = vec![
            ("no end", jpeg[..end].to_vec()),
            ("no end but zeros", [&jpeg[..end], &[0; 700]].concat()),
            ("zeros before the end", inserted(&jpeg, end, &[0; 700])),
            ("fill bytes before the end", inserted(&jpeg, end, &[0xff; 90])),
            ("a few bytes before the end", inserted(&jpeg, end, b"garbage")),
            ("bytes behind the end", [&jpeg[..], &[7; 700]].concat()),
            ("a second picture", [&jpeg[..], &jpeg].concat()),
            ("bytes before the first segment", inserted(&jpeg, 2, &[0, 0, 0])),
            ("an odd segment of Adobe", inserted(&jpeg, 2, &adobe)),
        ];
        for scan in scans {
            variants.push(("bytes before a scan", inserted(&jpeg, scan - 2, &[0; 9])));
        }
        let plain = of(&jpeg).unwrap();
        assert!(difference(&plain, &wanted) <= 12);
        for (what, jpeg) in variants {
            let picture = of(&jpeg).unwrap_or_else(|kind| panic!("{name}, {what}: {kind}"));
            assert_eq!(difference(&picture, &plain), 0, "{name}, {what}");
        }
    }
}

/// A large JPEG, so that it is decoded at a part of its size.
fn large_jpeg() -> Vec<u8> {
    let picture = image::imageops::resize(&reference(), 480, 400, image::imageops::FilterType::Triangle);
    let mut bytes = std::io::Cursor::new(Vec::new());
    DynamicImage::from(picture).write_to(&mut bytes, ImageFormat::Jpeg).unwrap();
    bytes.into_inner()
}

#[test]
fn jpegs_with_a_hole_are_damaged_and_cut_ones_are_truncated() {
    let limits = Limits::default();
    let files = ["progressive.jpg", "progressive_restarts.jpg", "restarts.jpg", "subsampled.jpg"];
    for jpeg in files.map(bytes).into_iter().chain([large_jpeg()]) {
        let start = scans(&jpeg)[0] + 14;
        let (end, length) = (jpeg.len() - 2, jpeg.len() - start);
        let both = |jpeg: &[u8]| {
            let Err(kind) = of(jpeg) else { panic!("{} bytes of {length} behind {start} pass", jpeg.len()) };
            assert_eq!(decode_small_bytes(jpeg, &limits, 8).unwrap_err().kind, kind);
            kind
        };
        for part in [10, 40, 70] {
            let from = start + length * part / 100;
            let mut hole = jpeg.clone();
            hole[from..(from + length / 4).min(end)].fill(0);
            assert!(matches!(both(&hole), ImageErrorKind::Damaged(_)), "zeros from {part} %");
            let cut = &jpeg[..from];
            assert_eq!(both(cut), ImageErrorKind::Truncated, "{start} of {} cut at {part} %", jpeg.len());
            let removed = [cut, &jpeg[(from + length / 4).min(end)..]].concat();
            let ended = [cut, &[0xff, 0xd9]].concat();
            // A progressive JPEG that ends between two scans is valid.
            if !jpeg.windows(2).any(|pair| pair == [0xff, 0xc2]) {
                both(&removed);
                assert!(matches!(both(&ended), ImageErrorKind::Damaged(_)), "ended at {part} %");
            }
        }
    }
}

#[test]
fn colours_are_converted_to_srgb() {
    let wanted = reference();
    for (name, tolerance) in [
        ("wide_gamut.png", 6),
        ("wide_gamut.webp", 6),
        ("wide_gamut.tif", 6),
        ("wide_gamut.jpg", 20),
        ("srgb_profile.jpg", 6),
        ("gamma_1.png", 8),
        // A broken profile costs the conversion, not the picture.
        ("broken_profile.png", 0),
    ] {
        assert_shows(name, &wanted, tolerance);
    }
    assert_shows("grey_linear.tif", &grey(), 1);
    // Without its profile, the picture has other colours: the conversion is what makes them right.
    let raw = image::open(path("wide_gamut.png")).unwrap().into_rgb8();
    assert!(difference(&raw, &wanted) > 20);
}

#[test]
fn a_profile_holds_for_reduced_jpegs_too() {
    let jpeg = large_jpeg();
    let other = bytes("wide_gamut.jpg");
    let segment = other.windows(2).position(|w| w == [0xff, 0xe2]).unwrap();
    let length = usize::from(u16::from_be_bytes([other[segment + 2], other[segment + 3]]));
    let with = inserted(&jpeg, 2, &other[segment..segment + 2 + length]);
    let limits = Limits::default();
    let full = decode(&with, &limits).unwrap();
    let small = decode_small_bytes(&with, &limits, 25).unwrap();
    assert_eq!(small.picture.dimensions(), (60, 50));
    let shrunk = image::imageops::thumbnail(&full, 60, 50);
    // Where colours are cut off, converting before shrinking is not the same as after: the mean counts.
    let mean = |a: &RgbImage, b: &RgbImage| {
        let sum: u64 = a.as_raw().iter().zip(b.as_raw()).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
        sum as f64 / a.as_raw().len() as f64
    };
    let plain = decode_small_bytes(&jpeg, &limits, 25).unwrap();
    let (to_full, to_plain) = (mean(&small.picture, &shrunk), mean(&small.picture, &plain.picture));
    assert!(to_full < 3.0 && to_plain > 8.0, "{to_full} {to_plain}");
}

#[test]
fn tiffs_of_all_kinds() {
    let wanted = reference();
    for (name, tolerance) in [
        ("bigtiff.tif", 0),
        ("thumbnail_first.tif", 0),
        ("inks.tif", 0),
        ("planar16.tif", 0),
        ("extra_sample.tif", 0),
        ("ycbcr_jpeg.tif", 12),
        ("tiles_jpeg.tif", 6),
    ] {
        assert_shows(name, &wanted, tolerance);
    }
    for name in ["float_unit.tif", "float_bytes.tif", "white_is_zero.tif"] {
        assert_shows(name, &grey(), 0);
    }
    let expected = |name| image::open(path(name)).unwrap().into_rgb8();
    assert_shows("palette.tif", &expected("palette.expected.png"), 0);
    assert_shows("fax4.tif", &expected("fax4.expected.png"), 0);
    assert_shows("fill_order.tif", &expected("fax4.expected.png"), 0);
    for (name, words) in [
        ("fax3.tif", "a TIFF with CCITT Group 3 fax compression"),
        ("lab.tif", "a TIFF in L*a*b* colours"),
        ("signed.tif", "a TIFF of signed samples"),
    ] {
        let kind = of(&bytes(name)).unwrap_err();
        assert!(kind.to_string().contains(words), "{name}: {kind}");
    }
}

#[test]
fn a_jpeg_in_a_tiff_takes_no_more_memory_than_its_part_of_the_picture() {
    let mut tiff = bytes("ycbcr_jpeg.tif");
    let frame = tiff.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
    tiff[frame + 5..frame + 9].fill(0x3f);
    let kind = of(&tiff).unwrap_err();
    assert!(matches!(kind, ImageErrorKind::Damaged(_)), "{kind:?}");
}

#[test]
fn a_gif_without_a_screen_has_its_frame() {
    let few =
        RgbImage::from_fn(40, 30, |x, _| image::Rgb(if x < 20 { [200, 10, 10] } else { [10, 10, 200] }));
    let mut file = std::io::Cursor::new(Vec::new());
    DynamicImage::from(few).write_to(&mut file, ImageFormat::Gif).unwrap();
    let mut gif = file.into_inner();
    let whole = of(&gif).unwrap();
    for (width, height) in [(0u16, 0u16), (0, 30), (7, 7)] {
        gif[6..8].copy_from_slice(&width.to_le_bytes());
        gif[8..10].copy_from_slice(&height.to_le_bytes());
        assert_eq!(of(&gif).unwrap(), whole, "{width} × {height}");
    }
    gif[6..10].copy_from_slice(&[50, 0, 30, 0]);
    let wide = of(&gif).unwrap();
    assert_eq!((wide.dimensions(), wide.get_pixel(49, 0).0), ((50, 30), [255; 3]));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(400))]
    #[test]
    fn damaged_files_of_all_kinds_never_panic(file in 0usize..100, at: usize, value: u8, cut in 0usize..100) {
        let mut names: Vec<_> = std::fs::read_dir(path("")).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        let mut bytes = std::fs::read(&names[file % names.len()]).unwrap();
        let len = bytes.len();
        bytes[at % len] = value;
        bytes.truncate(len - len * cut / 200);
        let limits = Limits { max_decoded_bytes: 64 << 20, ..Limits::default() };
        let _ = decode(&bytes, &limits);
        let _ = decode_small_bytes(&bytes, &limits, 1);
    }
}
