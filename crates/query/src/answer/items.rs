//! An index that can return its vectors and classes.

use std::collections::HashMap;

use semblance_index::{FlatIndex, Index, IndexError, Neighbor, SearchParams, VectorIndex};

type Result<T> = std::result::Result<T, IndexError>;

/// An index whose items' vectors and classes can be had.
pub trait ItemIndex: VectorIndex {
    /// The vector of an item.
    ///
    /// # Errors
    /// An unknown id, and failures of the index.
    fn vector(&self, id: u64) -> Result<Vec<f32>>;

    /// The class of an item, if it has one.
    ///
    /// # Errors
    /// As [`Self::vector`].
    fn class(&self, id: u64) -> Result<Option<String>>;
}

impl ItemIndex for Index {
    fn vector(&self, id: u64) -> Result<Vec<f32>> {
        Index::vector(self, id)
    }

    fn class(&self, id: u64) -> Result<Option<String>> {
        Ok(self.item(id)?.class)
    }
}

/// Vectors in memory under ids of their own, searched exactly.
pub struct Matrix {
    flat: FlatIndex,
    vectors: Vec<f32>,
    dim: usize,
    ids: Vec<u64>,
    rows: HashMap<u64, usize>,
    classes: Vec<Option<String>>,
}

impl Matrix {
    /// `vectors` are n × `dim`, `ids` ascending and `classes` one per row.
    ///
    /// # Errors
    /// Vectors that are not finite and of norm 1.
    ///
    /// # Panics
    /// If there is not one id and one class a row.
    pub fn new(vectors: Vec<f32>, dim: usize, ids: Vec<u64>, classes: Vec<Option<String>>) -> Result<Self> {
        assert!(ids.len() * dim == vectors.len() && ids.len() == classes.len(), "one id and class a row");
        assert!(ids.is_sorted(), "ties are broken by row, which must be the order of ids");
        let flat = FlatIndex::new(&vectors, dim)?;
        let rows = ids.iter().enumerate().map(|(row, id)| (*id, row)).collect();
        Ok(Self { flat, vectors, dim, ids, rows, classes })
    }

    /// All vectors, row after row.
    pub fn vectors(&self) -> &[f32] {
        &self.vectors
    }

    /// Each row's id.
    pub fn ids(&self) -> &[u64] {
        &self.ids
    }

    /// Each row's class.
    pub fn classes(&self) -> &[Option<String>] {
        &self.classes
    }

    /// The same items with other vectors.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_vectors(&self, vectors: Vec<f32>, dim: usize) -> Result<Self> {
        Self::new(vectors, dim, self.ids.clone(), self.classes.clone())
    }

    fn row(&self, id: u64) -> Result<usize> {
        self.rows.get(&id).copied().ok_or(IndexError::UnknownId { id })
    }
}

impl VectorIndex for Matrix {
    fn dim(&self) -> usize {
        self.dim
    }

    fn len(&self) -> usize {
        self.ids.len()
    }

    fn search(&self, query: &[f32], params: &SearchParams) -> Result<Vec<Neighbor>> {
        Ok(self.search_batch(query, 1, params)?.pop().unwrap_or_default())
    }

    fn search_batch(&self, queries: &[f32], n: usize, params: &SearchParams) -> Result<Vec<Vec<Neighbor>>> {
        let mut found = self.flat.search_batch(queries, n, params)?;
        for neighbor in found.iter_mut().flatten() {
            neighbor.id = self.ids[neighbor.id as usize];
        }
        Ok(found)
    }
}

impl ItemIndex for Matrix {
    fn vector(&self, id: u64) -> Result<Vec<f32>> {
        let row = self.row(id)?;
        Ok(self.vectors[row * self.dim..(row + 1) * self.dim].to_vec())
    }

    fn class(&self, id: u64) -> Result<Option<String>> {
        Ok(self.classes[self.row(id)?].clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_found_by_their_own_ids() {
        let classes = vec![Some("hat".to_owned()), None];
        let matrix = Matrix::new(vec![1.0, 0.0, 0.0, 1.0], 2, vec![7, 9], classes).unwrap();
        let found = matrix.search(&[0.6, 0.8], &SearchParams::exact(2)).unwrap();
        assert_eq!(found.iter().map(|n| n.id).collect::<Vec<_>>(), [9, 7]);
        assert_eq!(matrix.vector(9).unwrap(), [0.0, 1.0]);
        assert_eq!(matrix.class(7).unwrap().as_deref(), Some("hat"));
        assert!(matches!(matrix.vector(0), Err(IndexError::UnknownId { id: 0 })));
    }
}
