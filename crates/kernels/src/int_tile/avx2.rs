//! The integer register tile for AVX2.
//!
//! Twelve registers of sums, two of weights, one of pixels and one of products leave none over: written in this order
//! the work fits them, compilers reorder and spill. Places are counted from the middle of what is read, so that the
//! instructions stay short.

use std::arch::asm;
use std::arch::x86_64::*;

use super::{IntTile, LANES, scales};

/// The most pixels of a tile.
const PIXELS: usize = 6;

/// # Safety
/// As for [`super::pack`] with `P` pixels, on a processor with AVX2.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn pack<const P: usize>(
    input: *const f32,
    entries: &[u32],
    pixels: &[u32; P],
    to: *mut i16,
) -> [f32; P] {
    // SAFETY: the caller answers for the pointers.
    unsafe {
        let sign = _mm256_set1_ps(-0.0);
        let mut greatest = [_mm256_setzero_ps(); P];
        for &entry in entries {
            for (greatest, &pixel) in greatest.iter_mut().zip(pixels) {
                let from = input.add(entry as usize + pixel as usize);
                let low = _mm256_andnot_ps(sign, _mm256_loadu_ps(from));
                let high = _mm256_andnot_ps(sign, _mm256_loadu_ps(from.add(8)));
                *greatest = _mm256_max_ps(*greatest, _mm256_max_ps(low, high));
            }
        }
        let (mut factors, mut to_values) = ([_mm256_setzero_ps(); P], [0.0; P]);
        for (p, greatest) in greatest.into_iter().enumerate() {
            let mut lanes = [0f32; 8];
            _mm256_storeu_ps(lanes.as_mut_ptr(), greatest);
            let (to_code, to_value) = scales(lanes.into_iter().fold(0.0, f32::max));
            (factors[p], to_values[p]) = (_mm256_set1_ps(to_code), to_value);
        }
        let mut to = to;
        for &entry in entries {
            for (&factor, &pixel) in factors.iter().zip(pixels) {
                let from = input.add(entry as usize + pixel as usize);
                let low = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(from), factor));
                let high = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(from.add(8)), factor));
                let codes = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(low, high));
                _mm256_storeu_si256(to.cast(), codes);
                to = to.add(LANES);
            }
        }
        to_values
    }
}

/// Multiplies the `$i`-th pair of codes of a pixel with those of sixteen channels.
macro_rules! pixel {
    ($i:literal, $pixel:literal, $low:literal, $high:literal) => {
        concat!(
            "vpbroadcastd ymm14, dword ptr [{codes} + 32 * ",
            $pixel,
            " + 4 * ",
            $i,
            " - 96]\n",
            "vpmaddwd ymm15, ymm12, ymm14\n",
            "vpmaddwd ymm14, ymm13, ymm14\n",
            "vpaddd ",
            $low,
            ", ",
            $low,
            ", ymm15\n",
            "vpaddd ",
            $high,
            ", ",
            $high,
            ", ymm14\n",
        )
    };
}

/// Multiplies the `$i`-th pair of codes of all pixels; the weights' is the `$w`-th from where they are.
macro_rules! pair {
    ($i:literal, $w:literal, $($pixel:literal $low:literal $high:literal),*) => {
        concat!(
            "vmovdqa ymm12, ymmword ptr [{weights} + 64 * ", $w, " - 128]\n",
            "vmovdqa ymm13, ymmword ptr [{weights} + 64 * ", $w, " - 96]\n",
            $(pixel!($i, $pixel, $low, $high)),*
        )
    };
}

/// All sums of a tile with these pixels and the registers of their sums.
macro_rules! sums {
    ($tile:ident, $sums:ident, $($pixels:tt)*) => {{
        let [[a, b], [c, d], [e, f], [g, h], [i, j], [k, l]] = &mut $sums;
        asm!(
            "2:",
            pair!(0, 0, $($pixels)*), pair!(1, 1, $($pixels)*),
            pair!(2, 2, $($pixels)*), pair!(3, 3, $($pixels)*),
            "add {weights}, 256",
            pair!(4, 0, $($pixels)*), pair!(5, 1, $($pixels)*),
            pair!(6, 2, $($pixels)*), pair!(7, 3, $($pixels)*),
            "add {weights}, 256",
            "add {codes}, {step}",
            "sub {blocks}, 1",
            "jnz 2b",
            codes = inout(reg) $tile.packed.wrapping_byte_add(96) => _,
            weights = inout(reg) $tile.weights.wrapping_byte_add(128) => _,
            blocks = inout(reg) $tile.pairs / 8 => _,
            step = const P * LANES * 2,
            inout("ymm0") *a, inout("ymm1") *b, inout("ymm2") *c, inout("ymm3") *d,
            inout("ymm4") *e, inout("ymm5") *f, inout("ymm6") *g, inout("ymm7") *h,
            inout("ymm8") *i, inout("ymm9") *j, inout("ymm10") *k, inout("ymm11") *l,
            out("ymm12") _, out("ymm13") _, out("ymm14") _, out("ymm15") _,
            options(nostack, readonly),
        );
    }};
}

/// # Safety
/// As for [`super::run`] with `P` pixels, on a processor with AVX2.
#[target_feature(enable = "avx2,fma")]
#[rustfmt::skip]
pub(super) unsafe fn tile<const P: usize>(t: &IntTile) {
    const { assert!(P <= PIXELS && LANES == 16) };
    let mut sums = [[_mm256_setzero_si256(); 2]; PIXELS];
    if t.pairs > 0 {
        // SAFETY: pairs are a multiple of eight; the codes of all pixels and the weights are there for each.
        unsafe {
            match P {
                1 => sums!(t, sums, 0 "ymm0" "ymm1"),
                2 => sums!(t, sums, 0 "ymm0" "ymm1", 1 "ymm2" "ymm3"),
                3 => sums!(t, sums, 0 "ymm0" "ymm1", 1 "ymm2" "ymm3", 2 "ymm4" "ymm5"),
                4 => sums!(t, sums, 0 "ymm0" "ymm1", 1 "ymm2" "ymm3", 2 "ymm4" "ymm5", 3 "ymm6" "ymm7"),
                5 => sums!(t, sums, 0 "ymm0" "ymm1", 1 "ymm2" "ymm3", 2 "ymm4" "ymm5", 3 "ymm6" "ymm7",
                    4 "ymm8" "ymm9"),
                _ => sums!(t, sums, 0 "ymm0" "ymm1", 1 "ymm2" "ymm3", 2 "ymm4" "ymm5", 3 "ymm6" "ymm7",
                    4 "ymm8" "ymm9", 5 "ymm10" "ymm11"),
            }
        }
    }
    // SAFETY: the tile's pointers are good for what is read and written here.
    unsafe {
        let (low, high) = (_mm256_set1_ps(t.low), _mm256_set1_ps(t.high));
        for half in 0..2 {
            let channel_scale = _mm256_loadu_ps(t.channel_scale.add(half * 8));
            let bias = _mm256_loadu_ps(t.bias.add(half * 8));
            for (p, sum) in sums.iter().take(P).enumerate() {
                let scale = _mm256_mul_ps(channel_scale, _mm256_set1_ps(*t.scales.add(p)));
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
