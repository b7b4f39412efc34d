//! One bit for each number of a vector: whether it is above the mean of its segment. From how many of them differ between
//! a query and a row follows how near the two can be, at a fraction of what a score costs.
//!
//! Signs of vectors at an angle θ differ in a share θ/π of all dimensions, were the vectors turned at random (Goemans and
//! Williamson 1995; Charikar 2002): with x' = x − m and |x| = 1, cos θ = (q·x − q·m) / (|q'| √(1 − |m|²)) for a row of
//! ordinary x·m. How far rows lie from that, because vectors are not turned at random and the dimensions are few, is
//! measured on near pairs of the segment.
//!
//! The first bits of all rows are compared, and the rest of those whose first bits leave it open.

use rayon::prelude::*;

use crate::codes::aligned_matrix::Rows;
use crate::codes::kernel::hamming::{self, Near, ROWS};
use crate::codes::kernel::{LINE, dot_f32, padded};
use crate::codes::quantize::CodeView;

/// Most rows of a segment that has bits.
const MOST_ROWS: usize = 1 << 14;
/// Fewest dimensions: from fewer bits nothing follows.
const LEAST_DIM: usize = 64;
/// Fewest rows of a segment that has bits: fewer are as quickly scored.
const LEAST_ROWS: usize = 64;
/// Rows whose mean is taken.
const MEAN_OF: usize = 4096;
/// Rows among which near pairs are looked for, rows whose neighbours they are, and neighbours of each.
const AMONG: usize = 1024;
const SAMPLE: usize = 32;
const NEIGHBOURS: usize = 8;
/// How far beyond the expected distance a row may lie, in standard deviations: of the rows that belong just above a bar
/// 1 in 740 is passed over, were the distances normal, and of those further up fewer.
const DEVIATIONS: f32 = 3.0;
/// Least product of the norms of query and rows without the mean: with less the bits tell of rounding alone.
const LEAST_EXTENT: f32 = 0.01;
/// Blocks between two looks at how many rows were found.
const LOOK: usize = 64;

/// Words of a row that are compared first.
const FIRST_WORDS: usize = 4;
/// So many rows may be left open by their first bits for each that may be scored.
const OPEN: usize = 8;

/// The bits of a segment's rows.
pub(crate) struct SignBits {
    dim: usize,
    nodes: usize,
    /// Words of a row in the blocks.
    first_words: usize,
    /// The first words, in blocks as [`hamming`] has them; the last is filled up with zeros.
    blocks: Rows,
    /// The words after them, row by row.
    rest: Vec<u64>,
    /// Mean of the vectors, padded.
    mean: Rows,
    /// Square of its norm.
    mean_square: f32,
    /// How far distances are from those expected, in the first bits and in all.
    errors: [Errors; 2],
}

/// Mean and deviation of the distances of near pairs from those expected, in expected deviations.
#[derive(Clone, Copy)]
struct Errors {
    bits: usize,
    mean: f32,
    deviation: f32,
}

/// A query of bits.
pub(crate) struct SignQuery {
    bits: Vec<u64>,
    /// Scalar product with the mean.
    on_mean: f32,
}

impl SignBits {
    /// Whether rows of a segment get bits.
    pub(crate) fn worth(dim: usize, nodes: usize) -> bool {
        dim >= LEAST_DIM && (LEAST_ROWS..=MOST_ROWS).contains(&nodes)
    }

