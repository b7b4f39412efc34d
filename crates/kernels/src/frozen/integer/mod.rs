//! Convolution in 16-bit integer codes: any window without groups, where Winograd in f32 is not faster.
//!
//! The input under each pixel is packed into codes once, window by window, by the task that multiplies it or, where several
//! tasks do, by all threads beforehand; then the weights pass over the codes.
//! Each pixel has a scale of its own, found while packing, so that no calibration is needed and a layer's result depends
//! neither on the batch nor on the number of threads. Tiles go on from one image to the next.

mod run;

use std::ops::Range;

use super::direct::{direct_cycles, partition};
use super::layer::{Conv, blocks};
use super::map::Map;
use crate::int_tile::{self, max_pixels};
use crate::simd::{Isa, LANES};

/// How much faster than f32 the products are taken to be when algorithms are compared.
pub(super) const SPEED_UP: f64 = 1.8;

/// One register tile's pixels: the image that the first is in, its place in the lists of offsets, and their number.
#[derive(Clone, Copy)]
struct Spot {
    image: usize,
    first: usize,
    pixels: usize,
}

/// A convolution laid out for one image size.
pub(super) struct Integer {
    path: Isa,
    /// Offsets of the blocks of sixteen channels of a window.
    entries: Vec<u32>,
    spots: Vec<Spot>,
    /// Where the window of each pixel of all images starts, counted from the plane of its spot's image.
    in_offsets: Vec<u32>,
    out_offsets: Vec<u32>,
    residual_offsets: Vec<u32>,
    input: Map,
    output: Map,
    residual: Option<Map>,
    /// Several tasks multiply the same pixels, whose codes are made beforehand.
    shared: bool,
    /// (spots, output blocks) of each task.
    tasks: Vec<(Range<usize>, Range<usize>)>,
}

impl Integer {
    /// Whether a layer can be computed so and gains by it: with few output channels packing costs what products save.
    pub(super) fn suits(conv: &Conv, input: Map) -> bool {
        conv.cfg.groups == 1 && !input.planar && conv.out_c > LANES
    }

    /// As [`direct_cycles`].
    pub(super) fn cycles(conv: &Conv, n: usize, output: Map, threads: usize) -> f64 {
        direct_cycles(conv, n, output, threads) / SPEED_UP
    }

