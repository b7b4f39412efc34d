//! Vectors and items together.

use super::{Store, codec};
use crate::error::{IndexError, Result};

impl Store {
    /// Every vector with the record of its item, in order of ids, in one pass over both. Where only one of the two is
    /// there, or the vector cannot be read, that is handed over for the caller to judge.
    pub(crate) fn scan_rows(
        &self,
        mut visit: impl FnMut(u64, Result<&[f32]>, Option<&[u8]>) -> Result<()>,
    ) -> Result<()> {
        let (mut vectors, mut items) =
            self.read(|trees| Ok((trees.vectors.iter().peekable(), trees.items.iter().peekable())))?;
        let mut vector = Vec::with_capacity(self.config.dim);
        loop {
            let next = self.read(|_| {
                let first = |entry: Option<&sled::Result<(sled::IVec, sled::IVec)>>| {
                    entry.and_then(|entry| entry.as_ref().ok()).map(|(key, _)| key.clone())
                };
                let keys = [first(vectors.peek()), first(items.peek())];
                // An error has no key: it is taken, and ends the scan.
                let taken = |key: &Option<sled::IVec>, other: &Option<sled::IVec>| match (key, other) {
                    (Some(key), Some(other)) => key <= other,
                    (_, other) => key.is_some() || other.is_none(),
                };
                let vector = if taken(&keys[0], &keys[1]) { vectors.next().transpose()? } else { None };
                let item = if taken(&keys[1], &keys[0]) { items.next().transpose()? } else { None };
                Ok((vector, item))
            })?;
            let (key, encoded, record) = match next {
                (None, None) => return Ok(()),
                (Some((key, encoded)), item) => (key, Some(encoded), item.map(|(_, record)| record)),
                (None, Some((key, record))) => (key, None, Some(record)),
            };
            let id = codec::decode_id(&key).map_err(|e| self.record_error("id", format!("{key:?}"), e))?;
            vector.clear();
            let decoded = match encoded {
                Some(encoded) => codec::decode_vector(&encoded, self.config.dim, &mut vector)
                    .map_err(|e| self.record_error("vector", id, e)),
                None => Err(self.unmatched(id)),
            };
            visit(id, decoded.map(|()| vector.as_slice()), record.as_deref())?;
        }
    }

    /// Appends the vector of an item to `out` and returns its record, still encoded; `None` if there is no such item.
    pub(crate) fn row(&self, id: u64, out: &mut Vec<f32>) -> Result<Option<sled::IVec>> {
        let record = self.read(|trees| trees.items.get(codec::encode_id(id)))?;
        match (self.vector(id, out)?, record) {
            (true, Some(record)) => Ok(Some(record)),
            (false, None) => Ok(None),
            _ => Err(self.unmatched(id)),
        }
    }

    /// The error for an id of which only a vector or only an item is there.
    pub(crate) fn unmatched(&self, id: u64) -> IndexError {
        self.damaged(format!("item {id}: it has no vector, or its vector has no item"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Change, State};
    use super::*;
    use crate::config::IndexConfig;
    use crate::item::NewItem;

    #[test]
    fn vectors_and_items_come_together_and_what_has_no_other_half_is_handed_over() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::create(dir.path(), &IndexConfig::new(2, "m")).unwrap();
        for id in [300u64, 2, 256, 7, 9] {
            let item = NewItem::new(format!("k{id}"));
            let change = Change { upserts: vec![(id, &item, &[0.6, 0.8])], deletes: vec![] };
            store.apply(&change, State { next_id: 301, sequence: 1, items: 5 }).unwrap();
        }
        store.write(|trees| trees.items.remove(codec::encode_id(7)).map(drop)).unwrap();
        store.write(|trees| trees.vectors.remove(codec::encode_id(300)).map(drop)).unwrap();
        let mut met = vec![];
        store
            .scan_rows(|id, vector, record| {
                met.push((id, vector.is_ok(), record.is_some()));
                Ok(())
            })
            .unwrap();
        let whole = |id| (id, true, true);
        assert_eq!(met, [whole(2), (7, true, false), whole(9), whole(256), (300, false, true)]);
        let mut vector = vec![];
        assert!(store.row(2, &mut vector).unwrap().is_some() && store.row(3, &mut vector).unwrap().is_none());
        assert_eq!(vector, [0.6, 0.8]);
        assert!(store.row(7, &mut vector).is_err() && store.row(300, &mut vector).is_err());
    }
}