    /// The bits of the vectors that codes stand for.
    pub(crate) fn of(codes: &CodeView<'_>) -> Self {
        let (dim, nodes) = (codes.dim, codes.nodes());
        let words = dim.div_ceil(64);
        let mut mean = Rows::with_rows(padded::<f32>(dim) * 4, 1);
        let (mut row, step) = (vec![0.0; dim], nodes.div_ceil(MEAN_OF).max(1));
        let share = (nodes.div_ceil(step) as f32).recip();
        for node in (0..nodes).step_by(step) {
            codes.decode(node as u32, &mut row);
            mean.all_mut::<f32>().iter_mut().zip(&row).for_each(|(mean, x)| *mean += share * x);
        }
        let center: &[f32] = mean.all();
        let mut by_row = vec![0u64; nodes * words];
        by_row.par_chunks_mut(LOOK * ROWS * words).enumerate().for_each(|(part, rows)| {
            let mut row = vec![0.0; dim];
            for (at, bits) in rows.chunks_exact_mut(words).enumerate() {
                codes.decode((part * LOOK * ROWS + at) as u32, &mut row);
                bits.iter_mut().zip(signs(&row, center)).for_each(|(word, bits)| *word = bits);
            }
        });
        let first_words = words.min(FIRST_WORDS);
        let mut blocks = Rows::with_rows(LINE, nodes.div_ceil(ROWS) * first_words);
        let in_blocks = blocks.all_mut::<u64>().chunks_exact_mut(ROWS * first_words);
        for (block, rows) in in_blocks.zip(by_row.chunks(ROWS * words)) {
            for (at, row) in rows.chunks_exact(words).enumerate() {
                row[..first_words]
                    .iter()
                    .enumerate()
                    .for_each(|(word, &bits)| block[word * ROWS + at] = bits);
            }
        }
        let rest = by_row.chunks_exact(words).flat_map(|row| &row[first_words..]).copied().collect();
        let mean_square = dot_f32(center, center);
        let none = |bits| Errors { bits, mean: 0.0, deviation: 1.0 };
        let errors = [none(dim.min(first_words * 64)), none(dim)];
        let mut all = Self { dim, nodes, first_words, blocks, rest, mean, mean_square, errors };
        all.measure(codes, &by_row);
        all
    }

    /// Measures how far distances of near pairs are from those expected; `by_row` holds the bits row by row.
    fn measure(&mut self, codes: &CodeView<'_>, by_row: &[u64]) {
        let words = self.dim.div_ceil(64);
        let among: Vec<u32> = (0..self.nodes as u32).step_by(self.nodes.div_ceil(AMONG).max(1)).collect();
        let (mut query, mut row) = (codes.blank_query(), Rows::with_rows(padded::<f32>(self.dim) * 4, 1));
        let (mut scores, mut off) = (Vec::new(), [Vec::new(), Vec::new()]);
        let bits = |node: u32| &by_row[node as usize * words..][..words];
        for &node in among.iter().step_by(among.len().div_ceil(SAMPLE).max(1)) {
            codes.decode(node, &mut row.all_mut()[..self.dim]);
            let on_mean = dot_f32(row.all(), self.mean.all());
            query.set_node(node);
            query.scores(&among, &mut scores);
            let mut near: Vec<(f32, u32)> = scores.iter().copied().zip(among.iter().copied()).collect();
            near.retain(|&(_, other)| other != node);
            near.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
            for &(score, other) in near.iter().take(NEIGHBOURS) {
                let differ = |words: usize| -> u32 {
                    let pairs = bits(node).iter().zip(bits(other)).take(words);
                    pairs.map(|(a, b)| (a ^ b).count_ones()).sum()
                };
                for ((off, errors), words) in off.iter_mut().zip(&self.errors).zip([self.first_words, words])
                {
                    let (share, deviation) = self.expected(score, on_mean, errors.bits);
                    off.push((differ(words) as f32 / errors.bits as f32 - share) / deviation);
                }
            }
        }
        for (errors, off) in self.errors.iter_mut().zip(off) {
            let count = (off.len() as f32).max(1.0);
            errors.mean = off.iter().sum::<f32>() / count;
            let square = off.iter().map(|x| (x - errors.mean).powi(2)).sum::<f32>() / count;
            errors.deviation = square.sqrt().max(1.0);
        }
    }

    /// The share of so many bits that is expected to differ at a score, and its standard deviation; not a number where the
    /// mean is all there is.
    fn expected(&self, score: f32, on_mean: f32, bits: usize) -> (f32, f32) {
        let query = (1.0 - 2.0 * on_mean + self.mean_square).max(0.0).sqrt();
        let row = (1.0 - self.mean_square).max(0.0).sqrt();
        let extent = if query * row >= LEAST_EXTENT { query * row } else { f32::NAN };
        let share = ((score - on_mean) / extent).clamp(-1.0, 1.0).acos() / std::f32::consts::PI;
        // Where nearly all bits should agree, one may still differ.
        let bits = bits as f32;
        (share, ((share * (1.0 - share) + bits.recip()) / bits).sqrt())
    }

