//! A temporary copy of a store: sled writes when it opens one, and a check must not change what it checks.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::error::{IndexError, Result};
use crate::store;
use crate::store::disk_space;

/// A copy of the store of an index, removed when dropped.
pub(super) struct StoreCopy {
    folder: TempDir,
}

impl StoreCopy {
    /// Copies the store of the index in `dir` below the system's folder for temporary files.
    ///
    /// # Errors
    /// [`IndexError::LittleRoom`] before anything is written; [`IndexError::Unreadable`] and [`IndexError::StoreDamaged`] for
    /// files that cannot be read or are no regular files.
    pub(super) fn of(dir: &Path) -> Result<Self> {
        let from = store::folder(dir);
        let files = store::files(&from)?;
        let temporary = std::env::temp_dir();
        disk_space::check(&temporary, files.iter().map(|(_, bytes)| bytes).sum())?;
        let folder = tempfile::Builder::new().prefix("semblance-verify-").tempdir_in(&temporary);
        let folder = folder.map_err(|error| IndexError::io(&temporary, error))?;
        for (name, _) in &files {
            let (from, to) = (from.join(name), store::folder(folder.path()).join(name));
            let parent = to.parent().unwrap_or(folder.path());
            fs::create_dir_all(parent).map_err(|error| IndexError::io(parent, error))?;
            let mut reader = File::open(&from).map_err(|error| IndexError::reading(&from, error))?;
            // Not `fs::copy`, which takes the permissions along: the copy must be writable.
            let mut writer = File::create(&to).map_err(|error| IndexError::io(&to, error))?;
            std::io::copy(&mut reader, &mut writer).map_err(|error| IndexError::io(&to, error))?;
        }
        Ok(Self { folder })
    }

    /// The folder that holds the copied store as the folder of an index holds its own.
    pub(super) fn dir(&self) -> &Path {
        self.folder.path()
    }

    /// The path in the index in `dir` that a path in the copy was copied from.
    pub(super) fn original(&self, path: &Path, dir: &Path) -> PathBuf {
        path.strip_prefix(self.dir()).map_or_else(|_| path.to_owned(), |inner| dir.join(inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_every_file_and_goes_away() {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in [("store/db", "log"), ("store/blobs/1", "large"), ("manifest.json", "{}")] {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let copy = StoreCopy::of(dir.path()).unwrap();
        let place = copy.dir().to_owned();
        assert_eq!(fs::read_to_string(place.join("store/blobs/1")).unwrap(), "large");
        assert_eq!(fs::read_to_string(place.join("store/db")).unwrap(), "log");
        assert!(!place.join("manifest.json").exists());
        assert_eq!(copy.original(&place.join("store/db"), dir.path()), dir.path().join("store/db"));
        drop(copy);
        assert!(!place.exists());
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_regular_file_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("store")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", dir.path().join("store/db")).unwrap();
        let error = StoreCopy::of(dir.path()).err().unwrap();
        assert!(error.to_string().contains("store/db is damaged (it is no regular file)"), "{error}");
    }
}
