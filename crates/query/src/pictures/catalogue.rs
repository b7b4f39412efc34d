//! The pictures of an index's items.

use std::io;
use std::path::{Component, Path, PathBuf};

use semblance_index::{Index, Item};
use serde::Serialize;

use super::seal;
use super::{NoPicture, Picture, PictureFolder};
use crate::catalog;
use crate::error::{QueryError, Result};

/// The pictures of an index's items: files of its catalogue, and uploads, which the index keeps itself.
#[derive(Debug)]
pub struct CataloguePictures {
    root: CatalogueRoot,
    catalogue: Option<PictureFolder>,
    index: PathBuf,
}

/// The folder of the catalogue that an index was built over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum CatalogueRoot {
    /// The index records none, as one of imported vectors.
    NotRecorded,
    /// It is open.
    Open {
        /// The folder.
        path: PathBuf,
    },
    /// It is not there any more, or the system refuses it.
    Unavailable {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// Another user or another machine recorded it, or the index was copied or moved since. It is not opened.
    Foreign {
        /// The folder.
        path: PathBuf,
    },
}

/// How many pictures were looked for, and found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Survey {
    /// Pictures that were looked for.
    pub looked_for: usize,
    /// Those that are there.
    pub found: usize,
    /// The key of the first that is not there.
    pub first_missing: Option<String>,
}

impl CataloguePictures {
    /// The pictures of `index`. `root` is the catalogue's folder as the caller names it; without it the folder that the index
    /// records is taken, if it was sealed for this place (see [`seal`](mod@seal)).
    ///
    /// # Errors
    /// [`QueryError::PictureFolder`] if `root` cannot be opened. A recorded folder that cannot be opened is no error:
    /// [`Self::root`] tells.
    pub fn of(index: &Index, root: Option<&Path>) -> Result<Self> {
        let attributes = &index.manifest().config.attributes;
        let recorded = attributes.get(catalog::ROOT).map(PathBuf::from);
        let (root, catalogue) = match (root, recorded) {
            (Some(path), _) => {
                let failed = |source| QueryError::PictureFolder { path: path.to_owned(), source };
                let folder = PictureFolder::open(path).map_err(failed)?;
                (CatalogueRoot::Open { path: path.to_owned() }, Some(folder))
            }
            (None, None) => (CatalogueRoot::NotRecorded, None),
            (None, Some(path)) if seal::fits(attributes, index.dir()) => match PictureFolder::open(&path) {
                Ok(folder) => (CatalogueRoot::Open { path }, Some(folder)),
                Err(error) => (CatalogueRoot::Unavailable { path, reason: error.to_string() }, None),
            },
            (None, Some(path)) => (CatalogueRoot::Foreign { path }, None),
        };
        Ok(Self { root, catalogue, index: index.dir().to_owned() })
    }

    /// The catalogue's folder, and whether it is open.
    pub fn root(&self) -> &CatalogueRoot {
        &self.root
    }

    /// Opens the picture of an item.
    ///
    /// # Errors
    /// [`NoPicture`], of which [`NoPicture::NotOpened`] and [`NoPicture::Missing`] come from here.
    pub fn open(&self, item: &Item) -> Result<Picture, NoPicture> {
        match upload_name(item) {
            Some(name) => self.open_upload(name),
            None => self.folder()?.picture(Path::new(&item.key)),
        }
    }

    /// Where the picture of an item lies, to be shown. None where that is not known, or the item's key leaves the folder.
    pub fn path(&self, item: &Item) -> Option<PathBuf> {
        if let Some(name) = upload_name(item) {
            return is_upload_name(name).then(|| self.index.join(catalog::UPLOADS).join(name));
        }
        let inside = stays_inside(Path::new(&item.key));
        inside.then(|| self.catalogue.as_ref().map(|folder| folder.path().join(&item.key)))?
    }

    /// Whether the picture of an item is there.
    pub fn has(&self, item: &Item) -> bool {
        match upload_name(item) {
            Some(name) => self.open_upload(name).is_ok(),
            None => self.catalogue.as_ref().is_some_and(|folder| folder.has(Path::new(&item.key))),
        }
    }

