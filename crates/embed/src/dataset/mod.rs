//! Which photographs there are, and what each of them shows.
//!
//! A [`Dataset`] is a list of [`Sample`]s below one root folder. It is read from a tree of folders, a plain folder,
//! a CSV or TSV table, the lists of Stanford Online Products, or drawn by the program itself ([`sample`]).
//! Opening a data set lists files; it decodes none of them: that is [`check`]'s task.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde::{Deserialize, Serialize};

pub mod check;
mod error;
mod file_finder;
mod folder;
mod inside;
mod key_lookup;
mod left_out;
pub mod sample;
mod sop;
mod spelling;
pub mod table;
mod unicode_forms;

pub use error::{DatasetError, DatasetWarning};
pub use key_lookup::KeyLookup;
pub use left_out::{LeftOut, LeftOutReason};
pub use table::{Column, Header, TableConfig};

/// The part of a benchmark a sample belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// Photographs to train on.
    Train,
    /// Photographs to choose models and settings by.
    Validation,
    /// Photographs that only the final measurement sees.
    Test,
}

impl Split {
    /// Reads `train`, `val`, `valid`, `validation` or `test`, in any case.
    pub fn parse(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "train" => Some(Self::Train),
            "val" | "valid" | "validation" => Some(Self::Validation),
            "test" => Some(Self::Test),
            _ => None,
        }
    }
}

/// One photograph of the catalogue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Path relative to [`Dataset::root`], with `/` between its parts; unique within the data set, so it also serves
    /// as the photograph's key in an index.
    pub path: PathBuf,
    /// The product shown, if known; in composed Unicode form (NFC) if the set was read by [`Dataset::open`].
    pub class: Option<String>,
    /// The category of the product, if known.
    pub super_class: Option<String>,
    /// The part of the benchmark, if the data set says.
    pub split: Option<Split>,
}

impl Sample {
    /// The path as text: the key of this photograph in an index.
    pub fn key(&self) -> String {
        self.path.to_string_lossy().into_owned()
    }
}

/// A list of photographs below one folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dataset {
    /// The folder all paths are relative to.
    pub root: PathBuf,
    /// What to call the set in reports.
    pub name: String,
    /// The photographs, in a fixed order: as listed in a table, or sorted by path for folders.
    pub samples: Vec<Sample>,
    /// What was odd about the set without making it useless.
    #[serde(default)]
    pub warnings: Vec<DatasetWarning>,
    /// What the folder holds that is not among the samples, for folders without a table.
    #[serde(default)]
    pub left_out: Vec<LeftOut>,
}

/// How a data set is laid out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Find out: a folder with `Ebay_train.txt` or `Ebay_test.txt` is [`Format::Sop`], one with `products.csv` is that
    /// [`Format::Table`], any other folder is a [`Format::Folder`]; a file is a table, or one of SOP's lists if its
    /// first line is theirs.
    #[default]
    Auto,
    /// A tree of folders. A photograph's class is the path of the folder it lies in (`Fruit/Apple/Golden-Delicious`)
    /// and its super class the path of the folder above (`Fruit/Apple`), both relative to the root, so that equal names
    /// in different branches stay different classes. Photographs directly in the root have no class. If every
    /// folder at the top that holds photographs is called `train`, `val`, `valid`, `validation` or `test`, that level
    /// is the split and is no part of the class.
    Folder,
    /// A folder, searched with all folders below it, whose photographs have no class.
    Flat,
    /// A CSV or TSV file, or a folder with `products.csv`.
    Table(TableConfig),
    /// Stanford Online Products: the folder with `Ebay_train.txt` and `Ebay_test.txt`, or one of these files.
    Sop {
        /// The list to read; `None` reads those that are there.
        split: Option<Split>,
    },
}

/// Where a data set is and how to read it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DatasetConfig {
    /// The folder or the table.
    pub path: PathBuf,
    /// Its layout.
    pub format: Format,
    /// What to call it; `None` takes the name of the folder or table.
    pub name: Option<String>,
    /// Accept symbolic links that lead out of the root folder. Without it such a link is left out of a folder, and an error in
    /// a table, because a catalogue could otherwise publish any file of the machine.
    pub follow_outside_links: bool,
}

impl DatasetConfig {
    /// Reads `path`, whatever its layout.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), ..Self::default() }
    }
}

impl Dataset {
    /// Lists a data set.
    ///
    /// # Errors
    /// [`DatasetError`] names the file, the line and the value that stand in the way. Missing or broken photographs are
    /// no errors here; [`check::check`] reports them.
    pub fn open(config: &DatasetConfig) -> Result<Self, DatasetError> {
        let path = &config.path;
        let meta = std::fs::metadata(path).map_err(|source| DatasetError::io(path, source))?;
        let format = match &config.format {
            Format::Auto => detect(path, meta.is_dir())?,
            other => other.clone(),
        };
        let needs_folder = matches!(format, Format::Folder | Format::Flat);
        if needs_folder && !meta.is_dir() {
            return Err(DatasetError::NotAFolder { path: path.clone() });
        }
        let mut set = match format {
            Format::Auto | Format::Folder => folder::open(path, true, config.follow_outside_links)?,
            Format::Flat => folder::open(path, false, config.follow_outside_links)?,
            Format::Table(table) => {
                let file = if meta.is_dir() { path.join(sample::TABLE_NAME) } else { path.clone() };
                table::open(&file, &table, config.follow_outside_links)?
            }
            Format::Sop { split } => sop::open(path, meta.is_dir(), split, config.follow_outside_links)?,
        };
        unicode_forms::compose(&mut set);
        if let Some(name) = &config.name {
            set.name.clone_from(name);
        }
        Ok(set)
    }

