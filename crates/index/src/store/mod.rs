//! The truth: vectors and items in sled. The only place that names sled.
//!
//! Five trees: `vectors` and `items` by big-endian id, `keys` from key to id, `changes` from id to the number of the
//! write that last touched it (what the published files do not hold yet), `meta`. Every write is one transaction over
//! all five; before it, `vectors` and `items` get empty placeholders for
//! new ids (`placeholders.rs`). Only a writer opens the store: sled wants it for itself, readers use the published files.
//!
//! sled's `flush` hands its log to the operating system (`sync_file_range` on Linux, which promises nothing about
//! metadata or the disk's cache, and nothing at all for values that outgrow a log segment and are written as files of
//! their own). [`Store::sync`] therefore fsyncs the log, those files and their folder itself.
//!
//! sled writes several bytes per byte stored. It writes a record as an addition to its page, the whole page again after
//! ten additions, both halves when a page of 17 records is split together with the parent's page of up to 256 entries,
//! and pages again to free segments of its log of which half is out of date. With placeholders an import writes each
//! vector once; what remains beside that are parents' pages of three trees and pages moved when segments are freed.
//!
//! After a write that failed, what sled has in memory is not what is on the disk. The store is then used no more: it is
//! closed and opened again ([`Store::close`], [`Store::reopen`]).

mod blobs;
mod changes;
pub(crate) mod codec;
pub(crate) mod disk_space;
mod failure;
mod flush;
mod folder;
mod guard;
mod opening;
mod placeholders;
mod rewrite;
mod rows;
mod state;
mod undo;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32};

use sled::transaction::ConflictableTransactionError;
use sled::{Db, IVec, Transactional, Tree};

use self::blobs::Blobs;
use self::codec::CodecError;
use self::failure::Failure;
pub(crate) use self::folder::{FOLDER, exists, files, folder, is_blank, is_incomplete, is_its_name, remove};
use self::guard::{guarded, store_error};
use self::placeholders::is_placeholder;
pub(crate) use self::state::State;
use self::undo::Undo;
use crate::config::IndexConfig;
use crate::error::{IndexError, Result};
use crate::item::{Item, NewItem};

const FORMAT_KEY: &str = "format";
const CONFIG_KEY: &str = "config";
const STATE_KEY: &str = "state";
/// Number of the last write whose note of change may be forgotten.
const FORGOTTEN_KEY: &str = "forgotten";
/// That number while writes note nothing, since nothing is published. A store of an earlier program has no number at
/// first, and notes everything.
const NOTHING_NOTED: u64 = u64::MAX;

/// One atomic write.
#[derive(Default)]
pub(crate) struct Change<'a> {
    pub(crate) upserts: Vec<(u64, &'a NewItem, &'a [f32])>,
    pub(crate) deletes: Vec<(u64, String)>,
}

/// The store of an index, held by its one writer.
pub(crate) struct Store {
    path: PathBuf,
    /// `None` once the store is closed.
    trees: Option<Trees>,
    config: IndexConfig,
    /// Version of the format that the store says it has.
    format: AtomicU32,
    /// Whether writes note what they change: from the first publication on.
    is_noting: AtomicBool,
    blobs: Blobs,
    failure: Mutex<Option<Failure>>,
    /// What a transaction that was cut short replaced, till it is written to the disk.
    undo: Mutex<Option<Undo>>,
}

struct Trees {
    db: Db,
    vectors: Tree,
    items: Tree,
    keys: Tree,
    changes: Tree,
    meta: Tree,
}

impl Store {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn config(&self) -> &IndexConfig {
        &self.config
    }

    /// Replaces the configuration, durably.
    pub(crate) fn set_config(&mut self, config: IndexConfig) -> Result<()> {
        let json = serde_json::to_vec(&config).expect("a configuration is plain data");
        self.write(|trees| trees.meta.insert(CONFIG_KEY, json.as_slice()).map(drop))?;
        self.sync()?;
        self.config = config;
        Ok(())
    }

    pub(crate) fn state(&self) -> Result<State> {
        let bytes = self.read(|trees| trees.meta.get(STATE_KEY))?;
        bytes.and_then(|b| State::decode(&b)).ok_or_else(|| self.damaged("its counters are missing"))
    }

    /// Applies a change as one transaction: whole or not at all, whatever happens. Not durable before [`Self::sync`].
    pub(crate) fn apply(&self, change: &Change<'_>, state: State) -> Result<()> {
        let before = self.before(change)?;
        self.insert_placeholders(change, before.next_id())?;
        let applied = self.transact(change, state);
        if applied.is_err() && self.is_cut_short() {
            *self.undo.lock().unwrap_or_else(|e| e.into_inner()) = Some(before);
            // If it fails, it is tried again while the process lives.
            let _ = self.keep_undo();
        }
        applied
    }

    fn transact(&self, change: &Change<'_>, state: State) -> Result<()> {
        let (is_noting, sequence) = (self.is_noting(), state.sequence.to_le_bytes());
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
        self.write(|trees| {
            (&trees.vectors, &trees.items, &trees.keys, &trees.changes, &trees.meta)
                .transaction(|(vectors, items, keys, changes, meta)| {
                    for (id, key, item, vector) in &upserts {
                        vectors.insert(id, vector.as_slice())?;
                        items.insert(id, item.as_slice())?;
                        keys.insert(*key, id)?;
                        if is_noting {
                            changes.insert(id, &sequence)?;
                        }
                    }
                    for (id, key) in &change.deletes {
                        let id = codec::encode_id(*id);
                        vectors.remove(&id)?;
                        items.remove(&id)?;
                        keys.remove(key.as_bytes())?;
                        if is_noting {
                            changes.insert(&id, &sequence)?;
                        }
                    }
                    meta.insert(STATE_KEY, state.encode())?;
                    Ok::<(), ConflictableTransactionError<std::convert::Infallible>>(())
                })
                .map_err(store_error)
        })
    }

