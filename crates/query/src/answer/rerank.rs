//! k-reciprocal re-ranking: answers that have the query's neighbours as their own come first.

use rayon::prelude::*;
use semblance_index::Neighbor;
use serde::{Deserialize, Serialize};

use super::{ItemIndex, Result};

/// Re-ranking with k-reciprocal encoding (Zhong, Zheng, Cao and Li 2017, "Re-ranking Person Re-identification with
/// k-reciprocal Encoding"), within the query and its nearest [`Self::pool`] items.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RerankConfig {
    /// Nearest items that are re-ranked; those beyond stay where they are.
    pub pool: usize,
    /// k₁: size of the neighbourhoods that are compared.
    pub k1: usize,
    /// k₂: neighbourhoods averaged into one (local query expansion).
    pub k2: usize,
    /// λ: weight of the plain distance beside the Jaccard distance.
    pub lambda: f32,
}

impl Default for RerankConfig {
    fn default() -> Self {
        Self { pool: 100, k1: 20, k2: 6, lambda: 0.3 }
    }
}

/// The new order of each query's answers.
pub(super) fn rerank(
    index: &dyn ItemIndex,
    queries: &[f32],
    found: Vec<Vec<Neighbor>>,
    config: &RerankConfig,
) -> Result<Vec<Vec<Neighbor>>> {
    let dim = index.dim();
    found
        .into_par_iter()
        .zip(queries.par_chunks_exact(dim))
        .map(|(mut list, query)| {
            let pool = config.pool.min(list.len());
            let mut vectors = query.to_vec();
            for neighbor in &list[..pool] {
                vectors.extend(index.vector(neighbor.id)?);
            }
            let distances = distances(&vectors, dim, config);
            let mut order: Vec<usize> = (0..pool).collect();
            order.sort_by(|a, b| distances[*a].total_cmp(&distances[*b]));
            let reordered: Vec<Neighbor> = order.into_iter().map(|place| list[place]).collect();
            list[..pool].copy_from_slice(&reordered);
            Ok(list)
        })
        .collect()
}

/// The paper's final distance d* from the first of `vectors` (n × `dim`, unit norm) to each of the others.
///
/// D(i, j) is the squared Euclidean distance, divided by the largest of its row. R(i, k): those of i's k nearest (i itself
/// besides) that have i among their own k nearest. R*(i): R(i, k₁) and every R(q, k₁/2), q ∈ R(i, k₁), of which more than
/// two thirds lie in R(i, k₁). V(i, j) = exp(−D(i, j)) on R*(i), made to sum to 1, then averaged over i's k₂ nearest.
/// d* = (1 − λ)(1 − Σ min(Vᵢ, Vⱼ) / Σ max(Vᵢ, Vⱼ)) + λ D.
pub fn distances(vectors: &[f32], dim: usize, config: &RerankConfig) -> Vec<f32> {
    let rows: Vec<&[f32]> = vectors.chunks_exact(dim).collect();
    let n = rows.len();
    if n == 0 {
        return Vec::new();
    }
    let plain = plain_distances(&rows);
    let nearest: Vec<Vec<usize>> = plain.chunks_exact(n).map(order).collect();
    let first = |i: usize, k: usize| &nearest[i][..(k + 1).min(n)];
    let reciprocal = |i: usize, k: usize| -> Vec<usize> {
        first(i, k).iter().copied().filter(|&j| first(j, k).contains(&i)).collect()
    };
    let wide: Vec<Vec<usize>> = (0..n).map(|i| reciprocal(i, config.k1)).collect();
    // Halves to even, as the authors' program rounds.
    let half = (config.k1 as f64 / 2.0).round_ties_even() as usize;
    let narrow: Vec<Vec<usize>> = (0..n).map(|i| reciprocal(i, half)).collect();
    let encoded: Vec<f32> =
        (0..n).flat_map(|i| encode(i, &wide[i], &narrow, &plain[i * n..(i + 1) * n])).collect();
    let averaged = average(&encoded, &nearest, config.k2.max(1));
    let own = &averaged[..n];
    (1..n)
        .map(|j| {
            let shared: f32 = own.iter().zip(&averaged[j * n..(j + 1) * n]).map(|(a, b)| a.min(*b)).sum();
            // Each row sums to 1, so that Σ max = 2 − Σ min.
            let jaccard = 1.0 - shared / (2.0 - shared);
            (1.0 - config.lambda) * jaccard + config.lambda * plain[j]
        })
        .collect()
}

