//! Notes of changes: which ids the published files do not hold as the store does.
//!
//! Before the first publication there are none: it reads the whole store.

use std::sync::atomic::Ordering;

use sled::IVec;

use super::{FORGOTTEN_KEY, Store, codec};
use crate::error::Result;

impl Store {
    /// Whether writes note what they change.
    pub(super) fn is_noting(&self) -> bool {
        self.is_noting.load(Ordering::Relaxed)
    }

    /// Lets writes after the one numbered `sequence` note what they change, if they do not yet. To be called while nobody
    /// writes, and to be synced before anything is published.
    pub(crate) fn begin_notes(&self, sequence: u64) -> Result<()> {
        if !self.is_noting() {
            self.write(|trees| trees.meta.insert(FORGOTTEN_KEY, &sequence.to_le_bytes()).map(drop))?;
            self.is_noting.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Ids touched since the published files were written, ascending.
    pub(crate) fn changed_since(&self, sequence: u64) -> Result<Vec<u64>> {
        let mut ids = Vec::new();
        self.scan(
            |trees| &trees.changes,
            |key, value| {
                if value.try_into().map(u64::from_le_bytes).unwrap_or(u64::MAX) > sequence {
                    ids.push(
                        codec::decode_id(key).map_err(|e| self.record_error("id", format!("{key:?}"), e))?,
                    );
                }
                Ok(())
            },
        )?;
        Ok(ids)
    }

    /// Number of the last write of which [`Self::changed_since`] may not tell any more. Published files that are older
    /// cannot be brought up to date by what it tells.
    pub(crate) fn forgotten(&self) -> Result<u64> {
        let bytes = self.read(|trees| trees.meta.get(FORGOTTEN_KEY))?;
        Ok(bytes.and_then(|b| Some(u64::from_le_bytes(b.as_ref().try_into().ok()?))).unwrap_or(0))
    }

    /// Forgets the changes that published files hold, once these are sure to stay. Writes may go on meanwhile: their
    /// notes stay.
    pub(crate) fn forget_changes(&self, published: u64) -> Result<()> {
        let stale = self.stale_notes(published)?;
        // sled's log is kept up to some point, never with a hole: the number is there if one of the notes is gone.
        if published > self.forgotten()? {
            self.write(|trees| trees.meta.insert(FORGOTTEN_KEY, &published.to_le_bytes()).map(drop))?;
        }
        self.remove_notes(&stale)
    }

    /// The notes of writes up to `published`, with what they say.
    fn stale_notes(&self, published: u64) -> Result<Vec<(IVec, IVec)>> {
        let mut stale = Vec::new();
        self.scan(
            |trees| &trees.changes,
            |key, value| {
                if value.try_into().map(u64::from_le_bytes).is_ok_and(|sequence| sequence <= published) {
                    stale.push((key.into(), value.into()));
                }
                Ok(())
            },
        )?;
        Ok(stale)
    }

    /// Removes the notes that still say what they said. A write since then gave its own number to a note, and that
    /// write is not published. The notes that a crash leaves over are removed the next time.
    fn remove_notes(&self, notes: &[(IVec, IVec)]) -> Result<()> {
        notes.iter().try_for_each(|(key, value)| {
            // Not all of them in one batch: sled copies a page per key, and keeps the copies until the batch is through.
            self.write(|trees| trees.changes.compare_and_swap(key, Some(value), None::<IVec>).map(drop))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Change, State};
    use super::*;
    use crate::config::IndexConfig;
    use crate::item::NewItem;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::create(dir.path(), &IndexConfig::new(2, "m")).unwrap();
        store.begin_notes(0).unwrap();
        (dir, store)
    }

    fn upsert(store: &Store, ids: std::ops::Range<u64>, sequence: u64) {
        let items: Vec<_> = ids.map(|id| (id, NewItem::new(format!("k{id}")))).collect();
        let upserts = items.iter().map(|(id, item)| (*id, item, &[0.6, 0.8][..])).collect();
        store
            .apply(&Change { upserts, deletes: vec![] }, State { next_id: 100, sequence, items: 100 })
            .unwrap();
    }

    #[test]
    fn a_note_that_is_rewritten_while_older_ones_are_removed_stays() {
        let (_dir, store) = store();
        upsert(&store, 0..100, 1);
        let stale = store.stale_notes(1).unwrap();
        upsert(&store, 40..43, 2);
        let change = Change { upserts: vec![], deletes: vec![(70, "k70".into())] };
        store.apply(&change, State { next_id: 100, sequence: 3, items: 99 }).unwrap();
        store.remove_notes(&stale).unwrap();
        assert_eq!(store.changed_since(0).unwrap(), [40, 41, 42, 70]);
        assert_eq!(store.changed_since(2).unwrap(), [70]);
    }

    #[test]
    fn writes_that_go_on_keep_their_notes() {
        let (_dir, store) = store();
        upsert(&store, 0..100, 1);
        std::thread::scope(|scope| {
            scope.spawn(|| (0..50).for_each(|i| upsert(&store, i * 2..i * 2 + 1, 2 + i)));
            (0..20).for_each(|_| store.forget_changes(1).unwrap());
        });
        assert_eq!(store.changed_since(1).unwrap(), (0..50).map(|i| i * 2).collect::<Vec<_>>());
        store.forget_changes(1).unwrap();
        assert_eq!(store.changed_since(0).unwrap(), store.changed_since(1).unwrap());
    }

    #[test]
    fn notes_begin_when_they_are_asked_for_and_go_on_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::create(dir.path(), &IndexConfig::new(2, "m")).unwrap();
        upsert(&store, 0..3, 1);
        assert_eq!((store.changed_since(0).unwrap(), store.forgotten().unwrap()), (vec![], u64::MAX));
        drop(store);
        let store = Store::open(dir.path()).unwrap();
        upsert(&store, 3..5, 2);
        store.begin_notes(2).unwrap();
        assert_eq!((store.changed_since(0).unwrap(), store.forgotten().unwrap()), (vec![], 2));
        upsert(&store, 1..2, 3);
        store.begin_notes(3).unwrap();
        drop(store);
        let store = Store::open(dir.path()).unwrap();
        upsert(&store, 4..5, 4);
        assert_eq!((store.changed_since(2).unwrap(), store.forgotten().unwrap()), (vec![1, 4], 2));
    }

    #[test]
    fn a_store_without_the_number_notes_everything() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::create(dir.path(), &IndexConfig::new(2, "m")).unwrap();
        store.write(|trees| trees.meta.remove(FORGOTTEN_KEY).map(drop)).unwrap();
        drop(store);
        let store = Store::open(dir.path()).unwrap();
        upsert(&store, 0..3, 1);
        assert_eq!((store.changed_since(0).unwrap(), store.forgotten().unwrap()), (vec![0, 1, 2], 0));
    }

    #[test]
    fn what_was_forgotten_stays_forgotten() {
        let (_dir, store) = store();
        upsert(&store, 0..3, 5);
        store.forget_changes(5).unwrap();
        store.forget_changes(4).unwrap();
        assert_eq!(store.forgotten().unwrap(), 5);
    }
}
