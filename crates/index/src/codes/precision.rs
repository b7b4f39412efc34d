//! Which codes tell the neighbours of a vector apart, measured on a sample of the vectors.
//!
//! Codes of 8 bits are off by some 0.0005 in a score. That is nothing beside the differences between scores of ordinary
//! neighbours, and far more than those between near-copies of one vector: a walk over the codes then keeps the wrong
//! nodes, and links between nodes lead nowhere in particular.

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
    let nodes = rows.len() / stride;
    if nodes <= AMONG {
        return None;
    }
    let step = nodes.div_ceil(SAMPLE);
    let queries: Vec<f32> =
        rows.chunks_exact(stride).skip(step / 2).step_by(step).flatten().copied().collect();
    let exact = Exact { stride, rows };
    let found = exact.many(&queries, NEIGHBOURS, f32::NEG_INFINITY, |_| true, u64::from);
    let k = K.min(nodes);
    let neighbors = (found.len() * k) as u32;
    let hits = |codes: Codes| {
        let mut hits = 0;
        for (query, near) in queries.chunks_exact(stride).zip(&found) {
            let mut buffer = CodeBuffer::new(dim, codes);
            for scored in near {
                buffer.push(&rows[scored.node as usize * stride..][..dim]);
            }
            let mut scores = Vec::new();
            buffer
                .view()
                .query(&query[..dim])
                .scores(&(0..near.len() as u32).collect::<Vec<_>>(), &mut scores);
            // Equal codes come worst first: nothing orders them rightly in a walk.
            let mut by_codes: Vec<usize> = (0..near.len()).collect();
            by_codes.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(b.cmp(&a)));
            let least = near[k - 1].score - SAME;
            let among = by_codes.iter().take(AMONG).filter(|&&at| near[at].score >= least).count();
            hits += among.min(k) as u32;
        }
        hits
    };
    let enough = |hits: u32| f64::from(hits) >= ENOUGH * f64::from(neighbors);
    let i8_found = hits(Codes::I8);
    if enough(i8_found) {
        return None;
    }
    let f16_found = hits(Codes::F16);
    let codes = if enough(f16_found) { Codes::F16 } else { Codes::F32 };
    Some(Precision { codes, neighbors, i8_found, f16_found })
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
    fn few_vectors_need_nothing() {
        assert_eq!(measure(&[], 128, 128), None);
        assert_eq!(measure(&clusters(0.02)[..30 * 128], 128, 128), None);
    }
}
