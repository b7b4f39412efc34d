//! Files of the pictures: the catalogue's own, which are only read, and uploads, which the index keeps.
//!
//! Reading is [`CataloguePictures`]' work, which never leaves their folders.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use semblance_index::{Index, Item};
use semblance_query::pictures::{CatalogueRoot, is_upload_name};
use semblance_query::uploads::UPLOADING;
use semblance_query::{CataloguePictures, QueryError, catalog};
use sha2::{Digest as _, Sha256};

pub(crate) use semblance_query::pictures::{NoPicture, Picture, upload_name};

/// The pictures of a served index.
pub(crate) struct Pictures {
    catalogue: CataloguePictures,
    uploads: PathBuf,
}

impl Pictures {
    /// The pictures of `index` in the folder `dir`; `root` is the catalogue's folder, if the operator named it.
    pub(crate) fn new(index: &Index, root: Option<&Path>, dir: &Path) -> Result<Self, QueryError> {
        Ok(Self { catalogue: CataloguePictures::of(index, root)?, uploads: dir.join(catalog::UPLOADS) })
    }

    /// The pictures as other parts of the program see them.
    pub(crate) fn catalogue(&self) -> &CataloguePictures {
        &self.catalogue
    }

    /// Whether the catalogue's folder is open.
    pub(crate) fn has_catalogue(&self) -> bool {
        self.root().is_open()
    }

    /// The catalogue's folder.
    pub(crate) fn root(&self) -> &CatalogueRoot {
        self.catalogue.root()
    }

    /// Opens the picture of an item. May wait for a disk: not on a thread that answers requests.
    pub(crate) fn open(&self, item: &Item) -> Result<Picture, NoPicture> {
        let mut picture = self.catalogue.open(item)?;
        picture.version = format!("{:x}-{}", item.id, picture.version);
        Ok(picture)
    }

    /// Keeps an uploaded picture, durable when this returns, and gives its name. The same picture for the same key has
    /// the same name.
    pub(crate) fn keep(&self, key: &str, bytes: &[u8]) -> io::Result<String> {
        let name = name_of_upload(key, bytes)?;
        if self.uploads.is_symlink() {
            let what =
                "is a symbolic link: uploads are kept in the index's own folder, and read from nowhere else";
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{} {what}", self.uploads.display()),
            ));
        }
        let is_new = !self.uploads.is_dir();
        match std::fs::create_dir(&self.uploads) {
            // Only this folder is made: where the index is gone, nothing is.
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
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
    use image::ImageFormat;
    use semblance_embed::transform::Limits;
    use semblance_index::{IndexConfig, IndexWriter, NewItem};

    fn png() -> Vec<u8> {
        let mut bytes = io::Cursor::new(Vec::new());
        image::RgbImage::new(3, 2).write_to(&mut bytes, ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    fn at(key: &str) -> Item {
        NewItem::new(key).with_id(1)
    }

    fn index(dir: &Path) -> Index {
        let writer = IndexWriter::create(dir, &IndexConfig::new(2, "m")).unwrap();
        writer.upsert(&[NewItem::new("a/1.png")], &[0.6, 0.8]).unwrap();
        writer.finish(&|_| {}).unwrap();
        Index::open(dir).unwrap()
    }

    #[test]
    fn an_item_has_its_own_version_of_a_picture() {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().join("catalogue");
        std::fs::create_dir_all(root.join("a")).unwrap();
        std::fs::write(root.join("a/1.png"), png()).unwrap();
        let dir = home.path().join("index");
        let index = index(&dir);
        assert!(!Pictures::new(&index, None, &dir).unwrap().has_catalogue());
        let pictures = Pictures::new(&index, Some(&root), &dir).unwrap();
        let version = |id: u64| pictures.open(&NewItem::new("a/1.png").with_id(id)).unwrap().version;
        assert!(version(1).starts_with("1-") && version(1) != version(2));
        assert!(Pictures::new(&index, Some(&home.path().join("none")), &dir).is_err());
    }

    #[test]
    fn uploads_are_kept_under_names_of_their_own() {
        let home = tempfile::tempdir().unwrap();
        let pictures = Pictures::new(&index(home.path()), None, home.path()).unwrap();
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
        let gone = home.path().join("gone");
        let uploads = Pictures { uploads: gone.join(catalog::UPLOADS), ..pictures };
        assert_eq!(uploads.keep("a", &png()).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(!gone.exists(), "the folder of an index is not made");
        let pictures = Pictures { uploads: home.path().join(catalog::UPLOADS), ..uploads };
        pictures.forget("../catalogue");
        assert_eq!(std::fs::read_dir(home.path().join(catalog::UPLOADS)).unwrap().count(), 1);
        assert!(pictures.keep("text", b"no picture at all").is_err());
    }
}