    /// The bits of a query; `padded` is the vector as the kernels want it.
    pub(crate) fn query(&self, padded: &[f32]) -> SignQuery {
        let mean: &[f32] = self.mean.all();
        SignQuery { bits: signs(&padded[..self.dim], mean).collect(), on_mean: dot_f32(padded, mean) }
    }

    /// The rows that may reach the score `bar`, in order; `None` if they are far more than `most`.
    pub(crate) fn candidates(&self, query: &SignQuery, bar: f32, most: usize) -> Option<Vec<Near>> {
        let [first_limit, limit] = self.errors.map(|errors| {
            let (share, deviation) = self.expected(bar, query.on_mean, errors.bits);
            errors.bits as f32 * (share + (errors.mean + DEVIATIONS * errors.deviation) * deviation)
        });
        // Where the mean is all there is, nothing follows.
        if limit.is_nan() {
            return None;
        }
        let (first, rest) = query.bits.split_at(self.first_words);
        let (part, mut scanned, mut found) = (LOOK * ROWS, 0, Vec::new());
        let most_open = if rest.is_empty() { most } else { OPEN * most };
        for blocks in self.blocks.all::<u64>().chunks(part * self.first_words) {
            hamming::within(first, blocks, first_limit.max(0.0) as u32, scanned as u32, &mut found);
            scanned += part;
            // As many of the rows to come as of those so far: too many are seen early.
            if found.len() > most_open || found.len() * self.nodes > (2 * most_open + ROWS) * scanned {
                return None;
            }
        }
        let rows = found.partition_point(|near| (near.row as usize) < self.nodes);
        found.truncate(rows);
        if !rest.is_empty() {
            hamming::add_rest(rest, &self.rest, limit.max(0.0) as u32, &mut found);
        }
        (found.len() <= most).then_some(found)
    }
}

