//! Beginning an index, opening one, going on with one.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, RwLock};

use super::group_commit::GroupCommit;
use super::lock::{LOCK, lock};
use super::{IndexWriter, Inner, Publishing};
use crate::config::{IndexConfig, is_finished};
use crate::error::{IndexError, Result};
use crate::segment::manifest::{FILE_NAME, Manifest, sync_dir};
use crate::segment::publish::{last_number, remove_others};
use crate::segment::snapshot::Snapshot;
use crate::segment::state::State;
use crate::store::{self, Store};

impl IndexWriter {
    /// Begins a new index in `dir`, which is made if need be. Refuses a folder that holds an index or anything else; what
    /// an interrupted creation left is no index, and is replaced.
    pub fn create(dir: impl AsRef<Path>, config: &IndexConfig) -> Result<Self> {
        let dir = dir.as_ref();
        config.validate()?;
        refuse_an_index(dir)?;
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
        if !store::exists(dir) {
            return Err(IndexError::Missing { dir: dir.into() });
        }
        let lock = lock(dir)?;
        Self::with_store(dir, Store::open(dir)?, lock)
    }

    /// Goes on with an index that was begun with this configuration, or begins it: a build that is repeated after it
    /// was interrupted. Refuses an index of another dimension or model, and a finished one.
    pub fn resume(dir: impl AsRef<Path>, config: &IndexConfig) -> Result<Self> {
        let dir = dir.as_ref();
        if is_finished(dir) {
            return Err(IndexError::AlreadyExists { dir: dir.into(), finished: true });
        }
        if !store::exists(dir) {
            return Self::create(dir, config);
        }
        let writer = Self::open(dir)?;
        let stored = writer.config();
        if stored.model != config.model {
            let (index, given) = (stored.model.clone(), config.model.clone());
            return Err(IndexError::WrongModel { dir: dir.into(), index, given });
        }
        if stored.dim != config.dim {
            return Err(IndexError::WrongDimension { expected: stored.dim, received: config.dim });
        }
        Ok(writer)
    }

    /// Removes the index in `dir`, if there is one, and begins a new one. Other files in the folder are left alone.
    pub fn replace(dir: impl AsRef<Path>, config: &IndexConfig) -> Result<Self> {
        let dir = dir.as_ref();
        config.validate()?;
        if !is_finished(dir) && !store::exists(dir) {
            return Self::create(dir, config);
        }
        let lock = lock(dir)?;
        // The manifest first: what is left after a crash is no finished index. From then on the creation of the store
        // leaves a note of itself till it is through.
        let manifest = dir.join(FILE_NAME);
        match fs::remove_file(&manifest) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(IndexError::io(&manifest, e)),
            _ => sync_dir(dir)?,
        }
        remove_others(dir, None, &BTreeSet::new());
        Self::with_store(dir, Store::create(dir, config)?, lock)
    }

    fn with_store(dir: &Path, store: Store, lock: File) -> Result<Self> {
        let durability = store.config().durability;
        // A damaged or missing published state is no reason not to write: the next publication makes what is missing from
        // the store.
        let (snapshot, damaged) = match Manifest::read(dir) {
            Ok(manifest) => {
                let (sound, damaged) = Snapshot::sound_part(dir, &manifest, None);
                (Some(Arc::new(sound)), !damaged.is_empty())
            }
            Err(error @ IndexError::FormatVersion { .. }) => return Err(error),
            Err(_) => (None, false),
        };
        let manifest = snapshot.as_ref().map(|s| s.manifest.clone());
        let state = store.state()?;
        refuse_older(dir, &state, snapshot.as_ref())?;
        // The files of an older state go once the manifest of the newest one is sure to stay.
        let settled = sync_dir(dir).is_ok();
        let last_number = AtomicU64::new(last_number(dir));
        if settled && (manifest.is_some() || !is_finished(dir)) {
            remove_others(dir, manifest.as_deref(), &BTreeSet::new());
        }
        // Few writes that were not published are read now, many when they are published.
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
            being_written: Mutex::default(),
            _lock: lock,
        })
    }
}

/// Refuses a store that is older than the published files: publishing it would delete items that it does not know of.
pub(super) fn refuse_older(dir: &Path, state: &store::State, snapshot: Option<&Arc<Snapshot>>) -> Result<()> {
    let (stored, published) = (state.sequence, snapshot.map_or(0, |s| s.manifest.sequence));
    if published <= stored {
        return Ok(());
    }
    Err(IndexError::StoreOlder { dir: dir.into(), stored, published })
}

fn refuse_an_index(dir: &Path) -> Result<()> {
    let finished = is_finished(dir);
    if finished || store::exists(dir) {
        return Err(IndexError::AlreadyExists { dir: dir.into(), finished });
    }
    Ok(())
}
