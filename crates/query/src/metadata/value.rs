//! The type of a metadata field: numbers where they keep every digit, text otherwise.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Number, Value};
use unicode_normalization::UnicodeNormalization;

/// A value before its type is settled.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell {
    /// Text that reads as a number, as it is written.
    Number(String),
    /// Anything else.
    Other(Value),
}

/// Where numbers were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// In a table, where an identifier looks like a number.
    Table,
    /// In JSON, where a number is meant as one.
    Json,
}

/// What was decided of a field whose values are not all numbers, though some look like it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldRemark {
    /// The field.
    pub field: String,
    /// The line, from 1, of the value that decided.
    pub line: u64,
    /// That value.
    pub value: String,
    /// What was decided, and why.
    pub remark: String,
}

impl std::fmt::Display for FieldRemark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "field \"{}\" {} (\"{}\" in line {})", self.field, self.remark, self.value, self.line)
    }
}

/// The cell of a table's text.
pub(super) fn of_text(text: &str) -> Cell {
    match text {
        "true" => Cell::Other(Value::Bool(true)),
        "false" => Cell::Other(Value::Bool(false)),
        _ if looks_like_number(text) => Cell::Number(text.to_owned()),
        _ => Cell::Other(Value::String(text.to_owned())),
    }
}

/// A sign or none, digits with a point or without, an exponent or none.
fn looks_like_number(text: &str) -> bool {
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.strip_prefix(['+', '-']).unwrap_or(exponent)),
        None => (unsigned, "0"),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let has_digits = !whole.is_empty() || !fraction.is_empty();
    has_digits && !exponent.is_empty() && digits(whole) && digits(fraction) && digits(exponent)
}

/// Digits after the point.
fn decimals(token: &str) -> Option<usize> {
    token.split_once('.').map(|(_, fraction)| fraction.len())
}

/// The number, or why the text would be lost in it.
pub(super) fn number(token: &str, source: Source) -> Result<Number, &'static str> {
    const DIGITS: &str = "would lose digits as a number";
    const BEYOND: &str = "would be beyond all numbers, which end at 1.8e308";
    let number: Number = serde_json::from_str(token).map_err(|_| match source {
        _ if token.parse::<f64>().is_ok_and(f64::is_infinite) => BEYOND,
        Source::Table => "would lose a sign or zeros as a number",
        Source::Json => DIGITS,
    })?;
    let is_whole = !token.contains(['.', 'e', 'E']);
    if is_whole && number.is_f64() {
        return Err(if token == "-0" { "would lose a sign or zeros as a number" } else { DIGITS });
    }
    if source == Source::Json {
        // Programs print floats with up to 17 digits; more would be lost.
        let digits = token.split(['e', 'E']).next().unwrap_or_default().trim_start_matches(['-', '0', '.']);
        let digits = digits.trim_end_matches('0').bytes().filter(u8::is_ascii_digit).count();
        return if is_whole || digits <= 17 { Ok(number) } else { Err(DIGITS) };
    }
    if token.contains(['e', 'E']) {
        return Err("would lose its exponent as a number");
    }
    match (decimals(token), number.as_f64()) {
        (Some(decimals), Some(value)) if format!("{value:.decimals$}") != token => Err(DIGITS),
        _ => Ok(number),
    }
}

/// Numbers of a field with where they stand.
type Numbers<'c> = Vec<(u64, &'c str)>;

/// Why the numbers of a field stay text: the first that would not be printed as it was written. Decimals may end in
/// zeros if all have as many digits, as prices do; `1.1` beside `1.10` are two versions.
fn obstacle(numbers: &Numbers<'_>, source: Source) -> Option<(u64, String, &'static str)> {
    for &(line, token) in numbers {
        if let Err(why) = number(token, source) {
            return Some((line, token.to_owned(), why));
        }
    }
    if source == Source::Json {
        return None;
    }
    let mut scales = numbers.iter().filter_map(|(_, token)| decimals(token));
    let first = scales.next()?;
    if scales.all(|scale| scale == first) {
        return None;
    }
    let padded = numbers.iter().find(|(_, token)| token.contains('.') && token.ends_with('0'))?;
    Some((padded.0, padded.1.to_owned(), "would lose zeros at its end as a number"))
}

