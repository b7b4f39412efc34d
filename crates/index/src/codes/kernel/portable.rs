//! Kernels in plain Rust, written so that the compiler turns them into whatever vectors the target has.

use half::f16;

const LANES: usize = 16;

/// # Safety
/// See [`super::Many`].
pub(super) unsafe fn f32_many(
    query: *const f32,
    rows: *const f32,
    stride: usize,
    len: usize,
    nodes: &[u32],
    scores: &mut [f32],
) {
    // SAFETY: the caller promises a query of `len` numbers.
    let query = unsafe { std::slice::from_raw_parts(query, len) };
    for (&node, score) in nodes.iter().zip(scores) {
        // SAFETY: the caller promises that the node is a row.
        let row = unsafe { std::slice::from_raw_parts(rows.add(node as usize * stride), len) };
        *score = dot(query, row, |&x| x);
    }
}

/// # Safety
/// See [`super::Many`].
pub(super) unsafe fn f16_many(
    query: *const f32,
    rows: *const u16,
    stride: usize,
    len: usize,
    nodes: &[u32],
    scores: &mut [f32],
) {
    // SAFETY: the caller promises a query of `len` numbers.
    let query = unsafe { std::slice::from_raw_parts(query, len) };
    for (&node, score) in nodes.iter().zip(scores) {
        // SAFETY: the caller promises that the node is a row.
        let row = unsafe { std::slice::from_raw_parts(rows.add(node as usize * stride), len) };
        *score = dot(query, row, |&x| f16::from_bits(x).to_f32());
    }
}

/// # Safety
/// See [`super::Many`].
pub(super) unsafe fn i8_many(
    query: *const i8,
    rows: *const u8,
    stride: usize,
    len: usize,
    nodes: &[u32],
    scores: &mut [i32],
) {
    // SAFETY: the caller promises a query of `len` numbers.
    let query = unsafe { std::slice::from_raw_parts(query, len) };
    for (&node, score) in nodes.iter().zip(scores) {
        // SAFETY: the caller promises that the node is a row.
        let row = unsafe { std::slice::from_raw_parts(rows.add(node as usize * stride), len) };
        *score = query.iter().zip(row).map(|(&q, &x)| i32::from(q) * i32::from(x)).sum();
    }
}

fn dot<T>(query: &[f32], row: &[T], number: impl Fn(&T) -> f32) -> f32 {
    let mut sums = [0.0f32; LANES];
    for (q, x) in query.chunks_exact(LANES).zip(row.chunks_exact(LANES)) {
        for lane in 0..LANES {
            sums[lane] += q[lane] * number(&x[lane]);
        }
    }
    sums.iter().sum()
}
