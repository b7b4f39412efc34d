//! Checks that an index is whole: every checksum, every record, and that store and published files agree.
//!
//! The store is checked by a temporary copy, since sled writes when it opens: what is checked stays as it is, also where it is
//! damaged, or lies on a read-only mount. What could not be checked is reported, and such an index does not count as sound.

mod store_copy;

use std::collections::{BTreeMap, HashMap};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::cancel::Cancel;
use crate::config::{Memory, Progress, Stage};
use crate::error::{IndexError, Result};
use crate::segment::block_file::{BLOCK, BlockFile};
use crate::segment::manifest::{FILE_NAME, Manifest};
use crate::segment::snapshot::Snapshot;
use crate::segment::state::State;
use crate::store::codec;
use crate::store::{self, Store};
use crate::verify::store_copy::StoreCopy;
use crate::writer::share;

/// Faults of one file or folder that are listed one by one; further ones are only counted.
const LISTED: usize = 10;

/// Why a file that the system does not let this user read is not checked.
const UNREADABLE: &str = "the system refuses to read it: check it as a user who may";

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

/// Part of an index that could not be checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unchecked {
    /// File or folder it is.
    pub path: PathBuf,
    /// Why it could not be checked, and what to do.
    pub why: String,
}

/// What [`verify`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyReport {
    /// Published items.
    pub items: u64,
    /// Items in the store; `None` if the store could not be opened: [`Self::unchecked`] or [`Self::faults`] say why.
    pub stored: Option<u64>,
    /// Items written or deleted since the publication: no fault, finishing publishes them.
    pub unpublished: u64,
    /// What is wrong.
    pub faults: Vec<Fault>,
    /// What could not be checked.
    #[serde(default)]
    pub unchecked: Vec<Unchecked>,
    /// Faults that are not listed one by one, until they are counted at the end.
    #[serde(skip)]
    unlisted: BTreeMap<(PathBuf, bool), u64>,
}

impl VerifyReport {
    /// True if everything was checked and nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.faults.is_empty() && self.unchecked.is_empty()
    }

    fn fault(&mut self, path: impl AsRef<Path>, what: impl Into<String>, rebuildable: bool) {
        let path = path.as_ref().to_path_buf();
        let listed = self.faults.iter().filter(|f| f.path == path && f.rebuildable == rebuildable).count();
        if listed < LISTED {
            self.faults.push(Fault { path, what: what.into(), rebuildable });
        } else {
            *self.unlisted.entry((path, rebuildable)).or_default() += 1;
        }
    }

    /// Adds how many faults are not listed.
    fn count_unlisted(&mut self) {
        for ((path, rebuildable), count) in std::mem::take(&mut self.unlisted) {
            self.faults.push(Fault {
                path,
                what: format!("and {count} more faults like these"),
                rebuildable,
            });
        }
    }

    fn not_checked(&mut self, path: impl AsRef<Path>, why: impl Into<String>) {
        self.unchecked.push(Unchecked { path: path.as_ref().to_path_buf(), why: why.into() });
    }

    fn error(&mut self, path: &Path, error: &IndexError) {
        match error {
            IndexError::Unreadable { path } => self.not_checked(path, UNREADABLE),
            IndexError::Damaged { path, what } => self.fault(path, what, true),
            IndexError::StoreDamaged { path, what } => self.fault(path, what, false),
            other => self.fault(path, other.to_string(), true),
        }
    }
}

/// Reads everything an index consists of and reports all that is wrong, and all that could not be checked.
///
/// Nothing in the folder is changed. A copy of the store below the system's folder for temporary files is opened; it takes as
/// much room as the store.
///
/// # Errors
/// [`IndexError::Missing`] and [`IndexError::FormatVersion`] where there is nothing to verify, and
/// [`IndexError::LittleRoom`] or [`IndexError::DiskFull`] without room on the disk to open the store or its copy.
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
    let published = manifest.and_then(|manifest| verify_files(dir, &manifest, &mut report));
    let folder = store::folder(dir);
    match std::fs::metadata(folder.join("db")) {
        Ok(_) => verify_copy(dir, published.as_ref(), &mut report, progress)?,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            report.fault(folder, "the store is missing: only the published files are left", false);
        }
        Err(_) => report.not_checked(folder, UNREADABLE),
    }
    report.count_unlisted();
    Ok(report)
}

