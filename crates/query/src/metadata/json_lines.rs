//! Metadata as JSON lines: one object per line.

use semblance_embed::dataset::table::{json_entries, json_objects};
use semblance_index::MAX_METADATA_DEPTH;
use serde::de::Error;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::value::Cell;

/// A line: its number, from 1, and the entries of its object.
pub(super) type Line = (u64, Vec<(String, Cell)>);

/// Reads all lines that are not empty.
///
/// # Errors
/// The line and what is wrong with it.
pub(super) fn read(text: &str) -> Result<Vec<Line>, (u64, String)> {
    let objects = json_objects(text)?.into_iter();
    objects
        .map(|(line, entries)| {
            let cells = entries.into_iter().map(|(name, raw)| Ok((name, cell(raw.get())?)));
            let cells = cells.collect::<Result<_, serde_json::Error>>();
            Ok((line, cells.map_err(|e| (line, e.to_string()))?))
        })
        .collect()
}

/// Numbers stay as they are written.
fn cell(raw: &str) -> Result<Cell, serde_json::Error> {
    if is_number(raw) { Ok(Cell::Number(raw.to_owned())) } else { Ok(Cell::Other(nested(raw, 1)?)) }
}

fn is_number(raw: &str) -> bool {
    raw.starts_with('-') || raw.starts_with(|c: char| c.is_ascii_digit())
}

/// The value; within lists and objects, whole numbers of too many digits are text.
fn nested(raw: &str, depth: usize) -> Result<Value, serde_json::Error> {
    if depth > MAX_METADATA_DEPTH {
        return Err(Error::custom(format!(
            "lists and objects lie more than {MAX_METADATA_DEPTH} deep in each other"
        )));
    }
    if raw.starts_with('[') {
        let parts: Vec<&RawValue> = serde_json::from_str(raw)?;
        return parts.into_iter().map(|part| nested(part.get(), depth + 1)).collect();
    }
    if raw.starts_with('{') {
        let values =
            json_entries(raw)?.into_iter().map(|(name, part)| Ok((name, nested(part.get(), depth + 1)?)));
        return Ok(Value::Object(values.collect::<Result<Map<_, _>, serde_json::Error>>()?));
    }
    if !is_number(raw) {
        return serde_json::from_str(raw);
    }
    let number = super::value::number(raw, super::value::Source::Json);
    Ok(number.map_or_else(|_| Value::String(raw.to_owned()), Value::Number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_keep_every_digit_also_inside_of_lists() {
        let line = r#" {"a": 12345678901234567890103, "b": [1, 12345678901234567890103, {"c": 0.1}], "d": null, "e": "x"}"#;
        let read = read(line).unwrap();
        let of = |name: &str| read[0].1.iter().find(|(n, _)| n == name).unwrap().1.clone();
        assert_eq!(of("a"), Cell::Number("12345678901234567890103".into()));
        assert_eq!(of("b"), Cell::Other(json!([1, "12345678901234567890103", {"c": 0.1}])));
        assert_eq!((of("d"), of("e")), (Cell::Other(Value::Null), Cell::Other(json!("x"))));
    }

    #[test]
    fn faults_have_a_line() {
        let (line, what) = read("{\"a\": 1}\n\n{\"a\": 1, \"b\": 2, \"a\": 3}\n").unwrap_err();
        assert!(line == 3 && what.contains("\"a\" is there twice"), "{what}");
        for depth in [MAX_METADATA_DEPTH + 1, 200_000] {
            let deep = format!("{{\"a\": {}{}}}", "[".repeat(depth), "]".repeat(depth));
            assert!(read(&deep).unwrap_err().1.contains("deep in each other"));
        }
        let deep = "[".repeat(MAX_METADATA_DEPTH) + &"]".repeat(MAX_METADATA_DEPTH);
        assert!(read(&format!("{{\"a\": {deep}}}")).is_ok());
        assert!(read("[1]").unwrap_err().1.contains("no JSON object"));
        assert!(read("{\"a\": {\"b\": 1, \"b\": 2}}").unwrap_err().1.contains("twice"));
    }
}
