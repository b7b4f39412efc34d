//! Which codes tell the neighbours of a vector apart, measured on a sample of the vectors.
//!
//! Codes of 8 bits are off by some 0.0005 in a score. That is nothing beside the differences between scores of ordinary
//! neighbours, and far more than those between near-copies of one vector: a walk over the codes then keeps the wrong
//! nodes, and links between nodes lead nowhere in particular.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::codes::quantize::{CodeBuffer, built_over};
use crate::config::{Codes, IndexConfig};
use crate::exact::flat_search::Exact;

/// Vectors whose neighbours are looked at.
const SAMPLE: usize = 128;
/// Nearest neighbours that codes should find.
const K: usize = 10;
/// Nodes, best by codes, among which they should be: half of those that a walk keeps by default.
const AMONG: usize = 32;
/// Neighbours that are scored by codes.
const NEIGHBOURS: usize = 256;
/// Share of nearest neighbours that codes should find.
const ENOUGH: f64 = 0.99;
/// Difference of scores that does not count: f32 does not tell much less apart.
const SAME: f32 = 1e-7;

/// Codes that tell the neighbours of the stored vectors apart.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Precision {
    /// The coarsest codes that do.
    pub codes: Codes,
    /// Nearest neighbours of sampled vectors that were looked for, ten for each.
    pub neighbors: u32,
    /// How many of them are among the 32 best by 8-bit codes.
    pub i8_found: u32,
    /// The same for 16-bit codes.
    pub f16_found: u32,
}

impl Precision {
    /// Share of the nearest neighbours that is among the 32 best by 8-bit codes.
    pub fn i8_recall(&self) -> f64 {
        f64::from(self.i8_found) / f64::from(self.neighbors.max(1))
    }

    /// The same for 16-bit codes.
    pub fn f16_recall(&self) -> f64 {
        f64::from(self.f16_found) / f64::from(self.neighbors.max(1))
    }
}

/// The codes that a graph is searched with.
pub(crate) fn searched_with(config: &IndexConfig, precision: Option<Precision>) -> Codes {
    let codes = config.codes.resolve(config.dim);
    match precision {
        Some(precision) if config.codes == Codes::Auto => codes.finer(precision.codes),
        _ => codes,
    }
}

/// The codes that the nodes of a graph are linked by.
pub(crate) fn linked_by(config: &IndexConfig, precision: Option<Precision>) -> Codes {
    let codes = built_over(searched_with(config, precision), config.dim);
    precision.map_or(codes, |precision| codes.finer(precision.codes))
}

/// Measures how well codes tell neighbours apart; `None` if those of 8 bits do.
pub(crate) fn measure(rows: &[f32], stride: usize, dim: usize) -> Option<Precision> {
    let queries: Vec<f32> =
        sampled(rows.len() / stride).flat_map(|node| &rows[node * stride..][..stride]).copied().collect();
    let mut measurement = Measurement::new(&queries, stride, dim);
    measurement.compare(rows);
    measurement.result()
}

/// The vectors, of so many, whose neighbours are looked at; none of a few.
pub(crate) fn sampled(nodes: usize) -> impl Iterator<Item = usize> {
    let step = nodes.div_ceil(SAMPLE).max(1);
    (step / 2..nodes).step_by(step).take(if nodes <= AMONG { 0 } else { usize::MAX })
}

/// The same with vectors that come block by block.
pub(crate) struct Measurement<'a> {
    queries: &'a [f32],
    stride: usize,
    dim: usize,
    seen: usize,
    /// The nearest so far of each query, best first.
    near: Vec<Vec<Near>>,
}

/// A neighbour, with its scores by vectors and by codes.
#[derive(Clone, Copy)]
struct Near {
    node: usize,
    score: f32,
    i8: f32,
    f16: f32,
}

impl<'a> Measurement<'a> {
    /// `queries` are the [`sampled`] vectors, padded to `stride` numbers.
    pub(crate) fn new(queries: &'a [f32], stride: usize, dim: usize) -> Self {
        Self { queries, stride, dim, seen: 0, near: vec![vec![]; queries.len() / stride] }
    }

