//! The interface of a search.

use serde::{Deserialize, Serialize};

use crate::cancel::Cancel;
use crate::error::{IndexError, Result};
use crate::filter::Filter;

/// A found item.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Neighbor {
    /// Id of the item.
    pub id: u64,
    /// Cosine similarity to the query, always computed from the f32 vectors; greater is closer.
    pub score: f32,
}

impl Neighbor {
    /// Order of results: higher score first, then lower id.
    pub fn cmp_best_first(&self, other: &Self) -> std::cmp::Ordering {
        other.score.total_cmp(&self.score).then(self.id.cmp(&other.id))
    }
}

/// What to search for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SearchParams {
    /// Neighbours wanted, at least 1; fewer come if the index (or the filter) has fewer.
    pub k: usize,
    /// Candidates kept during the walk through the graph: higher is slower and finds more of the true neighbours.
    /// By default 64, and never less than `k`.
    pub ef_search: Option<usize>,
    /// Compare with every vector instead of walking the graph.
    pub exact: bool,
    /// Only items that match.
    pub filter: Option<Filter>,
    /// Only neighbours with at least this score (range search).
    pub min_score: Option<f32>,
    /// Asks the search to stop; looked at between blocks of work.
    #[serde(skip)]
    pub cancel: Cancel,
}

impl Default for SearchParams {
    fn default() -> Self {
        let cancel = Cancel::default();
        Self { k: 10, ef_search: None, exact: false, filter: None, min_score: None, cancel }
    }
}

impl SearchParams {
    /// The `k` nearest, everything else as by default.
    pub fn new(k: usize) -> Self {
        Self { k, ..Self::default() }
    }

    /// The `k` nearest by comparing with every vector.
    pub fn exact(k: usize) -> Self {
        Self { k, exact: true, ..Self::default() }
    }

    /// The width of the walk these parameters mean.
    pub fn ef(&self) -> usize {
        self.ef_search.unwrap_or(64).max(self.k)
    }

    pub(crate) fn validate(&self) -> Result<()> {
        if self.k == 0 {
            return Err(IndexError::ZeroK);
        }
        if self.ef_search == Some(0) {
            return Err(IndexError::Parameter {
                name: "ef_search",
                value: "0".into(),
                expected: "at least 1",
            });
        }
        if self.min_score.is_some_and(f32::is_nan) {
            return Err(IndexError::Parameter {
                name: "min_score",
                value: "NaN".into(),
                expected: "a number",
            });
        }
        Ok(())
    }
}

/// Anything that finds the nearest vectors: exact, through a graph, or elsewhere. Scores are cosine similarities of
/// unit vectors, greater is closer; results are sorted by falling score, ties by rising id.
pub trait VectorIndex: Send + Sync {
    /// Dimension of the vectors.
    fn dim(&self) -> usize;

    /// Number of items.
    fn len(&self) -> usize;

    /// True if there is nothing to find.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The items nearest to `query` (`dim` numbers, unit norm).
    fn search(&self, query: &[f32], params: &SearchParams) -> Result<Vec<Neighbor>>;

    /// The items nearest to each of `n` queries (`n × dim` numbers, row by row), on all threads.
    fn search_batch(&self, queries: &[f32], n: usize, params: &SearchParams) -> Result<Vec<Vec<Neighbor>>>;
}

/// How far from 1 the norm of a vector may be.
pub const NORM_TOLERANCE: f32 = 1e-3;

/// Refuses vectors (`rows × dim` numbers) that are of a wrong length, not finite, zero, or not of norm 1.
pub fn check_vectors(vectors: &[f32], rows: usize, dim: usize) -> Result<()> {
    if rows == 1 && vectors.len() != dim {
        return Err(IndexError::WrongDimension { expected: dim, received: vectors.len() });
    }
    if vectors.len() != rows * dim {
        return Err(IndexError::WrongLength { rows, dim, received: vectors.len() });
    }
    for (row, vector) in vectors.chunks_exact(dim.max(1)).enumerate() {
        let norm = norm(vector);
        if (norm - 1.0).abs() <= NORM_TOLERANCE {
            continue;
        }
        if let Some(position) = vector.iter().position(|x| !x.is_finite()) {
            return Err(IndexError::NotFinite { row, position, value: vector[position] });
        }
        return Err(if norm == 0.0 {
            IndexError::ZeroVector { row }
        } else {
            IndexError::NotUnit { row, norm }
        });
    }
    Ok(())
}

/// Norm of a vector, of sums taken side by side: one after the other each addition would wait for the last.
fn norm(vector: &[f32]) -> f32 {
    let square = |x: &f32| f64::from(*x) * f64::from(*x);
    let mut lanes = [0.0f64; 16];
    let (chunks, rest) = vector.as_chunks::<16>();
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(lane, x)| *lane += square(x));
    }
    (lanes.iter().sum::<f64>() + rest.iter().map(square).sum::<f64>()).sqrt() as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_that_are_no_directions_are_refused() {
        let text = |vectors: &[f32], rows, dim| check_vectors(vectors, rows, dim).unwrap_err().to_string();
        assert!(check_vectors(&[1.0, 0.0, 0.6, 0.8], 2, 2).is_ok());
        assert_eq!(text(&[1.0, 0.0, 0.0], 1, 2), "expected vectors of dimension 2, received 3");
        assert_eq!(text(&[1.0, 0.0, 0.0], 2, 2), "2 vectors of dimension 2 are 4 numbers, received 3");
        assert!(text(&[1.0, 0.0, f32::NAN, 0.0], 2, 2).starts_with("vector 1 has NaN at position 0"));
        assert!(text(&[f32::INFINITY, 0.0], 1, 2).starts_with("vector 0 has inf at position 0"));
        assert!(text(&[0.0, 0.0], 1, 2).starts_with("vector 0 is zero"));
        assert!(text(&[1.0, 1.0], 1, 2).starts_with("vector 0 has norm 1.41"));
    }

    #[test]
    fn ties_are_ordered_by_id() {
        let mut found =
            [Neighbor { id: 5, score: 0.5 }, Neighbor { id: 2, score: 0.5 }, Neighbor { id: 9, score: 0.9 }];
        found.sort_by(Neighbor::cmp_best_first);
        assert_eq!(found.map(|n| n.id), [9, 2, 5]);
    }
}
