//! The reader: search, and what is known of the items.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::backend::vector_index::{Neighbor, SearchParams, VectorIndex, check_vectors};
use crate::codes::aligned_matrix::Rows;
use crate::config::Memory;
use crate::error::{IndexError, Result};
use crate::item::Item;
use crate::search::{self, Explain};
use crate::segment::delta::{Delta, Live, State};
use crate::segment::manifest::Manifest;
use crate::segment::snapshot::Snapshot;

/// An index open for reading. Any number of processes can read, also while one writes; each call sees a consistent
/// state, whole batches or nothing of them. Cheap to clone; clones share their state.
#[derive(Clone)]
pub struct Index {
    dir: PathBuf,
    live: Arc<Live>,
}

impl Index {
    /// Opens the newest published state of the index in `dir`.
    ///
    /// Files are mapped into memory. Graph, tables and codes are checked against their checksums now, vectors and
    /// records when they are first used: damage is an error ([`IndexError::Damaged`]), never a wrong answer.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(dir, Memory::Auto)
    }

    /// Like [`Self::open`], with a say in where codes and links lie.
    pub fn open_with(dir: impl AsRef<Path>, memory: Memory) -> Result<Self> {
        let dir = dir.as_ref();
        let snapshot = Arc::new(Snapshot::open(dir, memory)?);
        Ok(Self::from_live(dir, Arc::new(Live::new(State { snapshot, delta: Delta::default() }))))
    }

    pub(crate) fn from_live(dir: &Path, live: Arc<Live>) -> Self {
        Self { dir: dir.into(), live }
    }

    pub(crate) fn state(&self) -> Arc<State> {
        self.live.state()
    }

    /// Takes up what was published since the index was opened; true if there was anything. A reader that came from
    /// [`crate::IndexWriter::reader`] sees every write by itself and has nothing to take up.
    pub fn refresh(&self) -> Result<bool> {
        let state = self.live.state();
        if !state.delta.is_empty()
            || Manifest::read(&self.dir)?.generation <= state.snapshot.manifest.generation
        {
            return Ok(false);
        }
        let snapshot = Arc::new(Snapshot::open(&self.dir, Memory::Auto)?);
        self.live.swap(State { snapshot, delta: Delta::default() });
        Ok(true)
    }

    /// A reader that goes on seeing the present state, whatever is written.
    pub fn frozen(&self) -> Self {
        Self::from_live(&self.dir, Arc::new(Live::new((*self.live.state()).clone())))
    }

    /// Folder of the index.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What made the published state.
    pub fn manifest(&self) -> Arc<Manifest> {
        self.live.state().snapshot.manifest.clone()
    }

    /// Refuses a model (by its fingerprint) that is not the one the vectors were made with.
    pub fn check_model(&self, fingerprint: &str) -> Result<()> {
        let model = &self.manifest().config.model;
        if model == fingerprint {
            return Ok(());
        }
        Err(IndexError::WrongModel { dir: self.dir.clone(), index: model.clone(), given: fingerprint.into() })
    }

    /// Dimension of the vectors.
    pub fn dim(&self) -> usize {
        self.live.state().snapshot.dim()
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        let state = self.live.state();
        let void = state.delta.touched().filter(|&id| state.snapshot.items().row(id).is_some()).count();
        state.snapshot.items().len() - void + state.delta.count()
    }

    /// True if there is no item.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The item with an id.
    pub fn item(&self, id: u64) -> Result<Item> {
        let state = self.live.state();
        if let Some((item, _)) = state.delta.get(id) {
            return Ok(item.clone());
        }
        state.snapshot.items().item(state.published_row(id)?)
    }

    /// Id of the item with a key.
    pub fn find(&self, key: &str) -> Result<Option<u64>> {
        let state = self.live.state();
        if let Some((item, _)) = state.delta.items().find(|(item, _)| item.key == key) {
            return Ok(Some(item.id));
        }
        let id = state.snapshot.items().find(key)?.map(|row| state.snapshot.items().ids()[row as usize]);
        Ok(id.filter(|&id| !state.delta.voids(id)))
    }

    /// The vector of an item.
    pub fn vector(&self, id: u64) -> Result<Vec<f32>> {
        self.live.state().vector(id)
    }

    /// All ids, ascending.
    pub fn ids(&self) -> Vec<u64> {
        self.live.state().ids()
    }

    /// Calls `visit` with every item and its vector, in order of ids, all of one state.
    pub fn for_each(&self, mut visit: impl FnMut(Item, &[f32]) -> Result<()>) -> Result<()> {
        let state = self.live.state();
        for id in state.ids() {
            match state.delta.get(id) {
                Some((item, vector)) => visit(item.clone(), vector)?,
                None => {
                    let row = state.published_row(id)?;
                    let node = state.snapshot.items().node_of()[row as usize];
                    let item = state.snapshot.items().item(row)?;
                    visit(item, &state.snapshot.vector(node)?[..state.snapshot.dim()])?;
                }
            }
        }
        Ok(())
    }

    /// All items in order of ids.
    pub fn items(&self) -> Result<Vec<Item>> {
        let mut items = Vec::with_capacity(self.len());
        self.for_each(|item, _| {
            items.push(item);
            Ok(())
        })?;
        Ok(items)
    }

    /// The items nearest to a query (`dim` numbers, unit norm), best first.
    pub fn search(&self, query: &[f32], params: &SearchParams) -> Result<Vec<Neighbor>> {
        Ok(self.search_explained(query, params)?.0)
    }

    /// Like [`Self::search`], and tells how the answer was found.
    pub fn search_explained(&self, query: &[f32], params: &SearchParams) -> Result<(Vec<Neighbor>, Explain)> {
        params.validate()?;
        let state = self.live.state();
        check_vectors(query, 1, state.snapshot.dim())?;
        search::search(&state, query, params)
    }

    /// The items nearest to a stored one, itself left out.
    pub fn search_by_id(&self, id: u64, params: &SearchParams) -> Result<Vec<Neighbor>> {
        Ok(self.search_by_id_explained(id, params)?.0)
    }

    /// Like [`Self::search_by_id`], and tells how the answer was found.
    pub fn search_by_id_explained(&self, id: u64, params: &SearchParams) -> Result<(Vec<Neighbor>, Explain)> {
        params.validate()?;
        let state = self.live.state();
        let query = state.vector(id)?;
        let wider = SearchParams { k: params.k.saturating_add(1), ..params.clone() };
        let (mut found, explain) = search::search(&state, &query, &wider)?;
        found.retain(|n| n.id != id);
        found.truncate(params.k);
        Ok((found, explain))
    }

    /// The items nearest to each of `n` queries (`n × dim` numbers), on all threads.
    pub fn search_batch(
        &self,
        queries: &[f32],
        n: usize,
        params: &SearchParams,
    ) -> Result<Vec<Vec<Neighbor>>> {
        params.validate()?;
        let state = self.live.state();
        check_vectors(queries, n, state.snapshot.dim())?;
        search::search_batch(&state, queries, params)
    }
}

