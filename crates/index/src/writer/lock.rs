//! The right to write: one process at a time.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::{IndexError, Result};

/// Name of the lock file within the folder of the index.
pub(crate) const LOCK: &str = "writer.lock";
/// How long a lock that is held is tried again.
const LOCK_WAIT: Duration = Duration::from_millis(300);

/// Takes the right to write. The lock goes with the file's handle, so a process that dies leaves none behind.
pub(crate) fn lock(dir: &Path) -> Result<File> {
    let path = dir.join(LOCK);
    let open = File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = open.map_err(|e| IndexError::io(&path, e))?;
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            // A process just forked by one that wrote holds its locks till it starts its own program.
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(LOCK_WAIT / 20),
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                let holder = match holder.trim() {
                    "" => "another process".into(),
                    id => format!("process {id}"),
                };
                return Err(IndexError::Locked { dir: dir.into(), holder });
            }
            Err(TryLockError::Error(e)) => return Err(IndexError::io(&path, e)),
        }
    }
    // Only a help for the message above; the lock does not depend on it.
    let _ =
        file.set_len(0).and_then(|()| file.rewind()).and_then(|()| write!(file, "{}", std::process::id()));
    Ok(file)
}
