//! Immutable files with a checksum for every block, read through a memory map.
//!
//! Layout: payload · padding to 64 bytes · CRC-32 of each [`BLOCK`] of the payload · footer. The manifest keeps the CRC
//! of table and footer, so trust runs manifest → table → block, and a block can be checked when it is first used.

use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bytemuck::Pod;
use memmap2::Mmap;
use rayon::prelude::*;

use crate::error::{IndexError, Result};
use crate::segment::manifest::{FileEntry, FileRole};

#[cfg(target_endian = "big")]
compile_error!("index files are little-endian and mapped as they are");

/// Bytes that share a checksum.
pub(crate) const BLOCK: usize = 64 * 1024;
const ALIGN: usize = 64;
const MAGIC: &[u8; 8] = b"SEMBLK01";
const FOOTER: usize = 32;

/// Writes a block file from front to back.
pub(crate) struct BlockWriter {
    path: PathBuf,
    file: BufWriter<File>,
    hasher: crc32fast::Hasher,
    in_block: usize,
    len: u64,
    table: Vec<u32>,
}

impl BlockWriter {
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).map_err(|e| IndexError::io(path, e))?;
        Ok(Self::over(path, file))
    }

    fn over(path: &Path, file: File) -> Self {
        Self {
            path: path.into(),
            file: BufWriter::with_capacity(1 << 20, file),
            hasher: crc32fast::Hasher::new(),
            in_block: 0,
            len: 0,
            table: Vec::new(),
        }
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|e| IndexError::io(&self.path, e))?;
        self.count(bytes);
        Ok(())
    }

    fn count(&mut self, mut bytes: &[u8]) {
        self.len += bytes.len() as u64;
        while !bytes.is_empty() {
            let (head, rest) = bytes.split_at(bytes.len().min(BLOCK - self.in_block));
            self.hasher.update(head);
            self.in_block += head.len();
            if self.in_block == BLOCK {
                self.end_block();
            }
            bytes = rest;
        }
    }

    pub(crate) fn write_pod<T: Pod>(&mut self, values: &[T]) -> Result<()> {
        self.write(bytemuck::cast_slice(values))
    }

    /// Fills up to the next multiple of 64 bytes, where a section of any type may begin.
    pub(crate) fn align(&mut self) -> Result<()> {
        let gap = (self.len as usize).next_multiple_of(ALIGN) - self.len as usize;
        self.write(&[0; ALIGN][..gap])
    }

    /// Bytes written so far.
    pub(crate) fn position(&self) -> u64 {
        self.len
    }

    fn end_block(&mut self) {
        self.table.push(std::mem::take(&mut self.hasher).finalize());
        self.in_block = 0;
    }

    /// Writes table and footer and syncs the file.
    pub(crate) fn finish(self, role: FileRole) -> Result<FileEntry> {
        self.end(role, true)
    }

    /// Like [`Self::finish`], of a file that is removed before anybody relies on it.
    pub(crate) fn finish_unsynced(self, role: FileRole) -> Result<FileEntry> {
        self.end(role, false)
    }

    fn end(mut self, role: FileRole, sync: bool) -> Result<FileEntry> {
        self.align()?;
        let payload = self.len;
        if self.in_block > 0 {
            self.end_block();
        }
        let mut footer: Vec<u8> = bytemuck::cast_slice(&self.table).to_vec();
        footer.extend_from_slice(MAGIC);
        footer.extend_from_slice(&payload.to_le_bytes());
        footer.extend_from_slice(&(BLOCK as u64).to_le_bytes());
        footer.extend_from_slice(&[0; 8]);
        let write = |file: &mut BufWriter<File>| -> std::io::Result<()> {
            file.write_all(&footer)?;
            file.flush()?;
            if sync { file.get_ref().sync_all() } else { Ok(()) }
        };
        write(&mut self.file).map_err(|e| IndexError::io(&self.path, e))?;
        let name = self.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(FileEntry { role, name, bytes: payload + footer.len() as u64, crc32: crc32fast::hash(&footer) })
    }
}

/// Writes a block file of rows in any order.
pub(crate) struct BlockRows {
    path: PathBuf,
    file: File,
    row_bytes: usize,
}

impl BlockRows {
    pub(crate) fn create(path: &Path, row_bytes: usize) -> Result<Self> {
        let file = File::options().read(true).write(true).create(true).truncate(true).open(path);
        Ok(Self { path: path.into(), file: file.map_err(|e| IndexError::io(path, e))?, row_bytes })
    }

    /// Writes the row at a place.
    pub(crate) fn write(&mut self, place: usize, row: &[u8]) -> Result<()> {
        debug_assert_eq!(row.len(), self.row_bytes);
        let start = SeekFrom::Start((place * self.row_bytes) as u64);
        let written = self.file.seek(start).and_then(|_| self.file.write_all(row));
        written.map_err(|e| IndexError::io(&self.path, e))
    }

