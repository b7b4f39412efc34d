//! Small versions of the catalogue's pictures, kept in memory up to a bound.

use std::sync::Arc;

use axum::body::Bytes;
use image::codecs::jpeg::JpegEncoder;
use image::imageops::thumbnail;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use semblance_embed::transform::{Limits, decode_small_bytes};

use crate::problem::{Answer, Problem};

/// Longest sides a thumbnail can have: few, so that few are kept.
pub(crate) const SIZES: [u32; 3] = [160, 320, 640];
/// Quality of the JPEG, from 1 to 100.
const QUALITY: u8 = 82;

/// Index and version of a picture, and the longest side.
pub(crate) type ThumbnailKey = (String, String, u32);

/// Thumbnails made before.
pub(crate) struct Thumbnails(Arc<Cache<ThumbnailKey, Bytes, BySize>>);

#[derive(Clone)]
struct BySize;

impl Weighter<ThumbnailKey, Bytes> for BySize {
    fn weight(&self, key: &ThumbnailKey, value: &Bytes) -> u64 {
        (key.0.len() + key.1.len() + value.len() + 128) as u64
    }
}

impl Thumbnails {
    pub(crate) fn new(bytes: u64) -> Self {
        Self(Arc::new(Cache::with_weighter((bytes / 8_192).max(16) as usize, bytes, BySize)))
    }

    pub(crate) fn get(&self, key: &ThumbnailKey) -> Option<Bytes> {
        self.0.get(key)
    }

    pub(crate) fn keep(&self, key: ThumbnailKey, jpeg: Bytes) {
        self.0.insert(key, jpeg);
    }
}

/// The smallest size that has at least this many pixels, or the largest.
pub(crate) fn size(wanted: u32) -> u32 {
    SIZES.into_iter().find(|size| *size >= wanted).unwrap_or(SIZES[SIZES.len() - 1])
}

/// A picture as a JPEG whose longest side has at most `side` pixels.
pub(crate) fn shrink(picture: &[u8], side: u32, limits: &Limits) -> Answer<Bytes> {
    let picture = decode_small_bytes(picture, limits, side)?.picture;
    let longest = picture.width().max(picture.height());
    let small = if longest <= side {
        picture
    } else {
        let scaled = |pixels: u32| (u64::from(pixels) * u64::from(side) / u64::from(longest)).max(1) as u32;
        thumbnail(&picture, scaled(picture.width()), scaled(picture.height()))
    };
    let mut jpeg = Vec::new();
    JpegEncoder::new_with_quality(&mut jpeg, QUALITY).encode_image(&small).map_err(Problem::internal)?;
    Ok(jpeg.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thumbnails_keep_the_shape_and_the_bound() {
        let mut png = std::io::Cursor::new(Vec::new());
        image::RgbImage::new(1000, 3).write_to(&mut png, image::ImageFormat::Png).unwrap();
        let jpeg = shrink(png.get_ref(), 160, &Limits::default()).unwrap();
        let small = image::load_from_memory(&jpeg).unwrap();
        assert_eq!((small.width(), small.height()), (160, 1));
        assert_eq!([size(1), size(160), size(161), size(9999)], [160, 160, 320, 640]);
        let cache = Thumbnails::new(100_000);
        (0..100).for_each(|i| {
            cache.keep(("shop".to_owned(), i.to_string(), 160), Bytes::from(vec![0; 10_000]));
        });
        let kept = (0..100).filter(|i| cache.get(&("shop".to_owned(), i.to_string(), 160)).is_some()).count();
        assert!((1..=10).contains(&kept), "{kept} of 100");
    }
}
