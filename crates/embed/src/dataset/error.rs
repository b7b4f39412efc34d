//! What can be wrong with a data set.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

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
    #[error("{} holds no photographs (looked for files ending in {extensions} in it and all folders below)", path.display())]
    EmptyFolder {
        /// The folder.
        path: PathBuf,
        /// The endings recognised.
        extensions: String,
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
    /// Bytes that are not UTF-8 in a table.
    #[error("{}, line {line}: \"{value}\" is not UTF-8 text: save the table as UTF-8", path.display())]
    NotUtf8 {
        /// The table.
        path: PathBuf,
        /// Its line, from 1.
        line: u64,
        /// The value with the bad bytes replaced.
        value: String,
    },
    /// A file name that is not UTF-8, so it cannot be a key.
    #[error("the file name {} is not UTF-8 text: rename it", path.display())]
    NameNotUtf8 {
        /// The file.
        path: PathBuf,
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
    /// Classes that both the train and the test list of Stanford Online Products name.
    #[error(
        "{shared} classes are in both the train and the test list, where Stanford Online Products shares none"
    )]
    SopSharedClasses {
        /// How many.
        shared: usize,
    },
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
