//! Folders of photographs, with classes or without.

use std::path::Path;

use super::left_out::LeftOut;
use super::{Dataset, DatasetError, Sample, Split, display_name};

mod file_kind;
mod system_names;
mod walk;

/// Whether a file name ends like a picture's, decoded or not, in upper or lower case.
pub(super) fn is_image_name(name: &str) -> bool {
    file_kind::is_picture_name(name) || file_kind::other_format(name).is_some()
}

/// The files below a folder.
struct Listing {
    /// Paths of the pictures below the folder, with `/` between their parts.
    pictures: Vec<String>,
    left_out: Vec<LeftOut>,
}

/// Lists the photographs in `root` and all folders below, sorted by path. What is no photograph, hidden, or cannot be
/// followed or read is counted in [`Dataset::left_out`].
pub(super) fn open(
    root: &Path,
    with_classes: bool,
    follow_outside_links: bool,
) -> Result<Dataset, DatasetError> {
    let Listing { pictures: mut paths, mut left_out } = walk::list(root, follow_outside_links)?;
    if !with_classes {
        left_out.retain(|group| group.reason != super::LeftOutReason::EmptyFolder);
    }
    if paths.is_empty() {
        return Err(DatasetError::EmptyFolder { path: root.to_path_buf(), left_out });
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
    let set = Dataset::new(root, display_name(root), samples.collect());
    Ok(Dataset { left_out, ..set })
}

fn split_of(path: &str) -> Option<Split> {
    path.split_once('/').and_then(|(top, _)| Split::parse(top))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::{DatasetConfig, Format, LeftOutReason};

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

    fn left_out(set: &Dataset) -> Vec<(LeftOutReason, &str, usize, &str)> {
        let groups = set.left_out.iter();
        groups.map(|l| (l.reason, l.ending.as_str(), l.count, l.paths[0].as_str())).collect()
    }

    #[test]
    fn an_empty_folder_is_an_error_that_names_it() {
        let dir = tree(&["a/readme.txt", "a/1.heic"]);
        let error = open_as(&dir, Format::Auto).unwrap_err();
        assert!(matches!(error, DatasetError::EmptyFolder { .. }));
        let error = error.to_string();
        assert!(error.contains(dir.path().to_str().unwrap()) && error.contains("1 .heic file"), "{error}");
    }

    #[test]
    fn files_are_taken_by_their_content_and_the_rest_is_counted() {
        let dir = tree(&[
            "a/1.jpg",
            "a/2.jfif",
            "a/notes.txt",
            "a/3.HEIC",
            "b/4.heic",
            "b/Thumbs.db",
            ".git/x.jpg",
        ]);
        for folder in ["@eaDir", "#recycle", "$RECYCLE.BIN", "__MACOSX", "a/.hidden"] {
            std::fs::create_dir_all(dir.path().join(folder)).unwrap();
            std::fs::write(dir.path().join(folder).join("x.jpg"), "x").unwrap();
        }
        let png = dir.path().join("a/0001.png");
        image::RgbImage::new(2, 2).save(&png).unwrap();
        std::fs::rename(&png, dir.path().join("a/0001")).unwrap();
        let set = open_as(&dir, Format::Auto).unwrap();
        assert_eq!(set.classes(), ["a"]);
        assert_eq!(
            set.samples.iter().map(Sample::key).collect::<Vec<_>>(),
            ["a/0001", "a/1.jpg", "a/2.jfif"]
        );
        assert_eq!(
            left_out(&set),
            [
                (LeftOutReason::UnsupportedFormat, "heic", 2, "a/3.HEIC"),
                (LeftOutReason::EmptyFolder, "", 1, "b"),
                (LeftOutReason::NotAPicture, "txt", 1, "a/notes.txt"),
                (LeftOutReason::Hidden, "", 1, "a/.hidden"),
                (LeftOutReason::System, "", 6, "#recycle"),
            ]
        );
        assert!(
            open_as(&dir, Format::Flat).unwrap().left_out.iter().all(|l| l.count != 1 || l.paths != ["b"])
        );
    }

    #[cfg(unix)]
    #[test]
    fn links_out_of_the_folder_are_left_out_unless_allowed() {
        let outside = tree(&["shop/1.jpg"]);
        let dir = tree(&["a/1.jpg"]);
        std::os::unix::fs::symlink(outside.path().join("shop"), dir.path().join("b")).unwrap();
        std::os::unix::fs::symlink(outside.path().join("shop/1.jpg"), dir.path().join("a/2.jpg")).unwrap();
        let set = open_as(&dir, Format::Auto).unwrap();
        assert_eq!(set.classes(), ["a"]);
        assert_eq!(left_out(&set), [(LeftOutReason::LinkOutside, "", 2, "a/2.jpg")]);
        let config = DatasetConfig { follow_outside_links: true, ..DatasetConfig::new(dir.path()) };
        assert_eq!(Dataset::open(&config).unwrap().classes(), ["a", "b"]);
    }

    #[cfg(unix)]
    #[test]
    fn one_bad_entry_does_not_stop_the_rest() {
        use std::os::unix::ffi::OsStrExt;
        use std::os::unix::fs::symlink;
        let dir = tree(&["a/1.jpg", "b/1.jpg"]);
        let at = |name: &[u8]| dir.path().join(std::ffi::OsStr::from_bytes(name));
        symlink("nothing.jpg", at(b"a/2.jpg")).unwrap();
        symlink("nothing", at(b"a/link")).unwrap();
        symlink("..", at(b"a/up")).unwrap();
        symlink("self", at(b"a/self")).unwrap();
        std::fs::write(at(b"a/bad\xff.jpg"), "x").unwrap();
        std::fs::create_dir(at(b"b\xfe")).unwrap();
        std::fs::write(at(b"b\xfe/1.jpg"), "x").unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at(b"a/s.jpg")).unwrap();
        let set = open_as(&dir, Format::Auto).unwrap();
        let keys: Vec<_> = set.samples.iter().map(Sample::key).collect();
        assert_eq!(
            keys,
            ["a/1.jpg", "a/2.jpg", "b/1.jpg"],
            "a broken link with a picture's name is a missing picture"
        );
        assert_eq!(
            left_out(&set),
            [
                (LeftOutReason::LinkLoop, "", 1, "a/up"),
                (LeftOutReason::BrokenLink, "", 2, "a/link"),
                (LeftOutReason::NameNotUtf8, "", 1, "b\\xFE"),
                (LeftOutReason::NameNotUtf8, "jpg", 1, "a/bad\\xFF.jpg"),
                (LeftOutReason::SpecialFile, "jpg", 1, "a/s.jpg"),
            ]
        );
        assert!(set.left_out.iter().all(|group| group.reason.is_fault()));
    }
}
