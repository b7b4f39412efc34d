//! Test-time augmentation: several views of one photograph, their vectors averaged.

use std::str::FromStr;

use image::{RgbImage, imageops};
use semblance_embed::transform::EvalTransform;
use serde::{Deserialize, Serialize};

/// Which views of a photograph are embedded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Views {
    /// The one the model was made for: the centre.
    #[default]
    Centre,
    /// The centre and its mirror image.
    Flip,
    /// The centre, the four corners, and their mirror images: ten views (Krizhevsky et al. 2012, "ImageNet Classification
    /// with Deep Convolutional Neural Networks", section 4.1).
    Crops,
}

impl Views {
    /// How many there are.
    pub fn count(self) -> usize {
        match self {
            Self::Centre => 1,
            Self::Flip => 2,
            Self::Crops => 10,
        }
    }

    /// The views as the network takes them: `f32[count][3][crop][crop]`.
    pub fn apply(self, picture: &RgbImage, transform: &EvalTransform) -> Vec<f32> {
        let mut pixels = transform.apply(picture);
        if self == Self::Crops {
            let corner = EvalTransform { resize: transform.crop, ..transform.clone() };
            for part in corners(picture, transform) {
                pixels.extend(corner.apply(&part));
            }
        }
        if self != Self::Centre {
            let side = transform.crop as usize;
            let mirrored: Vec<f32> = pixels.chunks(side).flat_map(|row| row.iter().rev()).copied().collect();
            pixels.extend(mirrored);
        }
        pixels
    }
}

/// Squares in the corners, as large as the centre crop is within the picture.
fn corners(picture: &RgbImage, transform: &EvalTransform) -> [RgbImage; 4] {
    let (width, height) = picture.dimensions();
    let short = width.min(height);
    let share = f64::from(transform.crop) / f64::from(transform.resize);
    let side = ((f64::from(short) * share).round() as u32).clamp(1, short);
    let (right, bottom) = (width - side, height - side);
    [(0, 0), (right, 0), (0, bottom), (right, bottom)]
        .map(|(x, y)| imageops::crop_imm(picture, x, y, side, side).to_image())
}

impl FromStr for Views {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "centre" => Ok(Self::Centre),
            "flip" => Ok(Self::Flip),
            "crops" => Ok(Self::Crops),
            _ => Err("is none of centre, flip, crops".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_are_mirror_images_and_corners() {
        let picture = RgbImage::from_fn(60, 40, |x, y| image::Rgb([(4 * x) as u8, (6 * y) as u8, 7]));
        let transform =
            EvalTransform { resize: 40, crop: 20, mean: [0.0; 3], std: [1.0; 3], ..EvalTransform::default() };
        let plane = 3 * 20 * 20;
        for views in [Views::Centre, Views::Flip, Views::Crops] {
            let pixels = views.apply(&picture, &transform);
            assert_eq!(pixels.len(), views.count() * plane);
            assert_eq!(pixels[..plane], transform.apply(&picture), "the centre comes first");
            let half = pixels.len() / 2;
            for (at, value) in pixels[half..].iter().enumerate().filter(|_| views != Views::Centre) {
                let (row, column) = (at / 20, at % 20);
                assert_eq!(*value, pixels[row * 20 + 19 - column]);
            }
        }
        // The red channel grows to the right, the green one downwards: corners are where they should be.
        let pixels = Views::Crops.apply(&picture, &transform);
        let first = |view: usize, channel: usize| (pixels[view * plane + channel * 400] * 255.0).round();
        assert_eq!([first(1, 0), first(2, 0), first(3, 0), first(4, 0)], [0.0, 160.0, 0.0, 160.0]);
        assert_eq!([first(1, 1), first(2, 1), first(3, 1), first(4, 1)], [0.0, 0.0, 120.0, 120.0]);
    }
}