/// Which numbers are above the mean, 64 to a word.
fn signs(vector: &[f32], mean: &[f32]) -> impl Iterator<Item = u64> {
    vector.chunks(64).zip(mean.chunks(64)).map(|(vector, mean)| {
        let bits = vector.iter().zip(mean).enumerate();
        bits.fold(0, |word, (at, (x, mean))| word | u64::from(x > mean) << at)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codes::quantize::CodeBuffer;
    use crate::config::Codes;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    /// Unit vectors in a space of `latent` dimensions mapped to all by a random matrix, around a vector so long.
    fn vectors(rng: &mut ChaCha8Rng, n: usize, dim: usize, latent: usize, mean: f32) -> Vec<Vec<f32>> {
        let mapping: Vec<f32> = (0..latent * dim).map(|_| rng.random_range(-1.0..1.0)).collect();
        let middle = mean / (dim as f32).sqrt();
        let mut vector = || {
            let place: Vec<f32> = (0..latent).map(|_| rng.random_range(-1.0..1.0)).collect();
            let mut row: Vec<f32> =
                (0..dim).map(|at| (0..latent).map(|l| place[l] * mapping[l * dim + at]).sum()).collect();
            unit(&mut row);
            row.iter_mut().for_each(|x| *x += middle);
            unit(&mut row);
            row
        };
        (0..n).map(|_| vector()).collect()
    }

    fn unit(row: &mut [f32]) {
        let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt();
        row.iter_mut().for_each(|x| *x /= norm);
    }

    fn buffer(vectors: &[Vec<f32>], codes: Codes) -> CodeBuffer {
        let mut buffer = CodeBuffer::new(vectors[0].len(), codes);
        vectors.iter().for_each(|v| buffer.push(v));
        buffer
    }

    fn padded_row(vector: &[f32]) -> Rows {
        let mut row = Rows::new(padded::<f32>(vector.len()) * 4);
        row.push(vector);
        row
    }

    fn word(bits: &SignBits, node: usize, word: usize) -> u64 {
        let (first, words) = (bits.first_words, bits.dim.div_ceil(64));
        if word < first {
            bits.blocks.all::<u64>()[(node / ROWS * first + word) * ROWS + node % ROWS]
        } else {
            bits.rest[node * (words - first) + word - first]
        }
    }

    #[test]
    fn a_bit_says_whether_a_number_is_above_the_mean() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for (dim, nodes) in [(64, 16), (70, 17), (100, 1100), (512, 23)] {
            let vectors = vectors(&mut rng, nodes, dim, 16, 0.5);
            let mean: Vec<f64> = (0..dim)
                .map(|at| vectors.iter().map(|v| f64::from(v[at])).sum::<f64>() / nodes as f64)
                .collect();
            for codes in [Codes::F32, Codes::F16, Codes::I8] {
                let bits = SignBits::of(&buffer(&vectors, codes).view());
                let tolerance = if codes == Codes::I8 { 4e-3 } else { 1e-3 };
                for (node, vector) in vectors.iter().enumerate() {
                    for (at, x) in vector.iter().enumerate() {
                        let above = f64::from(*x) - mean[at];
                        let bit = word(&bits, node, at / 64) >> (at % 64) & 1 == 1;
                        assert!(
                            above.abs() < tolerance || bit == (above > 0.0),
                            "{codes:?} {dim} {node} {at}"
                        );
                    }
                }
                // The query is taken apart as the rows are.
                let query = bits.query(padded_row(&vectors[5]).all());
                let differ = |(at, q): (usize, &u64)| (word(&bits, 5, at) ^ q).count_ones();
                assert!(query.bits.iter().enumerate().map(differ).sum::<u32>() <= 3, "{codes:?}");
            }
        }
    }

    /// Of the rows that reach the tenth best score, the share that is among the candidates, and candidates in all as a
    /// share of all rows; nothing if there were too many for any query.
    fn measured(vectors: &[Vec<f32>], codes: Codes) -> Option<(f64, f64)> {
        let (queries, rows) = vectors.split_at(50);
        let buffer = buffer(rows, codes);
        let bits = SignBits::of(&buffer.view());
        let (mut found, mut wanted, mut candidates) = (0, 0, 0);
        for query in queries {
            let dot = |row: &Vec<f32>| row.iter().zip(query).map(|(x, q)| x * q).sum::<f32>();
            let scores: Vec<f32> = rows.iter().map(dot).collect();
            let mut sorted = scores.clone();
            sorted.sort_unstable_by(|a, b| b.total_cmp(a));
            let padded = padded_row(query);
            let near = bits.candidates(&bits.query(padded.all()), sorted[9], rows.len() / 10)?;
            assert!(near.is_sorted_by(|a, b| a.row < b.row));
            assert!(near.iter().all(|near| (near.row as usize) < rows.len()));
            candidates += near.len();
            wanted += scores.iter().filter(|&&s| s >= sorted[9]).count();
            found += near.iter().filter(|near| scores[near.row as usize] >= sorted[9]).count();
        }
        Some((found as f64 / wanted as f64, candidates as f64 / (rows.len() * queries.len()) as f64))
    }

    #[test]
    fn rows_that_reach_the_bar_are_among_the_candidates() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        for (dim, mean) in [(300, 0.0), (512, 0.0), (512, 1.0), (512, 3.0)] {
            let vectors = vectors(&mut rng, 3005, dim, 12, mean);
            for codes in [Codes::F32, Codes::F16, Codes::I8] {
                let (found, candidates) = measured(&vectors, codes).expect("few candidates");
                assert!(found >= 0.99 && candidates < 0.06, "{dim} {mean} {codes:?}: {found} {candidates}");
            }
        }
    }

    #[test]
    fn where_bits_tell_nothing_there_are_no_candidates() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        // As many directions as dimensions: neighbours are hardly nearer than others.
        assert_eq!(measured(&vectors(&mut rng, 2050, 64, 64, 0.0), Codes::F32), None);
        // One vector and nothing else.
        assert_eq!(measured(&vec![vectors(&mut rng, 1, 64, 64, 0.0).remove(0); 1050], Codes::I8), None);
    }

    #[test]
    fn many_rows_few_rows_and_short_rows_get_no_bits() {
        assert!(SignBits::worth(64, 64) && SignBits::worth(2048, 1 << 14));
        assert!(
            !SignBits::worth(63, 1000) && !SignBits::worth(512, 63) && !SignBits::worth(512, (1 << 14) + 1)
        );
    }
}
