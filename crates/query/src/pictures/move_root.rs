//! Another folder for the pictures of an index, without embedding them again.

use std::path::{Path, PathBuf};

use semblance_index::IndexWriter;

use super::{CataloguePictures, SealError, Survey, seal};
use crate::catalog;
use crate::error::{QueryError, Result};

/// What [`move_root`] did.
#[derive(Debug)]
pub struct MovedRoot {
    /// The folder recorded now, absolute.
    pub root: PathBuf,
    /// The folder recorded before, if there was one.
    pub before: Option<String>,
    /// The pictures looked for below the new folder.
    pub survey: Survey,
    /// Why the folder could not be sealed, if it could not: it must then be named whenever the index is opened.
    pub unsealed: Option<SealError>,
}

/// Records `root` as the folder that the index's keys are relative to. Every item's picture is looked for below it;
/// `progress` hears how many were, of how many. Nothing is embedded, and no vector is written.
///
/// # Errors
/// [`QueryError::PictureFolder`] if the folder cannot be opened, [`QueryError::NoPictureBelow`] if not a single picture lies
/// there, in which case nothing is changed; failures of the index.
pub fn move_root(
    writer: &mut IndexWriter,
    root: &Path,
    progress: &dyn Fn(usize, usize),
) -> Result<MovedRoot> {
    let failed = |source| QueryError::PictureFolder { path: root.to_owned(), source };
    let root = root.canonicalize().map_err(failed)?;
    let index = writer.reader()?;
    let pictures = CataloguePictures::of(&index, Some(&root))?;
    let mut survey = Survey::default();
    let ids = index.ids();
    for (done, id) in ids.iter().enumerate() {
        survey.add(pictures.survey([&index.item(*id)?]));
        if done % 1024 == 0 || done + 1 == ids.len() {
            progress(done + 1, ids.len());
        }
    }
    if survey.found == 0 {
        let Survey { looked_for, first_missing, .. } = survey;
        return Err(QueryError::NoPictureBelow {
            root,
            looked_for,
            first: first_missing.unwrap_or_default(),
        });
    }
    let mut attributes = writer.config().attributes.clone();
    let before = attributes.insert(catalog::ROOT.to_owned(), root.to_string_lossy().into_owned());
    let unsealed = seal::seal(&mut attributes, writer.dir()).err();
    writer.set_attributes(attributes)?;
    Ok(MovedRoot { root, before, survey, unsealed })
}
