//! The zip archives of PyTorch since version 1.6: a pickle, and a file for each storage.

use std::io::{Cursor, Read};

use zip::{CompressionMethod, ZipArchive};

/// Most bytes of a pickle. Those of the largest networks with their optimisers take some megabytes.
const MAX_PICKLE: u64 = 256 << 20;

/// An open archive.
pub(super) struct Archive<'a> {
    zip: ZipArchive<Cursor<&'a [u8]>>,
    /// What stands before the names of its files, such as `archive/`.
    root: String,
    big_endian: bool,
    /// Bytes of the whole archive.
    length: u64,
}

/// Whether this is the name of the pickle in an archive.
pub(super) fn is_pickle(name: &str) -> bool {
    name.strip_suffix("data.pkl").is_some_and(|root| root.is_empty() || root.ends_with('/'))
}

impl<'a> Archive<'a> {
    pub(super) fn open(bytes: &'a [u8]) -> Result<Self, String> {
        let zip = ZipArchive::new(Cursor::new(bytes)).map_err(|error| error.to_string())?;
        let names = super::super::kind::names_in(&zip);
        let pickle = names.iter().filter(|name| is_pickle(name)).min_by_key(|name| name.len());
        let root = pickle.ok_or("it holds no data.pkl")?.trim_end_matches("data.pkl").to_owned();
        let mut archive = Self { zip, root, big_endian: false, length: bytes.len() as u64 };
        if archive.zip.index_for_name(&format!("{}byteorder", archive.root)).is_some() {
            archive.big_endian = archive.file("byteorder", 64)? == b"big";
        }
        Ok(archive)
    }

    /// What was saved, with storages named by their keys.
    pub(super) fn pickle(&mut self) -> Result<Vec<u8>, String> {
        self.file("data.pkl", MAX_PICKLE)
    }

    /// The bytes of a storage.
    pub(super) fn storage(&mut self, key: &str) -> Result<Vec<u8>, String> {
        if self.big_endian {
            return Err(
                "its numbers were written by a big-endian machine; save the file again on another".to_owned()
            );
        }
        self.file(&format!("data/{key}"), u64::MAX)
    }

    fn file(&mut self, name: &str, limit: u64) -> Result<Vec<u8>, String> {
        let name = format!("{}{name}", self.root);
        let index =
            self.zip.index_for_name(&name).ok_or_else(|| format!("the file has no {name} within it"))?;
        // Without compression nothing can take more than the archive itself.
        let mut file = match self.zip.by_index(index) {
            Err(zip::result::ZipError::UnsupportedArchive(_)) => return Err(compressed(&name)),
            Ok(file) if file.compression() != CompressionMethod::Stored => return Err(compressed(&name)),
            other => other.map_err(|error| format!("{name} within the file: {error}"))?,
        };
        let size = file.size();
        if size > self.length.min(limit) {
            return Err(format!("{name} within the file is said to take {size} bytes"));
        }
        let mut bytes = Vec::with_capacity(size as usize);
        file.read_to_end(&mut bytes).map_err(|error| {
            format!("{name} within the file is damaged ({error}); download or copy the file again")
        })?;
        Ok(bytes)
    }
}

fn compressed(name: &str) -> String {
    format!(
        "{name} within the file is compressed, which PyTorch never does; unpack it and pack it again without compression \
         (zip -0 -r)"
    )
}
