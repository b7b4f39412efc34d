//! The products of a frequency in integer codes.

use std::cell::RefCell;
use std::ops::Range;

use super::Winograd;
use crate::frozen::layer::{Conv, IntWeights, Line, blocks};
use crate::int_tile::{self, IntTile, MAX_PIXELS, max_blocks, max_pixels, pack, run};
use crate::simd::LANES;

impl Winograd {
    /// As [`Winograd::multiply`], with weights in codes. Each piece has a scale of its own in each frequency, so that the
    /// result depends on how pieces are dealt out as little as in f32.
    ///
    /// # Safety
    /// As for [`Winograd::multiply`].
    pub(super) unsafe fn multiply_codes(
        &self,
        conv: &Conv,
        weights: &IntWeights,
        pieces: usize,
        f: usize,
        out_blocks: Range<usize>,
        (v, m): (*mut f32, *mut f32),
    ) {
        thread_local! {
            /// Codes and scales of the tiles, kept from one frequency to the next.
            static PACKED: RefCell<(Vec<i16>, Vec<[f32; MAX_PIXELS]>)> = const { RefCell::new((Vec::new(), Vec::new())) };
        }
        static ZEROS: [Line; 2] = [Line([0.0; LANES]); 2];
        let path = int_tile::path(self.isa);
        let widest = max_pixels(path);
        let (in_blocks, all_out) = (blocks(conv.in_c), blocks(conv.out_c));
        let entries: Vec<u32> = (0..in_blocks).map(|b| (b * self.chunk * LANES) as u32).collect();
        let (pairs, room) = (in_blocks * LANES / 2, widest * in_blocks * LANES);
        let count = pieces.div_ceil(widest);
        let tiles = (0..count).map(|i| pieces * i / count..pieces * (i + 1) / count);
        PACKED.with_borrow_mut(|(codes, scales)| {
            codes.resize(codes.len().max(count * room), 0);
            scales.clear();
            for (tile, codes) in tiles.clone().zip(codes.chunks_exact_mut(room)) {
                let from = v.wrapping_add(f * self.v_frequency(conv));
                // SAFETY: `v` is good for all pieces and frequencies; the codes have room for the widest tile.
                scales.push(unsafe { pack(path, from, &entries, &self.ramp[tile], codes.as_mut_ptr()) });
            }
            let mut block = out_blocks.start;
            while block < out_blocks.end {
                let together = max_blocks(path).min(out_blocks.end - block);
                let at = f * all_out + block;
                let weights_of_block = &weights.pairs[at * pairs..(at + together) * pairs];
                let packed = codes.chunks_exact(room).zip(scales.iter());
                for (i, (pieces, (codes, scales))) in tiles.clone().zip(packed).enumerate() {
                    // The first tiles fetch the weights of the next blocks, or of the next frequency.
                    let ahead = if i < together { together + i } else { 0 };
                    let tile = IntTile {
                        packed: codes.as_ptr(),
                        pairs,
                        weights: weights_of_block.as_ptr(),
                        weight_block: pairs,
                        ahead: weights_of_block.as_ptr().wrapping_add(ahead * pairs),
                        scales: scales.as_ptr(),
                        channel_scale: weights.scales[at..at + together].as_ptr().cast(),
                        bias: ZEROS.as_ptr().cast(),
                        out: m.wrapping_add(f * self.m_frequency(conv) + block * self.chunk * LANES),
                        out_block: self.chunk * LANES,
                        out_offsets: self.ramp[pieces.clone()].as_ptr(),
                        residual: std::ptr::null(),
                        residual_block: 0,
                        residual_offsets: std::ptr::null(),
                        low: f32::NEG_INFINITY,
                        high: f32::INFINITY,
                    };
                    // SAFETY: `m` is good for all pieces, frequencies and blocks.
                    unsafe { run(path, pieces.len(), together, &tile) };
                }
                block += together;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Tensor};

    use crate::frozen::agreement::map_forward;
    use crate::frozen::{Builder, ConvLayer, Precision};
    use crate::reference::{self, assert_close, noise, values};
    use crate::simd::Isa;
    use crate::{Activation, Conv2dConfig};

    const CFG: Conv2dConfig = Conv2dConfig { stride: 1, padding: 1, dilation: 1, groups: 1 };

    /// A 3×3 layer of products of codes.
    fn forward(isa: Isa, x: &Tensor, w: &Tensor, bias: &Tensor) -> Tensor {
        let mut net = Builder::with_isa(x.dims()[1], isa).unwrap().precision(Precision::Int16);
        let input = net.input();
        let layer = ConvLayer { bias: Some(bias), activation: Activation::Relu, ..ConvLayer::new(w, CFG) };
        let y = net.conv(input, &layer).unwrap();
        let (got, algorithm) = map_forward(net, y, x);
        assert_eq!(algorithm, "winograd16");
        got
    }

    #[test]
    fn agrees_with_the_literal_loop_on_every_path() {
        for (x, out) in [([1, 64, 20, 17], 64), ([2, 40, 30, 9], 50), ([3, 128, 12, 12], 33)] {
            let (x, w, bias) = (noise(&x, 1), noise(&[out, x[1], 3, 3], 2), noise(&[out], 3));
            let expected = reference::conv2d(&x, &w, Some(&bias), CFG).to_dtype(DType::F32).unwrap();
            let expected = expected.relu().unwrap();
            for isa in [Isa::Avx512, Isa::Avx2, Isa::Portable].into_iter().filter(|isa| isa.available()) {
                let got = forward(isa, &x, &w, &bias);
                // Of white noise, transforming back makes some twenty times as much of what rounding lost.
                assert_close(&got, &expected, 6e-3, &format!("{isa} {:?}", x.dims()));
            }
        }
    }

    #[test]
    fn an_image_has_the_same_result_in_every_batch_and_on_any_number_of_threads() {
        let (x, w, bias) = (noise(&[7, 64, 20, 17], 1), noise(&[64, 64, 3, 3], 2), noise(&[64], 3));
        let on = |threads: usize, x: &Tensor| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            values(&pool.install(|| forward(Isa::detect(), x, &w, &bias)))
        };
        let together = on(1, &x);
        assert!(together == on(3, &x));
        for (image, expected) in together.chunks(together.len() / 7).enumerate() {
            assert!(on(2, &x.narrow(0, image, 1).unwrap()) == expected, "image {image}");
        }
    }
}
