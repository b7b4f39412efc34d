//! CSV and TSV tables: one row a photograph.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::folder::is_image_name;
use super::inside::{Boundary, Fault, LINK_OUTSIDE, normalise};
use super::{Dataset, DatasetError, Sample, Split, display_name};

/// A column of a table, by its name in the header (in any case) or by its number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Column {
    /// The column's number; the first is 1, as in `cut` and `awk`.
    Number(usize),
    /// The column's name.
    Name(String),
}

impl From<&str> for Column {
    /// Digits are a number, everything else is a name.
    fn from(text: &str) -> Self {
        text.trim().parse().map_or_else(|_| Self::Name(text.trim().to_owned()), Self::Number)
    }
}

impl std::fmt::Display for Column {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Name(name) => write!(f, "\"{name}\""),
        }
    }
}

/// Whether the first row names the columns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Header {
    /// There is a header if a column is asked for by name, or if no field of the first row ends like a picture's name.
    #[default]
    Auto,
    /// There is one.
    Yes,
    /// There is none.
    No,
}

/// How to read a table.
///
/// A column that is `None` is found by itself: with a header by its usual names (`path`, `file`, `filename`, `image`, …;
/// `class`, `label`, `product`, …; `super_class`, `category`, …; `split`), without one by its place: path, class, super
/// class. Values are trimmed; an empty class, super class or split means none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TableConfig {
    /// Where the photograph's path stands.
    pub path_column: Option<Column>,
    /// Where the class stands.
    pub class_column: Option<Column>,
    /// Where the super class stands.
    pub super_class_column: Option<Column>,
    /// Where the split stands.
    pub split_column: Option<Column>,
    /// Whether the first row names the columns.
    pub header: Header,
    /// What stands between the fields; `None` takes the first of tab, comma, semicolon and space found in the first line.
    pub delimiter: Option<char>,
    /// The folder the paths are relative to; `None` is the folder the table lies in.
    pub root: Option<PathBuf>,
}

const PATH_NAMES: &[&str] = &[
    "path",
    "file",
    "filename",
    "file_name",
    "filepath",
    "file_path",
    "image",
    "image_path",
    "image_file",
    "photo",
];
const CLASS_NAMES: &[&str] =
    &["class", "label", "class_id", "class_name", "product", "product_id", "item_id", "fine", "target"];
const SUPER_CLASS_NAMES: &[&str] =
    &["super_class", "superclass", "super_class_id", "category", "category_id", "coarse", "group"];
const SPLIT_NAMES: &[&str] = &["split", "set", "subset", "partition"];

struct Row {
    line: u64,
    fields: Vec<String>,
}

/// The places (from 0) of the columns.
struct Layout {
    path: usize,
    class: Option<usize>,
    super_class: Option<usize>,
    split: Option<usize>,
}

pub(super) fn open(
    file: &Path,
    config: &TableConfig,
    follow_outside_links: bool,
) -> Result<Dataset, DatasetError> {
    let bytes = std::fs::read(file).map_err(|e| DatasetError::io(file, e))?;
    let rows = parse(file, &bytes, config.delimiter)?;
    let root = config.root.clone().unwrap_or_else(|| match file.parent() {
        Some(folder) if folder != Path::new("") => folder.to_path_buf(),
        _ => PathBuf::from("."),
    });
    let mut boundary = Boundary::new(&root).map_err(|e| DatasetError::io(&root, e))?;
    let (layout, rows) = layout(file, &rows, config)?;
    let mut first_line: HashMap<String, u64> = HashMap::with_capacity(rows.len());
    let mut samples = Vec::with_capacity(rows.len());
    for row in rows {
        let sample = layout.sample(file, &root, row)?;
        let key = sample.key();
        if !follow_outside_links && !boundary.contains(&root.join(&sample.path)) {
            return Err(outside(file, row.line, &key, &root, LINK_OUTSIDE));
        }
        if let Some(&first) = first_line.get(&key) {
            return Err(DatasetError::Duplicate {
                path: file.to_path_buf(),
                line: row.line,
                value: key,
                first,
            });
        }
        first_line.insert(key, row.line);
        samples.push(sample);
    }
    if samples.is_empty() {
        return Err(DatasetError::EmptyTable { path: file.to_path_buf() });
    }
    Ok(Dataset::new(root, display_name(file), samples))
}

fn outside(file: &Path, line: u64, value: &str, root: &Path, reason: &'static str) -> DatasetError {
    DatasetError::Outside {
        path: file.to_path_buf(),
        line: Some(line),
        value: value.to_owned(),
        root: root.to_path_buf(),
        reason,
    }
}

impl Layout {
    fn sample(&self, file: &Path, root: &Path, row: &Row) -> Result<Sample, DatasetError> {
        let field = |place: usize| {
            row.fields.get(place).map(String::as_str).ok_or_else(|| DatasetError::ShortRow {
                path: file.to_path_buf(),
                line: row.line,
                fields: row.fields.len(),
                column: (place + 1).to_string(),
            })
        };
        let optional = |place: Option<usize>| match place.map(field) {
            None => Ok(None),
            Some(Ok("")) => Ok(None),
            Some(Ok(text)) => Ok(Some(text.to_owned())),
            Some(Err(error)) => Err(error),
        };
        let listed = field(self.path)?;
        let path = normalise(listed).map_err(|fault| match fault {
            Fault::Empty => DatasetError::EmptyPath { path: file.to_path_buf(), line: row.line },
            Fault::Outside(reason) => outside(file, row.line, listed, root, reason),
        })?;
        let split = match optional(self.split)? {
            None => None,
            Some(value) => Some(Split::parse(&value).ok_or_else(|| DatasetError::UnknownSplit {
                path: file.to_path_buf(),
                line: row.line,
                value,
            })?),
        };
        Ok(Sample {
            path: path.into(),
            class: optional(self.class)?,
            super_class: optional(self.super_class)?,
            split,
        })
    }
}

