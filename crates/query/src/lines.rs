//! Vectors as JSON lines, written while they are made, for programs that read a pipe.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use semblance_embed::Embedder;
use semblance_embed::dataset::{Dataset, Sample};
use semblance_embed::extract::{ExtractConfig, Extracted, extract};
use semblance_index::{NewItem, write_json_line};

use crate::error::{QueryError, Result};

/// Embeds every picture of `dataset` and writes a line for each that can be read, in the data set's order, to `out` as soon
/// as its batch is done; `name` is what errors call it, `progress` receives how many are done.
///
/// # Errors
/// [`QueryError::NothingReadable`] if there is no line at all, [`QueryError::Write`] with what the system said, with
/// `config.strict` the first unreadable picture, and failures of the model.
pub fn write(
    embedder: &Embedder,
    dataset: &Dataset,
    config: &ExtractConfig,
    (out, name): (&mut dyn Write, &Path),
    progress: &mut dyn FnMut(usize),
) -> Result<Extracted> {
    let dim = embedder.dim();
    let mut on_batch = |rows: &[usize], vectors: &[f32]| -> Result<()> {
        let mut lines = Vec::new();
        for (row, vector) in rows.iter().zip(vectors.chunks(dim)) {
            let item = item(&dataset.samples[*row]);
            write_json_line(&mut lines, &item, vector).map_err(|source| at(name, source))?;
        }
        out.write_all(&lines).and_then(|()| out.flush()).map_err(|source| at(name, source))
    };
    let extracted = extract(embedder, dataset, config, &mut on_batch, progress)?;
    if extracted.embedded == 0 {
        return Err(QueryError::nothing_readable(dataset, &extracted.failures));
    }
    Ok(extracted)
}

/// As [`write()`], into a file that is new and appears when it is complete and on disk.
///
/// # Errors
/// As [`write()`], and [`QueryError::Exists`].
pub fn write_file(
    embedder: &Embedder,
    dataset: &Dataset,
    config: &ExtractConfig,
    path: &Path,
    progress: &mut dyn FnMut(usize),
) -> Result<Extracted> {
    let partial = partial(path)?;
    let file = File::create(&partial).map_err(|source| at(path, source))?;
    let mut out = BufWriter::new(file);
    let written = write(embedder, dataset, config, (&mut out, path), progress).and_then(|extracted| {
        let synced =
            out.into_inner().map_err(io::IntoInnerError::into_error).and_then(|file| file.sync_all());
        synced.and_then(|()| fs::rename(&partial, path)).map_err(|source| at(path, source))?;
        Ok(extracted)
    });
    if written.is_err() {
        // The error at hand says more than one of the removal would.
        let _ = fs::remove_file(&partial);
    }
    written
}

/// The name a new file has while it is written; makes the folders it lies in.
fn partial(path: &Path) -> Result<PathBuf> {
    if path.exists() {
        return Err(QueryError::Exists { path: path.to_owned() });
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|source| at(folder, source))?;
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    Ok(path.with_file_name(format!(".{name}.partial")))
}

fn at(path: &Path, source: io::Error) -> QueryError {
    QueryError::Write { path: path.to_owned(), source }
}

/// The item that a picture becomes: its key and classes.
pub fn item(sample: &Sample) -> NewItem {
    let (class, super_class) = (sample.class.clone(), sample.super_class.clone());
    NewItem { class, super_class, ..NewItem::new(sample.key()) }
}
