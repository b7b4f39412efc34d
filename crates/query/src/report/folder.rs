//! A report as a folder of two files: a page for people, JSON for programs.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::html::{self, Thumbnails};
use crate::error::{QueryError, Result};
use crate::export::whole;
use crate::pictures::PagePictures;
use crate::study::Study;

/// The page.
pub const PAGE: &str = "report.html";
/// The same as data.
pub const DATA: &str = "report.json";

/// Makes the folder and sees that files can be written into it: before the long work, so that this does not fail at its
/// end.
///
/// # Errors
/// [`QueryError::Write`].
pub fn prepare(dir: &Path) -> Result<()> {
    let at = |source| QueryError::Write { path: dir.to_owned(), source };
    fs::create_dir_all(dir).map_err(at)?;
    let probe = dir.join(format!(".{DATA}.probe"));
    fs::write(&probe, "").and_then(|()| fs::remove_file(&probe)).map_err(at)
}

/// Writes both files, each whole or not at all, over those of an earlier report. The page shows what of its pictures is among
/// `pictures`. Returns their paths, the page first.
///
/// # Errors
/// [`QueryError::Write`] with the file, [`QueryError::Render`].
pub fn write(
    dir: &Path,
    study: &Study,
    thumbnails: &Thumbnails,
    pictures: &PagePictures<'_>,
) -> Result<[PathBuf; 2]> {
    let page = html::study(study, thumbnails, pictures)?;
    let data = whole(dir, DATA, |out| Ok(serde_json::to_writer(out, study)?))?;
    Ok([whole(dir, PAGE, |out| out.write_all(page.as_bytes()))?, data])
}

/// Reads a report again: the JSON file, or the folder it lies in.
///
/// # Errors
/// [`QueryError::ReadReport`] if it is missing or no report.
pub fn read(path: &Path) -> Result<Study> {
    let file = if path.is_dir() { path.join(DATA) } else { path.to_owned() };
    let unreadable = |reason: String| QueryError::ReadReport { path: file.clone(), reason };
    let text = fs::read(&file).map_err(|error| unreadable(error.to_string()))?;
    serde_json::from_slice(&text).map_err(|error| unreadable(error.to_string()))
}
