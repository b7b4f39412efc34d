//! What can be wrong with a data set.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization;

use super::left_out::LeftOut;

/// Why a data set cannot be read. Every message names the file, and for tables the line and the value.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatasetError {
    /// The operating system refused.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A folder was wanted.
    #[error("{} is a file, not a folder: choose the table format for lists", path.display())]
    NotAFolder {
        /// The path given.
        path: PathBuf,
    },
    /// There is no photograph in the folder or below it.
    #[error("{} holds no photographs, nor does any folder below it{}", path.display(), notes(left_out))]
    EmptyFolder {
        /// The folder.
        path: PathBuf,
        /// What there is instead.
        left_out: Vec<LeftOut>,
    },
    /// A folder without the lists of Stanford Online Products.
    #[error("{} has no list for this split: Stanford Online Products comes with {lists}", path.display())]
    NoList {
        /// The folder.
        path: PathBuf,
        /// The lists there can be.
        lists: &'static str,
    },
    /// A table without a single row.
    #[error("{} lists no photographs", path.display())]
    EmptyTable {
        /// The table.
        path: PathBuf,
    },
    /// A column was asked for that the table has not.
    #[error("{}: no column {column}; the table has {}", path.display(), list(present))]
    MissingColumn {
        /// The table.
        path: PathBuf,
        /// The column wanted.
        column: String,
        /// The columns there are.
        present: Vec<String>,
    },
    /// A column was asked for by name, but the table was said or found to have no header.
    #[error("{}: column \"{column}\" was asked for by name, but the table has no header: use its number, counted from 1", path.display())]
    NoHeader {
        /// The table.
        path: PathBuf,
        /// The name wanted.
        column: String,
    },
    /// A row that ends too early.
    #[error("{}, line {line}: {fields} field(s), but column {column} was wanted", path.display())]
    ShortRow {
        /// The table.
        path: PathBuf,
        /// Its line, from 1.
        line: u64,
        /// The number of fields in it.
        fields: usize,
        /// The column wanted.
        column: String,
    },
    /// A row that is not CSV.
    #[error("{}, line {line}: {reason}", path.display())]
    Malformed {
        /// The table.
        path: PathBuf,
        /// Its line, from 1.
        line: u64,
        /// What the parser said.
        reason: String,
    },
    /// A quoted field that does not end where it should, and takes later rows with it.
    #[error(
        "{}, line {line}: the quoted field that opens here {reason}: close the quote, and double quotes that belong to the \
         text (\"\")", path.display()
    )]
    OpenQuote {
        /// The table.
        path: PathBuf,
        /// The line, from 1, in which the field opens.
        line: u64,
        /// What the field does.
        reason: String,
    },
    /// A row with another number of fields than the first.
    #[error(
        "{}, line {line}: {fields} fields, split at {delimiter}, but line {first} has {columns}: put fields that hold \
         {delimiter} in double quotes, or separate the fields by another character", path.display()
    )]
    FieldCount {
        /// The table.
        path: PathBuf,
        /// Its line, from 1.
        line: u64,
        /// The number of fields in it.
        fields: usize,
        /// The first row's line.
        first: u64,
        /// The number of columns.
        columns: usize,
        /// What stands between the fields.
        delimiter: &'static str,
    },
    /// Two columns of one name, of which one is wanted.
    #[error("{}: two columns are called \"{column}\": rename one, or give the column's number", path.display())]
    DuplicateColumn {
        /// The table.
        path: PathBuf,
        /// Their name.
        column: String,
    },
    /// A table without header whose first column is not the path.
    #[error(
        "{}, line {line}: \"{value}\" in column 1 is not the name of a picture, but column {column} has one: say which \
         column is the path, or, if the fields were split wrongly (at {delimiter}), put the path in double quotes",
        path.display()
    )]
    PathElsewhere {
        /// The table.
        path: PathBuf,
        /// Its line, from 1.
        line: u64,
        /// The first column's value.
        value: String,
        /// The column, from 1, that has a picture's name.
        column: usize,
        /// What stands between the fields.
        delimiter: &'static str,
    },
    /// Bytes that are not UTF-8 in a table.
    #[error(
        "{}, line {line}: not UTF-8 text (as Latin-1 it reads \"{value}\"): save the table as UTF-8", path.display()
    )]
    NotUtf8 {
        /// The table.
        path: PathBuf,
        /// Its line, from 1.
        line: u64,
        /// The line's text, read as Latin-1.
        value: String,
    },
    /// A file that is no text in a known encoding.
    #[error("{} is {what}", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
        /// What it is, and what to do.
        what: &'static str,
    },
    /// A row without a path.
    #[error("{}, line {line}: the path is empty", path.display())]
    EmptyPath {
        /// The table.
        path: PathBuf,
        /// Its line, from 1.
        line: u64,
    },
    /// A path that leads out of the root folder.
    #[error("{}: \"{value}\" leads out of {}: {reason}", at(path, *line), root.display())]
    Outside {
        /// The table, or the folder that was walked.
        path: PathBuf,
        /// The line of the table, from 1; `None` for folders.
        line: Option<u64>,
        /// The path as listed.
        value: String,
        /// The folder that must not be left.
        root: PathBuf,
        /// How it is left.
        reason: &'static str,
    },
    /// The same photograph twice.
    #[error("{}, line {line}: \"{value}\" is already listed in line {first}", path.display())]
    Duplicate {
        /// The table.
        path: PathBuf,
        /// Its line, from 1.
        line: u64,
        /// The path listed.
        value: String,
        /// The line it was listed in first.
        first: u64,
    },
    /// The same photograph in two lists that are read together.
    #[error("\"{value}\" is listed both in {} and in {}", first.display(), second.display())]
    DuplicateAcross {
        /// The path listed.
        value: String,
        /// The first list.
        first: PathBuf,
        /// The second list.
        second: PathBuf,
    },
    /// A split that is none.
    #[error("{}, line {line}: split \"{value}\" is none of train, val, valid, validation, test", path.display())]
    UnknownSplit {
        /// The table.
        path: PathBuf,
        /// Its line, from 1.
        line: u64,
        /// The value.
        value: String,
    },
}