    /// Looks for the pictures of these items; uploads are left out.
    pub fn survey<'a>(&self, items: impl IntoIterator<Item = &'a Item>) -> Survey {
        let mut survey = Survey::default();
        for item in items.into_iter().filter(|item| upload_name(item).is_none()) {
            survey.looked_for += 1;
            if self.has(item) {
                survey.found += 1;
            } else if survey.first_missing.is_none() {
                survey.first_missing = Some(item.key.clone());
            }
        }
        survey
    }

    /// Looks for at most `most` of the pictures of `index`, taken at equal distances.
    ///
    /// # Errors
    /// Failures of the index.
    pub fn sample(&self, index: &Index, most: usize) -> Result<Survey> {
        let ids = index.ids();
        let step = ids.len().div_ceil(most.max(1)).max(1);
        let items = ids.iter().step_by(step).map(|id| Ok(index.item(*id)?)).collect::<Result<Vec<_>>>()?;
        Ok(self.survey(&items))
    }

    /// Opens the picture at a path that [`Self::path`] gave.
    pub(super) fn open_path(&self, path: &Path) -> Result<Picture, NoPicture> {
        if let Ok(name) = path.strip_prefix(self.index.join(catalog::UPLOADS)) {
            return self.open_upload(name.to_str().unwrap_or_default());
        }
        let folder = self.folder()?;
        folder.picture(path.strip_prefix(folder.path()).map_err(|_| NoPicture::Missing)?)
    }

    fn folder(&self) -> Result<&PictureFolder, NoPicture> {
        let why = match self.root {
            CatalogueRoot::Foreign { .. } => NoPicture::NotOpened,
            _ => NoPicture::Missing,
        };
        self.catalogue.as_ref().ok_or(why)
    }

    fn open_upload(&self, name: &str) -> Result<Picture, NoPicture> {
        if !is_upload_name(name) {
            return Err(NoPicture::Missing);
        }
        // The folder is made with the first upload, so it is opened when it is needed.
        let uploads = || -> io::Result<_> { PictureFolder::open(&self.index)?.inner(catalog::UPLOADS) };
        uploads().map_err(|_| NoPicture::Missing)?.picture(Path::new(name))
    }
}

impl Survey {
    /// Adds what another survey found.
    pub(super) fn add(&mut self, other: Self) {
        self.looked_for += other.looked_for;
        self.found += other.found;
        self.first_missing = self.first_missing.take().or(other.first_missing);
    }

    /// Pictures that are not there.
    pub fn missing(&self) -> usize {
        self.looked_for - self.found
    }
}

impl CatalogueRoot {
    /// The folder, open or not.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::NotRecorded => None,
            Self::Open { path } | Self::Unavailable { path, .. } | Self::Foreign { path } => Some(path),
        }
    }

    /// Whether pictures can be read from it.
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Open { .. })
    }

    /// Why the pictures cannot be read, as a clause. None if the folder is open, or none is recorded.
    pub fn complaint(&self) -> Option<String> {
        match self {
            Self::NotRecorded | Self::Open { .. } => None,
            Self::Unavailable { path, reason } => Some(format!(
                "the folder of the index's pictures, {}, cannot be opened ({reason})",
                path.display()
            )),
            Self::Foreign { path } => Some(format!(
                "the folder of the index's pictures, {}, was recorded by an earlier version, on another machine, by another user \
                 or for another place, so it is not opened",
                path.display()
            )),
        }
    }
}

/// Name of the item's uploaded picture, if it has one.
pub fn upload_name(item: &Item) -> Option<&str> {
    item.metadata.get(catalog::PHOTO)?.as_str()
}

/// Whether this is a name as uploads get it: 32 hexadecimal digits and an ending. Nothing else is ever opened or removed
/// among them.
pub fn is_upload_name(name: &str) -> bool {
    name.split_once('.').is_some_and(|(digest, extension)| {
        digest.len() == 32
            && digest.bytes().all(|b| b.is_ascii_hexdigit())
            && extension.bytes().all(|b| b.is_ascii_alphanumeric())
    })
}

fn stays_inside(key: &Path) -> bool {
    let mut depth = 0;
    key.components().all(|component| {
        depth += match component {
            Component::Normal(_) => 1,
            Component::CurDir => 0,
            Component::ParentDir => -1,
            Component::RootDir | Component::Prefix(_) => return false,
        };
        depth >= 0
    })
}

