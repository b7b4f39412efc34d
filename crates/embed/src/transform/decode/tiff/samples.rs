//! Samples of a TIFF, of whatever type and order, as pixels.

use std::io::{Read, Seek};

use image::{DynamicImage, ImageBuffer, Luma, LumaA, Rgb, Rgba};
use tiff::decoder::{Decoder, DecodingResult};
use tiff::tags::Tag;
use tiff::{ColorType, TiffError};

use super::super::ImageErrorKind;
use super::super::colour_profile::Pixels;
use super::directory::{Directory, tag};

/// What the samples of a pixel are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Model {
    Grey,
    Rgb,
    Cmyk,
    YCbCr,
}

/// What lies in the decoder's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    width: u32,
    height: u32,
    model: Model,
    /// Samples per pixel, with those that no colour needs.
    samples: usize,
    bits: u8,
    alpha: Alpha,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Alpha {
    None,
    /// Colours are already multiplied by it.
    Associated,
    Unassociated,
}

impl Layout {
    pub(super) fn of<R: Read + Seek>(
        decoder: &mut Decoder<R>,
        extra: Option<u64>,
        width: u32,
        height: u32,
    ) -> Result<Self, TiffError> {
        let colour = decoder.colortype()?;
        let model = match colour {
            ColorType::RGB(_) | ColorType::RGBA(_) => Model::Rgb,
            ColorType::CMYK(_) | ColorType::CMYKA(_) => Model::Cmyk,
            ColorType::YCbCr(_) => Model::YCbCr,
            _ => Model::Grey,
        };
        let samples = usize::from(colour.num_samples());
        let alpha = match extra {
            Some(1) if samples == model.colours() + 1 => Alpha::Associated,
            Some(2) if samples == model.colours() + 1 => Alpha::Unassociated,
            _ => Alpha::None,
        };
        Ok(Self { width, height, model, samples, bits: colour.bit_depth(), alpha })
    }
}

impl Model {
    /// Samples that make a colour.
    fn colours(self) -> usize {
        match self {
            Self::Grey => 1,
            Self::Rgb | Self::YCbCr => 3,
            Self::Cmyk => 4,
        }
    }
}

/// The colours of a palette: all reds, all greens, all blues.
pub(super) struct Palette(Vec<u8>);

impl Palette {
    /// The palette of a page that has one.
    pub(super) fn read<R: Read + Seek>(
        decoder: &mut Decoder<R>,
        directory: Directory<'_>,
    ) -> Result<Option<Self>, TiffError> {
        const PALETTE: u64 = 3;
        if directory.value(tag::PHOTOMETRIC) != Some(PALETTE) {
            return Ok(None);
        }
        let colours = decoder.get_tag_u16_vec(Tag::ColorMap)?;
        // Some writers fill in bytes where the standard wants 16 bits.
        let bytes = colours.iter().all(|level| *level < 256);
        let shift = if bytes { 0 } else { 8 };
        Ok(Some(Self(colours.iter().map(|level| (level >> shift) as u8).collect())))
    }

    fn colour(&self, index: u8) -> [u8; 3] {
        let count = self.0.len() / 3;
        [0, 1, 2].map(|c| self.0.get(c * count + usize::from(index)).copied().unwrap_or(0))
    }
}

/// The picture in the decoder's buffer, which has `planes` planes one behind another.
pub(super) fn pixels(
    result: DecodingResult,
    layout: &Layout,
    planes: usize,
    palette: Option<&Palette>,
) -> Result<Pixels, ImageErrorKind> {
    let pixels = match result {
        DecodingResult::U8(samples) if layout.bits < 8 => {
            let samples = interleave(unpack(&samples, layout, planes, palette.is_none()), planes);
            eight(samples, layout, palette)
        }
        DecodingResult::U8(samples) => eight(interleave(samples, planes), layout, palette),
        DecodingResult::U16(samples) => sixteen(samples, layout, planes),
        DecodingResult::U32(samples) => {
            sixteen(samples.iter().map(|s| (s >> 16) as u16).collect(), layout, planes)
        }
        DecodingResult::U64(samples) => {
            sixteen(samples.iter().map(|s| (s >> 48) as u16).collect(), layout, planes)
        }
        DecodingResult::F16(samples) => {
            sixteen(levels(|i| samples.get(i).map(|s| s.to_f32())), layout, planes)
        }
        DecodingResult::F32(samples) => sixteen(levels(|i| samples.get(i).copied()), layout, planes),
        DecodingResult::F64(samples) => {
            sixteen(levels(|i| samples.get(i).map(|s| *s as f32)), layout, planes)
        }
        _ => return Err(ImageErrorKind::UnsupportedKind("a TIFF of signed samples".to_owned())),
    };
    pixels.ok_or(ImageErrorKind::Truncated)
}

/// Floating-point samples as 16 bits. No tag says what white is: programs write 0 to 1, or the range of bytes or of 16-bit
/// numbers, and the largest sample tells them apart. Values beyond are cut off.
fn levels(at: impl Fn(usize) -> Option<f32>) -> Vec<u16> {
    // Highlights of high dynamic range go beyond 1, but a picture of bytes is hardly so dark.
    const MOST_UNIT: f32 = 16.0;
    let all = || (0..).map_while(&at);
    let most = all().filter(|value| value.is_finite()).fold(0.0, f32::max);
    let white = if most <= MOST_UNIT {
        1.0
    } else if most <= 255.0 {
        255.0
    } else if most <= 65_535.0 {
        65_535.0
    } else {
        most
    };
    // A conversion to an integer makes zero of what is no number.
    all().map(|value| (value / white * 65_535.0 + 0.5) as u16).collect()
}

