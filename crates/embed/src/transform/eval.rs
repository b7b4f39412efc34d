//! The one transform of evaluation: resize, crop the centre, normalise.

use image::RgbImage;
use serde::{Deserialize, Serialize};

use super::{
    IMAGENET_MEAN, IMAGENET_STD, Interpolation, Part, TransformError, check_normalisation, lookup, resize,
};

/// Short side to `resize`, then the centre `crop × crop`: torchvision's `Resize(resize)`, `CenterCrop(crop)`,
/// `ToTensor`, `Normalize(mean, std)` on PIL images, up to rounding. A crop larger than the resized picture is filled
/// with black, as there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EvalTransform {
    /// Length of the short side after resizing.
    pub resize: u32,
    /// Width and height of the result.
    pub crop: u32,
    /// Mean of each channel, of values from 0 to 1.
    pub mean: [f32; 3],
    /// Standard deviation of each channel, of values from 0 to 1.
    pub std: [f32; 3],
    /// The resizing filter.
    pub interpolation: Interpolation,
}

impl Default for EvalTransform {
    fn default() -> Self {
        Self {
            resize: 256,
            crop: 224,
            mean: IMAGENET_MEAN,
            std: IMAGENET_STD,
            interpolation: Interpolation::Bilinear,
        }
    }
}

impl EvalTransform {
    /// The same with another crop, the short side in proportion, or with another short side.
    #[must_use]
    pub fn resized(self, resize: Option<u32>, crop: Option<u32>) -> Self {
        let wide = |side: u32| u64::from(side) * u64::from(self.resize) / u64::from(self.crop.max(1));
        let short = resize.or(crop.map(|side| u32::try_from(wide(side)).unwrap_or(u32::MAX)));
        Self { resize: short.unwrap_or(self.resize), crop: crop.unwrap_or(self.crop), ..self }
    }

    /// # Errors
    /// [`TransformError`] if the sizes are not from 1 to 4096, or the normalisation divides by 0.
    pub fn validate(&self) -> Result<(), TransformError> {
        let wanted = "from 1 to 4096";
        TransformError::check((1..=4096).contains(&self.resize), "resize", self.resize, wanted)?;
        TransformError::check((1..=4096).contains(&self.crop), "crop", self.crop, wanted)?;
        check_normalisation(self.mean, self.std)
    }

    /// Numbers in one result: `3 · crop · crop`.
    pub fn output_len(&self) -> usize {
        3 * self.crop as usize * self.crop as usize
    }

    /// The picture as `f32[3][crop][crop]`.
    pub fn apply(&self, image: &RgbImage) -> Vec<f32> {
        let mut out = vec![0.0; self.output_len()];
        self.apply_into(image, &mut out);
        out
    }

    /// As [`EvalTransform::apply`], into a slice.
    ///
    /// # Panics
    /// If the slice has not [`EvalTransform::output_len`] numbers.
    pub fn apply_into(&self, image: &RgbImage, out: &mut [f32]) {
        assert_eq!(out.len(), self.output_len(), "EvalTransform writes 3 × crop × crop numbers");
        let (width, height) = resized_size(image.width(), image.height(), self.resize);
        let resized = resize(image, Part::whole(image), width, height, self.interpolation);
        let crop = self.crop as usize;
        let left = centre_offset(width, self.crop);
        let top = centre_offset(height, self.crop);
        let table = lookup(self.mean, self.std);
        let black: [f32; 3] = std::array::from_fn(|c| table[c][0]);
        let pixels = resized.as_raw();
        for y in 0..crop {
            let from_y = y as i64 + top;
            let row = (0..i64::from(height)).contains(&from_y).then(|| from_y as usize * width as usize * 3);
            for x in 0..crop {
                let from_x = x as i64 + left;
                let source =
                    row.filter(|_| (0..i64::from(width)).contains(&from_x)).map(|r| r + from_x as usize * 3);
                for c in 0..3 {
                    out[(c * crop + y) * crop + x] = match source {
                        Some(at) => table[c][usize::from(pixels[at + c])],
                        None => black[c],
                    };
                }
            }
        }
    }
}

/// Short side to `size`, the long side truncated to a whole number, as torchvision does.
fn resized_size(width: u32, height: u32, size: u32) -> (u32, u32) {
    let long =
        |long: u32, short: u32| (u64::from(size) * u64::from(long) / u64::from(short.max(1))).max(1) as u32;
    if width <= height { (size, long(height, width)) } else { (long(width, height), size) }
}

