//! Random changes of a training picture's colours, sharpness and angle, and holes in it.

use image::{Rgb, RgbImage, imageops};
use rand::Rng;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use super::TransformError;

/// What is done at random to the resized part of a picture; nothing by default. Strengths and probabilities are
/// torchvision's, and so is the order: rotation, colour jitter (its four in random order), greyscale, blur, and after
/// the normalisation erasing.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Distortion {
    /// Greatest angle of rotation to either side, in degrees; the corners become black.
    pub rotate: f32,
    /// Brightness is multiplied by a number from `1 - brightness` to `1 + brightness`.
    pub brightness: f32,
    /// Contrast likewise, around the picture's mean grey.
    pub contrast: f32,
    /// Saturation likewise, around each pixel's grey.
    pub saturation: f32,
    /// Greatest turn of the hue to either side, as a share of the colour circle, up to 0.5.
    pub hue: f32,
    /// Probability of losing all colour.
    pub grayscale: f32,
    /// Probability of being blurred.
    pub blur: f32,
    /// Smallest and largest standard deviation of the blur, in pixels.
    pub blur_sigma: (f32, f32),
    /// Probability that a rectangle is erased (Zhong et al. 2020, arXiv 1708.04896), to the mean colour.
    pub erase: f32,
    /// Smallest and largest area of that rectangle, as a share of the picture's.
    pub erase_area: (f32, f32),
}

impl Default for Distortion {
    fn default() -> Self {
        Self {
            rotate: 0.0,
            brightness: 0.0,
            contrast: 0.0,
            saturation: 0.0,
            hue: 0.0,
            grayscale: 0.0,
            blur: 0.0,
            blur_sigma: (0.1, 2.0),
            erase: 0.0,
            erase_area: (0.02, 0.33),
        }
    }
}

/// ITU-R 601, as PIL and torchvision weigh the channels.
fn grey([r, g, b]: [f32; 3]) -> f32 {
    0.2989 * r + 0.587 * g + 0.114 * b
}

fn each(image: &mut RgbImage, f: impl Fn([f32; 3]) -> [f32; 3]) {
    for pixel in image.pixels_mut() {
        // A float becomes the nearest byte, cut to its range.
        pixel.0 = f(pixel.0.map(f32::from)).map(|v| v.round() as u8);
    }
}

impl Distortion {
    /// # Errors
    /// [`TransformError`] for a probability not from 0 to 1, a strength below 0, or an empty range.
    pub fn validate(&self) -> Result<(), TransformError> {
        let probabilities = [("grayscale", self.grayscale), ("blur", self.blur), ("erase", self.erase)];
        for (name, value) in probabilities {
            TransformError::check((0.0..=1.0).contains(&value), name, value, "a probability from 0 to 1")?;
        }
        let shares =
            [("brightness", self.brightness), ("contrast", self.contrast), ("saturation", self.saturation)];
        for (name, value) in shares {
            TransformError::check((0.0..=1.0).contains(&value), name, value, "from 0 to 1")?;
        }
        TransformError::check((0.0..=0.5).contains(&self.hue), "hue", self.hue, "from 0 to 0.5")?;
        TransformError::check((0.0..=180.0).contains(&self.rotate), "rotate", self.rotate, "from 0 to 180")?;
        let range = |(low, high): (f32, f32), most: f32| low > 0.0 && low <= high && high <= most;
        let sigma = range(self.blur_sigma, 100.0);
        TransformError::check(
            sigma,
            "blur_sigma",
            self.blur_sigma,
            "two ascending numbers above 0, up to 100",
        )?;
        let area = range(self.erase_area, 1.0);
        TransformError::check(area, "erase_area", self.erase_area, "two ascending fractions above 0, up to 1")
    }

    /// Changes the resized picture. What is off draws no random number.
    pub(super) fn apply(&self, mut image: RgbImage, rng: &mut impl Rng) -> RgbImage {
        if self.rotate > 0.0 {
            image = rotated(&image, rng.random_range(-self.rotate..=self.rotate).to_radians());
        }
        let strengths = [self.brightness, self.contrast, self.saturation, self.hue];
        if strengths.iter().any(|&s| s > 0.0) {
            let mut order = [0, 1, 2, 3];
            order.shuffle(rng);
            for which in order {
                let strength = strengths[which];
                if strength > 0.0 {
                    jitter(&mut image, which, rng.random_range(-strength..=strength));
                }
            }
        }
        if self.grayscale > 0.0 && rng.random::<f32>() < self.grayscale {
            each(&mut image, |pixel| [grey(pixel); 3]);
        }
        if self.blur > 0.0 && rng.random::<f32>() < self.blur {
            let (low, high) = self.blur_sigma;
            image = imageops::blur(&image, rng.random_range(low..=high));
        }
        image
    }

