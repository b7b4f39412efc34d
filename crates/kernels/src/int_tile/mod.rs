//! The integer register tile: some pixels times sixteen output channels, products of 16-bit codes summed in 32 bits.
//!
//! On AVX2 one `vpmaddwd` multiplies sixteen pairs of codes and adds neighbours, twice the products of an f32
//! multiply-add. Packing turns the f32 values under a pixel into codes with one scale for the pixel,
//! `code = round(x · MAX_CODE / max |x|)`; weights have a scale for each output channel, chosen so that no sum can
//! leave 32 bits ([`channel_codes`]). Every path computes the same bits, whichever pixels share a tile.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

use crate::simd::{Isa, LANES};

/// The most pixels of a tile on any path.
pub(crate) const MAX_PIXELS: usize = 14;
/// The greatest code of an activation, in absolute value.
pub(crate) const MAX_CODE: f32 = 4095.0;
/// The greatest code of a weight, in absolute value.
const MAX_WEIGHT: f64 = 32767.0;
/// If a pixel's values are smaller, the factor to codes could be infinite; they are as good as zero.
const SMALLEST: f32 = 1e-30;

/// The path of integer tiles where `isa` is available: AVX-512 only with VNNI, without which AVX2's tile is as fast.
pub(crate) fn path(isa: Isa) -> Isa {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 if !avx512::available() => Isa::Avx2,
        _ => isa,
    }
}

/// The most pixels of a tile on this path.
pub(crate) fn max_pixels(path: Isa) -> usize {
    if path == Isa::Avx512 { MAX_PIXELS } else { 6 }
}

/// The most blocks of sixteen output channels of a tile on this path.
pub(crate) fn max_blocks(path: Isa) -> usize {
    if path == Isa::Avx512 { 2 } else { 1 }
}

/// Two summands of sixteen output channels: [channel][2], on one cache line.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Pair(pub(crate) [i16; 2 * LANES]);

/// Codes of the weights of one output channel and the factor from codes back to weights: as fine as 16 bits allow and
/// as a sum over activations of at most [`MAX_CODE`] stays within 32 bits.
pub(crate) fn channel_codes(weights: &[f32]) -> (Vec<i16>, f32) {
    let greatest = weights.iter().fold(0f64, |m, w| m.max(f64::from(w.abs())));
    let whole: f64 = weights.iter().map(|w| f64::from(w.abs())).sum();
    if greatest < f64::from(f32::MIN_POSITIVE) || !whole.is_finite() {
        return (vec![0; weights.len()], if whole.is_finite() { 0.0 } else { f32::NAN });
    }
    // Rounding adds at most half a code to each weight.
    let room = (f64::from(i32::MAX) / f64::from(MAX_CODE) - weights.len() as f64 / 2.0).max(0.0);
    let scale = (MAX_WEIGHT / greatest).min(room / whole);
    (weights.iter().map(|w| (f64::from(*w) * scale).round() as i16).collect(), (1.0 / scale) as f32)
}

/// Everything that one integer tile reads and writes; pointers must be good for what [`Tile`](crate::tile::Tile) asks
/// of the fields of the same names, with `pairs` pairs of summands.
pub(crate) struct IntTile {
    /// Codes as [`pack`] writes them.
    pub(crate) packed: *const i16,
    /// A multiple of eight.
    pub(crate) pairs: usize,
    pub(crate) weights: *const Pair,
    /// Pairs from the weights of one block of output channels to those of the next.
    pub(crate) weight_block: usize,
    /// As many pairs of one block, to be fetched into the cache meanwhile on paths that do so: the weights of a later tile,
    /// or these weights. The address need not be good.
    pub(crate) ahead: *const Pair,
    /// From activation codes back to values, one for each pixel.
    pub(crate) scales: *const f32,
    /// From weight codes back to weights, one for each of the channels.
    pub(crate) channel_scale: *const f32,
    pub(crate) bias: *const f32,
    pub(crate) out: *mut f32,
    pub(crate) out_block: usize,
    pub(crate) out_offsets: *const u32,
    pub(crate) residual: *const f32,
    pub(crate) residual_block: usize,
    pub(crate) residual_offsets: *const u32,
    pub(crate) low: f32,
    pub(crate) high: f32,
}

/// `$call!(path, pixels)` for the path and the number of pixels.
macro_rules! on_path {
    (@$pixels:ident, $path:ident, $call:ident, [$($p:literal),*]) => {
        match $pixels {
            $($p => $call!($path, $p),)*
            _ => unreachable!("no tile has {} pixels", $pixels),
        }
    };
    ($path:expr, $pixels:expr, $call:ident) => {
        match ($path, $pixels) {
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512, pixels) => {
                on_path!(@pixels, avx512, $call, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14])
            }
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx2, pixels) => on_path!(@pixels, avx2, $call, [1, 2, 3, 4, 5, 6]),
            (_, pixels) => on_path!(@pixels, portable, $call, [1, 2, 3, 4, 5, 6]),
        }
    };
}

