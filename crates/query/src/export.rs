//! Places for new files: folders that are free, files that appear when they are complete.

use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use crate::error::{QueryError, Result};

/// Makes sure that `dir` can take new files: makes it if need be, refuses it if there is something in it. Call it before
/// the long work, so that this does not fail at its end.
///
/// # Errors
/// [`QueryError::NotEmpty`], or [`QueryError::Write`] with what the system said.
pub fn prepare_folder(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).map_err(|source| at(dir, source))?;
    check_folder(dir)
}

/// As [`prepare_folder`], without making it.
///
/// # Errors
/// As [`prepare_folder`].
pub fn check_folder(dir: &Path) -> Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    match fs::read_dir(dir).map_err(|source| at(dir, source))?.next() {
        None => Ok(()),
        Some(_) => Err(QueryError::NotEmpty { path: dir.to_owned() }),
    }
}

fn at(path: &Path, source: io::Error) -> QueryError {
    QueryError::Write { path: path.to_owned(), source }
}

/// Writes a file under another name and renames it when it is complete and on disk.
pub(crate) fn whole(
    dir: &Path,
    name: &str,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<PathBuf> {
    let (path, partial) = (dir.join(name), dir.join(format!(".{name}.partial")));
    let save = || -> io::Result<()> {
        let mut out = BufWriter::new(File::create(&partial)?);
        write(&mut out)?;
        out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        fs::rename(&partial, &path)
    };
    save().map_err(|source| at(&path, source))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_in_use_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("notes.txt");
        fs::write(&file, "keep me").unwrap();
        let error = prepare_folder(dir.path()).unwrap_err();
        assert!(error.to_string().contains("is not empty"), "{error}");
        let error = prepare_folder(&file).unwrap_err();
        assert!(error.to_string().contains("notes.txt"), "{error}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "keep me");
    }
}
