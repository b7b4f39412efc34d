//! Import and export: vectors and their items as files that other programs read, and back.
//!
//! This is the one place of the workspace where vectors are read from files and written to them: [`export`] and
//! [`write_embeddings`] write, [`import`] reads what either of them wrote, and what other programs wrote in these formats.
//! (Tables of pictures and metadata, and model weights, are other things; the embedding crate reads those.)
//!
//! A folder has the vectors (f32, a row per item) as `vectors.npy` or `vectors.safetensors` (tensor `vectors`), the items
//! as `items.jsonl` (one JSON object per line, in the order of the rows: `id`, `key`, `class`, `super_class`,
//! `metadata`) and what made them as `index.json`. As Parquet (`index.parquet`) and as JSON lines (`vectors.jsonl`,
//! the objects of `items.jsonl` with `vector`), vectors and items are one file, beside the same `index.json`.

mod folder;
mod import;
mod jsonl;
mod matrix;
mod npy;
mod parquet;
mod safetensors;

use std::path::Path;
use std::str::FromStr;

pub use folder::{Embeddings, export, write_embeddings};
pub use import::{Imported, import};
pub use jsonl::write_json_line;

use crate::error::{IndexError, Result};
use crate::item::NewItem;

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
    /// JSON lines: one object per item, with its vector.
    Jsonl,
}

impl ExportFormat {
    fn file_name(self) -> &'static str {
        match self {
            Self::Npy => "vectors.npy",
            Self::Safetensors => "vectors.safetensors",
            Self::Parquet => "index.parquet",
            Self::Jsonl => "vectors.jsonl",
        }
    }

    /// True if the items are in the same file as the vectors.
    fn holds_items(self) -> bool {
        matches!(self, Self::Parquet | Self::Jsonl)
    }
}

impl FromStr for ExportFormat {
    type Err = IndexError;
    fn from_str(text: &str) -> Result<Self> {
        match text.to_ascii_lowercase().as_str() {
            "npy" => Ok(Self::Npy),
            "safetensors" => Ok(Self::Safetensors),
            "parquet" => Ok(Self::Parquet),
            "jsonl" => Ok(Self::Jsonl),
            _ => Err(IndexError::Parameter {
                name: "format",
                value: text.into(),
                expected: "npy, safetensors, parquet or jsonl",
            }),
        }
    }
}

/// Takes a batch of items and their vectors.
type Store<'a> = dyn FnMut(&[NewItem], &[f32]) -> Result<()> + 'a;

fn bad(path: &Path, what: String) -> IndexError {
    IndexError::Import { path: path.into(), what }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::backend::vector_index::SearchParams;
    use crate::config::IndexConfig;
    use crate::reader::Index;
    use crate::writer::IndexWriter;

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
            (ExportFormat::Jsonl, "vectors.jsonl"),
        ] {
            let out = dir.path().join(name.replace('.', "-"));
            assert_eq!(export(&index, &out, format, &|_| {}).unwrap(), 3);
            assert!(export(&index, &out, format, &|_| {}).is_err(), "an export is not overwritten");
            let config = IndexConfig::for_import(&out.join(name), "other").unwrap();
            assert_eq!(config, index.manifest().config);
            let back = dir.path().join(format!("back-{name}"));
            let writer = IndexWriter::create(&back, &config).unwrap();
            assert_eq!(
                import(&writer, &out.join(name), None, &|_| {}).unwrap(),
                Imported { rows: 3, replaced: 0 }
            );
            let again = import(&writer, &out.join(name), None, &|_| {}).unwrap();
            assert_eq!(again, Imported { rows: 3, replaced: 3 });
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
