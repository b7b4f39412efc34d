//! What was written since the last publication, for readers in the writer's own process: searched exactly.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use crate::backend::vector_index::Neighbor;
use crate::codes::aligned_matrix::Rows;
use crate::codes::kernel::score_f32;
use crate::error::Result;
use crate::filter::Filter;
use crate::item::Item;
use crate::segment::snapshot::Snapshot;

/// A consistent state of the index: published files and the writes since. Never changed, only replaced whole.
#[derive(Clone)]
pub(crate) struct State {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) delta: Delta,
}

/// The state that readers of this process take; a writer swaps it after every batch.
pub(crate) struct Live(RwLock<Arc<State>>);

impl Live {
    pub(crate) fn new(state: State) -> Self {
        Self(RwLock::new(Arc::new(state)))
    }

    pub(crate) fn state(&self) -> Arc<State> {
        self.0.read().unwrap_or_else(|e| e.into_inner()).clone()
    }

    pub(crate) fn swap(&self, state: State) {
        *self.0.write().unwrap_or_else(|e| e.into_inner()) = Arc::new(state);
    }
}

/// Writes since a publication.
#[derive(Clone, Default)]
pub(crate) struct Delta {
    chunks: Vec<Arc<Chunk>>,
    /// Ids replaced or deleted, with the number of chunks there were: entries before that are void, as are published ones.
    void: Arc<HashMap<u64, usize>>,
    live: usize,
}

struct Chunk {
    items: Vec<Item>,
    rows: Rows,
    dim: usize,
}

impl Delta {
    /// This delta after one more batch. `deleted` are ids that go, `items` (with their `vectors`) come or replace.
    pub(crate) fn with(&self, deleted: &[u64], items: Vec<Item>, vectors: &[f32], dim: usize) -> Self {
        let mut delta = self.clone();
        let void = Arc::make_mut(&mut delta.void);
        let before = delta.chunks.len();
        for &id in deleted.iter().chain(items.iter().map(|i| &i.id)) {
            if live_in(&delta.chunks, void, id).is_some() {
                delta.live -= 1;
            }
            void.insert(id, before);
        }
        if !items.is_empty() {
            let mut rows = Rows::new(dim * 4);
            vectors.chunks_exact(dim).for_each(|v| rows.push(v));
            delta.live += items.len();
            delta.chunks.push(Arc::new(Chunk { items, rows, dim }));
        }
        delta
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.void.is_empty()
    }

    /// Whether a published item was replaced or deleted since.
    pub(crate) fn voids(&self, id: u64) -> bool {
        self.void.contains_key(&id)
    }

    /// Ids replaced or deleted since the publication, and ids that are new.
    pub(crate) fn touched(&self) -> impl Iterator<Item = u64> + '_ {
        self.void.keys().copied()
    }

    /// Items written since and still there.
    pub(crate) fn count(&self) -> usize {
        self.live
    }

    /// Those items, with their vectors.
    pub(crate) fn items(&self) -> impl Iterator<Item = (&Item, &[f32])> {
        self.chunks.iter().enumerate().flat_map(move |(number, chunk)| {
            let live = move |item: &Item| self.void.get(&item.id).is_none_or(|&before| before <= number);
            chunk
                .items
                .iter()
                .enumerate()
                .filter(move |(_, i)| live(i))
                .map(|(at, item)| (item, chunk.vector(at)))
        })
    }

    pub(crate) fn get(&self, id: u64) -> Option<(&Item, &[f32])> {
        let (chunk, at) = live_in(&self.chunks, &self.void, id)?;
        Some((&self.chunks[chunk].items[at], self.chunks[chunk].vector(at)))
    }

    /// Items that meet the filter and the bound, scored; in no order.
    pub(crate) fn search(&self, query: &[f32], filter: Option<&Filter>, min: f32) -> Result<Vec<Neighbor>> {
        let mut found = Vec::new();
        let filter = filter.map(Filter::matcher);
        for (number, chunk) in self.chunks.iter().enumerate() {
            let live = |item: &Item| self.void.get(&item.id).is_none_or(|&before| before <= number);
            let wanted = |item: &Item| live(item) && filter.as_ref().is_none_or(|f| f.matches(item));
            let nodes: Vec<u32> =
                (0..).zip(&chunk.items).filter(|(_, i)| wanted(i)).map(|(at, _)| at).collect();
            let mut scores = vec![0.0; nodes.len()];
            score_f32(query, chunk.rows.all(), &nodes, &mut scores);
            let scored = nodes.iter().zip(scores).filter(|(_, score)| *score >= min);
            found.extend(scored.map(|(&at, score)| Neighbor { id: chunk.items[at as usize].id, score }));
        }
        Ok(found)
    }
}

impl Chunk {
    fn vector(&self, at: usize) -> &[f32] {
        let stride = crate::codes::kernel::padded::<f32>(self.dim);
        &self.rows.all::<f32>()[at * stride..][..self.dim]
    }
}

fn live_in(chunks: &[Arc<Chunk>], void: &HashMap<u64, usize>, id: u64) -> Option<(usize, usize)> {
    // Every id of a chunk is in `void` with the number of the chunk that holds its newest entry, if there is one.
    let &number = void.get(&id)?;
    let at = chunks.get(number)?.items.iter().position(|i| i.id == id)?;
    Some((number, at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::item::NewItem;

    fn item(id: u64, key: &str) -> Item {
        NewItem::new(key).with_id(id)
    }

    #[test]
    fn later_batches_replace_earlier_ones_and_old_states_stay_as_they_were() {
        let empty = Delta::default();
        let first = empty.with(&[], vec![item(1, "a"), item(2, "b")], &[1.0, 0.0, 0.0, 1.0], 2);
        let second = first.with(&[2], vec![item(1, "a2")], &[0.6, 0.8], 2);
        let third = second.with(&[9], vec![item(2, "b3")], &[0.8, 0.6], 2);
        let keys = |t: &Delta| t.items().map(|(i, v)| (i.key.clone(), v[0])).collect::<Vec<_>>();
        assert_eq!(keys(&first), [("a".into(), 1.0), ("b".into(), 0.0)]);
        assert_eq!(keys(&second), [("a2".into(), 0.6)]);
        assert_eq!(keys(&third), [("a2".into(), 0.6), ("b3".into(), 0.8)]);
        assert_eq!((empty.count(), first.count(), second.count(), third.count()), (0, 2, 1, 2));
        assert!(third.voids(9) && !second.voids(9) && third.get(9).is_none());
        assert_eq!(third.get(2).unwrap().0.key, "b3");
        let mut query = Rows::new(8);
        query.push(&[1.0f32, 0.0]);
        assert_eq!(third.search(query.all(), None, 0.7).unwrap(), [Neighbor { id: 2, score: 0.8 }]);
    }
}
