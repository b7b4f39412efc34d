//! The lists of Stanford Online Products (Oh Song et al., "Deep Metric Learning via Lifted Structured Feature
//! Embedding", CVPR 2016): a header `image_id class_id super_class_id path`, then one line per photograph.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::table::{self, Column, Header, TableConfig};
use super::{Dataset, DatasetError, DatasetWarning, Split, display_name};

const HEADER: &str = "image_id class_id super_class_id path";

struct List {
    split: Split,
    file: &'static str,
    images: usize,
    classes: usize,
}

const LISTS: [List; 2] = [
    List { split: Split::Train, file: "Ebay_train.txt", images: 59_551, classes: 11_318 },
    List { split: Split::Test, file: "Ebay_test.txt", images: 60_502, classes: 11_316 },
];

/// Whether a folder holds one of the lists.
pub(super) fn is_root(folder: &Path) -> bool {
    LISTS.iter().any(|list| folder.join(list.file).is_file())
}

/// Whether a file starts with the lists' header.
pub(super) fn is_list(file: &Path) -> Result<bool, DatasetError> {
    let mut start = Vec::new();
    let handle = std::fs::File::open(file).map_err(|e| DatasetError::io(file, e))?;
    handle.take(256).read_to_end(&mut start).map_err(|e| DatasetError::io(file, e))?;
    let line = start.split(|&b| b == b'\n').next().unwrap_or_default();
    Ok(line.trim_ascii() == HEADER.as_bytes())
}

/// Reads one list or both. The class is the list's `class_id`, the super class its `super_class_id`.
pub(super) fn open(
    path: &Path,
    is_dir: bool,
    split: Option<Split>,
    outside: bool,
) -> Result<Dataset, DatasetError> {
    if !is_dir {
        let name = path.file_name().unwrap_or_default();
        let known = LISTS.iter().find(|list| name == list.file);
        return read(path, known.map(|list| list.split).or(split), known, outside);
    }
    let mut parts: Vec<(PathBuf, Dataset)> = Vec::new();
    for list in LISTS.iter().filter(|list| split.is_none_or(|s| s == list.split)) {
        let file = path.join(list.file);
        // With one list asked for, or none there at all, its absence is the error to report.
        if file.exists() || split.is_some() || !is_root(path) {
            parts.push((file.clone(), read(&file, Some(list.split), Some(list), outside)?));
        }
    }
    let Some((first_file, mut set)) = (!parts.is_empty()).then(|| parts.remove(0)) else {
        let lists = "Ebay_train.txt and Ebay_test.txt";
        return Err(DatasetError::NoList { path: path.to_path_buf(), lists });
    };
    set.name = display_name(path);
    for (file, other) in parts {
        join(&mut set, &first_file, other, &file)?;
    }
    Ok(set)
}

fn join(set: &mut Dataset, first: &Path, other: Dataset, second: &Path) -> Result<(), DatasetError> {
    let paths: BTreeSet<&Path> = set.samples.iter().map(|s| s.path.as_path()).collect();
    if let Some(twice) = other.samples.iter().find(|s| paths.contains(s.path.as_path())) {
        return Err(DatasetError::DuplicateAcross {
            value: twice.key(),
            first: first.into(),
            second: second.into(),
        });
    }
    let classes: BTreeSet<&str> = set.classes().into_iter().collect();
    let shared = other.classes().into_iter().filter(|c| classes.contains(c)).count();
    set.samples.extend(other.samples);
    set.warnings.extend(other.warnings);
    if shared > 0 {
        set.warnings.push(DatasetWarning::SopSharedClasses { shared });
    }
    Ok(())
}

