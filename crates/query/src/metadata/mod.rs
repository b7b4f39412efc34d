//! What is known of a catalogue's pictures beside their class, from a file: typed values that filters can ask for.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use semblance_embed::dataset::table::{PATH_NAMES, Table, column_name, decode_text, is_json_lines};
use semblance_embed::dataset::{Dataset, DatasetError, KeyLookup, Sample};
use semblance_index::Filter;
use serde::Serialize;
use serde_json::{Map, Value};
use unicode_normalization::UnicodeNormalization;

use crate::error::{QueryError, Result};

mod json_lines;
mod value;

use value::{Cell, Source};

pub use value::FieldRemark;

/// Metadata by key of the picture.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata(HashMap<String, Map<String, Value>>);

/// How the rows of a file of metadata fit the pictures of a data set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MetadataSummary {
    /// The file.
    pub file: String,
    /// Its rows.
    pub rows: usize,
    /// Rows that belong to no picture.
    pub unmatched: usize,
    /// Their keys as written, up to 100.
    pub unmatched_keys: Vec<String>,
    /// A key that the data set has, to compare with.
    pub key_example: String,
    /// Pictures without a row.
    pub without_row: usize,
    /// Fields whose values are not numbers though they look like it, or whose name means another field in a filter.
    pub remarks: Vec<FieldRemark>,
}

/// A row: its line, the picture it names, its other entries.
struct Row {
    line: u64,
    key: String,
    entries: Vec<(String, Value)>,
}

