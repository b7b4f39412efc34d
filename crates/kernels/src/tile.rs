//! The register tile: some pixels times one or two blocks of sixteen output channels.
//!
//! One kernel serves every product in the crate. The sum runs over a list of input offsets, each the start of a
//! `run` of neighbouring values; the value at `input + entry + i + pixel·stride` is broadcast and multiplied with
//! sixteen weights. With a list of channel blocks that is a 1×1 convolution or one product of a Winograd
//! transform, with a list of channel blocks and window taps any other convolution.

use crate::simd::{Isa, LANES, Lanes};

/// Everything that one register tile reads and writes.
///
/// Its pointers must be good for: `input` at each entry, run and pixel; `weights` and `bias` for the summed length
/// times sixteen (sixteen for the bias) in every block; `out` and, unless null, `residual` for sixteen values at
/// each of the pixels' offsets in every block.
pub(crate) struct Tile {
    pub(crate) input: *const f32,
    pub(crate) entries: *const u32,
    pub(crate) entry_count: usize,
    /// Neighbouring values summed at each entry; sixteen if the pixel stride is a multiple of sixteen.
    pub(crate) run: usize,
    /// Values from one pixel to the next.
    pub(crate) pixel_stride: usize,
    /// Where each pixel lies, for tiles of stride [`ANYWHERE`]; otherwise not read.
    pub(crate) in_offsets: *const u32,
    /// How far behind each entry the input of a later tile begins, to be fetched meanwhile; 0 to leave it.
    pub(crate) ahead: usize,
    pub(crate) weights: *const f32,
    /// Values from the weights of one block of output channels to those of the next.
    pub(crate) weight_block: usize,
    pub(crate) bias: *const f32,
    pub(crate) out: *mut f32,
    pub(crate) out_block: usize,
    pub(crate) out_offsets: *const u32,
    pub(crate) residual: *const f32,
    pub(crate) residual_block: usize,
    pub(crate) residual_offsets: *const u32,
    /// The result is limited to `low ..= high`.
    pub(crate) low: f32,
    pub(crate) high: f32,
}

/// In place of a pixel stride: every pixel has an offset of its own, so that a tile may go on in the next row.
pub(crate) const ANYWHERE: usize = usize::MAX;

/// A register tile compiled for one instruction set, pixel count, block count and pixel stride.
pub(crate) type TileFn = unsafe fn(&Tile);

/// The widest tile that the path can hold in registers.
pub(crate) fn max_pixels(isa: Isa) -> usize {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => crate::simd::Avx512::MAX_PIXELS,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => crate::simd::Avx2::MAX_PIXELS,
        _ => crate::simd::Portable::MAX_PIXELS,
    }
}

/// Whether two blocks of output channels share a tile on this path.
pub(crate) fn paired(isa: Isa) -> bool {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => crate::simd::Avx512::PAIRED,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => crate::simd::Avx2::PAIRED,
        _ => crate::simd::Portable::PAIRED,
    }
}

/// Splits `pixels` into as few tiles as the path allows, as even as possible.
pub(crate) fn split(isa: Isa, pixels: usize) -> Vec<usize> {
    let count = pixels.div_ceil(max_pixels(isa));
    (0..count).map(|i| pixels / count + usize::from(i < pixels % count)).collect()
}

