//! The integer register tile: some pixels times sixteen output channels, products of 16-bit codes summed in 32 bits.
//!
//! On AVX2 one `vpmaddwd` multiplies sixteen pairs of codes and adds neighbours, twice the products of an f32
//! multiply-add. Packing turns the f32 values under a tile into codes with one scale for the tile,
//! `code = round(x · MAX_CODE / max |x|)`; weights have a scale for each output channel, chosen so that no sum can
//! leave 32 bits ([`channel_codes`]). Every path computes the same bits.

use crate::simd::{Isa, LANES};

/// The most pixels of a tile on every path, so that tiles and therefore scales are the same everywhere.
pub(crate) const MAX_PIXELS: usize = 6;
/// The greatest code of an activation, in absolute value.
pub(crate) const MAX_CODE: f32 = 4095.0;
/// The greatest code of a weight, in absolute value.
const MAX_WEIGHT: f64 = 32767.0;

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
    /// From activation codes back to values.
    pub(crate) scale: f32,
    /// From weight codes back to weights, one for each of the sixteen channels.
    pub(crate) channel_scale: *const f32,
    pub(crate) bias: *const f32,
    pub(crate) out: *mut f32,
    pub(crate) out_offsets: *const u32,
    pub(crate) residual: *const f32,
    pub(crate) residual_offsets: *const u32,
    pub(crate) low: f32,
    pub(crate) high: f32,
}

/// Writes the codes of sixteen values at each of `entries` and `pixels` to `to`: [entry][pixel][16]; returns the
/// factor from codes back to values.
///
/// # Safety
/// `isa` must be available, `input` good for sixteen values at each sum of an entry and a pixel, `to` for all codes.
pub(crate) unsafe fn pack(isa: Isa, input: *const f32, entries: &[u32], pixels: &[u32], to: *mut i16) -> f32 {
    // SAFETY: passed on.
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 | Isa::Avx2 => avx2::pack(input, entries, pixels, to),
            _ => portable::pack(input, entries, pixels, to),
        }
    }
}

/// Computes a tile of at most [`MAX_PIXELS`] pixels.
///
/// # Safety
/// `isa` must be available and the tile as [`IntTile`] describes it.
///
/// # Panics
/// For more pixels.
pub(crate) unsafe fn run(isa: Isa, pixels: usize, tile: &IntTile) {
    macro_rules! choose {
        ($path:ident) => {
            // SAFETY: passed on.
            unsafe {
                match pixels {
                    1 => $path::tile::<1>(tile),
                    2 => $path::tile::<2>(tile),
                    3 => $path::tile::<3>(tile),
                    4 => $path::tile::<4>(tile),
                    5 => $path::tile::<5>(tile),
                    6 => $path::tile::<6>(tile),
                    _ => unreachable!("tiles have 1 to {MAX_PIXELS} pixels"),
                }
            }
        };
    }
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Avx2 => choose!(avx2),
        _ => choose!(portable),
    }
}

