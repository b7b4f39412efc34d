//! Leaving and coming: an index as files that other programs read, and back.
//!
//! An export is a folder with the vectors (rows in order of ids, f32) as `vectors.npy` or `vectors.safetensors`
//! (tensor `vectors`), the items as `items.jsonl` (one JSON object a line, in the order of the rows: `id`, `key`,
//! `class`, `super_class`, `metadata`) and what made them as `index.json`. As Parquet, vectors and items are one file,
//! `index.parquet`, beside the same `index.json`.

mod npy;
mod parquet;
mod safetensors;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::str::FromStr;

use crate::config::{IndexConfig, Progress, Stage};
use crate::error::{IndexError, Result};
use crate::item::NewItem;
use crate::reader::Index;
use crate::writer::IndexWriter;

/// File with the items of an export.
pub const ITEMS_NAME: &str = "items.jsonl";
const CONFIG_NAME: &str = "index.json";
/// Rows imported at a time.
const BATCH: usize = 1024;

/// How the vectors of an export are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ExportFormat {
    /// NumPy's array format.
    #[default]
    Npy,
    /// Hugging Face's safetensors.
    Safetensors,
    /// Apache Parquet: vectors and items in one table.
    Parquet,
}

impl ExportFormat {
    fn file_name(self) -> &'static str {
        match self {
            Self::Npy => "vectors.npy",
            Self::Safetensors => "vectors.safetensors",
            Self::Parquet => "index.parquet",
        }
    }
}

impl FromStr for ExportFormat {
    type Err = IndexError;
    fn from_str(text: &str) -> Result<Self> {
        match text.to_ascii_lowercase().as_str() {
            "npy" => Ok(Self::Npy),
            "safetensors" => Ok(Self::Safetensors),
            "parquet" => Ok(Self::Parquet),
            _ => Err(IndexError::Parameter {
                name: "format",
                value: text.into(),
                expected: "npy, safetensors or parquet",
            }),
        }
    }
}

