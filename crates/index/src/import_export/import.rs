//! Files of vectors and items into an index.

use std::fs;
use std::path::Path;

use super::jsonl::JsonLines;
use super::matrix::MatrixFile;
use super::{BATCH, CONFIG_NAME, ITEMS_NAME, Store, bad, parquet};
use crate::config::{IndexConfig, Progress, Stage};
use crate::error::{IndexError, Result};
use crate::item::NewItem;
use crate::writer::IndexWriter;

/// What an import did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Imported {
    /// Rows read and stored.
    pub rows: u64,
    /// Rows among them whose key the index had already or an earlier row had: they replaced that item.
    pub replaced: u64,
}

/// Adds the rows of a file to an index. `vectors` is one of
///
/// - a `.npy` matrix (f16, f32 or f64, C or Fortran order) or a `.safetensors` matrix (F16, BF16, F32, F64), with `items`
///   the JSON lines that belong to its rows, by default `items.jsonl` beside it;
/// - a `.parquet` file with the columns `key` and `vector` (a list of floats) and perhaps `class`, `super_class`, `metadata`
///   (a JSON object as text) and others, which become metadata;
/// - a `.jsonl` file of objects with the same names.
///
/// Numbers are rounded to f32 and not changed otherwise: a vector whose norm is not 1 is refused, as by
/// [`IndexWriter::upsert`]. Ids in the file are passed over, the index gives its own. Of one key twice the later row wins
/// and is counted. The index is published by [`IndexWriter::finish`], as after any write.
///
/// # Errors
/// [`IndexError::Import`] with the file and what was expected of it; batches before the error stay in the index.
pub fn import(
    writer: &IndexWriter,
    vectors: &Path,
    items: Option<&Path>,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Imported> {
    let mut source = Source::open(vectors)?;
    let expected = writer.config().dim;
    if let Some(received) = source.dim().filter(|dim| *dim != expected) {
        return Err(IndexError::WrongDimension { expected, received });
    }
    let total = source.rows();
    let (before, mut rows) = (writer.len() as u64, 0);
    let mut store = |batch: &[NewItem], vectors: &[f32]| {
        writer.upsert(batch, vectors)?;
        rows += batch.len() as u64;
        progress(Progress { stage: Stage::Import, done: rows, total: total.unwrap_or(rows) });
        Ok(())
    };
    match (&mut source, items) {
        (Source::Matrix(matrix), items) => read_matrix(matrix, vectors, items, &mut store)?,
        (_, Some(items)) => return Err(bad(items, "the file of the vectors has the items in it".into())),
        (Source::Table { .. }, None) => drop(parquet::read(vectors, expected, &mut store)?),
        (Source::Lines { .. }, None) => read_lines(vectors, expected, &mut store)?,
    }
    let added = (writer.len() as u64).saturating_sub(before);
    Ok(Imported { rows, replaced: rows.saturating_sub(added) })
}

impl IndexConfig {
    /// The configuration for an index that a file of vectors is imported into: the exported one if it lies beside the
    /// file, else the defaults with the given model.
    pub fn for_import(vectors: &Path, model: &str) -> Result<Self> {
        let dim = Source::open(vectors)?.dim();
        let beside = fs::read(vectors.with_file_name(CONFIG_NAME)).ok();
        let config: Option<Self> = beside.and_then(|c| serde_json::from_slice(&c).ok());
        match (config, dim) {
            (Some(config), dim) if dim.is_none_or(|dim| dim == config.dim) => Ok(config),
            (_, Some(dim)) => Ok(Self::new(dim, model)),
            (_, None) => Err(bad(vectors, "it has no rows, so their dimension is unknown".into())),
        }
    }
}

/// A file of vectors by its format, with what is known of it before its rows are read.
enum Source {
    Matrix(MatrixFile),
    Table { rows: u64, dim: Option<usize> },
    Lines { dim: Option<usize> },
}

impl Source {
    fn open(path: &Path) -> Result<Self> {
        let is = |extension: &str| path.extension().is_some_and(|e| e.eq_ignore_ascii_case(extension));
        if is("parquet") {
            let (rows, dim) = parquet::shape(path)?;
            Ok(Self::Table { rows, dim })
        } else if is("jsonl") {
            let mut lines = JsonLines::open(path)?;
            let dim = match lines.next()? {
                Some((_, vector)) => Some(vector.ok_or_else(|| lines.bad(NO_VECTOR))?.len()),
                None => None,
            };
            Ok(Self::Lines { dim })
        } else {
            MatrixFile::open(path).map(Self::Matrix)
        }
    }

    fn rows(&self) -> Option<u64> {
        match self {
            Self::Matrix(matrix) => Some(matrix.rows()),
            Self::Table { rows, .. } => Some(*rows),
            Self::Lines { .. } => None,
        }
    }

    /// Dimension of the vectors; JSON lines and tables without a row do not say it.
    fn dim(&self) -> Option<usize> {
        match self {
            Self::Matrix(matrix) => Some(matrix.dim()),
            Self::Table { dim, .. } | Self::Lines { dim } => *dim,
        }
    }
}

const NO_VECTOR: &str = "it has no \"vector\": name the .npy or .safetensors file that these items belong to";

fn read_matrix(
    matrix: &mut MatrixFile,
    path: &Path,
    items: Option<&Path>,
    store: &mut Store<'_>,
) -> Result<()> {
    let beside = path.with_file_name(ITEMS_NAME);
    let items_path = items.unwrap_or(&beside);
    if !items_path.exists() && path.with_file_name("items.csv").exists() {
        let what = "items.csv lies in its place, which earlier versions wrote: embed the pictures again, or write \
                    its rows as JSON lines, {\"key\": \"the path\", \"class\": \"the class\"}";
        return Err(bad(items_path, what.into()));
    }
    let mut lines = JsonLines::open(items_path)?;
    let (rows, mut done) = (matrix.rows(), 0);
    while done < rows {
        let count = BATCH.min((rows - done) as usize);
        let mut batch = Vec::with_capacity(count);
        while batch.len() < count {
            let found = done + batch.len() as u64;
            let (item, _) = lines.next()?.ok_or_else(|| {
                let stored =
                    if done > 0 { format!("; the first {done} were imported") } else { String::new() };
                bad(items_path, format!("it has fewer lines than the {rows} vectors: {found}{stored}"))
            })?;
            batch.push(item);
        }
        store(&batch, &matrix.read(count)?)?;
        done += count as u64;
    }
    match lines.next()? {
        Some(_) => Err(bad(
            items_path,
            format!("it has more lines than the {rows} vectors, whose items were imported"),
        )),
        None => Ok(()),
    }
}

fn read_lines(path: &Path, dim: usize, store: &mut Store<'_>) -> Result<()> {
    let mut lines = JsonLines::open(path)?;
    let (mut items, mut vectors) = (vec![], vec![]);
    while let Some((item, vector)) = lines.next()? {
        let vector = vector.ok_or_else(|| lines.bad(NO_VECTOR))?;
        if vector.len() != dim {
            return Err(lines.bad(format!("its vector has {} numbers, expected {dim}", vector.len())));
        }
        items.push(item);
        vectors.extend(vector);
        if items.len() == BATCH {
            store(&items, &vectors)?;
            items.clear();
            vectors.clear();
        }
    }
    if items.is_empty() { Ok(()) } else { store(&items, &vectors) }
}
