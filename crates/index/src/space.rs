//! Room on the disk.

use std::path::Path;

use crate::error::{IndexError, Result};

/// Room that must be left beside what is about to be written, in bytes: the store cannot recover its place within the
/// process when the disk runs full under it, and is damaged by being opened again while the disk is full.
const SPARE: u64 = 64 << 20;

/// Refuses to go on if the disk of `dir` has no room for so many bytes more.
pub(crate) fn check(dir: &Path, bytes: u64) -> Result<()> {
    match fs4::available_space(dir) {
        Ok(free) if free < bytes.saturating_add(SPARE) => Err(IndexError::DiskFull { path: dir.into() }),
        _ => Ok(()),
    }
}