fn plain_distances(rows: &[&[f32]]) -> Vec<f32> {
    let mut plain = Vec::with_capacity(rows.len() * rows.len());
    for (i, a) in rows.iter().enumerate() {
        let squared = rows.iter().enumerate().map(|(j, b)| {
            let cosine: f32 = a.iter().zip(*b).map(|(x, y)| x * y).sum();
            if i == j { 0.0 } else { (2.0 - 2.0 * cosine).max(0.0) }
        });
        let start = plain.len();
        plain.extend(squared);
        let largest = plain[start..].iter().copied().fold(f32::MIN_POSITIVE, f32::max);
        plain[start..].iter_mut().for_each(|distance| *distance /= largest);
    }
    plain
}

fn order(distances: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..distances.len()).collect();
    order.sort_by(|a, b| distances[*a].total_cmp(&distances[*b]));
    order
}

/// The row V(i, ·) before averaging.
fn encode(i: usize, wide: &[usize], narrow: &[Vec<usize>], distances: &[f32]) -> Vec<f32> {
    let mut member = vec![false; distances.len()];
    let mut expanded = vec![false; distances.len()];
    for &j in wide {
        (member[j], expanded[j]) = (true, true);
    }
    for &j in wide {
        let common = narrow[j].iter().filter(|&&other| member[other]).count();
        if 3 * common > 2 * narrow[j].len() {
            narrow[j].iter().for_each(|&other| expanded[other] = true);
        }
    }
    debug_assert!(expanded[i], "a point is its own neighbour");
    let mut row: Vec<f32> =
        distances.iter().zip(&expanded).map(|(d, is)| if *is { (-d).exp() } else { 0.0 }).collect();
    let sum: f32 = row.iter().sum();
    row.iter_mut().for_each(|value| *value /= sum);
    row
}

/// Each row replaced by the average of its `k2` nearest rows, itself among them.
fn average(encoded: &[f32], nearest: &[Vec<usize>], k2: usize) -> Vec<f32> {
    let n = nearest.len();
    let mut averaged = vec![0.0; encoded.len()];
    for (row, near) in averaged.chunks_exact_mut(n).zip(nearest) {
        let near = &near[..k2.min(n)];
        for other in near {
            row.iter_mut().zip(&encoded[other * n..(other + 1) * n]).for_each(|(sum, value)| *sum += value);
        }
        row.iter_mut().for_each(|value| *value /= near.len() as f32);
    }
    averaged
}

#[cfg(test)]
mod tests {
    use semblance_index::{SearchParams, VectorIndex as _};

    use super::super::tests::spread;
    use super::super::{AnswerConfig, Answering, Matrix};
    use super::*;

    // import numpy as np
    // n, k1, k2, lam = 12, 4, 3, .3
    // i = np.arange(n); X = np.stack([np.sin(1.7*i), np.cos(.9*i), np.sin(.4*i+1)], 1); X /= np.linalg.norm(X, axis=1)[:, None]
    // D = 2 - 2 * X @ X.T; np.fill_diagonal(D, 0); D /= D.max(1)[:, None]; rank = D.argsort(1)
    // R = lambda i, k: {j for j in rank[i, :k+1] if i in rank[j, :k+1]}
    // V = np.zeros((n, n))
    // for p in range(n):
    //     S = set(R(p, k1))
    //     for q in R(p, k1):
    //         h = R(q, round(k1 / 2))
    //         if len(h & R(p, k1)) > 2 / 3 * len(h): S |= h
    //     S = sorted(S); V[p, S] = np.exp(-D[p, S]) / np.exp(-D[p, S]).sum()
    // V = np.stack([V[rank[p, :k2]].mean(0) for p in range(n)])
    // J = 1 - np.minimum(V[:1], V).sum(1) / np.maximum(V[:1], V).sum(1); print(((1 - lam) * J + lam * D[0])[1:])
    const REFERENCE: [f32; 11] = [
        0.28775, 0.459999, 0.543022, 0.565322, 0.530663, 0.589551, 0.673756, 0.755856, 0.89124, 0.90194,
        0.930265,
    ];

    #[test]
    fn agrees_with_the_formula_in_numpy() {
        let config = RerankConfig { pool: 11, k1: 4, k2: 3, lambda: 0.3 };
        let found = distances(&spread(12), 3, &config);
        for (value, expected) in found.iter().zip(REFERENCE) {
            assert!((value - expected).abs() < 1e-4, "{found:?}");
        }
    }

