//! Files that are cut, zeroed or changed in one byte, of each format.

use std::io::Cursor;
use std::path::PathBuf;

use ::tiff::decoder::Decoder;
use ::tiff::encoder::{Compression, DeflateLevel, TiffEncoder, colortype};
use image::{DynamicImage, ImageFormat, Rgb, RgbImage};

use super::*;

fn of(bytes: &[u8]) -> Result<RgbImage, ImageErrorKind> {
    decode(bytes, &Limits::default())
}

/// Detail everywhere, so that every byte of the data counts.
fn picture() -> RgbImage {
    RgbImage::from_fn(96, 80, |x, y| {
        Rgb([((x * 7) ^ (y * 3)) as u8, (x * x + y) as u8, (y * 5 + x / 3) as u8])
    })
}

fn encoded(format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    DynamicImage::from(picture()).write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn tiff(compression: Compression) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    let mut encoder = TiffEncoder::new(&mut bytes).unwrap().with_compression(compression);
    let mut image = encoder.new_image::<colortype::RGB8>(96, 80).unwrap();
    image.rows_per_strip(20).unwrap();
    image.write_data(picture().as_raw()).unwrap();
    bytes.into_inner()
}

fn file(name: &str) -> Vec<u8> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/pictures");
    std::fs::read(folder.join(name)).unwrap()
}

/// Changes of one file that were not noticed though the picture is another: where, and what kind.
fn unnoticed(name: &str, whole: &[u8], changed: impl Iterator<Item = (usize, Vec<u8>)>) -> Vec<String> {
    let picture = of(whole).unwrap_or_else(|kind| panic!("{name}: {kind}"));
    let passes = changed.filter(|(_, bytes)| of(bytes).is_ok_and(|other| other != picture));
    passes.map(|(at, _)| format!("{name} at {at} of {}", whole.len())).collect()
}

/// A file cut at each of many places, among them the last forty.
fn cuts(bytes: &[u8]) -> impl Iterator<Item = (usize, Vec<u8>)> {
    let length = bytes.len();
    (1..length).filter(move |at| length - at < 40 || at % 37 == 0).map(|at| (at, bytes[..at].to_vec()))
}

/// A file with one byte changed, at each of many places of a range.
fn flips(bytes: &[u8], range: std::ops::Range<usize>) -> impl Iterator<Item = (usize, Vec<u8>)> {
    range.filter(|at| at % 7 == 0).map(|at| {
        let mut changed = bytes.to_vec();
        changed[at] ^= 0x10;
        (at, changed)
    })
}

#[test]
fn a_cut_file_of_any_format_is_noticed() {
    let mut files = vec![
        ("tiff", tiff(Compression::Uncompressed)),
        ("tiff lzw", tiff(Compression::Lzw)),
        ("tiff deflate", tiff(Compression::Deflate(DeflateLevel::Balanced))),
        ("tiff packbits", tiff(Compression::Packbits)),
    ];
    for (name, format) in [
        ("png", ImageFormat::Png),
        ("gif", ImageFormat::Gif),
        ("bmp", ImageFormat::Bmp),
        ("webp", ImageFormat::WebP),
        ("jpeg", ImageFormat::Jpeg),
    ] {
        files.push((name, encoded(format)));
    }
    for name in
        ["exif.webp", "wide_gamut.webp", "bigtiff.tif", "tiles_jpeg.tif", "ycbcr_jpeg.tif", "fax4.tif"]
    {
        files.push((name, file(name)));
    }
    let passed: Vec<String> =
        files.iter().flat_map(|(name, bytes)| unnoticed(name, bytes, cuts(bytes))).collect();
    assert_eq!(passed, [""; 0]);
}

