//! Rows of a segment that were replaced or deleted after it was written: a compressed bitmap in a file of its own.
//!
//! Layout: the length of the bitmap in bytes · the bitmap in the portable format of Roaring bitmaps.

use std::path::Path;

use roaring::RoaringBitmap;

use crate::error::{IndexError, Result};
use crate::segment::block_file::{BlockFile, BlockWriter};
use crate::segment::manifest::{FileEntry, FileRole, SegmentEntry};

/// Writes a bitmap, synced.
pub(crate) fn write(path: &Path, rows: &RoaringBitmap) -> Result<FileEntry> {
    let mut bytes = Vec::with_capacity(rows.serialized_size());
    rows.serialize_into(&mut bytes).expect("memory can be written");
    let mut file = BlockWriter::create(path)?;
    file.write(&(bytes.len() as u64).to_le_bytes())?;
    file.write(&bytes)?;
    file.finish(FileRole::Deleted)
}

/// Reads the bitmap of a segment.
pub(crate) fn read(dir: &Path, file: &FileEntry, segment: &SegmentEntry) -> Result<RoaringBitmap> {
    let file = BlockFile::open(dir, file)?;
    file.check_all()?;
    let bad = |what: String| IndexError::damaged(file.path(), what);
    let len = file.slice::<u64>(0, 1)?[0] as usize;
    let bytes: &[u8] = file.slice(8, len)?;
    let rows = RoaringBitmap::deserialize_from(bytes).map_err(|e| bad(e.to_string()))?;
    let inside = rows.max().is_none_or(|row| u64::from(row) < segment.items);
    if rows.len() != segment.deleted || !inside {
        return Err(bad(format!("it does not hold {} of {} rows", segment.deleted, segment.items)));
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_and_other_counts_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let rows: RoaringBitmap = (0..200_000).filter(|row| row % 7 == 0).collect();
        let entry = write(&dir.path().join("deleted-000001-000002.bin"), &rows).unwrap();
        let segment = |items, deleted| SegmentEntry {
            number: 1,
            items,
            deleted,
            nodes: items,
            dead_nodes: 0,
            precision: None,
            files: vec![entry.clone()],
        };
        let deleted = rows.len();
        assert_eq!(read(dir.path(), &entry, &segment(200_000, deleted)).unwrap(), rows);
        assert!(read(dir.path(), &entry, &segment(200_000, deleted - 1)).is_err());
        assert!(read(dir.path(), &entry, &segment(199_990, deleted)).is_err(), "a row out of range");
    }
}