    /// Erases a rectangle of `f32[3][size][size]` normalised values, perhaps.
    pub(super) fn erase(&self, pixels: &mut [f32], size: usize, rng: &mut impl Rng) {
        if !(self.erase > 0.0 && rng.random::<f32>() < self.erase) {
            return;
        }
        // torchvision's ten tries of an area and a log-uniform shape between 0.3 and 1 / 0.3.
        for _ in 0..10 {
            let area = (size * size) as f32 * rng.random_range(self.erase_area.0..=self.erase_area.1);
            let ratio = rng.random_range(0.3f32.ln()..=(1.0 / 0.3f32).ln()).exp();
            let (h, w) = ((area * ratio).sqrt().round() as usize, (area / ratio).sqrt().round() as usize);
            if h == 0 || w == 0 || h >= size || w >= size {
                continue;
            }
            let (top, left) = (rng.random_range(0..=size - h), rng.random_range(0..=size - w));
            for row in pixels
                .chunks_exact_mut(size)
                .enumerate()
                .filter(|(y, _)| (top..top + h).contains(&(y % size)))
            {
                row.1[left..left + w].fill(0.0);
            }
            return;
        }
    }
}

/// Brightness, contrast, saturation or hue, changed by a factor of `1 + by`, or by a turn of `by`.
fn jitter(image: &mut RgbImage, which: usize, by: f32) {
    let blend = |v: f32, towards: f32| towards + (v - towards) * (1.0 + by);
    match which {
        0 => each(image, |pixel| pixel.map(|v| blend(v, 0.0))),
        1 => {
            let sum: f64 = image.pixels().map(|p| f64::from(grey(p.0.map(f32::from)))).sum();
            let mean = (sum / f64::from(image.width() * image.height())) as f32;
            each(image, |pixel| pixel.map(|v| blend(v, mean)));
        }
        2 => each(image, |pixel| pixel.map(|v| blend(v, grey(pixel)))),
        _ => each(image, |pixel| turned(pixel, by)),
    }
}

/// The colour with its hue turned by a share of the circle; lightness and saturation (of HSV) stay.
fn turned([r, g, b]: [f32; 3], by: f32) -> [f32; 3] {
    let (most, least) = (r.max(g).max(b), r.min(g).min(b));
    let span = most - least;
    if span == 0.0 {
        return [r, g, b];
    }
    let sixth = if most == r {
        (g - b) / span
    } else if most == g {
        (b - r) / span + 2.0
    } else {
        (r - g) / span + 4.0
    };
    let hue = (sixth + 6.0 * by).rem_euclid(6.0);
    // How far each channel's own peak is from the hue decides its share.
    [0.0f32, 2.0, 4.0].map(|peak| {
        let away = (hue - peak).abs().min(6.0 - (hue - peak).abs());
        least + span * (2.0 - away).clamp(0.0, 1.0)
    })
}