#[test]
fn a_changed_byte_is_noticed_where_the_format_has_checksums() {
    let png = encoded(ImageFormat::Png);
    let deflate = tiff(Compression::Deflate(DeflateLevel::Balanced));
    // The strips lie between the header and the directory, whose place the header states.
    let directory = u32::from_le_bytes(deflate[4..8].try_into().unwrap()) as usize;
    assert_eq!(unnoticed("png", &png, flips(&png, 0..png.len())), [""; 0]);
    // A change of the last codes can hide the end and the checksum behind it.
    let passed = unnoticed("tiff deflate", &deflate, flips(&deflate, 8..directory));
    let tried = flips(&deflate, 8..directory).count();
    assert!(passed.len() * 50 <= tried, "{} of {tried}: {passed:?}", passed.len());
}

/// `strip` or `tile`, and where those of a file lie.
fn chunks(bytes: &[u8]) -> (&'static str, Vec<(usize, usize)>) {
    use ::tiff::tags::Tag;
    let mut decoder = Decoder::new(Cursor::new(bytes)).unwrap();
    let tiled = decoder.find_tag(Tag::TileOffsets).unwrap().is_some();
    let (name, offsets, counts) = if tiled {
        ("tile", Tag::TileOffsets, Tag::TileByteCounts)
    } else {
        ("strip", Tag::StripOffsets, Tag::StripByteCounts)
    };
    let mut numbers = |tag| decoder.get_tag_u64_vec(tag).unwrap().into_iter().map(|n| n as usize);
    let offsets: Vec<usize> = numbers(offsets).collect();
    (name, offsets.into_iter().zip(numbers(counts)).map(|(at, count)| (at, at + count)).collect())
}

/// The beginning of the JPEG that a strip or tile is when its start of image is left out.
fn jpeg_tables(bytes: &[u8]) -> Vec<u8> {
    let mut decoder = Decoder::new(Cursor::new(bytes)).unwrap();
    match decoder.get_tag_u8_vec(::tiff::tags::Tag::JPEGTables) {
        Ok(tables) => tables[..tables.len() - 2].to_vec(),
        Err(_) => vec![0xff, 0xd8],
    }
}

#[test]
fn a_damaged_strip_or_tile_is_named() {
    for name in ["tiles_jpeg.tif", "ycbcr_jpeg.tif"] {
        let whole = file(name);
        let (kind, places) = chunks(&whole);
        let (tables, mut noticed) = (jpeg_tables(&whole), 0);
        for (number, &(start, end)) in (1..).zip(&places) {
            let scan =
                start + whole[start..end].windows(2).position(|pair| pair == [0xff, 0xda]).unwrap() + 14;
            let part = format!("{kind} {number} of {}", places.len());
            let mut hole = whole.clone();
            hole[scan + (end - scan) * 2 / 5..][..(end - scan) / 4].fill(0);
            let error = of(&hole).unwrap_err().to_string();
            assert!(error.contains(&part) && error.contains("damaged"), "{name}, {part}: {error}");
            for (at, bytes) in flips(&whole, scan..end - 2) {
                let is_noticed = of(&bytes).is_err();
                noticed += usize::from(is_noticed);
                let alone = [&tables, &bytes[start + 2..end]].concat();
                assert_eq!(is_noticed, of(&alone).is_err(), "{name} at {at}: not as the same JPEG by itself");
            }
        }
        // The bits of a value can change without any trace; codes that change move all that follows.
        assert!(noticed > 0, "{name}");
    }
    let deflate = tiff(Compression::Deflate(DeflateLevel::Balanced));
    let (kind, places) = chunks(&deflate);
    let mut changed = deflate.clone();
    changed[places[2].0 + 40] ^= 0xff;
    let error = of(&changed).unwrap_err().to_string();
    assert!(kind == "strip" && error.contains("strip 3 of 4"), "{error}");
    let bytes = file("bigtiff.tif");
    let (kind, places) = chunks(&bytes);
    let last = places.iter().max_by_key(|place| place.1).unwrap();
    let error = of(&bytes[..(last.0 + last.1) / 2]).unwrap_err().to_string();
    assert!(error.contains(kind) && error.contains("cut off at the end of the file"), "{error}");
}
