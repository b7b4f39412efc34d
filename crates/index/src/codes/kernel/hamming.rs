//! Hamming distances of a query to stored rows of bits, for each instruction set, chosen at run time.
//!
//! Rows lie in blocks of [`ROWS`]: the first word of each of them, then the second of each, and so on. A word of the
//! query thus meets one cache line, and the distances of a block are sums by place, without any sum across a vector.

use std::sync::OnceLock;

/// Rows in a block.
pub(crate) const ROWS: usize = 8;

/// A row and its Hamming distance from the query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Near {
    pub(crate) row: u32,
    pub(crate) distance: u32,
}

/// Appends the rows whose distance from the query is at most a limit, in order: `(query, blocks, limit, number of the
/// first row, rows found)`. The query has one word or more, the blocks have [`ROWS`] rows of as many words.
///
/// # Safety
/// The processor has the instructions of the kernel.
type Within = unsafe fn(&[u64], &[u64], u32, u32, &mut Vec<Near>);

/// Appends the rows whose distance from the query is at most `limit`, in order, where `first` is the number of the first
/// row of the blocks. Panics if a block is cut.
pub(crate) fn within(query: &[u64], blocks: &[u64], limit: u32, first: u32, found: &mut Vec<Near>) {
    static BEST: OnceLock<Within> = OnceLock::new();
    check(query, blocks);
    // SAFETY: `available` only lists what the processor has.
    unsafe { BEST.get_or_init(|| available()[0].1)(query, blocks, limit, first, found) }
}

/// Adds the distances of a query from what follows the blocks' words of rows, one row after the other, to those of `near`,
/// and drops the rows whose distance is then above `limit`. Panics if a row is not there.
pub(crate) fn add_rest(query: &[u64], rows: &[u64], limit: u32, near: &mut Vec<Near>) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("popcnt") {
        // SAFETY: the processor has the instruction.
        return unsafe { x86_64::add_rest(query, rows, limit, near) };
    }
    add_rest_of(query, rows, limit, near);
}

#[inline(always)]
fn add_rest_of(query: &[u64], rows: &[u64], limit: u32, near: &mut Vec<Near>) {
    near.retain_mut(|near| {
        let row = &rows[near.row as usize * query.len()..][..query.len()];
        near.distance += query.iter().zip(row).map(|(q, word)| (q ^ word).count_ones()).sum::<u32>();
        near.distance <= limit
    });
}

fn check(query: &[u64], blocks: &[u64]) {
    assert!(!query.is_empty() && blocks.len().is_multiple_of(ROWS * query.len()), "a block is cut");
}

/// The kernel of every instruction set that this processor has, with its name, best first.
fn available() -> Vec<(&'static str, Within)> {
    let mut sets: Vec<(&'static str, Within)> = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vpopcntdq") {
            sets.push(("avx512", x86_64::avx512));
        }
        if is_x86_feature_detected!("avx2") {
            sets.push(("avx2", x86_64::avx2));
        }
    }
    sets.push(("portable", portable));
    sets
}

/// Appends those of a block's rows whose bit is set.
#[inline(always)]
fn push(distances: &[u64; ROWS], mut bits: u32, first: u32, found: &mut Vec<Near>) {
    while bits != 0 {
        let at = bits.trailing_zeros();
        found.push(Near { row: first + at, distance: distances[at as usize] as u32 });
        bits &= bits - 1;
    }
}

