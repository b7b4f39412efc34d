//! Kernels for AVX2 with FMA and F16C.

use std::arch::x86_64::*;

use super::prefetch;

/// Rows of f32 or f16 scored together: with two accumulators each they fill the registers.
const GROUP: usize = 6;
/// Bytes asked for of each row of f32 or f16 of the next group: the processor sees the streams and fetches the rest.
pub(super) const FIRST: usize = 128;
/// Largest size of a query's codes.
pub(super) const I8_LIMIT: i8 = 64;

/// Scores rows in groups of [`GROUP`], and what is left in as few as can be.
macro_rules! in_groups {
    ($score:ident, $query:ident, $rows:ident, $stride:ident, $len:ident, $nodes:ident, $scores:ident) => {
        let row = |node: &u32| $rows.wrapping_add(*node as usize * $stride);
        for (i, (group, scores)) in $nodes.chunks(GROUP).zip($scores.chunks_mut(GROUP)).enumerate() {
            for next in $nodes.iter().skip((i + 1) * GROUP).take(GROUP) {
                prefetch(row(next), FIRST);
            }
            // SAFETY: the caller promises that every node is a row of `len` numbers, as is the query.
            unsafe {
                match group {
                    &[a, b, c, d, e, f] => {
                        $score($query, [a, b, c, d, e, f].map(|n| row(&n)), $len, scores);
                    }
                    _ => {
                        let (fours, rest) = group.split_at(group.len() / 4 * 4);
                        let (scores_of_fours, scores) = scores.split_at_mut(fours.len());
                        if let &[a, b, c, d] = fours {
                            $score($query, [a, b, c, d].map(|n| row(&n)), $len, scores_of_fours);
                        }
                        match *rest {
                            [a, b, c] => $score($query, [a, b, c].map(|n| row(&n)), $len, scores),
                            [a, b] => $score($query, [a, b].map(|n| row(&n)), $len, scores),
                            [a] => $score($query, [row(&a)], $len, scores),
                            _ => {}
                        }
                    }
                }
            }
        }
    };
}

/// # Safety
/// See [`super::Many`]; needs AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn f32_many(
    query: *const f32,
    rows: *const f32,
    stride: usize,
    len: usize,
    nodes: &[u32],
    scores: &mut [f32],
) {
    in_groups!(group_f32, query, rows, stride, len, nodes, scores);
}

/// Scores of a few rows together: several streams from memory at once are read quicker than one after the other. Each
/// row is summed alike, in two vectors, whatever the group.
///
/// # Safety
/// Query and rows have `len` numbers, a multiple of 16; needs AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
unsafe fn group_f32<const N: usize>(
    query: *const f32,
    rows: [*const f32; N],
    len: usize,
    scores: &mut [f32],
) {
    let mut sums = [[_mm256_setzero_ps(); 2]; N];
    for at in (0..len).step_by(16) {
        // SAFETY: as above.
        unsafe {
            let query = [_mm256_loadu_ps(query.add(at)), _mm256_loadu_ps(query.add(at + 8))];
            for (row, sums) in rows.iter().zip(&mut sums) {
                sums[0] = _mm256_fmadd_ps(query[0], _mm256_loadu_ps(row.add(at)), sums[0]);
                sums[1] = _mm256_fmadd_ps(query[1], _mm256_loadu_ps(row.add(at + 8)), sums[1]);
            }
        }
    }
    for (score, sums) in scores.iter_mut().zip(sums) {
        *score = add_f32(_mm256_add_ps(sums[0], sums[1]));
    }
}

/// # Safety
/// See [`super::Many`]; needs AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn f16_many(
    query: *const f32,
    rows: *const u16,
    stride: usize,
    len: usize,
    nodes: &[u32],
    scores: &mut [f32],
) {
    in_groups!(group_f16, query, rows, stride, len, nodes, scores);
}

/// Like [`group_f32`], for rows of f16.
///
/// # Safety
/// Query and rows have `len` numbers, a multiple of 32; needs AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn group_f16<const N: usize>(
    query: *const f32,
    rows: [*const u16; N],
    len: usize,
    scores: &mut [f32],
) {
    let mut sums = [[_mm256_setzero_ps(); 2]; N];
    for at in (0..len).step_by(16) {
        // SAFETY: as above.
        unsafe {
            let query = [_mm256_loadu_ps(query.add(at)), _mm256_loadu_ps(query.add(at + 8))];
            for (row, sums) in rows.iter().zip(&mut sums) {
                let numbers = |from: usize| _mm256_cvtph_ps(_mm_loadu_si128(row.add(from).cast()));
                sums[0] = _mm256_fmadd_ps(query[0], numbers(at), sums[0]);
                sums[1] = _mm256_fmadd_ps(query[1], numbers(at + 8), sums[1]);
            }
        }
    }
    for (score, sums) in scores.iter_mut().zip(sums) {
        *score = add_f32(_mm256_add_ps(sums[0], sums[1]));
    }
}

/// # Safety
/// See [`super::Many`]; needs AVX2. Codes of the query are no larger than [`I8_LIMIT`].
#[target_feature(enable = "avx2")]
pub(super) unsafe fn i8_many(
    query: *const i8,
    rows: *const u8,
    stride: usize,
    len: usize,
    nodes: &[u32],
    scores: &mut [i32],
) {
    in_fours!(group_i8, 1, query, rows, (stride, len), nodes, scores);
}

/// # Safety
/// Query and rows have `len` codes, a multiple of 64, those of the query no larger than [`I8_LIMIT`]; needs AVX2.
#[target_feature(enable = "avx2")]
unsafe fn group_i8<const N: usize>(query: *const i8, rows: [*const u8; N], len: usize, scores: &mut [i32]) {
    let ones = _mm256_set1_epi16(1);
    let mut sums = [_mm256_setzero_si256(); N];
    for at in (0..len).step_by(32) {
        // SAFETY: as above. `maddubs` adds two products in 16 bits: with queries of no more than `I8_LIMIT` they are at
        // most 2 · 255 · 64 = 32,640 and fit.
        unsafe {
            let query = _mm256_loadu_si256(query.add(at).cast());
            for (row, sum) in rows.iter().zip(&mut sums) {
                let pairs = _mm256_maddubs_epi16(_mm256_loadu_si256(row.add(at).cast()), query);
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, ones));
            }
        }
    }
    for (score, sum) in scores.iter_mut().zip(sums) {
        let half = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
        let quarter = _mm_add_epi32(half, _mm_shuffle_epi32::<0b01_00_11_10>(half));
        *score = _mm_cvtsi128_si32(_mm_add_epi32(quarter, _mm_shuffle_epi32::<0b10_11_00_01>(quarter)));
    }
}

#[target_feature(enable = "avx2")]
fn add_f32(sums: __m256) -> f32 {
    let half = _mm_add_ps(_mm256_castps256_ps128(sums), _mm256_extractf128_ps::<1>(sums));
    let quarter = _mm_add_ps(half, _mm_movehl_ps(half, half));
    _mm_cvtss_f32(_mm_add_ss(quarter, _mm_shuffle_ps::<1>(quarter, quarter)))
}
