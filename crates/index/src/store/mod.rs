//! The truth: vectors and items in sled. The only place that names sled.
//!
//! Five trees: `vectors` and `items` by big-endian id, `keys` from key to id, `changes` from id to the number of the
//! write that last touched it (what the published files do not hold yet), `meta`. Every write is one transaction over
//! all five. Only a writer opens the store: sled wants it for itself, readers use the published files.
//!
//! sled's `flush` hands its log to the operating system (`sync_file_range` on Linux, which promises nothing about
//! metadata or the disk's cache, and nothing at all for values that outgrow a log segment and are written as files of
//! their own). [`Store::sync`] therefore fsyncs the log, those files and their folder itself.

mod blobs;
mod guard;
mod state;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sled::transaction::ConflictableTransactionError;
use sled::{Db, Transactional, Tree};

use self::blobs::Blobs;
use self::guard::{guarded, store_error};
pub(crate) use self::state::State;
use crate::codec::{self, CodecError};
use crate::config::IndexConfig;
use crate::error::{IndexError, Result};
use crate::item::{Item, NewItem};
use crate::manifest::{FORMAT, OLDEST_FORMAT, sync_dir};
use crate::space;

const FOLDER: &str = "store";
const FORMAT_KEY: &str = "format";
const CONFIG_KEY: &str = "config";
const STATE_KEY: &str = "state";
/// sled's cache of pages; the scans of a build gain nothing from more.
const CACHE_BYTES: u64 = 128 << 20;
/// Notes of changes removed in one batch.
const FORGET_AT_ONCE: usize = 1024;
/// How long sled's own lock is tried again.
const LOCK_WAIT: Duration = Duration::from_secs(1);

/// Whether `dir` holds a store.
pub(crate) fn exists(dir: &Path) -> bool {
    dir.join(FOLDER).join("db").is_file()
}

/// Folder of the store within that of the index.
pub(crate) fn folder(dir: &Path) -> PathBuf {
    dir.join(FOLDER)
}

/// One atomic write.
#[derive(Default)]
pub(crate) struct Change<'a> {
    pub(crate) upserts: Vec<(u64, &'a NewItem, &'a [f32])>,
    pub(crate) deletes: Vec<(u64, String)>,
}

/// The store of an index, held by its one writer.
pub(crate) struct Store {
    path: PathBuf,
    db: Db,
    vectors: Tree,
    items: Tree,
    keys: Tree,
    changes: Tree,
    meta: Tree,
    config: IndexConfig,
    blobs: Blobs,
}

impl Store {
    /// Creates the store of a new index.
    pub(crate) fn create(dir: &Path, config: &IndexConfig) -> Result<Self> {
        let store = Self::open_trees(dir, config.clone())?;
        let json = serde_json::to_vec(config).expect("a configuration is plain data");
        store.guard(|| {
            store
                .meta
                .transaction(|meta| {
                    meta.insert(FORMAT_KEY, &FORMAT.to_le_bytes())?;
                    meta.insert(CONFIG_KEY, json.as_slice())?;
                    meta.insert(STATE_KEY, State::default().encode())?;
                    Ok::<(), ConflictableTransactionError<std::convert::Infallible>>(())
                })
                .map_err(store_error)
        })?;
        store.sync()?;
        sync_dir(&store.path)?;
        sync_dir(dir)?;
        Ok(store)
    }