impl DatasetError {
    pub(super) fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.to_path_buf(), source }
    }
}

/// Something odd about a data set that does not stop anyone from using it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum DatasetWarning {
    /// A list named as one of Stanford Online Products, but of another size than the published one.
    #[error(
        "{}: {images} images of {classes} classes, where Stanford Online Products has {expected_images} of \
         {expected_classes}: results cannot be compared with published ones", path.display()
    )]
    SopCounts {
        /// The list.
        path: PathBuf,
        /// Images found.
        images: usize,
        /// Classes found.
        classes: usize,
        /// Images in the published list.
        expected_images: usize,
        /// Classes in the published list.
        expected_classes: usize,
    },
    /// Paths that name no file as they are listed, but do so when read in another way.
    #[error(
        "{}: {count} paths were found under another spelling than listed, such as \"{}\" in line {line}, which is {}",
        table.display(), distinct(listed, found), distinct(found, listed)
    )]
    Respelled {
        /// The table.
        table: PathBuf,
        /// How many.
        count: usize,
        /// The line, from 1, of the first one.
        line: u64,
        /// The path it lists.
        listed: String,
        /// The file found.
        found: String,
    },
    /// Classes whose names differ in their Unicode form only.
    #[error(
        "the class {class} is written in {} Unicode forms ({}): they are taken for one class",
        forms.len(), forms.iter().map(|form| escaped(form)).collect::<Vec<_>>().join(", ")
    )]
    UnicodeForms {
        /// The class, composed.
        class: String,
        /// The forms found.
        forms: Vec<String>,
    },
    /// Classes that both the train and the test list of Stanford Online Products name.
    #[error(
        "{shared} classes are in both the train and the test list, where Stanford Online Products shares none"
    )]
    SopSharedClasses {
        /// How many.
        shared: usize,
    },
}

/// A text; with its combining marks as code points if it would look like the other one without.
fn distinct(text: &str, other: &str) -> String {
    if text.nfc().eq(other.nfc()) { escaped(text) } else { text.to_owned() }
}

/// Text with its combining marks as code points, so that two forms look different.
fn escaped(text: &str) -> String {
    text.chars().flat_map(char::escape_debug).collect()
}

/// The first few groups, as a remark in brackets.
fn notes(left_out: &[LeftOut]) -> String {
    let notes: Vec<String> = left_out.iter().take(5).map(LeftOut::to_string).collect();
    if notes.is_empty() { String::new() } else { format!(" ({})", notes.join("; ")) }
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn at(path: &Path, line: Option<u64>) -> String {
    match line {
        Some(line) => format!("{}, line {line}", path.display()),
        None => path.display().to_string(),
    }
}
