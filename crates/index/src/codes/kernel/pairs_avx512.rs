//! Sums of products of 16-bit codes for AVX-512 with VNNI: `vpdpwssd` multiplies 32 numbers, adds them in pairs and to the
//! sums. Codes are made and laid out by the functions for AVX2.

use std::arch::x86_64::*;

use super::{PANEL, Pairs, TILE, pairs_avx2};

pub(super) const PAIRS: Pairs = Pairs { products, ..pairs_avx2::PAIRS };

/// Sums a query: one after the other, each would wait for the last.
const SUMS: usize = 2;

/// # Safety
/// See [`super::PairProducts`]; needs AVX-512 F and VNNI.
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn products(
    panel: *const i16,
    tile: *const i16,
    len: usize,
    scales: &[f32; TILE],
    bars: &[f32; TILE],
    scores: &mut [[f32; PANEL]; TILE],
) -> [u32; TILE] {
    const { assert!(PANEL == 16) };
    let mut sums = [[_mm512_setzero_si512(); SUMS]; TILE];
    for at in (0..len).step_by(2 * SUMS) {
        for part in 0..SUMS {
            // SAFETY: `len` is a multiple of 2 · `SUMS`, the panel has `len` codes of `PANEL` rows and the tile those of
            // `TILE` queries, by pairs of codes.
            unsafe {
                let pair = at + 2 * part;
                let rows = _mm512_load_si512(panel.add(pair * PANEL).cast());
                let queries = tile.add(pair * TILE).cast::<i32>();
                for (query, sums) in sums.iter_mut().enumerate() {
                    let codes = _mm512_set1_epi32(queries.add(query).read_unaligned());
                    sums[part] = _mm512_dpwssd_epi32(sums[part], rows, codes);
                }
            }
        }
    }
    let mut reach = [0; TILE];
    for query in 0..TILE {
        let sum = sums[query].into_iter().reduce(|a, b| _mm512_add_epi32(a, b));
        let sum = sum.expect("there are sums");
        let score = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), _mm512_set1_ps(scales[query]));
        // SAFETY: a query has places for one vector of scores.
        unsafe { _mm512_storeu_ps(scores[query].as_mut_ptr(), score) };
        let mask = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(score, _mm512_set1_ps(bars[query]));
        reach[query] = u32::from(mask);
    }
    reach
}
