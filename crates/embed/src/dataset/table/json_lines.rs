//! JSON lines: one object per line, as data sets and metadata read them.

use std::collections::HashSet;
use std::fmt;
use std::path::Path;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::super::DatasetError;
use super::reader::{Row, Table};

/// An object: its line, from 1, and its entries in their order, as they are written.
pub type JsonObject<'t> = (u64, Vec<(String, &'t RawValue)>);

/// Whether a text is JSON lines: by the ending of its file (`.jsonl`, `.ndjson`, `.json`), or because it begins with `{`.
pub fn is_json_lines(file: &Path, text: &str) -> bool {
    let ending = file.extension().map(|e| e.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
    matches!(ending.as_str(), "jsonl" | "ndjson" | "json") || text.trim_start().starts_with('{')
}

/// Reads all lines that are not empty.
///
/// # Errors
/// The line and what is wrong with it.
pub fn json_objects(text: &str) -> Result<Vec<JsonObject<'_>>, (u64, String)> {
    let lines = text.lines().zip(1u64..).filter(|(text, _)| !text.trim().is_empty());
    lines
        .map(|(text, line)| {
            let entries = json_entries(text);
            entries.map(|entries| (line, entries)).map_err(|e| (line, not_an_object(&e)))
        })
        .collect()
}

/// The entries of one object in their order, none twice.
///
/// # Errors
/// What is wrong with it.
pub fn json_entries(text: &str) -> Result<Vec<(String, &RawValue)>, serde_json::Error> {
    serde_json::from_str::<Entries<'_>>(text).map(|entries| entries.0)
}

fn not_an_object(error: &serde_json::Error) -> String {
    format!("it is no JSON object (one per line is wanted): {error}")
}

/// The table that JSON lines make: a column for each name, in the order in which the names come up.
pub(super) fn table(file: &Path, text: &str) -> Result<Table, DatasetError> {
    let objects = json_objects(text).map_err(|(line, reason)| DatasetError::Malformed {
        path: file.to_path_buf(),
        line,
        reason,
    })?;
    let mut names: Vec<String> = Vec::new();
    let mut known = HashSet::new();
    for (name, _) in objects.iter().flat_map(|(_, entries)| entries) {
        if known.insert(name.as_str()) {
            names.push(name.clone());
        }
    }
    let row = |(line, entries): &JsonObject<'_>| {
        let mut fields = vec![String::new(); names.len()];
        for (name, value) in entries {
            if let Some(place) = names.iter().position(|known| known == name) {
                fields[place] = field(value);
            }
        }
        Row { line: *line, fields }
    };
    let mut rows: Vec<Row> = objects.iter().map(row).collect();
    if !rows.is_empty() {
        rows.insert(0, Row { line: 1, fields: names.iter().map(|name| name.trim().to_owned()).collect() });
    }
    Ok(Table { file: file.to_path_buf(), delimiter: ',', rows })
}

/// A value as a table has it: text without quotes, nothing for null, else as it is written.
fn field(value: &RawValue) -> String {
    match serde_json::from_str::<Option<String>>(value.get()) {
        Ok(text) => text.unwrap_or_default().trim().to_owned(),
        Err(_) => value.get().to_owned(),
    }
}

/// The entries of an object in their order, none twice.
struct Entries<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Entries<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntriesVisitor;
        impl<'de> Visitor<'de> for EntriesVisitor {
            type Value = Entries<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries: Vec<(String, &'de RawValue)> = Vec::new();
                let mut names = HashSet::new();
                while let Some((name, value)) = map.next_entry::<String, &'de RawValue>()? {
                    if !names.insert(name.clone()) {
                        return Err(A::Error::custom(format!("{name:?} is there twice")));
                    }
                    entries.push((name, value));
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(EntriesVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_rows_and_names_are_columns() {
        let text = "{\"path\": \"a.png\", \"class\": 7}\n\n{\"new\": true, \"path\": \" b.png \", \"class\": null}\n";
        let table = table(Path::new("x.jsonl"), text).unwrap();
        let rows: Vec<String> =
            table.rows.iter().map(|r| format!("{}:{}", r.line, r.fields.join("|"))).collect();
        assert_eq!(rows, ["1:path|class|new", "1:a.png|7|", "3:b.png||true"]);
        let error = super::table(Path::new("x.jsonl"), "{\"path\": \"a\"}\n[1]\n").unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains("no JSON object"), "{error}");
        assert!(
            is_json_lines(Path::new("x.txt"), " {\"path\": 1}")
                && !is_json_lines(Path::new("x.csv"), "path\n")
        );
    }
}
