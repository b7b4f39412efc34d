//! The rows of a delimited table, as data sets and metadata read it.

use std::path::{Path, PathBuf};

use unicode_normalization::UnicodeNormalization;

use super::super::DatasetError;
use super::super::folder::is_image_name;
use super::encoding::{decode_text, line_breaks};
use super::quotes::{self, QuoteFault};
use super::{dialect, json_lines, text_of_delimiter};

/// Usual names of the column with a picture's path, as [`column_name`] makes them.
pub const PATH_NAMES: &[&str] = &[
    "path",
    "file",
    "filename",
    "file_name",
    "filepath",
    "file_path",
    "image",
    "image_path",
    "image_file",
    "image_name",
    "img",
    "img_path",
    "photo",
    "photo_path",
    "picture",
    "key",
];

/// A row of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The line, from 1, in which it begins.
    pub line: u64,
    /// Its values, trimmed.
    pub fields: Vec<String>,
}

/// A table: CSV, TSV, with semicolons, bars or spaces, or JSON lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// The file it was read from.
    pub file: PathBuf,
    /// What stands between the fields.
    pub delimiter: char,
    /// All rows that have a value, a header among them. None has more values than the first.
    pub rows: Vec<Row>,
}

impl Table {
    /// Reads a whole table. JSON lines become rows below a header of their names. The text of other tables may be UTF-8 or UTF-16, begin with a byte order mark and a line `sep=;`; lines end in
    /// any usual way; rows without any value are passed over. `delimiter` is guessed if it is `None`, quotes considered.
    ///
    /// # Errors
    /// [`DatasetError`] with file and line for bytes that are no text, quotes that are not balanced, and rows with more
    /// fields than the first row has.
    pub fn read(file: &Path, delimiter: Option<char>) -> Result<Self, DatasetError> {
        let bytes = std::fs::read(file).map_err(|e| DatasetError::io(file, e))?;
        let text = decode_text(file, &bytes)?;
        if json_lines::is_json_lines(file, &text) {
            return json_lines::table(file, &text);
        }
        let (skipped, announced) = dialect::sep_line(&text).map_or((0, None), |(n, d)| (n, Some(d)));
        let (text, first_line) = (&text[skipped..], 1);
        let chosen = delimiter.and_then(|d| u8::try_from(d).ok()).or(announced);
        let delimiter = chosen.unwrap_or_else(|| dialect::guess(text, PATH_NAMES));
        let open_quote = |fault: QuoteFault| DatasetError::OpenQuote {
            path: file.to_path_buf(),
            line: fault.line,
            reason: fault.reason,
        };
        let long = quotes::scan(text.as_bytes(), delimiter).map_err(open_quote)?;
        let rows = rows(file, text, delimiter, first_line)?;
        let first = rows.first().map_or(&[][..], |first: &Row| &first.fields);
        let used = first.iter().rposition(|field| !field.is_empty()).map_or(0, |last| last + 1);
        let (columns, delimiter) = (used..=first.len(), char::from(delimiter));
        for field in &long {
            if let Some(fault) = field.swallowed_rows(text, delimiter, columns.clone(), is_image_name) {
                return Err(open_quote(fault));
            }
        }
        let table = Self { file: file.to_path_buf(), delimiter, rows };
        table.check_widths(|row, next| {
            long.iter().map(|field| field.line(text.as_bytes())).find(|line| (row..next).contains(line))
        })?;
        Ok(table)
    }

    /// Refuses rows with more fields than the first; where spaces delimit, also those with fewer. `long` finds the line of
    /// a field with line breaks in a row, which is then the likelier fault.
    fn check_widths(&self, long: impl Fn(u64, u64) -> Option<u64>) -> Result<(), DatasetError> {
        let Some(first) = self.rows.first() else { return Ok(()) };
        let columns = first.fields.len();
        let next = self.rows.iter().skip(1).map(|row| row.line).chain([u64::MAX]);
        for (row, next) in self.rows.iter().zip(next) {
            let used = row.fields.iter().rposition(|f| !f.is_empty()).map_or(0, |last| last + 1);
            if used <= columns && (self.delimiter != ' ' || row.fields.len() >= columns) {
                continue;
            }
            if let Some(line) = long(row.line, next) {
                let reason = "holds line breaks, and its row has more fields than the table has columns";
                return Err(DatasetError::OpenQuote { path: self.file.clone(), line, reason: reason.into() });
            }
            return Err(self.field_count(row, columns));
        }
        Ok(())
    }

    /// The rows below the header, after refusing those with values to the right of the last column that has a name.
    ///
    /// # Errors
    /// [`DatasetError::FieldCount`].
    pub fn below_header(&self) -> Result<&[Row], DatasetError> {
        let Some((header, rows)) = self.rows.split_first() else { return Ok(&[]) };
        let named = header.fields.iter().rposition(|name| !name.is_empty()).map_or(0, |last| last + 1);
        match rows.iter().find(|row| row.fields.iter().skip(named).any(|field| !field.is_empty())) {
            Some(row) => Err(self.field_count(row, named)),
            None => Ok(rows),
        }
    }

