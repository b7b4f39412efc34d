//! Sums of products of 16-bit codes for AVX2: `vpmaddwd` multiplies 16 numbers and adds them in pairs, twice a cycle,
//! where f32 multiplies 8.

use std::arch::x86_64::*;

use super::{PANEL, Pairs, TILE};
use crate::fixed_point;

pub(super) const PAIRS: Pairs = Pairs { extent, encode, interleave, products };

#[target_feature(enable = "avx2")]
fn extent(row: &[f32]) -> (f32, f32) {
    fixed_point::extent(row)
}

#[target_feature(enable = "avx2")]
fn encode(row: &[f32], step: f32, codes: &mut [i16]) -> f32 {
    fixed_point::encode(row, step, codes)
}

/// Transposes pairs of codes, eight rows and eight pairs at a time.
#[target_feature(enable = "avx2")]
fn interleave(rows: &[i16], panel: &mut [i16]) {
    let len = rows.len() / PANEL;
    assert!(len.is_multiple_of(16) && rows.len() == len * PANEL && panel.len() == rows.len());
    for at in (0..len).step_by(16) {
        for half in 0..2 {
            // SAFETY: eight rows of `len` codes, of which sixteen begin at `at`; pair p of the panel's rows begins at
            // 2 · p · `PANEL`, and the pairs are p = `at` / 2 and seven more.
            unsafe {
                let row: [__m256i; 8] = std::array::from_fn(|i| {
                    _mm256_loadu_si256(rows.as_ptr().add((half * 8 + i) * len + at).cast())
                });
                let two = |i: usize| {
                    (_mm256_unpacklo_epi32(row[i], row[i + 1]), _mm256_unpackhi_epi32(row[i], row[i + 1]))
                };
                let (a, b, c, d) = (two(0), two(2), two(4), two(6));
                let four = |x: (__m256i, __m256i), y: (__m256i, __m256i)| {
                    [
                        _mm256_unpacklo_epi64(x.0, y.0),
                        _mm256_unpackhi_epi64(x.0, y.0),
                        _mm256_unpacklo_epi64(x.1, y.1),
                        _mm256_unpackhi_epi64(x.1, y.1),
                    ]
                };
                let (low, high) = (four(a, b), four(c, d));
                for i in 0..4 {
                    let mut place = |pair: usize| panel.as_mut_ptr().add((at + 2 * pair) * PANEL + half * 16);
                    let (first, second) = (
                        _mm256_permute2x128_si256::<0x20>(low[i], high[i]),
                        _mm256_permute2x128_si256::<0x31>(low[i], high[i]),
                    );
                    _mm256_storeu_si256(place(i).cast(), first);
                    _mm256_storeu_si256(place(i + 4).cast(), second);
                }
            }
        }
    }
}

/// # Safety
/// See [`super::PairProducts`]; needs AVX2.
#[target_feature(enable = "avx2")]
unsafe fn products(
    panel: *const i16,
    tile: *const i16,
    len: usize,
    scales: &[f32],
    scores: *mut f32,
    width: usize,
) {
    const { assert!(PANEL == 16) };
    // With two accumulators each, six queries fill the registers.
    let mut sums = [[_mm256_setzero_si256(); 2]; TILE];
    for at in (0..len).step_by(2) {
        // SAFETY: `len` is even, the panel has `len` codes of `PANEL` rows and the tile those of `TILE` queries.
        unsafe {
            let (panel, tile) = (panel.add(at * PANEL), tile.add(at * TILE));
            let rows = [_mm256_load_si256(panel.cast()), _mm256_load_si256(panel.add(PANEL).cast())];
            for (query, sums) in sums.iter_mut().enumerate() {
                let pair = _mm256_set1_epi32(tile.add(2 * query).cast::<i32>().read_unaligned());
                for (sum, rows) in sums.iter_mut().zip(rows) {
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(rows, pair));
                }
            }
        }
    }
    for (query, (sums, &scale)) in sums.into_iter().zip(scales).enumerate() {
        for (half, sum) in sums.into_iter().enumerate() {
            let part = _mm256_mul_ps(_mm256_cvtepi32_ps(sum), _mm256_set1_ps(scale));
            // SAFETY: the caller promises `PANEL` places for each query that has a scale.
            unsafe { _mm256_storeu_ps(scores.add(query * width + half * 8), part) };
        }
    }
}
