//! Folders of photographs, with classes or without.

use std::path::Path;

use walkdir::WalkDir;

use super::inside::{Boundary, LINK_OUTSIDE};
use super::{Dataset, DatasetError, Sample, Split, display_name};

const EXTENSIONS: [&str; 9] = ["jpg", "jpeg", "jpe", "png", "webp", "gif", "bmp", "tif", "tiff"];

/// Whether a file name ends like a picture's, in upper or lower case.
pub(super) fn is_image_name(name: &str) -> bool {
    Path::new(name)
        .extension()
        .and_then(|e| e.to_str())
        .is_some_and(|e| EXTENSIONS.iter().any(|known| known.eq_ignore_ascii_case(e)))
}

/// Lists the photographs in `root` and all folders below, sorted by path; hidden files and folders are skipped.
pub(super) fn open(
    root: &Path,
    with_classes: bool,
    follow_outside_links: bool,
) -> Result<Dataset, DatasetError> {
    let mut paths = list(root, follow_outside_links)?;
    if paths.is_empty() {
        return Err(DatasetError::EmptyFolder {
            path: root.to_path_buf(),
            extensions: EXTENSIONS.join(", "),
        });
    }
    paths.sort();
    let by_split = with_classes && paths.iter().all(|p| split_of(p).is_some());
    let samples = paths.into_iter().map(|path| {
        let split = if by_split { split_of(&path) } else { None };
        let below = if by_split { path.split_once('/').map_or("", |(_, rest)| rest) } else { path.as_str() };
        let class =
            if with_classes { below.rsplit_once('/').map(|(folder, _)| folder.to_owned()) } else { None };
        let super_class =
            class.as_deref().and_then(|c| c.rsplit_once('/')).map(|(above, _)| above.to_owned());
        Sample { path: path.into(), class, super_class, split }
    });
    Ok(Dataset::new(root, display_name(root), samples.collect()))
}

fn split_of(path: &str) -> Option<Split> {
    path.split_once('/').and_then(|(top, _)| Split::parse(top))
}

