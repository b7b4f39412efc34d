//! The pictures that one page may show.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use semblance_embed::transform::{Limits, Small, decode_small_bytes, decode_small_file};

use super::CataloguePictures;

/// The pictures that one page may show: those of an index, and files that the user named. Other paths are not opened,
/// wherever the page has them from.
#[derive(Clone, Debug, Default)]
pub struct PagePictures<'a> {
    catalogue: Option<&'a CataloguePictures>,
    files: HashSet<PathBuf>,
}

impl<'a> PagePictures<'a> {
    /// The pictures of an index.
    pub fn of(catalogue: &'a CataloguePictures) -> Self {
        Self { catalogue: Some(catalogue), files: HashSet::new() }
    }

    /// Adds files that the user named, or that lie in a data set that the user named.
    pub fn with_files(mut self, files: impl IntoIterator<Item = PathBuf>) -> Self {
        self.files.extend(files);
        self
    }

    /// The picture at a path, small as [`decode_small_file`] makes it. None if it is not one of these, or cannot be read.
    pub(crate) fn small(&self, path: &Path, limits: &Limits, side: u32) -> Option<Small> {
        if self.files.contains(path) {
            return decode_small_file(path, limits, side).ok();
        }
        let (bytes, _) = self.catalogue?.open_path(path).ok()?.read(limits).ok()?;
        decode_small_bytes(&bytes, limits, side).ok()
    }
}