/// Samples of less than 8 bits, one per byte; `scale` spreads them over the range of a byte.
fn unpack(packed: &[u8], layout: &Layout, planes: usize, scale: bool) -> Vec<u8> {
    let bits = usize::from(layout.bits);
    let most = (1u16 << bits) - 1;
    let row = layout.width as usize * layout.samples / planes.max(1);
    let mut samples = Vec::with_capacity(row * layout.height as usize * planes.max(1));
    for bytes in packed.chunks_exact((row * bits).div_ceil(8).max(1)) {
        samples.extend((0..row).map(|i| {
            let at = i * bits;
            let value = u16::from(bytes[at / 8]) >> (8 - bits - at % 8) & most;
            if scale { (value * 255 / most) as u8 } else { value as u8 }
        }));
    }
    samples
}

/// The samples of a pixel next to each other.
fn interleave<T: Copy>(samples: Vec<T>, planes: usize) -> Vec<T> {
    if planes <= 1 {
        return samples;
    }
    let plane = samples.len() / planes;
    (0..plane * planes).map(|i| samples[i % planes * plane + i / planes]).collect()
}

fn eight(samples: Vec<u8>, layout: &Layout, palette: Option<&Palette>) -> Option<Pixels> {
    let (width, height) = (layout.width, layout.height);
    if let Some(palette) = palette {
        let colours = samples.chunks_exact(layout.samples).flat_map(|pixel| palette.colour(pixel[0]));
        let picture = ImageBuffer::<Rgb<u8>, _>::from_raw(width, height, colours.collect())?;
        return Some(Pixels::Image(picture.into()));
    }
    match layout.model {
        Model::Grey | Model::Rgb => assemble(samples, layout, u8::MAX),
        Model::Cmyk => {
            let inks = keep(samples, layout.samples, 4);
            (inks.len() == 4 * width as usize * height as usize).then_some(Pixels::Cmyk {
                width,
                height,
                inks,
            })
        }
        Model::YCbCr => {
            let mut samples = keep(samples, layout.samples, 3);
            for pixel in samples.as_chunks_mut::<3>().0 {
                let [y, cb, cr] = pixel.map(f32::from);
                let (cb, cr) = (cb - 128.0, cr - 128.0);
                // A conversion to an integer cuts off what is beyond.
                *pixel = [y + 1.402 * cr, y - 0.344_136 * cb - 0.714_136 * cr, y + 1.772 * cb]
                    .map(|value| (value + 0.5) as u8);
            }
            let picture = ImageBuffer::<Rgb<u8>, _>::from_raw(width, height, samples)?;
            Some(Pixels::Image(picture.into()))
        }
    }
}

fn sixteen(samples: Vec<u16>, layout: &Layout, planes: usize) -> Option<Pixels> {
    let samples = interleave(samples, planes);
    match layout.model {
        Model::Grey | Model::Rgb => assemble(samples, layout, u16::MAX),
        Model::Cmyk | Model::YCbCr => eight(samples.iter().map(|s| (s >> 8) as u8).collect(), layout, None),
    }
}

/// Grey or RGB, with alpha if there is one.
fn assemble<T>(samples: Vec<T>, layout: &Layout, most: T) -> Option<Pixels>
where
    T: image::Primitive + Into<u32> + TryFrom<u32>,
    Luma<T>: image::Pixel<Subpixel = T>,
    LumaA<T>: image::Pixel<Subpixel = T>,
    Rgb<T>: image::Pixel<Subpixel = T>,
    Rgba<T>: image::Pixel<Subpixel = T>,
    DynamicImage: From<ImageBuffer<Luma<T>, Vec<T>>>
        + From<ImageBuffer<LumaA<T>, Vec<T>>>
        + From<ImageBuffer<Rgb<T>, Vec<T>>>
        + From<ImageBuffer<Rgba<T>, Vec<T>>>,
{
    let (width, height) = (layout.width, layout.height);
    let colours = layout.model.colours();
    let kept = colours + usize::from(layout.alpha != Alpha::None);
    let mut samples = keep(samples, layout.samples, kept);
    if layout.alpha == Alpha::Associated {
        let most: u32 = most.into();
        for pixel in samples.chunks_exact_mut(kept) {
            let alpha: u32 = pixel[colours].into();
            for value in &mut pixel[..colours] {
                let straight = ((*value).into() * most + alpha / 2).checked_div(alpha).unwrap_or(0).min(most);
                *value = T::try_from(straight).unwrap_or(*value);
            }
        }
    }
    let image = match kept {
        1 => ImageBuffer::<Luma<T>, _>::from_raw(width, height, samples)?.into(),
        2 => ImageBuffer::<LumaA<T>, _>::from_raw(width, height, samples)?.into(),
        3 => ImageBuffer::<Rgb<T>, _>::from_raw(width, height, samples)?.into(),
        _ => ImageBuffer::<Rgba<T>, _>::from_raw(width, height, samples)?.into(),
    };
    Some(Pixels::Image(image))
}

/// The first `kept` samples of each pixel.
fn keep<T: Copy>(samples: Vec<T>, per_pixel: usize, kept: usize) -> Vec<T> {
    if per_pixel == kept {
        return samples;
    }
    samples.chunks_exact(per_pixel).flat_map(|pixel| &pixel[..kept]).copied().collect()
}
