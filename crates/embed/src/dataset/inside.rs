//! Paths that stay inside the root folder.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

/// Why a path is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Empty,
    Outside(&'static str),
}

/// The path with `.` and `..` parts and doubled separators removed, so that one photograph has one key.
pub(super) fn normalise(value: &str) -> Result<String, Fault> {
    if matches!(value.as_bytes(), [drive, b':', b'\\' | b'/', ..] if drive.is_ascii_alphabetic()) {
        return Err(Fault::Outside("it names a drive; list paths relative to the root folder"));
    }
    if is_web_address(value) {
        return Err(Fault::Outside("it is a web address; download the pictures and list their paths"));
    }
    let mut parts = Vec::new();
    for component in Path::new(value).components() {
        match component {
            Component::CurDir => {}
            Component::Normal(part) => parts.push(part.to_string_lossy()),
            Component::ParentDir => {
                parts.pop().ok_or(Fault::Outside("a `..` part climbs above the root folder"))?;
            }
            Component::RootDir | Component::Prefix(_) => {
                return Err(Fault::Outside("it is absolute; list paths relative to the root folder"));
            }
        }
    }
    if parts.is_empty() { Err(Fault::Empty) } else { Ok(parts.join("/")) }
}

/// Whether a value is an address such as `https://shop.example/1.jpg`. A `file:` URL names a file of this machine.
pub(super) fn is_web_address(value: &str) -> bool {
    value.split_once("://").is_some_and(|(scheme, _)| {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(plain)
            && !scheme.eq_ignore_ascii_case("file")
    })
}

/// Follows symbolic links to see whether they stay below a root. Folders are resolved once each.
pub(super) struct Boundary {
    root: PathBuf,
    folders: HashMap<PathBuf, bool>,
}

pub(super) const LINK_OUTSIDE: &str =
    "a symbolic link points elsewhere; copy the files in, or allow outside links";

impl Boundary {
    pub(super) fn new(root: &Path) -> std::io::Result<Self> {
        Ok(Self { root: root.canonicalize()?, folders: HashMap::new() })
    }

    /// Whether `file` (root joined with a normalised path) lies below the root once links are followed. Files that do
    /// not exist are judged by their folder; if that is missing too, there is nothing that could be read outside.
    pub(super) fn contains(&mut self, file: &Path) -> bool {
        let is_link = file.symlink_metadata().is_ok_and(|m| m.file_type().is_symlink());
        if is_link {
            return file.canonicalize().map_or(true, |target| target.starts_with(&self.root));
        }
        let Some(folder) = file.parent() else { return true };
        if let Some(&inside) = self.folders.get(folder) {
            return inside;
        }
        let inside = folder.canonicalize().map_or(true, |target| target.starts_with(&self.root));
        self.folders.insert(folder.to_path_buf(), inside);
        inside
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_photograph_has_one_key() {
        assert_eq!(normalise("./a//b/./c.jpg").as_deref(), Ok("a/b/c.jpg"));
        assert_eq!(normalise("a b/ü.jpg").as_deref(), Ok("a b/ü.jpg"));
        assert_eq!(normalise(""), Err(Fault::Empty));
        assert_eq!(normalise("./"), Err(Fault::Empty));
        assert_eq!(normalise("a/../b.jpg").as_deref(), Ok("b.jpg"));
        assert!(matches!(normalise("a/../../b.jpg"), Err(Fault::Outside(_))));
        assert!(matches!(normalise("../root/b.jpg"), Err(Fault::Outside(_))));
        assert!(matches!(normalise(r"C:\photos\b.jpg"), Err(Fault::Outside(_))));
        assert!(matches!(normalise("/etc/passwd"), Err(Fault::Outside(_))));
        for address in ["https://shop.example/a.png", "HTTP://x/a.png", "s3://bucket/a.png"] {
            assert!(
                matches!(normalise(address), Err(Fault::Outside(why)) if why.contains("web address")),
                "{address}"
            );
        }
        assert!(normalise("file:///a.png").is_ok() && normalise("a: b/c.png").is_ok());
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_to_where_they_lead() {
        let outside = tempfile::tempdir().unwrap();
        let root = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "x").unwrap();
        std::fs::write(root.path().join("a"), "x").unwrap();
        std::os::unix::fs::symlink(outside.path(), root.path().join("folder")).unwrap();
        std::os::unix::fs::symlink(outside.path().join("secret"), root.path().join("link")).unwrap();
        std::os::unix::fs::symlink(root.path().join("a"), root.path().join("inner")).unwrap();
        let mut boundary = Boundary::new(root.path()).unwrap();
        assert!(boundary.contains(&root.path().join("a")));
        assert!(boundary.contains(&root.path().join("inner")));
        assert!(boundary.contains(&root.path().join("missing.jpg")));
        assert!(!boundary.contains(&root.path().join("link")));
        assert!(!boundary.contains(&root.path().join("folder/secret")));
    }
}