    /// A data set of the given samples, without warnings.
    pub fn new(root: impl Into<PathBuf>, name: impl Into<String>, samples: Vec<Sample>) -> Self {
        Self { root: root.into(), name: name.into(), samples, warnings: Vec::new(), left_out: Vec::new() }
    }

    /// Number of photographs.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Whether there is no photograph at all.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// Where a photograph lies on disk.
    pub fn full_path(&self, sample: &Sample) -> PathBuf {
        self.root.join(&sample.path)
    }

    /// The names of all classes, sorted, each once.
    pub fn classes(&self) -> Vec<&str> {
        let names: BTreeSet<&str> = self.samples.iter().filter_map(|s| s.class.as_deref()).collect();
        names.into_iter().collect()
    }

    /// The position of each sample's class in [`Dataset::classes`]; `None` for samples without one.
    pub fn class_indices(&self) -> Vec<Option<usize>> {
        let names = self.classes();
        // Every class is in the list by construction, so the search cannot fail.
        self.samples.iter().map(|s| s.class.as_deref().and_then(|c| names.binary_search(&c).ok())).collect()
    }

    /// The samples that `keep` accepts, in the same order.
    pub fn filter(&self, keep: impl Fn(&Sample) -> bool) -> Self {
        self.with_samples(self.samples.iter().filter(|s| keep(s)).cloned().collect())
    }

    /// The samples at the given positions, in the order given. Positions beyond the end are left out.
    pub fn select(&self, positions: &[usize]) -> Self {
        self.with_samples(positions.iter().filter_map(|&i| self.samples.get(i)).cloned().collect())
    }

    /// Splits the set by class: the first part holds all photographs of `fraction` (0 to 1, rounded to whole classes) of
    /// the classes, drawn by `seed`, the second those of all other classes, so that no class is in both. Both
    /// keep the order of the samples. Photographs without a class cannot be told apart by class and are in neither.
    pub fn class_split(&self, fraction: f64, seed: u64) -> (Self, Self) {
        let mut names = self.classes();
        names.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        let count = (names.len() as f64 * fraction.clamp(0.0, 1.0)).round() as usize;
        let first: BTreeSet<&str> = names[..count].iter().copied().collect();
        let part =
            |inside: bool| self.filter(|s| s.class.as_deref().is_some_and(|c| first.contains(c) == inside));
        (part(true), part(false))
    }

    fn with_samples(&self, samples: Vec<Sample>) -> Self {
        Self {
            root: self.root.clone(),
            name: self.name.clone(),
            samples,
            warnings: self.warnings.clone(),
            left_out: self.left_out.clone(),
        }
    }
}

fn detect(path: &Path, is_dir: bool) -> Result<Format, DatasetError> {
    if is_dir {
        return Ok(if sop::is_root(path) {
            Format::Sop { split: None }
        } else if path.join(sample::TABLE_NAME).is_file() {
            Format::Table(TableConfig::default())
        } else {
            Format::Folder
        });
    }
    Ok(if sop::is_list(path)? { Format::Sop { split: None } } else { Format::Table(TableConfig::default()) })
}

/// The last part of a path as text, without extension for files.
fn display_name(path: &Path) -> String {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let name = if path.is_dir() { path.file_name() } else { path.file_stem() };
    name.map_or_else(|| path.display().to_string(), |n| n.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labelled(classes: &[Option<&str>]) -> Dataset {
        let samples = classes.iter().enumerate().map(|(i, class)| Sample {
            path: format!("{i}.jpg").into(),
            class: class.map(str::to_owned),
            super_class: None,
            split: None,
        });
        Dataset::new("/photos", "test", samples.collect())
    }

    #[test]
    fn classes_are_sorted_and_indexed() {
        let set = labelled(&[Some("b"), Some("a"), None, Some("b")]);
        assert_eq!(set.classes(), ["a", "b"]);
        assert_eq!(set.class_indices(), [Some(1), Some(0), None, Some(1)]);
        assert_eq!(set.full_path(&set.samples[1]), Path::new("/photos/1.jpg"));
        let picked = set.select(&[3, 0, 99]);
        assert_eq!(picked.samples.iter().map(Sample::key).collect::<Vec<_>>(), ["3.jpg", "0.jpg"]);
    }

    #[test]
    fn class_split_is_disjoint_complete_and_repeatable() {
        let names: Vec<String> = (0..50).map(|i| format!("class {}", i % 10)).collect();
        let mut classes: Vec<Option<&str>> = names.iter().map(|n| Some(n.as_str())).collect();
        classes.push(None);
        let set = labelled(&classes);
        let (train, test) = set.class_split(0.3, 7);
        assert_eq!((train.classes().len(), test.classes().len()), (3, 7));
        assert_eq!((train.len(), test.len()), (15, 35));
        assert!(train.classes().iter().all(|c| !test.classes().contains(c)));
        assert_eq!(set.class_split(0.3, 7), (train.clone(), test));
        assert!((0..20).any(|seed| set.class_split(0.3, seed).0.classes() != train.classes()));
        assert!(set.class_split(0.0, 7).0.is_empty());
        assert!(set.class_split(1.0, 7).1.is_empty());
    }

    #[test]
    fn split_names() {
        assert_eq!(Split::parse("Val"), Some(Split::Validation));
        assert_eq!(Split::parse("TEST"), Some(Split::Test));
        assert_eq!(Split::parse("shoes"), None);
    }

    #[test]
    fn a_missing_path_is_named() {
        let error = Dataset::open(&DatasetConfig::new("/no/such/folder")).unwrap_err();
        assert!(error.to_string().contains("/no/such/folder"), "{error}");
    }
}
