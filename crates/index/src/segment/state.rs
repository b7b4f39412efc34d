//! A consistent state of the index: what is published, and the writes since.

use std::sync::{Arc, RwLock};

use roaring::RoaringBitmap;

use crate::codes::aligned_matrix::Rows;
use crate::error::{IndexError, Result};
use crate::item::Item;
use crate::segment::delta::Delta;
use crate::segment::snapshot::Snapshot;

/// A consistent state of the index. Never changed, only replaced whole.
#[derive(Clone)]
pub(crate) struct State {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) delta: Delta,
    /// Rows of each segment that do not count: deleted before the publication, or touched by the delta.
    pub(crate) hidden: Vec<Arc<RoaringBitmap>>,
}

/// Where a published item stands.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) segment: usize,
    pub(crate) row: u32,
}

/// The state that readers of this process take; a writer swaps it after every batch.
pub(crate) struct Live(RwLock<Arc<State>>);

impl Live {
    pub(crate) fn new(state: Arc<State>) -> Self {
        Self(RwLock::new(state))
    }

    pub(crate) fn state(&self) -> Arc<State> {
        self.0.read().unwrap_or_else(|e| e.into_inner()).clone()
    }

    pub(crate) fn swap(&self, state: Arc<State>) {
        *self.0.write().unwrap_or_else(|e| e.into_inner()) = state;
    }
}

impl State {
    /// A published state without any writes since.
    pub(crate) fn published(snapshot: Arc<Snapshot>) -> Self {
        let hidden = snapshot.segments.iter().map(|s| s.deleted.clone()).collect();
        Self { snapshot, delta: Delta::default(), hidden }
    }

    /// A published state and the writes since.
    pub(crate) fn of(snapshot: Arc<Snapshot>, delta: Delta) -> Self {
        let mut state = Self { delta, ..Self::published(snapshot) };
        let touched: Vec<u64> = state.delta.touched().collect();
        state.hide(touched);
        state
    }

    /// This state after one more batch, see [`Delta::with`].
    pub(crate) fn with(&self, deleted: &[u64], items: Vec<Item>, vectors: &[f32]) -> Self {
        let touched: Vec<u64> = deleted.iter().copied().chain(items.iter().map(|i| i.id)).collect();
        let delta = self.delta.with(deleted, items, vectors, self.snapshot.dim());
        let mut state = Self { snapshot: self.snapshot.clone(), delta, hidden: self.hidden.clone() };
        state.hide(touched);
        state
    }

    /// Makes published items count no more.
    pub(crate) fn hide(&mut self, ids: impl IntoIterator<Item = u64>) {
        for id in ids {
            if let Some(Place { segment, row }) = self.place(id) {
                Arc::make_mut(&mut self.hidden[segment]).insert(row);
            }
        }
    }

    /// Where a published item stands that was neither deleted nor touched since.
    pub(crate) fn place(&self, id: u64) -> Option<Place> {
        let segments = self.snapshot.segments.iter().zip(&self.hidden).enumerate();
        segments.into_iter().find_map(|(segment, (published, hidden))| {
            let row = published.reader.items().row(id).filter(|&row| !hidden.contains(row))?;
            Some(Place { segment, row })
        })
    }

    /// Published items that count.
    pub(crate) fn published_len(&self) -> usize {
        let segments = self.snapshot.segments.iter().zip(&self.hidden);
        segments.map(|(segment, hidden)| segment.reader.len() - hidden.len() as usize).sum()
    }

    pub(crate) fn len(&self) -> usize {
        self.published_len() + self.delta.count()
    }

    pub(crate) fn item(&self, id: u64) -> Result<Item> {
        if let Some((item, _)) = self.delta.get(id) {
            return Ok(item.clone());
        }
        let place = self.place(id).ok_or(IndexError::UnknownId { id })?;
        self.published_item(place)
    }

    pub(crate) fn published_item(&self, place: Place) -> Result<Item> {
        self.snapshot.segments[place.segment].reader.items().item(place.row)
    }

    /// Id of the item with a key.
    pub(crate) fn find(&self, key: &str) -> Result<Option<u64>> {
        if let Some((item, _)) = self.delta.items().find(|(item, _)| item.key == key) {
            return Ok(Some(item.id));
        }
        for (segment, hidden) in self.snapshot.segments.iter().zip(&self.hidden) {
            let items = segment.reader.items();
            if let Some(row) = items.find(key, |row| !hidden.contains(row))? {
                return Ok(Some(items.ids()[row as usize]));
            }
        }
        Ok(None)
    }

    pub(crate) fn vector(&self, id: u64) -> Result<Vec<f32>> {
        if let Some((_, vector)) = self.delta.get(id) {
            return Ok(vector.to_vec());
        }
        let Place { segment, row } = self.place(id).ok_or(IndexError::UnknownId { id })?;
        Ok(self.snapshot.segments[segment].reader.vector_of_row(row)?.to_vec())
    }

    /// Published items that count, in order of ids, with where they stand.
    pub(crate) fn places(&self) -> Vec<(u64, Place)> {
        let mut places = Vec::with_capacity(self.published_len());
        for (segment, (published, hidden)) in self.snapshot.segments.iter().zip(&self.hidden).enumerate() {
            let rows = (0..).zip(published.reader.items().ids());
            let counting = rows.filter(|(row, _)| !hidden.contains(*row));
            places.extend(counting.map(|(row, &id)| (id, Place { segment, row })));
        }
        places.sort_unstable_by_key(|(id, _)| *id);
        places
    }

    pub(crate) fn ids(&self) -> Vec<u64> {
        let mut ids: Vec<u64> = self.places().into_iter().map(|(id, _)| id).collect();
        if self.delta.count() > 0 {
            ids.extend(self.delta.items().map(|(item, _)| item.id));
            ids.sort_unstable();
        }
        ids
    }

    /// A query as the kernels want it.
    pub(crate) fn padded(&self, query: &[f32]) -> Rows {
        let mut row = Rows::new(self.snapshot.dim() * 4);
        query.chunks_exact(self.snapshot.dim()).for_each(|q| row.push(q));
        row
    }
}
