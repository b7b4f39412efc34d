//! Kernels for AVX-512 with VNNI.

use std::arch::x86_64::*;

use super::prefetch;

/// Rows asked for ahead of the one being scored.
const AHEAD: usize = 4;

/// # Safety
/// See [`super::Many`]; needs AVX-512 F.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn f32_many(
    query: *const f32,
    rows: *const f32,
    len: usize,
    nodes: &[u32],
    scores: &mut [f32],
) {
    for (i, (&node, score)) in nodes.iter().zip(scores).enumerate() {
        if let Some(&next) = nodes.get(i + AHEAD) {
            prefetch(rows.wrapping_add(next as usize * len), len * 4);
        }
        // SAFETY: the caller promises that the node is a row of `len` numbers, as is the query; `len` is a multiple of 16.
        *score = unsafe {
            let row = rows.add(node as usize * len);
            let mut sums = [_mm512_setzero_ps(); 4];
            let mut at = 0;
            while at + 64 <= len {
                for (lane, sum) in sums.iter_mut().enumerate() {
                    let offset = at + lane * 16;
                    *sum = _mm512_fmadd_ps(
                        _mm512_loadu_ps(query.add(offset)),
                        _mm512_loadu_ps(row.add(offset)),
                        *sum,
                    );
                }
                at += 64;
            }
            while at < len {
                sums[0] =
                    _mm512_fmadd_ps(_mm512_loadu_ps(query.add(at)), _mm512_loadu_ps(row.add(at)), sums[0]);
                at += 16;
            }
            _mm512_reduce_add_ps(_mm512_add_ps(
                _mm512_add_ps(sums[0], sums[1]),
                _mm512_add_ps(sums[2], sums[3]),
            ))
        };
    }
}

/// # Safety
/// See [`super::Many`]; needs AVX-512 F.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn f16_many(
    query: *const f32,
    rows: *const u16,
    len: usize,
    nodes: &[u32],
    scores: &mut [f32],
) {
    for (i, (&node, score)) in nodes.iter().zip(scores).enumerate() {
        if let Some(&next) = nodes.get(i + AHEAD) {
            prefetch(rows.wrapping_add(next as usize * len), len * 2);
        }
        // SAFETY: as above; `len` is a multiple of 32.
        *score = unsafe {
            let row = rows.add(node as usize * len);
            let mut sums = [_mm512_setzero_ps(); 2];
            for at in (0..len).step_by(32) {
                for (lane, sum) in sums.iter_mut().enumerate() {
                    let offset = at + lane * 16;
                    let halves = _mm256_loadu_si256(row.add(offset).cast());
                    *sum = _mm512_fmadd_ps(_mm512_loadu_ps(query.add(offset)), _mm512_cvtph_ps(halves), *sum);
                }
            }
            _mm512_reduce_add_ps(_mm512_add_ps(sums[0], sums[1]))
        };
    }
}

/// # Safety
/// See [`super::Many`]; needs AVX-512 F, BW and VNNI.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) unsafe fn i8_many(
    query: *const i8,
    rows: *const u8,
    len: usize,
    nodes: &[u32],
    scores: &mut [i32],
) {
    for (i, (&node, score)) in nodes.iter().zip(scores).enumerate() {
        if let Some(&next) = nodes.get(i + AHEAD) {
            prefetch(rows.wrapping_add(next as usize * len), len);
        }
        // SAFETY: as above; `len` is a multiple of 64.
        *score = unsafe {
            let row = rows.add(node as usize * len);
            let mut sums = [_mm512_setzero_si512(); 4];
            let mut at = 0;
            while at + 256 <= len {
                for (lane, sum) in sums.iter_mut().enumerate() {
                    let offset = at + lane * 64;
                    let (x, q) = (
                        _mm512_loadu_si512(row.add(offset).cast()),
                        _mm512_loadu_si512(query.add(offset).cast()),
                    );
                    *sum = _mm512_dpbusd_epi32(*sum, x, q);
                }
                at += 256;
            }
            while at < len {
                let (x, q) =
                    (_mm512_loadu_si512(row.add(at).cast()), _mm512_loadu_si512(query.add(at).cast()));
                sums[0] = _mm512_dpbusd_epi32(sums[0], x, q);
                at += 64;
            }
            _mm512_reduce_add_epi32(_mm512_add_epi32(
                _mm512_add_epi32(sums[0], sums[1]),
                _mm512_add_epi32(sums[2], sums[3]),
            ))
        };
    }
}
