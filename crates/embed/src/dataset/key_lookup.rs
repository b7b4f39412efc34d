//! From the path or key that a file of metadata gives to the sample it means.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use unicode_normalization::UnicodeNormalization;

use super::Dataset;
use super::inside::normalise;
use super::spelling::{absolute_forms, lexical, spellings};

/// Finds samples by their keys, however a key is written, as long as it names the sample's file: with `./` or `..` parts,
/// `\` as the separator, percent-escapes or another Unicode form; relative to the data set's root, to the folder of the file
/// it stands in, or to the current folder; as an absolute path or `file:` URL, with links followed.
pub struct KeyLookup {
    samples: HashMap<String, usize>,
    /// The absolute forms of the data set's root.
    roots: Vec<PathBuf>,
    /// Folders that paths may be relative to, beside the root.
    bases: Vec<PathBuf>,
    /// Folders with links followed.
    real_folders: HashMap<PathBuf, Option<PathBuf>>,
}

impl KeyLookup {
    /// For the samples of `dataset` and keys that stand in a file in `folder`.
    pub fn new(dataset: &Dataset, folder: &Path) -> Self {
        let mut samples: HashMap<String, usize> =
            dataset.samples.iter().map(|sample| sample.key()).zip(0..).collect();
        for (place, sample) in dataset.samples.iter().enumerate() {
            let key = sample.key();
            if !key.is_ascii() {
                samples.entry(key.nfc().collect()).or_insert(place);
            }
        }
        let bases = [folder, Path::new(".")].into_iter().filter_map(|base| std::path::absolute(base).ok());
        let (roots, bases) = (absolute_forms(&dataset.root), bases.collect());
        Self { samples, roots, bases, real_folders: HashMap::new() }
    }

    /// The position in the data set of the sample that `text` names.
    pub fn find(&mut self, text: &str) -> Option<usize> {
        if let Some(&place) = self.samples.get(text) {
            return Some(place);
        }
        let spellings = spellings(text);
        let direct = |text: &Cow<'_, str>| normalise(text).ok().and_then(|path| self.at(&path));
        if let Some(place) = spellings.iter().find_map(direct) {
            return Some(place);
        }
        let absolute: Vec<PathBuf> = spellings
            .iter()
            .flat_map(|text| self.bases.iter().map(|base| lexical(&base.join(text.as_ref()))))
            .collect();
        if let Some(place) = absolute.iter().find_map(|path| self.below_root(path)) {
            return Some(place);
        }
        absolute.iter().find_map(|path| {
            let real = self.real(path)?;
            self.below_root(&real)
        })
    }

    fn at(&self, path: &str) -> Option<usize> {
        let other_form = || self.samples.get(&path.nfc().collect::<String>());
        self.samples.get(path).or_else(|| if path.is_ascii() { None } else { other_form() }).copied()
    }

    fn below_root(&self, path: &Path) -> Option<usize> {
        let below = self.roots.iter().filter_map(|root| path.strip_prefix(root).ok()?.to_str());
        below.filter_map(|below| normalise(below).ok()).find_map(|path| self.at(&path))
    }

    /// The path with links among its folders followed, the last part as it is.
    fn real(&mut self, path: &Path) -> Option<PathBuf> {
        let folder = path.parent()?;
        let real = match self.real_folders.get(folder) {
            Some(real) => real.clone(),
            None => {
                let real = folder.canonicalize().ok();
                self.real_folders.insert(folder.to_path_buf(), real.clone());
                real
            }
        };
        Some(real?.join(path.file_name()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::Sample;

    #[test]
    fn every_way_to_write_a_key_that_names_the_file_finds_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("photos");
        std::fs::create_dir_all(root.join("c 0")).unwrap();
        std::fs::create_dir_all(dir.path().join("lists")).unwrap();
        let sample = |path: &str| Sample { path: path.into(), class: None, super_class: None, split: None };
        let set =
            Dataset::new(&root, "x", vec![sample("c 0/0.jpg"), sample("c 0/A\u{308}.jpg"), sample("1")]);
        let mut lookup = KeyLookup::new(&set, &dir.path().join("lists"));
        let below = |path: &str| format!("{}/{path}", dir.path().display());
        for text in [
            "c 0/0.jpg",
            "./c 0/0.jpg",
            "c 0//x/.././0.jpg",
            r"c 0\0.jpg",
            r".\c 0\0.jpg",
            "c%200/0.jpg",
            "../photos/c 0/0.jpg",
            r"..\photos\c%200\0.jpg",
            &below("photos/c 0/0.jpg"),
            &below("photos/../photos/c 0/0.jpg"),
            &format!("file://{}", below("photos/c%200/0.jpg")),
        ] {
            assert_eq!(lookup.find(text), Some(0), "{text}");
        }
        for text in ["c 0/Ä.jpg", "./c 0/A\u{308}.jpg", "c%200/%C3%84.jpg"] {
            assert_eq!(lookup.find(text), Some(1), "{text}");
        }
        assert_eq!(lookup.find("1"), Some(2));
        for text in ["photos/c 0/0.jpg", "c 0/1.jpg", "0.jpg", "", "..", "C 0/0.JPG", "/c 0/0.jpg"] {
            assert_eq!(lookup.find(text), None, "{text}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn links_to_the_root_are_followed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("real/a")).unwrap();
        std::os::unix::fs::symlink("real", dir.path().join("link")).unwrap();
        let sample = Sample { path: "a/0.jpg".into(), class: None, super_class: None, split: None };
        for (root, other) in [("real", "link"), ("link", "real")] {
            let set = Dataset::new(dir.path().join(root), "x", vec![sample.clone()]);
            let mut lookup = KeyLookup::new(&set, dir.path());
            assert_eq!(lookup.find(&format!("{other}/a/0.jpg")), Some(0), "{root} by {other}");
            assert_eq!(lookup.find(dir.path().join(other).join("a/0.jpg").to_str().unwrap()), Some(0));
        }
    }
}
