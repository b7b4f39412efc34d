//! The folder of the store, and what is left of one whose creation was interrupted.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::error::{IndexError, Result};
use crate::segment::manifest::sync_dir;

/// Name of the store's folder within that of the index.
pub(crate) const FOLDER: &str = "store";
/// Name of the file that lies beside the store while it is created: with it, the store holds nothing yet.
const INCOMPLETE: &str = "store.incomplete";
/// sled's log within the folder of the store.
const LOG: &str = "db";

/// Folder of the store within that of the index.
pub(crate) fn folder(dir: &Path) -> PathBuf {
    dir.join(FOLDER)
}

/// sled's log.
pub(super) fn log(folder: &Path) -> PathBuf {
    folder.join(LOG)
}

/// Whether `dir` holds a store, created to the end.
pub(crate) fn exists(dir: &Path) -> bool {
    folder(dir).join(LOG).is_file() && !is_incomplete(dir)
}

/// Whether the creation of a store in `dir` began and was interrupted.
pub(crate) fn is_incomplete(dir: &Path) -> bool {
    dir.join(INCOMPLETE).exists()
}

/// Begins the creation of a store: notes it durably, then removes what lies in its place.
pub(super) fn begin(dir: &Path) -> Result<()> {
    let note = dir.join(INCOMPLETE);
    File::create(&note).and_then(|file| file.sync_all()).map_err(|e| IndexError::io(&note, e))?;
    sync_dir(dir)?;
    let folder = folder(dir);
    match fs::remove_dir_all(&folder) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(IndexError::io(&folder, e)),
        _ => Ok(()),
    }
}

/// Removes a store, or what is left of one.
pub(crate) fn remove(dir: &Path) -> Result<()> {
    begin(dir)?;
    let note = dir.join(INCOMPLETE);
    fs::remove_file(&note).map_err(|e| IndexError::io(&note, e))
}

/// Whether a name in the folder of an index is one that belongs to its store.
pub(crate) fn is_its_name(name: &str) -> bool {
    [FOLDER, INCOMPLETE].contains(&name)
}

/// Makes a store just created count.
pub(super) fn complete(dir: &Path) -> Result<()> {
    let note = dir.join(INCOMPLETE);
    fs::remove_file(&note).map_err(|e| IndexError::io(&note, e))?;
    sync_dir(dir)?;
    // The folder of the index may be new as well.
    match dir.parent() {
        Some(parent) if parent.as_os_str().is_empty() => sync_dir(Path::new(".")),
        Some(parent) => sync_dir(parent),
        None => Ok(()),
    }
}

/// Removes summaries of the log that sled did not write to the end. sled would read them as if they were whole, and
/// has all that they say in the log and in the summary before.
pub(super) fn remove_unfinished_summaries(folder: &Path) -> Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(IndexError::io(folder, e)),
    };
    for entry in entries {
        let entry = entry.map_err(|e| IndexError::io(folder, e))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            fs::remove_file(entry.path()).map_err(|e| IndexError::io(entry.path(), e))?;
        }
    }
    Ok(())
}

/// The files below the folder of a store, by their paths relative to it, with their sizes; none if there is no folder.
///
/// # Errors
/// [`IndexError::StoreDamaged`] for what is no regular file: a pipe or device would block, a link may lead anywhere, and
/// sled makes none of them.
pub(crate) fn files(folder: &Path) -> Result<Vec<(PathBuf, u64)>> {
    let (mut files, mut folders) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(inner) = folders.pop() {
        let place = if inner.as_os_str().is_empty() { folder.to_path_buf() } else { folder.join(&inner) };
        let failed = |error| IndexError::reading(&place, error);
        let entries = match fs::read_dir(&place) {
            Err(e) if e.kind() == ErrorKind::NotFound && place == folder => return Ok(files),
            entries => entries.map_err(failed)?,
        };
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let (name, about) = (inner.join(entry.file_name()), entry.metadata().map_err(failed)?);
            if about.is_dir() {
                folders.push(name);
            } else if about.is_file() {
                files.push((name, about.len()));
            } else {
                return Err(IndexError::StoreDamaged {
                    path: entry.path(),
                    what: "it is no regular file".into(),
                });
            }
        }
    }
    Ok(files)
}

/// Up to where in the log sled's newest summary goes; 0 if there is none.
pub(super) fn summarised(folder: &Path) -> Result<u64> {
    let entries = fs::read_dir(folder).map_err(|e| IndexError::reading(folder, e))?.flatten();
    let numbers = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        u64::from_str_radix(name.strip_prefix("snap.")?, 16).ok()
    });
    Ok(numbers.max().unwrap_or(0))
}

/// Whether a folder has nothing of a store but what sled makes before its log.
pub(crate) fn is_blank(folder: &Path) -> bool {
    let Ok(entries) = fs::read_dir(folder) else { return false };
    entries.into_iter().all(|entry| {
        entry.is_ok_and(|entry| match entry.file_name().to_str() {
            Some("conf") => true,
            Some("blobs") => fs::read_dir(entry.path()).is_ok_and(|mut within| within.next().is_none()),
            _ => false,
        })
    })
}