    /// Reads the rows once for their checksums, writes table and footer, and syncs the file.
    pub(crate) fn finish(self, role: FileRole) -> Result<FileEntry> {
        let Self { path, mut file, .. } = self;
        let mut buffer = vec![0; 1 << 20];
        let failed = |e| IndexError::io(&path, e);
        file.rewind().map_err(failed)?;
        let mut writer = BlockWriter::over(&path, file);
        loop {
            match writer.file.get_mut().read(&mut buffer).map_err(failed)? {
                0 => return writer.finish(role),
                read => writer.count(&buffer[..read]),
            }
        }
    }
}

/// A mapped block file whose length, table and footer are known to be right.
pub(crate) struct BlockFile {
    path: PathBuf,
    map: Mmap,
    payload: usize,
    table: Vec<u32>,
    /// One bit per block: checked and found right.
    checked: Vec<AtomicU64>,
}

impl BlockFile {
    /// Maps the file of a manifest's entry; nothing but table and footer is read.
    pub(crate) fn open(dir: &Path, entry: &FileEntry) -> Result<Self> {
        let path = dir.join(&entry.name);
        if entry.name.contains(['/', '\\']) || entry.name.starts_with('.') {
            return Err(IndexError::damaged(&path, "its name leaves the folder of the index"));
        }
        let file = open_regular(&path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => IndexError::damaged(&path, "it is missing"),
            std::io::ErrorKind::InvalidInput => IndexError::damaged(&path, e.to_string()),
            _ => IndexError::reading(&path, e),
        })?;
        let len = file.metadata().map_err(|e| IndexError::io(&path, e))?.len();
        if len != entry.bytes || (len as usize) < FOOTER {
            return Err(IndexError::damaged(&path, format!("it has {len} bytes, not {}", entry.bytes)));
        }
        // SAFETY: files of an index are never changed once the manifest names them, only unlinked. Should someone else
        // cut one short while it is mapped, the system ends the process (SIGBUS), as for any mapped file.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| IndexError::io(&path, e))?;
        let footer = &map[map.len() - FOOTER..];
        let word = |at: usize| u64::from_le_bytes(footer[at..at + 8].try_into().expect("8 bytes"));
        let (payload, block) = (word(8) as usize, word(16) as usize);
        let blocks = payload.div_ceil(BLOCK);
        let fits = payload.checked_add(blocks * 4 + FOOTER) == Some(map.len());
        if &footer[..8] != MAGIC || block != BLOCK || payload % ALIGN != 0 || !fits {
            return Err(IndexError::damaged(&path, "its footer is not right"));
        }
        if crc32fast::hash(&map[payload..]) != entry.crc32 {
            return Err(IndexError::damaged(&path, "the checksum of its table does not fit"));
        }
        let table = map[payload..payload + blocks * 4]
            .chunks_exact(4)
            .map(|b| u32::from_le_bytes(b.try_into().expect("4 bytes")))
            .collect();
        let checked = (0..blocks.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Ok(Self { path, map, payload, table, checked })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn len(&self) -> usize {
        self.payload
    }

    /// Checks every block, on all threads.
    pub(crate) fn check_all(&self) -> Result<()> {
        (0..self.table.len()).into_par_iter().try_for_each(|block| self.check_block(block))
    }

    /// Numbers of all blocks that do not fit their checksum.
    pub(crate) fn bad_blocks(&self) -> Vec<usize> {
        (0..self.table.len()).into_par_iter().filter(|&b| self.hash(b) != self.table[b]).collect()
    }

    /// Checks the blocks that a range of bytes touches, each once in the life of the map.
    #[inline]
    pub(crate) fn check(&self, range: Range<usize>) -> Result<()> {
        for block in range.start / BLOCK..range.end.div_ceil(BLOCK) {
            if self.checked[block / 64].load(Ordering::Relaxed) >> (block % 64) & 1 == 0 {
                self.check_block(block)?;
            }
        }
        Ok(())
    }

    fn hash(&self, block: usize) -> u32 {
        crc32fast::hash(&self.map[block * BLOCK..((block + 1) * BLOCK).min(self.payload)])
    }

    #[cold]
    fn check_block(&self, block: usize) -> Result<()> {
        if self.hash(block) != self.table[block] {
            return Err(IndexError::damaged(
                &self.path,
                format!("the checksum of block {block} does not fit"),
            ));
        }
        self.checked[block / 64].fetch_or(1 << (block % 64), Ordering::Relaxed);
        Ok(())
    }

    /// The payload, unchecked.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.map[..self.payload]
    }

    /// `count` values from byte `offset` on, unchecked; an error if they do not lie within the payload.
    pub(crate) fn slice<T: Pod>(&self, offset: usize, count: usize) -> Result<&[T]> {
        count
            .checked_mul(size_of::<T>())
            .and_then(|len| offset.checked_add(len))
            .and_then(|end| self.bytes().get(offset..end))
            .and_then(|bytes| bytemuck::try_cast_slice(bytes).ok())
            .ok_or_else(|| IndexError::damaged(&self.path, "a section leaves the file"))
    }

