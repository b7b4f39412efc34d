//! From the path that a table lists to the file it means.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use unicode_normalization::UnicodeNormalization;

use super::DatasetWarning;
use super::inside::{Fault, is_web_address, normalise};
use super::spelling::{absolute_forms, lexical, spellings};

/// Looks below a root for the files that paths name, however they are spelled.
pub(super) struct FileFinder<'a> {
    root: &'a Path,
    absolute_roots: Vec<PathBuf>,
    /// Real names by their composed form, for each folder looked into.
    folders: HashMap<PathBuf, HashMap<String, OsString>>,
    respelled: usize,
    /// The first path that was found under another spelling: its line, as listed, as found.
    example: Option<(u64, String, String)>,
}

impl<'a> FileFinder<'a> {
    pub(super) fn new(root: &'a Path) -> Self {
        let absolute_roots = absolute_forms(root);
        Self { root, absolute_roots, folders: HashMap::new(), respelled: 0, example: None }
    }

    pub(super) fn root(&self) -> &'a Path {
        self.root
    }

    /// The path, relative to the root, of the file that is meant; if there is none, the path as listed without `.` parts.
    pub(super) fn find(&mut self, listed: &str, line: u64) -> Result<String, Fault> {
        let direct = self.below_root(listed);
        if direct.as_ref().is_ok_and(|path| self.exists(path)) {
            return direct;
        }
        for spelling in spellings(listed) {
            let Ok(path) = self.below_root(&spelling) else { continue };
            let found = if self.exists(&path) { Some(path) } else { self.in_other_form(&path) };
            if let Some(found) = found {
                self.respelled += 1;
                self.example.get_or_insert_with(|| (line, listed.to_owned(), found.clone()));
                return Ok(found);
            }
        }
        direct
    }

    /// What to say of paths that were found under another spelling than listed.
    pub(super) fn warning(self, table: &Path) -> Option<DatasetWarning> {
        let (line, listed, found) = self.example?;
        Some(DatasetWarning::Respelled {
            table: table.to_path_buf(),
            count: self.respelled,
            line,
            listed,
            found,
        })
    }

    fn below_root(&self, text: &str) -> Result<String, Fault> {
        let path = Path::new(text);
        let below = self.absolute_roots.iter().find_map(|root| path.strip_prefix(root).ok());
        match below.and_then(Path::to_str) {
            Some(below) => normalise(below),
            None => normalise(text).or_else(|fault| self.back_below_root(path).ok_or(fault)),
        }
    }

    /// A relative path that climbs above the root and comes back, such as `../photos/1.jpg` for the root `photos`.
    fn back_below_root(&self, path: &Path) -> Option<String> {
        if !path.components().any(|part| part == Component::ParentDir) || is_web_address(path.to_str()?) {
            return None;
        }
        self.absolute_roots.iter().find_map(|root| {
            let meant = lexical(&root.join(path));
            normalise(meant.strip_prefix(root).ok()?.to_str()?).ok()
        })
    }

    fn exists(&self, path: &str) -> bool {
        self.root.join(path).symlink_metadata().is_ok()
    }

    /// The file with the same name in another Unicode form: letters composed (ä) or in two code points (a and ¨).
    fn in_other_form(&mut self, path: &str) -> Option<String> {
        if path.is_ascii() {
            return None;
        }
        let mut real = String::new();
        for part in path.split('/') {
            let folder = self.root.join(&real);
            let names = self.folders.entry(folder).or_insert_with_key(|folder| names(folder));
            let name = match names.get(&part.nfc().collect::<String>()) {
                Some(name) => name.to_str()?,
                None => return None,
            };
            let separator = if real.is_empty() { "" } else { "/" };
            real = format!("{real}{separator}{name}");
        }
        Some(real)
    }
}

/// A folder's entries by the composed form of their names. Of two entries that share it the first in order counts.
fn names(folder: &Path) -> HashMap<String, OsString> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<OsString> = entries.map(|entry| entry.file_name()).collect();
    names.sort();
    let mut found = HashMap::new();
    for name in names {
        if let Some(text) = name.to_str() {
            found.entry(text.nfc().collect()).or_insert(name);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_found_however_its_path_is_written() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["A\u{308}pfel/1 x.jpg", "b/2.jpg", "b/50%25.jpg", "b/50%.jpg"] {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        }
        let mut finder = FileFinder::new(dir.path());
        let mut found = |text: &str| finder.find(text, 7);
        assert_eq!(found("b/2.jpg").as_deref(), Ok("b/2.jpg"));
        assert_eq!(found("./b//x/../2.jpg").as_deref(), Ok("b/2.jpg"));
        assert_eq!(found("b/50%25.jpg").as_deref(), Ok("b/50%25.jpg"), "as written comes first");
        let absolute = dir.path().join("b/2.jpg");
        assert_eq!(found(absolute.to_str().unwrap()).as_deref(), Ok("b/2.jpg"));
        for other in ["Äpfel/1 x.jpg", r"A\u{308}pfel\1 x.jpg", "%C3%84pfel/1%20x.jpg", r".\Äpfel\1 x.jpg"]
        {
            let other = other.replace(r"\u{308}", "\u{308}");
            assert_eq!(found(&other).as_deref(), Ok("A\u{308}pfel/1 x.jpg"), "{other}");
        }
        let url = format!("file://{}/%C3%84pfel/1%20x.jpg", dir.path().display());
        assert_eq!(found(&url).as_deref(), Ok("A\u{308}pfel/1 x.jpg"));
        assert_eq!(found(r"b\none.jpg").as_deref(), Ok(r"b\none.jpg"), "a missing file is named as listed");
        let name = dir.path().file_name().unwrap().to_str().unwrap();
        assert_eq!(found(&format!("../{name}/b/2.jpg")).as_deref(), Ok("b/2.jpg"));
        assert!(matches!(found("https://shop.example/b/2.jpg"), Err(Fault::Outside(_))));
        assert!(matches!(found("../x.jpg"), Err(Fault::Outside(_))));
        assert!(matches!(found("/etc/x.jpg"), Err(Fault::Outside(_))));
        let warning = finder.warning(Path::new("list.csv")).unwrap().to_string();
        assert!(
            warning.contains("5 paths") && warning.contains("line 7") && warning.contains("Äpfel"),
            "{warning}"
        );
    }
}
