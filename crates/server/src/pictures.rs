//! Files of the pictures: the catalogue's own, which are only read, and uploads, which the index keeps.
//!
//! Every path is opened below an open folder that it cannot leave, neither by `..` nor through a symbolic link.

use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use cap_std::ambient_authority;
use cap_std::fs::{Dir, File};
use image::ImageFormat;
use semblance_embed::transform::Limits;
use semblance_index::Item;
use semblance_query::catalog;
use semblance_query::uploads::UPLOADING;
use sha2::{Digest as _, Sha256};

/// Where the pictures of an index lie.
pub(crate) struct Pictures {
    /// The catalogue's folder, if it is known and there.
    catalogue: Option<Dir>,
    uploads: PathBuf,
}

/// A picture's file, open.
pub(crate) struct Picture {
    file: File,
    bytes: u64,
    /// Changes whenever the file does.
    pub(crate) version: String,
}

/// Why there is no picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoPicture {
    /// The file is gone, or lies outside of the catalogue's folder.
    Missing,
    /// It is none of the formats known.
    NotAPicture,
    /// It has more bytes than allowed.
    TooLarge,
}

impl Pictures {
    pub(crate) fn new(root: Option<&Path>, index: &Path) -> Self {
        let catalogue = root.and_then(|root| Dir::open_ambient_dir(root, ambient_authority()).ok());
        Self { catalogue, uploads: index.join(catalog::UPLOADS) }
    }

    /// Whether the catalogue's folder is there.
    pub(crate) fn has_catalogue(&self) -> bool {
        self.catalogue.is_some()
    }

