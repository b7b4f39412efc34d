//! One 3×3 layer by Winograd on tensors in NCHW order, for the forward pass of training and the gradient with respect to the
//! input.
//!
//! The weights are transformed again on every call, since every step changes them.

use std::sync::{Mutex, PoisonError};

use super::input;
use super::layer::Conv;
use super::map::Map;
use super::memory::Lines;
use super::precision::Precision;
use super::shared::Shared;
use super::team;
use super::winograd::{FREQUENCIES, OUT, Winograd};
use crate::conv_shape::ConvShape;
use crate::simd::{Isa, LANES};

/// Images that go through together, so that the blocked copies of their maps stay small.
const IMAGES: usize = 8;
/// Cycles that a pair of channels costs besides its products: transforming, writing and reading its weights.
const WEIGHT_CYCLES: f64 = 70.0;
/// Share of the peak that products reach.
const SHARE: f64 = 0.8;

/// Whether the layer can be computed so, and is worth it.
pub(crate) fn suits(s: &ConvShape) -> bool {
    let shape = (s.k_h, s.k_w, s.cfg.stride, s.cfg.dilation, s.cfg.groups);
    if shape != (3, 3, 1, 1, 1) || s.cfg.padding > 2 || s.in_c < LANES || s.out_c < LANES || s.n == 0 {
        return false;
    }
    let images = IMAGES.min(s.n) as f64;
    let pieces = images * (s.out_h.div_ceil(OUT) * s.out_w.div_ceil(OUT)) as f64;
    let saved = images * 9.0 * s.out_plane() as f64 - FREQUENCIES as f64 * pieces;
    let threads = rayon::current_num_threads() as f64;
    let fits = [map(s.in_c, s.in_h, s.in_w), map(s.out_c, s.out_h, s.out_w)]
        .iter()
        .all(|map| map.image().and_then(|image| image.checked_mul(IMAGES)).is_some());
    fits && saved / (LANES as f64 * SHARE * threads) > WEIGHT_CYCLES
}

fn map(channels: usize, height: usize, width: usize) -> Map {
    Map { channels, height, width, border: 0, planar: false }
}

/// Buffers of a call. They are kept for the next: asking the system for megabytes of cleared memory and giving them back
/// takes as long as some layers do.
#[derive(Default)]
struct Room {
    from: Option<Lines>,
    to: Option<Lines>,
    scratch: Option<Lines>,
    weights: Option<Lines>,
}

/// Rooms that nobody is in.
static ROOMS: Mutex<Vec<Room>> = Mutex::new(Vec::new());

/// The result (n, out, h', w') of convolving `x` (n, in, h, w) with `weight` (out, in, 3, 3); for a shape that
/// [`suits`].
pub(crate) fn convolve(s: &ConvShape, x: &[f32], weight: Vec<f32>) -> Vec<f32> {
    let rooms = || ROOMS.lock().unwrap_or_else(PoisonError::into_inner);
    let mut room = rooms().pop().unwrap_or_default();
    let (input, output) = (map(s.in_c, s.in_h, s.in_w), map(s.out_c, s.out_h, s.out_w));
    let mut conv = Conv::plain(s, weight);
    conv.pack_winograd_into(room.weights.take());
    let lines = |map: Map| IMAGES.min(s.n) * map.plane() * map.planes() / LANES;
    let mut from = Lines::at_least(lines(input), room.from.take());
    let mut to = Lines::at_least(lines(output), room.to.take());
    let mut y = vec![0f32; s.y_len()];
    let (image_x, image_y) = (s.in_c * s.in_plane(), s.out_c * s.out_plane());
    for (x, y) in x.chunks(IMAGES * image_x).zip(y.chunks_mut(IMAGES * image_y)) {
        let n = y.len() / image_y;
        let winograd = Winograd::new((Isa::detect(), Precision::F32), &conv, n, input, output, None);
        let (length, count) = winograd.scratch(&conv);
        let mut scratch = Lines::at_least((length * count).div_ceil(LANES), room.scratch.take());
        let shared = |lines: &mut Lines| Shared::new(lines.as_mut_ptr().cast());
        // SAFETY: the buffers are as large as so many images and this layer's scratch, and nobody else has them.
        unsafe {
            let (from, to, scratch) = (shared(&mut from), shared(&mut to), shared(&mut scratch));
            team::lead(|team| {
                input::load(team, x, n, from, input);
                winograd.run(team, &conv, (from, to, Shared::null()), scratch);
            });
        }
        input::unload(&to, n, output, y);
        room.scratch = Some(scratch);
    }
    room = Room { from: Some(from), to: Some(to), weights: conv.into_winograd_room(), ..room };
    rooms().push(room);
    y
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Conv2dConfig;
    use crate::reference::{self, assert_close, noise};

    #[test]
    fn agrees_with_the_literal_loop_for_every_padding_and_more_images_than_go_together() {
        for (n, inp, out, h, w, padding) in [
            (1, 16, 16, 12, 13, 1),
            (IMAGES + 3, 17, 40, 9, 6, 1),
            (2, 33, 16, 14, 15, 0),
            (2, 20, 18, 7, 8, 2),
        ] {
            let cfg = Conv2dConfig { padding, ..Default::default() };
            let (x, weight) = (noise(&[n, inp, h, w], 1), noise(&[out, inp, 3, 3], 2));
            let s = ConvShape::new(x.dims(), weight.dims(), cfg).unwrap();
            let values = |t: &candle_core::Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let y = convolve(&s, &values(&x), values(&weight));
            let y = candle_core::Tensor::from_vec(y, (n, out, s.out_h, s.out_w), x.device()).unwrap();
            assert_close(&y, &reference::conv2d(&x, &weight, None, cfg), 1e-5, &format!("{s:?}"));
        }
    }

    #[test]
    fn large_planes_suit_and_small_ones_or_other_windows_do_not() {
        let suits = |n, channels, side, kernel, stride| {
            let cfg = Conv2dConfig { stride, padding: kernel / 2, ..Default::default() };
            let dims = [channels, channels, kernel, kernel];
            super::suits(&ConvShape::new(&[n, channels, side, side], &dims, cfg).unwrap())
        };
        assert!(suits(8, 64, 56, 3, 1));
        assert!(!suits(8, 64, 56, 3, 2));
        assert!(!suits(8, 64, 56, 5, 1));
        assert!(!suits(8, 8, 56, 3, 1));
        assert!(!suits(1, 512, 3, 3, 1));
    }
}