impl State {
    pub(crate) fn published_row(&self, id: u64) -> Result<u32> {
        let row = if self.delta.voids(id) { None } else { self.snapshot.items().row(id) };
        row.ok_or(IndexError::UnknownId { id })
    }

    fn vector(&self, id: u64) -> Result<Vec<f32>> {
        if let Some((_, vector)) = self.delta.get(id) {
            return Ok(vector.to_vec());
        }
        let node = self.snapshot.items().node_of()[self.published_row(id)? as usize];
        Ok(self.snapshot.vector(node)?[..self.snapshot.dim()].to_vec())
    }

    fn ids(&self) -> Vec<u64> {
        let published = self.snapshot.items().ids();
        if self.delta.is_empty() {
            return published.to_vec();
        }
        let ids: BTreeSet<u64> = published.iter().copied().filter(|&id| !self.delta.voids(id)).collect();
        ids.into_iter()
            .chain(self.delta.items().map(|(item, _)| item.id))
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()
    }

    /// A query as the kernels want it.
    pub(crate) fn padded(&self, query: &[f32]) -> Rows {
        let mut row = Rows::new(self.snapshot.dim() * 4);
        query.chunks_exact(self.snapshot.dim()).for_each(|q| row.push(q));
        row
    }
}

impl VectorIndex for Index {
    fn dim(&self) -> usize {
        Index::dim(self)
    }

    fn len(&self) -> usize {
        Index::len(self)
    }

    fn search(&self, query: &[f32], params: &SearchParams) -> Result<Vec<Neighbor>> {
        Index::search(self, query, params)
    }

    fn search_batch(&self, queries: &[f32], n: usize, params: &SearchParams) -> Result<Vec<Vec<Neighbor>>> {
        Index::search_batch(self, queries, n, params)
    }
}
