//! An index made beside the one that it replaces, and put in its place once it is finished.
//!
//! The replacement of `NAME` is made in the folder `.NAME.new` beside it; the file [`NOTE`] in it says that it is one. Once
//! it is finished, the two folders are exchanged in one step, so that one of the two indexes is there at every moment, and
//! the old one is removed. Where the system cannot exchange folders, the old one is called `.NAME.old` for a moment. The
//! note is removed last: as long as it lies in `NAME`, what is left of the old index is still to be removed.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::creation::check_config;
use super::lock::{LOCK, lock};
use super::{IndexWriter, drop_store};
use crate::config::{IndexConfig, is_finished};
use crate::error::{IndexError, Result};
use crate::segment::manifest::{FILE_NAME, Manifest, sync_dir};
use crate::segment::publish::{is_published_file, last_number};
use crate::store::{self, Store};

/// Name of the file that says that the index beside it is to replace another.
const NOTE: &str = "replacement";

/// The index that is replaced, which nobody else may write meanwhile.
pub(super) struct Replaced {
    folders: Folders,
    lock: File,
}

/// The folders of an index and of its replacement.
struct Folders {
    place: PathBuf,
    new: PathBuf,
    old: PathBuf,
    parent: PathBuf,
}

/// What an interrupted replacement left, and what was done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovered {
    /// The new index was finished: it is in its place now.
    Completed,
    /// There was no new index to be found: the old one is in its place again.
    Restored,
}

impl Folders {
    /// `None` for a folder that has no name of its own, such as the root.
    fn of(dir: &Path) -> Option<Self> {
        let place = match dir.canonicalize() {
            Ok(place) => place,
            Err(_) => {
                let absolute = std::path::absolute(dir).ok()?;
                absolute.parent()?.canonicalize().ok()?.join(absolute.file_name()?)
            }
        };
        let (parent, name) = (place.parent()?.to_path_buf(), place.file_name()?.to_owned());
        let beside = |what: &str| {
            let mut hidden = std::ffi::OsString::from(".");
            hidden.push(&name);
            hidden.push(what);
            parent.join(hidden)
        };
        Some(Self { new: beside(".new"), old: beside(".old"), place, parent })
    }

    /// Puts the new folder in the place of the old one; returns where the old one lies then.
    fn exchange(&self) -> Result<&Path> {
        #[cfg(target_os = "linux")]
        {
            use rustix::fs::{CWD, RenameFlags, renameat_with};
            if renameat_with(CWD, &self.new, CWD, &self.place, RenameFlags::EXCHANGE).is_ok() {
                sync_dir(&self.parent)?;
                return Ok(&self.new);
            }
        }
        let moved = |from: &Path, to: &Path| fs::rename(from, to).map_err(|e| IndexError::io(from, e));
        moved(&self.place, &self.old)?;
        if let Err(error) = moved(&self.new, &self.place) {
            moved(&self.old, &self.place)?;
            return Err(error);
        }
        sync_dir(&self.parent)?;
        Ok(&self.old)
    }

    /// Ends a replacement: moves what is no part of an index from the old folder to the new one, and removes the old one.
    fn clear(&self, old: &Path) -> Result<()> {
        for entry in fs::read_dir(old).map_err(|e| IndexError::io(old, e))? {
            let entry = entry.map_err(|e| IndexError::io(old, e))?;
            let (name, to) = (entry.file_name(), self.place.join(entry.file_name()));
            if !is_part_of_an_index(&name.to_string_lossy()) && !to.exists() {
                fs::rename(entry.path(), &to).map_err(|e| IndexError::io(&to, e))?;
            }
        }
        sync_dir(&self.place)?;
        remove_all(old)
    }

    /// Ends the replacement that was interrupted after the folders were exchanged.
    fn end(&self) -> Result<()> {
        for old in [&self.new, &self.old] {
            if old.is_dir() {
                self.clear(old)?;
            }
        }
        let note = self.place.join(NOTE);
        fs::remove_file(&note).map_err(|e| IndexError::io(&note, e))?;
        sync_dir(&self.parent)
    }
}