    /// Opens the store of an index.
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let mut store = Self::open_trees(dir, IndexConfig::new(1, ""))?;
        let (format, config) =
            store.guard(|| Ok((store.meta.get(FORMAT_KEY)?, store.meta.get(CONFIG_KEY)?)))?;
        let format = format.and_then(|f| Some(u32::from_le_bytes(f.as_ref().try_into().ok()?)));
        let found = format.ok_or_else(|| store.damaged("its format version is missing"))?;
        if !(OLDEST_FORMAT..=FORMAT).contains(&found) {
            let (oldest, newest) = (OLDEST_FORMAT, FORMAT);
            return Err(IndexError::FormatVersion { dir: dir.into(), found, oldest, newest });
        }
        store.config = config
            .and_then(|c| serde_json::from_slice(&c).ok())
            .ok_or_else(|| store.damaged("its configuration is missing or unreadable"))?;
        store.state()?;
        Ok(store)
    }

    fn open_trees(dir: &Path, config: IndexConfig) -> Result<Self> {
        // sled writes while it recovers: without room for that it leaves a store that cannot be opened any more.
        space::check(dir, 0)?;
        let path = folder(dir);
        let open = || -> sled::Result<_> {
            // Flushing is ours to time; a thread that does it as well would only take the log's lock from us.
            let db =
                sled::Config::new().path(&path).cache_capacity(CACHE_BYTES).flush_every_ms(None).open()?;
            let tree = |name: &str| db.open_tree(name);
            let trees = (tree("vectors")?, tree("items")?, tree("keys")?, tree("changes")?, tree("meta")?);
            Ok((db, trees))
        };
        let deadline = Instant::now() + LOCK_WAIT;
        let (db, (vectors, items, keys, changes, meta)) = loop {
            match guarded(&path, open) {
                Err(IndexError::Store { what, .. }) if what.contains("could not acquire lock") => {
                    // The caller has this crate's lock, so whoever has sled's is an earlier opening on its way out
                    // (sled's threads end after it) or another program.
                    if Instant::now() > deadline {
                        let holder = "another program that opened its store".into();
                        return Err(IndexError::Locked { dir: dir.into(), holder });
                    }
                    std::thread::sleep(LOCK_WAIT / 50);
                }
                opened => break opened?,
            }
        };
        Ok(Self { path, db, vectors, items, keys, changes, meta, config, blobs: Blobs::default() })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn config(&self) -> &IndexConfig {
        &self.config
    }

    pub(crate) fn state(&self) -> Result<State> {
        let bytes = self.guard(|| self.meta.get(STATE_KEY))?;
        bytes.and_then(|b| State::decode(&b)).ok_or_else(|| self.damaged("its counters are missing"))
    }

    /// Applies a change as one transaction: whole or not at all, whatever happens. Not durable before [`Self::sync`].
    pub(crate) fn apply(&self, change: &Change<'_>, state: State) -> Result<()> {
        let sequence = state.sequence.to_le_bytes();
        let upserts: Vec<_> = change
            .upserts
            .iter()
            .map(|(id, item, vector)| {
                (
                    codec::encode_id(*id),
                    item.key.as_bytes(),
                    codec::encode_item(item),
                    codec::encode_vector(vector),
                )
            })
            .collect();
        self.guard(|| {
            (&self.vectors, &self.items, &self.keys, &self.changes, &self.meta)
                .transaction(|(vectors, items, keys, changes, meta)| {
                    for (id, key, item, vector) in &upserts {
                        vectors.insert(id, vector.as_slice())?;
                        items.insert(id, item.as_slice())?;
                        keys.insert(*key, id)?;
                        changes.insert(id, &sequence)?;
                    }
                    for (id, key) in &change.deletes {
                        let id = codec::encode_id(*id);
                        vectors.remove(&id)?;
                        items.remove(&id)?;
                        keys.remove(key.as_bytes())?;
                        changes.insert(&id, &sequence)?;
                    }
                    meta.insert(STATE_KEY, state.encode())?;
                    Ok::<(), ConflictableTransactionError<std::convert::Infallible>>(())
                })
                .map_err(store_error)
        })
    }

    /// Hands everything applied so far to the operating system: it survives the death of the process.
    pub(crate) fn flush(&self) -> Result<()> {
        self.guard(|| self.db.flush().map(drop))
    }

    /// Makes everything applied so far survive a power cut.
    pub(crate) fn sync(&self) -> Result<()> {
        self.flush()?;
        let log = self.path.join("db");
        File::open(&log).and_then(|f| f.sync_all()).map_err(|e| IndexError::io(&log, e))?;
        self.blobs.sync(&self.path.join("blobs"))
    }

    pub(crate) fn id_of(&self, key: &str) -> Result<Option<u64>> {
        let id = self.guard(|| self.keys.get(key.as_bytes()))?;
        id.map(|b| codec::decode_id(&b).map_err(|e| self.record_error("key", key, e))).transpose()
    }

    pub(crate) fn item(&self, id: u64) -> Result<Option<Item>> {
        let bytes = self.guard(|| self.items.get(codec::encode_id(id)))?;
        bytes.map(|b| codec::decode_item(id, &b).map_err(|e| self.record_error("item", id, e))).transpose()
    }

    /// Appends the vector of an item to `out`; false if there is none.
    pub(crate) fn vector(&self, id: u64, out: &mut Vec<f32>) -> Result<bool> {
        let Some(bytes) = self.guard(|| self.vectors.get(codec::encode_id(id)))? else {
            return Ok(false);
        };
        codec::decode_vector(&bytes, self.config.dim, out).map_err(|e| self.record_error("vector", id, e))?;
        Ok(true)
    }

    /// Every vector in order of ids. What cannot be read is handed over as an error, for the caller to judge.
    pub(crate) fn scan_vectors(
        &self,
        mut visit: impl FnMut(u64, Result<&[f32]>) -> Result<()>,
    ) -> Result<()> {
        let mut vector = Vec::with_capacity(self.config.dim);
        self.scan(&self.vectors, |key, value| {
            let id = codec::decode_id(key).map_err(|e| self.record_error("id", format!("{key:?}"), e))?;
            vector.clear();
            match codec::decode_vector(value, self.config.dim, &mut vector) {
                Ok(()) => visit(id, Ok(&vector)),
                Err(e) => visit(id, Err(self.record_error("vector", id, e))),
            }
        })
    }

    /// The record of every item in order of ids, still encoded.
    pub(crate) fn scan_items(&self, mut visit: impl FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
        self.scan(&self.items, |key, value| {
            visit(codec::decode_id(key).map_err(|e| self.record_error("id", format!("{key:?}"), e))?, value)
        })
    }

    /// Every key with its id, in order of keys.
    pub(crate) fn scan_keys(&self, mut visit: impl FnMut(&[u8], u64) -> Result<()>) -> Result<()> {
        self.scan(&self.keys, |key, value| {
            visit(key, codec::decode_id(value).map_err(|e| self.record_error("key", format!("{key:?}"), e))?)
        })
    }

    fn scan(&self, tree: &Tree, mut visit: impl FnMut(&[u8], &[u8]) -> Result<()>) -> Result<()> {
        self.guard(|| {
            for entry in tree.iter() {
                let (key, value) = entry?;
                if let Err(e) = visit(&key, &value) {
                    return Ok(Err(e));
                }
            }
            Ok(Ok(()))
        })?
    }

    /// Ids touched since the published files were written, ascending.
    pub(crate) fn changed_since(&self, sequence: u64) -> Result<Vec<u64>> {
        let mut ids = Vec::new();
        self.scan(&self.changes, |key, value| {
            if value.try_into().map(u64::from_le_bytes).unwrap_or(u64::MAX) > sequence {
                ids.push(codec::decode_id(key).map_err(|e| self.record_error("id", format!("{key:?}"), e))?);
            }
            Ok(())
        })?;
        Ok(ids)
    }

    /// Forgets the changes that published files hold.
    pub(crate) fn forget_changes(&self, published: u64) -> Result<()> {
        let mut stale: Vec<sled::IVec> = Vec::new();
        self.scan(&self.changes, |key, value| {
            if value.try_into().map(u64::from_le_bytes).is_ok_and(|sequence| sequence <= published) {
                stale.push(key.into());
            }
            Ok(())
        })?;
        // All of them at once would take kilobytes each: sled copies a page for every key, and keeps the copies until the
        // batch is through. A part that is left over after a crash is forgotten the next time.
        for keys in stale.chunks(FORGET_AT_ONCE) {
            let mut batch = sled::Batch::default();
            keys.iter().for_each(|key| batch.remove(key.clone()));
            self.guard(|| self.changes.apply_batch(batch))?;
        }
        Ok(())
    }

    fn guard<T>(&self, work: impl FnOnce() -> Result<T, sled::Error>) -> Result<T> {
        guarded(&self.path, work)
    }

    fn damaged(&self, what: impl Into<String>) -> IndexError {
        IndexError::StoreDamaged { path: self.path.clone(), what: what.into() }
    }

    fn record_error(&self, what: &str, which: impl std::fmt::Display, error: CodecError) -> IndexError {
        self.damaged(format!("{what} {which}: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::create(dir.path(), &IndexConfig::new(2, "m")).unwrap();
        (dir, store)
    }

    fn upsert(store: &Store, id: u64, key: &str, sequence: u64) {
        let item = NewItem::new(key);
        let change = Change { upserts: vec![(id, &item, &[0.6, 0.8])], deletes: vec![] };
        store.apply(&change, State { next_id: id + 1, sequence, items: 1 }).unwrap();
    }

    #[test]
    fn writes_are_there_after_reopening() {
        let (dir, store) = store();
        upsert(&store, 3, "a", 1);
        store.sync().unwrap();
        drop(store);
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(store.config().model, "m");
        assert_eq!(store.state().unwrap(), State { next_id: 4, sequence: 1, items: 1 });
        assert_eq!(store.id_of("a").unwrap(), Some(3));
        assert_eq!(store.item(3).unwrap().unwrap().key, "a");
        let mut vector = vec![];
        assert!(store.vector(3, &mut vector).unwrap() && !store.vector(4, &mut vector).unwrap());
        assert_eq!(vector, [0.6, 0.8]);
    }

    #[test]
    fn a_deleted_item_leaves_nothing_but_the_note_of_its_change() {
        let (_dir, store) = store();
        upsert(&store, 0, "a", 1);
        let change = Change { upserts: vec![], deletes: vec![(0, "a".into())] };
        store.apply(&change, State { next_id: 1, sequence: 2, items: 0 }).unwrap();
        assert_eq!(store.id_of("a").unwrap(), None);
        assert!(store.item(0).unwrap().is_none() && !store.vector(0, &mut vec![]).unwrap());
        assert_eq!(store.changed_since(1).unwrap(), [0]);
        assert_eq!(store.changed_since(2).unwrap(), [0; 0]);
        store.forget_changes(2).unwrap();
        assert_eq!(store.changed_since(0).unwrap(), [0; 0]);
    }

    #[test]
    fn scans_are_in_order_of_ids() {
        let (_dir, store) = store();
        for (i, id) in [300u64, 2, 255, 256].into_iter().enumerate() {
            upsert(&store, id, &format!("k{id}"), i as u64 + 1);
        }
        let mut ids = vec![];
        store
            .scan_vectors(|id, vector| {
                ids.push((id, vector?[0]));
                Ok(())
            })
            .unwrap();
        assert_eq!(ids, [(2, 0.6), (255, 0.6), (256, 0.6), (300, 0.6)]);
    }

    #[test]
    fn a_second_opening_is_refused() {
        let (dir, store) = store();
        let error = Store::open(dir.path()).err().unwrap();
        assert!(matches!(error, IndexError::Locked { .. }), "{error:?}");
        drop(store);
        Store::open(dir.path()).unwrap();
    }
}