/// (value → code, code → value) for values up to `greatest`.
fn scales(greatest: f32) -> (f32, f32) {
    // Below this the factor could be infinite; such values are as good as zero.
    if greatest < 1e-30 { (0.0, 0.0) } else { (MAX_CODE / greatest, greatest / MAX_CODE) }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use super::{IntTile, LANES, scales};

    /// # Safety
    /// As for [`super::pack`], on a processor with AVX2.
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn pack(input: *const f32, entries: &[u32], pixels: &[u32], to: *mut i16) -> f32 {
        // SAFETY: the caller answers for the pointers.
        unsafe {
            let sign = _mm256_set1_ps(-0.0);
            let (mut low, mut high) = (_mm256_setzero_ps(), _mm256_setzero_ps());
            for &entry in entries {
                for &pixel in pixels {
                    let from = input.add(entry as usize + pixel as usize);
                    low = _mm256_max_ps(low, _mm256_andnot_ps(sign, _mm256_loadu_ps(from)));
                    high = _mm256_max_ps(high, _mm256_andnot_ps(sign, _mm256_loadu_ps(from.add(8))));
                }
            }
            let mut lanes = [0f32; 8];
            _mm256_storeu_ps(lanes.as_mut_ptr(), _mm256_max_ps(low, high));
            let (to_code, to_value) = scales(lanes.into_iter().fold(0.0, f32::max));
            let factor = _mm256_set1_ps(to_code);
            let mut to = to;
            for &entry in entries {
                for &pixel in pixels {
                    let from = input.add(entry as usize + pixel as usize);
                    let low = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(from), factor));
                    let high = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(from.add(8)), factor));
                    let codes = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(low, high));
                    _mm256_storeu_si256(to.cast(), codes);
                    to = to.add(LANES);
                }
            }
            to_value
        }
    }

    /// # Safety
    /// As for [`super::run`], on a processor with AVX2.
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn tile<const P: usize>(t: &IntTile) {
        // SAFETY: the tile's pointers are good for what is read and written here.
        unsafe {
            let mut sums = [[_mm256_setzero_si256(); 2]; P];
            let (mut x, mut w) = (t.packed.cast::<i32>(), t.weights.cast::<__m256i>());
            macro_rules! summands {
                ($i:expr, $pair:literal) => {
                    let (w0, w1) =
                        (_mm256_load_si256(w.add(2 * $pair)), _mm256_load_si256(w.add(2 * $pair + 1)));
                    for (p, sum) in sums.iter_mut().enumerate() {
                        let v = _mm256_set1_epi32(x.add($i + p * 8).read_unaligned());
                        sum[0] = _mm256_add_epi32(sum[0], _mm256_madd_epi16(v, w0));
                        sum[1] = _mm256_add_epi32(sum[1], _mm256_madd_epi16(v, w1));
                    }
                };
            }
            // Two at a time, and no more: of all eight the compiler would keep some sums in memory.
            let eight = std::hint::black_box(8);
            for _ in 0..t.pairs / 8 {
                let mut i = 0;
                while i < eight {
                    summands!(i, 0);
                    summands!(i + 1, 1);
                    w = w.add(4);
                    i += 2;
                }
                x = x.add(P * 8);
            }
            let (low, high) = (_mm256_set1_ps(t.low), _mm256_set1_ps(t.high));
            for half in 0..2 {
                let scale =
                    _mm256_mul_ps(_mm256_loadu_ps(t.channel_scale.add(half * 8)), _mm256_set1_ps(t.scale));
                let bias = _mm256_loadu_ps(t.bias.add(half * 8));
                for (p, sum) in sums.iter().enumerate() {
                    let mut v = _mm256_add_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(sum[half]), scale), bias);
                    if !t.residual.is_null() {
                        let at = *t.residual_offsets.add(p) as usize + half * 8;
                        v = _mm256_add_ps(v, _mm256_loadu_ps(t.residual.add(at)));
                    }
                    v = _mm256_min_ps(high, _mm256_max_ps(low, v));
                    _mm256_storeu_ps(t.out.add(*t.out_offsets.add(p) as usize + half * 8), v);
                }
            }
        }
    }
}

mod portable {
    use super::{IntTile, LANES, scales};

    /// # Safety
    /// As for [`super::pack`].
    pub(super) unsafe fn pack(input: *const f32, entries: &[u32], pixels: &[u32], to: *mut i16) -> f32 {
        let sixteen = |entry: u32, pixel: u32| {
            // SAFETY: the caller answers for sixteen values here.
            unsafe { input.add(entry as usize + pixel as usize).cast::<[f32; LANES]>().read_unaligned() }
        };
        let all = || entries.iter().flat_map(|&e| pixels.iter().map(move |&p| (e, p)));
        let greatest = all().flat_map(|(e, p)| sixteen(e, p)).fold(0f32, |m, v| m.max(v.abs()));
        let (to_code, to_value) = scales(greatest);
        for (i, (entry, pixel)) in all().enumerate() {
            let codes = sixteen(entry, pixel).map(|v| (v * to_code).round_ties_even() as i16);
            // SAFETY: the caller answers for the room.
            unsafe { to.add(i * LANES).cast::<[i16; LANES]>().write_unaligned(codes) };
        }
        to_value
    }