    pub(super) fn new(
        isa: Isa,
        conv: &Conv,
        n: usize,
        input: Map,
        output: Map,
        residual: Option<Map>,
    ) -> Self {
        let path = int_tile::path(isa);
        let widest = max_pixels(path);
        let (row, pixel, plane) = (input.row(), input.pixel(), input.plane());
        let (stride, dilation) = (conv.cfg.stride, conv.cfg.dilation);
        let mut entries = Vec::new();
        for p in 0..blocks(conv.in_c) {
            for ky in 0..conv.k_h {
                for kx in 0..conv.k_w {
                    entries.push((p * plane + ky * dilation * row + kx * dilation * pixel) as u32);
                }
            }
        }
        let start = (input.border - conv.cfg.padding) * (row + pixel);
        let window = |pixel: usize| {
            let (y, x) = (pixel / output.width, pixel % output.width);
            start + y * stride * row + x * stride * input.pixel()
        };
        let pixels = output.height * output.width;
        let image_len = |map: Map| map.plane() * map.planes();
        let largest = [Some(input), Some(output), residual].into_iter().flatten().map(image_len).max();
        // The offsets of a tile reach over at most so many images as it has pixels.
        let together = if largest.is_some_and(|l| l <= u32::MAX as usize / widest) { n } else { 1 };
        let (out_place, residual_place) = (output.offsets(), residual.map(|r| r.offsets()));
        let (mut spots, mut in_offsets, mut out_offsets) = (Vec::new(), Vec::new(), Vec::new());
        let mut residual_offsets = Vec::new();
        for group in (0..n).step_by(together) {
            let count = (together * pixels).div_ceil(widest);
            let cut = |i: usize| group * pixels + together * pixels * i / count;
            for (first, end) in (0..count).map(|i| (cut(i), cut(i + 1))) {
                let image = first / pixels;
                spots.push(Spot { image, first, pixels: end - first });
                for at in first..end {
                    let (ahead, pixel) = (at / pixels - image, at % pixels);
                    in_offsets.push((ahead * image_len(input) + window(pixel)) as u32);
                    out_offsets.push((ahead * image_len(output)) as u32 + out_place[pixel]);
                    if let (Some(map), Some(place)) = (residual, &residual_place) {
                        residual_offsets.push((ahead * image_len(map)) as u32 + place[pixel]);
                    }
                }
            }
        }
        let block_bytes = entries.len() * LANES * LANES * 2;
        let spot_bytes = widest * entries.len() * LANES * 2;
        let tasks = partition(spots.len(), blocks(conv.out_c), spot_bytes, block_bytes);
        Self {
            path,
            shared: tasks.iter().any(|(_, out)| out.len() < blocks(conv.out_c)),
            tasks,
            entries,
            spots,
            in_offsets,
            out_offsets,
            residual_offsets,
            input,
            output,
            residual,
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};
    use proptest::prelude::*;

    use crate::frozen::agreement::map_forward;
    use crate::frozen::{Builder, ConvLayer, Precision};
    use crate::reference::{self, assert_close, noise, values};
    use crate::simd::Isa;
    use crate::{Activation, Conv2dConfig};

    /// A layer in integers on every path: near the literal f64 loop, and the same numbers on each path.
    fn check(x: [usize; 4], w: [usize; 4], cfg: Conv2dConfig) -> &'static str {
        let (x, w) = (noise(&x, 1), noise(&w, 2));
        let bias = noise(&[w.dims()[0]], 3);
        let expected = reference::conv2d(&x, &w, Some(&bias), cfg).to_dtype(candle_core::DType::F32).unwrap();
        let expected = expected.relu().unwrap();
        let results: Vec<_> = [Isa::Avx512, Isa::Avx2, Isa::Portable]
            .into_iter()
            .filter(|isa| isa.available())
            .map(|isa| {
                let net = Builder::with_isa(x.dims()[1], isa).unwrap();
                let mut net = net.precision(Precision::Int16);
                let activation = Activation::Relu;
                let layer = ConvLayer { bias: Some(&bias), activation, ..ConvLayer::new(&w, cfg) };
                let input = net.input();
                let y = net.conv(input, &layer).unwrap();
                let (got, algorithm) = map_forward(net, y, &x);
                let what = format!("{isa} {algorithm} {:?} {:?} {cfg:?}", x.dims(), w.dims());
                assert_close(&got, &expected, if algorithm == "winograd16" { 6e-3 } else { 1e-3 }, &what);
                (values(&got), algorithm)
            })
            .collect();
        if results[0].1 == "int16" {
            assert!(
                results.iter().all(|r| r.0 == results[0].0),
                "paths differ: {:?} {:?}",
                x.dims(),
                w.dims()
            );
        }
        results[0].1
    }

