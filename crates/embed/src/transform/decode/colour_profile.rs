//! Colour spaces that files state, converted to sRGB.

use std::sync::{Arc, Mutex, PoisonError};

use image::{DynamicImage, RgbImage};
use moxcms::{
    Chromaticity, CicpColorPrimaries, CicpProfile, ColorPrimaries, ColorProfile, DataColorSpace, Layout,
    MatrixCoefficients, ToneReprCurve, TransferCharacteristics, Transform8BitExecutor,
    Transform16BitExecutor, TransformExecutor, TransformOptions,
};

/// The colour space that a file states for its samples.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ColourSpace {
    /// An ICC profile.
    Icc(Vec<u8>),
    /// Code points of ITU-T H.273, as PNG's `cICP` has them.
    CodePoints { primaries: u8, transfer: u8 },
    /// PNG's `gAMA` and `cHRM`: the encoding exponent, and x and y of white, red, green and blue, all times 100,000.
    Calibrated { gamma: Option<u32>, chromaticities: Option<[u32; 8]> },
}

/// Samples as a file has them.
#[derive(Debug)]
pub(super) enum Pixels {
    /// Grey or RGB of 8 or 16 bits, perhaps with alpha.
    Image(DynamicImage),
    /// Cyan, magenta, yellow and black of each pixel; 255 is full ink.
    Cmyk { width: u32, height: u32, inks: Vec<u8> },
}

impl Pixels {
    /// The picture in sRGB. A colour space that cannot be understood leaves the samples as they are.
    pub(super) fn into_srgb(self, space: Option<&ColourSpace>) -> DynamicImage {
        match self {
            Self::Cmyk { width, height, inks } => {
                DynamicImage::ImageRgb8(cmyk_to_rgb(width, height, &inks, space))
            }
            Self::Image(image) => match space {
                Some(space) => image_to_srgb(image, space),
                None => image,
            },
        }
    }
}

fn image_to_srgb(image: DynamicImage, space: &ColourSpace) -> DynamicImage {
    let (alpha, colour) = (image.color().has_alpha(), image.color().has_color());
    let deep = image.color().bytes_per_pixel() / image.color().channel_count() > 1;
    match conversion(space, if colour { Samples::Rgb } else { Samples::Grey }, deep) {
        Conversion::None => image,
        Conversion::Eight { executor, inputs } => {
            if alpha {
                let mut picture = image.into_rgba8();
                convert(&*executor, inputs, &mut picture, 4);
                picture.into()
            } else {
                let mut picture = image.into_rgb8();
                convert(&*executor, inputs, &mut picture, 3);
                picture.into()
            }
        }
        Conversion::Sixteen { executor, inputs } => {
            if alpha {
                let mut picture = image.into_rgba16();
                convert(&*executor, inputs, &mut picture, 4);
                picture.into()
            } else {
                let mut picture = image.into_rgb16();
                convert(&*executor, inputs, &mut picture, 3);
                picture.into()
            }
        }
    }
}

/// Pixels converted at a time.
const CHUNK: usize = 4096;

/// Converts pixels of `stride` samples in place. The executor takes the first `inputs` samples of a pixel and makes three.
fn convert<T: Copy + Default>(
    executor: &(dyn TransformExecutor<T> + Send + Sync),
    inputs: usize,
    samples: &mut [T],
    stride: usize,
) {
    let (mut from, mut to) = (vec![T::default(); CHUNK * inputs], vec![T::default(); CHUNK * 3]);
    for pixels in samples.chunks_mut(CHUNK * stride) {
        let count = pixels.len() / stride;
        for (from, pixel) in from.chunks_exact_mut(inputs).zip(pixels.chunks_exact(stride)) {
            from.copy_from_slice(&pixel[..inputs]);
        }
        // The lengths are those of `count` pixels: no case of the errors is left.
        let result = executor.transform(&from[..count * inputs], &mut to[..count * 3]);
        debug_assert!(result.is_ok(), "{result:?}");
        if result.is_ok() {
            for (pixel, to) in pixels.chunks_exact_mut(stride).zip(to.chunks_exact(3)) {
                pixel[..3].copy_from_slice(to);
            }
        }
    }
}

