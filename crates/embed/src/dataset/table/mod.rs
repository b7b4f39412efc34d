//! CSV and TSV tables and JSON lines: one row per photograph.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::file_finder::FileFinder;
use super::folder::is_image_name;
use super::inside::{Boundary, Fault, LINK_OUTSIDE};
use super::{Dataset, DatasetError, Sample, Split, display_name};

mod dialect;
mod encoding;
mod json_lines;
mod quotes;
mod reader;

pub use encoding::decode_text;
pub use json_lines::{JsonObject, is_json_lines, json_entries, json_objects};
pub use reader::{PATH_NAMES, Row, Table, column_name};

/// A column of a table, by its name in the header (in any case and Unicode form) or by its number.
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
    /// What stands between the fields, an ASCII character; `None` finds it out from the rows, or from a first line `sep=;`.
    pub delimiter: Option<char>,
    /// The folder the paths are relative to; `None` is the folder the table lies in.
    pub root: Option<PathBuf>,
}

const CLASS_NAMES: &[&str] =
    &["class", "label", "class_id", "class_name", "product", "product_id", "item_id", "fine", "target"];
const SUPER_CLASS_NAMES: &[&str] =
    &["super_class", "superclass", "super_class_id", "category", "category_id", "coarse", "group"];
const SPLIT_NAMES: &[&str] = &["split", "set", "subset", "partition"];

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
    let table = Table::read(file, config.delimiter)?;
    let root = config.root.clone().unwrap_or_else(|| match file.parent() {
        Some(folder) if folder != Path::new("") => folder.to_path_buf(),
        _ => PathBuf::from("."),
    });
    let mut boundary = Boundary::new(&root).map_err(|e| DatasetError::io(&root, e))?;
    let (layout, rows) = layout(&table, config)?;
    let mut finder = FileFinder::new(&root);
    let mut first_line: HashMap<String, u64> = HashMap::with_capacity(rows.len());
    let mut samples = Vec::with_capacity(rows.len());
    for row in rows {
        let sample = layout.sample(file, &mut finder, row)?;
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
    let respelled = finder.warning(file);
    let mut set = Dataset::new(root, display_name(file), samples);
    set.warnings.extend(respelled);
    Ok(set)
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
    fn sample(&self, file: &Path, finder: &mut FileFinder<'_>, row: &Row) -> Result<Sample, DatasetError> {
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
        let path = finder.find(listed, row.line).map_err(|fault| match fault {
            Fault::Empty => DatasetError::EmptyPath { path: file.to_path_buf(), line: row.line },
            Fault::Outside(reason) => outside(file, row.line, listed, finder.root(), reason),
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

fn layout<'r>(table: &'r Table, config: &TableConfig) -> Result<(Layout, &'r [Row]), DatasetError> {
    let file = &table.file;
    let Some(first) = table.rows.first() else {
        return Err(DatasetError::EmptyTable { path: file.clone() });
    };
    let wanted =
        [&config.path_column, &config.class_column, &config.super_class_column, &config.split_column];
    let by_name = wanted.iter().any(|c| matches!(c, Some(Column::Name(_))));
    let has_header = match config.header {
        Header::Yes => true,
        Header::No => false,
        Header::Auto => by_name || !first.fields.iter().any(|f| is_image_name(f)),
    };
    let rows = if has_header { table.below_header()? } else { &table.rows };
    let names: Vec<String> = first.fields.iter().map(|name| column_name(name)).collect();
    let find = |name: &str| -> Result<Option<usize>, DatasetError> {
        let mut places = (0..names.len()).filter(|&place| names[place] == column_name(name));
        match (places.next(), places.next()) {
            (Some(_), Some(_)) => {
                Err(DatasetError::DuplicateColumn { path: file.clone(), column: name.to_owned() })
            }
            (place, _) => Ok(place),
        }
    };
    let place =
        |column: &Option<Column>, usual: &[&str], default: usize| -> Result<Option<usize>, DatasetError> {
            match column {
                Some(Column::Number(number)) if (1..=names.len()).contains(number) => Ok(Some(number - 1)),
                Some(Column::Name(name)) if !has_header => {
                    Err(DatasetError::NoHeader { path: file.clone(), column: name.clone() })
                }
                Some(Column::Name(name)) if find(name)?.is_some() => find(name),
                Some(column) => Err(missing(file, column.to_string(), first, has_header)),
                None if has_header => usual.iter().find_map(|name| find(name).transpose()).transpose(),
                None => Ok((default < names.len()).then_some(default)),
            }
        };
    let path = place(&config.path_column, PATH_NAMES, 0)?;
    let path =
        path.ok_or_else(|| missing(file, format!("for the path ({})", PATH_NAMES.join(", ")), first, true))?;
    if !has_header && config.path_column.is_none() && !is_image_name(&first.fields[path]) {
        let elsewhere = first.fields.iter().position(|field| is_image_name(field));
        if let Some(elsewhere) = elsewhere {
            return Err(DatasetError::PathElsewhere {
                path: file.clone(),
                line: first.line,
                value: first.fields[path].clone(),
                column: elsewhere + 1,
                delimiter: text_of_delimiter(table.delimiter),
            });
        }
    }
    let class = place(&config.class_column, CLASS_NAMES, 1)?;
    let super_class = place(&config.super_class_column, SUPER_CLASS_NAMES, 2)?;
    let split = place(&config.split_column, SPLIT_NAMES, usize::MAX)?;
    Ok((Layout { path, class, super_class, split }, rows))
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

/// A delimiter as messages name it.
fn text_of_delimiter(delimiter: char) -> &'static str {
    match delimiter {
        ',' => "commas",
        ';' => "semicolons",
        '\t' => "tabs",
        '|' => "bars",
        ' ' => "spaces",
        _ => "delimiters",
    }
}

#[cfg(test)]
mod tests;