impl Metadata {
    /// Reads what a file knows of the pictures of `dataset`: JSON lines (`.jsonl`, `.ndjson`, `.json`: one object per line)
    /// or a table with a header (anything else, read as a data set's table is). A column or entry `key`, or one with a usual
    /// name of the path's column, says whose the others are; any way to write a key that names the picture's file will do
    /// ([`KeyLookup`]). In a table what reads as a number is one if no value of its column would lose digits, `true` and
    /// `false` are truth values, other values are text, empty ones are left out. Names and texts are composed (NFC).
    ///
    /// # Errors
    /// [`QueryError::Metadata`] with the file and the line, [`QueryError::Table`] for a table that cannot be read, and
    /// [`QueryError::MetadataUnmatched`] if not one row belongs to a picture.
    pub fn read(path: &Path, dataset: &Dataset) -> Result<(Self, MetadataSummary)> {
        let (rows, remarks) = rows(path)?;
        let folder = path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
        let mut lookup = KeyLookup::new(dataset, folder);
        let key_example = dataset.samples.first().map(|sample| sample.key()).unwrap_or_default();
        let mut summary = MetadataSummary {
            file: path.display().to_string(),
            rows: rows.len(),
            unmatched: 0,
            unmatched_keys: Vec::new(),
            key_example,
            without_row: 0,
            remarks,
        };
        let mut first_lines = HashMap::<usize, u64>::new();
        let mut all = HashMap::new();
        let mut shadowed = BTreeMap::new();
        for Row { line, key, entries } in rows {
            let Some(place) = lookup.find(&key) else {
                summary.unmatched += 1;
                if summary.unmatched_keys.len() < 100 {
                    summary.unmatched_keys.push(key);
                }
                continue;
            };
            if let Some(first) = first_lines.insert(place, line) {
                let what = format!("{key:?} is the picture of line {first}, too");
                return Err(QueryError::Metadata { path: path.to_owned(), line, what });
            }
            let sample = &dataset.samples[place];
            for (name, value) in &entries {
                if !shadowed.contains_key(name)
                    && let Some(remark) = shadowed_remark(sample, name, value, line)
                {
                    shadowed.insert(name.clone(), remark);
                }
            }
            all.insert(sample.key(), entries.into_iter().collect());
        }
        summary.remarks.extend(shadowed.into_values());
        summary.without_row = dataset.len() - all.len();
        if all.is_empty() {
            return Err(QueryError::MetadataUnmatched {
                path: path.to_owned(),
                rows: summary.rows,
                example: summary.unmatched_keys.first().cloned().unwrap_or_default(),
                key_example: summary.key_example,
            });
        }
        Ok((Self(all), summary))
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

/// What to say of an entry whose name means the item's own field in a filter, unless both say the same of the picture.
fn shadowed_remark(sample: &Sample, name: &str, value: &Value, line: u64) -> Option<FieldRemark> {
    let field = Filter::metadata_field(name);
    let own = match name {
        "class" => sample.class.as_deref(),
        "super_class" => sample.super_class.as_deref(),
        _ => None,
    };
    let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    if field == name || own == Some(value.as_str()) {
        return None;
    }
    let remark = format!(
        "is not what {name:?} means in a filter, which is the item's own field: write {field:?} there, or rename it"
    );
    Some(FieldRemark { field: name.to_owned(), line, value, remark })
}

fn rows(path: &Path) -> Result<(Vec<Row>, Vec<FieldRemark>)> {
    let bad = |line: u64, what: String| QueryError::Metadata { path: path.to_owned(), line, what };
    let bytes = fs::read(path).map_err(|e| bad(0, e.to_string()))?;
    let text = decode_text(path, &bytes)?;
    let (lines, source) = if is_json_lines(path, &text) {
        (json_lines::read(&text).map_err(|(line, what)| bad(line, what))?, Source::Json)
    } else {
        (table(path)?, Source::Table)
    };
    let mut keys = Vec::with_capacity(lines.len());
    let mut first_lines = HashMap::<String, u64>::with_capacity(lines.len());
    let mut rest = Vec::with_capacity(lines.len());
    for (line, mut entries) in lines {
        let names: Vec<&str> = entries.iter().map(|(name, _)| name.as_str()).collect();
        let place = key_place(&names).ok_or_else(|| bad(line, no_key(&names)))?;
        let key = match entries.remove(place).1 {
            Cell::Number(token) | Cell::Other(Value::String(token)) => token,
            Cell::Other(other) => return Err(bad(line, format!("its key is {other}, and not a path"))),
        };
        if let Some(first) = first_lines.insert(key.clone(), line) {
            return Err(bad(line, format!("{key:?} was there before, in line {first}")));
        }
        keys.push((line, key));
        rest.push((line, entries.into_iter().map(|(name, cell)| (name.nfc().collect(), cell)).collect()));
    }
    if keys.is_empty() {
        return Err(bad(0, "it has no rows".to_owned()));
    }
    let (values, remarks) = value::settle(rest, source);
    let rows = keys.into_iter().zip(values).map(|((line, key), entries)| Row { line, key, entries });
    Ok((rows.collect(), remarks))
}

/// The rows of a table as entries, the key's even if it is empty.
fn table(path: &Path) -> Result<Vec<json_lines::Line>> {
    let table = Table::read(path, None)?;
    let bad = |line: u64, what: String| QueryError::Metadata { path: path.to_owned(), line, what };
    let Some(header) = table.rows.first() else { return Err(bad(0, "it is empty".to_owned())) };
    let names: Vec<&str> = header.fields.iter().map(String::as_str).collect();
    let key = key_place(&names).ok_or_else(|| bad(header.line, no_key(&names)))?;
    for (place, name) in names.iter().enumerate() {
        if !name.is_empty() && names[..place].contains(name) {
            return Err(DatasetError::DuplicateColumn { path: path.into(), column: (*name).into() }.into());
        }
    }
    let named = names.iter().rposition(|name| !name.is_empty()).map_or(0, |last| last + 1);
    let rows = table.below_header()?;
    rows.iter()
        .map(|row| {
            if row.fields.len() < named {
                let what = format!("{} fields, but the header has {named}", row.fields.len());
                return Err(bad(row.line, what));
            }
            if row.fields[key].is_empty() {
                return Err(bad(row.line, format!("the column {:?} is empty", names[key])));
            }
            let cell = |(place, text): (usize, &String)| match names.get(place) {
                // A path may look like a number.
                Some(name) if place == key => {
                    Some(((*name).to_owned(), Cell::Other(Value::String(text.clone()))))
                }
                // Columns without a name are those that programs number rows in.
                Some(name) if !name.is_empty() && !text.is_empty() => {
                    Some(((*name).to_owned(), value::of_text(text)))
                }
                _ => None,
            };
            Ok((row.line, row.fields.iter().enumerate().filter_map(cell).collect()))
        })
        .collect()
}

/// Which of the names is the key's: `key`, or a usual name of a path's column.
fn key_place(names: &[&str]) -> Option<usize> {
    let names: Vec<String> = names.iter().map(|name| column_name(name)).collect();
    ["key"].iter().chain(PATH_NAMES).find_map(|wanted| names.iter().position(|name| name == wanted))
}

fn no_key(names: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
    format!(
        "it has neither \"key\" nor \"path\" nor another usual name for the picture's path; it has {}",
        names.join(", ")
    )
}

#[cfg(test)]
mod tests;
