//! Small pictures inside a page.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::RgbImage;
use image::codecs::jpeg::JpegEncoder;
use rayon::prelude::*;
use semblance_embed::transform::Limits;

use crate::pictures::PagePictures;

/// How large and how many.
#[derive(Clone, Copy, Debug)]
pub struct Thumbnails {
    /// Longest side in pixels.
    pub side: u32,
    /// JPEG quality, 1 to 100.
    pub quality: u8,
    /// Pictures on one page at most; the others stay empty frames.
    pub most: usize,
    /// What one picture may cost to read.
    pub limits: Limits,
}

impl Default for Thumbnails {
    fn default() -> Self {
        Self { side: 176, quality: 72, most: 600, limits: Limits::default() }
    }
}

impl Thumbnails {
    /// The data URI of each picture that the page may show and that can be read.
    pub(super) fn make(
        &self,
        paths: impl IntoIterator<Item = PathBuf>,
        pictures: &PagePictures<'_>,
    ) -> HashMap<PathBuf, String> {
        let mut seen = BTreeSet::new();
        let paths: Vec<PathBuf> =
            paths.into_iter().filter(|path| seen.insert(path.clone())).take(self.most).collect();
        let made = paths.into_par_iter().filter_map(|path| {
            let small = pictures.small(&path, &self.limits, self.side)?;
            Some((path, data_uri(&small.picture, self.side, self.quality)?))
        });
        made.collect()
    }
}

/// A picture as a JPEG data URI, its longest side at most `side`.
pub fn data_uri(picture: &RgbImage, side: u32, quality: u8) -> Option<String> {
    let longest = picture.width().max(picture.height());
    let scaled = |length: u32| (u64::from(length) * u64::from(side) / u64::from(longest)).max(1) as u32;
    let small = if longest > side {
        image::imageops::thumbnail(picture, scaled(picture.width()), scaled(picture.height()))
    } else {
        picture.clone()
    };
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, quality).encode_image(&small).ok()?;
    Some(format!("data:image/jpeg;base64,{}", STANDARD.encode(&bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thumbnail_is_a_small_jpeg() {
        let picture = RgbImage::from_fn(400, 100, |x, _| image::Rgb([(x / 2) as u8, 90, 30]));
        let uri = data_uri(&picture, 80, 70).unwrap();
        let bytes = STANDARD.decode(uri.strip_prefix("data:image/jpeg;base64,").unwrap()).unwrap();
        let back = image::load_from_memory(&bytes).unwrap();
        assert_eq!((back.width(), back.height()), (80, 20));
        assert!(bytes.len() < 2500, "{}", bytes.len());
    }

    #[test]
    fn what_cannot_be_read_is_left_out_and_the_number_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["a.png", "b.png", "other.png"] {
            RgbImage::new(3, 3).save(path(name)).unwrap();
        }
        std::fs::write(path("broken.png"), "no picture").unwrap();
        let all = || ["a.png", "a.png", "broken.png", "gone.png", "b.png", "other.png"].map(path);
        let named = PagePictures::default().with_files(all().into_iter().take(5));
        let made = Thumbnails::default().make(all(), &named);
        assert!(
            made.len() == 2 && !made.contains_key(&path("other.png")),
            "a file that nobody named is not read"
        );
        assert_eq!(Thumbnails { most: 1, ..Thumbnails::default() }.make(all(), &named).len(), 1);
    }
}
