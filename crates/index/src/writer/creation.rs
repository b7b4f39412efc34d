//! Beginning an index, opening one, going on with one.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, RwLock};

use super::group_commit::GroupCommit;
use super::lock::{LOCK, holder, lock};
use super::replacement::recover_replacement;
use super::store_check::{check_store, check_unknown};
use super::{IndexWriter, Inner, Publishing};
use crate::config::{IndexConfig, is_finished};
use crate::error::{IndexError, Result};
use crate::segment::manifest::{Manifest, sync_dir};
use crate::segment::publish::{last_number, remove_others};
use crate::segment::snapshot::Snapshot;
use crate::segment::state::State;
use crate::store::{self, Store};

/// Codes and links of a segment that are checked when a writer opens, in bytes: to add an item to a large index must not
/// take reading all of it. What is damaged in larger segments is met by the first search, which says so.
const CHECKED_BYTES: usize = 8 << 20;

impl IndexWriter {
    /// Begins a new index in `dir`, which is made if need be. Refuses a folder that holds an index or anything else; what
    /// an interrupted creation left is no index, and is replaced.
    pub fn create(dir: impl AsRef<Path>, config: &IndexConfig) -> Result<Self> {
        let dir = dir.as_ref();
        config.validate()?;
        recover_replacement(dir)?;
        refuse_an_index(dir).map_err(|error| match holder(dir) {
            // It is one that another process is making.
            Some(holder) => IndexError::Locked { dir: dir.into(), holder },
            None => error,
        })?;
        fs::create_dir_all(dir).map_err(|e| IndexError::io(dir, e))?;
        let lock = lock(dir)?;
        // Another process may have been quicker.
        refuse_an_index(dir)?;
        if !store::is_incomplete(dir) {
            let others = fs::read_dir(dir).map_err(|e| IndexError::io(dir, e))?.flatten();
            let is_other = |name: &str| name != LOCK && name != store::FOLDER;
            let foreign = others.into_iter().any(|e| is_other(&e.file_name().to_string_lossy()));
            let folder = store::folder(dir);
            if foreign || (folder.exists() && !store::is_blank(&folder)) {
                drop(lock);
                let _ = fs::remove_file(dir.join(LOCK));
                return Err(IndexError::NotAnIndex { dir: dir.into() });
            }
        }
        remove_others(dir, None, &BTreeSet::new());
        Self::with_store(dir, Store::create(dir, config)?, lock)
    }

    /// Opens an index, finished or not, to go on writing.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        recover_replacement(dir)?;
        if !store::exists(dir) {
            return Err(if is_finished(dir) {
                IndexError::StoreMissing { dir: dir.into() }
            } else {
                IndexError::Missing { dir: dir.into() }
            });
        }
        let lock = lock(dir)?;
        Self::with_store(dir, Store::open(dir)?, lock)
    }

    /// Goes on with an index that was begun with this configuration, or begins it: a build that is repeated after it
    /// was interrupted. Beside a finished index it goes on with the replacement of it that was interrupted. Refuses an index
    /// of another dimension or model, and a finished one that was not to be replaced.
    pub fn resume(dir: impl AsRef<Path>, config: &IndexConfig) -> Result<Self> {
        let dir = dir.as_ref();
        recover_replacement(dir)?;
        if is_finished(dir) {
            return Self::resume_replacement(dir, config);
        }
        if !store::exists(dir) {
            return Self::create(dir, config);
        }
        let writer = Self::open(dir)?;
        check_config(dir, writer.config(), config)?;
        Ok(writer)
    }

    /// Begins an index in the place of an unfinished one, if there is one: nothing can be searched there yet.
    pub(super) fn replace_unfinished(dir: &Path, config: &IndexConfig) -> Result<Self> {
        if !store::exists(dir) {
            return Self::create(dir, config);
        }
        let lock = lock(dir)?;
        remove_others(dir, None, &BTreeSet::new());
        Self::with_store(dir, Store::create(dir, config)?, lock)
    }

    pub(super) fn with_store(dir: &Path, store: Store, lock: File) -> Result<Self> {
        let durability = store.config().durability;
        // A damaged or missing published state is no reason not to write: the next publication makes what is missing from
        // the store.
        let (snapshot, damage) = match Manifest::read(dir) {
            Ok(manifest) => {
                let (sound, damaged) = Snapshot::checked_part(dir, &manifest, CHECKED_BYTES);
                (Some(Arc::new(sound)), damaged)
            }
            Err(error @ IndexError::FormatVersion { .. }) => return Err(error),
            Err(IndexError::Missing { .. } | IndexError::Unfinished { .. }) => (None, vec![]),
            Err(error) => (None, vec![error]),
        };
        // Also where the manifest is lost: the files may hold items that the store lost.
        let was_published = is_finished(dir) || store.forgotten()? > 0;
        let manifest = snapshot.as_ref().map(|s| s.manifest.clone());
        let state = store.state()?;
        match &snapshot {
            Some(snapshot) => check_store(dir, &store, &state, snapshot)?,
            None if was_published => check_unknown(dir, &state)?,
            None => {}
        }
        // The files of an older state go once the manifest of the newest one is sure to stay.
        let settled = sync_dir(dir).is_ok();
        let last_number = AtomicU64::new(last_number(dir));
        if settled && (manifest.is_some() || !was_published) {
            remove_others(dir, manifest.as_deref(), &BTreeSet::new());
        }
        // Few writes that were not published are read now, many when they are published.
        let damaged = snapshot.is_some() && !damage.is_empty();
        let recent = match &snapshot {
            Some(snapshot) if !damaged && snapshot.manifest.sequence == state.sequence => {
                Some(Arc::new(State::published(snapshot.clone())))
            }
            _ => None,
        };
        let (live, found, lost, epoch) = (None, vec![], false, 0);
        let inner = Inner { state, snapshot, damaged, recent, epoch, live, found, lost };
        Ok(Self {
            dir: dir.into(),
            config: store.config().clone(),
            inner: Mutex::new(inner),
            publishing: Mutex::new(Publishing { settled }),
            merging: Mutex::default(),
            commit: GroupCommit::default(),
            store: RwLock::new(store),
            reopened: AtomicUsize::new(0),
            durability,
            last_number,
            replaces: None,
            damage: damage.iter().map(words).collect(),
            being_written: Mutex::default(),
            _lock: lock,
        })
    }
}

/// Refuses to go on with an index of another model or dimension.
pub(super) fn check_config(dir: &Path, stored: &IndexConfig, given: &IndexConfig) -> Result<()> {
    if stored.model != given.model {
        let (index, given) = (stored.model.clone(), given.model.clone());
        return Err(IndexError::WrongModel { dir: dir.into(), index, given });
    }
    if stored.dim != given.dim {
        return Err(IndexError::WrongDimension { expected: stored.dim, received: given.dim });
    }
    Ok(())
}

/// What is damaged, without what to do about it: the writer does it.
fn words(error: &IndexError) -> String {
    match error {
        IndexError::Damaged { path, what } => format!("{} is damaged ({what})", path.display()),
        other => other.to_string(),
    }
}

fn refuse_an_index(dir: &Path) -> Result<()> {
    let finished = is_finished(dir);
    if finished || store::exists(dir) {
        return Err(IndexError::AlreadyExists { dir: dir.into(), finished });
    }
    Ok(())
}
