//! Whether an index is whole: every checksum, every record, and that store and published files say the same.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::block_file::{BLOCK, BlockFile};
use crate::codec;
use crate::config::{Memory, Progress, Stage};
use crate::error::{IndexError, Result};
use crate::manifest::{FILE_NAME, Manifest};
use crate::snapshot::Snapshot;
use crate::store::{self, Store};
use crate::writer::lock;

/// Faults of one kind that are listed one by one; further ones are only counted.
const LISTED: usize = 100;

/// Something wrong with an index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// File or folder it is in.
    pub path: PathBuf,
    /// What is wrong.
    pub what: String,
    /// True if rebuilding from the store mends it without loss; false if something is lost.
    pub rebuildable: bool,
}

/// What [`verify`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyReport {
    /// Published items.
    pub items: u64,
    /// Items in the store; `None` if another process is writing, so that the store could not be looked at.
    pub stored: Option<u64>,
    /// Items written or deleted since the publication: no fault, finishing publishes them.
    pub unpublished: u64,
    /// What is wrong.
    pub faults: Vec<Fault>,
}

impl VerifyReport {
    /// True if nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.faults.is_empty()
    }

    fn fault(&mut self, path: impl AsRef<Path>, what: impl Into<String>, rebuildable: bool) {
        let (path, what) = (path.as_ref().to_path_buf(), what.into());
        let listed = self.faults.iter().filter(|f| f.path == path).count();
        match listed.cmp(&LISTED) {
            std::cmp::Ordering::Less => self.faults.push(Fault { path, what, rebuildable }),
            std::cmp::Ordering::Equal => {
                self.faults.push(Fault { path, what: "and further faults".into(), rebuildable })
            }
            std::cmp::Ordering::Greater => {}
        }
    }

    fn error(&mut self, path: &Path, error: &IndexError) {
        match error {
            IndexError::Damaged { path, what } => self.fault(path, what, true),
            IndexError::StoreDamaged { path, what } => self.fault(path, what, false),
            other => self.fault(path, other.to_string(), true),
        }
    }
}

/// Reads everything an index consists of and reports all that is wrong. Fails only where there is
/// nothing to verify, or no room on the disk to open the store.
pub fn verify(dir: &Path, progress: &(dyn Fn(Progress) + Sync)) -> Result<VerifyReport> {
    let mut report = VerifyReport::default();
    let manifest = match Manifest::read(dir) {
        Ok(manifest) => Some(manifest),
        Err(error @ (IndexError::Missing { .. } | IndexError::FormatVersion { .. })) => return Err(error),
        Err(error) => {
            report.error(&dir.join(FILE_NAME), &error);
            None
        }
    };
    let mut snapshot = None;
    if let Some(manifest) = &manifest {
        report.items = manifest.items;
        // Each file by itself first: opening the whole stops at the first fault.
        for entry in &manifest.files {
            match BlockFile::open(dir, entry) {
                Ok(file) => {
                    for block in file.bad_blocks() {
                        let what = format!(
                            "the checksum of bytes {} to {} does not fit",
                            block * BLOCK,
                            (block + 1) * BLOCK
                        );
                        report.fault(file.path(), what, true);
                    }
                }
                Err(error) => report.error(&dir.join(&entry.name), &error),
            }
        }
        if report.is_sound() {
            match Snapshot::open(dir, Memory::Mapped) {
                Ok(opened) => snapshot = Some(opened),
                Err(error) => report.error(dir, &error),
            }
        }
    }
    match lock(dir) {
        Ok(_lock) => match Store::open(dir) {
            Ok(store) => {
                if let Err(error) = verify_store(&store, snapshot.as_ref(), &mut report, progress) {
                    report.error(store.path(), &error);
                }
            }
            Err(IndexError::Locked { .. }) => {}
            Err(error @ (IndexError::DiskFull { .. } | IndexError::LittleRoom { .. })) => return Err(error),
            Err(error) => report.fault(store::folder(dir), error.to_string(), false),
        },
        Err(IndexError::Locked { .. } | IndexError::ReadOnly { .. }) => {}
        Err(error) => report.error(dir, &error),
    }
    Ok(report)
}

