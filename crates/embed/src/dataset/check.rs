//! What a data set is worth: counts, broken files, doubles.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Dataset, DatasetWarning, LeftOut, LeftOutReason, Split};
use crate::transform::{ImageErrorKind, Limits, decode, read};

/// The result of [`check`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DataCheck {
    /// The set's name.
    pub name: String,
    /// The folder its paths are relative to.
    pub root: String,
    /// Photographs listed.
    pub samples: usize,
    /// Of these, those with a class.
    pub labelled: usize,
    /// Classes.
    pub classes: usize,
    /// Super classes.
    pub super_classes: usize,
    /// Photographs of each split.
    pub splits: BTreeMap<Split, usize>,
    /// How many photographs classes have; `None` if there are no classes.
    pub images_per_class: Option<ImagesPerClass>,
    /// Bytes of all files that could be read.
    pub bytes: u64,
    /// Listed files that are not there.
    pub missing: Vec<String>,
    /// Files that cannot be used, with the reason.
    pub unreadable: Vec<Unreadable>,
    /// Groups of files of one class (or of none) with the same content.
    pub duplicates_within_class: Vec<Vec<String>>,
    /// Groups of files with the same content of which not all are of one class: some label is wrong or ambiguous.
    pub duplicates_across_classes: Vec<Vec<String>>,
    /// Classes with one photograph: no query for it can be answered by another.
    pub single_image_classes: Vec<String>,
    /// What the folder holds that is not among the photographs.
    pub left_out: Vec<LeftOut>,
    /// What was odd when the set was opened.
    pub warnings: Vec<DatasetWarning>,
    /// How many there are of what is listed above.
    pub counts: CheckCounts,
}

/// How many faults and oddities a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckCounts {
    /// Listed files that are not there.
    pub missing: usize,
    /// Files that cannot be used.
    pub unreadable: usize,
    /// Files and folders left out because of which a photograph may be missing.
    pub left_out: usize,
    /// Files and folders left out that are no photographs: other files, hidden ones, those of systems.
    pub passed_over: usize,
    /// Folders without a photograph.
    pub empty_folders: usize,
    /// Files that repeat another one of their class.
    pub duplicates_within_class: usize,
    /// Files that repeat another one, in groups of which not all are of one class.
    pub duplicates_across_classes: usize,
    /// Classes with one photograph.
    pub single_image_classes: usize,
}

impl DataCheck {
    /// Whether every listed photograph can be used, and none may be missing from the list.
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty() && self.unreadable.is_empty() && self.counts.left_out == 0
    }

    fn count(&mut self) {
        let repeated = |groups: &[Vec<String>]| groups.iter().map(|group| group.len() - 1).sum();
        let left_out = |wanted: &dyn Fn(LeftOutReason) -> bool| {
            self.left_out.iter().filter(|group| wanted(group.reason)).map(|group| group.count).sum()
        };
        let is_empty = |reason| reason == LeftOutReason::EmptyFolder;
        self.counts = CheckCounts {
            missing: self.missing.len(),
            unreadable: self.unreadable.len(),
            left_out: left_out(&LeftOutReason::is_fault),
            passed_over: left_out(&|reason| !reason.is_fault() && !is_empty(reason)),
            empty_folders: left_out(&is_empty),
            duplicates_within_class: repeated(&self.duplicates_within_class),
            duplicates_across_classes: repeated(&self.duplicates_across_classes),
            single_image_classes: self.single_image_classes.len(),
        };
    }
}

/// How many photographs classes have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImagesPerClass {
    /// The fewest.
    pub min: usize,
    /// The median (mean of the middle two for an even number of classes).
    pub median: f64,
    /// The most.
    pub max: usize,
    /// Ranges 1, 2, 3–4, 5–8, 9–16, … from the first to the last that has classes.
    pub histogram: Vec<HistogramBin>,
}

/// One range of a histogram.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistogramBin {
    /// Smallest number of photographs in the range.
    pub from: usize,
    /// Largest number of photographs in the range.
    pub to: usize,
    /// Classes in the range.
    pub classes: usize,
}

