//! What a transaction replaces, kept for the case that it is cut short.
//!
//! sled makes a transaction whole again if its own log fails, or the process dies. If it cannot make the file of a large
//! page, or read one, it returns an error in the middle, and may keep what it wrote till then. What was there before is
//! then written to a file of our own, and put back when the store is opened the next time.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use sled::IVec;
use sled::transaction::ConflictableTransactionError;

use super::guard::store_error;
use super::placeholders::is_placeholder;
use super::{Change, STATE_KEY, State, Store};
use crate::error::{IndexError, Result};
use crate::segment::manifest::sync_dir;
use crate::store::codec;

const FILE: &str = "undo";

/// The state before a transaction.
pub(super) struct Undo {
    state: State,
    items: Vec<Before>,
}

/// An item that a transaction touches, and its records before, if there were any.
struct Before {
    id: u64,
    key: Vec<u8>,
    records: Option<(IVec, IVec)>,
}

impl Store {
    /// What a change is about to replace.
    pub(super) fn before(&self, change: &Change<'_>) -> Result<Undo> {
        let state = self.state()?;
        let upserts = change.upserts.iter().map(|(id, item, _)| (*id, item.key.as_bytes()));
        let deletes = change.deletes.iter().map(|(id, key)| (*id, key.as_bytes()));
        let items = upserts.chain(deletes).map(|(id, key)| {
            let at = codec::encode_id(id);
            let records = match id < state.next_id {
                true => {
                    let records = self.read(|trees| Ok(trees.items.get(at)?.zip(trees.vectors.get(at)?)))?;
                    records.filter(|(item, vector)| !is_placeholder(item) && !is_placeholder(vector))
                }
                false => None,
            };
            Ok(Before { id, key: key.to_vec(), records })
        });
        Ok(Undo { state, items: items.collect::<Result<_>>()? })
    }

    /// Puts back what a transaction replaced that was cut short before the store was opened.
    pub(super) fn undo(&self) -> Result<()> {
        let path = path(&self.path);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(IndexError::io(&path, e)),
        };
        let undo = Undo::decode(&bytes).ok_or_else(|| self.damaged("the file `undo` is not whole"))?;
        // With another number the transaction is there as a whole, or nothing of it is.
        if self.state()?.sequence == undo.state.sequence {
            self.put_back(&undo)?;
            self.sync()?;
        }
        fs::remove_file(&path).map_err(|e| IndexError::io(&path, e))?;
        sync_dir(&self.path)
    }

    fn put_back(&self, undo: &Undo) -> Result<()> {
        use sled::Transactional as _;
        let sequence = undo.state.sequence + 1;
        self.write(|trees| {
            (&trees.vectors, &trees.items, &trees.keys, &trees.changes, &trees.meta)
                .transaction(|(vectors, items, keys, changes, meta)| {
                    for Before { id, key, records } in &undo.items {
                        let id = codec::encode_id(*id);
                        match records {
                            Some((item, vector)) => {
                                items.insert(&id, item.clone())?;
                                vectors.insert(&id, vector.clone())?;
                                keys.insert(key.as_slice(), &id)?;
                            }
                            None => {
                                items.remove(&id)?;
                                vectors.remove(&id)?;
                                keys.remove(key.as_slice())?;
                            }
                        }
                        changes.insert(&id, &sequence.to_le_bytes())?;
                    }
                    meta.insert(STATE_KEY, State { sequence, ..undo.state }.encode())?;
                    Ok::<(), ConflictableTransactionError<std::convert::Infallible>>(())
                })
                .map_err(store_error)
        })
    }
}

impl Undo {
    /// The first id that was not given out.
    pub(super) fn next_id(&self) -> u64 {
        self.state.next_id
    }

