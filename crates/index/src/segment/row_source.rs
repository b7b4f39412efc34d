//! Where the rows of a new segment come from.

use std::cell::RefCell;

use roaring::RoaringBitmap;

use crate::error::{IndexError, Result};
use crate::item::{Item, NewItem};
use crate::segment::delta::Delta;
use crate::segment::segment_reader::SegmentReader;
use crate::store::Store;
use crate::store::codec;

/// A segment that is merged, and the rows of it that are left out.
pub(crate) type Source<'a> = (&'a SegmentReader, &'a RoaringBitmap);

/// Where the rows of a new segment come from.
pub(crate) enum RowSource<'a> {
    /// What was written since a publication.
    Delta(&'a Delta),
    /// Everything in the store.
    Store(StoreRows<'a>),
    /// These items of the store, by ids in rising order; ids that are not there are passed over.
    Listed(&'a Store, &'a [u64]),
    /// Segments that are merged.
    Segments(&'a [Source<'a>]),
}

/// Everything in the store, which may be written while it is read.
pub(crate) struct StoreRows<'a> {
    store: &'a Store,
    /// Number of the last write that was there before reading began.
    sequence: u64,
    /// Ids of which only a vector or only an item was met.
    torn: RefCell<Vec<u64>>,
}

/// One row of a new segment.
pub(crate) struct Row<'a> {
    pub(crate) id: u64,
    pub(crate) vector: &'a [f32],
    pub(crate) record: &'a [u8],
    /// Node of the vector in the first of the merged segments, if it comes from there.
    pub(crate) node: Option<u32>,
}

impl<'a> StoreRows<'a> {
    pub(crate) fn new(store: &'a Store) -> Result<Self> {
        Ok(Self { store, sequence: store.state()?.sequence, torn: RefCell::default() })
    }

    fn scan(&self, visit: &mut dyn FnMut(Row<'_>) -> Result<()>) -> Result<()> {
        self.store.scan_rows(|id, vector, record| match (vector, record) {
            (Ok(vector), Some(record)) => visit(Row { id, vector, record, node: None }),
            // Written between the reading of one and of the other, or damaged: told apart below.
            _ => {
                self.torn.borrow_mut().push(id);
                Ok(())
            }
        })?;
        let mut torn = self.torn.take();
        if torn.is_empty() {
            return Ok(());
        }
        let written = self.store.changed_since(self.sequence)?;
        torn.retain(|id| written.binary_search(id).is_err());
        match torn.first() {
            Some(id) => Err(self.store.unmatched(*id)),
            None => Ok(()),
        }
    }
}

impl RowSource<'_> {
    /// Rows expected, for progress.
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Delta(delta) => delta.count() as u64,
            Self::Store(rows) => rows.store.state().map_or(0, |state| state.items),
            Self::Listed(_, ids) => ids.len() as u64,
            Self::Segments(sources) => {
                sources.iter().map(|(segment, hidden)| segment.len() as u64 - hidden.len()).sum()
            }
        }
    }

    /// Calls `visit` with every row, ids rising.
    pub(crate) fn scan(&self, visit: &mut dyn FnMut(Row<'_>) -> Result<()>) -> Result<()> {
        match self {
            Self::Delta(delta) => {
                let mut items: Vec<(&Item, &[f32])> = delta.items().collect();
                items.sort_unstable_by_key(|(item, _)| item.id);
                for (item, vector) in items {
                    let record = codec::encode_item(&NewItem::from(item.clone()));
                    visit(Row { id: item.id, vector, record: &record, node: None })?;
                }
                Ok(())
            }
            Self::Store(rows) => rows.scan(visit),
            Self::Listed(store, ids) => {
                let mut vector = Vec::new();
                for &id in *ids {
                    vector.clear();
                    if let Some(record) = store.row(id, &mut vector)? {
                        visit(Row { id, vector: &vector, record: &record, node: None })?;
                    }
                }
                Ok(())
            }
            Self::Segments(sources) => {
                let mut rows: Vec<(u64, u32, u32)> = Vec::with_capacity(self.len() as usize);
                for (which, (segment, hidden)) in (0u32..).zip(*sources) {
                    let all = (0u32..).zip(segment.items().ids());
                    let counting = all.filter(|(row, _)| !hidden.contains(*row));
                    rows.extend(counting.map(|(row, &id)| (id, which, row)));
                }
                rows.sort_unstable();
                for (id, which, row) in rows {
                    let (segment, _) = sources[which as usize];
                    let node = segment.items().node_of()[row as usize];
                    let vector = segment.vector_of_row(row)?;
                    let record = segment.items().record(row)?;
                    visit(Row { id, vector, record, node: (which == 0).then_some(node) })?;
                }
                Ok(())
            }
        }
    }

    /// Appends the vector of an item to `out`; false if the item is not there any more.
    pub(crate) fn vector(&self, id: u64, out: &mut Vec<f32>) -> Result<bool> {
        let found = match self {
            Self::Delta(delta) => delta.get(id).map(|(_, vector)| vector),
            Self::Store(StoreRows { store, .. }) | Self::Listed(store, _) => return store.vector(id, out),
            Self::Segments(sources) => {
                let place = sources.iter().find_map(|(segment, hidden)| {
                    let row = segment.items().row(id).filter(|&row| !hidden.contains(row))?;
                    Some((segment, row))
                });
                place.map(|(segment, row)| segment.vector_of_row(row)).transpose()?
            }
        };
        out.extend_from_slice(found.unwrap_or_default());
        Ok(found.is_some())
    }

    /// Why a record that cannot be read is refused.
    pub(crate) fn damaged(&self, id: u64, why: impl std::fmt::Display) -> IndexError {
        let what = format!("item {id}: {why}");
        match self {
            Self::Store(StoreRows { store, .. }) | Self::Listed(store, _) => store.damaged(what),
            Self::Delta(_) => IndexError::Item { key: id.to_string(), what: why.to_string() },
            Self::Segments(sources) => {
                let holds = |(segment, _): &&Source<'_>| segment.items().row(id).is_some();
                let segment = sources.iter().find(holds).expect("the row comes from one of them").0;
                IndexError::damaged(segment.items().path(), what)
            }
        }
    }
}