    /// Tells the system that the pages read so far are not needed in memory: later accesses read them again.
    pub(crate) fn give_back(&self) {
        #[cfg(unix)]
        // SAFETY: the map is shared and only read, so dropping its pages loses nothing: their bytes are in the file.
        let _ = unsafe { self.map.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
    }

    /// Tells the system that pages will be wanted in no order.
    pub(crate) fn advise_random(&self) {
        #[cfg(unix)]
        let _ = self.map.advise(memmap2::Advice::Random);
    }
}

/// Describes a block file as a manifest would that named it, if its footer is right.
pub(crate) fn described(path: &Path, role: FileRole) -> Result<FileEntry> {
    let bytes = open_regular(path).and_then(|mut file| {
        let mut bytes = vec![];
        std::io::Read::read_to_end(&mut file, &mut bytes)?;
        Ok(bytes)
    });
    let bytes = bytes.map_err(|e| IndexError::io(path, e))?;
    let wrong = || IndexError::damaged(path, "its footer is not right");
    let footer = bytes.last_chunk::<FOOTER>().ok_or_else(wrong)?;
    let payload = u64::from_le_bytes(footer[8..16].try_into().expect("8 bytes"));
    let table = usize::try_from(payload).ok().and_then(|payload| bytes.get(payload..)).ok_or_else(wrong)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(FileEntry { role, name, bytes: bytes.len() as u64, crc32: crc32fast::hash(table) })
}

/// Opens a file to read. A pipe or device, on which opening or reading could wait for ever, is refused.
pub(crate) fn open_regular(path: &Path) -> std::io::Result<File> {
    if std::fs::metadata(path)?.is_file() {
        return File::open(path);
    }
    Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "it is no regular file"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(dir: &Path, bytes: usize) -> FileEntry {
        let mut writer = BlockWriter::create(&dir.join("f")).unwrap();
        let data: Vec<u8> = (0..bytes).map(|i| (i * 31 % 251) as u8).collect();
        for chunk in data.chunks(7001) {
            writer.write(chunk).unwrap();
        }
        writer.finish(FileRole::Graph).unwrap()
    }

    #[test]
    fn payload_comes_back_for_lengths_around_a_block() {
        let dir = tempfile::tempdir().unwrap();
        for len in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 64] {
            let file = BlockFile::open(dir.path(), &written(dir.path(), len)).unwrap();
            file.check_all().unwrap();
            file.give_back();
            file.check(0..file.len()).unwrap();
            assert!(file.bytes()[..len].iter().enumerate().all(|(i, &b)| b == (i * 31 % 251) as u8));
            assert!(file.slice::<u64>(0, file.len() / 8).is_ok());
            assert!(file.slice::<u64>(0, file.len() / 8 + 1).is_err());
            assert!(file.slice::<u64>(usize::MAX - 3, 1).is_err());
        }
    }

    #[test]
    fn rows_written_in_any_order_are_the_file_written_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let rows: Vec<Vec<u8>> = (0..3000usize).map(|i| vec![(i % 251) as u8; 128]).collect();
        let mut ordered = BlockWriter::create(&dir.path().join("f")).unwrap();
        rows.iter().for_each(|row| ordered.write(row).unwrap());
        let ordered = ordered.finish(FileRole::Vectors).unwrap();
        let mut scattered = BlockRows::create(&dir.path().join("g"), 128).unwrap();
        (0..3000).map(|i| i * 7 % 3000).for_each(|i| scattered.write(i, &rows[i]).unwrap());
        let scattered = scattered.finish(FileRole::Vectors).unwrap();
        assert_eq!((scattered.bytes, scattered.crc32), (ordered.bytes, ordered.crc32));
        let read = |name: &str| std::fs::read(dir.path().join(name)).unwrap();
        assert!(read("f") == read("g"));
    }

    #[test]
    fn any_flipped_bit_or_cut_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let entry = written(dir.path(), 2 * BLOCK + 100);
        let path = dir.path().join("f");
        let good = std::fs::read(&path).unwrap();
        let broken = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            BlockFile::open(dir.path(), &entry).and_then(|f| f.check_all())
        };
        for i in 0..500 {
            let position = i * 7919 % good.len();
            let mut bad = good.clone();
            bad[position] ^= 1 << (i % 8);
            assert!(broken(&bad).unwrap_err().is_rebuildable(), "byte {position}");
            assert!(broken(&good[..position]).is_err(), "cut at {position}");
        }
        assert!(broken(&good).is_ok());
    }

    #[test]
    fn a_block_is_checked_when_first_used() {
        let dir = tempfile::tempdir().unwrap();
        let entry = written(dir.path(), 3 * BLOCK);
        let path = dir.path().join("f");
        let mut bad = std::fs::read(&path).unwrap();
        bad[BLOCK + 5] ^= 4;
        std::fs::write(&path, &bad).unwrap();
        let file = BlockFile::open(dir.path(), &entry).unwrap();
        file.check(0..BLOCK).unwrap();
        assert!(file.check(BLOCK - 1..BLOCK + 1).is_err());
        file.check(2 * BLOCK..3 * BLOCK).unwrap();
        assert_eq!(file.bad_blocks(), [1]);
    }
}