/// Writes all items and vectors of an index to a folder, which is made if need be and must not hold an export.
/// Returns the number of items.
pub fn export(
    index: &Index,
    dir: &Path,
    format: ExportFormat,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<u64> {
    fs::create_dir_all(dir).map_err(|e| IndexError::io(dir, e))?;
    let paths = [format.file_name(), ITEMS_NAME, CONFIG_NAME].map(|name| dir.join(name));
    for path in &paths {
        if path.exists() {
            let taken = std::io::Error::new(
                std::io::ErrorKind::AlreadyExists,
                "is there already, choose another folder",
            );
            return Err(IndexError::io(path, taken));
        }
    }
    let [vectors_path, items_path, config_path] = &paths;
    // One state for all passes over it: `for_each` walks what `frozen` sees.
    let frozen = index.frozen();
    match format {
        ExportFormat::Npy | ExportFormat::Safetensors => {
            let header = match format {
                ExportFormat::Npy => npy::header(frozen.len() as u64, frozen.dim()),
                _ => safetensors::header(frozen.len() as u64, frozen.dim()),
            };
            write_matrix(vectors_path, items_path, &header, &frozen, progress)?;
        }
        ExportFormat::Parquet => parquet::write(vectors_path, &frozen, progress)?,
    }
    let config = serde_json::to_vec_pretty(&frozen.manifest().config).expect("a configuration is plain data");
    fs::write(config_path, config).map_err(|e| IndexError::io(config_path, e))?;
    Ok(frozen.len() as u64)
}

/// Writes vectors behind a header, and the items as JSON lines.
fn write_matrix(
    vectors_path: &Path,
    items_path: &Path,
    header: &[u8],
    frozen: &Index,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<()> {
    let create = |path: &Path| File::create(path).map(BufWriter::new).map_err(|e| IndexError::io(path, e));
    let (mut vectors, mut items) = (create(vectors_path)?, create(items_path)?);
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |e| IndexError::io(path, e)
    };
    vectors.write_all(header).map_err(failed(vectors_path))?;
    let (mut done, total) = (0, frozen.len() as u64);
    frozen.for_each(|item, vector| {
        vectors.write_all(bytemuck::cast_slice(vector)).map_err(failed(vectors_path))?;
        let line = serde_json::to_string(&item).expect("an item is plain data");
        writeln!(items, "{line}").map_err(failed(items_path))?;
        done += 1;
        if done % 4096 == 0 || done == total {
            progress(Progress { stage: Stage::Export, done, total });
        }
        Ok(())
    })?;
    let sync =
        |file: BufWriter<File>| file.into_inner().map_err(|e| e.into_error()).and_then(|f| f.sync_all());
    sync(vectors).map_err(failed(vectors_path))?;
    sync(items).map_err(failed(items_path))
}

/// Adds the rows of an export to an index: `vectors` is a `.npy` or `.safetensors` file, `items` the JSON lines that
/// belong to its rows (by default `items.jsonl` beside it); or `vectors` is a `.parquet` file with the columns `key` and
/// `vector` (a list of floats) and perhaps `class`, `super_class`, `metadata` (a JSON object as text) and others, which
/// become metadata. Ids are given anew. Returns the number of items. The index is published by
/// [`IndexWriter::finish`], as after any write.
pub fn import(
    writer: &IndexWriter,
    vectors: &Path,
    items: Option<&Path>,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<u64> {
    let bad = |path: &Path, what: String| IndexError::Import { path: path.into(), what };
    if is_parquet(vectors) {
        return match items {
            Some(items) => Err(bad(items, "a Parquet file has its items in it".into())),
            None => parquet::read(writer, vectors, progress),
        };
    }
    let beside = vectors.with_file_name(ITEMS_NAME);
    let items_path = items.unwrap_or(&beside);
    let (rows, dim, mut reader) = open_vectors(vectors)?;
    if dim != writer.config().dim {
        return Err(IndexError::WrongDimension { expected: writer.config().dim, received: dim });
    }
    let lines = File::open(items_path).map_err(|e| IndexError::io(items_path, e))?;
    let mut lines = BufReader::new(lines).lines().zip(1u64..);
    let mut done = 0;
    while done < rows {
        let count = BATCH.min((rows - done) as usize);
        let mut bytes = vec![0; count * dim * 4];
        reader.read_exact(&mut bytes).map_err(|e| bad(vectors, format!("it ends before row {rows}: {e}")))?;
        let floats: Vec<f32> =
            bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("4 bytes"))).collect();
        let mut batch = Vec::with_capacity(count);
        while batch.len() < count {
            let (line, number) = lines
                .next()
                .ok_or_else(|| bad(items_path, format!("it has fewer lines than the {rows} vectors")))?;
            let line = line.map_err(|e| bad(items_path, e.to_string()))?;
            if !line.trim().is_empty() {
                let item: NewItem = serde_json::from_str(&line)
                    .map_err(|e| bad(items_path, format!("line {number}: {e}")))?;
                batch.push(item);
            }
        }
        writer.upsert(&batch, &floats)?;
        done += count as u64;
        progress(Progress { stage: Stage::Import, done, total: rows });
    }
    if lines.any(|(line, _)| line.is_ok_and(|l| !l.trim().is_empty())) {
        return Err(bad(
            items_path,
            format!("it has more lines than the {rows} vectors, whose items were imported"),
        ));
    }
    Ok(rows)
}

/// Dimension of a file of vectors and the configuration exported beside it, for creating the index it will go to.
pub(crate) fn describe(vectors: &Path) -> Result<(usize, Option<IndexConfig>)> {
    let dim = if is_parquet(vectors) { parquet::dim(vectors)? } else { open_vectors(vectors)?.1 };
    let config = fs::read(vectors.with_file_name(CONFIG_NAME)).ok();
    Ok((dim, config.and_then(|c| serde_json::from_slice(&c).ok())))
}

impl IndexConfig {
    /// The configuration for an index that a file of vectors is imported into: the exported one if it lies beside the
    /// file, else the defaults with the given model.
    pub fn for_import(vectors: &Path, model: &str) -> Result<Self> {
        let (dim, config) = describe(vectors)?;
        Ok(config.filter(|c| c.dim == dim).unwrap_or_else(|| Self::new(dim, model)))
    }
}

fn is_parquet(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("parquet"))
}

