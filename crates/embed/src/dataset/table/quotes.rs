//! Quoted fields that go wrong: never closed, closed in the middle of a field, or closed only by a later row's quote.
//!
//! The `csv` crate reads such fields without complaint, and the rows they swallow are gone.

use std::ops::{Range, RangeInclusive};

use super::encoding::line_at;

/// A quoted field that does not end where it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct QuoteFault {
    /// The line, from 1, in which the field opens.
    pub(super) line: u64,
    /// What it does.
    pub(super) reason: String,
}

/// A quoted field with line breaks in it, which may be meant or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LongField {
    /// Where its opening quote stands, and its closing one.
    place: Range<usize>,
}

/// Finds the quoted fields with line breaks in them.
///
/// # Errors
/// [`QuoteFault`] for the first field that never closes, or has text between its closing quote and the delimiter.
pub(super) fn scan(text: &[u8], delimiter: u8) -> Result<Vec<LongField>, QuoteFault> {
    let is_end = |b: u8| matches!(b, b'\n' | b'\r');
    let mut long = Vec::new();
    let mut at = 0;
    while at < text.len() {
        if text[at] != b'"' {
            // To the field that follows.
            let ends = text[at..].iter().position(|&b| b == delimiter || is_end(b));
            at += ends.map_or(text.len() - at, |n| n + 1);
            continue;
        }
        let fault = |reason: String| QuoteFault { line: line_at(&text[..at]), reason };
        let Some(close) = closing_quote(text, at + 1) else {
            return Err(fault("never closes".to_owned()));
        };
        let blank = |b: &&u8| matches!(b, b' ' | b'\t') && **b != delimiter;
        let next = close + 1 + text[close + 1..].iter().take_while(blank).count();
        if text.get(next).is_some_and(|&b| b != delimiter && !is_end(b)) {
            let end = line_at(&text[..close]);
            let place = if end == line_at(&text[..at]) { String::new() } else { format!(" in line {end}") };
            return Err(fault(format!("has more text after its closing quote{place}")));
        }
        if text[at..close].iter().any(|&b| is_end(b)) {
            long.push(LongField { place: at..close });
        }
        at = next + 1;
    }
    Ok(long)
}

/// The first quote from `start` on that is not doubled.
fn closing_quote(text: &[u8], start: usize) -> Option<usize> {
    let mut at = start;
    loop {
        at += text[at..].iter().position(|&b| b == b'"')?;
        if text.get(at + 1) != Some(&b'"') {
            return Some(at);
        }
        at += 2;
    }
}

impl LongField {
    /// The line, from 1, in which the field opens.
    pub(super) fn line(&self, text: &[u8]) -> u64 {
        line_at(&text[..self.place.start])
    }

    /// Whether the field swallowed rows of a table whose rows have so many fields: a whole line inside has two fields or
    /// more and one of them is a file name (`is_name`), or all lines inside have as many fields as rows have. Prose has a
    /// space after its commas.
    pub(super) fn swallowed_rows(
        &self,
        text: &str,
        delimiter: char,
        columns: RangeInclusive<usize>,
        is_name: impl Fn(&str) -> bool,
    ) -> Option<QuoteFault> {
        let inside = &text[self.place.clone()];
        let lines = inside.split(['\n', '\r']).skip(1).filter(|line| !line.is_empty());
        let lines: Vec<Vec<&str>> = lines.map(|line| line.split(delimiter).collect()).collect();
        let least = 2.min(*columns.end());
        let is_row = |fields: &&Vec<&str>| {
            (least..=*columns.end()).contains(&fields.len())
                && (fields.len() == 1 || !fields.iter().any(|field| field.starts_with(' ')))
        };
        let rows: Vec<&Vec<&str>> = lines.iter().filter(is_row).collect();
        let named = rows.iter().any(|row| row.iter().any(|field| is_name(field.trim().trim_matches('"'))));
        let is_whole = |row: &&Vec<&str>| row.len() > 1 && columns.contains(&row.len());
        let all = !rows.is_empty() && rows.len() == lines.len() && rows.iter().all(is_whole);
        (named || all).then(|| QuoteFault {
            line: self.line(text.as_bytes()),
            reason: format!(
                "runs on to line {} and holds what look like rows of the table",
                line_at(&text.as_bytes()[..self.place.end])
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Option<(u64, String)> {
        let long = match scan(text.as_bytes(), b',') {
            Ok(long) => long,
            Err(fault) => return Some((fault.line, fault.reason)),
        };
        let columns = text.lines().next().unwrap().split(',').count();
        let is_name = |f: &str| f.ends_with(".png");
        let fault = long.iter().find_map(|field| field.swallowed_rows(text, ',', columns..=columns, is_name));
        fault.map(|fault| (fault.line, fault.reason))
    }

    #[test]
    fn open_quotes_are_named_by_the_line_they_open_in() {
        let fault = |text: &str| faults(text).unwrap();
        assert_eq!(fault("path,class\na.png,x\nb.png,\"big\nc.png,y\n"), (3, "never closes".to_owned()));
        let (line, reason) = fault("path,class\nb.png,\"big\nc.png,\"pear\"\n");
        assert!(line == 2 && reason.contains("more text") && reason.contains("line 3"), "{reason}");
        let (line, reason) = fault("path,class\nb.png,\"big\nc.png,pear\nd.png,fig\"\ne.png,y\n");
        assert!(line == 2 && reason.contains("line 4") && reason.contains("look like rows"), "{reason}");
        assert_eq!(fault("path\n\"a.png\nb.png\nc.png\"\n").0, 2);
        assert_eq!(fault("key,text\nA1,\"nice\nA2,foo\nA3,bar\"\n").0, 2);
        assert_eq!(fault("a,b\n\"x\"y,1\n"), (2, "has more text after its closing quote".to_owned()));
        assert_eq!(fault("a,b\r\r\n\"x").0, 3);
    }

    #[test]
    fn good_quotes_pass() {
        for text in [
            "path,class\n\"a, b.png\",\"say \"\"hi\"\"\"\n",
            "path,text\na.png,\"two lines,\nhello, world\"\nb.png,\"x\"  \n",
            "path,text,price\na.png,\"Line 1\nLine 2\n\nLine 3\",5\n",
            "path,text\na.png,12\" monitor\nb.png,\"\"\n",
            "path,class\n\"b\n.png\",1\n",
            "a,b\n\"\",\"",
        ] {
            assert!(faults(text).is_none() || text.ends_with("\"\",\""), "{text:?}: {:?}", faults(text));
        }
    }
}
