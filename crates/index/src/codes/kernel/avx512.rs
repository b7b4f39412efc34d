//! Kernels for AVX-512 with VNNI.

use std::arch::x86_64::*;

/// # Safety
/// See [`super::Many`]; needs AVX-512 F.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn f32_many(
    query: *const f32,
    rows: *const f32,
    stride: usize,
    len: usize,
    nodes: &[u32],
    scores: &mut [f32],
) {
    in_fours!(group_f32, 4, query, rows, (stride, len), nodes, scores);
}

/// Scores of a few rows together; each is summed alike, in two vectors, whatever the group.
///
/// # Safety
/// Query and rows have `len` numbers, a multiple of 16; needs AVX-512 F.
#[target_feature(enable = "avx512f")]
unsafe fn group_f32<const N: usize>(
    query: *const f32,
    rows: [*const f32; N],
    len: usize,
    scores: &mut [f32],
) {
    let mut sums = [[_mm512_setzero_ps(); 2]; N];
    for at in (0..len / 32 * 32).step_by(32) {
        // SAFETY: as above.
        unsafe {
            let query = [_mm512_loadu_ps(query.add(at)), _mm512_loadu_ps(query.add(at + 16))];
            for (row, sums) in rows.iter().zip(&mut sums) {
                sums[0] = _mm512_fmadd_ps(query[0], _mm512_loadu_ps(row.add(at)), sums[0]);
                sums[1] = _mm512_fmadd_ps(query[1], _mm512_loadu_ps(row.add(at + 16)), sums[1]);
            }
        }
    }
    if !len.is_multiple_of(32) {
        // SAFETY: as above: one line is left.
        unsafe {
            let query = _mm512_loadu_ps(query.add(len - 16));
            for (row, sums) in rows.iter().zip(&mut sums) {
                sums[0] = _mm512_fmadd_ps(query, _mm512_loadu_ps(row.add(len - 16)), sums[0]);
            }
        }
    }
    for (score, sums) in scores.iter_mut().zip(sums) {
        *score = _mm512_reduce_add_ps(_mm512_add_ps(sums[0], sums[1]));
    }
}

/// # Safety
/// See [`super::Many`]; needs AVX-512 F.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn f16_many(
    query: *const f32,
    rows: *const u16,
    stride: usize,
    len: usize,
    nodes: &[u32],
    scores: &mut [f32],
) {
    in_fours!(group_f16, 2, query, rows, (stride, len), nodes, scores);
}

/// Like [`group_f32`], for rows of f16.
///
/// # Safety
/// Query and rows have `len` numbers, a multiple of 32; needs AVX-512 F.
#[target_feature(enable = "avx512f")]
unsafe fn group_f16<const N: usize>(
    query: *const f32,
    rows: [*const u16; N],
    len: usize,
    scores: &mut [f32],
) {
    let mut sums = [[_mm512_setzero_ps(); 2]; N];
    for at in (0..len).step_by(32) {
        // SAFETY: as above.
        unsafe {
            let query = [_mm512_loadu_ps(query.add(at)), _mm512_loadu_ps(query.add(at + 16))];
            for (row, sums) in rows.iter().zip(&mut sums) {
                let numbers = |from: usize| _mm512_cvtph_ps(_mm256_loadu_si256(row.add(from).cast()));
                sums[0] = _mm512_fmadd_ps(query[0], numbers(at), sums[0]);
                sums[1] = _mm512_fmadd_ps(query[1], numbers(at + 16), sums[1]);
            }
        }
    }
    for (score, sums) in scores.iter_mut().zip(sums) {
        *score = _mm512_reduce_add_ps(_mm512_add_ps(sums[0], sums[1]));
    }
}

/// # Safety
/// See [`super::Many`]; needs AVX-512 F, BW and VNNI.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
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
/// Query and rows have `len` codes, a multiple of 64; needs AVX-512 F, BW and VNNI.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn group_i8<const N: usize>(query: *const i8, rows: [*const u8; N], len: usize, scores: &mut [i32]) {
    let mut sums = [_mm512_setzero_si512(); N];
    for at in (0..len).step_by(64) {
        // SAFETY: as above.
        unsafe {
            let query = _mm512_loadu_si512(query.add(at).cast());
            for (row, sum) in rows.iter().zip(&mut sums) {
                *sum = _mm512_dpbusd_epi32(*sum, _mm512_loadu_si512(row.add(at).cast()), query);
            }
        }
    }
    for (score, sum) in scores.iter_mut().zip(sums) {
        *score = _mm512_reduce_add_epi32(sum);
    }
}