    /// # Safety
    /// As for [`super::run`].
    pub(super) unsafe fn tile<const P: usize>(t: &IntTile) {
        // SAFETY: the tile's pointers are good for what is read and written here.
        unsafe {
            let mut sums = [[0i32; LANES]; P];
            for pair in 0..t.pairs {
                let weights = &(*t.weights.add(pair)).0;
                for (p, sums) in sums.iter_mut().enumerate() {
                    let x = t.packed.add((pair / 8 * P + p) * LANES + pair % 8 * 2);
                    let (a, b) = (i32::from(*x), i32::from(*x.add(1)));
                    for (lane, sum) in sums.iter_mut().enumerate() {
                        let product = a * i32::from(weights[2 * lane]) + b * i32::from(weights[2 * lane + 1]);
                        *sum = sum.wrapping_add(product);
                    }
                }
            }
            for (p, sums) in sums.iter().enumerate() {
                for (lane, &sum) in sums.iter().enumerate() {
                    let scale = *t.channel_scale.add(lane) * t.scale;
                    let mut v = sum as f32 * scale + *t.bias.add(lane);
                    if !t.residual.is_null() {
                        v += *t.residual.add(*t.residual_offsets.add(p) as usize + lane);
                    }
                    *t.out.add(*t.out_offsets.add(p) as usize + lane) = v.max(t.low).min(t.high);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths() -> impl Iterator<Item = Isa> {
        [Isa::Avx512, Isa::Avx2, Isa::Portable].into_iter().filter(|isa| isa.available())
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
        let input: Vec<f32> = (0..400).map(wave).collect();
        for (entries, pixels) in [(vec![0, 100], vec![0, 16, 48]), (vec![7], vec![3, 90, 20, 51, 8, 2])] {
            let all = || entries.iter().flat_map(|e| pixels.iter().map(move |p| (e + p) as usize));
            let greatest = all().flat_map(|at| &input[at..at + LANES]).fold(0f32, |m, v| m.max(v.abs()));
            for isa in paths() {
                let mut codes = vec![0; entries.len() * pixels.len() * LANES];
                // SAFETY: the path is available and the slices were sized for the offsets.
                let scale = unsafe { pack(isa, input.as_ptr(), &entries, &pixels, codes.as_mut_ptr()) };
                assert_eq!(scale, greatest / MAX_CODE);
                for (codes, at) in codes.chunks(LANES).zip(all()) {
                    for (code, value) in codes.iter().zip(&input[at..]) {
                        let expected = (value * (MAX_CODE / greatest)).round_ties_even();
                        assert_eq!(f32::from(*code), expected, "{isa}");
                    }
                }
            }
        }
        let mut codes = vec![1; LANES];
        // SAFETY: as above.
        let scale = unsafe { pack(Isa::Portable, [0.0; LANES].as_ptr(), &[0], &[0], codes.as_mut_ptr()) };
        assert_eq!((scale, codes), (0.0, vec![0; LANES]));
    }

    #[test]
    fn every_tile_equals_the_literal_integer_loop() {
        let code = |i: usize| (i * 7919 % 8191) as i16 - 4095;
        for pixels in 1..=MAX_PIXELS {
            for blocks in [1, 2, 5] {
                let sums = blocks * LANES;
                let packed: Vec<i16> = (0..pixels * sums).map(code).collect();
                let weights: Vec<Pair> =
                    (0..sums / 2).map(|i| Pair(std::array::from_fn(|j| code(i * 32 + j + 11)))).collect();
                let (bias, channel_scale) =
                    ([0.25f32; LANES], std::array::from_fn::<f32, LANES, _>(|i| i as f32));
                let offsets: Vec<u32> = (0..pixels as u32).rev().map(|p| p * LANES as u32).collect();
                let residual: Vec<f32> = (0..pixels * LANES).map(wave).collect();
                for (isa, with) in paths().flat_map(|isa| [(isa, false), (isa, true)]) {
                    let mut out = vec![f32::NAN; pixels * LANES];
                    let tile = IntTile {
                        packed: packed.as_ptr(),
                        pairs: sums / 2,
                        weights: weights.as_ptr(),
                        scale: 1e-6,
                        channel_scale: channel_scale.as_ptr(),
                        bias: bias.as_ptr(),
                        out: out.as_mut_ptr(),
                        out_offsets: offsets.as_ptr(),
                        residual: if with { residual.as_ptr() } else { std::ptr::null() },
                        residual_offsets: offsets.as_ptr(),
                        low: -900.0,
                        high: 900.0,
                    };
                    // SAFETY: the path is available and all slices were sized for what the tile reads and writes.
                    unsafe { run(isa, pixels, &tile) };
                    for p in 0..pixels {
                        for (lane, channel_scale) in channel_scale.iter().enumerate() {
                            let sum: i32 = (0..sums)
                                .map(|k| {
                                    let x = packed[(k / LANES * pixels + p) * LANES + k % LANES];
                                    i32::from(x) * i32::from(weights[k / 2].0[2 * lane + k % 2])
                                })
                                .sum();
                            let at = offsets[p] as usize + lane;
                            let mut expected = sum as f32 * (channel_scale * 1e-6) + 0.25;
                            expected += if with { residual[at] } else { 0.0 };
                            assert_eq!(out[at], expected.clamp(-900.0, 900.0), "{isa} {pixels} {blocks}");
                        }
                    }
                }
            }
        }
    }
}
