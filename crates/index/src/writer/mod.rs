//! The writer: one at a time, whose acknowledged writes are not lost.

mod attributes;
mod creation;
mod group_commit;
mod lock;
mod merging;
mod publication;
mod recovery;
mod replacement;
mod store_check;

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, RwLock, RwLockReadGuard};

use serde_json::Value;

use self::group_commit::GroupCommit;
pub(crate) use self::lock::share;
use self::lock::{LOCK, is_at};
pub use self::merging::MergeOptions;
use self::recovery::Ticket;
use self::replacement::Replaced;
pub use self::replacement::{Recovered, has_interrupted_replacement, recover_replacement};
use crate::backend::vector_index::check_vectors;
use crate::config::{Durability, IndexConfig, Memory};
use crate::error::{IndexError, Result};
use crate::item::{Item, MAX_KEY_BYTES, MAX_METADATA_DEPTH, NewItem};
use crate::reader::Index;
use crate::segment::delta::Delta;
use crate::segment::manifest::FILE_NAME;
use crate::segment::snapshot::Snapshot;
use crate::segment::state::{Live, State};
use crate::store::disk_space;
use crate::store::{self, Change, Store};

/// How much of the disk the store takes for what is written to it, until it reclaims what is out of date.
const STORED_TIMES: u64 = 3;

/// Bytes of vectors written since a publication that are kept in memory where no reader of this process needs them.
const HELD_BYTES: usize = 16 << 20;

/// An index open for writing. There is one writer of an index at a time, on one machine; its methods can be called from several
/// threads. What [`Self::upsert`] and [`Self::delete`] acknowledged is kept as the index's [`Durability`] promises;
/// other processes see it after [`Self::finish`].
///
/// # After an error of the disk
/// The next call opens the store again and goes on with what it then holds, so a call that failed can be repeated.
/// [`Self::fault`] tells whether the writer waits for that.
///
/// # Locks
/// Merging and compacting take `merging`, then `publishing`, then `inner`, then `store`; nobody takes an earlier one while
/// holding a later one. Writes take `inner` and `store` alone, which nobody holds over long work.
pub struct IndexWriter {
    dir: PathBuf,
    config: IndexConfig,
    inner: Mutex<Inner>,
    /// Held while a new state is prepared and published.
    publishing: Mutex<Publishing>,
    /// Held while segments are merged.
    merging: Mutex<()>,
    commit: GroupCommit,
    store: RwLock<Store>,
    /// How often the store was opened again; changes with `store`.
    reopened: AtomicUsize,
    durability: Durability,
    /// The last number given to a segment or a state.
    last_number: AtomicU64,
    /// Segments whose files no manifest names yet.
    being_written: Mutex<BTreeSet<u64>>,
    /// The index that this one is to replace.
    replaces: Option<Replaced>,
    /// What was damaged of the published files when the index was opened.
    damage: Vec<String>,
    _lock: File,
}

struct Publishing {
    /// Whether the manifest is sure to be there after a power cut.
    settled: bool,
}

struct Inner {
    state: store::State,
    /// The newest published state: what the manifest on the disk names, but for damaged segments.
    snapshot: Option<Arc<Snapshot>>,
    /// Whether segments of the published state are missing from `snapshot`: the next publication makes them again.
    damaged: bool,
    /// The published state with all writes since. `None` if these are too many to keep in memory and no reader of this
    /// process needs them; then they are in the store alone.
    recent: Option<Arc<State>>,
    /// Counts up whenever `recent` is read from the store.
    epoch: u64,
    /// What readers of this process share with the writer, once there are any.
    live: Option<Arc<Live>>,
    /// Number of the last write that was found each time the store was opened again.
    found: Vec<u64>,
    /// Whether writes were lost that nobody was told of.
    lost: bool,
}

impl Inner {
    /// Makes a state the one that writes go on from, and that readers see.
    fn show(&mut self, state: Arc<State>) {
        if let Some(live) = &self.live {
            live.swap(state.clone());
        }
        self.recent = Some(state);
    }

    /// Whether readers of this process see every write.
    fn has_readers(&self) -> bool {
        self.live.as_ref().is_some_and(|live| Arc::strong_count(live) > 1)
    }
}

impl IndexWriter {
    /// What the index is made with.
    pub fn config(&self) -> &IndexConfig {
        &self.config
    }

    /// Folder of the index.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Changes what writes through this writer promise.
    pub fn set_durability(&mut self, durability: Durability) {
        self.durability = durability;
    }

    /// What was found damaged of the published files when the index was opened, a sentence each: the next publication
    /// makes it again from the store.
    pub fn damage(&self) -> &[String] {
        &self.damage
    }

