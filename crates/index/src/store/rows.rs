//! The vector and the record of an item read together.

use super::placeholders::is_placeholder;
use super::{Store, codec};
use crate::error::{IndexError, Result};

impl Store {
    /// Appends the vector of an item to `out` and returns its record, still encoded; `None` if there is no such item. An
    /// error if only one of the two is there. The caller sees to it that nobody writes meanwhile.
    pub(crate) fn row(&self, id: u64, out: &mut Vec<f32>) -> Result<Option<sled::IVec>> {
        let record = self.record(id)?;
        match (self.vector(id, out)?, record) {
            (true, Some(record)) => Ok(Some(record)),
            (false, None) => Ok(None),
            _ => Err(self.unmatched(id)),
        }
    }

    /// Whether an item is there with its vector and, if it is given, its key.
    pub(crate) fn holds(&self, id: u64, key: Option<&str>) -> Result<bool> {
        let at = codec::encode_id(id);
        self.read(|trees| {
            Ok(trees.items.contains_key(at)?
                && trees.vectors.contains_key(at)?
                && match key {
                    Some(key) => trees.keys.contains_key(key.as_bytes())?,
                    None => true,
                })
        })
    }

    /// The error for an id of which only a vector or only an item is there.
    pub(crate) fn unmatched(&self, id: u64) -> IndexError {
        self.damaged(format!("item {id}: it has no vector, or its vector has no item"))
    }

    /// The vector of every item with its record, still encoded, in one pass in order of ids. An id without a vector,
    /// or with one that cannot be read, is handed over with an error in its place, and an id without a record with
    /// `None`, for the caller to judge.
    pub(crate) fn scan_rows(
        &self,
        mut visit: impl FnMut(u64, Result<&[f32]>, Option<&[u8]>) -> Result<()>,
    ) -> Result<()> {
        let (mut vectors, mut items) = self.read(|trees| Ok((trees.vectors.iter(), trees.items.iter())))?;
        let mut next_vector = || self.entry(&mut vectors);
        let mut next_item = || self.entry(&mut items);
        let (mut vector, mut item) = (next_vector()?, next_item()?);
        let mut numbers = Vec::with_capacity(self.config.dim);
        loop {
            let id = match (&vector, &item) {
                (Some((vector, _)), Some((item, _))) => *vector.min(item),
                (Some((id, _)), None) | (None, Some((id, _))) => *id,
                (None, None) => return Ok(()),
            };
            let vector_bytes = vector.take_if(|(of, _)| *of == id).map(|(_, bytes)| bytes);
            let record = item.take_if(|(of, _)| *of == id).map(|(_, bytes)| bytes);
            numbers.clear();
            let decoded = match &vector_bytes {
                Some(bytes) => codec::decode_vector(bytes, self.config.dim, &mut numbers)
                    .map_err(|e| self.record_error("vector", id, e)),
                None => Err(self.unmatched(id)),
            };
            visit(id, decoded.map(|()| &numbers[..]), record.as_deref())?;
            if vector_bytes.is_some() {
                vector = next_vector()?;
            }
            if record.is_some() {
                item = next_item()?;
            }
        }
    }