    /// Writes the file, whole or not at all.
    pub(super) fn keep(&self, folder: &Path) -> Result<()> {
        let (path, temporary) = (path(folder), folder.join("undo.tmp"));
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&temporary)?;
            file.write_all(&self.encode())?;
            file.sync_all()?;
            fs::rename(&temporary, &path)
        };
        write().map_err(|e| IndexError::io(&path, e))?;
        sync_dir(folder)
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = self.state.encode();
        let mut put = |bytes: &[u8]| {
            out.extend((bytes.len() as u64).to_le_bytes());
            out.extend(bytes);
        };
        for Before { id, key, records } in &self.items {
            put(&id.to_le_bytes());
            put(key);
            // A record is never empty.
            let (item, vector) =
                records.as_ref().map_or((&[][..], &[][..]), |(i, v)| (i.as_ref(), v.as_ref()));
            put(item);
            put(vector);
        }
        let checksum = crc32fast::hash(&out);
        out.extend(checksum.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (payload, checksum) = bytes.split_last_chunk::<4>()?;
        if crc32fast::hash(payload) != u32::from_le_bytes(*checksum) {
            return None;
        }
        let (state, mut rest) = payload.split_at_checked(24)?;
        let mut take = || -> Option<Option<Vec<u8>>> {
            let Some((len, after)) = rest.split_first_chunk::<8>() else { return Some(None) };
            let (value, after) = after.split_at_checked(usize::try_from(u64::from_le_bytes(*len)).ok()?)?;
            rest = after;
            Some(Some(value.to_vec()))
        };
        let mut items = vec![];
        while let Some(id) = take()? {
            let id = u64::from_le_bytes(id.try_into().ok()?);
            let (key, item, vector) = (take()??, take()??, take()??);
            let records = (!item.is_empty()).then(|| (item.into(), vector.into()));
            items.push(Before { id, key, records });
        }
        Some(Self { state: State::decode(state)?, items })
    }
}

fn path(folder: &Path) -> PathBuf {
    folder.join(FILE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::IndexConfig;
    use crate::item::NewItem;

    #[test]
    fn what_was_replaced_comes_back_and_what_was_new_goes() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::create(dir.path(), &IndexConfig::new(2, "m")).unwrap();
        store.begin_notes(0).unwrap();
        let (old, new) = (NewItem::new("old"), NewItem::new("new"));
        let change = Change { upserts: vec![(0, &old, &[0.6, 0.8])], deletes: vec![] };
        let before = State { next_id: 1, sequence: 1, items: 1 };
        store.apply(&change, before).unwrap();
        let change =
            Change { upserts: vec![(0, &old, &[1.0, 0.0]), (1, &new, &[0.0, 1.0])], deletes: vec![] };
        let undo = store.before(&change).unwrap();
        // As if the counters, which a transaction writes last, had not come to the disk.
        store.apply(&change, before).unwrap();
        undo.keep(&store.path).unwrap();
        store.sync().unwrap();
        drop(store);
        let store = Store::open(dir.path()).unwrap();
        let mut vector = vec![];
        assert!(store.vector(0, &mut vector).unwrap() && store.item(1).unwrap().is_none());
        assert_eq!(vector, [0.6, 0.8]);
        assert_eq!((store.id_of("old").unwrap(), store.id_of("new").unwrap()), (Some(0), None));
        assert_eq!(store.state().unwrap(), State { sequence: 2, ..before });
        assert_eq!(store.changed_since(1).unwrap(), [0, 1]);
        assert!(!path(&store.path).exists());
    }

    #[test]
    fn a_file_that_was_changed_is_not_believed() {
        let item = Before { id: 7, key: b"k".to_vec(), records: Some((IVec::from(b"i"), IVec::from(b"v"))) };
        let bytes = Undo { state: State::default(), items: vec![item] }.encode();
        assert_eq!(Undo::decode(&bytes).unwrap().items[0].key, b"k");
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(Undo::decode(&bad).is_none() && Undo::decode(&bytes[..at]).is_none());
        }
    }
}
