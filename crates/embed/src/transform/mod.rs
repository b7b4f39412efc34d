//! From image files to the numbers a network takes: decode, resize, crop, augment, normalise.
//!
//! Pixels leave this module as `f32` in CHW order (all reds, all greens, all blues), `(value / 255 - mean) / std` for
//! each channel, as torchvision's `ToTensor` and `Normalize` make them.

use fast_image_resize as fir;
use fir::images::{TypedCroppedImage, TypedImage, TypedImageRef};
use fir::pixels::U8x3;
use image::RgbImage;
use serde::{Deserialize, Serialize};

mod decode;
mod distortion;
mod eval;
mod train;

pub use decode::{
    ImageError, ImageErrorKind, Limits, Small, decode_bytes, decode_file, decode_small_bytes,
    decode_small_file,
};
pub(crate) use decode::{decode, read};
pub use distortion::Distortion;
pub use eval::EvalTransform;
pub use train::TrainTransform;

/// Mean of ImageNet's channels, of values from 0 to 1.
pub const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
/// Standard deviation of ImageNet's channels, of values from 0 to 1.
pub const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];

/// How pixels between pixels are computed. All widen their support when shrinking, as PIL and torchvision's
/// `antialias=True` do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interpolation {
    /// Triangle filter.
    #[default]
    Bilinear,
    /// Cubic filter with a = −0.5.
    Bicubic,
    /// Windowed sinc of three lobes.
    Lanczos3,
}

/// A transform that cannot work.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("transform: {name} is {value}, but must be {wanted}")]
pub struct TransformError {
    /// The setting.
    pub name: &'static str,
    /// Its value.
    pub value: String,
    /// What it must be.
    pub wanted: &'static str,
}

impl TransformError {
    fn check(
        ok: bool,
        name: &'static str,
        value: impl std::fmt::Debug,
        wanted: &'static str,
    ) -> Result<(), Self> {
        if ok { Ok(()) } else { Err(Self { name, value: format!("{value:?}"), wanted }) }
    }
}

fn check_normalisation(mean: [f32; 3], std: [f32; 3]) -> Result<(), TransformError> {
    TransformError::check(mean.iter().all(|m| m.is_finite()), "mean", mean, "three finite numbers")?;
    TransformError::check(std.iter().all(|s| s.is_finite() && *s > 0.0), "std", std, "three numbers above 0")
}

/// The part of `image` at `(left, top)` of `width × height` pixels, resized. The part is cut out first, so that no
/// neighbouring pixel shines in, as in torchvision's `resized_crop`.
fn resize(image: &RgbImage, part: Part, width: u32, height: u32, interpolation: Interpolation) -> RgbImage {
    if part == Part::whole(image) && (width, height) == image.dimensions() {
        return image.clone();
    }
    let filter = match interpolation {
        Interpolation::Bilinear => fir::FilterType::Bilinear,
        Interpolation::Bicubic => fir::FilterType::CatmullRom,
        Interpolation::Lanczos3 => fir::FilterType::Lanczos3,
    };
    let options = fir::ResizeOptions::new().resize_alg(fir::ResizeAlg::Convolution(filter));
    let mut resized = RgbImage::new(width, height);
    let whole = TypedImageRef::<U8x3>::from_buffer(image.width(), image.height(), image.as_raw());
    let target = TypedImage::<U8x3>::from_buffer(width, height, &mut resized);
    if let (Ok(whole), Ok(mut target)) = (whole, target) {
        let view = TypedCroppedImage::from_ref(&whole, part.left, part.top, part.width, part.height);
        // The buffers have the sizes of their pictures and the part lies inside: no case of the errors is left.
        let result = view.map(|view| fir::Resizer::new().resize_typed(&view, &mut target, &options));
        debug_assert!(matches!(result, Ok(Ok(()))), "{result:?}");
    }
    resized
}

/// A part of an image, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    left: u32,
    top: u32,
    width: u32,
    height: u32,
}

impl Part {
    fn whole(image: &RgbImage) -> Self {
        Self { left: 0, top: 0, width: image.width(), height: image.height() }
    }
}

/// The 256 values a byte can take in each channel after normalisation.
fn lookup(mean: [f32; 3], std: [f32; 3]) -> [[f32; 256]; 3] {
    std::array::from_fn(|c| std::array::from_fn(|value| (value as f32 / 255.0 - mean[c]) / std[c]))
}
