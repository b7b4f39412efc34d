//! The files of a store written once more, after the disk refused a write or a sync.
//!
//! After a failed sync the system takes its pages for clean: a later sync succeeds though they never reached the disk.
//! What can be read of the files is therefore written again, byte for byte, before anything relies on it.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::Path;

use super::folder::log;
use crate::error::{IndexError, Result};
use crate::segment::manifest::sync_dir;

/// Bytes read and written at a time.
const CHUNK: usize = 1 << 20;

/// Writes and syncs every file of a store that nobody has open.
pub(super) fn rewrite(folder: &Path) -> Result<()> {
    file(&log(folder))?;
    let blobs = folder.join("blobs");
    match fs::read_dir(&blobs) {
        Ok(entries) => {
            for entry in entries {
                file(&entry.map_err(|e| IndexError::io(&blobs, e))?.path())?;
            }
            sync_dir(&blobs)?;
        }
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        Err(e) => return Err(IndexError::io(&blobs, e)),
    }
    sync_dir(folder)
}

fn file(path: &Path) -> Result<()> {
    let again = || -> std::io::Result<()> {
        let mut file = File::options().read(true).write(true).open(path)?;
        let (mut bytes, mut at) = (vec![0; CHUNK], 0);
        loop {
            file.seek(SeekFrom::Start(at))?;
            let read = file.read(&mut bytes)?;
            if read == 0 {
                return file.sync_all();
            }
            file.seek(SeekFrom::Start(at))?;
            file.write_all(&bytes[..read])?;
            at += read as u64;
        }
    };
    again().map_err(|e| IndexError::io(path, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_stay_as_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..CHUNK * 2 + 77).map(|i| (i % 251) as u8).collect();
        fs::create_dir(dir.path().join("blobs")).unwrap();
        fs::write(log(dir.path()), &bytes).unwrap();
        fs::write(dir.path().join("blobs/12"), b"large").unwrap();
        rewrite(dir.path()).unwrap();
        assert_eq!(fs::read(log(dir.path())).unwrap(), bytes);
        assert_eq!(fs::read(dir.path().join("blobs/12")).unwrap(), b"large");
        fs::remove_file(log(dir.path())).unwrap();
        assert!(rewrite(dir.path()).is_err());
    }
}