/// By the profile, otherwise as if inks were perfect: a channel is what its ink and black let through.
fn cmyk_to_rgb(width: u32, height: u32, inks: &[u8], space: Option<&ColourSpace>) -> RgbImage {
    let mut picture = RgbImage::new(width, height);
    let executor = match space.map(|space| conversion(space, Samples::Cmyk, false)) {
        Some(Conversion::Eight { executor, .. }) => Some(executor),
        _ => None,
    };
    for (pixels, inks) in picture.chunks_mut(CHUNK * 3).zip(inks.chunks(CHUNK * 4)) {
        let converted = executor.as_ref().is_some_and(|executor| executor.transform(inks, pixels).is_ok());
        if !converted {
            for (pixel, ink) in pixels.chunks_exact_mut(3).zip(inks.chunks_exact(4)) {
                let through =
                    |ink: u8, black: u8| ((u32::from(255 - ink) * u32::from(255 - black) + 127) / 255) as u8;
                pixel.copy_from_slice(&[0, 1, 2].map(|c| through(ink[c], ink[3])));
            }
        }
    }
    picture
}

/// What a file's samples are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Samples {
    Grey,
    Rgb,
    Cmyk,
}

/// How samples become sRGB.
#[derive(Clone)]
enum Conversion {
    /// They are sRGB, or nearly, or the profile does not tell.
    None,
    Eight {
        executor: Arc<Transform8BitExecutor>,
        inputs: usize,
    },
    Sixteen {
        executor: Arc<Transform16BitExecutor>,
        inputs: usize,
    },
}

/// Conversions remembered: the pictures of a catalogue come from few programs.
const REMEMBERED: usize = 16;
/// Larger profiles are not remembered.
const MAX_REMEMBERED_BYTES: usize = 4 << 20;

type Key = (ColourSpace, Samples, bool);

/// The conversion, remembered by the content of the profile.
fn conversion(space: &ColourSpace, samples: Samples, deep: bool) -> Conversion {
    static LAST: Mutex<Vec<(Key, Conversion)>> = Mutex::new(Vec::new());
    let lock = || LAST.lock().unwrap_or_else(PoisonError::into_inner);
    {
        let mut last = lock();
        let found = last.iter().position(|((s, c, d), _)| *c == samples && *d == deep && s == space);
        if let Some(at) = found {
            last[..=at].rotate_right(1);
            return last[0].1.clone();
        }
    }
    let made = make(space, samples, deep).unwrap_or(Conversion::None);
    if !matches!(space, ColourSpace::Icc(profile) if profile.len() > MAX_REMEMBERED_BYTES) {
        let key = (space.clone(), samples, deep);
        let mut last = lock();
        last.truncate(REMEMBERED - 1);
        last.insert(0, (key, made.clone()));
    }
    made
}

fn make(space: &ColourSpace, samples: Samples, deep: bool) -> Option<Conversion> {
    let profile = profile(space)?;
    let (layout, inputs) = match (profile.color_space, samples) {
        // Grey samples of an RGB profile are three equal ones.
        (DataColorSpace::Rgb, Samples::Rgb | Samples::Grey) => (Layout::Rgb, 3),
        (DataColorSpace::Gray, Samples::Grey) => (Layout::Gray, 1),
        // Inks take the layout of four channels.
        (DataColorSpace::Cmyk, Samples::Cmyk) => (Layout::Rgba, 4),
        _ => return None,
    };
    let (srgb, options) = (ColorProfile::new_srgb(), TransformOptions::default());
    let eight = profile.create_transform_8bit(layout, &srgb, Layout::Rgb, options).ok()?;
    if inputs < 4 && is_srgb(&*eight, inputs) {
        return Some(Conversion::None);
    }
    if deep {
        let executor = profile.create_transform_16bit(layout, &srgb, Layout::Rgb, options).ok()?;
        return Some(Conversion::Sixteen { executor, inputs });
    }
    Some(Conversion::Eight { executor: eight, inputs })
}

