//! What stands between the fields of a table, found out from its rows.

use super::super::folder::is_image_name;
use super::reader::column_name;

/// Rows and bytes looked at.
const ROWS: usize = 200;
const BYTES: usize = 256 << 10;
/// Candidates, the likelier first.
const DELIMITERS: [u8; 5] = [b'\t', b',', b';', b'|', b' '];

/// A first line `sep=;`, with which Excel says what delimits the fields: its length without the line break, and the
/// delimiter.
pub(super) fn sep_line(text: &str) -> Option<(usize, u8)> {
    let line = text.split(['\n', '\r']).next().unwrap_or_default();
    let inner = line.strip_prefix('"').and_then(|l| l.strip_suffix('"')).unwrap_or(line);
    let value = inner.get(..4).filter(|start| start.eq_ignore_ascii_case("sep="))?;
    match &inner.as_bytes()[value.len()..] {
        [delimiter] if delimiter.is_ascii() => Some((line.len(), *delimiter)),
        _ => None,
    }
}

/// The delimiter by which the table makes sense. Rows are split as CSV, so that delimiters in quotes count for nothing.
///
/// In this order: a column that holds nothing but names of pictures; a header with a usual name (`names`) of the path's
/// column; the first of tab, comma, semicolon, bar and space that stands in the first row. Of two that are equal so far, the
/// one by which all rows have the same number of fields, then the one that makes more fields.
pub(super) fn guess(text: &str, names: &[&str]) -> u8 {
    let mut candidates: Vec<(Score, u8)> =
        DELIMITERS.iter().filter_map(|&d| Some((score(&rows(text, d), names, d)?, d))).collect();
    // The sort keeps the order of equals.
    candidates.sort_by_key(|(score, _)| std::cmp::Reverse(*score));
    candidates.first().map_or(b',', |(_, delimiter)| *delimiter)
}

/// Greater is likelier.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Score {
    has_path_column: bool,
    has_path_name: bool,
    is_not_space: bool,
    is_even: bool,
    fields: usize,
}

fn score(rows: &[Vec<String>], names: &[&str], delimiter: u8) -> Option<Score> {
    let first = rows.first().filter(|first| first.len() > 1)?;
    // `n01/1.jpg 7` is two fields, `my photos/1.jpg` is one.
    if delimiter == b' ' && is_image_name(&first.join(" ")) {
        return None;
    }
    let is_picture = |row: &Vec<String>, column: usize| row.get(column).is_some_and(|f| is_image_name(f));
    let below = if rows.len() > 1 { &rows[1..] } else { rows };
    let has_path_column = (0..first.len()).any(|column| below.iter().all(|row| is_picture(row, column)));
    let has_path_name = first.iter().any(|field| names.contains(&column_name(field).as_str()));
    let is_even = rows.iter().all(|row| row.len() == first.len());
    let score = Score {
        has_path_column,
        has_path_name,
        is_not_space: delimiter != b' ',
        is_even,
        fields: if is_even { first.len() } else { 0 },
    };
    Some(score)
}

/// The first rows, without empty ones.
fn rows(text: &str, delimiter: u8) -> Vec<Vec<String>> {
    let mut end = BYTES.min(text.len());
    // A row that is cut would be counted wrongly.
    if end < text.len() {
        end = text.as_bytes()[..end].iter().rposition(|&b| b == b'\n').unwrap_or(end);
    }
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(delimiter)
        .trim(csv::Trim::All)
        .from_reader(&text.as_bytes()[..end]);
    let mut record = csv::ByteRecord::new();
    let mut rows = Vec::new();
    while rows.len() < ROWS && reader.read_byte_record(&mut record).unwrap_or(false) {
        if record.iter().any(|field| !field.is_empty()) {
            rows.push(record.iter().map(|field| String::from_utf8_lossy(field).into_owned()).collect());
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guessed(text: &str) -> char {
        char::from(guess(text, &["path", "key"]))
    }

    #[test]
    fn a_delimiter_in_quotes_or_in_a_header_does_not_count() {
        assert_eq!(guessed("path;class;\"price, EUR\"\n\"a b/1.png\";x;\"1,50\"\n"), ';');
        assert_eq!(guessed("path;class;price, EUR\na b/1.png;x;1,50\n"), ';');
        assert_eq!(guessed("\"a b/3, red.png\";x\n\"a b/1.png\";y\n"), ';');
        assert_eq!(guessed("\"a b/3; red.png\",x\n"), ',');
        assert_eq!(guessed("key;price, net\nA 1;1,50\nA 2;2,00\n"), ';');
        assert_eq!(guessed("title, long\tpath\n\"x; y\"\ta.png\n"), '\t');
        assert_eq!(guessed("path|class\na,b.jpg|x\n"), '|');
    }

    #[test]
    fn spaces_delimit_only_where_nothing_else_does() {
        assert_eq!(guessed("n01/a.JPEG 5\nn02/b.JPEG 6\n"), ' ');
        assert_eq!(guessed("my photos/a.jpg\nmy photos/b.jpg\n"), ',');
        assert_eq!(guessed("train/a 1.jpg, 0, 7\ntrain/b.jpg, 12, 3\n"), ',');
        assert_eq!(guessed("a b/1.png apple\na b/2.png apple\nc/1.png pear\n"), ' ');
        assert_eq!(guessed("path\na b.jpg\n"), ',');
        assert_eq!(guessed("name,price\nfoo bar,1\n"), ',');
    }

    #[test]
    fn a_line_for_excel_is_found() {
        assert_eq!(sep_line("sep=;\r\npath;class\n"), Some((5, b';')));
        assert_eq!(sep_line("SEP=\t\npath"), Some((5, b'\t')));
        assert_eq!(sep_line("\"sep=,\"\npath"), Some((7, b',')));
        assert_eq!(sep_line("separator\n"), None);
        assert_eq!(sep_line("sep=\n"), None);
        assert_eq!(sep_line(""), None);
    }
}