/// Settles the types of all rows: a row is its line and its fields. A field's numbers are numbers if every one of them keeps
/// all its digits, else all of them are text.
pub(super) fn settle(
    rows: Vec<(u64, Vec<(String, Cell)>)>,
    source: Source,
) -> (Vec<Vec<(String, Value)>>, Vec<FieldRemark>) {
    let mut numbers = BTreeMap::<&str, Numbers<'_>>::new();
    let mut words = BTreeMap::<&str, Vec<(u64, &str)>>::new();
    for (line, fields) in &rows {
        for (name, cell) in fields {
            match cell {
                Cell::Number(token) => numbers.entry(name).or_default().push((*line, token)),
                Cell::Other(Value::String(text)) => words.entry(name).or_default().push((*line, text)),
                Cell::Other(_) => {}
            }
        }
    }
    let mut remarks = BTreeMap::<String, FieldRemark>::new();
    let mut text_fields = std::collections::BTreeSet::new();
    for (name, numbers) in &numbers {
        let mut remark = |line: u64, value: &str, remark: String| {
            let field = (*name).to_owned();
            remarks.insert(field.clone(), FieldRemark { field, line, value: value.to_owned(), remark });
        };
        let words = words.get(name).map_or(&[][..], Vec::as_slice);
        let comma = words.iter().find(|(_, text)| source == Source::Table && has_decimal_comma(text));
        let thousands =
            comma.and_then(|_| words.iter().find(|(_, text)| has_decimal_comma(text) && text.contains('.')));
        if let Some((line, value, why)) = obstacle(numbers, source) {
            text_fields.insert((*name).to_owned());
            remark(line, &value, format!("is text, for a value {why}"));
        } else if let Some((line, value)) = thousands.filter(|_| numbers.iter().any(|(_, n)| n.contains('.')))
        {
            // The number 2.000 beside the text 1.234,50 is two thousand.
            text_fields.insert((*name).to_owned());
            remark(*line, value, format!("is text, for a value has points between thousands: {POINT}"));
        } else if let Some((line, value)) = comma.or(words.first()) {
            let (count, all) = (words.len(), words.len() + numbers.len());
            let advice = if comma.is_some() { format!(": {POINT}") } else { String::new() };
            remark(
                *line,
                value,
                format!("has {count} values of {all} that are no numbers and stay text{advice}"),
            );
        }
    }
    if source == Source::Table {
        for (name, words) in words.iter().filter(|(name, _)| !numbers.contains_key(**name)) {
            if words.iter().all(|(_, text)| has_decimal_comma(text)) {
                let remark = format!("is text, for it has decimal commas: {POINT}");
                let (field, (line, value)) = ((*name).to_owned(), words[0]);
                let remark = FieldRemark { field, line, value: value.to_owned(), remark };
                remarks.insert((*name).to_owned(), remark);
            }
        }
    }
    let remarks = remarks.into_values().collect();
    let value = |name: &str, cell: Cell| match cell {
        Cell::Other(Value::String(text)) => Value::String(text.nfc().collect()),
        Cell::Other(value) => value,
        Cell::Number(token) if text_fields.contains(name) => Value::String(token),
        Cell::Number(token) => match number(&token, source) {
            Ok(number) => Value::Number(number),
            // Not reached: such a field is text.
            Err(_) => Value::String(token),
        },
    };
    let typed = |fields: Vec<(String, Cell)>| {
        fields
            .into_iter()
            .map(|(name, cell)| {
                let value = value(&name, cell);
                (name, value)
            })
            .collect()
    };
    (rows.into_iter().map(|(_, fields)| typed(fields)).collect(), remarks)
}

/// What to do about decimal commas.
const POINT: &str = "write a point before decimals, and none between thousands, to compare it as a number";

