//! What was written since the last publication, in memory: searched exactly, and what the next segment is made from.

use std::collections::HashMap;
use std::sync::Arc;

use crate::backend::vector_index::Neighbor;
use crate::codes::aligned_matrix::Rows;
use crate::codes::kernel::{padded, score_f32};
use crate::error::Result;
use crate::filter::Filter;
use crate::item::Item;

/// Writes since a publication, batch by batch. Cheap to clone; a clone goes on holding what it held.
#[derive(Clone, Default)]
pub(crate) struct Delta {
    /// Number of the last batch.
    batch: u64,
    chunks: Vec<Arc<Chunk>>,
    /// Every id that was written or deleted, with the number of the last batch that did. Entries of earlier batches are
    /// void, as are published ones.
    touched: Arc<HashMap<u64, u64>>,
    live: usize,
    bytes: usize,
}

/// The items of one batch.
struct Chunk {
    batch: u64,
    /// In order of ids.
    items: Vec<Item>,
    rows: Rows,
    dim: usize,
}

impl Delta {
    /// This delta after one more batch. `deleted` are ids that go, `items` (with their `vectors`) come or replace; no id
    /// comes twice.
    pub(crate) fn with(&self, deleted: &[u64], items: Vec<Item>, vectors: &[f32], dim: usize) -> Self {
        let mut delta = self.clone();
        delta.batch += 1;
        let touched = Arc::make_mut(&mut delta.touched);
        for &id in deleted.iter().chain(items.iter().map(|i| &i.id)) {
            if find(&delta.chunks, touched, id).is_some() {
                delta.live -= 1;
            }
            touched.insert(id, delta.batch);
        }
        if !items.is_empty() {
            let mut order: Vec<usize> = (0..items.len()).collect();
            order.sort_unstable_by_key(|&at| items[at].id);
            let mut rows = Rows::new(dim * 4);
            order.iter().for_each(|&at| rows.push(&vectors[at * dim..(at + 1) * dim]));
            let mut items = items;
            items.sort_unstable_by_key(|item| item.id);
            delta.live += items.len();
            delta.bytes += items.len() * padded::<f32>(dim) * 4;
            delta.chunks.push(Arc::new(Chunk { batch: delta.batch, items, rows, dim }));
        }
        delta
    }

    /// What was written after a batch.
    pub(crate) fn after(&self, batch: u64) -> Self {
        let chunks: Vec<Arc<Chunk>> = self.chunks.iter().filter(|c| c.batch > batch).cloned().collect();
        let touched: HashMap<u64, u64> =
            self.touched.iter().filter(|(_, last)| **last > batch).map(|(id, last)| (*id, *last)).collect();
        let bytes = chunks.iter().map(|c| c.items.len() * padded::<f32>(c.dim) * 4).sum();
        let live = chunks.iter().flat_map(|c| c.items.iter().map(|i| (i.id, c.batch)));
        let live = live.filter(|(id, batch)| touched[id] == *batch).count();
        Self { batch: self.batch, chunks, touched: Arc::new(touched), live, bytes }
    }

    /// Number of the last batch.
    pub(crate) fn batch(&self) -> u64 {
        self.batch
    }

    /// True if nothing was written.
    pub(crate) fn is_empty(&self) -> bool {
        self.touched.is_empty()
    }

