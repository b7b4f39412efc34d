//! Ids, keys and records of the items, and which node each belongs to, mapped from a file.
//!
//! Items with the very same vector share a node of the graph. Row `r` is the item with the `r`-th smallest id, so order
//! of rows is order of ids, also within a node.

use std::path::Path;

use crate::error::{IndexError, Result};
use crate::item::Item;
use crate::segment::block_file::{BlockFile, BlockWriter};
use crate::segment::manifest::{FileEntry, FileRole};
use crate::store::codec;

const MAGIC: u64 = u64::from_le_bytes(*b"SEMITEM1");
const HEADER_WORDS: usize = 8;

/// Collects the table in order of ids and writes it.
pub(crate) struct ItemTableBuilder {
    ids: Vec<u64>,
    offsets: Vec<u64>,
    records: BlockWriter,
    keys: Vec<(u64, u32)>,
}

impl ItemTableBuilder {
    /// Begins a table; records go straight to the file.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        Ok(Self { ids: vec![], offsets: vec![0], records: BlockWriter::create(path)?, keys: vec![] })
    }

    /// Adds an item, ids rising.
    pub(crate) fn push(&mut self, id: u64, record: &[u8]) -> Result<()> {
        debug_assert!(self.ids.last().is_none_or(|&last| last < id));
        let key = codec::item_key(record).unwrap_or_default();
        self.keys.push((key_hash(key), self.ids.len() as u32));
        self.ids.push(id);
        self.records.write(record)?;
        self.offsets.push(self.records.position());
        Ok(())
    }

    /// Writes the tables behind the records. `node_of` is the node of each row, of `nodes` in all.
    pub(crate) fn finish(mut self, node_of: &[u32], nodes: usize) -> Result<FileEntry> {
        let (node_start, node_rows) = group(node_of, nodes);
        self.keys.sort_unstable();
        let hashes: Vec<u64> = self.keys.iter().map(|k| k.0).collect();
        let order: Vec<u32> = self.keys.iter().map(|k| k.1).collect();
        let file = &mut self.records;
        file.align()?;
        let tables = file.position();
        file.write_pod(&self.ids)?;
        file.write_pod(&self.offsets)?;
        file.write_pod(&hashes)?;
        file.write_pod(&order)?;
        file.write_pod(node_of)?;
        file.write_pod(&node_rows)?;
        file.write_pod(&node_start)?;
        file.align()?;
        file.write_pod(&[MAGIC, self.ids.len() as u64, nodes as u64, tables, 0, 0, 0, 0])?;
        self.records.finish(FileRole::Items)
    }
}

/// Rows of each node, ascending: where they start, and the rows.
fn group(node_of: &[u32], nodes: usize) -> (Vec<u32>, Vec<u32>) {
    let mut start = vec![0u32; nodes + 1];
    for &node in node_of {
        start[node as usize + 1] += 1;
    }
    for i in 0..nodes {
        start[i + 1] += start[i];
    }
    let (mut rows, mut next) = (vec![0; node_of.len()], start.clone());
    for (row, &node) in node_of.iter().enumerate() {
        rows[next[node as usize] as usize] = row as u32;
        next[node as usize] += 1;
    }
    (start, rows)
}