#[cfg(test)]
mod tests {
    use semblance_embed::transform::Limits;
    use semblance_index::{IndexConfig, IndexWriter, NewItem};

    use super::*;
    use crate::pictures::PagePictures;

    const UPLOAD: &str = "0123456789abcdef0123456789abcdef.png";

    /// A catalogue with one picture, a private picture beside it, and an index with an upload.
    fn place() -> (tempfile::TempDir, Index) {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("index");
        let mut config = IndexConfig::new(2, "m");
        let root = home.path().join("catalogue").display().to_string();
        config.attributes.insert(catalog::ROOT.to_owned(), root);
        let writer = IndexWriter::create(&dir, &config).unwrap();
        writer.upsert(&[item("a/1.png", None), item("gone.png", None)], &[0.6, 0.8, 0.8, 0.6]).unwrap();
        writer.finish(&|_| {}).unwrap();
        for name in ["catalogue/a/1.png", "private.png", &format!("index/uploads/{UPLOAD}")] {
            let path = home.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            image::RgbImage::new(3, 2).save(path).unwrap();
        }
        (home, Index::open(dir).unwrap())
    }

    fn item(key: &str, upload: Option<&str>) -> NewItem {
        let mut item = NewItem::new(key);
        if let Some(name) = upload {
            item.metadata.insert(catalog::PHOTO.to_owned(), name.into());
        }
        item
    }

    #[test]
    fn items_have_the_pictures_below_their_folders_and_no_others() {
        let (home, index) = place();
        let root = home.path().join("catalogue");
        let pictures = CataloguePictures::of(&index, Some(&root)).unwrap();
        let private = home.path().join("private.png").display().to_string();
        let reads = |key: &str, upload: Option<&str>| {
            let item = item(key, upload).with_id(1);
            let read = pictures.open(&item).and_then(|picture| picture.read(&Limits::default())).is_ok();
            assert_eq!(read, pictures.has(&item), "{key}");
            // A page shows the same.
            let page = PagePictures::of(&pictures);
            let shown =
                pictures.path(&item).is_some_and(|at| page.small(&at, &Limits::default(), 2).is_some());
            assert_eq!(read, shown, "{key}");
            read
        };
        assert!(reads("a/1.png", None) && reads("x", Some(UPLOAD)));
        for key in ["gone.png", "../private.png", &private, "a", "/etc/passwd"] {
            assert!(!reads(key, None), "{key}");
        }
        for upload in ["../../private.png", &private, "../manifest.json", "", "0123.png"] {
            assert!(!reads("a/1.png", Some(upload)), "{upload}");
        }
        assert_eq!(pictures.path(&item(&private, None).with_id(1)), None);
        let page = PagePictures::of(&pictures);
        assert!(page.small(Path::new(&private), &Limits::default(), 2).is_none());
        let named = page.with_files([PathBuf::from(&private)]);
        assert!(named.small(Path::new(&private), &Limits::default(), 2).is_some(), "the user named it");
        let found = pictures.sample(&index, 10).unwrap();
        let expected = Survey { looked_for: 2, found: 1, first_missing: Some("gone.png".to_owned()) };
        assert_eq!((found.missing(), &found), (1, &expected));
    }

    #[test]
    fn a_recorded_folder_without_a_seal_is_not_opened() {
        let (_home, index) = place();
        let pictures = CataloguePictures::of(&index, None).unwrap();
        let item = item("a/1.png", None).with_id(1);
        assert!(matches!(pictures.root(), CatalogueRoot::Foreign { .. }), "{:?}", pictures.root());
        assert_eq!(pictures.open(&item).unwrap_err(), NoPicture::NotOpened);
        assert_eq!((pictures.path(&item), pictures.has(&item)), (None, false));
    }

    #[cfg(unix)]
    #[test]
    fn uploads_are_read_from_the_index_s_own_folder_only() {
        let (home, index) = place();
        let (uploads, elsewhere) = (index.dir().join(catalog::UPLOADS), home.path().join("elsewhere"));
        std::fs::rename(&uploads, &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &uploads).unwrap();
        let pictures = CataloguePictures::of(&index, None).unwrap();
        assert_eq!(pictures.open(&item("x", Some(UPLOAD)).with_id(1)).unwrap_err(), NoPicture::Missing);
    }
}
