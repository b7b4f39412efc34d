//! The transform of training: a random part of the picture, perhaps mirrored.

use image::RgbImage;
use rand::Rng;
use serde::{Deserialize, Serialize};

use super::{
    Distortion, EvalTransform, IMAGENET_MEAN, IMAGENET_STD, Interpolation, Part, TransformError,
    check_normalisation, lookup, resize,
};

/// torchvision's `RandomResizedCrop(size, scale, ratio)`, `RandomHorizontalFlip(flip)`, `ToTensor`,
/// `Normalize(mean, std)`, with a [`Distortion`] in between.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrainTransform {
    /// Width and height of the result.
    pub size: u32,
    /// Smallest and largest area of the part, as a fraction of the picture's.
    pub scale: (f32, f32),
    /// Smallest and largest width / height of the part.
    pub ratio: (f32, f32),
    /// Probability of mirroring left and right.
    pub flip: f32,
    /// Mean of each channel, of values from 0 to 1.
    pub mean: [f32; 3],
    /// Standard deviation of each channel, of values from 0 to 1.
    pub std: [f32; 3],
    /// The resizing filter.
    pub interpolation: Interpolation,
    /// What else is changed at random.
    pub distortion: Distortion,
}

impl Default for TrainTransform {
    fn default() -> Self {
        Self {
            size: 224,
            scale: (0.08, 1.0),
            ratio: (3.0 / 4.0, 4.0 / 3.0),
            flip: 0.5,
            mean: IMAGENET_MEAN,
            std: IMAGENET_STD,
            interpolation: Interpolation::Bilinear,
            distortion: Distortion::default(),
        }
    }
}

impl TrainTransform {
    /// The training transform that goes with an evaluation transform: same size, filter and normalisation.
    pub fn matching(eval: &EvalTransform) -> Self {
        Self {
            size: eval.crop,
            mean: eval.mean,
            std: eval.std,
            interpolation: eval.interpolation,
            ..Self::default()
        }
    }

    /// # Errors
    /// [`TransformError`] for a size not from 1 to 4096, an empty range, or a normalisation that divides by 0.
    pub fn validate(&self) -> Result<(), TransformError> {
        let range = |(low, high): (f32, f32), most: f32| low > 0.0 && low <= high && high <= most;
        TransformError::check((1..=4096).contains(&self.size), "size", self.size, "from 1 to 4096")?;
        TransformError::check(
            range(self.scale, 1.0),
            "scale",
            self.scale,
            "two ascending fractions above 0, up to 1",
        )?;
        TransformError::check(
            range(self.ratio, 100.0),
            "ratio",
            self.ratio,
            "two ascending numbers above 0, up to 100",
        )?;
        TransformError::check(
            (0.0..=1.0).contains(&self.flip),
            "flip",
            self.flip,
            "a probability from 0 to 1",
        )?;
        self.distortion.validate()?;
        check_normalisation(self.mean, self.std)
    }

    /// Numbers in one result: `3 · size · size`.
    pub fn output_len(&self) -> usize {
        3 * self.size as usize * self.size as usize
    }

    /// A random view of the picture as `f32[3][size][size]`.
    pub fn apply(&self, image: &RgbImage, rng: &mut impl Rng) -> Vec<f32> {
        let mut out = vec![0.0; self.output_len()];
        self.apply_into(image, rng, &mut out);
        out
    }

    /// As [`TrainTransform::apply`], into a slice.
    ///
    /// # Panics
    /// If the slice has not [`TrainTransform::output_len`] numbers.
    pub fn apply_into(&self, image: &RgbImage, rng: &mut impl Rng, out: &mut [f32]) {
        assert_eq!(out.len(), self.output_len(), "TrainTransform writes 3 × size × size numbers");
        let part = self.part(image.width(), image.height(), rng);
        let mirrored = rng.random::<f32>() < self.flip;
        let view = resize(image, part, self.size, self.size, self.interpolation);
        let view = self.distortion.apply(view, rng);
        let size = self.size as usize;
        let table = lookup(self.mean, self.std);
        for (at, pixel) in view.as_raw().chunks_exact(3).enumerate() {
            let (y, x) = (at / size, at % size);
            let x = if mirrored { size - 1 - x } else { x };
            for c in 0..3 {
                out[(c * size + y) * size + x] = table[c][usize::from(pixel[c])];
            }
        }
        self.distortion.erase(out, size, rng);
    }

