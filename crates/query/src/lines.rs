//! Vectors as JSON lines, written while they are made, for programs that read a pipe.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use semblance_embed::Embedder;
use semblance_embed::dataset::{Dataset, Sample};
use semblance_embed::extract::{ExtractConfig, Extracted, extract};
use serde::Serialize;

use crate::error::{QueryError, Result};

/// A line: the picture, its classes where they are known, its unit vector.
#[derive(Serialize)]
struct Line<'a> {
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    super_class: Option<&'a str>,
    vector: &'a [f32],
}

/// Embeds every picture of `dataset` and writes a line for each that can be read, in the data set's order, to `out` as soon
/// as its batch is done; `name` is what errors call it, `progress` is told how many are done.
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
            line(&mut lines, &dataset.samples[*row], vector).map_err(|source| at(name, source))?;
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

fn line(out: &mut Vec<u8>, sample: &Sample, vector: &[f32]) -> io::Result<()> {
    let (class, super_class) = (sample.class.as_deref(), sample.super_class.as_deref());
    let path = sample.key();
    serde_json::to_writer(&mut *out, &Line { path: &path, class, super_class, vector })?;
    out.push(b'\n');
    Ok(())
}

fn at(path: &Path, source: io::Error) -> QueryError {
    QueryError::Write { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_what_is_known_of_the_picture_and_the_numbers_as_they_are() {
        let of = |class: Option<&str>| Sample {
            path: "a, \"b\"/1.jpg".into(),
            class: class.map(str::to_owned),
            super_class: None,
            split: None,
        };
        let mut out = Vec::new();
        line(&mut out, &of(Some("mug")), &[0.1, -1.0]).unwrap();
        line(&mut out, &of(None), &[f32::MIN_POSITIVE]).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], r#"{"path":"a, \"b\"/1.jpg","class":"mug","vector":[0.1,-1.0]}"#);
        let read: serde_json::Value = serde_json::from_str(lines[1]).unwrap();
        assert_eq!(read["vector"][0].as_f64().unwrap() as f32, f32::MIN_POSITIVE);
        assert!(read.get("class").is_none());
    }
}