fn layout<'r>(
    file: &Path,
    rows: &'r [Row],
    config: &TableConfig,
) -> Result<(Layout, &'r [Row]), DatasetError> {
    let Some(first) = rows.first() else {
        return Err(DatasetError::EmptyTable { path: file.to_path_buf() });
    };
    let wanted =
        [&config.path_column, &config.class_column, &config.super_class_column, &config.split_column];
    let by_name = wanted.iter().any(|c| matches!(c, Some(Column::Name(_))));
    let has_header = match config.header {
        Header::Yes => true,
        Header::No => false,
        Header::Auto => by_name || !first.fields.iter().any(|f| is_image_name(f)),
    };
    let place = |column: &Option<Column>,
                 names: &[&str],
                 default: usize|
     -> Result<Option<usize>, DatasetError> {
        let find = |name: &str| first.fields.iter().position(|f| f.eq_ignore_ascii_case(name));
        match column {
            Some(Column::Number(number)) if (1..=first.fields.len()).contains(number) => Ok(Some(number - 1)),
            Some(Column::Name(name)) if !has_header => {
                Err(DatasetError::NoHeader { path: file.to_path_buf(), column: name.clone() })
            }
            Some(Column::Name(name)) if find(name).is_some() => Ok(find(name)),
            Some(column) => Err(missing(file, column.to_string(), first, has_header)),
            None if has_header => Ok(names.iter().find_map(|name| find(name))),
            None => Ok((default < first.fields.len()).then_some(default)),
        }
    };
    let path = place(&config.path_column, PATH_NAMES, 0)?;
    let path =
        path.ok_or_else(|| missing(file, format!("for the path ({})", PATH_NAMES.join(", ")), first, true))?;
    let class = place(&config.class_column, CLASS_NAMES, 1)?;
    let super_class = place(&config.super_class_column, SUPER_CLASS_NAMES, 2)?;
    let split = place(&config.split_column, SPLIT_NAMES, usize::MAX)?;
    let layout = Layout { path, class, super_class, split };
    Ok((layout, &rows[usize::from(has_header)..]))
}

fn missing(file: &Path, column: String, first: &Row, has_header: bool) -> DatasetError {
    let numbered = |(i, name): (usize, &String)| format!("{}: \"{name}\"", i + 1);
    let present = if has_header {
        first.fields.iter().enumerate().map(numbered).collect()
    } else {
        (1..=first.fields.len()).map(|n| n.to_string()).collect()
    };
    DatasetError::MissingColumn { path: file.to_path_buf(), column, present }
}

/// All rows with their line numbers, values trimmed.
fn parse(file: &Path, bytes: &[u8], delimiter: Option<char>) -> Result<Vec<Row>, DatasetError> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let delimiter = delimiter.and_then(|d| u8::try_from(d).ok()).unwrap_or_else(|| guess_delimiter(bytes));
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(delimiter)
        .trim(csv::Trim::All)
        .from_reader(bytes);
    let mut record = csv::ByteRecord::new();
    let mut rows = Vec::new();
    loop {
        let start = reader.position().clone();
        // The parser skips blank lines after taking its position.
        let skipped = &bytes[(start.byte() as usize).min(bytes.len())..];
        let blank =
            skipped.iter().take_while(|b| matches!(b, b'\r' | b'\n')).filter(|&&b| b == b'\n').count();
        let line = start.line() + blank as u64;
        let more = reader.read_byte_record(&mut record).map_err(|e| DatasetError::Malformed {
            path: file.to_path_buf(),
            line,
            reason: e.to_string(),
        })?;
        if !more {
            return Ok(rows);
        }
        let text = |field: &[u8]| match std::str::from_utf8(field) {
            Ok(text) => Ok(unquote(text.trim()).to_owned()),
            Err(_) => Err(DatasetError::NotUtf8 {
                path: file.to_path_buf(),
                line,
                value: String::from_utf8_lossy(field).into_owned(),
            }),
        };
        let fields = record.iter().map(text).collect::<Result<Vec<_>, _>>()?;
        if fields.iter().any(|f| !f.is_empty()) {
            rows.push(Row { line, fields });
        } else if fields.len() > 1 {
            return Err(DatasetError::EmptyPath { path: file.to_path_buf(), line });
        }
    }
}

/// `a, "b"` has a space before the quote, so the parser takes the quotes for part of the value.
fn unquote(text: &str) -> &str {
    text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).unwrap_or(text)
}

fn guess_delimiter(bytes: &[u8]) -> u8 {
    let first = bytes.split(|&b| b == b'\n').find(|line| !line.trim_ascii().is_empty()).unwrap_or_default();
    let first = first.trim_ascii();
    if let Some(&found) = b"\t,;".iter().find(|d| first.contains(d)) {
        return found;
    }
    // `n01/1.jpg 7` is two fields, `my photos/1.jpg` is one.
    let one_path = is_image_name(&String::from_utf8_lossy(first));
    if first.contains(&b' ') && !one_path { b' ' } else { b',' }
}

#[cfg(test)]
mod tests;