    /// Hands everything applied so far to the operating system: it survives the death of the process.
    pub(crate) fn flush(&self) -> Result<()> {
        self.check()?;
        let flushed = guarded(&self.path, || flush::flush(&self.trees().db, || self.is_cut_short()));
        flushed.inspect_err(|error| self.fail(error, true))
    }

    /// Makes everything applied so far survive a power cut.
    pub(crate) fn sync(&self) -> Result<()> {
        self.flush()?;
        let log = folder::log(&self.path);
        let synced = File::open(&log).and_then(|f| f.sync_all()).map_err(|e| IndexError::io(&log, e));
        let synced = synced.and_then(|()| self.blobs.sync(&self.path.join("blobs")));
        synced.inspect_err(|error| self.fail(error, true))
    }

    pub(crate) fn id_of(&self, key: &str) -> Result<Option<u64>> {
        let id = self.read(|trees| trees.keys.get(key.as_bytes()))?;
        id.map(|b| codec::decode_id(&b).map_err(|e| self.record_error("key", key, e))).transpose()
    }

    pub(crate) fn item(&self, id: u64) -> Result<Option<Item>> {
        let bytes = self.record(id)?;
        bytes.map(|b| codec::decode_item(id, &b).map_err(|e| self.record_error("item", id, e))).transpose()
    }

    /// The record of an item, still encoded.
    fn record(&self, id: u64) -> Result<Option<IVec>> {
        let bytes = self.read(|trees| trees.items.get(codec::encode_id(id)))?;
        Ok(bytes.filter(|bytes| !is_placeholder(bytes)))
    }

    /// Appends the vector of an item to `out`; false if there is none.
    pub(crate) fn vector(&self, id: u64, out: &mut Vec<f32>) -> Result<bool> {
        let bytes = self.read(|trees| trees.vectors.get(codec::encode_id(id)))?;
        let Some(bytes) = bytes.filter(|bytes| !is_placeholder(bytes)) else { return Ok(false) };
        codec::decode_vector(&bytes, self.config.dim, out).map_err(|e| self.record_error("vector", id, e))?;
        Ok(true)
    }

    /// Every vector in order of ids. What cannot be read is handed over as an error, for the caller to judge.
    pub(crate) fn scan_vectors(
        &self,
        mut visit: impl FnMut(u64, Result<&[f32]>) -> Result<()>,
    ) -> Result<()> {
        let mut vector = Vec::with_capacity(self.config.dim);
        self.scan(
            |trees| &trees.vectors,
            |key, value| {
                if is_placeholder(value) {
                    return Ok(());
                }
                let id = codec::decode_id(key).map_err(|e| self.record_error("id", format!("{key:?}"), e))?;
                vector.clear();
                match codec::decode_vector(value, self.config.dim, &mut vector) {
                    Ok(()) => visit(id, Ok(&vector)),
                    Err(e) => visit(id, Err(self.record_error("vector", id, e))),
                }
            },
        )
    }

    /// The record of every item in order of ids, still encoded.
    pub(crate) fn scan_items(&self, mut visit: impl FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
        self.scan(
            |trees| &trees.items,
            |key, value| {
                if is_placeholder(value) {
                    return Ok(());
                }
                visit(
                    codec::decode_id(key).map_err(|e| self.record_error("id", format!("{key:?}"), e))?,
                    value,
                )
            },
        )
    }

    /// Every key with its id, in order of keys.
    pub(crate) fn scan_keys(&self, mut visit: impl FnMut(&[u8], u64) -> Result<()>) -> Result<()> {
        self.scan(
            |trees| &trees.keys,
            |key, value| {
                visit(
                    key,
                    codec::decode_id(value).map_err(|e| self.record_error("key", format!("{key:?}"), e))?,
                )
            },
        )
    }

    fn scan(
        &self,
        tree: impl FnOnce(&Trees) -> &Tree,
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut entries = self.read(|trees| Ok(tree(trees).iter()))?;
        while let Some((key, value)) = self.read(|_| entries.next().transpose())? {
            visit(&key, &value)?;
        }
        Ok(())
    }

    fn trees(&self) -> &Trees {
        self.trees.as_ref().expect("a store that was closed is not used")
    }

    fn read<T>(&self, work: impl FnOnce(&Trees) -> Result<T, sled::Error>) -> Result<T> {
        self.check()?;
        guarded(&self.path, || work(self.trees())).inspect_err(|error| self.fail_reading(error))
    }

    /// Runs work that writes. If it fails, the store is used no more.
    fn write<T>(&self, work: impl FnOnce(&Trees) -> Result<T, sled::Error>) -> Result<T> {
        self.check()?;
        guarded(&self.path, || work(self.trees())).inspect_err(|error| self.fail(error, false))
    }

    pub(crate) fn damaged(&self, what: impl Into<String>) -> IndexError {
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
        store.begin_notes(0).unwrap();
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