/// Python's `round((have - want) / 2)`: halves go to the even number.
fn centre_offset(have: u32, want: u32) -> i64 {
    let difference = i64::from(have) - i64::from(want);
    let half = difference.div_euclid(2);
    if difference.rem_euclid(2) == 1 && half.rem_euclid(2) == 1 { half + 1 } else { half }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transform::{Limits, decode_file};
    use std::path::Path;

    #[test]
    fn sizes_and_offsets_are_torchvisions() {
        // for w, h in ...: torchvision.transforms.functional._compute_resized_output_size((h, w), [256])
        assert_eq!(resized_size(348, 464, 256), (256, 341));
        assert_eq!(resized_size(464, 348, 256), (341, 256));
        assert_eq!(resized_size(100, 100, 256), (256, 256));
        assert_eq!(resized_size(1, 30_000, 2), (2, 60_000));
        // [int(round((n - 224) / 2.0)) for n in (224, 225, 226, 227, 229, 220, 221, 219)]
        let offsets = [224, 225, 226, 227, 229, 220, 221, 219].map(|n| centre_offset(n, 224));
        assert_eq!(offsets, [0, 0, 1, 2, 2, -2, -2, -2]);
    }

    #[test]
    fn a_plain_picture_stays_plain() {
        let image = RgbImage::from_pixel(31, 57, image::Rgb([255, 0, 51]));
        for interpolation in [Interpolation::Bilinear, Interpolation::Bicubic, Interpolation::Lanczos3] {
            let transform = EvalTransform { resize: 16, crop: 12, interpolation, ..EvalTransform::default() };
            let out = transform.apply(&image);
            assert_eq!(out.len(), transform.output_len());
            for (c, value) in [1.0, 0.0, 0.2].into_iter().enumerate() {
                let expected = (value - IMAGENET_MEAN[c]) / IMAGENET_STD[c];
                assert!(out[c * 144..(c + 1) * 144].iter().all(|v| (v - expected).abs() < 1e-5));
            }
        }
    }

    #[test]
    fn a_large_crop_is_filled_with_black() {
        let image = RgbImage::from_pixel(4, 4, image::Rgb([255, 255, 255]));
        let transform =
            EvalTransform { resize: 4, crop: 8, mean: [0.0; 3], std: [1.0; 3], ..EvalTransform::default() };
        let out = transform.apply(&image);
        assert_eq!(out.iter().filter(|v| **v == 1.0).count(), 3 * 16);
        assert_eq!((out[0], out[2 * 8 + 2], out[6 * 8 + 6]), (0.0, 1.0, 0.0));
    }

    #[test]
    fn impossible_settings_are_named() {
        let error = EvalTransform { crop: 0, ..EvalTransform::default() }.validate().unwrap_err();
        assert_eq!(error.to_string(), "transform: crop is 0, but must be from 1 to 4096");
        assert!(EvalTransform { std: [1.0, 0.0, 1.0], ..EvalTransform::default() }.validate().is_err());
        assert!(EvalTransform::default().validate().is_ok());
    }

    /// Against `Resize(256)`, `CenterCrop(224)`, `ToTensor`, `Normalize` of torchvision on PIL images.
    #[test]
    fn golden_input() {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
        let Ok(npy) = std::fs::read(data.join("weights/golden_input.npy")) else { return };
        let header = 10 + usize::from(u16::from_le_bytes([npy[8], npy[9]]));
        let golden: Vec<f32> =
            npy[header..].chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        let photos = [
            "Packages/Yoghurt/Yoggi-Vanilla-Yoghurt/Yoggi-Vanilla-Yoghurt_016.jpg",
            "Fruit/Apple/Royal-Gala/Royal-Gala_048.jpg",
            "Packages/Yoghurt/Arla-Natural-Mild-Low-Fat-Yoghurt/Arla-Natural-Mild-Low-Fat-Yoghurt_002.jpg",
            "Packages/Soyghurt/Alpro-Vanilla-Soyghurt/Alpro-Vanilla-Soyghurt_018.jpg",
        ];
        let transform = EvalTransform::default();
        assert_eq!(golden.len(), photos.len() * transform.output_len());
        for (photo, golden) in photos.iter().zip(golden.chunks_exact(transform.output_len())) {
            let image = decode_file(&data.join("grocery/train").join(photo), &Limits::default()).unwrap();
            let ours = transform.apply(&image);
            let plane = golden.len() / 3;
            let steps = ours.iter().zip(golden).enumerate().map(|(i, (a, b))| {
                (f64::from((a - b).abs()) * f64::from(IMAGENET_STD[i / plane]) * 255.0).round()
            });
            let steps: Vec<f64> = steps.collect();
            let mean = steps.iter().sum::<f64>() / steps.len() as f64;
            let max = steps.iter().copied().fold(0.0, f64::max);
            println!("{photo}: mean {mean:.4}, max {max}");
            // The JPEG decoders round differently; the resizers would agree within 1.
            assert!(mean < 0.5 && max <= 6.0, "{photo}: {mean} grey levels on average, {max} at most");
        }
    }
}
