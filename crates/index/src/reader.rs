//! The reader: search, and what is known of the items.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::backend::vector_index::{Neighbor, SearchParams, VectorIndex, check_vectors};
use crate::cancel::Cancel;
use crate::config::Memory;
use crate::error::{IndexError, Result};
use crate::filter::Filter;
use crate::item::Item;
use crate::search::{self, Explain};
use crate::segment::manifest::Manifest;
use crate::segment::snapshot::Snapshot;
use crate::segment::state::{Live, State};

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
        Ok(Self::from_live(dir, Arc::new(Live::new(Arc::new(State::published(snapshot))))))
    }

    pub(crate) fn from_live(dir: &Path, live: Arc<Live>) -> Self {
        Self { dir: dir.into(), live }
    }

    pub(crate) fn state(&self) -> Arc<State> {
        self.live.state()
    }

    /// Takes up what was published since the index was opened; true if there was anything. A reader that came from
    /// [`crate::IndexWriter::reader`] sees every write by itself and has nothing to take up. An index that replaced this one
    /// is taken up, too.
    ///
    /// # Errors
    /// [`IndexError::WrongModel`] if the index was replaced by one of another model: the present state stays. Failures of
    /// the disk, and damaged files.
    pub fn refresh(&self) -> Result<bool> {
        let state = self.live.state();
        if !state.delta.is_empty() {
            return Ok(false);
        }
        let (newest, present) = (Manifest::read(&self.dir)?, &state.snapshot.manifest);
        if newest.generation <= present.generation {
            return Ok(false);
        }
        if (newest.config.dim, &newest.config.model) != (present.config.dim, &present.config.model) {
            let (index, given) = (newest.config.model, present.config.model.clone());
            return Err(IndexError::WrongModel { dir: self.dir.clone(), index, given });
        }
        let snapshot = Snapshot::open_after(&self.dir, Memory::Auto, Some(&state.snapshot))?;
        self.live.swap(Arc::new(State::published(Arc::new(snapshot))));
        Ok(true)
    }

    /// A reader that goes on seeing the present state, whatever is written.
    pub fn frozen(&self) -> Self {
        Self::from_live(&self.dir, Arc::new(Live::new(self.live.state())))
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
        self.live.state().len()
    }

    /// True if there is no item.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The item with an id.
    pub fn item(&self, id: u64) -> Result<Item> {
        self.live.state().item(id)
    }

    /// Id of the item with a key.
    pub fn find(&self, key: &str) -> Result<Option<u64>> {
        self.live.state().find(key)
    }

    /// Number of items that meet a filter.
    ///
    /// # Errors
    /// A filter that is not valid, failures of reading, and [`IndexError::Cancelled`].
    pub fn count(&self, filter: &Filter, cancel: &Cancel) -> Result<usize> {
        filter.validate()?;
        let (state, matcher) = (self.live.state(), filter.matcher());
        let mut count = state.delta.items().filter(|(item, _)| matcher.matches(item)).count();
        for (segment, hidden) in state.snapshot.segments.iter().zip(&state.hidden) {
            let columns = segment.reader.columns(cancel)?;
            let mut bits = columns.matching(&matcher.0, segment.reader.items(), cancel)?;
            hidden.iter().for_each(|row| bits[row as usize / 64] &= !(1 << (row % 64)));
            count += bits.iter().map(|word| word.count_ones() as usize).sum::<usize>();
        }
        Ok(count)
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
        let mut recent: Vec<(&Item, &[f32])> = state.delta.items().collect();
        recent.sort_unstable_by_key(|(item, _)| item.id);
        let mut recent = recent.into_iter().peekable();
        for (id, place) in state.places() {
            while let Some((item, vector)) = recent.next_if(|(item, _)| item.id < id) {
                visit(item.clone(), vector)?;
            }
            let reader = &state.snapshot.segments[place.segment].reader;
            visit(reader.items().item(place.row)?, reader.vector_of_row(place.row)?)?;
        }
        recent.try_for_each(|(item, vector)| visit(item.clone(), vector))
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