    /// The next entry of a tree whose keys are ids.
    fn entry(&self, entries: &mut sled::Iter) -> Result<Option<(u64, sled::IVec)>> {
        while let Some((key, value)) = self.read(|_| entries.next().transpose())? {
            if !is_placeholder(&value) {
                let id =
                    codec::decode_id(&key).map_err(|e| self.record_error("id", format!("{key:?}"), e))?;
                return Ok(Some((id, value)));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Change, State};
    use super::*;
    use crate::config::IndexConfig;
    use crate::error::IndexError;
    use crate::item::NewItem;

    fn store(ids: &[u64]) -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::create(dir.path(), &IndexConfig::new(2, "m")).unwrap();
        for id in ids {
            let item = NewItem::new(format!("k{id}"));
            let vector = [*id as f32, 1.0];
            let change = Change { upserts: vec![(*id, &item, &vector)], deletes: vec![] };
            store.apply(&change, State { next_id: id + 1, sequence: id + 1, items: 1 }).unwrap();
        }
        (dir, store)
    }

    fn remove(store: &Store, tree: impl Fn(&super::super::Trees) -> &sled::Tree, id: u64) {
        store.write(|trees| tree(trees).remove(codec::encode_id(id)).map(drop)).unwrap();
    }

    /// Of each id: its first number, if it has a vector, and its key, if it has a record.
    fn scanned(store: &Store) -> Vec<(u64, Option<f32>, Option<String>)> {
        let mut rows = vec![];
        store
            .scan_rows(|id, vector, record| {
                let number = match vector {
                    Ok(vector) => Some(vector[0]),
                    Err(IndexError::StoreDamaged { .. }) => None,
                    Err(other) => panic!("{other:?}"),
                };
                rows.push((id, number, record.map(|r| codec::item_key(r).unwrap().to_string())));
                Ok(())
            })
            .unwrap();
        rows
    }

    fn whole(id: u64) -> (u64, Option<f32>, Option<String>) {
        (id, Some(id as f32), Some(format!("k{id}")))
    }

    #[test]
    fn rows_come_in_order_of_ids() {
        let ids: Vec<u64> = (0..40).chain([255, 256, 300]).collect();
        assert_eq!(scanned(&store(&ids).1), ids.iter().map(|id| whole(*id)).collect::<Vec<_>>());
        assert_eq!(scanned(&store(&[]).1), []);
    }

    #[test]
    fn what_has_only_one_half_is_handed_over_without_the_other() {
        let (_dir, store) = store(&[0, 1, 2, 3, 4, 5]);
        // At both ends and in the middle.
        [0, 3].iter().for_each(|id| remove(&store, |trees| &trees.vectors, *id));
        [2, 5].iter().for_each(|id| remove(&store, |trees| &trees.items, *id));
        let expected = [
            (0, None, Some("k0".into())),
            whole(1),
            (2, Some(2.0), None),
            (3, None, Some("k3".into())),
            whole(4),
            (5, Some(5.0), None),
        ];
        assert_eq!(scanned(&store), expected);
        remove(&store, |trees| &trees.vectors, 5);
        remove(&store, |trees| &trees.vectors, 4);
        assert_eq!(scanned(&store)[4..], [(4, None, Some("k4".into()))]);
    }

    #[test]
    fn a_vector_that_cannot_be_read_keeps_its_record() {
        let (_dir, store) = store(&[0, 1]);
        store
            .write(|trees| trees.vectors.insert(codec::encode_id(0), b"not a vector".as_slice()).map(drop))
            .unwrap();
        assert_eq!(scanned(&store), [(0, None, Some("k0".into())), whole(1)]);
        assert!(matches!(store.row(0, &mut vec![]), Err(IndexError::StoreDamaged { .. })));
    }

    #[test]
    fn the_caller_can_end_a_scan() {
        let (_dir, store) = store(&[0, 1, 2]);
        let mut seen = 0;
        let ended = store.scan_rows(|id, _, _| {
            seen += 1;
            if id == 1 { Err(store.damaged("enough")) } else { Ok(()) }
        });
        assert!(ended.is_err() && seen == 2);
    }

    #[test]
    fn a_row_is_appended_or_not_there() {
        let (_dir, store) = store(&[0, 1, 2]);
        let mut out = vec![9.0];
        let record = store.row(1, &mut out).unwrap().unwrap();
        assert_eq!(codec::decode_item(1, &record).unwrap().key, "k1");
        assert_eq!(out, [9.0, 1.0, 1.0]);
        remove(&store, |trees| &trees.vectors, 0);
        remove(&store, |trees| &trees.items, 2);
        assert!(store.row(3, &mut out).unwrap().is_none());
        assert_eq!(out.len(), 3);
        assert!(store.row(0, &mut out).is_err() && store.row(2, &mut out).is_err());
    }
}
