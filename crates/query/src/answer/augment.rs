//! Database augmentation: each item of a gallery moved towards its own neighbours, once, when the index is made.

use rayon::prelude::*;
use semblance_index::{SearchParams, VectorIndex as _};
use serde::{Deserialize, Serialize};

use super::expansion::alpha_weighted;
use super::{ItemIndex as _, Matrix, Result};
use crate::metrics::without_self;

/// Database-side feature augmentation (Turcot and Lowe 2009, "Better matching with fewer features"; weighed as in
/// α-weighted query expansion).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AugmentConfig {
    /// Neighbours each item is drawn towards, itself not counted.
    pub neighbours: usize,
    /// Power of the cosine that weighs them.
    pub alpha: f32,
}

impl Default for AugmentConfig {
    fn default() -> Self {
        Self { neighbours: 5, alpha: 3.0 }
    }
}

/// The vectors of all items, augmented; each row from the others as they were. Exact search, O(n²).
///
/// # Errors
/// Failures of the search.
pub fn augmented(items: &Matrix, config: &AugmentConfig) -> Result<Vec<f32>> {
    /// Rows searched at once: bounds memory.
    const BLOCK: usize = 1024;
    let dim = items.dim();
    let mut out = Vec::with_capacity(items.vectors().len());
    let params = SearchParams::exact(config.neighbours + 1);
    for (rows, ids) in items.vectors().chunks(BLOCK * dim).zip(items.ids().chunks(BLOCK)) {
        let found = items.search_batch(rows, ids.len(), &params)?;
        let augmented: Result<Vec<Vec<f32>>> = found
            .into_par_iter()
            .zip(ids.par_iter().zip(rows.par_chunks_exact(dim)))
            .map(|(list, (id, row))| {
                let others = without_self(list, *id, config.neighbours, |n| n.id);
                let weighed: Result<Vec<_>> =
                    others.iter().map(|n| Ok((n.score, items.vector(n.id)?))).collect();
                Ok(alpha_weighted(row, &weighed?, config.alpha))
            })
            .collect();
        out.extend(augmented?.into_iter().flatten());
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::super::normalise;
    use super::super::tests::spread;
    use super::*;

    #[test]
    fn agrees_with_literal_loops() {
        let vectors = spread(25);
        let matrix = Matrix::new(vectors.clone(), 3, (100..125).collect(), vec![None; 25]).unwrap();
        let config = AugmentConfig { neighbours: 3, alpha: 2.0 };
        let found = augmented(&matrix, &config).unwrap();
        let row = |i: usize| &vectors[3 * i..3 * i + 3];
        for i in 0..25 {
            let cosine = |j: usize| row(i).iter().zip(row(j)).map(|(a, b)| a * b).sum::<f32>();
            let mut others: Vec<usize> = (0..25).filter(|j| *j != i).collect();
            others.sort_by(|a, b| cosine(*b).total_cmp(&cosine(*a)));
            let mut sum = row(i).to_vec();
            for j in &others[..3] {
                let weight = cosine(*j).max(0.0).powi(2);
                sum.iter_mut().zip(row(*j)).for_each(|(sum, v)| *sum += weight * v);
            }
            normalise(&mut sum);
            for c in 0..3 {
                assert!(
                    (found[3 * i + c] - sum[c]).abs() < 1e-5,
                    "row {i}: {:?} {sum:?}",
                    &found[3 * i..3 * i + 3]
                );
            }
        }
    }
}