#[inline(always)]
unsafe fn kernel<S: Lanes, const P: usize, const B: usize, const PS: usize>(t: &Tile) {
    let (stride, run) = if PS == 0 {
        (t.pixel_stride, t.run)
    } else {
        (PS, if PS.is_multiple_of(LANES) || PS == ANYWHERE { LANES } else { t.run })
    };
    // SAFETY: the fields are good for what is read and written here, as their description asks.
    unsafe {
        let mut sums = [[S::splat(0.0); B]; P];
        for b in 0..B {
            let bias = S::load(t.bias.add(b * LANES));
            for sum in &mut sums {
                sum[b] = bias;
            }
        }
        let mut places = [t.input; P];
        if PS == ANYWHERE {
            for (p, place) in places.iter_mut().enumerate() {
                *place = t.input.add(*t.in_offsets.add(p) as usize);
            }
        }
        let mut weights = t.weights;
        for e in 0..t.entry_count {
            let entry = *t.entries.add(e) as usize;
            let from = t.input.add(entry);
            if PS == LANES && t.ahead > 0 {
                for p in 0..P {
                    S::prefetch(from.wrapping_add(t.ahead + p * PS));
                }
            }
            // One summand of every pixel and block.
            macro_rules! summand {
                ($i:expr, $line:expr) => {
                    let mut w = [S::splat(0.0); B];
                    for (b, w) in w.iter_mut().enumerate() {
                        *w = S::load(weights.add(b * t.weight_block + $line * LANES));
                    }
                    for (p, sum) in sums.iter_mut().enumerate() {
                        let x = S::splat(if PS == ANYWHERE {
                            *places[p].add(entry + $i)
                        } else {
                            *from.add($i + p * stride)
                        });
                        for (sum, w) in sum.iter_mut().zip(w) {
                            *sum = S::mul_add(x, w, *sum);
                        }
                    }
                };
            }
            // Four at a time: counting would take places in the pipeline that a core shares with its other thread.
            let mut i = 0;
            while i + 4 <= run {
                summand!(i, 0);
                summand!(i + 1, 1);
                summand!(i + 2, 2);
                summand!(i + 3, 3);
                weights = weights.add(4 * LANES);
                i += 4;
            }
            while i < run {
                summand!(i, 0);
                weights = weights.add(LANES);
                i += 1;
            }
        }
        finish::<S, P, B>(t, sums);
    }
}

/// Adds the residual to the sums, limits them and writes them out.
#[inline(always)]
unsafe fn finish<S: Lanes, const P: usize, const B: usize>(t: &Tile, sums: [[S::V; B]; P]) {
    // SAFETY: the fields are good for what is read and written here, as their description asks.
    unsafe {
        let (low, high) = (S::splat(t.low), S::splat(t.high));
        for (p, sum) in sums.iter().enumerate() {
            for (b, sum) in sum.iter().enumerate() {
                let mut v = *sum;
                if !t.residual.is_null() {
                    let at = *t.residual_offsets.add(p) as usize + b * t.residual_block;
                    v = S::add(v, S::load(t.residual.add(at)));
                }
                // The limit comes first, so that a NaN value passes.
                v = S::min(high, S::max(low, v));
                S::store(t.out.add(*t.out_offsets.add(p) as usize + b * t.out_block), v);
            }
        }
    }
}

