//! Better answers than the plain nearest neighbours, each optional and off by default.
//!
//! What is done to the photograph: [`photo`] (a [`crop`] box, several [`views`]), several photographs [`together()`]. What is
//! done to the search: [`expansion`] of the query, re-ranking of the answers ([`rerank`]), one answer per class
//! ([`grouping`]). What is done to the index: [`augment`] and [`crate::whitening`]. [`Answering`] wraps an index so
//! that every search of it applies these options; search and evaluation use the same.

use semblance_index::{IndexError, Neighbor, SearchParams, VectorIndex};
use serde::{Deserialize, Serialize};

pub mod augment;
pub mod crop;
pub mod expansion;
pub mod grouping;
mod items;
pub mod photo;
mod recorded;
pub mod rerank;
pub mod together;
pub mod views;
mod without;

pub use crop::{CropBox, CropError};
pub use expansion::ExpansionConfig;
pub use items::{ItemIndex, Matrix};
pub use photo::PhotoConfig;
pub use recorded::Recorded;
pub use rerank::RerankConfig;
pub use together::together;
pub use views::Views;
pub use without::Without;

type Result<T> = std::result::Result<T, IndexError>;

/// What is done to a search. By default nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AnswerConfig {
    /// Search again with the query drawn towards its neighbours.
    pub expansion: Option<ExpansionConfig>,
    /// Re-rank the answers by the neighbours they share with the query.
    pub rerank: Option<RerankConfig>,
    /// Only the best item of each class; items without a class count each by itself.
    pub one_per_class: bool,
    /// Cosine below which an item is no answer; where the best stays below, there is no match.
    pub threshold: Option<f32>,
}

impl AnswerConfig {
    /// Whether the search itself stays as it is.
    pub fn is_plain(&self) -> bool {
        self.expansion.is_none() && self.rerank.is_none() && !self.one_per_class
    }
}

/// An index that answers as its configuration says. Scores stay cosines (to the expanded query where there is one),
/// whatever the order.
pub struct Answering<'a> {
    index: &'a dyn ItemIndex,
    config: &'a AnswerConfig,
}

impl<'a> Answering<'a> {
    /// Puts an index and a configuration together.
    pub fn new(index: &'a dyn ItemIndex, config: &'a AnswerConfig) -> Self {
        Self { index, config }
    }
}

impl VectorIndex for Answering<'_> {
    fn dim(&self) -> usize {
        self.index.dim()
    }

    fn len(&self) -> usize {
        self.index.len()
    }

    fn search(&self, query: &[f32], params: &SearchParams) -> Result<Vec<Neighbor>> {
        if self.config.is_plain() {
            return self.index.search(query, params);
        }
        Ok(self.search_batch(query, 1, params)?.pop().unwrap_or_default())
    }

    fn search_batch(&self, queries: &[f32], n: usize, params: &SearchParams) -> Result<Vec<Vec<Neighbor>>> {
        let expanded;
        let queries = match &self.config.expansion {
            None => queries,
            Some(config) => {
                expanded = expansion::expand(self.index, queries, n, params, config)?;
                &expanded
            }
        };
        let search = |queries: &[f32], n: usize, k: usize| -> Result<Vec<Vec<Neighbor>>> {
            let pool = self.config.rerank.as_ref().map_or(0, |config| config.pool);
            let wider = SearchParams { k: k.max(pool), ..params.clone() };
            let found = self.index.search_batch(queries, n, &wider)?;
            match &self.config.rerank {
                None => Ok(found),
                Some(config) => rerank::rerank(self.index, queries, found, config),
            }
        };
        if self.config.one_per_class {
            return grouping::one_per_class(self.index, queries, n, params.k, &params.cancel, &search);
        }
        let mut found = search(queries, n, params.k)?;
        found.iter_mut().for_each(|list| list.truncate(params.k));
        Ok(found)
    }
}

/// Scales to norm 1. A vector without direction stays as it is.
pub(crate) fn normalise(vector: &mut [f32]) {
    let norm = vector.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt();
    if norm > 0.0 {
        vector.iter_mut().for_each(|x| *x = (f64::from(*x) / norm) as f32);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Unit vectors in space, spread by irrational steps: row i is (sin 1.7i, cos 0.9i, sin(0.4i + 1)), normalised.
    pub(crate) fn spread(rows: usize) -> Vec<f32> {
        let mut vectors = Vec::new();
        for i in 0..rows {
            let i = i as f32;
            let mut row = [(1.7 * i).sin(), (0.9 * i).cos(), (0.4 * i + 1.0).sin()];
            normalise(&mut row);
            vectors.extend(row);
        }
        vectors
    }

    #[test]
    fn off_is_the_index_itself() {
        let vectors = spread(30);
        let matrix = Matrix::new(vectors.clone(), 3, (0..30).collect(), vec![None; 30]).unwrap();
        let config = AnswerConfig::default();
        assert!(config.is_plain());
        let answering = Answering::new(&matrix, &config);
        let params = SearchParams::exact(7);
        assert_eq!(
            answering.search_batch(&vectors[..15], 5, &params).unwrap(),
            matrix.search_batch(&vectors[..15], 5, &params).unwrap()
        );
    }
}
