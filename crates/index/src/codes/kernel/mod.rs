//! Scalar products of a query with stored rows, for each instruction set, chosen at run time.
//!
//! Rows are padded with zeros to whole cache lines of 64 bytes, so the kernels know no remainders, and the sum of two
//! vectors is always taken in the same order: the same pair has the same score wherever it is computed. Codes of one
//! byte are stored with 128 added (`u8`), queries are signed (`i8`): what AVX-512 VNNI multiplies.

/// Scores rows in groups of four, the next group asked for before: a line of the query is read once for all of them, and
/// several streams come from memory. `$bytes`: those of a number.
#[cfg(target_arch = "x86_64")]
macro_rules! in_fours {
    ($score:ident, $bytes:literal, $query:ident, $rows:ident, ($stride:ident, $len:ident), $nodes:ident, $scores:ident) => {
        let row = |node: &u32| $rows.wrapping_add(*node as usize * $stride);
        for (i, (group, scores)) in $nodes.chunks(4).zip($scores.chunks_mut(4)).enumerate() {
            for next in $nodes.iter().skip((i + 1) * 4).take(4) {
                $crate::codes::kernel::prefetch(row(next), $len * $bytes);
            }
            // SAFETY: the caller promises that every node is a row of `len` numbers, as is the query.
            unsafe {
                match *group {
                    [a, b, c, d] => $score($query, [a, b, c, d].map(|n| row(&n)), $len, scores),
                    [a, b, c] => $score($query, [a, b, c].map(|n| row(&n)), $len, scores),
                    [a, b] => $score($query, [a, b].map(|n| row(&n)), $len, scores),
                    [a] => $score($query, [row(&a)], $len, scores),
                    _ => {}
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod pairs_avx2;
#[cfg(target_arch = "x86_64")]
mod pairs_avx512;
mod portable;

pub(crate) mod hamming;

use std::sync::OnceLock;

/// Bytes of a cache line; rows are padded to a multiple.
pub(crate) const LINE: usize = 64;

/// Scores the first numbers of rows `nodes` of a matrix against a query: `(query, matrix, numbers per row, numbers
/// multiplied, nodes, scores)`. For the last numbers of each row, query and matrix are handed over from there on.
///
/// # Safety
/// The numbers multiplied are a multiple of a cache line, and the query has as many; every node is a row of the matrix
/// with as many; `scores` is as long as `nodes`; the processor has the instructions of the kernel.
pub(crate) type Many<Q, T, S> = unsafe fn(*const Q, *const T, usize, usize, &[u32], &mut [S]);

/// Rows that are multiplied together in 16 bits.
pub(crate) const PANEL: usize = 16;
/// Queries they are multiplied with together.
pub(crate) const TILE: usize = 6;

/// Scores a panel of [`PANEL`] rows with a tile of [`TILE`] queries, all in 16-bit codes, and says which rows reach a
/// query's bar, one bit each: `(panel, tile, codes a row, scales, bars, scores)`. The panel holds two codes of each row,
/// then the next two of each, and so on; so does the tile. A score is the sum of the products of the codes of a row and
/// of a query, times the query's scale.
///
/// # Safety
/// The panel begins at a cache line; codes a row are a multiple of a cache line; no code is -32,768 and no sum over a
/// part of the products leaves 32 bits; the processor has the instructions of the kernel.
pub(crate) type PairProducts = unsafe fn(
    *const i16,
    *const i16,
    usize,
    &[f32; TILE],
    &[f32; TILE],
    &mut [[f32; PANEL]; TILE],
) -> [u32; TILE];

/// What 16-bit codes are made and multiplied with. The instruction set's are needed for all of it.
#[derive(Clone, Copy)]
pub(crate) struct Pairs {
    /// Largest size and norm of a padded row.
    pub(crate) extent: unsafe fn(&[f32]) -> (f32, f32),
    /// Codes a row with a step; returns the norm of what is lost.
    pub(crate) encode: unsafe fn(&[f32], f32, &mut [i16]) -> f32,
    /// Makes a panel of [`PANEL`] rows of codes.
    pub(crate) interleave: unsafe fn(&[i16], &mut [i16]),
    pub(crate) products: PairProducts,
}

/// The kernels of one instruction set.
pub(crate) struct Kernels {
    /// Name of the instruction set.
    pub(crate) name: &'static str,
    pub(crate) f32: Many<f32, f32, f32>,
    /// Bytes of an f32 or f16 row to ask for ahead.
    pub(crate) float_first: usize,
    pub(crate) f16: Many<f32, u16, f32>,
    /// Whether the set has instructions for f16.
    pub(crate) has_f16: bool,
    pub(crate) i8: Many<i8, u8, i32>,
    /// Largest size of a query's codes that `i8` multiplies rightly.
    pub(crate) i8_limit: i8,
    /// Set where sums of 16-bit products are quicker than the set's f32 matrix products.
    pub(crate) pairs: Option<Pairs>,
}

const PORTABLE: Kernels = Kernels {
    name: "portable",
    f32: portable::f32_many,
    float_first: usize::MAX,
    f16: portable::f16_many,
    has_f16: false,
    i8: portable::i8_many,
    i8_limit: 127,
    pairs: None,
};
#[cfg(target_arch = "x86_64")]
const AVX2: Kernels = Kernels {
    name: "avx2",
    f32: avx2::f32_many,
    float_first: avx2::FIRST,
    f16: avx2::f16_many,
    has_f16: true,
    i8: avx2::i8_many,
    i8_limit: avx2::I8_LIMIT,
    pairs: Some(pairs_avx2::PAIRS),
};
#[cfg(target_arch = "x86_64")]
const AVX512: Kernels = Kernels {
    name: "avx512",
    f32: avx512::f32_many,
    float_first: usize::MAX,
    f16: avx512::f16_many,
    has_f16: true,
    i8: avx512::i8_many,
    i8_limit: 127,
    pairs: Some(pairs_avx512::PAIRS),
};

/// Every set this processor can run, best first.
pub(crate) fn available() -> Vec<&'static Kernels> {
    let mut sets: Vec<&'static Kernels> = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        let has512 = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vnni");
        if has512 {
            sets.push(&AVX512);
        }
        if is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c")
        {
            sets.push(&AVX2);
        }
    }
    sets.push(&PORTABLE);
    sets
}

/// The best set of this processor.
pub(crate) fn best() -> &'static Kernels {
    static BEST: OnceLock<&'static Kernels> = OnceLock::new();
    BEST.get_or_init(|| available()[0])
}

/// Name of the instruction set that vectors are scored with on this machine: `avx512`, `avx2` or `portable`.
pub fn instruction_set() -> &'static str {
    best().name
}

/// Numbers of type `T` in a padded row of `dim` numbers.
pub(crate) fn padded<T>(dim: usize) -> usize {
    dim.next_multiple_of(LINE / size_of::<T>())
}

/// Scores of padded f32 rows against a padded query.
pub(crate) fn score_f32(query: &[f32], rows: &[f32], nodes: &[u32], scores: &mut [f32]) {
    check::<f32, f32>(query.len(), rows.len(), nodes, scores.len());
    // SAFETY: checked above; `best` only returns what the processor has.
    unsafe { (best().f32)(query.as_ptr(), rows.as_ptr(), query.len(), query.len(), nodes, scores) }
}

/// Scalar product of two padded rows.
pub(crate) fn dot_f32(a: &[f32], b: &[f32]) -> f32 {
    let mut score = [0.0];
    score_f32(a, &b[..a.len()], &[0], &mut score);
    score[0]
}

/// Panics if a kernel would leave its slices. The one comparison a node is nothing beside its row.
#[inline]
pub(crate) fn check<Q, T>(query: usize, matrix: usize, nodes: &[u32], scores: usize) {
    let rows = matrix.checked_div(query).unwrap_or(0);
    assert!(query.is_multiple_of(LINE / size_of::<T>().max(size_of::<Q>())) && scores == nodes.len());
    assert!(nodes.iter().all(|&n| (n as usize) < rows), "a node is not in the matrix");
}

/// Asks for the first lines of a row ahead of its use.
#[inline(always)]
pub(crate) fn prefetch<T>(row: *const T, bytes: usize) {
    #[cfg(target_arch = "x86_64")]
    for line in (0..bytes).step_by(LINE) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch never faults, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(row.cast::<i8>().wrapping_add(line)) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (row, bytes);
}

/// Asks for as much of a row of f32 or f16 as is worth it ahead of its use.
#[inline(always)]
pub(crate) fn prefetch_floats<T>(row: &[T]) {
    prefetch(row.as_ptr(), best().float_first.min(size_of_val(row)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::f16;
    use rand::{Rng, SeedableRng};

    fn rng() -> rand_chacha::ChaCha8Rng {
        rand_chacha::ChaCha8Rng::seed_from_u64(7)
    }

    #[test]
    fn every_set_agrees_with_a_literal_loop() {
        let mut rng = rng();
        for lines in [1usize, 2, 3, 4, 5, 7, 8, 32, 64] {
            let (len32, len16, len8) = (lines * 16, lines * 32, lines * 64);
            let nodes = [4u32, 0, 2, 2, 1];
            let q32: Vec<f32> = (0..len16).map(|_| rng.random_range(-1.0..1.0)).collect();
            let r32: Vec<f32> = (0..5 * len16).map(|_| rng.random_range(-1.0..1.0)).collect();
            let r16: Vec<u16> = r32.iter().map(|&x| f16::from_f32(x).to_bits()).collect();
            let mut r8: Vec<u8> = (0..5 * len8).map(|_| rng.random()).collect();
            r8[..len8].fill(255); // the sums that saturate where instructions do
            for set in available() {
                let mut q8: Vec<i8> =
                    (0..len8).map(|_| rng.random_range(-set.i8_limit..=set.i8_limit)).collect();
                q8[..64].fill(set.i8_limit);
                let (mut s32, mut s16, mut s8) = ([0.0f32; 5], [0.0f32; 5], [0i32; 5]);
                check::<f32, f32>(len32, r32.len(), &nodes, 5);
                // SAFETY: the shapes fit by construction, `available` lists what the processor has.
                unsafe {
                    (set.f32)(q32.as_ptr(), r32.as_ptr(), len32, len32, &nodes, &mut s32);
                    (set.f16)(q32.as_ptr(), r16.as_ptr(), len16, len16, &nodes, &mut s16);
                    (set.i8)(q8.as_ptr(), r8.as_ptr(), len8, len8, &nodes, &mut s8);
                }
                for (i, &node) in nodes.iter().enumerate() {
                    let node = node as usize;
                    let want: f64 =
                        (0..len32).map(|j| f64::from(q32[j]) * f64::from(r32[node * len32 + j])).sum();
                    assert!((f64::from(s32[i]) - want).abs() < 1e-3, "{} f32 {lines}", set.name);
                    let want: f64 = (0..len16)
                        .map(|j| f64::from(q32[j]) * f16::from_bits(r16[node * len16 + j]).to_f64())
                        .sum();
                    assert!((f64::from(s16[i]) - want).abs() < 1e-3, "{} f16 {lines}", set.name);
                    let want: i32 =
                        (0..len8).map(|j| i32::from(q8[j]) * i32::from(r8[node * len8 + j])).sum();
                    assert_eq!(s8[i], want, "{} i8 {lines}", set.name);
                }
            }
        }
    }

    #[test]
    fn parts_of_rows_add_up_on_every_set() {
        let mut rng = rng();
        let (nodes, lines) = ([3u32, 1, 0, 4, 2, 1, 3], 9);
        let q: Vec<f32> = (0..lines * 32).map(|_| rng.random_range(-1.0..1.0)).collect();
        let rows: Vec<f32> = (0..5 * lines * 32).map(|_| rng.random_range(-1.0..1.0)).collect();
        let halves: Vec<u16> = rows.iter().map(|&x| f16::from_f32(x).to_bits()).collect();
        let codes: Vec<u8> = (0..5 * lines * 64).map(|_| rng.random()).collect();
        let q8: Vec<i8> = (0..lines * 64).map(|_| rng.random_range(-64..=64)).collect();
        for set in available() {
            for cut in 1..lines {
                let mut sums = [[0.0f32; 7]; 3];
                let mut counts = [[0i32; 7]; 3];
                let mut halved = [[0.0f32; 7]; 3];
                for (i, (from, len)) in [(0, lines), (0, cut), (cut, lines - cut)].into_iter().enumerate() {
                    // SAFETY: parts of rows that are there, `available` lists what the processor has.
                    unsafe {
                        let (q, rows) = (q.as_ptr(), rows.as_ptr());
                        (set.f32)(
                            q.add(from * 16),
                            rows.add(from * 16),
                            lines * 16,
                            len * 16,
                            &nodes,
                            &mut sums[i],
                        );
                        let rows = halves.as_ptr().add(from * 32);
                        (set.f16)(q.add(from * 32), rows, lines * 32, len * 32, &nodes, &mut halved[i]);
                        let rows = codes.as_ptr().add(from * 64);
                        let q8 = q8.as_ptr().add(from * 64);
                        (set.i8)(q8, rows, lines * 64, len * 64, &nodes, &mut counts[i]);
                    }
                }
                for at in 0..nodes.len() {
                    assert!((sums[0][at] - sums[1][at] - sums[2][at]).abs() < 1e-4, "{} f32 {cut}", set.name);
                    assert!(
                        (halved[0][at] - halved[1][at] - halved[2][at]).abs() < 1e-4,
                        "{} f16 {cut}",
                        set.name
                    );
                    assert_eq!(counts[0][at], counts[1][at] + counts[2][at], "{} i8 {cut}", set.name);
                }
            }
        }
    }

    #[test]
    fn a_pair_scores_the_same_with_more_padding() {
        let mut rng = rng();
        let mut a: Vec<f32> = (0..48).map(|_| rng.random_range(-1.0..1.0)).collect();
        let mut b: Vec<f32> = (0..48).map(|_| rng.random_range(-1.0..1.0)).collect();
        let short = dot_f32(&a, &b);
        assert_eq!(short, dot_f32(&b, &a));
        a.resize(128, 0.0);
        b.resize(128, 0.0);
        assert!((short - dot_f32(&a, &b)).abs() < 1e-6);
    }

    #[test]
    #[should_panic(expected = "not in the matrix")]
    fn a_node_outside_the_matrix_is_caught() {
        score_f32(&[0.0; 16], &[0.0; 32], &[2], &mut [0.0]);
    }
}
