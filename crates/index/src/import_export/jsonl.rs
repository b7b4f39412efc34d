//! JSON lines: one object per item, with its vector or without it.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::bad;
use crate::error::{IndexError, Result};
use crate::item::{Item, NewItem};

/// Longest line that is read, in bytes.
const MAX_LINE: u64 = 64 << 20;

#[derive(Serialize)]
struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u64>,
    key: &'a str,
    class: Option<&'a str>,
    super_class: Option<&'a str>,
    metadata: &'a Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vector: Option<&'a [f32]>,
}

#[derive(Deserialize)]
struct ReadLine {
    #[serde(alias = "path")]
    key: String,
    #[serde(default)]
    class: Option<String>,
    #[serde(default)]
    super_class: Option<String>,
    #[serde(default)]
    metadata: Map<String, Value>,
    #[serde(default)]
    vector: Option<Vec<f32>>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

/// Writes one item and its vector as a line of JSON: `key`, `class`, `super_class`, `metadata` and `vector`.
///
/// # Errors
/// What the writer said.
pub fn write_json_line(out: &mut dyn Write, item: &NewItem, vector: &[f32]) -> io::Result<()> {
    let NewItem { key, class, super_class, metadata } = item;
    let (class, super_class) = (class.as_deref(), super_class.as_deref());
    line(out, &Line { id: None, key, class, super_class, metadata, vector: Some(vector) })
}

/// Writes an item as a line of JSON, with an id and a vector where there are such.
pub(super) fn write(
    out: &mut dyn Write,
    item: &Item,
    with_id: bool,
    vector: Option<&[f32]>,
) -> io::Result<()> {
    let Item { id, key, class, super_class, metadata } = item;
    let (class, super_class) = (class.as_deref(), super_class.as_deref());
    line(out, &Line { id: with_id.then_some(*id), key, class, super_class, metadata, vector })
}

fn line(out: &mut dyn Write, line: &Line<'_>) -> io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    out.write_all(b"\n")
}

/// Lines of a file, one at a time. Empty lines are passed over.
pub(super) struct JsonLines {
    path: PathBuf,
    reader: BufReader<File>,
    number: u64,
}

impl JsonLines {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| IndexError::reading(path, e))?;
        Ok(Self { path: path.into(), reader: BufReader::new(file), number: 0 })
    }

    /// The next item, with its vector if the line has one. `id` is passed over, since an index gives its own; fields of
    /// other names become metadata.
    pub(super) fn next(&mut self) -> Result<Option<(NewItem, Option<Vec<f32>>)>> {
        let mut text = Vec::new();
        loop {
            self.number += 1;
            text.clear();
            let read = self.reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut text);
            let read = read.map_err(|e| IndexError::io(&self.path, e))?;
            if read == 0 {
                return Ok(None);
            }
            if read as u64 == MAX_LINE && text.last() != Some(&b'\n') {
                return Err(self.bad("it is longer than 64 megabytes"));
            }
            if !text.trim_ascii().is_empty() {
                break;
            }
        }
        let line: ReadLine = serde_json::from_slice(&text).map_err(|e| self.bad(e))?;
        let ReadLine { key, class, super_class, mut metadata, vector, mut others } = line;
        others.remove("id");
        metadata.extend(others);
        Ok(Some((NewItem { key, class, super_class, metadata }, vector)))
    }

    /// An error that names the file and the line read last.
    pub(super) fn bad(&self, what: impl std::fmt::Display) -> IndexError {
        bad(&self.path, format!("line {}: {what}", self.number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &[u8]) -> Result<Vec<(NewItem, Option<Vec<f32>>)>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("v.jsonl");
        std::fs::write(&path, text).unwrap();
        let mut lines = JsonLines::open(&path)?;
        std::iter::from_fn(|| lines.next().transpose()).collect()
    }

    #[test]
    fn names_of_earlier_versions_and_other_fields_are_read() {
        let found =
            read(b"\n{\"path\":\"a\",\"vector\":[1,0],\"id\":7,\"price\":2}\r\n\n{\"key\":\"b\"}").unwrap();
        assert_eq!((found[0].0.key.as_str(), found[0].1.as_deref()), ("a", Some(&[1.0, 0.0][..])));
        assert_eq!(Value::Object(found[0].0.metadata.clone()), serde_json::json!({"price": 2}));
        assert_eq!(found[1], (NewItem::new("b"), None));
        let error = read(b"{\"key\":\"a\"}\n{\"key\":5}").unwrap_err().to_string();
        assert!(error.contains("v.jsonl") && error.contains("line 2"), "{error}");
    }

    proptest! {
        #[test]
        fn vectors_come_back_to_the_bit(
            vector in prop::collection::vec(any::<u32>().prop_map(f32::from_bits).prop_filter("finite", |x| x.is_finite()), 1..20),
            key in ".*",
        ) {
            let item = NewItem { class: Some(key.clone()), ..NewItem::new(key) };
            let mut out = Vec::new();
            write_json_line(&mut out, &item, &vector).unwrap();
            let found = read(&out).unwrap();
            prop_assert_eq!(&found[0].0, &item);
            let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(found[0].1.as_ref().unwrap()), bits(&vector));
        }
    }
}
