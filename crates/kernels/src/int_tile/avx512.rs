//! The integer register tile for AVX-512 with VNNI.
//!
//! One `vpdpwssd` multiplies 32 pairs of codes, adds neighbours and adds that to the sums: twice the products of an f32
//! multiply-add, in as many instructions. Two blocks of output channels share a tile, so that a pair of codes is spread
//! over a register once for both.

use std::arch::x86_64::*;

use super::{IntTile, LANES, MAX_CODE, MAX_PIXELS, SMALLEST};

/// Whether the processor has what this file is compiled for.
pub(super) fn available() -> bool {
    is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni")
}

/// # Safety
/// As for [`super::pack`] with `P` pixels, on a processor with AVX-512 F.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn pack<const P: usize>(
    input: *const f32,
    entries: &[u32],
    pixels: &[u32; P],
    to: *mut i16,
) -> [f32; P] {
    const { assert!(P <= LANES) };
    // SAFETY: the caller answers for the pointers.
    unsafe {
        let mut greatest = [_mm512_setzero_ps(); P];
        for &entry in entries {
            for (greatest, &pixel) in greatest.iter_mut().zip(pixels) {
                let values = _mm512_loadu_ps(input.add(entry as usize + pixel as usize));
                *greatest = _mm512_max_ps(*greatest, _mm512_abs_ps(values));
            }
        }
        // All pixels' divisions at once.
        let mut lanes = [0f32; LANES];
        for (lane, greatest) in lanes.iter_mut().zip(greatest) {
            *lane = _mm512_reduce_max_ps(greatest);
        }
        let (greatest, most) = (_mm512_loadu_ps(lanes.as_ptr()), _mm512_set1_ps(MAX_CODE));
        let coded = _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(greatest, _mm512_set1_ps(SMALLEST));
        let (mut to_code, mut to_value) = ([0f32; LANES], [0f32; LANES]);
        _mm512_storeu_ps(to_code.as_mut_ptr(), _mm512_maskz_div_ps(coded, most, greatest));
        _mm512_storeu_ps(to_value.as_mut_ptr(), _mm512_maskz_div_ps(coded, greatest, most));
        let factors: [__m512; P] = std::array::from_fn(|p| _mm512_set1_ps(to_code[p]));
        let mut to = to;
        for &entry in entries {
            for (&factor, &pixel) in factors.iter().zip(pixels) {
                let values = _mm512_loadu_ps(input.add(entry as usize + pixel as usize));
                let codes = _mm512_cvtps_epi32(_mm512_mul_ps(values, factor));
                _mm256_storeu_si256(to.cast(), _mm512_cvtsepi32_epi16(codes));
                to = to.add(LANES);
            }
        }
        std::array::from_fn(|p| to_value[p])
    }
}

/// `$body` for each pixel `$p` of `P`. Written out instead of a loop: compilers leave the sums of wide tiles in memory where
/// they have not unrolled every loop over them in time.
macro_rules! each_pixel {
    ($p:ident: $body:block) => { each_pixel!($p: $body, 0 1 2 3 4 5 6 7 8 9 10 11 12 13) };
    ($p:ident: $body:block, $($i:literal)*) => {$({
        const $p: usize = $i;
        if $p < P $body
    })*};
}

/// # Safety
/// As for [`super::run`] with `P` pixels and `B` blocks, on a processor with AVX-512 F and VNNI.
#[target_feature(enable = "avx512f,avx512vnni")]
pub(super) unsafe fn tile<const P: usize, const B: usize>(t: &IntTile) {
    const { assert!(P <= MAX_PIXELS && MAX_PIXELS == 14 && B <= 2) };
    // SAFETY: pairs are a multiple of eight; the codes of all pixels and the weights are there for each; the tile's
    // pointers are good for what the end reads and writes.
    unsafe {
        let mut sums = [[_mm512_setzero_si512(); B]; MAX_PIXELS];
        let (mut codes, mut weights, mut ahead) = (t.packed, t.weights, t.ahead);
        for _ in 0..t.pairs / 8 {
            for i in 0..8 {
                let mut w = [_mm512_setzero_si512(); B];
                for (b, w) in w.iter_mut().enumerate() {
                    *w = _mm512_load_si512(weights.add(b * t.weight_block + i).cast());
                }
                _mm_prefetch::<_MM_HINT_T1>(ahead.wrapping_add(i).cast());
                each_pixel!(PIXEL: {
                    let pair = codes.add(PIXEL * LANES + 2 * i).cast::<i32>().read_unaligned();
                    let x = _mm512_set1_epi32(pair);
                    for (sum, w) in sums[PIXEL].iter_mut().zip(w) {
                        *sum = _mm512_dpwssd_epi32(*sum, x, w);
                    }
                });
            }
            ahead = ahead.wrapping_add(8);
            weights = weights.add(8);
            codes = codes.add(P * LANES);
        }
        let (low, high) = (_mm512_set1_ps(t.low), _mm512_set1_ps(t.high));
        each_pixel!(PIXEL: {
            let to_value = _mm512_set1_ps(*t.scales.add(PIXEL));
            for (b, sum) in sums[PIXEL].iter().enumerate() {
                let scale = _mm512_mul_ps(_mm512_loadu_ps(t.channel_scale.add(b * LANES)), to_value);
                let bias = _mm512_loadu_ps(t.bias.add(b * LANES));
                let mut v = _mm512_add_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(*sum), scale), bias);
                if !t.residual.is_null() {
                    let at = *t.residual_offsets.add(PIXEL) as usize + b * t.residual_block;
                    v = _mm512_add_ps(v, _mm512_loadu_ps(t.residual.add(at)));
                }
                v = _mm512_min_ps(high, _mm512_max_ps(low, v));
                _mm512_storeu_ps(t.out.add(*t.out_offsets.add(PIXEL) as usize + b * t.out_block), v);
            }
        });
    }
}