    /// Opens the picture of an item.
    pub(crate) fn open(&self, item: &Item) -> Result<Picture, NoPicture> {
        let opened = match upload_name(item) {
            Some(name) if is_upload_name(name) => {
                Dir::open_ambient_dir(&self.uploads, ambient_authority()).and_then(|folder| folder.open(name))
            }
            Some(_) => return Err(NoPicture::Missing),
            None => match &self.catalogue {
                Some(folder) => folder.open(&item.key),
                None => return Err(NoPicture::Missing),
            },
        };
        let file = opened.map_err(|_| NoPicture::Missing)?;
        let about = file.metadata().map_err(|_| NoPicture::Missing)?;
        if !about.is_file() {
            return Err(NoPicture::Missing);
        }
        let changed = about.modified().ok().map(cap_std::time::SystemTime::into_std);
        let changed = changed.and_then(|t| t.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        let version = format!("{:x}-{:x}-{:x}", item.id, changed.as_nanos(), about.len());
        Ok(Picture { file, bytes: about.len(), version })
    }

    /// Keeps an uploaded picture, durable when this returns, and gives its name. The same picture for the same key has
    /// the same name.
    pub(crate) fn keep(&self, key: &str, bytes: &[u8]) -> io::Result<String> {
        let name = name_of_upload(key, bytes)?;
        let is_new = !self.uploads.is_dir();
        std::fs::create_dir_all(&self.uploads)?;
        if let (true, Some(index)) = (is_new, self.uploads.parent()) {
            sync_folder(index)?;
        }
        // The prefix tells what a crash leaves behind.
        let mut file = tempfile::Builder::new().prefix(UPLOADING).tempfile_in(&self.uploads)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(self.uploads.join(&name))?;
        sync_folder(&self.uploads)?;
        Ok(name)
    }

    /// Removes an upload that no item names any more. What cannot be removed stays, and does no harm.
    pub(crate) fn forget(&self, name: &str) {
        if is_upload_name(name) {
            let _ = std::fs::remove_file(self.uploads.join(name));
        }
    }
}

impl Picture {
    /// Bytes of the file.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The content of the file and its media type.
    pub(crate) fn read(self, limits: &Limits) -> Result<(Vec<u8>, &'static str), NoPicture> {
        let limit = limits.max_file_bytes;
        if self.bytes > limit {
            return Err(NoPicture::TooLarge);
        }
        let mut bytes = Vec::with_capacity(self.bytes as usize);
        self.file.take(limit + 1).read_to_end(&mut bytes).map_err(|_| NoPicture::Missing)?;
        if bytes.len() as u64 > limit {
            return Err(NoPicture::TooLarge);
        }
        let known = [
            ImageFormat::Jpeg,
            ImageFormat::Png,
            ImageFormat::WebP,
            ImageFormat::Gif,
            ImageFormat::Bmp,
            ImageFormat::Tiff,
        ];
        match image::guess_format(&bytes) {
            Ok(format) if known.contains(&format) => Ok((bytes, format.to_mime_type())),
            _ => Err(NoPicture::NotAPicture),
        }
    }
}

/// Name of the item's uploaded picture, if it has one.
pub(crate) fn upload_name(item: &Item) -> Option<&str> {
    item.metadata.get(catalog::PHOTO)?.as_str()
}

/// Names as [`Pictures::keep`] gives them: nothing else is ever opened or removed among the uploads.
fn is_upload_name(name: &str) -> bool {
    name.split_once('.').is_some_and(|(digest, extension)| {
        digest.len() == 32
            && digest.bytes().all(|b| b.is_ascii_hexdigit())
            && extension.bytes().all(|b| b.is_ascii_alphanumeric())
    })
}

/// Name of the picture of the item with this key.
pub(crate) fn name_of_upload(key: &str, bytes: &[u8]) -> io::Result<String> {
    let extension = match image::guess_format(bytes) {
        Ok(format) => format.extensions_str().first().copied().unwrap_or("img"),
        Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
    };
    let digest = Sha256::new().chain_update(key).chain_update([0]).chain_update(bytes).finalize();
    Ok(format!("{}.{extension}", hex(&digest[..16])))
}

/// Bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    // Elsewhere folders cannot be opened as files.
    if cfg!(unix) { std::fs::File::open(folder)?.sync_all() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use semblance_index::NewItem;

    fn png() -> Vec<u8> {
        let mut bytes = io::Cursor::new(Vec::new());
        image::RgbImage::new(3, 2).write_to(&mut bytes, ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    fn at(key: &str) -> Item {
        NewItem::new(key).with_id(1)
    }

    #[test]
    fn only_pictures_below_the_root_are_read() {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().join("catalogue");
        std::fs::create_dir_all(root.join("a")).unwrap();
        std::fs::write(root.join("a/1.png"), png()).unwrap();
        std::fs::write(root.join("notes.txt"), "no picture").unwrap();
        std::fs::write(home.path().join("secret.png"), png()).unwrap();
        let pictures = Pictures::new(Some(&root), home.path());
        let limits = Limits::default();
        let read = |key: &str| pictures.open(&at(key)).and_then(|p| p.read(&limits)).map(|(_, kind)| kind);
        assert_eq!(read("a/1.png"), Ok("image/png"));
        assert_eq!(read("a/../a/1.png"), Ok("image/png"));
        assert_eq!(read("notes.txt"), Err(NoPicture::NotAPicture));
        let absolute = home.path().join("secret.png");
        for outside in
            ["../secret.png", "a/../../secret.png", absolute.to_str().unwrap(), "a", "", "/etc/passwd"]
        {
            assert_eq!(read(outside), Err(NoPicture::Missing), "{outside}");
        }
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(&absolute, root.join("link.png")).unwrap();
            std::os::unix::fs::symlink(home.path(), root.join("folder")).unwrap();
            std::os::unix::fs::symlink("a/1.png", root.join("inner.png")).unwrap();
            assert_eq!(read("link.png"), Err(NoPicture::Missing));
            assert_eq!(read("folder/secret.png"), Err(NoPicture::Missing));
            assert_eq!(read("inner.png"), Ok("image/png"));
        }
        let small = Limits { max_file_bytes: 10, ..limits };
        assert_eq!(pictures.open(&at("a/1.png")).and_then(|p| p.read(&small)), Err(NoPicture::TooLarge));
    }

    #[test]
    fn uploads_are_kept_under_names_of_their_own() {
        let home = tempfile::tempdir().unwrap();
        let pictures = Pictures::new(None, home.path());
        let name = pictures.keep("../../evil", &png()).unwrap();
        assert_eq!(pictures.keep("../../evil", &png()).unwrap(), name);
        assert_ne!(pictures.keep("other", &png()).unwrap(), name);
        let mut item = at("../../evil");
        item.metadata.insert(catalog::PHOTO.to_owned(), name.clone().into());
        assert_eq!(pictures.open(&item).and_then(|p| p.read(&Limits::default())).unwrap().0, png());
        for wrong in ["../manifest.json", "manifest.json", "/etc/passwd", ""] {
            item.metadata.insert(catalog::PHOTO.to_owned(), wrong.into());
            assert_eq!(pictures.open(&item).err(), Some(NoPicture::Missing), "{wrong}");
        }
        pictures.forget(&name);
        pictures.forget("../catalogue");
        assert_eq!(std::fs::read_dir(home.path().join(catalog::UPLOADS)).unwrap().count(), 1);
        assert!(pictures.keep("text", b"no picture at all").is_err());
    }
}