    /// An error if the folder of the index was moved or removed while it is open: what is written then would be lost.
    pub fn check_place(&self) -> Result<()> {
        if is_at(&self._lock, &self.dir.join(LOCK)) {
            return Ok(());
        }
        Err(IndexError::Moved { dir: self.dir.clone() })
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        self.inner().state.items as usize
    }

    /// True if there is no item.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether there is an item with this key.
    pub fn contains(&self, key: &str) -> Result<bool> {
        Ok(self.find(key)?.is_some())
    }

    /// Id of the item with this key.
    pub fn find(&self, key: &str) -> Result<Option<u64>> {
        self.usable_store()?.id_of(key)
    }

    /// The item with an id, also if it is not published yet.
    pub fn item(&self, id: u64) -> Result<Option<Item>> {
        self.usable_store()?.item(id)
    }

    /// The vector of an item, also if it is not published yet.
    pub fn vector(&self, id: u64) -> Result<Option<Vec<f32>>> {
        let mut vector = Vec::with_capacity(self.config.dim);
        Ok(self.usable_store()?.vector(id, &mut vector)?.then_some(vector))
    }

    /// Adds items with their `vectors` (items × dim numbers, unit norm), all or none; an item whose key is there
    /// already takes the place of the other and keeps its id. Of one key twice in a call the later wins. Returns the
    /// ids. Batches of 512 to 4,096 are quickest.
    pub fn upsert(&self, items: &[NewItem], vectors: &[f32]) -> Result<Vec<u64>> {
        let dim = self.config().dim;
        if items.len() == 1 && vectors.len() != dim {
            return Err(IndexError::WrongDimension { expected: dim, received: vectors.len() });
        }
        check_vectors(vectors, items.len(), dim)?;
        items.iter().try_for_each(check_item)?;
        if items.is_empty() {
            return Ok(vec![]);
        }
        self.check_place()?;
        disk_space::check(&self.dir, STORED_TIMES * (vectors.len() * 4 + items.len() * 512) as u64)?;
        let mut inner = self.inner();
        self.reopen_failed(&mut inner)?;
        let store = self.store();
        let mut state = inner.state;
        let mut ids = Vec::with_capacity(items.len());
        let mut last: HashMap<&str, usize> = HashMap::with_capacity(items.len());
        for (at, item) in items.iter().enumerate() {
            let id = match (last.insert(&item.key, at), store.id_of(&item.key)?) {
                (Some(earlier), _) => ids[earlier],
                (None, Some(id)) => id,
                (None, None) => {
                    state.items += 1;
                    state.next_id += 1;
                    state.next_id - 1
                }
            };
            ids.push(id);
        }
        let kept = |at: &usize| last[items[*at].key.as_str()] == *at;
        let rows: Vec<usize> = (0..items.len()).filter(kept).collect();
        let row = |&at: &usize| (ids[at], &items[at], &vectors[at * dim..(at + 1) * dim]);
        let change = Change { upserts: rows.iter().map(row).collect(), deletes: vec![] };
        drop(store);
        let ticket = self.apply(&mut inner, &change, state)?;
        drop(inner);
        self.acknowledge(ticket)?;
        Ok(ids)
    }

    /// Removes items, all or none; unknown ids are passed over. Returns how many there were.
    pub fn delete(&self, ids: &[u64]) -> Result<usize> {
        self.check_place()?;
        let mut inner = self.inner();
        self.reopen_failed(&mut inner)?;
        let store = self.store();
        let mut deletes: Vec<(u64, String)> = Vec::with_capacity(ids.len());
        let mut sorted = ids.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        for id in sorted {
            if let Some(item) = store.item(id)? {
                deletes.push((id, item.key));
            }
        }
        drop(store);
        let count = deletes.len();
        if count > 0 {
            let state = store::State { items: inner.state.items - count as u64, ..inner.state };
            let ticket = self.apply(&mut inner, &Change { upserts: vec![], deletes }, state)?;
            drop(inner);
            self.acknowledge(ticket)?;
        }
        Ok(count)
    }

    /// Removes the items with these keys, all or none; unknown keys are passed over. Returns how many there were.
    pub fn delete_keys<K: AsRef<str>>(&self, keys: &[K]) -> Result<usize> {
        let ids = keys.iter().map(|key| self.find(key.as_ref())).collect::<Result<Vec<_>>>()?;
        self.delete(&ids.into_iter().flatten().collect::<Vec<_>>())
    }