/// Checks the published files; returns them opened if all are sound.
fn verify_files(dir: &Path, manifest: &Manifest, report: &mut VerifyReport) -> Option<State> {
    report.items = manifest.items;
    // Each file by itself first: opening the whole stops at the first fault.
    for entry in manifest.files() {
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
    if !report.is_sound() {
        return None;
    }
    match Snapshot::open(dir, Memory::Mapped) {
        Ok(snapshot) => {
            for segment in &snapshot.segments {
                if let Err(error) = segment.reader.columns(&Cancel::default()) {
                    report.error(dir, &error);
                }
            }
            Some(State::published(Arc::new(snapshot)))
        }
        Err(error) => {
            report.error(dir, &error);
            None
        }
    }
}

fn busy(holder: &str) -> String {
    format!("{holder} is writing it: check it when that has ended")
}

/// Checks the store by a copy of it. Faults name the files they were copied from.
fn verify_copy(
    dir: &Path,
    published: Option<&State>,
    report: &mut VerifyReport,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<()> {
    // A writer would change the store while it is copied.
    let held = match share(dir) {
        Ok(held) => held,
        Err(IndexError::Locked { holder, .. }) => {
            report.not_checked(store::folder(dir), busy(&holder));
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let copy = match StoreCopy::of(dir) {
        Ok(copy) => copy,
        Err(error @ (IndexError::DiskFull { .. } | IndexError::LittleRoom { .. })) => return Err(error),
        Err(IndexError::Unreadable { path }) if path.starts_with(dir) => {
            report.not_checked(path, UNREADABLE);
            return Ok(());
        }
        Err(IndexError::StoreDamaged { path, what }) => {
            report.fault(path, what, false);
            return Ok(());
        }
        Err(error) => {
            let why = format!("a copy of it to check cannot be made: {error}");
            report.not_checked(store::folder(dir), why);
            return Ok(());
        }
    };
    drop(held);
    let mut found = VerifyReport::default();
    match Store::open(copy.dir()) {
        Ok(store) => {
            if let Err(error) = verify_records(&store, published, &mut found, progress) {
                found.error(store.path(), &error);
            }
        }
        Err(error @ (IndexError::DiskFull { .. } | IndexError::LittleRoom { .. })) => return Err(error),
        Err(error) => found.fault(store::folder(copy.dir()), error.to_string(), false),
    }
    (report.stored, report.unpublished) = (found.stored, found.unpublished);
    for Fault { path, what, rebuildable } in found.faults {
        let (path, what) =
            (copy.original(&path, dir), what.replace(&*copy.dir().to_string_lossy(), &dir.to_string_lossy()));
        report.fault(path, what, rebuildable);
    }
    for ((path, rebuildable), count) in found.unlisted {
        *report.unlisted.entry((copy.original(&path, dir), rebuildable)).or_default() += count;
    }
    for Unchecked { path, why } in found.unchecked {
        report.not_checked(copy.original(&path, dir), why);
    }
    Ok(())
}

fn verify_records(
    store: &Store,
    published: Option<&State>,
    report: &mut VerifyReport,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<()> {
    let state = store.state()?;
    let total = state.items;
    let sequence = published.map_or(0, |state| state.snapshot.manifest.sequence);
    let changed = store.changed_since(sequence)?;
    report.unpublished = if published.is_some() { changed.len() as u64 } else { 0 };
    report.stored = Some(state.items);
    if state.sequence < sequence {
        let what = format!("it ends with write {}, and write {sequence} is published", state.sequence);
        report.fault(store.path(), what, false);
    }

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
        if crate::backend::vector_index::check_vectors(vector, 1, store.config().dim).is_err() {
            report.fault(store.path(), format!("the vector of item {id} is not of norm 1"), false);
        }
        if !keys.contains_key(&id) {
            report.fault(store.path(), format!("vector {id} has no item"), false);
        }
        if let Some(published) = published
            && changed.binary_search(&id).is_err()
        {
            compare(published, id, vector, keys.get(&id), report);
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
    if let Some(published) = published {
        let places = published.places();
        for (id, _) in &places {
            if !keys.contains_key(id) && changed.binary_search(id).is_err() {
                report.fault(store.path(), format!("item {id} is published and not in the store"), false);
            }
        }
        for twice in places.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
            let what = format!("item {} is in two segments", twice[0].0);
            report.fault("published items", what, true);
        }
    }
    Ok(())
}

/// Whether an item is published as it stands in the store.
fn compare(published: &State, id: u64, vector: &[f32], key: Option<&String>, report: &mut VerifyReport) {
    let dir = |name: &str| PathBuf::from(name);
    let Some(place) = published.place(id) else {
        report.fault(dir("published items"), format!("item {id} of the store is missing"), true);
        return;
    };
    match published.snapshot.segments[place.segment].reader.vector_of_row(place.row) {
        Ok(published) if published.iter().map(|x| x.to_bits()).eq(vector.iter().map(|x| x.to_bits())) => {}
        Ok(_) => report.fault(
            dir("published vectors"),
            format!("the vector of item {id} is not that of the store"),
            true,
        ),
        Err(error) => report.error(Path::new("published vectors"), &error),
    }
    match published.published_item(place) {
        Ok(item) if Some(&item.key) == key => {}
        Ok(_) => report.fault(dir("published items"), format!("item {id} is not that of the store"), true),
        Err(error) => report.error(Path::new("published items"), &error),
    }
}