/// `1,5`, `-0,25` and, with points between thousands, `1.234,50`.
fn has_decimal_comma(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    unsigned.split_once(',').is_some_and(|(whole, fraction)| digits(fraction) && whole.split('.').all(digits))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn column(values: &[&str]) -> (Vec<Value>, Vec<String>) {
        let rows =
            values.iter().zip(2..).map(|(v, line)| (line, vec![("x".to_owned(), of_text(v))])).collect();
        let (rows, remarks) = settle(rows, Source::Table);
        let values = rows.into_iter().map(|mut fields| fields.remove(0).1).collect();
        (values, remarks.iter().map(FieldRemark::to_string).collect())
    }

    #[test]
    fn numbers_that_keep_their_digits_are_numbers() {
        for values in [
            vec!["5", "-3", "0", "9007199254740993", "18446744073709551615"],
            vec!["1.5", "20", "-0.25"],
            vec!["19.90", "5.00", "20"],
        ] {
            let (typed, remarks) = column(&values);
            assert!(
                typed.iter().all(Value::is_number) && remarks.is_empty(),
                "{values:?}: {typed:?} {remarks:?}"
            );
        }
        assert_eq!(column(&["19.90"]).0, [json!(19.9)]);
        assert_eq!(column(&["true", "red"]).0, [json!(true), json!("red")]);
    }

    #[test]
    fn one_value_that_would_not_survive_makes_the_column_text() {
        for value in [
            "007",
            "+49",
            "1e5",
            "1E-5",
            "12345678901234567890103",
            ".5",
            "5.",
            "-0",
            "0.12345678901234567890",
        ] {
            let (typed, remarks) = column(&["12", value]);
            assert_eq!(typed, [json!("12"), json!(value)]);
            assert!(
                remarks.len() == 1 && remarks[0].contains("line 3") && remarks[0].contains(value),
                "{remarks:?}"
            );
        }
        assert_eq!(column(&["1.1", "1.10", "2"]).0, [json!("1.1"), json!("1.10"), json!("2")]);
        assert_eq!(column(&["1.10", "1.9"]).0, [json!("1.10"), json!("1.9")]);
    }

    #[test]
    fn words_and_decimal_commas_are_text_and_told() {
        let (typed, remarks) = column(&["5", "n/a", "7"]);
        assert_eq!(typed, [json!(5), json!("n/a"), json!(7)]);
        assert!(remarks[0].contains("1 values of 3") && remarks[0].contains("n/a"), "{remarks:?}");
        let (typed, remarks) = column(&["1,50", "2,00"]);
        assert_eq!(typed, [json!("1,50"), json!("2,00")]);
        assert!(remarks[0].contains("decimal commas"), "{remarks:?}");
        for text in ["1-2", "e5", "1e", "0x10", "inf", "NaN", "", "+", "1.2.3", "1 000"] {
            assert!(!looks_like_number(text), "{text:?}");
        }
    }

    #[test]
    fn decimal_commas_beside_numbers_are_told() {
        let (typed, remarks) = column(&["2", "n/a", "1,5"]);
        assert_eq!(typed, [json!(2), json!("n/a"), json!("1,5")]);
        assert!(remarks[0].contains("2 values of 3") && remarks[0].contains("write a point"), "{remarks:?}");
        assert!(remarks[0].contains("\"1,5\" in line 4"), "{remarks:?}");
        // With points between thousands, what reads as two is two thousand.
        let (typed, remarks) = column(&["2.000", "1.234,50", "7"]);
        assert_eq!(typed, [json!("2.000"), json!("1.234,50"), json!("7")]);
        assert!(remarks[0].contains("is text") && remarks[0].contains("1.234,50"), "{remarks:?}");
        let (typed, _) = column(&["20", "1.234.567,50"]);
        assert_eq!(typed, [json!(20), json!("1.234.567,50")]);
    }

    #[test]
    fn numbers_beyond_all_numbers_are_called_so() {
        let (typed, remarks) = column(&["1", "1e400"]);
        assert_eq!(typed, [json!("1"), json!("1e400")]);
        assert!(remarks[0].contains("beyond all numbers"), "{remarks:?}");
        assert!(number("1e400", Source::Json).unwrap_err().contains("beyond all numbers"));
    }
}