/// Grey levels by which a conversion may move a sample and still be taken for sRGB. The many editions of sRGB's profile
/// differ by so much.
const TOLERANCE: u8 = 2;

/// Whether colours all over the cube stay where they are.
fn is_srgb(executor: &Transform8BitExecutor, inputs: usize) -> bool {
    const STEPS: u32 = 9;
    let level = |step: u32| (step * 255 / (STEPS - 1)) as u8;
    let colours: Vec<[u8; 3]> = if inputs == 1 {
        (0..=255).map(|grey| [grey; 3]).collect()
    } else {
        (0..STEPS.pow(3))
            .map(|i| [level(i % STEPS), level(i / STEPS % STEPS), level(i / STEPS / STEPS)])
            .collect()
    };
    let from: Vec<u8> = colours.iter().flat_map(|colour| &colour[..inputs]).copied().collect();
    let mut to = vec![0; colours.len() * 3];
    executor.transform(&from, &mut to).is_ok()
        && to.iter().zip(colours.as_flattened()).all(|(to, from)| to.abs_diff(*from) <= TOLERANCE)
}

fn profile(space: &ColourSpace) -> Option<ColorProfile> {
    match space {
        ColourSpace::Icc(bytes) => ColorProfile::new_from_slice(bytes).ok(),
        ColourSpace::CodePoints { primaries, transfer } => {
            let transfer_characteristics = TransferCharacteristics::try_from(*transfer).ok()?;
            // Perceptual quantiser and hybrid log-gamma hold more light than a display has: that takes tone mapping.
            if matches!(
                transfer_characteristics,
                TransferCharacteristics::Smpte2084 | TransferCharacteristics::Hlg
            ) {
                return None;
            }
            let code_points = CicpProfile {
                color_primaries: CicpColorPrimaries::try_from(*primaries).ok()?,
                transfer_characteristics,
                matrix_coefficients: MatrixCoefficients::Identity,
                full_range: true,
            };
            let profile = ColorProfile::new_from_cicp(code_points);
            profile.red_trc.is_some().then_some(profile)
        }
        ColourSpace::Calibrated { gamma, chromaticities } => calibrated(*gamma, *chromaticities),
    }
}

fn calibrated(gamma: Option<u32>, chromaticities: Option<[u32; 8]>) -> Option<ColorProfile> {
    let mut profile = ColorProfile::new_srgb();
    profile.cicp = None;
    if let Some(values) = chromaticities {
        let [white, red, green, blue] = std::array::from_fn(|i| {
            Chromaticity::new(values[2 * i] as f32 / 1e5, values[2 * i + 1] as f32 / 1e5)
        });
        if [white, red, green, blue].iter().any(|c| c.y <= 0.0 || c.x + c.y > 1.0) {
            return None;
        }
        profile.update_rgb_colorimetry(white.to_xyyb(), ColorPrimaries { red, green, blue });
    }
    // Writers state 1/2.2 for sRGB's curve, which is near it; libpng takes what is within 5 % for it too.
    if let Some(gamma) = gamma.filter(|gamma| !(43_182..=47_728).contains(gamma)) {
        let exponent = 1e5 / gamma as f32;
        if !(0.1..=10.0).contains(&exponent) {
            return None;
        }
        let curve = ToneReprCurve::Parametric(vec![exponent]);
        (profile.red_trc, profile.green_trc) = (Some(curve.clone()), Some(curve.clone()));
        profile.blue_trc = Some(curve);
    }
    Some(profile)
}
