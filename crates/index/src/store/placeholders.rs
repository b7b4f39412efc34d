//! Placeholders: ids without a vector or a record, inserted before those of a batch are.
//!
//! sled writes both halves of a leaf whole when it splits one, and the parent's page with them. A leaf is split while it
//! holds the placeholders of new ids, which are empty, and each vector is then written once, as an addition to a leaf of
//! eight or nine keys. Without placeholders a vector is written some three times more. Records get them as well: pages
//! that are out of date within seconds then lie together in the log, not between vectors that would have to be moved
//! when sled frees the place.
//!
//! A placeholder counts as nothing. Placeholders have ids that were not given out when they were inserted: those that
//! an interrupted write leaves behind are used by the next one, and removed by [`Store::remove_placeholders`].

use std::sync::atomic::Ordering;

use sled::{IVec, Tree};

use super::{Change, FORMAT_KEY, Store, Trees, codec};
use crate::error::Result;
use crate::segment::manifest::FORMAT;

/// New ids from which on a change gets placeholders: fewer do not fill a leaf.
const FROM: usize = 16;

/// The trees that get placeholders.
const TREES: [fn(&Trees) -> &Tree; 2] = [|trees| &trees.vectors, |trees| &trees.items];

/// Whether the value of an id stands for nothing. Neither a vector nor a record is ever empty.
pub(super) fn is_placeholder(value: &[u8]) -> bool {
    value.is_empty()
}

impl Store {
    /// Inserts placeholders for the ids of a change that are not given out yet. `next_id` is the first of them.
    pub(super) fn insert_placeholders(&self, change: &Change<'_>, next_id: u64) -> Result<()> {
        let mut ids: Vec<u64> =
            change.upserts.iter().map(|(id, _, _)| *id).filter(|id| *id >= next_id).collect();
        if ids.len() < FROM {
            return Ok(());
        }
        // An earlier program would take a placeholder for a damaged vector.
        if self.format.load(Ordering::Relaxed) < FORMAT {
            self.write(|trees| trees.meta.insert(FORMAT_KEY, &FORMAT.to_le_bytes()).map(drop))?;
            self.format.store(FORMAT, Ordering::Relaxed);
        }
        // In rising order every leaf but the last ends with the eight keys of a half. One by one: sled keeps what it
        // writes in one batch in memory until the batch is through.
        ids.sort_unstable();
        for tree in TREES {
            for id in &ids {
                let at = codec::encode_id(*id);
                self.write(|trees| match tree(trees).contains_key(at)? {
                    // Left behind by a write that was interrupted.
                    true => Ok(()),
                    false => tree(trees).insert(at, IVec::default()).map(drop),
                })?;
            }
        }
        Ok(())
    }

    /// Removes the placeholders that interrupted writes left behind. Writes may go on meanwhile. Returns how many there
    /// were.
    pub(crate) fn remove_placeholders(&self) -> Result<usize> {
        let (first, mut removed) = (codec::encode_id(self.state()?.next_id), 0);
        for tree in TREES {
            let mut left = vec![];
            let mut entries = self.read(|trees| Ok(tree(trees).range(first..)))?;
            while let Some((key, value)) = self.read(|_| entries.next().transpose())? {
                if is_placeholder(&value) {
                    left.push(key);
                }
            }
            for key in &left {
                // Not if something was written meanwhile.
                self.write(|trees| {
                    tree(trees).compare_and_swap(key, Some(IVec::default()), None::<IVec>).map(drop)
                })?;
            }
            removed += left.len();
        }
        Ok(removed)
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;
    use crate::config::IndexConfig;
    use crate::item::NewItem;

    fn items(ids: std::ops::Range<u64>) -> Vec<(u64, NewItem)> {
        ids.map(|id| (id, NewItem::new(format!("k{id}")))).collect()
    }

    fn change(items: &[(u64, NewItem)]) -> Change<'_> {
        let upserts = items.iter().map(|(id, item)| (*id, item, &[0.6, 0.8][..])).collect();
        Change { upserts, deletes: vec![] }
    }

    fn ids(store: &Store) -> (Vec<u64>, Vec<u64>) {
        let (mut vectors, mut rows, mut records) = (vec![], vec![], vec![]);
        store
            .scan_vectors(|id, vector| {
                vectors.push(id);
                vector.map(drop)
            })
            .unwrap();
        store
            .scan_rows(|id, vector, record| {
                rows.push(id);
                assert!(record.is_some());
                vector.map(drop)
            })
            .unwrap();
        store
            .scan_items(|id, _| {
                records.push(id);
                Ok(())
            })
            .unwrap();
        assert_eq!(records, rows);
        (vectors, rows)
    }

    #[test]
    fn a_placeholder_counts_as_no_vector_until_one_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::create(dir.path(), &IndexConfig::new(2, "m")).unwrap();
        let first = items(0..20);
        store.apply(&change(&first), State { next_id: 20, sequence: 1, items: 20 }).unwrap();
        // As if the process had died before the transaction.
        let second = items(20..60);
        store.insert_placeholders(&change(&second), 20).unwrap();
        store.sync().unwrap();
        drop(store);
        let store = Store::open(dir.path()).unwrap();
        let all: Vec<u64> = (0..20).collect();
        assert_eq!(ids(&store), (all.clone(), all));
        assert!(!store.vector(30, &mut vec![]).unwrap());
        assert!(store.row(30, &mut vec![]).unwrap().is_none() && store.item(30).unwrap().is_none());
        let third = items(20..50);
        store.apply(&change(&third), State { next_id: 50, sequence: 2, items: 50 }).unwrap();
        let all: Vec<u64> = (0..50).collect();
        assert_eq!(ids(&store), (all.clone(), all.clone()));
        assert_eq!(store.remove_placeholders().unwrap(), 2 * 10);
        assert_eq!(store.remove_placeholders().unwrap(), 0);
        assert_eq!(ids(&store), (all.clone(), all));
        assert_eq!((store.trees().vectors.len(), store.trees().items.len()), (50, 50));
    }

    #[test]
    fn a_store_of_an_earlier_format_is_marked_before_it_gets_placeholders() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::create(dir.path(), &IndexConfig::new(2, "m")).unwrap();
        store.write(|trees| trees.meta.insert(FORMAT_KEY, &1u32.to_le_bytes()).map(drop)).unwrap();
        drop(store);
        let store = Store::open(dir.path()).unwrap();
        store.apply(&change(&items(0..2)), State { next_id: 2, sequence: 1, items: 2 }).unwrap();
        let format = |store: &Store| store.read(|trees| trees.meta.get(FORMAT_KEY)).unwrap().unwrap();
        assert_eq!(format(&store).as_ref(), 1u32.to_le_bytes());
        store.apply(&change(&items(2..40)), State { next_id: 40, sequence: 2, items: 40 }).unwrap();
        assert_eq!(format(&store).as_ref(), FORMAT.to_le_bytes());
    }
}