macro_rules! entries {
    ($name:ident, $lanes:ty $(, $features:literal)?) => {
        $(#[target_feature(enable = $features)])?
        unsafe fn $name<const P: usize, const B: usize, const PS: usize>(t: &Tile) {
            // SAFETY: the caller answers for the tile; the features are enabled here.
            unsafe { kernel::<$lanes, P, B, PS>(t) }
        }
    };
}
#[cfg(target_arch = "x86_64")]
entries!(avx512, crate::simd::Avx512, "avx512f,avx2,fma");
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2<const P: usize, const B: usize, const PS: usize>(t: &Tile) {
    const { assert!(B == 1) };
    // SAFETY: the caller answers for the tile; the features are enabled here.
    unsafe {
        match PS {
            LANES | 32 | ANYWHERE => kernel::<crate::simd::Avx2, P, 1, PS>(t),
            _ => finish::<crate::simd::Avx2, P, 1>(t, crate::planar_tile::sums(t).map(|sums| [sums])),
        }
    }
}
entries!(portable, crate::simd::Portable);

macro_rules! choose_pixels {
    ($entry:ident, $pixels:expr, $b:literal, $ps:expr, [$($p:literal),*]) => {
        match $pixels {
            $($p => Some($entry::<$p, $b, { $ps }> as TileFn),)*
            _ => None,
        }
    };
}
macro_rules! choose_stride {
    ($entry:ident, $pixels:expr, $stride:expr, $b:literal, $sizes:tt) => {
        match $stride {
            16 => choose_pixels!($entry, $pixels, $b, 16, $sizes),
            32 => choose_pixels!($entry, $pixels, $b, 32, $sizes),
            2 => choose_pixels!($entry, $pixels, $b, 2, $sizes),
            ANYWHERE => choose_pixels!($entry, $pixels, $b, ANYWHERE, $sizes),
            _ => choose_pixels!($entry, $pixels, $b, 0, $sizes),
        }
    };
}

/// The tile for these sizes, or `None` if the path has none so large. Running it is safe on a processor where
/// `isa` is available, with a tile as [`Tile`] describes it.
pub(crate) fn tile_fn(isa: Isa, pixels: usize, blocks: usize, pixel_stride: usize) -> Option<TileFn> {
    match (isa, blocks) {
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512, 2) => {
            choose_stride!(avx512, pixels, pixel_stride, 2, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14])
        }
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512, 1) => {
            choose_stride!(avx512, pixels, pixel_stride, 1, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14])
        }
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx2, 1) => choose_stride!(avx2, pixels, pixel_stride, 1, [1, 2, 3, 4, 5, 6]),
        (Isa::Portable, 1) => choose_stride!(portable, pixels, pixel_stride, 1, [1, 2, 3, 4]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_are_complete_and_compiled_on_every_path() {
        for isa in [Isa::Avx512, Isa::Avx2, Isa::Portable] {
            for pixels in 0..200 {
                let parts = split(isa, pixels);
                assert_eq!(parts.iter().sum::<usize>(), pixels);
                assert!(parts.iter().all(|&p| tile_fn(isa, p, 1, 16).is_some()), "{isa} {pixels}: {parts:?}");
            }
        }
        assert_eq!(split(Isa::Avx512, 56), [14; 4]);
        assert_eq!(split(Isa::Avx512, 49), [13, 12, 12, 12]);
    }

    #[test]
    fn every_tile_equals_the_literal_sum() {
        let value = |i: usize| ((i * 37 % 101) as f32 - 50.0) / 50.0;
        for isa in [Isa::Avx512, Isa::Avx2, Isa::Portable].into_iter().filter(|i| i.available()) {
            for blocks in 1..=if paired(isa) { 2 } else { 1 } {
                for (stride, run) in [(16, 16), (32, 16), (48, 16), (2, 7), (1, 3), (3, 1), (ANYWHERE, 16)] {
                    for pixels in 1..=max_pixels(isa) {
                        let entries = [0u32, 100, 40];
                        let k = entries.len() * run;
                        let in_offsets: Vec<u32> = (0..pixels as u32)
                            .map(|p| if stride == ANYWHERE { p * 37 % 90 } else { p * stride as u32 })
                            .collect();
                        let reach = *in_offsets.iter().max().unwrap() as usize;
                        let input: Vec<f32> = (0..100 + run + reach).map(value).collect();
                        let weights: Vec<f32> = (0..blocks * k * LANES).map(|i| value(i + 13)).collect();
                        let bias: Vec<f32> = (0..blocks * LANES).map(|i| value(i + 7)).collect();
                        let residual: Vec<f32> = (0..blocks * pixels * LANES).map(|i| value(i + 3)).collect();
                        let mut out = vec![f32::NAN; residual.len()];
                        let offsets: Vec<u32> = (0..pixels as u32).rev().map(|p| p * LANES as u32).collect();
                        let tile = Tile {
                            input: input.as_ptr(),
                            entries: entries.as_ptr(),
                            entry_count: entries.len(),
                            run,
                            pixel_stride: stride,
                            in_offsets: in_offsets.as_ptr(),
                            ahead: 0,
                            weights: weights.as_ptr(),
                            weight_block: k * LANES,
                            bias: bias.as_ptr(),
                            out: out.as_mut_ptr(),
                            out_block: pixels * LANES,
                            out_offsets: offsets.as_ptr(),
                            residual: residual.as_ptr(),
                            residual_block: pixels * LANES,
                            residual_offsets: offsets.as_ptr(),
                            low: 0.0,
                            high: 2.5,
                        };
                        let run_tile = tile_fn(isa, pixels, blocks, stride).unwrap();
                        // SAFETY: all slices were sized for what the tile reads and writes; the path is available.
                        unsafe { run_tile(&tile) };
                        for b in 0..blocks {
                            for p in 0..pixels {
                                for lane in 0..LANES {
                                    let at = (b * pixels + pixels - 1 - p) * LANES + lane;
                                    let mut sum = f64::from(bias[b * LANES + lane] + residual[at]);
                                    for (e, &entry) in entries.iter().enumerate() {
                                        for i in 0..run {
                                            let x = input[entry as usize + i + in_offsets[p] as usize];
                                            let w = weights[(b * k + e * run + i) * LANES + lane];
                                            sum += f64::from(x) * f64::from(w);
                                        }
                                    }
                                    let expected = sum.clamp(0.0, 2.5) as f32;
                                    assert!(
                                        (out[at] - expected).abs() < 1e-4,
                                        "{isa} {pixels}×{blocks} {stride}"
                                    );
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
