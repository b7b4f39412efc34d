//! The files sled writes for values that outgrow a segment of its log.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Mutex;

use crate::error::{IndexError, Result};
use crate::segment::manifest::sync_dir;

/// Which of them were synced already: they are never written again.
#[derive(Default)]
pub(super) struct Blobs {
    synced: Mutex<HashSet<OsString>>,
}

impl Blobs {
    /// Makes the files in `folder` survive a power cut.
    pub(super) fn sync(&self, folder: &Path) -> Result<()> {
        let mut synced = self.synced.lock().unwrap_or_else(|e| e.into_inner());
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(IndexError::io(folder, e)),
        };
        let mut fresh = false;
        for entry in entries {
            let entry = entry.map_err(|e| IndexError::io(folder, e))?;
            if !synced.contains(&entry.file_name()) {
                fresh = true;
                match File::open(entry.path()).and_then(|f| f.sync_all()) {
                    // sled may have collected it meanwhile.
                    Err(e) if e.kind() != ErrorKind::NotFound => return Err(IndexError::io(entry.path(), e)),
                    _ => synced.insert(entry.file_name()),
                };
            }
        }
        if fresh { sync_dir(folder) } else { Ok(()) }
    }
}
