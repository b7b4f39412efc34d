//! An index that records how it was searched, for explanations.

use std::sync::{Mutex, PoisonError};

use semblance_index::{Explain, Index, Neighbor, SearchParams, VectorIndex};

use super::{ItemIndex, Result};

/// An index, and how each search of it went.
pub struct Recorded<'a> {
    index: &'a Index,
    searches: Mutex<Vec<Explain>>,
}

impl<'a> Recorded<'a> {
    /// Watches over `index`.
    pub fn new(index: &'a Index) -> Self {
        Self { index, searches: Mutex::default() }
    }

    /// The searches, in the order in which they were made.
    pub fn searches(self) -> Vec<Explain> {
        self.searches.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl VectorIndex for Recorded<'_> {
    fn dim(&self) -> usize {
        Index::dim(self.index)
    }

    fn len(&self) -> usize {
        Index::len(self.index)
    }

    fn search(&self, query: &[f32], params: &SearchParams) -> Result<Vec<Neighbor>> {
        let (found, explain) = self.index.search_explained(query, params)?;
        self.searches.lock().unwrap_or_else(PoisonError::into_inner).push(explain);
        Ok(found)
    }

    fn search_batch(&self, queries: &[f32], n: usize, params: &SearchParams) -> Result<Vec<Vec<Neighbor>>> {
        let dim = Index::dim(self.index).max(1);
        if queries.len() != n * dim {
            // Whose complaint says what is wrong.
            return self.index.search_batch(queries, n, params);
        }
        queries.chunks_exact(dim).map(|query| self.search(query, params)).collect()
    }
}

impl ItemIndex for Recorded<'_> {
    fn vector(&self, id: u64) -> Result<Vec<f32>> {
        self.index.vector(id)
    }

    fn class(&self, id: u64) -> Result<Option<String>> {
        ItemIndex::class(self.index, id)
    }
}