/// A file that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unreadable {
    /// Its path in the set.
    pub path: String,
    /// Why.
    pub reason: String,
}

enum Finding {
    Good { hash: [u8; 32], bytes: u64 },
    Missing,
    Unreadable { reason: String, content: Option<([u8; 32], u64)> },
}

/// Reads and decodes every photograph, on all threads of the current rayon pool. `progress` is called with the number
/// done and the number in all, from several threads.
pub fn check(dataset: &Dataset, limits: &Limits, progress: &(dyn Fn(usize, usize) + Sync)) -> DataCheck {
    let done = AtomicUsize::new(0);
    let total = dataset.len();
    let findings: Vec<Finding> = dataset
        .samples
        .par_iter()
        .map(|sample| {
            let finding = examine(&dataset.full_path(sample), limits);
            progress(done.fetch_add(1, Ordering::Relaxed) + 1, total);
            finding
        })
        .collect();
    summarise(dataset, &findings)
}

fn examine(path: &std::path::Path, limits: &Limits) -> Finding {
    let bytes = match read(path, limits) {
        Ok(bytes) => bytes,
        Err(ImageErrorKind::Missing) => return Finding::Missing,
        Err(kind) => return Finding::Unreadable { reason: kind.to_string(), content: None },
    };
    let (hash, size) = (Sha256::digest(&bytes).into(), bytes.len() as u64);
    let decoded = std::panic::catch_unwind(|| decode(&bytes, limits).map(|_| ()));
    match decoded.unwrap_or_else(|_| Err(ImageErrorKind::Panicked("see the message above".to_owned()))) {
        Ok(()) => Finding::Good { hash, bytes: size },
        Err(kind) => Finding::Unreadable { reason: kind.to_string(), content: Some((hash, size)) },
    }
}

fn summarise(dataset: &Dataset, findings: &[Finding]) -> DataCheck {
    let mut result = DataCheck {
        name: dataset.name.clone(),
        root: dataset.root.display().to_string(),
        samples: dataset.len(),
        labelled: 0,
        classes: 0,
        super_classes: 0,
        splits: BTreeMap::new(),
        images_per_class: None,
        bytes: 0,
        missing: Vec::new(),
        unreadable: Vec::new(),
        duplicates_within_class: Vec::new(),
        duplicates_across_classes: Vec::new(),
        single_image_classes: Vec::new(),
        left_out: dataset.left_out.clone(),
        warnings: dataset.warnings.clone(),
        counts: CheckCounts::default(),
    };
    let mut per_class = BTreeMap::<&str, usize>::new();
    let mut super_classes = std::collections::BTreeSet::new();
    let mut by_content = BTreeMap::<[u8; 32], Vec<usize>>::new();
    for (i, (sample, finding)) in dataset.samples.iter().zip(findings).enumerate() {
        super_classes.extend(sample.super_class.as_deref());
        if let Some(split) = sample.split {
            *result.splits.entry(split).or_default() += 1;
        }
        if let Some(class) = &sample.class {
            result.labelled += 1;
            *per_class.entry(class).or_default() += 1;
        }
        let content = match finding {
            Finding::Good { hash, bytes } => Some((*hash, *bytes)),
            Finding::Missing => {
                result.missing.push(sample.key());
                None
            }
            Finding::Unreadable { reason, content } => {
                result.unreadable.push(Unreadable { path: sample.key(), reason: reason.clone() });
                *content
            }
        };
        if let Some((hash, bytes)) = content {
            result.bytes += bytes;
            if bytes > 0 {
                by_content.entry(hash).or_default().push(i);
            }
        }
    }
    result.classes = per_class.len();
    result.super_classes = super_classes.len();
    result.single_image_classes =
        per_class.iter().filter(|(_, n)| **n == 1).map(|(c, _)| (*c).to_owned()).collect();
    result.images_per_class = images_per_class(per_class.into_values().collect());
    let mut groups: Vec<Vec<usize>> = by_content.into_values().filter(|group| group.len() > 1).collect();
    groups.sort();
    for group in groups {
        let class = &dataset.samples[group[0]].class;
        let same = group.iter().all(|&i| dataset.samples[i].class == *class);
        let names = group.iter().map(|&i| dataset.samples[i].key()).collect();
        if same { &mut result.duplicates_within_class } else { &mut result.duplicates_across_classes }
            .push(names);
    }
    result.count();
    result
}