    /// torchvision's `RandomResizedCrop.get_params`: ten tries of a random area and a log-uniform ratio, then the
    /// largest centred part whose ratio is allowed.
    fn part(&self, width: u32, height: u32, rng: &mut impl Rng) -> Part {
        let (w, h) = (f64::from(width), f64::from(height));
        let uniform = |rng: &mut _, low: f32, high: f32| {
            let (low, high) = (f64::from(low), f64::from(high));
            low + (high - low) * Rng::random::<f64>(rng)
        };
        let logs = (self.ratio.0.ln(), self.ratio.1.ln());
        for _ in 0..10 {
            let area = w * h * uniform(rng, self.scale.0, self.scale.1);
            let ratio = uniform(rng, logs.0, logs.1).exp();
            let part_width = (area * ratio).sqrt().round_ties_even() as u32;
            let part_height = (area / ratio).sqrt().round_ties_even() as u32;
            if (1..=width).contains(&part_width) && (1..=height).contains(&part_height) {
                let top = rng.random_range(0..=height - part_height);
                let left = rng.random_range(0..=width - part_width);
                return Part { left, top, width: part_width, height: part_height };
            }
        }
        let (low, high) = (f64::from(self.ratio.0), f64::from(self.ratio.1));
        let (part_width, part_height) = if w / h < low {
            (width, (w / low).round_ties_even() as u32)
        } else if w / h > high {
            ((h * high).round_ties_even() as u32, height)
        } else {
            (width, height)
        };
        let (part_width, part_height) = (part_width.clamp(1, width), part_height.clamp(1, height));
        Part {
            left: (width - part_width) / 2,
            top: (height - part_height) / 2,
            width: part_width,
            height: part_height,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    fn rng(seed: u64) -> ChaCha8Rng {
        ChaCha8Rng::seed_from_u64(seed)
    }

    #[test]
    fn parts_keep_to_scale_and_ratio_and_fill_them() {
        let transform = TrainTransform { scale: (0.25, 0.75), ..TrainTransform::default() };
        let mut rng = rng(1);
        let (mut areas, mut ratios) = (Vec::new(), Vec::new());
        for _ in 0..2000 {
            let part = transform.part(400, 300, &mut rng);
            assert!(part.left + part.width <= 400 && part.top + part.height <= 300);
            areas.push(f64::from(part.width * part.height) / 120_000.0);
            ratios.push(f64::from(part.width) / f64::from(part.height));
        }
        assert!(areas.iter().all(|a| (0.245..0.755).contains(a)));
        assert!(ratios.iter().all(|r| (0.74..1.35).contains(r)));
        let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
        // Means of 400,000 draws of RandomResizedCrop.get_params on 400 × 300, written out in Python: 0.4803 and 1.0339.
        assert!((mean(&areas) - 0.4803).abs() < 0.01, "{}", mean(&areas));
        assert!((mean(&ratios) - 1.0339).abs() < 0.012, "{}", mean(&ratios));
    }

    #[test]
    fn extreme_pictures_fall_back_to_the_centre() {
        let transform = TrainTransform { scale: (1.0, 1.0), ..TrainTransform::default() };
        let part = transform.part(1000, 10, &mut rng(1));
        assert_eq!(part, Part { left: 493, top: 0, width: 13, height: 10 });
        let part = transform.part(10, 1000, &mut rng(1));
        assert_eq!(part, Part { left: 0, top: 493, width: 10, height: 13 });
        assert_eq!(transform.part(1, 1, &mut rng(1)), Part { left: 0, top: 0, width: 1, height: 1 });
    }

    #[test]
    fn flips_mirror_and_seeds_repeat() {
        let mut image = RgbImage::new(8, 8);
        for (x, _, pixel) in image.enumerate_pixels_mut() {
            pixel.0 = [x as u8 * 30; 3];
        }
        let plain = TrainTransform {
            size: 8,
            scale: (1.0, 1.0),
            ratio: (1.0, 1.0),
            flip: 0.0,
            ..TrainTransform::default()
        };
        let mirrored = TrainTransform { flip: 1.0, ..plain.clone() };
        let (a, b) = (plain.apply(&image, &mut rng(3)), mirrored.apply(&image, &mut rng(3)));
        assert!((0..8).all(|x| a[x] == b[7 - x]));
        assert_ne!(a, b);
        let random = TrainTransform { size: 8, ..TrainTransform::default() };
        assert_eq!(random.apply(&image, &mut rng(5)), random.apply(&image, &mut rng(5)));
        assert!((0..20).any(|s| random.apply(&image, &mut rng(s)) != random.apply(&image, &mut rng(5))));
    }

    #[test]
    fn impossible_settings_are_named() {
        let bad = TrainTransform { scale: (0.5, 0.2), ..TrainTransform::default() };
        assert!(bad.validate().unwrap_err().to_string().contains("scale"));
        assert!(TrainTransform { ratio: (0.0, 1.0), ..TrainTransform::default() }.validate().is_err());
        assert!(TrainTransform { flip: f32::NAN, ..TrainTransform::default() }.validate().is_err());
        assert!(TrainTransform::matching(&EvalTransform::default()).validate().is_ok());
    }
}