/// Rows, dimension, and a reader that stands at the first number.
fn open_vectors(path: &Path) -> Result<(u64, usize, BufReader<File>)> {
    let file = File::open(path).map_err(|e| IndexError::io(path, e))?;
    let len = file.metadata().map_err(|e| IndexError::io(path, e))?.len();
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let shape = match path.extension().and_then(|e| e.to_str()) {
        Some("npy") => npy::read_header(&mut reader),
        Some("safetensors") => safetensors::read_header(&mut reader),
        _ => Err("its name ends in none of .npy, .safetensors and .parquet".into()),
    };
    let bad = |what: String| IndexError::Import { path: path.into(), what };
    let (rows, dim, start) = shape.map_err(bad)?;
    let want = rows.checked_mul(dim as u64).and_then(|n| n.checked_mul(4)).and_then(|n| n.checked_add(start));
    if dim == 0 || want.is_none_or(|want| want > len) {
        return Err(bad(format!("it says {rows} × {dim} numbers and has {len} bytes")));
    }
    Ok((rows, dim, reader))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::vector_index::SearchParams;

    fn index(dir: &Path) -> Index {
        let writer = IndexWriter::create(dir, &IndexConfig::new(3, "m")).unwrap();
        let mut first = NewItem::new("a \"quoted\" ü");
        first.metadata.insert("price".into(), 1.5.into());
        let items = [first, NewItem { class: Some("c".into()), ..NewItem::new("b") }, NewItem::new("c")];
        writer.upsert(&items, &[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.6, 0.8]).unwrap();
        writer.delete(&[2]).unwrap();
        writer.upsert(&items[2..], &[0.0, 0.6, 0.8]).unwrap();
        writer.finish(&|_| {}).unwrap();
        Index::open(dir).unwrap()
    }

    #[test]
    fn what_goes_out_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let index = index(&dir.path().join("index"));
        for (format, name) in [
            (ExportFormat::Npy, "vectors.npy"),
            (ExportFormat::Safetensors, "vectors.safetensors"),
            (ExportFormat::Parquet, "index.parquet"),
        ] {
            let out = dir.path().join(name.replace('.', "-"));
            assert_eq!(export(&index, &out, format, &|_| {}).unwrap(), 3);
            assert!(export(&index, &out, format, &|_| {}).is_err(), "an export is not overwritten");
            let config = IndexConfig::for_import(&out.join(name), "other").unwrap();
            assert_eq!(config, index.manifest().config);
            let back = dir.path().join(format!("back-{name}"));
            let writer = IndexWriter::create(&back, &config).unwrap();
            assert_eq!(import(&writer, &out.join(name), None, &|_| {}).unwrap(), 3);
            writer.finish(&|_| {}).unwrap();
            let back = Index::open(&back).unwrap();
            let bare = |index: &Index| {
                let mut all = vec![];
                index
                    .for_each(|item, vector| {
                        all.push((item.key, item.class, item.metadata, vector.to_vec()));
                        Ok(())
                    })
                    .unwrap();
                all
            };
            assert_eq!(bare(&back), bare(&index));
            assert_eq!(back.search(&[1.0, 0.0, 0.0], &SearchParams::new(1)).unwrap()[0].score, 1.0);
        }
    }

    #[test]
    fn files_that_are_something_else_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let writer = IndexWriter::create(dir.path().join("i"), &IndexConfig::new(3, "m")).unwrap();
        let path = dir.path().join("v.npy");
        let refused = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            import(&writer, &path, None, &|_| {}).unwrap_err().to_string()
        };
        assert!(refused(b"").contains("v.npy cannot be imported"));
        assert!(refused(b"\x93NUMPY\x01\x00\xff\xff").contains("cut short"));
        assert!(refused(&npy::header(1 << 40, 3)).contains("bytes"));
        assert!(refused(&npy::header(u64::MAX, usize::MAX)).contains("cannot be imported"));
        let mut wrong = npy::header(1, 4);
        wrong.extend([0; 16]);
        assert!(refused(&wrong).contains("expected vectors of dimension 3, received 4"));
        let mut right = npy::header(1, 3);
        right.extend(bytemuck::cast_slice::<f32, u8>(&[1.0, 0.0, 0.0]));
        assert!(refused(&right).contains("items.jsonl"));
        fs::write(dir.path().join(ITEMS_NAME), "{\"key\": 5}").unwrap();
        assert!(refused(&right).contains("line 1"));
        fs::write(dir.path().join(ITEMS_NAME), "\n").unwrap();
        assert!(refused(&right).contains("fewer lines"));
        assert_eq!(writer.len(), 0);
        let other = dir.path().join("v.safetensors");
        fs::write(&other, [&(1u64 << 60).to_le_bytes()[..], b"{}"].concat()).unwrap();
        assert!(import(&writer, &other, None, &|_| {}).is_err());
    }
}
