//! Exact search over vectors in memory, the reference for approximate searches.

use rayon::prelude::*;

use crate::backend::vector_index::{Neighbor, SearchParams, VectorIndex, check_vectors};
use crate::codes::aligned_matrix::Rows;
use crate::codes::kernel::padded;
use crate::error::{IndexError, Result};
use crate::exact::flat_search::Exact;

/// Exact search over vectors in memory. The id of a vector is its row.
pub struct FlatIndex {
    dim: usize,
    len: usize,
    rows: Rows,
}

impl FlatIndex {
    /// Takes `vectors` (rows × `dim` numbers, each row of unit norm).
    pub fn new(vectors: &[f32], dim: usize) -> Result<Self> {
        if dim == 0 {
            return Err(IndexError::Parameter { name: "dim", value: "0".into(), expected: "1 to 65536" });
        }
        let len = vectors.len() / dim;
        if vectors.len() != len * dim {
            return Err(IndexError::WrongLength { rows: len, dim, received: vectors.len() });
        }
        check_vectors(vectors, len, dim)?;
        let mut rows = Rows::new(dim * 4);
        rows.reserve(len);
        vectors.chunks_exact(dim).for_each(|row| rows.push(row));
        Ok(Self { dim, len, rows })
    }

    fn search_many(&self, queries: &[f32], n: usize, params: &SearchParams) -> Result<Vec<Vec<Neighbor>>> {
        params.validate()?;
        check_vectors(queries, n, self.dim)?;
        if params.filter.is_some() {
            return Err(IndexError::Filter { what: "a flat index has no metadata to filter by".into() });
        }
        let mut padded_queries = Rows::new(self.dim * 4);
        queries.chunks_exact(self.dim).for_each(|q| padded_queries.push(q));
        let exact = Exact { stride: padded::<f32>(self.dim), rows: self.rows.all() };
        let min = params.min_score.unwrap_or(f32::NEG_INFINITY);
        let k = params.k.min(self.len.max(1));
        let found = exact.many(padded_queries.all(), k, min, |_| true, u64::from);
        let neighbors = |found: Vec<crate::hnsw::search::Scored>| {
            found.into_iter().map(|s| Neighbor { id: u64::from(s.node), score: s.score }).collect()
        };
        Ok(found.into_par_iter().map(neighbors).collect())
    }
}

impl VectorIndex for FlatIndex {
    fn dim(&self) -> usize {
        self.dim
    }

    fn len(&self) -> usize {
        self.len
    }

    fn search(&self, query: &[f32], params: &SearchParams) -> Result<Vec<Neighbor>> {
        Ok(self.search_many(query, 1, params)?.pop().unwrap_or_default())
    }

    fn search_batch(&self, queries: &[f32], n: usize, params: &SearchParams) -> Result<Vec<Vec<Neighbor>>> {
        self.search_many(queries, n, params)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_finds_by_score_then_id() {
        let index = FlatIndex::new(&[1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.6, 0.8], 2).unwrap();
        let found = index.search(&[1.0, 0.0], &SearchParams::new(3)).unwrap();
        assert_eq!(found.iter().map(|n| n.id).collect::<Vec<_>>(), [0, 2, 3]);
        assert_eq!(found[2].score, 0.6);
        let all = index.search(&[1.0, 0.0], &SearchParams::new(100)).unwrap();
        assert_eq!(all.len(), 4);
        let params = SearchParams { min_score: Some(0.5), ..SearchParams::new(100) };
        assert_eq!(index.search(&[1.0, 0.0], &params).unwrap().len(), 3);
    }

    #[test]
    fn bad_questions_are_refused() {
        let index = FlatIndex::new(&[1.0, 0.0], 2).unwrap();
        assert!(matches!(index.search(&[1.0, 0.0], &SearchParams::new(0)), Err(IndexError::ZeroK)));
        assert!(matches!(
            index.search(&[1.0], &SearchParams::new(1)),
            Err(IndexError::WrongDimension { .. })
        ));
        assert!(matches!(index.search(&[2.0, 0.0], &SearchParams::new(1)), Err(IndexError::NotUnit { .. })));
        assert!(FlatIndex::new(&[1.0, 0.0, 1.0], 2).is_err());
        assert!(
            FlatIndex::new(&[], 2).unwrap().search(&[1.0, 0.0], &SearchParams::new(1)).unwrap().is_empty()
        );
    }
}
