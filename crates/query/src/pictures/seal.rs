//! Whether the folder that an index records for its pictures can be trusted.
//!
//! An index that came from elsewhere may name any folder of this machine, and pages and servers would show what lies there.
//! Building an index therefore seals the folder's name: with a secret of the user's, together with the place where the index
//! lies. A seal that fits says that this user recorded this folder for the index at this place. Nobody else can make one, and
//! an index that is copied or moved leaves it behind.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::owner_key::{OwnerKey, place};
use crate::catalog::ROOT;

/// Attribute of an index: the seal on [`ROOT`].
pub const SEAL: &str = "catalogue_seal";

/// Why an index cannot be sealed.
#[derive(Debug, thiserror::Error)]
#[error("this user's key cannot be kept{}: {source}", path.as_ref().map(|path| format!(" in {}", path.display())).unwrap_or_default())]
pub struct SealError {
    /// The file of the key; none for a user without a home.
    pub path: Option<PathBuf>,
    /// What the system said.
    pub source: std::io::Error,
}

/// Seals the catalogue's folder among the attributes of the index in the folder `index`. Attributes without such a folder stay
/// as they are.
///
/// # Errors
/// If the user's key can neither be read nor made. The attributes then have no seal.
pub fn seal(attributes: &mut BTreeMap<String, String>, index: &Path) -> Result<(), SealError> {
    attributes.remove(SEAL);
    let Some(root) = attributes.get(ROOT) else { return Ok(()) };
    let path = place();
    let key = match &path {
        Some(path) => OwnerKey::read_or_make(path),
        None => Err(std::io::ErrorKind::NotFound.into()),
    };
    let key = key.map_err(|source| SealError { path, source })?;
    let seal = of(&key, &real(index), root);
    attributes.insert(SEAL.to_owned(), seal);
    Ok(())
}

/// Seals the attributes of an index made from another one, if those of the other were sealed.
///
/// # Errors
/// As [`seal`].
pub fn carry_over(
    attributes: &mut BTreeMap<String, String>,
    from: &Path,
    to: &Path,
) -> Result<(), SealError> {
    if fits(attributes, from) {
        return seal(attributes, to);
    }
    attributes.remove(SEAL);
    Ok(())
}

/// Whether this user sealed the catalogue's folder for the index at this place.
pub fn fits(attributes: &BTreeMap<String, String>, index: &Path) -> bool {
    let (Some(root), Some(seal), Some(path)) = (attributes.get(ROOT), attributes.get(SEAL), place()) else {
        return false;
    };
    let Ok(Some(key)) = OwnerKey::read(&path) else { return false };
    of(&key, &real(index), root) == *seal
}

/// The one name of a folder, whether it is there already or will be made.
fn real(index: &Path) -> PathBuf {
    let absolute = std::path::absolute(index).unwrap_or_else(|_| index.to_owned());
    // The part that is there, and what follows it.
    let (mut there, mut rest) = (absolute.as_path(), Vec::new());
    let mut real = loop {
        if let Ok(real) = there.canonicalize() {
            break real;
        }
        let (Some(parent), Some(last)) = (there.parent(), there.components().next_back()) else {
            return absolute;
        };
        rest.push(last);
        there = parent;
    };
    for part in rest.into_iter().rev() {
        match part {
            Component::ParentDir => drop(real.pop()),
            Component::CurDir => {}
            named => real.push(named),
        }
    }
    real
}

/// A message authentication code: the message's digest, hashed after the key. Both have a fixed length, so nothing can be
/// added to what was sealed.
fn of(key: &OwnerKey, index: &Path, root: &str) -> String {
    let index = index.as_os_str().as_encoded_bytes();
    let message = Sha256::new()
        .chain_update((index.len() as u64).to_le_bytes())
        .chain_update(index)
        .chain_update(root.as_bytes())
        .finalize();
    let code = Sha256::new().chain_update(key.0).chain_update(message).finalize();
    code.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_fits_one_folder_one_place_and_one_key() {
        let (key, other) = (OwnerKey([7; 32]), OwnerKey([8; 32]));
        let right = of(&key, Path::new("/indexes/shop"), "/pictures");
        assert_eq!(right, of(&key, Path::new("/indexes/shop"), "/pictures"));
        assert_ne!(right, of(&other, Path::new("/indexes/shop"), "/pictures"));
        assert_ne!(right, of(&key, Path::new("/indexes/shop2"), "/pictures"));
        assert_ne!(right, of(&key, Path::new("/indexes/shop"), "/"));
        assert_ne!(right, of(&key, Path::new("/indexes/shop/"), "pictures"), "lengths count");
    }

    #[test]
    fn a_place_has_one_name() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().canonicalize().unwrap();
        assert_eq!(real(&dir.path().join("new")), home.join("new"));
        for not_there_yet in ["a/../new", "./new", "a/b/../../new"] {
            assert_eq!(real(&dir.path().join(not_there_yet)), home.join("new"), "{not_there_yet}");
        }
        assert_eq!(real(&dir.path().join("a/b/../c")), home.join("a/c"));
        std::fs::create_dir(home.join("new")).unwrap();
        assert_eq!(real(&dir.path().join("new/../new")), home.join("new"));
    }

    #[test]
    fn what_is_not_sealed_or_sealed_for_another_place_does_not_fit() {
        let mut attributes = BTreeMap::from([(ROOT.to_owned(), "/pictures".to_owned())]);
        let (here, there) = (Path::new("/nowhere/shop"), Path::new("/nowhere/copy"));
        assert!(!fits(&attributes, here));
        attributes.insert(SEAL.to_owned(), of(&OwnerKey([0; 32]), here, "/pictures"));
        assert!(!fits(&attributes, here), "somebody else's key");
        // Where this user cannot keep a key, nothing is ever sealed.
        if seal(&mut attributes, here).is_err() {
            assert!(!attributes.contains_key(SEAL));
            return;
        }
        assert!(fits(&attributes, here) && !fits(&attributes, there));
        let mut copied = attributes.clone();
        carry_over(&mut copied, here, there).unwrap();
        assert!(fits(&copied, there) && !fits(&copied, here));
        carry_over(&mut copied, here, here).unwrap();
        assert!(!copied.contains_key(SEAL), "what was not sealed is not sealed by copying");
        attributes.insert(ROOT.to_owned(), "/".to_owned());
        assert!(!fits(&attributes, here));
    }
}