/// Writes the codes of sixteen values at each of `entries` and `pixels` to `to`: [entry][pixel][16]; returns the
/// factor from codes back to values of each pixel.
///
/// # Safety
/// `path` must come from [`path`] of an available one, `input` be good for sixteen values at each sum of an entry and a
/// pixel, `to` for all codes.
///
/// # Panics
/// For no pixels and for more than [`max_pixels`].
pub(crate) unsafe fn pack(
    path: Isa,
    input: *const f32,
    entries: &[u32],
    pixels: &[u32],
    to: *mut i16,
) -> [f32; MAX_PIXELS] {
    let mut all = [0.0; MAX_PIXELS];
    macro_rules! pack {
        ($path:ident, $p:literal) => {{
            let pixels: &[u32; $p] = pixels.try_into().expect("matched by length");
            // SAFETY: passed on.
            all[..$p].copy_from_slice(&unsafe { $path::pack(input, entries, pixels, to) });
        }};
    }
    on_path!(path, pixels.len(), pack);
    all
}

/// Computes a tile of at most [`max_pixels`] pixels and [`max_blocks`] blocks of output channels.
///
/// # Safety
/// `path` must come from [`path`] of an available one and the tile be as [`IntTile`] describes it.
///
/// # Panics
/// For no pixels or blocks and for more than there may be.
pub(crate) unsafe fn run(path: Isa, pixels: usize, blocks: usize, tile: &IntTile) {
    assert!((1..=max_blocks(path)).contains(&blocks), "no tile has {blocks} blocks");
    macro_rules! tile {
        (avx512, $p:literal) => {
            // SAFETY: passed on.
            unsafe { if blocks == 2 { avx512::tile::<$p, 2>(tile) } else { avx512::tile::<$p, 1>(tile) } }
        };
        ($path:ident, $p:literal) => {
            // SAFETY: passed on.
            unsafe { $path::tile::<$p>(tile) }
        };
    }
    on_path!(path, pixels, tile);
}

