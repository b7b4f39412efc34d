//! Large JPEGs decoded at a quarter or an eighth of their size, for thumbnails and small network inputs.
//!
//! A JPEG is stored as frequencies of 8 × 8 blocks, and the lowest of them give the block at 2 × 2 pixels or at one, its
//! mean. That leaves out most of the inverse transform, upsampling and colour conversion; at half the size it would gain
//! nothing, since the decoder that can do it is slower at the rest.

use image::RgbImage;
use jpeg_decoder::{Decoder, PixelFormat};

/// How many times the pixels asked for there must be, in each direction. Means of blocks are sharper than what a resizing
/// filter makes of all pixels: of photographs shrunk from 348 pixels by way of a quarter, MobileNetV2's vectors were up to
/// 0.059 in cosine distance from those shrunk at once where nothing was left to shrink, 0.011 where it was by 1.5, and 0.006
/// where by 2. That is a network of 43 pixels; one of 174 is within 0.003.
const MARGIN: u32 = 2;

/// The picture of a JPEG of `size`, as it lies in the file, with a short side of twice `short` pixels or more. `None` where
/// that is no quarter of the size, and of files that this decoder cannot read: the other one may, or can tell what is wrong.
pub(super) fn jpeg(bytes: &[u8], size: (u32, u32), short: u32, max_bytes: u64) -> Option<RgbImage> {
    let least = short.saturating_mul(MARGIN);
    let divisor = [8, 4].into_iter().find(|divisor| size.0.min(size.1) / divisor >= least)?;
    divided(bytes, size, divisor, max_bytes)
}

/// The picture of a JPEG of `size` at this part of it; 1 for all pixels.
pub(super) fn divided(bytes: &[u8], size: (u32, u32), divisor: u32, max_bytes: u64) -> Option<RgbImage> {
    let mut decoder = Decoder::new(bytes);
    decoder.set_max_decoding_buffer_size(usize::try_from(max_bytes).unwrap_or(usize::MAX));
    let side = |pixels: u32| u16::try_from(pixels.div_ceil(divisor)).ok();
    let (width, height) = decoder.scale(side(size.0)?, side(size.1)?).ok()?;
    let pixels = decoder.decode().ok()?;
    let rgb = match decoder.info()?.pixel_format {
        PixelFormat::RGB24 => pixels,
        PixelFormat::L8 => pixels.into_iter().flat_map(|grey| [grey; 3]).collect(),
        _ => return None,
    };
    RgbImage::from_raw(u32::from(width), u32::from(height), rgb)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use image::{DynamicImage, ImageFormat, Rgb};

    use super::*;

    const MEMORY: u64 = 1 << 30;

    fn encode(picture: DynamicImage) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        picture.write_to(&mut bytes, ImageFormat::Jpeg).unwrap();
        bytes.into_inner()
    }

    fn waves(width: u32, height: u32) -> RgbImage {
        let wave = |at: u32, length: f32| (128.0 + 90.0 * (at as f32 / length).sin()) as u8;
        RgbImage::from_fn(width, height, |x, y| Rgb([wave(x, 9.0), wave(y, 23.0), wave(x + y, 31.0)]))
    }

    #[test]
    fn pixels_are_near_the_means_of_their_blocks() {
        let bytes = encode(waves(203, 160).into());
        let full = image::load_from_memory(&bytes).unwrap().into_rgb8();
        // At a quarter, frequencies are left out that have a part in the mean of a quarter of the block.
        for (short, divisor, tolerance) in [(10, 8, 4.0), (11, 4, 10.0), (20, 4, 10.0)] {
            let small = jpeg(&bytes, (203, 160), short, MEMORY).unwrap();
            assert_eq!(small.dimensions(), (203u32.div_ceil(divisor), 160 / divisor));
            for (x, y, pixel) in small.enumerate_pixels().filter(|(x, _, _)| *x < 203 / divisor) {
                for c in 0..3 {
                    let at =
                        |i: u32| full.get_pixel(x * divisor + i % divisor, y * divisor + i / divisor).0[c];
                    let mean = (0..divisor * divisor).map(|i| f32::from(at(i))).sum::<f32>();
                    let mean = mean / (divisor * divisor) as f32;
                    let off = (mean - f32::from(pixel.0[c])).abs();
                    assert!(off < tolerance, "1/{divisor} ({x}, {y}) {c}: {mean} {}", pixel.0[c]);
                }
            }
        }
    }

    #[test]
    fn a_short_side_that_would_be_too_small_is_left_to_the_other_decoder() {
        let bytes = encode(waves(160, 203).into());
        assert!(jpeg(&bytes, (160, 203), 21, MEMORY).is_none());
        assert!(jpeg(&bytes, (160, 203), u32::MAX, MEMORY).is_none());
        assert!(jpeg(&bytes[..bytes.len() / 9], (160, 203), 10, MEMORY).is_none());
        assert!(jpeg(b"no picture", (160, 203), 10, MEMORY).is_none());
        assert!(jpeg(&bytes, (160, 203), 10, 100).is_none());
    }

    #[test]
    fn grey_has_three_equal_channels() {
        let bytes = encode(DynamicImage::ImageLuma8(image::GrayImage::from_pixel(96, 64, image::Luma([77]))));
        let small = jpeg(&bytes, (96, 64), 4, MEMORY).unwrap();
        assert_eq!(small.dimensions(), (12, 8));
        assert!(small.pixels().all(|p| p.0 == [77; 3]));
    }
}
