//! Query expansion: search again with the query moved towards its first results.

use rayon::prelude::*;
use semblance_index::SearchParams;
use serde::{Deserialize, Serialize};

use super::{ItemIndex, Result, normalise};

/// α-weighted query expansion (Radenović, Tolias and Chum 2019, "Fine-tuning CNN Image Retrieval with No Human Annotation",
/// section 3.5).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExpansionConfig {
    /// Neighbours the query is drawn towards.
    pub neighbours: usize,
    /// Power of the cosine that weighs them: 0 is plain average query expansion, more trusts only the nearest.
    pub alpha: f32,
}

impl Default for ExpansionConfig {
    fn default() -> Self {
        Self { neighbours: 5, alpha: 3.0 }
    }
}

/// `q' = normalise(q + Σᵢ max(0, q·vᵢ)^α vᵢ)` over the nearest vᵢ. `weighed` are vectors with their cosines to `query`.
pub fn alpha_weighted(query: &[f32], weighed: &[(f32, Vec<f32>)], alpha: f32) -> Vec<f32> {
    let mut sum = query.to_vec();
    for (cosine, vector) in weighed {
        let weight = cosine.max(0.0).powf(alpha);
        sum.iter_mut().zip(vector).for_each(|(s, x)| *s += weight * x);
    }
    normalise(&mut sum);
    sum
}

/// Each of `n` queries expanded by its neighbours in `index`.
pub(super) fn expand(
    index: &dyn ItemIndex,
    queries: &[f32],
    n: usize,
    params: &SearchParams,
    config: &ExpansionConfig,
) -> Result<Vec<f32>> {
    let first = SearchParams { k: config.neighbours.max(1), ..params.clone() };
    let found = index.search_batch(queries, n, &first)?;
    let expanded: Result<Vec<Vec<f32>>> = found
        .par_iter()
        .zip(queries.par_chunks_exact(index.dim()))
        .map(|(list, query)| {
            let nearest = list.iter().take(config.neighbours);
            let weighed: Result<Vec<_>> =
                nearest.map(|neighbor| Ok((neighbor.score, index.vector(neighbor.id)?))).collect();
            Ok(alpha_weighted(query, &weighed?, config.alpha))
        })
        .collect();
    Ok(expanded?.concat())
}

#[cfg(test)]
mod tests {
    use semblance_index::VectorIndex as _;

    use super::super::tests::spread;
    use super::super::{AnswerConfig, Answering, Matrix};
    use super::*;

    // import numpy as np
    // q = np.array([.6, .8, 0]); v = np.array([[1, 0, 0], [0, .6, .8]]); w = (v @ q).clip(0) ** 3
    // s = q + (w[:, None] * v).sum(0); print(s / np.linalg.norm(s))
    #[test]
    fn the_formula() {
        let weighed = [(0.6, vec![1.0, 0.0, 0.0]), (0.48, vec![0.0, 0.6, 0.8])];
        let expected = [0.683_748, 0.725_942, 0.074_134];
        for (value, expected) in alpha_weighted(&[0.6, 0.8, 0.0], &weighed, 3.0).iter().zip(expected) {
            assert!((value - expected).abs() < 1e-5, "{value} {expected}");
        }
        let away = alpha_weighted(&[1.0, 0.0], &[(-1.0, vec![-1.0, 0.0])], 3.0);
        assert_eq!(away, [1.0, 0.0], "what points away has no say");
    }

    #[test]
    fn searching_is_the_same_as_expanding_by_hand() {
        let vectors = spread(40);
        let matrix = Matrix::new(vectors, 3, (0..40).collect(), vec![None; 40]).unwrap();
        let config = ExpansionConfig { neighbours: 4, alpha: 2.0 };
        let query = [0.48_f32, 0.6, 0.64];
        let nearest = matrix.search(&query, &SearchParams::exact(4)).unwrap();
        let weighed: Vec<_> = nearest.iter().map(|n| (n.score, matrix.vector(n.id).unwrap())).collect();
        let by_hand = matrix.search(&alpha_weighted(&query, &weighed, 2.0), &SearchParams::exact(6)).unwrap();
        let answer = AnswerConfig { expansion: Some(config), ..AnswerConfig::default() };
        assert_eq!(
            Answering::new(&matrix, &answer).search(&query, &SearchParams::exact(6)).unwrap(),
            by_hand
        );
    }
}
