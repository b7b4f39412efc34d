//! The right to write: one process at a time.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::{IndexError, Result};

/// Name of the lock file within the folder of the index.
pub(super) const LOCK: &str = "writer.lock";
/// How long a lock that is held is tried again.
const LOCK_WAIT: Duration = Duration::from_millis(300);

/// Takes the right to write. The lock goes with the file's handle, so a process that dies leaves none behind.
pub(super) fn lock(dir: &Path) -> Result<File> {
    let path = dir.join(LOCK);
    let open = || {
        let opened = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        opened.map_err(|e| IndexError::io(&path, e))
    };
    let mut file = open()?;
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        match file.try_lock() {
            Ok(()) if is_at(&file, &path) => break,
            // Between opening and locking, another index took the place of this one: its lock is the one that counts.
            Ok(()) => file = open()?,
            // A process just forked by one that wrote holds its locks till it starts its own program.
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(LOCK_WAIT / 20),
            Err(TryLockError::WouldBlock) => {
                return Err(IndexError::Locked { dir: dir.into(), holder: named_in(&mut file) });
            }
            Err(TryLockError::Error(e)) => return Err(IndexError::io(&path, e)),
        }
    }
    // Only a help for the message above; the lock does not depend on it.
    let _ =
        file.set_len(0).and_then(|()| file.rewind()).and_then(|()| write!(file, "{}", std::process::id()));
    Ok(file)
}

/// Keeps writers away while the index in `dir` is read as a whole. Writes nothing; `None` if nobody ever wrote the index, or
/// this user may not read the lock.
pub(crate) fn share(dir: &Path) -> Result<Option<File>> {
    let Ok(mut file) = File::open(dir.join(LOCK)) else { return Ok(None) };
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(LOCK_WAIT / 20),
            Err(TryLockError::WouldBlock) => {
                return Err(IndexError::Locked { dir: dir.into(), holder: named_in(&mut file) });
            }
            // Some file systems have no locks to share.
            Ok(()) | Err(TryLockError::Error(_)) => return Ok(Some(file)),
        }
    }
}

/// The process that holds the right to write the index in `dir`, if one does.
pub(super) fn holder(dir: &Path) -> Option<String> {
    let mut file = File::open(dir.join(LOCK)).ok()?;
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => Some(named_in(&mut file)),
        _ => None,
    }
}

fn named_in(file: &mut File) -> String {
    let mut holder = String::new();
    let _ = file.read_to_string(&mut holder);
    match holder.trim() {
        "" => "another process".into(),
        id => format!("process {id}"),
    }
}

/// Whether an open file is the one that lies at a path. Where the system does not say it, it counts as such.
pub(super) fn is_at(file: &File, path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        let which = |about: std::fs::Metadata| (about.dev(), about.ino());
        match (file.metadata(), std::fs::metadata(path)) {
            (Ok(file), Ok(there)) => which(file) == which(there),
            (_, there) => there.is_ok(),
        }
    }
    #[cfg(not(unix))]
    {
        let _ = file;
        path.exists()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_that_of_the_folder_that_lies_there() {
        let dir = tempfile::tempdir().unwrap();
        let (here, away) = (dir.path().join("index"), dir.path().join("away"));
        std::fs::create_dir(&here).unwrap();
        let held = lock(&here).unwrap();
        assert_eq!(holder(&here), Some(format!("process {}", std::process::id())));
        assert!(matches!(lock(&here), Err(IndexError::Locked { .. })));
        assert!(is_at(&held, &here.join(LOCK)));
        std::fs::rename(&here, &away).unwrap();
        assert!(!is_at(&held, &here.join(LOCK)) && is_at(&held, &away.join(LOCK)));
        std::fs::create_dir(&here).unwrap();
        assert!(!is_at(&held, &here.join(LOCK)));
        assert_eq!(holder(&here), None);
        lock(&here).unwrap();
    }
}
