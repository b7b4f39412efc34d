//! The bytes of a table or of JSON lines as text.

use std::borrow::Cow;
use std::path::Path;

use super::super::DatasetError;

/// Files that are often mistaken for tables: how they begin, and what they are.
const NOT_TEXT: [(&[u8], &str); 5] = [
    (b"PK\x03\x04", "an Excel workbook or another ZIP archive: save the sheet as CSV (UTF-8)"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook: save the sheet as CSV (UTF-8)"),
    (b"\x1f\x8b", "compressed with gzip: unpack it first"),
    (b"PAR1", "a Parquet file: write it as CSV"),
    (b"%PDF", "a PDF document"),
];

/// Reads UTF-8, with or without a byte order mark, and UTF-16, which Excel calls "Unicode text".
///
/// # Errors
/// [`DatasetError::NotUtf8`] with the first line that has other bytes, [`DatasetError::NotText`] for workbooks and archives.
pub fn decode_text<'b>(file: &Path, bytes: &'b [u8]) -> Result<Cow<'b, str>, DatasetError> {
    let not_text = |what: &'static str| DatasetError::NotText { path: file.to_path_buf(), what };
    if let Some((_, what)) = NOT_TEXT.iter().find(|(start, _)| bytes.starts_with(start)) {
        return Err(not_text(what));
    }
    if bytes.starts_with(b"\xff\xfe\0\0") || bytes.starts_with(b"\0\0\xfe\xff") {
        return Err(not_text("UTF-32 text: save it as UTF-8"));
    }
    let wide = match bytes {
        [0xff, 0xfe, rest @ ..] => Some((rest, u16::from_le_bytes as fn([u8; 2]) -> u16)),
        [0xfe, 0xff, rest @ ..] => Some((rest, u16::from_be_bytes as fn([u8; 2]) -> u16)),
        [_, 0, _, 0, ..] => Some((bytes, u16::from_le_bytes as fn([u8; 2]) -> u16)),
        [0, _, 0, _, ..] => Some((bytes, u16::from_be_bytes as fn([u8; 2]) -> u16)),
        _ => None,
    };
    let text = if let Some((bytes, unit)) = wide {
        let units: Vec<u16> = bytes.chunks_exact(2).map(|pair| unit([pair[0], pair[1]])).collect();
        let text = String::from_utf16(&units).ok().filter(|_| bytes.len().is_multiple_of(2));
        Cow::Owned(text.ok_or_else(|| not_text("damaged UTF-16 text: save it as UTF-8"))?)
    } else {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        Cow::Borrowed(std::str::from_utf8(bytes).map_err(|e| not_utf8(file, bytes, e.valid_up_to()))?)
    };
    if text.contains('\0') {
        return Err(not_text("no text: it holds zero bytes"));
    }
    Ok(text)
}

/// The error for a byte that is not UTF-8: with its line, and the line's text read as Latin-1, as which old programs
/// save tables.
fn not_utf8(file: &Path, bytes: &[u8], at: usize) -> DatasetError {
    let is_end = |b: &u8| matches!(b, b'\n' | b'\r');
    let start = bytes[..at].iter().rposition(is_end).map_or(0, |end| end + 1);
    let end = bytes[at..].iter().position(is_end).map_or(bytes.len(), |end| at + end);
    let latin: String = bytes[start..end].iter().map(|&b| char::from(b)).take(60).collect();
    DatasetError::NotUtf8 { path: file.to_path_buf(), line: line_at(&bytes[..at]), value: latin }
}

/// The line, from 1, that follows these bytes. Lines end with a line feed, a carriage return, or both.
pub(super) fn line_at(before: &[u8]) -> u64 {
    1 + line_breaks(before)
}

pub(super) fn line_breaks(bytes: &[u8]) -> u64 {
    let feeds = bytes.iter().filter(|&&b| b == b'\n').count();
    let returns = bytes.iter().enumerate().filter(|&(i, &b)| b == b'\r' && bytes.get(i + 1) != Some(&b'\n'));
    (feeds + returns.count()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<String, String> {
        let text = decode_text(Path::new("list.csv"), bytes);
        text.map(Cow::into_owned).map_err(|e| e.to_string())
    }

    #[test]
    fn every_form_of_unicode_is_read() {
        let text = "path;Größe\r\nä.jpg;7\r\n";
        let wide = |unit: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(unit).collect::<Vec<u8>>();
        assert_eq!(read(text.as_bytes()).as_deref(), Ok(text));
        assert_eq!(read(&[b"\xef\xbb\xbf", text.as_bytes()].concat()).as_deref(), Ok(text));
        assert_eq!(read(&wide(u16::to_le_bytes)).as_deref(), Ok(text));
        assert_eq!(read(&wide(u16::to_be_bytes)).as_deref(), Ok(text));
        assert_eq!(read(&[b"\xff\xfe", &wide(u16::to_le_bytes)[..]].concat()).as_deref(), Ok(text));
        assert_eq!(read(&[b"\xfe\xff", &wide(u16::to_be_bytes)[..]].concat()).as_deref(), Ok(text));
        assert_eq!(read(b"").as_deref(), Ok(""));
    }

    #[test]
    fn other_bytes_are_named_with_their_line() {
        let error = read(b"path,class\r\na.jpg,x\r\nb.jpg,\xc4pfel\r\n").unwrap_err();
        assert!(
            error.contains("line 3") && error.contains("b.jpg,Äpfel") && error.contains("UTF-8"),
            "{error}"
        );
        assert!(read(b"a\rb\rc\xff").unwrap_err().contains("line 3"));
        assert!(read(b"PK\x03\x04....").unwrap_err().contains("Excel"));
        assert!(read(b"\xff\xfea\0b").unwrap_err().contains("damaged UTF-16"));
        assert!(read(b"\xff\xfe\0\0a\0\0\0").unwrap_err().contains("UTF-32"));
        assert!(read(b"path,class\n\0\0").unwrap_err().contains("zero bytes"));
    }
}