fn verify_store(
    store: &Store,
    snapshot: Option<&Snapshot>,
    report: &mut VerifyReport,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<()> {
    let state = store.state()?;
    let total = state.items;
    let published = snapshot.map_or(0, |s| s.manifest.sequence);
    let changed = store.changed_since(published)?;
    report.unpublished = if snapshot.is_some() { changed.len() as u64 } else { 0 };
    report.stored = Some(state.items);

    let mut keys = HashMap::with_capacity(state.items as usize);
    let mut items = 0;
    store.scan_items(|id, record| {
        match codec::decode_item(id, record) {
            Ok(item) => {
                keys.insert(id, item.key);
            }
            Err(e) => report.fault(store.path(), format!("item {id} is lost: {e}"), false),
        }
        if id >= state.next_id {
            report.fault(store.path(), format!("item {id} has an id not given out yet"), false);
        }
        items += 1;
        Ok(())
    })?;
    if items != state.items {
        report.fault(store.path(), format!("it counts {} items and holds {items}", state.items), false);
    }
    let (mut vectors, mut done) = (0u64, 0);
    store.scan_vectors(|id, vector| {
        vectors += 1;
        done += 1;
        if done % 4096 == 0 {
            progress(Progress { stage: Stage::Verify, done, total });
        }
        let vector = match vector {
            Ok(vector) => vector,
            Err(error) => {
                report.error(store.path(), &error);
                return Ok(());
            }
        };
        if crate::vector_index::check_vectors(vector, 1, store.config().dim).is_err() {
            report.fault(store.path(), format!("the vector of item {id} is not of norm 1"), false);
        }
        if !keys.contains_key(&id) {
            report.fault(store.path(), format!("vector {id} has no item"), false);
        }
        if let Some(snapshot) = snapshot
            && changed.binary_search(&id).is_err()
        {
            compare(snapshot, id, vector, keys.get(&id), report);
        }
        Ok(())
    })?;
    progress(Progress { stage: Stage::Verify, done: total, total });
    if vectors != items {
        report.fault(store.path(), format!("it holds {items} items and {vectors} vectors"), false);
    }
    let mut named = 0;
    store.scan_keys(|key, id| {
        named += 1;
        if keys.get(&id).is_none_or(|k| k.as_bytes() != key) {
            let key = String::from_utf8_lossy(key);
            report.fault(
                store.path(),
                format!("key {key:?} leads to item {id}, which is not there or has another key"),
                false,
            );
        }
        Ok(())
    })?;
    if named != items {
        report.fault(store.path(), format!("it holds {items} items and {named} keys"), false);
    }
    if let Some(snapshot) = snapshot {
        for &id in snapshot.items().ids() {
            if !keys.contains_key(&id) && changed.binary_search(&id).is_err() {
                report.fault(store.path(), format!("item {id} is published and not in the store"), false);
            }
        }
    }
    Ok(())
}

/// Whether an item is published as it stands in the store.
fn compare(snapshot: &Snapshot, id: u64, vector: &[f32], key: Option<&String>, report: &mut VerifyReport) {
    let dir = |name: &str| PathBuf::from(name);
    let Some(row) = snapshot.items().row(id) else {
        report.fault(dir("published items"), format!("item {id} of the store is missing"), true);
        return;
    };
    let node = snapshot.items().node_of()[row as usize];
    match snapshot.vector(node) {
        Ok(published)
            if published[..vector.len()]
                .iter()
                .map(|x| x.to_bits())
                .eq(vector.iter().map(|x| x.to_bits())) => {}
        Ok(_) => report.fault(
            dir("published vectors"),
            format!("the vector of item {id} is not that of the store"),
            true,
        ),
        Err(error) => report.error(Path::new("published vectors"), &error),
    }
    match snapshot.items().item(row) {
        Ok(item) if Some(&item.key) == key => {}
        Ok(_) => report.fault(dir("published items"), format!("item {id} is not that of the store"), true),
        Err(error) => report.error(Path::new("published items"), &error),
    }
}