    fn apply(&self, inner: &mut Inner, change: &Change<'_>, mut state: store::State) -> Result<Ticket> {
        state.sequence += 1;
        let ticket = Ticket { reopened: inner.found.len(), sequence: state.sequence };
        let applied = self.store().apply(change, state);
        if let Err(error) = applied {
            self.settle_failed(inner, ticket, error)?;
            return Ok(ticket);
        }
        inner.state = state;
        if !inner.has_readers() {
            inner.live = None;
        }
        let Some(recent) = &inner.recent else { return Ok(ticket) };
        let bytes = recent.delta.bytes() + change.upserts.len() * self.config.dim * 4;
        if bytes > HELD_BYTES && inner.live.is_none() {
            inner.recent = None;
            return Ok(ticket);
        }
        let deleted: Vec<u64> = change.deletes.iter().map(|d| d.0).collect();
        let items = change.upserts.iter().map(|(id, item, _)| (*item).clone().with_id(*id)).collect();
        let vectors: Vec<f32> = change.upserts.iter().flat_map(|u| u.2.iter().copied()).collect();
        let next = Arc::new(recent.with(&deleted, items, &vectors));
        inner.show(next);
        Ok(ticket)
    }

    /// A reader that sees every write of this writer as soon as it is made, whole batches at a time. The index must
    /// have been finished once.
    pub fn reader(&self) -> Result<Index> {
        let mut inner = self.inner();
        self.reopen_failed(&mut inner)?;
        if let Some(live) = &inner.live {
            return Ok(Index::from_live(&self.dir, live.clone()));
        }
        let snapshot = match &inner.snapshot {
            Some(snapshot) if !inner.damaged => snapshot.clone(),
            // Says what is wrong with it.
            _ => Arc::new(Snapshot::open(&self.dir, Memory::Auto)?),
        };
        snapshot.prepare_search(Memory::Auto)?;
        let recent = match &inner.recent {
            Some(recent) => recent.clone(),
            None => Arc::new(state_since(&self.store(), snapshot)?),
        };
        inner.epoch += u64::from(inner.recent.is_none());
        let live = Arc::new(Live::new(recent.clone()));
        inner.recent = Some(recent);
        inner.live = Some(live.clone());
        Ok(Index::from_live(&self.dir, live))
    }

    /// The store, opened again if its disk failed.
    fn usable_store(&self) -> Result<RwLockReadGuard<'_, Store>> {
        let store = self.store();
        if store.failure().is_none() {
            return Ok(store);
        }
        drop(store);
        self.reopen_failed(&mut self.inner())?;
        Ok(self.store())
    }

    fn store(&self) -> RwLockReadGuard<'_, Store> {
        self.store.read().unwrap_or_else(|e| e.into_inner())
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// Closes a store that nobody uses any more.
fn drop_store(store: RwLock<Store>) {
    drop(store.into_inner().unwrap_or_else(|e| e.into_inner()));
}

/// A published state and what the store holds beyond it.
fn state_since(store: &Store, snapshot: Arc<Snapshot>) -> Result<State> {
    let sequence = snapshot.manifest.sequence;
    if store.forgotten()? > sequence {
        let path = store.path().with_file_name(FILE_NAME);
        return Err(IndexError::damaged(path, "it is older than what was published last"));
    }
    let (mut items, mut vectors, mut gone) = (vec![], vec![], vec![]);
    for id in store.changed_since(sequence)? {
        match store.item(id)? {
            Some(item) if store.vector(id, &mut vectors)? => items.push(item),
            _ => gone.push(id),
        }
    }
    let delta = Delta::default().with(&gone, items, &vectors, store.config().dim);
    Ok(State::of(snapshot, delta))
}

fn check_item(item: &NewItem) -> Result<()> {
    let bad = |what: &str| Err(IndexError::Item { key: item.key.clone(), what: what.into() });
    if item.key.is_empty() {
        return bad("its key is empty");
    }
    if item.key.len() > MAX_KEY_BYTES {
        return bad("its key is longer than 4096 bytes");
    }
    // What lies deeper could be written and never be read again.
    if item.metadata.values().any(|value| !is_within(value, MAX_METADATA_DEPTH)) {
        return bad("its metadata has lists or objects that lie more than 64 deep in each other");
    }
    Ok(())
}

/// Whether a value and what it holds lie within so many levels.
fn is_within(value: &Value, levels: usize) -> bool {
    match value {
        _ if levels == 0 => false,
        Value::Array(elements) => elements.iter().all(|element| is_within(element, levels - 1)),
        Value::Object(entries) => entries.values().all(|entry| is_within(entry, levels - 1)),
        _ => true,
    }
}