    #[test]
    fn layers_agree_with_the_literal_loop_and_between_paths() {
        let cfg = |stride, padding, dilation| Conv2dConfig { stride, padding, dilation, groups: 1 };
        for (x, w, cfg) in [
            ([2, 40, 7, 7], [48, 40, 1, 1], cfg(1, 0, 1)),
            ([1, 17, 14, 9], [33, 17, 1, 1], cfg(2, 0, 1)),
            ([1, 16, 3, 3], [18, 16, 1, 1], cfg(1, 2, 1)),
            ([3, 20, 11, 6], [24, 20, 3, 3], cfg(2, 1, 1)),
            ([1, 20, 11, 6], [24, 20, 3, 2], cfg(3, 4, 1)),
            ([1, 20, 11, 12], [24, 20, 3, 3], cfg(1, 2, 2)),
            ([1, 300, 1, 1], [17, 300, 1, 1], cfg(1, 0, 1)),
            // More weights than a core keeps.
            ([1, 520, 5, 5], [400, 520, 1, 1], cfg(1, 0, 1)),
        ] {
            assert_eq!(check(x, w, cfg), "int16");
        }
        // What integers do not suit is computed in f32.
        let grouped = Conv2dConfig { groups: 4, ..cfg(1, 1, 1) };
        assert_eq!(check([1, 32, 6, 6], [32, 8, 3, 3], grouped), "direct");
        assert_eq!(check([1, 3, 9, 9], [32, 3, 3, 3], cfg(2, 1, 1)), "direct");
        assert_eq!(check([1, 32, 9, 9], [16, 32, 1, 1], cfg(1, 0, 1)), "direct");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn random_layers_agree(
            n in 1usize..3, c in 9usize..40, o in 17usize..50, h in 3usize..12, w in 3usize..12,
            kh in 1usize..4, kw in 1usize..4, stride in 1usize..4, padding in 0usize..3,
        ) {
            let cfg = Conv2dConfig { stride, padding, ..Default::default() };
            check([n, c, h, w], [o, c, kh, kw], cfg);
        }
    }

    /// Bottlenecks as in ResNet-50, eight deep.
    #[test]
    fn a_network_in_integers_is_near_the_one_in_f32_in_every_batch() {
        let net = |precision| {
            let mut net = Builder::new(3).unwrap().precision(precision);
            let weight = |out: usize, inp: usize, side: usize, seed| {
                let scale = (2.0 / (inp * side * side) as f64).sqrt();
                (noise(&[out, inp, side, side], seed) * scale).unwrap()
            };
            let cfg = |side: usize, stride| Conv2dConfig { stride, padding: side / 2, ..Default::default() };
            fn relu(w: &Tensor, cfg: Conv2dConfig) -> ConvLayer<'_> {
                ConvLayer { activation: Activation::Relu, ..ConvLayer::new(w, cfg) }
            }
            let x = net.input();
            let mut x = net.conv(x, &relu(&weight(64, 3, 3, 1), cfg(3, 2))).unwrap();
            for block in 0..8 {
                let y = net.conv(x, &relu(&weight(32, 64, 1, 10 + block), cfg(1, 1))).unwrap();
                let y = net.conv(y, &relu(&weight(32, 32, 3, 20 + block), cfg(3, 1))).unwrap();
                let last = weight(64, 32, 1, 30 + block);
                x = net.conv(y, &ConvLayer { residual: Some(x), ..relu(&last, cfg(1, 1)) }).unwrap();
            }
            let y = net.global_avg_pool(x).unwrap();
            net.finish(y).unwrap()
        };
        let images = Tensor::randn(0f32, 1.0, (3, 3, 31, 31), &Device::Cpu).unwrap();
        let pixels = values(&images).into_iter().map(|v| v as f32).collect::<Vec<f32>>();
        let (plain, integer) = (net(Precision::F32), net(Precision::Int16));
        assert_eq!(integer.precision(), Precision::Int16);
        let (a, b) =
            (plain.forward(&pixels, 3, 31, 31).unwrap(), integer.forward(&pixels, 3, 31, 31).unwrap());
        assert_ne!(a, b);
        let dot = |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum() };
        for (i, (a, b)) in a.chunks(64).zip(b.chunks(64)).enumerate() {
            let cosine = |a: &[f32], b: &[f32]| dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
            assert!(cosine(a, b) > 0.99999, "image {i}: {}", cosine(a, b));
            // Another batch may choose Winograd for other layers, so the bits may differ.
            let one = &pixels[i * 3 * 31 * 31..(i + 1) * 3 * 31 * 31];
            let alone = cosine(&integer.forward(one, 1, 31, 31).unwrap(), b);
            assert!(alone > 0.99999, "image {i} alone: {alone}");
        }
    }
}