/// Hash by which keys are found: the first 8 bytes would tell paths of one folder apart badly. FNV-1a.
fn key_hash(key: &str) -> u64 {
    key.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

/// The items of a segment.
pub(crate) struct ItemTable {
    file: BlockFile,
    tables: usize,
    len: usize,
    nodes: usize,
}

impl ItemTable {
    /// Maps the table, checks the parts a search uses; records are checked when they are read.
    pub(crate) fn open(dir: &Path, entry: &FileEntry) -> Result<Self> {
        let file = BlockFile::open(dir, entry)?;
        let bad = |what: &str| IndexError::damaged(file.path(), what);
        let header_at = file.len().checked_sub(HEADER_WORDS * 8).ok_or_else(|| bad("it is too short"))?;
        file.check(header_at..file.len())?;
        let header = file.slice::<u64>(header_at, HEADER_WORDS)?;
        let (len, nodes, tables) = (header[1] as usize, header[2] as usize, header[3] as usize);
        let limit = file.len();
        if header[0] != MAGIC || tables > limit || len > limit || nodes > limit {
            return Err(bad("its header is not right"));
        }
        file.check(tables..file.len())?;
        let table = Self { tables, len, nodes, file };
        let fault = table.fault()?;
        match fault {
            Some(what) => Err(IndexError::damaged(table.file.path(), what)),
            None => Ok(table),
        }
    }

    /// What lookups trust, so that none can leave the file.
    fn fault(&self) -> Result<Option<&'static str>> {
        let (len, nodes) = (self.len as u32, self.nodes as u32);
        let ids: &[u64] = self.section(0)?;
        let offsets: &[u64] = self.section(1)?;
        let start: &[u32] = self.section(6)?;
        Ok(if !ids.is_sorted_by(|a, b| a < b) {
            Some("its ids do not rise")
        } else if !offsets.is_sorted() || offsets[self.len] > self.tables as u64 {
            Some("its records leave the file")
        } else if !start.is_sorted() || start[self.nodes] != len {
            Some("its nodes are not right")
        } else if self.section::<u32>(3)?.iter().chain(self.section::<u32>(5)?).any(|&row| row >= len) {
            Some("a row is out of range")
        } else if self.section::<u32>(4)?.iter().any(|&node| node >= nodes) {
            Some("a node is out of range")
        } else {
            None
        })
    }

    /// One of the tables, in the order in which they are written.
    fn section<T: bytemuck::Pod>(&self, which: usize) -> Result<&[T]> {
        let n = self.len;
        let sizes = [8 * n, 8 * (n + 1), 8 * n, 4 * n, 4 * n, 4 * n, 4 * (self.nodes + 1)];
        let offset = self.tables + sizes[..which].iter().sum::<usize>();
        self.file.slice(offset, sizes[which] / size_of::<T>())
    }

    fn known<T: bytemuck::Pod>(&self, which: usize) -> &[T] {
        self.section(which).expect("sections were found when the file was opened")
    }

    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn nodes(&self) -> usize {
        self.nodes
    }

    /// Ids, ascending.
    pub(crate) fn ids(&self) -> &[u64] {
        self.known(0)
    }

    /// Row of an id.
    pub(crate) fn row(&self, id: u64) -> Option<u32> {
        self.ids().binary_search(&id).ok().map(|row| row as u32)
    }

    /// Node of each row.
    pub(crate) fn node_of(&self) -> &[u32] {
        self.known(4)
    }

    /// Rows of the nodes, for [`NodeRows`].
    pub(crate) fn node_rows(&self) -> NodeRows<'_> {
        NodeRows { start: self.known(6), rows: self.known(5) }
    }

    /// Bytes of a row's record.
    pub(crate) fn record(&self, row: u32) -> Result<&[u8]> {
        let offsets: &[u64] = self.known(1);
        let range = offsets[row as usize] as usize..offsets[row as usize + 1] as usize;
        self.file.check(range.clone())?;
        Ok(&self.file.bytes()[range])
    }

    /// The item of a row.
    pub(crate) fn item(&self, row: u32) -> Result<Item> {
        codec::decode_item(self.ids()[row as usize], self.record(row)?)
            .map_err(|e| IndexError::damaged(self.file.path(), e.to_string()))
    }

    /// Row of a key among those that count: the key of a deleted item can have been given again.
    pub(crate) fn find(&self, key: &str, counts: impl Fn(u32) -> bool) -> Result<Option<u32>> {
        let (hash, hashes) = (key_hash(key), self.known::<u64>(2));
        let order: &[u32] = self.known(3);
        let first = hashes.partition_point(|&h| h < hash);
        for at in first..self.len {
            if hashes[at] != hash {
                break;
            }
            if counts(order[at]) && codec::item_key(self.record(order[at])?) == Some(key) {
                return Ok(Some(order[at]));
            }
        }
        Ok(None)
    }
}

/// Which rows belong to a node.
#[derive(Clone, Copy)]
pub(crate) struct NodeRows<'a> {
    start: &'a [u32],
    rows: &'a [u32],
}

impl<'a> NodeRows<'a> {
    /// Rows of a node, ascending; none if all its items are deleted.
    #[inline]
    pub(crate) fn of(&self, node: u32) -> &'a [u32] {
        &self.rows[self.start[node as usize] as usize..self.start[node as usize + 1] as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::item::NewItem;

    #[test]
    fn items_are_found_by_id_key_and_node() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("items");
        let mut builder = ItemTableBuilder::create(&path).unwrap();
        for i in 0..500u64 {
            let item = NewItem { class: Some(format!("c{}", i % 7)), ..NewItem::new(format!("k{i}")) };
            builder.push(i * 3, &codec::encode_item(&item)).unwrap();
        }
        let node_of: Vec<u32> = (0..500).map(|row| row % 100).collect();
        let table = ItemTable::open(dir.path(), &builder.finish(&node_of, 101).unwrap()).unwrap();
        assert_eq!((table.len(), table.nodes()), (500, 101));
        for i in 0..500u64 {
            let row = table.find(&format!("k{i}"), |_| true).unwrap().unwrap();
            assert_eq!(table.row(i * 3), Some(row));
            let item = table.item(row).unwrap();
            assert_eq!((item.id, item.class.unwrap()), (i * 3, format!("c{}", i % 7)));
            assert_eq!(table.node_of()[row as usize], (i % 100) as u32);
        }
        assert_eq!(table.node_rows().of(5), [5, 105, 205, 305, 405]);
        assert_eq!(table.node_rows().of(100), [0; 0]);
        assert_eq!((table.row(1), table.find("k", |_| true).unwrap()), (None, None));
        assert_eq!(table.find("k7", |row| row != 7).unwrap(), None);
    }

    #[test]
    fn an_empty_table_is_a_table() {
        let dir = tempfile::tempdir().unwrap();
        let entry = ItemTableBuilder::create(&dir.path().join("items")).unwrap().finish(&[], 0).unwrap();
        let table = ItemTable::open(dir.path(), &entry).unwrap();
        assert_eq!((table.len(), table.find("x", |_| true).unwrap()), (0, None));
    }
}