    /// Looks for neighbours among the next vectors, padded as well.
    pub(crate) fn compare(&mut self, rows: &[f32]) {
        let (stride, dim, seen) = (self.stride, self.dim, self.seen);
        self.seen += rows.len() / stride;
        if self.near.is_empty() || rows.is_empty() {
            return;
        }
        let exact = Exact { stride, rows };
        let found = exact.many(self.queries, NEIGHBOURS, f32::NEG_INFINITY, |_| true, u64::from);
        let queries = self.queries.par_chunks_exact(stride);
        self.near.par_iter_mut().zip(found).zip(queries).for_each(|((near, mut found), query)| {
            // Of equal scores the earlier node stays.
            let least = near.get(NEIGHBOURS - 1).map(|last| last.score);
            found.retain(|scored| least.is_none_or(|least| scored.score > least));
            let coded = |codes: Codes| {
                let (mut buffer, mut scores) = (CodeBuffer::new(dim, codes), vec![]);
                found.iter().for_each(|scored| buffer.push(&rows[scored.node as usize * stride..][..dim]));
                let all: Vec<u32> = (0..found.len() as u32).collect();
                buffer.view().query(&query[..dim]).scores(&all, &mut scores);
                scores
            };
            let coded = coded(Codes::I8).into_iter().zip(coded(Codes::F16));
            near.extend(found.iter().zip(coded).map(|(scored, (i8, f16))| Near {
                node: seen + scored.node as usize,
                score: scored.score,
                i8,
                f16,
            }));
            near.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.node.cmp(&b.node)));
            near.truncate(NEIGHBOURS);
        });
    }

    /// What all vectors together show; `None` if codes of 8 bits tell neighbours apart.
    pub(crate) fn result(&self) -> Option<Precision> {
        if self.near.is_empty() {
            return None;
        }
        let k = K.min(self.seen);
        let neighbors = (self.near.len() * k) as u32;
        let hits = |by: fn(&Near) -> f32| {
            let mut hits = 0;
            for near in &self.near {
                // Equal codes come worst first: nothing orders them rightly in a walk.
                let mut by_codes: Vec<usize> = (0..near.len()).collect();
                by_codes.sort_by(|&a, &b| by(&near[b]).total_cmp(&by(&near[a])).then(b.cmp(&a)));
                let least = near[k - 1].score - SAME;
                let among = by_codes.iter().take(AMONG).filter(|&&at| near[at].score >= least).count();
                hits += among.min(k) as u32;
            }
            hits
        };
        let enough = |hits: u32| f64::from(hits) >= ENOUGH * f64::from(neighbors);
        let i8_found = hits(|near| near.i8);
        if enough(i8_found) {
            return None;
        }
        let f16_found = hits(|near| near.f16);
        let codes = if enough(f16_found) { Codes::F16 } else { Codes::F32 };
        Some(Precision { codes, neighbors, i8_found, f16_found })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};

    /// Vectors in clusters of 60, so far from their centres.
    fn clusters(noise: f32) -> Vec<f32> {
        let (n, dim) = (3000, 128);
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(11);
        let mut unit = |centre: &[f32], noise: f32| -> Vec<f32> {
            let v: Vec<f32> = centre
                .iter()
                .map(|c| c + noise * rng.random_range(-1.7f32..1.7) / (dim as f32).sqrt())
                .collect();
            let norm = v.iter().map(|x| x * x).sum::<f32>().sqrt();
            v.into_iter().map(|x| x / norm).collect()
        };
        let zero = vec![0.0; dim];
        let centres: Vec<Vec<f32>> = (0..n / 60).map(|_| unit(&zero, 1.0)).collect();
        (0..n).flat_map(|i| unit(&centres[i % (n / 60)], noise)).collect()
    }

    #[test]
    fn near_copies_need_finer_codes_than_ordinary_neighbours() {
        assert_eq!(measure(&clusters(0.5), 128, 128), None);
        let near = measure(&clusters(0.04), 128, 128).unwrap();
        assert!(near.i8_recall() < 0.98 && near.f16_recall() > 0.99, "{near:?}");
        assert_eq!(near.codes, Codes::F16);
        let nearer = measure(&clusters(0.004), 128, 128).unwrap();
        assert_eq!(nearer.codes, Codes::F32, "{nearer:?}");
    }

    #[test]
    fn blocks_show_what_all_vectors_together_show() {
        let rows = clusters(0.04);
        let queries: Vec<f32> = sampled(3000).flat_map(|node| &rows[node * 128..][..128]).copied().collect();
        let mut measurement = Measurement::new(&queries, 128, 128);
        rows.chunks(700 * 128).for_each(|block| measurement.compare(block));
        assert_eq!(measurement.result(), measure(&rows, 128, 128));
        assert!(measurement.result().is_some());
    }

    #[test]
    fn few_vectors_need_nothing() {
        assert_eq!(measure(&[], 128, 128), None);
        assert_eq!(measure(&clusters(0.02)[..30 * 128], 128, 128), None);
    }
}
