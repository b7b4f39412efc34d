//! Folders of vectors and items, written whole or not at all.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::{CONFIG_NAME, ExportFormat, ITEMS_NAME, jsonl, npy, parquet, safetensors};
use crate::config::{IndexConfig, Progress, Stage};
use crate::error::{IndexError, Result};
use crate::item::{Item, NewItem};
use crate::reader::Index;

/// Vectors with their items, not in an index.
#[derive(Clone, Copy, Debug)]
pub struct Embeddings<'a> {
    /// The item of each row.
    pub items: &'a [NewItem],
    /// items × `config.dim` numbers, row after row.
    pub vectors: &'a [f32],
    /// Configuration of an index that the vectors could be imported into: dimension, model, attributes.
    pub config: &'a IndexConfig,
    /// Names and values for the header of a safetensors file.
    pub labels: &'a [(&'a str, &'a str)],
}

/// Writes all items and vectors of an index to a folder, which is made if need be and must not hold an export; what an
/// interrupted export left in it is replaced. Returns the number of items.
///
/// # Errors
/// [`IndexError::Io`] if a file of the export is there already, and failures of the disk.
pub fn export(
    index: &Index,
    dir: &Path,
    format: ExportFormat,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<u64> {
    // One state for all passes over it: `for_each` walks what `frozen` sees.
    let frozen = index.frozen();
    let config = &frozen.manifest().config;
    let (mut done, total) = (0, frozen.len() as u64);
    let mut folder = Folder::create(dir, &[format], total, config, &[("model", &config.model)])?;
    frozen.for_each(|item, vector| {
        folder.write(&item, true, vector)?;
        done += 1;
        if done % 4096 == 0 || done == total {
            progress(Progress { stage: Stage::Export, done, total });
        }
        Ok(())
    })?;
    folder.finish(config)?;
    Ok(total)
}

/// Writes vectors and items to a folder in each of `formats`, as [`export`] does for those of an index; the items have no
/// ids. Returns the paths of the files.
///
/// # Errors
/// [`IndexError::WrongLength`] if `vectors` are not items × dimension numbers; else as [`export`].
pub fn write_embeddings(
    dir: &Path,
    formats: &[ExportFormat],
    embeddings: &Embeddings<'_>,
) -> Result<Vec<PathBuf>> {
    let Embeddings { items, vectors, config, labels } = *embeddings;
    config.validate()?;
    let (rows, dim) = (items.len(), config.dim);
    if vectors.len() != rows * dim {
        return Err(IndexError::WrongLength { rows, dim, received: vectors.len() });
    }
    let mut folder = Folder::create(dir, formats, rows as u64, config, labels)?;
    for (item, vector) in items.iter().zip(vectors.chunks_exact(dim)) {
        folder.write(&item.clone().with_id(0), false, vector)?;
    }
    folder.finish(config)
}

/// Name of the file that lists the files of an export until all of them are complete.
const NOTE: &str = ".export.partial";

/// The names that files of an export can have.
const NAMES: [&str; 6] =
    ["vectors.npy", "vectors.safetensors", "index.parquet", "vectors.jsonl", ITEMS_NAME, CONFIG_NAME];

/// The files of a folder while they are written.
struct Folder {
    note: Note,
    matrices: Vec<NewFile>,
    items: Option<NewFile>,
    lines: Option<NewFile>,
    table: Option<(parquet::Writer, Names)>,
    config: Names,
}

/// A file's name, and the one it has until it is complete. An incomplete file is removed.
struct Names {
    path: PathBuf,
    partial: PathBuf,
    complete: bool,
}

struct NewFile {
    out: BufWriter<File>,
    names: Names,
}

impl Folder {
    fn create(
        dir: &Path,
        formats: &[ExportFormat],
        rows: u64,
        config: &IndexConfig,
        labels: &[(&str, &str)],
    ) -> Result<Self> {
        fs::create_dir_all(dir).map_err(|e| IndexError::io(dir, e))?;
        let mut names: Vec<&str> = formats.iter().map(|format| format.file_name()).collect();
        names.extend([ITEMS_NAME, CONFIG_NAME]);
        let mut folder = Self {
            note: Note::begin(dir, &names)?,
            matrices: vec![],
            items: None,
            lines: None,
            table: None,
            config: Names::new(dir, CONFIG_NAME)?,
        };
        for &format in formats {
            let names = Names::new(dir, format.file_name())?;
            match format {
                ExportFormat::Npy | ExportFormat::Safetensors => {
                    let header = match format {
                        ExportFormat::Npy => npy::header(rows, config.dim),
                        _ => safetensors::header(rows, config.dim, labels)
                            .map_err(|e| IndexError::io(&names.path, io::Error::other(e)))?,
                    };
                    let mut file = names.create()?;
                    file.write(&header)?;
                    folder.matrices.push(file);
                }
                ExportFormat::Parquet => {
                    folder.table = Some((parquet::Writer::create(&names.partial, config.dim)?, names));
                }
                ExportFormat::Jsonl => folder.lines = Some(names.create()?),
            }
        }
        if formats.iter().any(|format| !format.holds_items()) {
            folder.items = Some(Names::new(dir, ITEMS_NAME)?.create()?);
        }
        Ok(folder)
    }

    fn write(&mut self, item: &Item, with_id: bool, vector: &[f32]) -> Result<()> {
        if !self.matrices.is_empty() {
            let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
            self.matrices.iter_mut().try_for_each(|file| file.write(&bytes))?;
        }
        if let Some(NewFile { out, names }) = &mut self.items {
            jsonl::write(out, item, with_id, None).map_err(|e| names.failed(e))?;
        }
        if let Some(NewFile { out, names }) = &mut self.lines {
            jsonl::write(out, item, with_id, Some(vector)).map_err(|e| names.failed(e))?;
        }
        match &mut self.table {
            Some((table, _)) => table.write(item, with_id, vector),
            None => Ok(()),
        }
    }

    /// Completes the files; the configuration is the last of them.
    fn finish(self, config: &IndexConfig) -> Result<Vec<PathBuf>> {
        let mut paths = vec![];
        for file in self.matrices.into_iter().chain(self.lines).chain(self.items) {
            paths.push(file.finish()?);
        }
        if let Some((table, names)) = self.table {
            table.finish()?;
            paths.push(names.complete()?);
        }
        let mut file = self.config.create()?;
        file.write(&serde_json::to_vec_pretty(config).expect("a configuration is plain data"))?;
        paths.push(file.finish()?);
        self.note.end()?;
        Ok(paths)
    }
}

/// The note that an export is being written. Files that an interrupted one completed are known by it for its own.
struct Note {
    path: PathBuf,
}

impl Note {
    /// Notes the files that will be written, after removing those that an interrupted export completed.
    fn begin(dir: &Path, names: &[&str]) -> Result<Self> {
        let path = dir.join(NOTE);
        let failed = |e| IndexError::io(&path, e);
        match fs::read_to_string(&path) {
            Ok(earlier) => {
                // Of other names nothing is believed.
                for name in earlier.lines().filter(|name| NAMES.contains(name)) {
                    remove(&dir.join(name))?;
                    remove(&dir.join(format!(".{name}.partial")))?;
                }
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(failed(e)),
        }
        // What is there without a note is somebody's, and stays.
        names.iter().try_for_each(|name| refuse_a_file(&dir.join(name)))?;
        let mut file = File::create(&path).map_err(failed)?;
        file.write_all(names.join("\n").as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
        Ok(Self { path })
    }

    fn end(self) -> Result<()> {
        fs::remove_file(&self.path).map_err(|e| IndexError::io(&self.path, e))
    }
}

fn refuse_a_file(path: &Path) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    let taken = io::Error::new(io::ErrorKind::AlreadyExists, "is there already, choose another folder");
    Err(IndexError::io(path, taken))
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(IndexError::io(path, e)),
        _ => Ok(()),
    }
}

impl Names {
    fn new(dir: &Path, name: &str) -> Result<Self> {
        let (path, partial) = (dir.join(name), dir.join(format!(".{name}.partial")));
        refuse_a_file(&path)?;
        Ok(Self { path, partial, complete: false })
    }

    fn create(self) -> Result<NewFile> {
        let file = File::create(&self.partial).map_err(|e| self.failed(e))?;
        Ok(NewFile { out: BufWriter::new(file), names: self })
    }

    fn failed(&self, error: io::Error) -> IndexError {
        IndexError::io(&self.path, error)
    }

    fn complete(mut self) -> Result<PathBuf> {
        fs::rename(&self.partial, &self.path).map_err(|e| self.failed(e))?;
        self.complete = true;
        Ok(self.path.clone())
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        if !self.complete {
            // Perhaps it was never made; the error at hand says more than this one would.
            let _ = fs::remove_file(&self.partial);
        }
    }
}

impl NewFile {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(|e| self.names.failed(e))
    }

    fn finish(self) -> Result<PathBuf> {
        let Self { out, names } = self;
        let synced =
            out.into_inner().map_err(io::IntoInnerError::into_error).and_then(|file| file.sync_all());
        synced.map_err(|e| names.failed(e))?;
        names.complete()
    }
}
