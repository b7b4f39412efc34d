//! Pictures that came in through a server and lie in the index's own folder: which of them no item names.

use std::collections::HashSet;
use std::fs;

use semblance_index::{IndexError, IndexWriter};
use serde::Serialize;

use crate::catalog;
use crate::error::Result;
use crate::pictures::is_upload_name;

/// Begins the names of uploads that are still being written.
pub const UPLOADING: &str = ".upload-";

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Swept {
    /// Files removed.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// Removes uploads that no item of the index names: a crash between a picture and its item leaves one behind, or one
/// between a replaced item and its old picture. Only names of the form that uploads have are looked at. The writer is
/// the proof that nobody else adds any meanwhile; the caller must not write during this call.
///
/// # Errors
/// Items that cannot be read, in which case nothing is removed, and failures of the file system.
pub fn sweep(writer: &IndexWriter) -> Result<Swept> {
    let folder = writer.dir().join(catalog::UPLOADS);
    let io = |source| IndexError::Io { path: folder.clone(), source };
    // Uploads are never kept behind a link.
    if folder.is_symlink() {
        return Ok(Swept::default());
    }
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Swept::default()),
        Err(error) => return Err(io(error).into()),
    };
    let mut candidates = Vec::new();
    for entry in entries {
        let entry = entry.map_err(io)?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let about = entry.metadata().map_err(io)?;
        if about.is_file() && (is_upload_name(&name) || is_unfinished(&name)) {
            candidates.push((name, about.len()));
        }
    }
    if candidates.is_empty() {
        return Ok(Swept::default());
    }
    let mut named = HashSet::new();
    writer.reader()?.for_each(|item, _| {
        if let Some(name) = item.metadata.get(catalog::PHOTO).and_then(|name| name.as_str()) {
            named.insert(name.to_owned());
        }
        Ok(())
    })?;
    let mut swept = Swept::default();
    for (name, bytes) in candidates.into_iter().filter(|(name, _)| !named.contains(name)) {
        fs::remove_file(folder.join(name)).map_err(io)?;
        swept.files += 1;
        swept.bytes += bytes;
    }
    Ok(swept)
}

fn is_unfinished(name: &str) -> bool {
    let random = name.strip_prefix(UPLOADING);
    random.is_some_and(|random| !random.is_empty() && random.bytes().all(|b| b.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use semblance_index::{IndexConfig, NewItem};

    use super::*;

    #[test]
    fn only_uploads_that_no_item_names_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let writer = IndexWriter::create(dir.path(), &IndexConfig::new(2, "m")).unwrap();
        let name = |digit: &str| format!("{}.jpg", digit.repeat(32));
        let item = |key: &str, upload: String| {
            let mut item = NewItem::new(key);
            item.metadata.insert(catalog::PHOTO.to_owned(), upload.into());
            item
        };
        writer.upsert(&[item("published", name("a"))], &[1.0, 0.0]).unwrap();
        writer.finish(&|_| {}).unwrap();
        assert_eq!(sweep(&writer).unwrap(), Swept::default(), "there is no folder");
        let folder = dir.path().join(catalog::UPLOADS);
        fs::create_dir(&folder).unwrap();
        writer.upsert(&[item("written", name("b"))], &[0.0, 1.0]).unwrap();
        let kept = [
            &*name("a"),
            &*name("b"),
            "notes.txt",
            "x.jpg",
            ".hidden",
            &*format!("{}.tar.gz", "d".repeat(32)),
        ];
        let gone = [&*name("c"), &*format!("{UPLOADING}aB3xY9")];
        for file in kept.iter().chain(&gone) {
            fs::write(folder.join(file), "12345").unwrap();
        }
        fs::create_dir(folder.join(name("e"))).unwrap();
        assert_eq!(sweep(&writer).unwrap(), Swept { files: 2, bytes: 10 });
        for file in kept {
            assert!(folder.join(file).exists(), "{file}");
        }
        for file in gone {
            assert!(!folder.join(file).exists(), "{file}");
        }
        assert_eq!(sweep(&writer).unwrap(), Swept::default());
    }
}