impl Replaced {
    /// Takes the right to replace the index in `dir`.
    ///
    /// # Errors
    /// [`IndexError::CannotReplace`] for a folder that cannot be renamed; [`IndexError::Locked`].
    pub(super) fn of(dir: &Path) -> Result<Self> {
        let refused = |why| Err(IndexError::CannotReplace { dir: dir.into(), why });
        let Some(folders) = Folders::of(dir) else { return refused("its folder has no name") };
        if is_mount_point(&folders) {
            return refused("its folder is a mount point, which cannot be renamed");
        }
        let lock = lock(dir)?;
        Ok(Self { folders, lock })
    }

    /// Makes the folder of the new index, in place of what an interrupted replacement left.
    pub(super) fn begin(&self) -> Result<PathBuf> {
        let new = &self.folders.new;
        remove_all(new)?;
        fs::create_dir(new).map_err(|e| IndexError::io(new, e))?;
        let note = new.join(NOTE);
        File::create(&note).and_then(|file| file.sync_all()).map_err(|e| IndexError::io(&note, e))?;
        sync_dir(new)?;
        Ok(new.clone())
    }

    /// The folder of a replacement that was interrupted, if there is one.
    fn interrupted(&self) -> Option<PathBuf> {
        let new = &self.folders.new;
        (new.join(NOTE).is_file() && store::exists(new)).then(|| new.clone())
    }
}

impl IndexWriter {
    /// Begins an index that is to replace the one in `dir`, if there is a finished one; else a new one, as
    /// [`Self::create`]. The old index stays as it is, and readers find it, until [`Self::take_place`] is called on the
    /// writer; until then [`Self::dir`] is a hidden folder beside `dir`, on the same disk, which needs room for both. Files
    /// in the folder that are no part of an index, such as uploads, are moved to the new one.
    ///
    /// # Errors
    /// [`IndexError::CannotReplace`] where the folder cannot be renamed; else as [`Self::create`].
    #[must_use = "the old index stays until `take_place` is called"]
    pub fn replace(dir: impl AsRef<Path>, config: &IndexConfig) -> Result<Self> {
        let dir = dir.as_ref();
        config.validate()?;
        recover_replacement(dir)?;
        if !is_finished(dir) {
            return Self::replace_unfinished(dir, config);
        }
        let replaced = Replaced::of(dir)?;
        let new = replaced.begin()?;
        let held = lock(&new)?;
        Ok(Self::with_store(&new, Store::create(&new, config)?, held)?.replacing(replaced))
    }

    /// Goes on with a replacement of a finished index that was interrupted.
    pub(super) fn resume_replacement(dir: &Path, config: &IndexConfig) -> Result<Self> {
        let replaced = match Folders::of(dir) {
            Some(folders) if folders.new.is_dir() => Replaced::of(dir)?,
            _ => return Err(IndexError::AlreadyExists { dir: dir.into(), finished: true }),
        };
        let new = replaced.interrupted();
        let new = new.ok_or_else(|| IndexError::AlreadyExists { dir: dir.into(), finished: true })?;
        let held = lock(&new)?;
        let writer = Self::with_store(&new, Store::open(&new)?, held)?;
        check_config(dir, writer.config(), config)?;
        Ok(writer.replacing(replaced))
    }

    fn replacing(mut self, replaced: Replaced) -> Self {
        // Readers of the old index take the new one for newer.
        *self.last_number.get_mut() = last_number(&replaced.folders.place).max(*self.last_number.get_mut());
        self.replaces = Some(replaced);
        self
    }