fn list(root: &Path, follow_outside_links: bool) -> Result<Vec<String>, DatasetError> {
    let mut boundary = Boundary::new(root).map_err(|e| DatasetError::io(root, e))?;
    let hidden = |name: &std::ffi::OsStr| name.as_encoded_bytes().starts_with(b".");
    let walk = WalkDir::new(root)
        .follow_links(true)
        .sort_by_file_name()
        .into_iter()
        .filter_entry(|entry| entry.depth() == 0 || !hidden(entry.file_name()));
    let mut found = Vec::new();
    for entry in walk {
        let (path, is_link) = match entry {
            Ok(entry) => {
                let is_link = entry.path_is_symlink();
                if !is_link && !entry.file_type().is_file() {
                    continue;
                }
                (entry.into_path(), is_link)
            }
            Err(error) => {
                let path = error.path().unwrap_or(root).to_path_buf();
                // A dangling link is a missing photograph: it stays in the list and is reported when it is read.
                if !path.is_symlink() || error.loop_ancestor().is_some() {
                    return Err(DatasetError::io(&path, error.into()));
                }
                (path, true)
            }
        };
        let below = path.strip_prefix(root).unwrap_or(&path);
        let Some(name) = below.to_str() else {
            if is_image_name(&below.to_string_lossy()) {
                return Err(DatasetError::NameNotUtf8 { path });
            }
            continue;
        };
        if is_link && !follow_outside_links && !boundary.contains(&path) {
            return Err(DatasetError::Outside {
                path: root.to_path_buf(),
                line: None,
                value: name.to_owned(),
                root: root.to_path_buf(),
                reason: LINK_OUTSIDE,
            });
        }
        if !path.is_dir() && is_image_name(name) {
            found.push(name.replace(std::path::MAIN_SEPARATOR, "/"));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::{DatasetConfig, Format};

    fn tree(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        }
        dir
    }

    fn open_as(dir: &tempfile::TempDir, format: Format) -> Result<Dataset, DatasetError> {
        Dataset::open(&DatasetConfig { format, ..DatasetConfig::new(dir.path()) })
    }

    fn rows(set: &Dataset) -> Vec<(String, Option<&str>, Option<&str>)> {
        set.samples.iter().map(|s| (s.key(), s.class.as_deref(), s.super_class.as_deref())).collect()
    }

    #[test]
    fn classes_are_the_folders_photographs_lie_in() {
        let dir = tree(&[
            "Fruit/Apple/Gala/2.JPG",
            "Fruit/Apple/Gala/1.jpeg",
            "Fruit/Apple/Gala/notes.txt",
            "Fruit/Apple/.hidden/3.jpg",
            "Fruit/Apple/Gala/.4.jpg",
            "Shoes/5.webp",
            "6.TIFF",
        ]);
        let set = open_as(&dir, Format::Auto).unwrap();
        assert_eq!(
            rows(&set),
            [
                ("6.TIFF".to_owned(), None, None),
                ("Fruit/Apple/Gala/1.jpeg".to_owned(), Some("Fruit/Apple/Gala"), Some("Fruit/Apple")),
                ("Fruit/Apple/Gala/2.JPG".to_owned(), Some("Fruit/Apple/Gala"), Some("Fruit/Apple")),
                ("Shoes/5.webp".to_owned(), Some("Shoes"), None),
            ]
        );
        assert_eq!(set.classes(), ["Fruit/Apple/Gala", "Shoes"]);
        let flat = open_as(&dir, Format::Flat).unwrap();
        assert_eq!(flat.len(), 4);
        assert!(flat.samples.iter().all(|s| s.class.is_none() && s.super_class.is_none()));
    }

    #[test]
    fn split_folders_are_not_classes() {
        let dir = tree(&["train/mug/1.jpg", "val/mug/2.jpg", "test/mug/3.jpg", "readme.txt"]);
        let set = open_as(&dir, Format::Auto).unwrap();
        assert_eq!(set.classes(), ["mug"]);
        let splits: Vec<_> = set.samples.iter().map(|s| s.split.unwrap()).collect();
        assert_eq!(splits, [Split::Test, Split::Train, Split::Validation]);
        // One folder that is no split, and they are all ordinary classes.
        let dir = tree(&["train/1.jpg", "plane/2.jpg"]);
        assert_eq!(open_as(&dir, Format::Auto).unwrap().classes(), ["plane", "train"]);
    }

    #[test]
    fn an_empty_folder_is_an_error_that_names_it() {
        let dir = tree(&["a/readme.txt"]);
        let error = open_as(&dir, Format::Auto).unwrap_err();
        assert!(matches!(error, DatasetError::EmptyFolder { .. }));
        assert!(error.to_string().contains(dir.path().to_str().unwrap()));
    }

    #[cfg(unix)]
    #[test]
    fn links_out_of_the_folder_are_refused_unless_allowed() {
        let outside = tree(&["shop/1.jpg"]);
        let dir = tree(&["a/1.jpg"]);
        std::os::unix::fs::symlink(outside.path().join("shop"), dir.path().join("b")).unwrap();
        let error = open_as(&dir, Format::Auto).unwrap_err();
        assert!(matches!(&error, DatasetError::Outside { value, .. } if value == "b"), "{error}");
        let config = DatasetConfig { follow_outside_links: true, ..DatasetConfig::new(dir.path()) };
        assert_eq!(Dataset::open(&config).unwrap().classes(), ["a", "b"]);
    }

    #[cfg(unix)]
    #[test]
    fn dangling_links_stay_listed_and_circles_are_errors() {
        let dir = tree(&["a/1.jpg"]);
        std::os::unix::fs::symlink("nothing.jpg", dir.path().join("a/2.jpg")).unwrap();
        assert_eq!(open_as(&dir, Format::Auto).unwrap().len(), 2);
        std::os::unix::fs::symlink(dir.path(), dir.path().join("a/circle")).unwrap();
        assert!(matches!(open_as(&dir, Format::Auto), Err(DatasetError::Io { .. })));
    }

    #[cfg(unix)]
    #[test]
    fn names_that_are_not_text_are_named() {
        use std::os::unix::ffi::OsStrExt;
        let dir = tree(&["a/1.jpg"]);
        std::fs::write(dir.path().join(std::ffi::OsStr::from_bytes(b"bad\xff.jpg")), "x").unwrap();
        assert!(matches!(open_as(&dir, Format::Auto), Err(DatasetError::NameNotUtf8 { .. })));
    }
}