/// # Safety
/// None is needed.
unsafe fn portable(query: &[u64], blocks: &[u64], limit: u32, first: u32, found: &mut Vec<Near>) {
    for (first, block) in (first..).step_by(ROWS).zip(blocks.chunks_exact(ROWS * query.len())) {
        let mut distances = [0u64; ROWS];
        for (q, words) in query.iter().zip(block.chunks_exact(ROWS)) {
            distances
                .iter_mut()
                .zip(words)
                .for_each(|(sum, word)| *sum += u64::from((q ^ word).count_ones()));
        }
        let near = distances.iter().enumerate().map(|(at, &d)| u32::from(d <= u64::from(limit)) << at);
        push(&distances, near.sum(), first, found);
    }
}

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use std::arch::x86_64::*;

    use super::{Near, ROWS, add_rest_of, push};

    /// # Safety
    /// Needs POPCNT.
    #[target_feature(enable = "popcnt")]
    pub(super) unsafe fn add_rest(query: &[u64], rows: &[u64], limit: u32, near: &mut Vec<Near>) {
        add_rest_of(query, rows, limit, near);
    }

    /// # Safety
    /// Needs AVX-512 F and VPOPCNTDQ.
    #[target_feature(enable = "avx512f,avx512vpopcntdq")]
    pub(super) unsafe fn avx512(
        query: &[u64],
        blocks: &[u64],
        limit: u32,
        first: u32,
        found: &mut Vec<Near>,
    ) {
        let limit = _mm512_set1_epi64(i64::from(limit));
        let block_words = ROWS * query.len();
        let near = |sum: __m512i, first: u32, found: &mut Vec<Near>| {
            let bits = _mm512_cmple_epu64_mask(sum, limit);
            if bits != 0 {
                let mut distances = [0u64; ROWS];
                // SAFETY: the distances are as long as the vector.
                unsafe { _mm512_storeu_si512(distances.as_mut_ptr().cast(), sum) };
                push(&distances, u32::from(bits), first, found);
            }
        };
        // Two blocks together share the reads of the query.
        for (first, pair) in (first..).step_by(2 * ROWS).zip(blocks.chunks(2 * block_words)) {
            let (one, other) = pair.split_at(block_words);
            let mut sums = [_mm512_setzero_si512(); 2];
            // SAFETY: each word of the query has a whole line of `ROWS` words in a block.
            unsafe {
                if other.is_empty() {
                    for (q, line) in query.iter().zip(one.chunks_exact(ROWS)) {
                        let line = _mm512_loadu_si512(line.as_ptr().cast());
                        let differ = _mm512_xor_si512(line, _mm512_set1_epi64(*q as i64));
                        sums[0] = _mm512_add_epi64(sums[0], _mm512_popcnt_epi64(differ));
                    }
                } else {
                    let lines = one.chunks_exact(ROWS).zip(other.chunks_exact(ROWS));
                    for (q, (one, other)) in query.iter().zip(lines) {
                        let q = _mm512_set1_epi64(*q as i64);
                        let one = _mm512_xor_si512(_mm512_loadu_si512(one.as_ptr().cast()), q);
                        let other = _mm512_xor_si512(_mm512_loadu_si512(other.as_ptr().cast()), q);
                        sums[0] = _mm512_add_epi64(sums[0], _mm512_popcnt_epi64(one));
                        sums[1] = _mm512_add_epi64(sums[1], _mm512_popcnt_epi64(other));
                    }
                }
            }
            near(sums[0], first, found);
            if !other.is_empty() {
                near(sums[1], first + ROWS as u32, found);
            }
        }
    }

    /// Words after which the counts of a byte, 8 at most for each, have to be summed up.
    const BYTES_HOLD: usize = 31;

    /// # Safety
    /// Needs AVX2.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn avx2(query: &[u64], blocks: &[u64], limit: u32, first: u32, found: &mut Vec<Near>) {
        let beyond = _mm256_set1_epi64x(i64::from(limit) + 1);
        let (low, zero) = (_mm256_set1_epi8(15), _mm256_setzero_si256());
        let counts = _mm256_setr_epi8(
            0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4,
        );
        let ones = |x: __m256i| {
            let high = _mm256_and_si256(_mm256_srli_epi16::<4>(x), low);
            let low = _mm256_and_si256(x, low);
            _mm256_add_epi8(_mm256_shuffle_epi8(counts, low), _mm256_shuffle_epi8(counts, high))
        };
        for (first, block) in (first..).step_by(ROWS).zip(blocks.chunks_exact(ROWS * query.len())) {
            let mut sums = [zero; 2];
            for (query, lines) in query.chunks(BYTES_HOLD).zip(block.chunks(ROWS * BYTES_HOLD)) {
                let mut bytes = [zero; 2];
                for (q, line) in query.iter().zip(lines.chunks_exact(ROWS)) {
                    let q = _mm256_set1_epi64x(*q as i64);
                    // SAFETY: a line has `ROWS` words, two vectors.
                    let halves = unsafe {
                        let line = line.as_ptr();
                        [_mm256_loadu_si256(line.cast()), _mm256_loadu_si256(line.add(ROWS / 2).cast())]
                    };
                    for (bytes, half) in bytes.iter_mut().zip(halves) {
                        *bytes = _mm256_add_epi8(*bytes, ones(_mm256_xor_si256(half, q)));
                    }
                }
                for (sum, bytes) in sums.iter_mut().zip(bytes) {
                    *sum = _mm256_add_epi64(*sum, _mm256_sad_epu8(bytes, zero));
                }
            }
            let near =
                sums.map(|sum| _mm256_movemask_pd(_mm256_castsi256_pd(_mm256_cmpgt_epi64(beyond, sum))));
            if near != [0; 2] {
                let mut distances = [0u64; ROWS];
                // SAFETY: the distances are as long as the two vectors.
                unsafe {
                    let to = distances.as_mut_ptr();
                    _mm256_storeu_si256(to.cast(), sums[0]);
                    _mm256_storeu_si256(to.add(ROWS / 2).cast(), sums[1]);
                }
                push(&distances, (near[0] | near[1] << (ROWS / 2)) as u32, first, found);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};

    #[test]
    fn every_set_agrees_with_a_literal_loop() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(3);
        for words in [1usize, 2, 5, 8, 31, 32, 64] {
            for blocks in [0usize, 1, 2, 5] {
                let query: Vec<u64> = (0..words).map(|_| rng.random()).collect();
                let rows: Vec<Vec<u64>> = (0..blocks * ROWS)
                    .map(|row| match row % 5 {
                        0 => query.clone(),
                        1 => query.iter().map(|q| !q).collect(),
                        _ => (0..words).map(|_| rng.random()).collect(),
                    })
                    .collect();
                let mut laid = Vec::new();
                for block in rows.chunks(ROWS) {
                    (0..words).for_each(|word| laid.extend(block.iter().map(|row| row[word])));
                }
                let distance = |row: &[u64]| {
                    let bits = |words: &[u64], bit: usize| words[bit / 64] >> (bit % 64) & 1;
                    (0..words * 64).filter(|&bit| bits(row, bit) != bits(&query, bit)).count() as u32
                };
                let bits = words as u32 * 64;
                for limit in [0, bits / 2, bits / 2 + 3, bits - 1, bits, u32::MAX] {
                    let want: Vec<Near> = (0..)
                        .zip(&rows)
                        .map(|(row, bits)| Near { row: 100 + row, distance: distance(bits) })
                        .filter(|near| near.distance <= limit)
                        .collect();
                    for (name, within) in available() {
                        let mut found = Vec::new();
                        check(&query, &laid);
                        // SAFETY: `available` lists what the processor has.
                        unsafe { within(&query, &laid, limit, 100, &mut found) };
                        assert_eq!(found, want, "{name} {words} words, {blocks} blocks, {limit}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_rest_of_a_row_is_added() {
        let (query, rows) = ([0b1011u64, 0], [0b1011u64, 0, u64::MAX, 1, 0b1, 0b110]);
        let near = |row, distance| Near { row, distance };
        for (limit, want) in [
            (70, vec![near(0, 5), near(1, 67), near(2, 11)]),
            (66, vec![near(0, 5), near(2, 11)]),
            (4, vec![]),
        ] {
            let mut found = vec![near(0, 5), near(1, 5), near(2, 7)];
            add_rest(&query, &rows, limit, &mut found);
            assert_eq!(found, want);
            let mut found = vec![near(0, 5), near(1, 5), near(2, 7)];
            add_rest_of(&query, &rows, limit, &mut found);
            assert_eq!(found, want);
        }
        let mut found = vec![near(3, 1)];
        add_rest(&[], &[], 1, &mut found);
        assert_eq!(found, [near(3, 1)], "where there is no rest");
    }

    #[test]
    #[should_panic(expected = "a block is cut")]
    fn a_cut_block_is_caught() {
        within(&[0, 0], &[0; 24], 1, 0, &mut Vec::new());
    }
}