    /// The definitions as sets and sums.
    fn literal(vectors: &[f32], dim: usize, config: &RerankConfig) -> Vec<f64> {
        use std::collections::BTreeSet;
        let n = vectors.len() / dim;
        let dot = |i: usize, j: usize| -> f64 {
            (0..dim).map(|c| f64::from(vectors[i * dim + c]) * f64::from(vectors[j * dim + c])).sum()
        };
        let squared = |i: usize, j: usize| if i == j { 0.0 } else { (2.0 - 2.0 * dot(i, j)).max(0.0) };
        let d =
            |i: usize, j: usize| squared(i, j) / (0..n).map(|other| squared(i, other)).fold(0.0, f64::max);
        let nearest = |i: usize, k: usize| -> Vec<usize> {
            let mut order: Vec<usize> = (0..n).collect();
            order.sort_by(|a, b| d(i, *a).total_cmp(&d(i, *b)));
            order.truncate(k);
            order
        };
        let r = |i: usize, k: usize| -> BTreeSet<usize> {
            nearest(i, k + 1).into_iter().filter(|j| nearest(*j, k + 1).contains(&i)).collect()
        };
        let v = |i: usize| -> Vec<f64> {
            let own = r(i, config.k1);
            let mut set = own.clone();
            for q in &own {
                let half = r(*q, (config.k1 as f64 / 2.0).round_ties_even() as usize);
                if half.intersection(&own).count() as f64 > 2.0 / 3.0 * half.len() as f64 {
                    set.extend(half);
                }
            }
            let weight = |j: usize| if set.contains(&j) { (-d(i, j)).exp() } else { 0.0 };
            let sum: f64 = (0..n).map(weight).sum();
            (0..n).map(|j| weight(j) / sum).collect()
        };
        let all: Vec<Vec<f64>> = (0..n).map(v).collect();
        let mean = |i: usize| -> Vec<f64> {
            let near = nearest(i, config.k2);
            (0..n).map(|j| near.iter().map(|i| all[*i][j]).sum::<f64>() / near.len() as f64).collect()
        };
        let own = mean(0);
        (1..n)
            .map(|j| {
                let other = mean(j);
                let min: f64 = own.iter().zip(&other).map(|(a, b)| a.min(*b)).sum();
                let max: f64 = own.iter().zip(&other).map(|(a, b)| a.max(*b)).sum();
                let lambda = f64::from(config.lambda);
                (1.0 - lambda) * (1.0 - min / max) + lambda * d(0, j)
            })
            .collect()
    }

    #[test]
    fn agrees_with_literal_loops() {
        for (n, k1, k2) in [(30, 8, 3), (17, 5, 1), (9, 20, 6), (2, 3, 2)] {
            let config = RerankConfig { pool: n, k1, k2, lambda: 0.3 };
            let (found, expected) = (distances(&spread(n), 3, &config), literal(&spread(n), 3, &config));
            for (a, b) in found.iter().zip(&expected) {
                assert!((f64::from(*a) - b).abs() < 1e-4, "{n} {k1} {k2}: {found:?} {expected:?}");
            }
        }
        assert!(distances(&spread(1), 3, &RerankConfig::default()).is_empty());
    }

    #[test]
    fn only_the_pool_is_ordered_anew() {
        let matrix = Matrix::new(spread(60), 3, (0..60).collect(), vec![None; 60]).unwrap();
        let config = RerankConfig { pool: 20, k1: 6, k2: 2, lambda: 0.1 };
        let answer = AnswerConfig { rerank: Some(config), ..AnswerConfig::default() };
        let (query, params) = ([0.36_f32, 0.48, 0.8], SearchParams::exact(40));
        let plain = matrix.search(&query, &params).unwrap();
        let found = Answering::new(&matrix, &answer).search(&query, &params).unwrap();
        assert_eq!(found[20..], plain[20..]);
        assert_ne!(found[..20], plain[..20], "something did change");
        let ids = |list: &[Neighbor]| {
            let mut ids: Vec<u64> = list.iter().map(|n| n.id).collect();
            ids.sort_unstable();
            ids
        };
        assert_eq!(ids(&found), ids(&plain), "nothing lost, nothing twice");
        // Fewer answers than the pool are the first of the new order.
        let few = Answering::new(&matrix, &answer).search(&query, &SearchParams::exact(5)).unwrap();
        assert_eq!(few, found[..5]);
    }
}
