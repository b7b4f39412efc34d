//! Sums of products of 16-bit codes for AVX2: `vpmaddwd` multiplies 16 numbers and adds them in pairs, twice per cycle,
//! where f32 multiplies 8.

use std::arch::asm;
use std::arch::x86_64::*;

use super::{PANEL, Pairs, TILE};
use crate::exact::fixed_point;

/// Multiplies the `$round`-th pair of codes from here on of all rows with that of one query.
macro_rules! query {
    ($round:literal, $query:literal, $low:literal, $high:literal) => {
        concat!(
            "vpbroadcastd ymm14, dword ptr [{tile} + 24 * ",
            $round,
            " + 4 * ",
            $query,
            "]\n",
            "vpmaddwd ymm15, ymm12, ymm14\n",
            "vpaddd ",
            $low,
            ", ",
            $low,
            ", ymm15\n",
            "vpmaddwd ymm15, ymm13, ymm14\n",
            "vpaddd ",
            $high,
            ", ",
            $high,
            ", ymm15\n",
        )
    };
}

/// Multiplies the `$round`-th pair of codes from here on of all rows with those of all queries. With two accumulators
/// each, six queries leave four registers: written in this order the work fits them, compilers reorder and spill.
macro_rules! round {
    ($round:literal) => {
        concat!(
            "vmovdqa ymm12, ymmword ptr [{panel} + 64 * ",
            $round,
            "]\n",
            "vmovdqa ymm13, ymmword ptr [{panel} + 64 * ",
            $round,
            " + 32]\n",
            query!($round, 0, "ymm0", "ymm1"),
            query!($round, 1, "ymm2", "ymm3"),
            query!($round, 2, "ymm4", "ymm5"),
            query!($round, 3, "ymm6", "ymm7"),
            query!($round, 4, "ymm8", "ymm9"),
            query!($round, 5, "ymm10", "ymm11"),
        )
    };
}

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
    scales: &[f32; TILE],
    bars: &[f32; TILE],
    scores: &mut [[f32; PANEL]; TILE],
) -> [u32; TILE] {
    const { assert!(PANEL == 16 && TILE == 6) };
    let mut sums = [[_mm256_setzero_si256(); 2]; TILE];
    if len > 0 {
        let [[a, b], [c, d], [e, f], [g, h], [i, j], [k, l]] = &mut sums;
        // SAFETY: `len` is a multiple of eight, the panel has `len` codes of `PANEL` rows and the tile those of `TILE`
        // queries; a prefetch never faults.
        unsafe {
            asm!(
                "2:",
                round!(0), round!(1), round!(2), round!(3),
                "prefetcht0 [{tile} + 512]",
                "prefetcht0 [{tile} + 560]",
                "add {panel}, 256",
                "add {tile}, 96",
                "sub {len}, 8",
                "jnz 2b",
                panel = inout(reg) panel => _, tile = inout(reg) tile => _, len = inout(reg) len => _,
                inout("ymm0") *a, inout("ymm1") *b, inout("ymm2") *c, inout("ymm3") *d,
                inout("ymm4") *e, inout("ymm5") *f, inout("ymm6") *g, inout("ymm7") *h,
                inout("ymm8") *i, inout("ymm9") *j, inout("ymm10") *k, inout("ymm11") *l,
                out("ymm12") _, out("ymm13") _, out("ymm14") _, out("ymm15") _,
                options(nostack, readonly),
            );
        }
    }
    let mut reach = [0; TILE];
    for query in 0..TILE {
        let (scale, bar) = (_mm256_set1_ps(scales[query]), _mm256_set1_ps(bars[query]));
        for (half, &sum) in sums[query].iter().enumerate() {
            let part = _mm256_mul_ps(_mm256_cvtepi32_ps(sum), scale);
            // SAFETY: a query has places for two vectors of scores.
            unsafe { _mm256_storeu_ps(scores[query].as_mut_ptr().add(half * 8), part) };
            let mask = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GE_OQ>(part, bar)) as u32;
            reach[query] |= mask << (half * 8);
        }
    }
    reach
}