fn read(
    file: &Path,
    split: Option<Split>,
    list: Option<&List>,
    outside: bool,
) -> Result<Dataset, DatasetError> {
    let config = TableConfig {
        path_column: Some(Column::Name("path".into())),
        class_column: Some(Column::Name("class_id".into())),
        super_class_column: Some(Column::Name("super_class_id".into())),
        header: Header::Yes,
        delimiter: Some(' '),
        ..TableConfig::default()
    };
    let mut set = table::open(file, &config, outside)?;
    for sample in &mut set.samples {
        sample.split = split;
    }
    let (images, classes) = (set.len(), set.classes().len());
    if let Some(list) = list.filter(|l| (l.images, l.classes) != (images, classes)) {
        set.warnings.push(DatasetWarning::SopCounts {
            path: file.to_path_buf(),
            images,
            classes,
            expected_images: list.images,
            expected_classes: list.classes,
        });
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::{DatasetConfig, Format};
    use std::fmt::Write;

    fn list(first_id: usize, images: usize, first_class: usize, classes: usize) -> String {
        let mut text = format!("{HEADER}\n");
        for i in 0..images {
            let class = first_class + i * classes / images;
            writeln!(text, "{} {class} {} bicycle_final/{}.JPG", i + first_id, class % 12 + 1, i + first_id)
                .unwrap();
        }
        text
    }

    fn open_dir(dir: &Path, split: Option<Split>) -> Result<Dataset, DatasetError> {
        Dataset::open(&DatasetConfig { format: Format::Sop { split }, ..DatasetConfig::new(dir) })
    }

    #[test]
    fn lists_of_the_published_size_raise_no_warning() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("Ebay_train.txt"), list(1, 59_551, 1, 11_318)).unwrap();
        std::fs::write(dir.path().join("Ebay_test.txt"), list(59_552, 60_502, 11_319, 11_316)).unwrap();
        let both = Dataset::open(&DatasetConfig::new(dir.path())).unwrap();
        assert_eq!((both.len(), both.classes().len(), both.warnings.len()), (120_053, 22_634, 0));
        let test = open_dir(dir.path(), Some(Split::Test)).unwrap();
        assert_eq!((test.len(), test.samples[0].class.as_deref()), (60_502, Some("11319")));
        assert!(test.samples.iter().all(|s| s.split == Some(Split::Test)));
        let train = Dataset::open(&DatasetConfig::new(dir.path().join("Ebay_train.txt"))).unwrap();
        assert_eq!((train.len(), train.samples[0].split), (59_551, Some(Split::Train)));
        assert!(matches!(open_dir(dir.path(), Some(Split::Validation)), Err(DatasetError::NoList { .. })));
    }

    #[test]
    fn other_sizes_shared_classes_and_doubles_are_told() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(open_dir(dir.path(), None), Err(DatasetError::Io { .. })));
        std::fs::write(dir.path().join("Ebay_train.txt"), list(1, 20, 1, 5)).unwrap();
        std::fs::write(dir.path().join("Ebay_test.txt"), list(21, 20, 4, 5)).unwrap();
        let set = open_dir(dir.path(), None).unwrap();
        assert_eq!((set.len(), set.warnings.len()), (40, 3));
        assert!(set.warnings.contains(&DatasetWarning::SopSharedClasses { shared: 2 }));
        assert!(set.warnings[0].to_string().contains("20 images of 5 classes"));
        std::fs::write(dir.path().join("Ebay_test.txt"), list(20, 20, 6, 5)).unwrap();
        let error = open_dir(dir.path(), None).unwrap_err();
        assert!(
            matches!(&error, DatasetError::DuplicateAcross { value, .. } if value == "bicycle_final/20.JPG")
        );
        std::fs::remove_file(dir.path().join("Ebay_test.txt")).unwrap();
        assert_eq!(open_dir(dir.path(), None).unwrap().len(), 20);
        std::fs::write(dir.path().join("Ebay_train.txt"), "1 1 1 a/b.JPG\n").unwrap();
        assert!(matches!(open_dir(dir.path(), None), Err(DatasetError::MissingColumn { .. })));
    }
}
