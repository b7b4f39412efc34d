//! Room on the disk.

use std::path::Path;

use crate::error::{IndexError, Result};

/// Room that must be left beside what is about to be written, in bytes: the store cannot recover its place within the
/// process when the disk runs full under it, and is damaged by being opened again while the disk is full.
const SPARE: u64 = 64 << 20;

/// Refuses to go on if the disk of `dir` has no room for so many bytes more.
pub(crate) fn check(dir: &Path, bytes: u64) -> Result<()> {
    let needed = bytes.saturating_add(SPARE);
    match fs4::available_space(dir) {
        Ok(free) if free < needed => Err(IndexError::LittleRoom { path: dir.into(), free, needed }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_and_what_is_needed_are_told() {
        let dir = tempfile::tempdir().unwrap();
        check(dir.path(), 0).unwrap();
        let error = check(dir.path(), 1 << 60).unwrap_err();
        assert!(matches!(error, IndexError::LittleRoom { needed, .. } if needed == (1 << 60) + SPARE));
        assert!(error.to_string().contains("1099511627840 are needed"), "{error}");
    }
}
