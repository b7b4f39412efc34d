//! An index that excludes one item, so that the results of a search by an item never contain the item itself.

use semblance_index::{Neighbor, SearchParams, VectorIndex};

use super::{ItemIndex, Result};

/// An index that does not find the item `id`.
pub struct Without<'a> {
    index: &'a dyn ItemIndex,
    id: u64,
}

impl<'a> Without<'a> {
    /// `index` without the item `id`.
    pub fn new(index: &'a dyn ItemIndex, id: u64) -> Self {
        Self { index, id }
    }
}

impl VectorIndex for Without<'_> {
    fn dim(&self) -> usize {
        self.index.dim()
    }

    fn len(&self) -> usize {
        self.index.len().saturating_sub(1)
    }

    fn search(&self, query: &[f32], params: &SearchParams) -> Result<Vec<Neighbor>> {
        Ok(self.search_batch(query, 1, params)?.pop().unwrap_or_default())
    }

    fn search_batch(&self, queries: &[f32], n: usize, params: &SearchParams) -> Result<Vec<Vec<Neighbor>>> {
        let wider = SearchParams { k: params.k.saturating_add(1), ..params.clone() };
        let mut found = self.index.search_batch(queries, n, &wider)?;
        for list in &mut found {
            list.retain(|neighbor| neighbor.id != self.id);
            list.truncate(params.k);
        }
        Ok(found)
    }
}

impl ItemIndex for Without<'_> {
    fn vector(&self, id: u64) -> Result<Vec<f32>> {
        self.index.vector(id)
    }

    fn class(&self, id: u64) -> Result<Option<String>> {
        self.index.class(id)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::spread;
    use super::super::{AnswerConfig, Answering, Matrix};
    use super::*;

    #[test]
    fn the_ranking_with_one_item_struck_out() {
        let vectors = spread(20);
        let classes = (0..20).map(|i| Some(format!("c{}", i / 5))).collect();
        let matrix = Matrix::new(vectors.clone(), 3, (0..20).collect(), classes).unwrap();
        let query = &vectors[6 * 3..7 * 3];
        let mut whole = matrix.search(query, &SearchParams::exact(20)).unwrap();
        whole.retain(|neighbor| neighbor.id != 6);
        let without = Without::new(&matrix, 6);
        assert_eq!(without.len(), 19);
        for k in [1, 4, 19, 30] {
            assert_eq!(
                without.search(query, &SearchParams::exact(k)).unwrap(),
                whole[..k.min(19)],
                "k = {k}"
            );
        }
        // The item's class is answered by its next best.
        let config = AnswerConfig { one_per_class: true, ..AnswerConfig::default() };
        let found = Answering::new(&without, &config).search(query, &SearchParams::exact(4)).unwrap();
        let mut classes: Vec<u64> = found.iter().map(|neighbor| neighbor.id / 5).collect();
        classes.sort_unstable();
        assert_eq!(classes, [0, 1, 2, 3]);
        assert!(found.iter().all(|neighbor| neighbor.id != 6));
    }
}