/// The picture turned around its centre, bilinear, black where nothing was.
fn rotated(image: &RgbImage, angle: f32) -> RgbImage {
    let (sin, cos) = angle.sin_cos();
    let (w, h) = (image.width() as f32, image.height() as f32);
    let at = |x: i64, y: i64| -> [f32; 3] {
        let inside =
            (0..i64::from(image.width())).contains(&x) && (0..i64::from(image.height())).contains(&y);
        if inside { image.get_pixel(x as u32, y as u32).0.map(f32::from) } else { [0.0; 3] }
    };
    RgbImage::from_fn(image.width(), image.height(), |x, y| {
        let (dx, dy) = (x as f32 + 0.5 - w / 2.0, y as f32 + 0.5 - h / 2.0);
        let (sx, sy) = (cos * dx - sin * dy + w / 2.0 - 0.5, sin * dx + cos * dy + h / 2.0 - 0.5);
        let (fx, fy) = (sx - sx.floor(), sy - sy.floor());
        let (x, y) = (sx.floor() as i64, sy.floor() as i64);
        let corners = [at(x, y), at(x + 1, y), at(x, y + 1), at(x + 1, y + 1)];
        let shares = [(1.0 - fx) * (1.0 - fy), fx * (1.0 - fy), (1.0 - fx) * fy, fx * fy];
        Rgb(std::array::from_fn(|c| {
            corners.iter().zip(shares).map(|(pixel, share)| pixel[c] * share).sum::<f32>().round() as u8
        }))
    })
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    use super::*;

    fn picture() -> RgbImage {
        RgbImage::from_fn(16, 16, |x, y| Rgb([(x * 15) as u8, (y * 15) as u8, ((x + y) * 7) as u8]))
    }

    fn rng(seed: u64) -> ChaCha8Rng {
        ChaCha8Rng::seed_from_u64(seed)
    }

    // from torchvision.transforms.v2 import functional as F; import torch
    // x = torch.tensor([[200, 40, 90], [10, 220, 30]], dtype=torch.uint8).T.reshape(3, 1, 2)
    // for y in (F.adjust_brightness(x, 1.3), F.adjust_contrast(x, 1.3), F.adjust_saturation(x, 1.3),
    //           F.adjust_hue(x, .1)): print(y.reshape(3, 2).T.tolist())
    #[test]
    fn colours_are_torchvisions_to_a_step() {
        let wanted: [[[u8; 3]; 2]; 4] = [
            [[255, 52, 116], [13, 255, 39]],
            [[225, 17, 82], [0, 251, 4]],
            [[232, 24, 89], [0, 245, 0]],
            [[200, 86, 40], [10, 220, 156]],
        ];
        for (which, wanted) in wanted.into_iter().enumerate() {
            let mut image = RgbImage::from_raw(2, 1, vec![200, 40, 90, 10, 220, 30]).unwrap();
            jitter(&mut image, which, if which == 3 { 0.1 } else { 0.3 });
            for (pixel, wanted) in image.pixels().zip(wanted) {
                let near = pixel.0.iter().zip(wanted).all(|(a, b)| a.abs_diff(b) <= 1);
                assert!(near, "{which}: {pixel:?}, wanted {wanted:?}");
            }
        }
    }

    #[test]
    fn nothing_by_default_and_no_random_number_drawn() {
        let (mut used, mut fresh) = (rng(1), rng(1));
        assert_eq!(Distortion::default().apply(picture(), &mut used), picture());
        Distortion::default().erase(&mut [1.0; 12], 2, &mut used);
        assert_eq!(used.random::<u64>(), fresh.random::<u64>());
    }

    #[test]
    fn a_quarter_turn_is_imageops_and_a_full_one_nothing() {
        let quarter = rotated(&picture(), std::f32::consts::FRAC_PI_2);
        let near =
            |a: &RgbImage, b: &RgbImage| a.as_raw().iter().zip(b.as_raw()).all(|(a, b)| a.abs_diff(*b) <= 1);
        assert!(
            near(&quarter, &imageops::rotate270(&picture()))
                || near(&quarter, &imageops::rotate90(&picture()))
        );
        assert!(near(&rotated(&picture(), std::f32::consts::TAU), &picture()));
    }

    #[test]
    fn every_change_repeats_with_its_seed_and_differs_with_another() {
        let off = Distortion::default();
        let each = [
            Distortion { rotate: 20.0, ..off },
            Distortion { brightness: 0.4, ..off },
            Distortion { contrast: 0.4, ..off },
            Distortion { saturation: 0.4, ..off },
            Distortion { hue: 0.2, ..off },
            Distortion { blur: 1.0, ..off },
        ];
        for distortion in each {
            let view = |seed| distortion.apply(picture(), &mut rng(seed));
            assert_eq!(view(1), view(1));
            assert_ne!(view(1), view(2), "{distortion:?}");
            assert_ne!(view(1), picture(), "{distortion:?}");
        }
        let grey = Distortion { grayscale: 1.0, ..off }.apply(picture(), &mut rng(1));
        assert!(grey.pixels().all(|p| p.0[0] == p.0[1] && p.0[1] == p.0[2]));
    }

    #[test]
    fn one_rectangle_of_the_asked_area_is_erased_in_every_channel() {
        let distortion = Distortion { erase: 1.0, erase_area: (0.1, 0.3), ..Distortion::default() };
        for seed in 0..50 {
            let mut pixels = vec![1.0; 3 * 32 * 32];
            distortion.erase(&mut pixels, 32, &mut rng(seed));
            let holes: Vec<Vec<usize>> = pixels
                .chunks(1024)
                .map(|channel| (0..1024).filter(|&i| channel[i] == 0.0).collect())
                .collect();
            assert!(holes[0] == holes[1] && holes[1] == holes[2]);
            let share = holes[0].len() as f32 / 1024.0;
            assert!((0.09..0.33).contains(&share), "{share}");
        }
    }

    #[test]
    fn impossible_settings_are_named() {
        let off = Distortion::default();
        let wrong = [
            ("hue", Distortion { hue: 0.7, ..off }),
            ("blur", Distortion { blur: 2.0, ..off }),
            ("brightness", Distortion { brightness: f32::NAN, ..off }),
            ("erase_area", Distortion { erase_area: (0.5, 0.1), ..off }),
        ];
        for (name, distortion) in wrong {
            assert_eq!(distortion.validate().unwrap_err().name, name);
        }
    }
}
