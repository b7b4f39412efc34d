//! The user's secret key, with which seals are made and checked.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};

use rand::TryRngCore as _;
use rand::rngs::OsRng;

/// Length of the secret in bytes.
const LENGTH: usize = 32;
/// Name below the user's folder for the state of programs.
const NAME: &str = "semblance/index-key";

/// A secret that only this user can read.
pub(super) struct OwnerKey(pub(super) [u8; LENGTH]);

/// The file with the secret of the user who runs this process, if that user has a home.
pub(super) fn place() -> Option<PathBuf> {
    dirs::state_dir().or_else(dirs::data_local_dir).map(|folder| folder.join(NAME))
}

impl OwnerKey {
    /// Reads the secret. None where the user has none yet.
    pub(super) fn read(path: &Path) -> io::Result<Option<Self>> {
        let file = match std::fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut secret = Vec::with_capacity(LENGTH);
        file.take(LENGTH as u64 + 1).read_to_end(&mut secret)?;
        let wrong = |_| io::Error::new(ErrorKind::InvalidData, format!("does not have {LENGTH} bytes"));
        Ok(Some(Self(secret.try_into().map_err(wrong)?)))
    }

    /// Reads the secret, or makes it.
    pub(super) fn read_or_make(path: &Path) -> io::Result<Self> {
        if let Some(key) = Self::read(path)? {
            return Ok(key);
        }
        let folder = path.parent().ok_or(ErrorKind::InvalidInput)?;
        std::fs::create_dir_all(folder)?;
        let mut secret = [0; LENGTH];
        OsRng.try_fill_bytes(&mut secret).map_err(io::Error::other)?;
        // Nobody else may read it: that is how temporary files are made.
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(&secret)?;
        file.as_file().sync_all()?;
        // Of two processes that make it at once, the first wins for both.
        if let Err(taken) = file.persist_noclobber(path)
            && taken.error.kind() != ErrorKind::AlreadyExists
        {
            return Err(taken.error);
        }
        Self::read(path)?.ok_or_else(|| ErrorKind::NotFound.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secret_is_made_once_and_kept_to_the_user() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/semblance/key");
        assert!(OwnerKey::read(&path).unwrap().is_none(), "reading makes none");
        let keys: Vec<[u8; LENGTH]> = std::thread::scope(|scope| {
            let make = || OwnerKey::read_or_make(&path).unwrap().0;
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(make)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(keys.iter().all(|key| *key == keys[0] && *key != [0; LENGTH]));
        assert_eq!(OwnerKey::read(&path).unwrap().unwrap().0, keys[0]);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o077, 0);
        }
        std::fs::write(&path, "cut short").unwrap();
        assert!(OwnerKey::read_or_make(&path).is_err(), "a damaged one is not replaced in silence");
    }
}
