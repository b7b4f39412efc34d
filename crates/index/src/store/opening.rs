//! Creating a store and opening one.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use sled::transaction::ConflictableTransactionError;

use super::blobs::Blobs;
use super::folder::{self, folder};
use super::guard::{guarded, store_error};
use super::rewrite::rewrite;
use super::{CONFIG_KEY, FORGOTTEN_KEY, FORMAT_KEY, NOTHING_NOTED, STATE_KEY, State, Store, Trees};
use crate::config::IndexConfig;
use crate::error::{IndexError, Result};
use crate::segment::manifest::{FORMAT, OLDEST_FORMAT, sync_dir};
use crate::store::disk_space;

/// sled's cache of pages; the scans of a build gain nothing from more.
const CACHE_BYTES: u64 = 128 << 20;
/// Bytes of a segment of sled's log, as this crate has always created them.
const SEGMENT_BYTES: u64 = 512 << 10;
/// Bytes read of each segment before sled opens the log: more than its header.
const HEADER_BYTES: usize = 512;
/// How long sled's own lock is tried again.
const LOCK_WAIT: Duration = Duration::from_secs(1);

impl Store {
    /// Creates the store of a new index, in place of what an interrupted creation left. It counts once this returns,
    /// and not before.
    pub(crate) fn create(dir: &Path, config: &IndexConfig) -> Result<Self> {
        // Before anything is removed.
        disk_space::check(dir, 0)?;
        folder::begin(dir)?;
        let store = Self::open_trees(dir, config.clone())?;
        let json = serde_json::to_vec(config).expect("a configuration is plain data");
        store.write(|trees| {
            trees
                .meta
                .transaction(|meta| {
                    meta.insert(FORMAT_KEY, &FORMAT.to_le_bytes())?;
                    meta.insert(CONFIG_KEY, json.as_slice())?;
                    meta.insert(STATE_KEY, State::default().encode())?;
                    meta.insert(FORGOTTEN_KEY, &NOTHING_NOTED.to_le_bytes())?;
                    Ok::<(), ConflictableTransactionError<std::convert::Infallible>>(())
                })
                .map_err(store_error)
        })?;
        store.sync()?;
        // sled does not sync its settings.
        let settings = store.path.join("conf");
        File::open(&settings).and_then(|f| f.sync_all()).map_err(|e| IndexError::io(&settings, e))?;
        sync_dir(&store.path)?;
        folder::complete(dir)?;
        Ok(store)
    }

    /// Opens the store of an index.
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let mut store = Self::open_trees(dir, IndexConfig::new(1, ""))?;
        let (format, config) =
            store.read(|trees| Ok((trees.meta.get(FORMAT_KEY)?, trees.meta.get(CONFIG_KEY)?)))?;
        let format = format.and_then(|f| Some(u32::from_le_bytes(f.as_ref().try_into().ok()?)));
        let found = format.ok_or_else(|| store.damaged("its format version is missing"))?;
        if !(OLDEST_FORMAT..=FORMAT).contains(&found) {
            let (oldest, newest) = (OLDEST_FORMAT, FORMAT);
            return Err(IndexError::FormatVersion { dir: dir.into(), found, oldest, newest });
        }
        store.format = found.into();
        store.config = config
            .and_then(|c| serde_json::from_slice(&c).ok())
            .ok_or_else(|| store.damaged("its configuration is missing or unreadable"))?;
        store.state()?;
        store.is_noting = (store.forgotten()? != NOTHING_NOTED).into();
        store.undo()?;
        Ok(store)
    }

    /// Opens a store that was closed after its disk failed. What it then holds is on the disk.
    pub(crate) fn reopen(dir: &Path) -> Result<Self> {
        disk_space::check(dir, 0)?;
        rewrite(&folder(dir))?;
        let store = Self::open(dir)?;
        // Recovery wrote, too.
        store.sync()?;
        sync_dir(&store.path)?;
        Ok(store)
    }

    /// Opens sled, which writes while it recovers.
    fn open_trees(dir: &Path, config: IndexConfig) -> Result<Self> {
        // sled writes while it recovers: without room for that it leaves a store that cannot be opened any more.
        disk_space::check(dir, 0)?;
        let path = folder(dir);
        folder::files(&path)?;
        check_readable(&path)?;
        folder::remove_unfinished_summaries(&path)?;
        let open = || -> sled::Result<Trees> {
            // Flushing is ours to time; a thread that does it as well would only take the log's lock from us.
            let db =
                sled::Config::new().path(&path).cache_capacity(CACHE_BYTES).flush_every_ms(None).open()?;
            let tree = |name: &str| db.open_tree(name);
            let (vectors, items, keys) = (tree("vectors")?, tree("items")?, tree("keys")?);
            let (changes, meta) = (tree("changes")?, tree("meta")?);
            Ok(Trees { db, vectors, items, keys, changes, meta })
        };
        let deadline = Instant::now() + LOCK_WAIT;
        let trees = loop {
            match guarded(&path, open) {
                Err(IndexError::Store { what, .. }) if what.contains("could not acquire lock") => {
                    // The caller holds this crate's lock. sled's lock is held by an earlier opening whose threads
                    // have not ended yet, or by another program.
                    if Instant::now() > deadline {
                        let holder = "another program that opened its store".into();
                        return Err(IndexError::Locked { dir: dir.into(), holder });
                    }
                    std::thread::sleep(LOCK_WAIT / 50);
                }
                opened => break opened?,
            }
        };
        Ok(Self {
            path,
            trees: Some(trees),
            config,
            format: FORMAT.into(),
            is_noting: false.into(),
            blobs: Blobs::default(),
            failure: Mutex::default(),
            undo: Mutex::default(),
        })
    }
}

/// Reads what sled reads of its log when it opens it: the header of every segment, and the segments since the last
/// summary as a whole. Where the disk does not give a segment, sled takes the log to end before it, and writes zeros over
/// what follows. An error must be met here, where it changes nothing; what was read once stays in the system's memory.
fn check_readable(store: &Path) -> Result<()> {
    let log = folder::log(store);
    let failed = |e| IndexError::reading(&log, e);
    let mut file = match File::open(&log) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        opened => opened.map_err(failed)?,
    };
    let summarised = folder::summarised(store)?;
    let (bytes, mut segment) = (file.metadata().map_err(failed)?.len(), vec![0; SEGMENT_BYTES as usize]);
    for start in (0..bytes).step_by(SEGMENT_BYTES as usize) {
        file.seek(SeekFrom::Start(start)).map_err(failed)?;
        let whole = SEGMENT_BYTES.min(bytes - start) as usize;
        let (header, rest) = segment[..whole].split_at_mut(HEADER_BYTES.min(whole));
        file.read_exact(header).map_err(failed)?;
        if number_of(header).is_some_and(|number| number >= summarised / SEGMENT_BYTES * SEGMENT_BYTES) {
            file.read_exact(rest).map_err(failed)?;
        }
    }
    Ok(())
}

/// The place of a segment in the order of the log, as its header has it; `None` if it has no header.
fn number_of(header: &[u8]) -> Option<u64> {
    let number = header.get(4..12)?.try_into().ok().map(u64::from_le_bytes)?;
    // sled keeps it with all bits but the sign turned round.
    Some(number ^ i64::MAX as u64).filter(|number| *number <= i64::MAX as u64)
}