    /// Bytes of the vectors held, and a guess of what notes of changes take.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes + self.touched.len() * 64
    }

    /// Ids that were written or deleted, in no order.
    pub(crate) fn touched(&self) -> impl Iterator<Item = u64> + '_ {
        self.touched.keys().copied()
    }

    /// Items written and still there.
    pub(crate) fn count(&self) -> usize {
        self.live
    }

    /// Those items with their vectors, in no order.
    pub(crate) fn items(&self) -> impl Iterator<Item = (&Item, &[f32])> {
        self.chunks.iter().flat_map(move |chunk| {
            let places = (0..chunk.items.len()).filter(|&at| self.is_live(chunk, at));
            places.map(|at| (&chunk.items[at], chunk.vector(at)))
        })
    }

    pub(crate) fn get(&self, id: u64) -> Option<(&Item, &[f32])> {
        let (chunk, at) = find(&self.chunks, &self.touched, id)?;
        Some((&chunk.items[at], chunk.vector(at)))
    }

    /// Items that meet the filter and the bound, scored; in no order.
    pub(crate) fn search(&self, query: &[f32], filter: Option<&Filter>, min: f32) -> Result<Vec<Neighbor>> {
        let mut found = Vec::new();
        let filter = filter.map(Filter::matcher);
        for chunk in &self.chunks {
            let wanted = |at: &usize| {
                self.is_live(chunk, *at) && filter.as_ref().is_none_or(|f| f.matches(&chunk.items[*at]))
            };
            let nodes: Vec<u32> = (0..chunk.items.len()).filter(wanted).map(|at| at as u32).collect();
            let mut scores = vec![0.0; nodes.len()];
            score_f32(query, chunk.rows.all(), &nodes, &mut scores);
            let scored = nodes.iter().zip(scores).filter(|(_, score)| *score >= min);
            found.extend(scored.map(|(&at, score)| Neighbor { id: chunk.items[at as usize].id, score }));
        }
        Ok(found)
    }

    fn is_live(&self, chunk: &Chunk, at: usize) -> bool {
        self.touched.get(&chunk.items[at].id) == Some(&chunk.batch)
    }
}

impl Chunk {
    fn vector(&self, at: usize) -> &[f32] {
        let stride = padded::<f32>(self.dim);
        &self.rows.all::<f32>()[at * stride..][..self.dim]
    }
}

/// The chunk and place of an id's newest entry, if there is one.
fn find<'a>(chunks: &'a [Arc<Chunk>], touched: &HashMap<u64, u64>, id: u64) -> Option<(&'a Chunk, usize)> {
    let last = touched.get(&id)?;
    let chunk = chunks.binary_search_by_key(last, |chunk| chunk.batch).ok()?;
    let at = chunks[chunk].items.binary_search_by_key(&id, |item| item.id).ok()?;
    Some((&chunks[chunk], at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::item::NewItem;

    fn item(id: u64, key: &str) -> Item {
        NewItem::new(key).with_id(id)
    }

    fn keys(delta: &Delta) -> Vec<(String, f32)> {
        delta.items().map(|(item, vector)| (item.key.clone(), vector[0])).collect()
    }

    fn touches(delta: &Delta, id: u64) -> bool {
        delta.touched().any(|touched| touched == id)
    }

    fn three() -> [Delta; 3] {
        let first = Delta::default().with(&[], vec![item(2, "b"), item(1, "a")], &[0.0, 1.0, 1.0, 0.0], 2);
        let second = first.with(&[2], vec![item(1, "a2")], &[0.6, 0.8], 2);
        let third = second.with(&[9], vec![item(2, "b3")], &[0.8, 0.6], 2);
        [first, second, third]
    }

    #[test]
    fn later_batches_replace_earlier_ones_and_old_states_stay_as_they_were() {
        let [first, second, third] = three();
        assert_eq!(keys(&first), [("a".into(), 1.0), ("b".into(), 0.0)]);
        assert_eq!(keys(&second), [("a2".into(), 0.6)]);
        assert_eq!(keys(&third), [("a2".into(), 0.6), ("b3".into(), 0.8)]);
        assert_eq!((first.count(), second.count(), third.count()), (2, 1, 2));
        assert!(touches(&third, 9) && !touches(&second, 9) && third.get(9).is_none());
        assert_eq!(third.get(2).unwrap().0.key, "b3");
        let mut query = Rows::new(8);
        query.push(&[1.0f32, 0.0]);
        assert_eq!(third.search(query.all(), None, 0.7).unwrap(), [Neighbor { id: 2, score: 0.8 }]);
    }

    #[test]
    fn what_comes_after_a_batch_is_what_the_later_batches_wrote() {
        let [first, second, third] = three();
        let rest = third.after(first.batch());
        assert_eq!(keys(&rest), keys(&third));
        let rest = third.after(second.batch());
        assert_eq!((keys(&rest), rest.count()), (vec![("b3".into(), 0.8)], 1));
        assert!(touches(&rest, 9) && touches(&rest, 2) && !touches(&rest, 1));
        let deleted = third.with(&[2], vec![], &[], 2).after(third.batch());
        assert!(touches(&deleted, 2) && deleted.count() == 0 && !deleted.is_empty());
        assert!(third.after(third.batch()).is_empty());
    }
}