/// (value → code, code → value) for values up to `greatest`.
fn scales(greatest: f32) -> (f32, f32) {
    if greatest < SMALLEST { (0.0, 0.0) } else { (MAX_CODE / greatest, greatest / MAX_CODE) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths() -> impl Iterator<Item = Isa> {
        let own = |isa: &Isa| isa.available() && path(*isa) == *isa;
        [Isa::Avx512, Isa::Avx2, Isa::Portable].into_iter().filter(own)
    }

    fn wave(i: usize) -> f32 {
        ((i * 37 % 101) as f32 - 50.0) / 50.0
    }

    #[test]
    fn no_sum_of_codes_can_leave_32_bits() {
        for count in [1, 3, 64, 2048, 4608, 200_000] {
            for weights in [vec![1.0; count], (0..count).map(wave).collect::<Vec<_>>(), vec![1e-20; count]] {
                let (codes, to_weight) = channel_codes(&weights);
                let worst: i64 = codes.iter().map(|c| i64::from(c.unsigned_abs())).sum();
                assert!(worst * MAX_CODE as i64 <= i64::from(i32::MAX), "{count}: {worst}");
                let off = |(w, c): (&f32, &i16)| (w - f32::from(*c) * to_weight).abs() <= 0.5001 * to_weight;
                assert!(weights.iter().zip(&codes).all(off), "{count}");
            }
        }
        assert_eq!(channel_codes(&[0.0; 5]), (vec![0; 5], 0.0));
    }

    #[test]
    fn codes_are_rounded_values_on_every_path() {
        let input: Vec<f32> = (0..384 + 7 + LANES).map(wave).collect();
        let (entries, pixels) = ([3, 0, 7], [3, 90, 20, 51, 8, 2, 384, 200, 7, 377, 256, 1, 100, 64]);
        let cases = (1..=pixels.len()).map(|p| (&entries[p % 3..], &pixels[..p]));
        for (entries, pixels) in cases {
            let all = || entries.iter().flat_map(|e| pixels.iter().map(move |p| (*e + *p) as usize));
            let greatest: Vec<f32> = pixels
                .iter()
                .map(|p| entries.iter().map(move |e| (e + p) as usize).flat_map(|at| &input[at..at + LANES]))
                .map(|values| values.fold(0f32, |m, v| m.max(v.abs())))
                .collect();
            for isa in paths().filter(|path| pixels.len() <= max_pixels(*path)) {
                let mut codes = vec![0; entries.len() * pixels.len() * LANES];
                // SAFETY: the path is available and the slices were sized for the offsets.
                let scales = unsafe { pack(isa, input.as_ptr(), entries, pixels, codes.as_mut_ptr()) };
                for (scale, greatest) in scales.iter().zip(&greatest) {
                    assert_eq!(*scale, greatest / MAX_CODE);
                }
                for ((codes, at), i) in codes.chunks(LANES).zip(all()).zip(0..) {
                    for (code, value) in codes.iter().zip(&input[at..]) {
                        let greatest = greatest[i % pixels.len()];
                        let expected = (value * (MAX_CODE / greatest)).round_ties_even();
                        assert_eq!(f32::from(*code), expected, "{isa}");
                    }
                }
            }
        }
        for isa in paths() {
            let mut codes = vec![1; LANES];
            // SAFETY: as above.
            let scales = unsafe { pack(isa, [0.0; LANES].as_ptr(), &[0], &[0], codes.as_mut_ptr()) };
            assert_eq!((scales, codes), ([0.0; MAX_PIXELS], vec![0; LANES]), "{isa}");
        }
    }

    #[test]
    fn every_tile_equals_the_literal_integer_loop() {
        let shapes =
            |path| (1..=max_pixels(path)).flat_map(move |p| (1..=max_blocks(path)).map(move |b| (p, b)));
        for (path, (pixels, blocks)) in paths().flat_map(|path| shapes(path).map(move |shape| (path, shape)))
        {
            for (in_blocks, with) in [1, 2, 5].into_iter().flat_map(|b| [(b, false), (b, true)]) {
                check_tile(path, pixels, blocks, in_blocks * LANES, with);
            }
        }
    }

    /// A tile on buffers of just the length that it may touch.
    fn check_tile(path: Isa, pixels: usize, blocks: usize, sums: usize, with_residual: bool) {
        let code = |i: usize| (i * 7919 % 8191) as i16 - 4095;
        let packed: Vec<i16> = (0..pixels * sums).map(code).collect();
        let weights: Vec<Pair> =
            (0..blocks * sums / 2).map(|i| Pair(std::array::from_fn(|j| code(i * 32 + j + 11)))).collect();
        let bias: Vec<f32> = (0..blocks * LANES).map(|i| wave(i + 5)).collect();
        let channel_scale: Vec<f32> = (0..blocks * LANES).map(|i| i as f32).collect();
        let offsets: Vec<u32> = (0..pixels as u32).rev().map(|p| p * LANES as u32).collect();
        let residual: Vec<f32> = (0..blocks * pixels * LANES).map(wave).collect();
        let scales: Vec<f32> = (0..pixels).map(|p| 1e-6 * (p + 1) as f32).collect();
        let mut out = vec![f32::NAN; residual.len()];
        let tile = IntTile {
            packed: packed.as_ptr(),
            pairs: sums / 2,
            weights: weights.as_ptr(),
            weight_block: sums / 2,
            ahead: weights.as_ptr_range().end,
            scales: scales.as_ptr(),
            channel_scale: channel_scale.as_ptr(),
            bias: bias.as_ptr(),
            out: out.as_mut_ptr(),
            out_block: pixels * LANES,
            out_offsets: offsets.as_ptr(),
            residual: if with_residual { residual.as_ptr() } else { std::ptr::null() },
            residual_block: pixels * LANES,
            residual_offsets: offsets.as_ptr(),
            low: -900.0,
            high: 900.0,
        };
        // SAFETY: the path is available and all slices were sized for what the tile reads and writes.
        unsafe { run(path, pixels, blocks, &tile) };
        for (p, channel) in (0..pixels).flat_map(|p| (0..blocks * LANES).map(move |c| (p, c))) {
            let (block, lane) = (channel / LANES, channel % LANES);
            let product = |k: usize| {
                let x = packed[(k / LANES * pixels + p) * LANES + k % LANES];
                i32::from(x) * i32::from(weights[(block * sums + k) / 2].0[2 * lane + k % 2])
            };
            let sum: i32 = (0..sums).map(product).sum();
            let at = block * pixels * LANES + offsets[p] as usize + lane;
            let mut expected = sum as f32 * (channel_scale[channel] * scales[p]) + bias[channel];
            expected += if with_residual { residual[at] } else { 0.0 };
            assert_eq!(out[at], expected.clamp(-900.0, 900.0), "{path} {pixels}×{blocks} {sums}");
        }
    }
}
