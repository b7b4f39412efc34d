//! What is known of a catalogue's pictures beside their class, from a file: typed values that filters can ask for.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{QueryError, Result};

/// Metadata by key of the picture.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata(HashMap<String, Map<String, Value>>);

impl Metadata {
    /// Reads a file of JSON lines (`.jsonl`, `.ndjson`: an object a line) or a table with a header (anything else:
    /// comma-separated, or by tabs if it ends in `.tsv`). An entry `key` or `path` says whose the others are. In a table
    /// what reads as a JSON number or as `true` or `false` is one, other values are text, empty ones are left out.
    ///
    /// # Errors
    /// [`QueryError::Metadata`] with the file and the line.
    pub fn read(path: &Path) -> Result<Self> {
        let bad = |line: u64, what: String| QueryError::Metadata { path: path.to_owned(), line, what };
        let text = fs::read_to_string(path).map_err(|e| bad(0, e.to_string()))?;
        let ending = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
        let rows = match ending.as_str() {
            "jsonl" | "ndjson" | "json" => json_lines(&text),
            "tsv" => table(&text, b'\t'),
            _ => table(&text, b','),
        };
        let mut all = HashMap::new();
        for row in rows {
            let (line, mut entries) = row.map_err(|(line, what)| bad(line, what))?;
            let key = entries.remove("key").or_else(|| entries.remove("path"));
            let key = match key {
                Some(Value::String(key)) => key,
                Some(other) => other.to_string(),
                None => return Err(bad(line, "it has neither \"key\" nor \"path\"".into())),
            };
            if all.insert(key.clone(), entries).is_some() {
                return Err(bad(line, format!("{key:?} was there before")));
            }
        }
        Ok(Self(all))
    }

    /// What is known of a picture.
    pub fn of(&self, key: &str) -> Map<String, Value> {
        self.0.get(key).cloned().unwrap_or_default()
    }

    /// Pictures something is known of.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is known of any picture.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

type Line = std::result::Result<(u64, Map<String, Value>), (u64, String)>;

fn json_lines(text: &str) -> Vec<Line> {
    let lines = text.lines().zip(1u64..).filter(|(text, _)| !text.trim().is_empty());
    lines
        .map(|(text, line)| match serde_json::from_str(text) {
            Ok(entries) => Ok((line, entries)),
            Err(e) => Err((line, format!("it is no JSON object: {e}"))),
        })
        .collect()
}

fn table(text: &str, delimiter: u8) -> Vec<Line> {
    let mut reader =
        csv::ReaderBuilder::new().delimiter(delimiter).trim(csv::Trim::All).from_reader(text.as_bytes());
    let names: Vec<String> = match reader.headers() {
        Ok(names) => names.iter().map(str::to_owned).collect(),
        Err(e) => return vec![Err((1, e.to_string()))],
    };
    let row = |record: csv::StringRecord| {
        let present = names.iter().zip(&record).filter(|(_, text)| !text.is_empty());
        present.map(|(name, text)| (name.clone(), typed(name, text))).collect()
    };
    let records = reader.records().zip(2u64..);
    records
        .map(|(record, number)| match record {
            Ok(record) => Ok((record.position().map_or(number, csv::Position::line), row(record))),
            Err(e) => Err((number, e.to_string())),
        })
        .collect()
}

fn typed(name: &str, text: &str) -> Value {
    match serde_json::from_str(text) {
        Ok(value @ (Value::Number(_) | Value::Bool(_))) if !matches!(name, "key" | "path") => value,
        _ => Value::String(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(name: &str, text: &str) -> Result<Metadata> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        Metadata::read(&path)
    }

    #[test]
    fn lines_and_tables_say_the_same() {
        let lines = "{\"key\": \"a/1.jpg\", \"price\": 19.5, \"new\": true, \"brand\": \"Acme, Inc.\"}\n\n{\"key\": \"2\"}\n";
        let comma = "path,price,new,brand\na/1.jpg,19.5,true,\"Acme, Inc.\"\n2,,,\n";
        let tab = "price\tnew\tbrand\tkey\n19.5\ttrue\tAcme, Inc.\ta/1.jpg\n\t\t\t2\n";
        for (name, text) in [("m.jsonl", lines), ("m.csv", comma), ("m.tsv", tab)] {
            let metadata = read(name, text).unwrap();
            assert_eq!(metadata.len(), 2, "{name}");
            let want = json!({"price": 19.5, "new": true, "brand": "Acme, Inc."});
            assert_eq!(Value::Object(metadata.of("a/1.jpg")), want, "{name}");
            assert!(metadata.of("2").is_empty() && metadata.of("3").is_empty());
        }
    }

    #[test]
    fn faults_are_told_with_their_line() {
        let refused = |name: &str, text: &str| read(name, text).unwrap_err().to_string();
        assert!(refused("m.jsonl", "{\"key\": \"a\"}\n[1]\n").contains("line 2: it is no JSON object"));
        assert!(refused("m.jsonl", "{\"price\": 1}").contains("line 1: it has neither"));
        assert!(refused("m.csv", "key,x\na,1\na,2\n").contains("line 3: \"a\" was there before"));
        assert!(refused("m.csv", "key,x\na\n").contains("line 2"));
    }
}