    /// Puts a finished index in the place of the one that it replaces, which is removed. Readers that have the old one open
    /// keep it. To be called after [`Self::finish`]; does nothing but close the index if it replaces none.
    ///
    /// # Errors
    /// [`IndexError::Unfinished`] before [`Self::finish`], and failures of the disk. One of the two indexes is there then,
    /// whole.
    pub fn take_place(self) -> Result<()> {
        let Self { dir, store, replaces, _lock: held, .. } = self;
        // The store knows its files by the name of the folder.
        drop_store(store);
        let Some(Replaced { folders, lock }) = replaces else { return Ok(()) };
        Manifest::read(&dir)?;
        let old = folders.exchange()?;
        folders.clear(old)?;
        let note = folders.place.join(NOTE);
        fs::remove_file(&note).map_err(|e| IndexError::io(&note, e))?;
        sync_dir(&folders.parent)?;
        drop((lock, held));
        Ok(())
    }

    /// Removes what was begun if nothing was stored in it and it was never finished, so that a call that failed leaves
    /// nothing behind. An index that it was to replace stays. Returns whether it did.
    pub fn discard_if_empty(self) -> Result<bool> {
        if !self.is_empty() || is_finished(&self.dir) {
            return Ok(false);
        }
        let Self { dir, store, replaces, _lock: held, .. } = self;
        drop_store(store);
        if replaces.is_some() {
            remove_all(&dir)?;
        } else {
            store::remove(&dir)?;
            let _ = fs::remove_file(dir.join(LOCK));
            // Other files in it are not ours.
            let _ = fs::remove_dir(&dir);
        }
        drop((replaces, held));
        Ok(true)
    }
}

/// Whether a replacement of the index in `dir` was begun and interrupted, so that [`IndexWriter::resume`] can go on with it.
pub fn has_interrupted_replacement(dir: impl AsRef<Path>) -> bool {
    let folders = Folders::of(dir.as_ref());
    folders.is_some_and(|folders| folders.new.join(NOTE).is_file() && store::exists(&folders.new))
}

/// Ends what a replacement of the index in `dir` left undone that was interrupted while it put the new index in its place.
/// Returns what was done if there was no index in `dir` meanwhile. Every writer calls it; readers may, where the folder
/// can be written.
///
/// # Errors
/// [`IndexError::Locked`] while the replacement goes on, and failures of the disk.
pub fn recover_replacement(dir: impl AsRef<Path>) -> Result<Option<Recovered>> {
    let Some(folders) = Folders::of(dir.as_ref()) else { return Ok(None) };
    if folders.place.join(NOTE).is_file() {
        // Whoever holds the right to write ends it.
        return match lock(&folders.place) {
            Ok(_held) => folders.end().map(|()| None),
            Err(IndexError::Locked { .. }) => Ok(None),
            Err(error) => Err(error),
        };
    }
    if folders.place.exists() || !folders.old.is_dir() {
        return Ok(None);
    }
    let _held = lock(&folders.old)?;
    let moved = |from: &Path| fs::rename(from, &folders.place).map_err(|e| IndexError::io(from, e));
    if folders.new.join(NOTE).is_file() && is_finished(&folders.new) {
        moved(&folders.new)?;
        sync_dir(&folders.parent)?;
        folders.end()?;
        return Ok(Some(Recovered::Completed));
    }
    moved(&folders.old)?;
    sync_dir(&folders.parent)?;
    Ok(Some(Recovered::Restored))
}

fn is_part_of_an_index(name: &str) -> bool {
    [LOCK, FILE_NAME, NOTE, "manifest.json.tmp"].contains(&name)
        || store::is_its_name(name)
        || is_published_file(name)
}

fn remove_all(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(IndexError::io(folder, e)),
        _ => Ok(()),
    }
}

fn is_mount_point(folders: &Folders) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        let disk = |path: &Path| fs::metadata(path).map(|about| about.dev()).ok();
        disk(&folders.place) != disk(&folders.parent)
    }
    #[cfg(not(unix))]
    {
        let _ = folders;
        false
    }
}

#[cfg(test)]
#[path = "replacement_tests.rs"]
mod tests;