    fn field_count(&self, row: &Row, columns: usize) -> DatasetError {
        DatasetError::FieldCount {
            path: self.file.clone(),
            line: row.line,
            fields: row.fields.len(),
            first: self.rows.first().map_or(1, |first| first.line),
            columns,
            delimiter: text_of_delimiter(self.delimiter),
        }
    }
}

fn rows(file: &Path, text: &str, delimiter: u8, first_line: u64) -> Result<Vec<Row>, DatasetError> {
    let bytes = text.as_bytes();
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(delimiter)
        .trim(csv::Trim::All)
        .from_reader(bytes);
    let mut record = csv::StringRecord::new();
    let mut rows: Vec<Row> = Vec::new();
    let (mut counted, mut line) = (0, first_line);
    loop {
        let start = (reader.position().byte() as usize).min(bytes.len());
        // The parser skips blank lines after taking its position.
        let start = start + bytes[start..].iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
        line += line_breaks(&bytes[counted..start]);
        counted = start;
        let more = reader.read_record(&mut record).map_err(|e| DatasetError::Malformed {
            path: file.to_path_buf(),
            line,
            reason: e.to_string(),
        })?;
        if !more {
            return Ok(rows);
        }
        let mut fields: Vec<String> = record.iter().map(|f| unquote(f.trim()).to_owned()).collect();
        if let Some(last) = fields.iter().rposition(|f| !f.is_empty()) {
            // Programs write empty columns at the end of some rows or all.
            let columns = rows.first().map_or(fields.len(), |first| first.fields.len());
            fields.truncate(columns.max(last + 1));
            rows.push(Row { line, fields });
        }
    }
}

/// `a, "b"` has a space before the quote, so the parser takes the quotes for part of the value.
fn unquote(text: &str) -> &str {
    text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).unwrap_or(text)
}

/// A column's name for comparing: composed (NFC), in lower case, with one `_` for spaces and dashes.
pub fn column_name(name: &str) -> String {
    let lower: String = name.trim().nfc().flat_map(char::to_lowercase).collect();
    let parts = lower.split([' ', '-', '_', '\u{a0}']).filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join("_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content: &[u8]) -> Result<Table, DatasetError> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("list.csv");
        std::fs::write(&file, content).unwrap();
        Table::read(&file, None)
    }

    fn shown(content: &str) -> Vec<String> {
        let rows = read(content.as_bytes()).unwrap().rows;
        rows.iter().map(|row| format!("{}:{}", row.line, row.fields.join("|"))).collect()
    }

    #[test]
    fn rows_and_columns_without_values_are_passed_over() {
        assert_eq!(
            shown("path,class,\na.png,x,\n,,\n\nb.png,,\n,,,,\n,\n"),
            ["1:path|class|", "2:a.png|x|", "5:b.png||"]
        );
        assert_eq!(shown("sep=;\r\npath;class\r\na.png;x,y\r\n"), ["2:path|class", "3:a.png|x,y"]);
        assert_eq!(shown("path,class\ra.png,x\r\rb.png,y\r"), ["1:path|class", "2:a.png|x", "4:b.png|y"]);
        assert_eq!(shown("path;n\n\"a\n.png\";1\nb.png;2"), ["1:path|n", "2:a\n.png|1", "4:b.png|2"]);
    }

    #[test]
    fn rows_that_are_too_long_are_refused() {
        let refused = |content: &str| read(content.as_bytes()).unwrap_err().to_string();
        let error = refused("path,class\na.png,x\nb.png,cup, red\n");
        assert!(error.contains("line 3: 3 fields") && error.contains("commas"), "{error}");
        let error = refused("p/a b/1.png x\np/a b/2.png x\np/a b/3, red.png x\np/c/1.png y\n");
        assert!(error.contains("line 3: 4 fields") && error.contains("spaces"), "{error}");
        let error = refused("p/a b/1.png x\np/c/1.png y\n");
        assert!(error.contains("line 2: 2 fields") && error.contains("line 1 has 3"), "{error}");
        let error = refused("path,class\nb.png,\"big\n\nc.png\",pear,fig\n");
        assert!(error.contains("line 2") && error.contains("quoted field"), "{error}");
        let error = refused("path,class\na.png,x\nb.png,\"big\nc.png,y\n");
        assert!(error.contains("line 3") && error.contains("never closes"), "{error}");
    }

    #[test]
    fn names_of_columns_are_compared_in_one_form() {
        assert_eq!(column_name(" Super-Class "), "super_class");
        assert_eq!(column_name("GRO\u{308}SSE"), column_name("größe").replace('ß', "ss"));
        assert_eq!(column_name("file  name"), "file_name");
    }
}