fn images_per_class(mut counts: Vec<usize>) -> Option<ImagesPerClass> {
    counts.sort_unstable();
    let (&min, &max) = (counts.first()?, counts.last()?);
    let middle = counts.len() / 2;
    let median = if counts.len() % 2 == 1 {
        counts[middle] as f64
    } else {
        (counts[middle - 1] + counts[middle]) as f64 / 2.0
    };
    let mut histogram = Vec::new();
    let (mut from, mut to) = (1, 1);
    while from <= max {
        let classes = counts.iter().filter(|n| (from..=to).contains(*n)).count();
        if to >= min {
            histogram.push(HistogramBin { from, to, classes });
        }
        (from, to) = (to + 1, to.saturating_mul(2));
    }
    Some(ImagesPerClass { min, median, max, histogram })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::DatasetConfig;
    use image::{Rgb, RgbImage};

    #[test]
    fn everything_odd_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let save = |name: &str, shade: u8| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            RgbImage::from_pixel(6, 6, Rgb([shade, 0, 9])).save(path).unwrap();
        };
        for (name, shade) in
            [("a/1.png", 1), ("a/2.png", 2), ("a/3.png", 1), ("b/1.png", 5), ("b/2.png", 6), ("c/1.png", 6)]
        {
            save(name, shade);
        }
        std::fs::write(dir.path().join("a/4.png"), "words").unwrap();
        std::fs::write(dir.path().join("b/3.png"), "").unwrap();
        std::fs::write(dir.path().join("b/4.png"), "").unwrap();
        let mut set = Dataset::open(&DatasetConfig::new(dir.path())).unwrap();
        let mut gone = set.samples[0].clone();
        gone.path = "a/gone.png".into();
        set.samples.push(gone);
        let calls = AtomicUsize::new(0);
        let found = check(&set, &Limits::default(), &|_, total| {
            assert_eq!(total, 10);
            calls.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(calls.into_inner(), 10);
        assert_eq!((found.samples, found.labelled, found.classes, found.super_classes), (10, 10, 3, 0));
        assert_eq!(found.missing, ["a/gone.png"]);
        let unreadable: Vec<&str> = found.unreadable.iter().map(|u| u.path.as_str()).collect();
        assert_eq!(unreadable, ["a/4.png", "b/3.png", "b/4.png"]);
        assert!(found.unreadable[1].reason.contains("empty"));
        assert_eq!(found.duplicates_within_class, [["a/1.png", "a/3.png"]]);
        assert_eq!(found.duplicates_across_classes, [["b/2.png", "c/1.png"]]);
        assert_eq!(found.single_image_classes, ["c"]);
        assert!(!found.is_complete());
        let counts = CheckCounts {
            missing: 1,
            unreadable: 3,
            duplicates_within_class: 1,
            duplicates_across_classes: 1,
            single_image_classes: 1,
            ..CheckCounts::default()
        };
        assert_eq!(found.counts, counts);
        let json = serde_json::to_string(&found).unwrap();
        assert_eq!(serde_json::from_str::<DataCheck>(&json).unwrap(), found);
    }

    #[test]
    fn histogram_and_median() {
        let found = images_per_class(vec![3, 9, 2, 4]).unwrap();
        assert_eq!((found.min, found.median, found.max), (2, 3.5, 9));
        let bins: Vec<_> = found.histogram.iter().map(|b| (b.from, b.to, b.classes)).collect();
        assert_eq!(bins, [(2, 2, 1), (3, 4, 2), (5, 8, 0), (9, 16, 1)]);
        assert_eq!(images_per_class(vec![7, 1, 2]).unwrap().median, 2.0);
        assert_eq!(images_per_class(Vec::new()), None);
    }
}
