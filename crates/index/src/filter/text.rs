//! A filter as a line of text, for command lines and query strings.

use std::str::FromStr;

use serde_json::Value;

use crate::error::{IndexError, Result};
use crate::filter::Filter;

/// Reads one condition, or any filter as JSON (a text that begins with `{`).
///
/// | text | meaning |
/// |---|---|
/// | `brand = Acme`, `brand != Acme` | the field has the value, has it not |
/// | `price < 20`, `<=`, `>`, `>=` | the field lies within the bound |
/// | `price between 10 and 20` | the field lies within both bounds, or is one of them |
/// | `colour in red, blue` or `colour in (red, blue)` | the field has one of the values |
/// | `colour not in red, blue` | the field has none of the values |
/// | `price` | the field is there |
/// | `not CONDITION` | the condition is not met |
///
/// A value that reads as JSON has the type JSON gives it (`20`, `true`, `"20"`), any other is a string, and so is every
/// value compared with `key`, `class` or `super_class`. After `=`, `!=` and `in` a number also stands for its text, since an
/// article number may be kept as either; a whole number of more digits than 64 bits hold is only text. A bound that looks
/// like a number but is none that can be compared (`1e400`, `1,5`) is refused unless it is quoted.
///
/// ```
/// use semblance_index::Filter;
///
/// assert_eq!("brand = Acme".parse::<Filter>()?, Filter::eq("brand", "Acme"));
/// assert_eq!("not size in M, L".parse::<Filter>()?, Filter::not(Filter::any_of("size", ["M", "L"])));
/// assert_eq!("class=17".parse::<Filter>()?, Filter::eq("class", "17"));
/// assert!("price =< 20".parse::<Filter>().is_err());
/// # Ok::<(), semblance_index::IndexError>(())
/// ```
impl FromStr for Filter {
    type Err = IndexError;

    fn from_str(text: &str) -> Result<Self> {
        let text = text.trim();
        let filter = if text.starts_with('{') {
            serde_json::from_str(text)
                .map_err(|e| IndexError::Filter { what: format!("{text:?} is no filter as JSON: {e}") })?
        } else {
            let mut condition = text;
            let mut negations = 0;
            // "not = 1" is a condition on a field of that name.
            while let Some(rest) = strip_word(condition, "not").filter(|rest| !begins_with_operator(rest)) {
                (condition, negations) = (rest, negations + 1);
                if negations == Self::MAX_DEPTH {
                    return Err(IndexError::Filter { what: "it has too many `not`".into() });
                }
            }
            (0..negations).fold(self::condition(condition)?, |inner, _| Self::not(inner))
        };
        filter.validate()?;
        Ok(filter)
    }
}

/// What follows a word at the beginning, in whatever case it is written.
fn strip_word<'t>(text: &'t str, word: &str) -> Option<&'t str> {
    let (first, rest) = text.split_once(char::is_whitespace)?;
    first.eq_ignore_ascii_case(word).then(|| rest.trim_start())
}

fn begins_with_operator(text: &str) -> bool {
    text.starts_with(SIGNS) || ["in", "between"].iter().any(|word| strip_word(text, word).is_some())
}

/// Characters that operators are made of.
const SIGNS: [char; 6] = ['=', '<', '>', '!', '≤', '≥'];

fn condition(text: &str) -> Result<Filter> {
    let signs =
        text.find(['=', '<', '>', '≤', '≥']).map(|at| if text[..at].ends_with('!') { at - 1 } else { at });
    let lower = text.to_ascii_lowercase();
    let word = |word: &str| lower.find(word).filter(|at| signs.is_none_or(|signs| *at < signs));
    if let Some(at) = word(" in ").or_else(|| word(" in(")) {
        return one_of(text[..at].trim(), text[at + " in".len()..].trim());
    }
    if let Some(at) = word(" between ") {
        return between(text, text[..at].trim(), text[at + " between ".len()..].trim());
    }
    let Some(at) = signs else { return Ok(Filter::Exists { field: text.into() }) };
    let rest = &text[at..];
    let (operator, right) = rest.split_at(rest.find(|c| !SIGNS.contains(&c)).unwrap_or(rest.len()));
    let (field, right) = (text[..at].trim(), right.trim());
    let bad = |what: String| Err(IndexError::Filter { what: format!("{text:?} {what}") });
    if right.is_empty() {
        return bad(format!("has no value after {operator}: write \"\" for an empty one"));
    }
    // "= = x" and "< = 5" are slips, not values.
    if let Some(second) = right.chars().next().filter(|c| ['=', '<', '>', '≤', '≥'].contains(c)) {
        return bad(format!("has two operators, {operator} and {second}: quote the value if it begins so"));
    }
    if let Some(word) = joined(right) {
        return bad(format!(
            "has another condition after {word:?}: give each condition by itself, or a filter as JSON"
        ));
    }
    let range = |place: usize| {
        let mut bounds = [None, None, None, None];
        bounds[place] = Some(bound(text, field, right)?);
        let [gt, gte, lt, lte] = bounds;
        Ok(Filter::Range { field: field.into(), gt, gte, lt, lte })
    };
    let equal = || match values(field, right) {
        mut values if values.len() == 1 => Filter::eq(field, values.remove(0)),
        values => Filter::any_of(field, values),
    };
    match operator {
        "=" => Ok(equal()),
        "!=" => Ok(Filter::not(equal())),
        "<" => range(2),
        "<=" | "≤" => range(3),
        ">" => range(0),
        ">=" | "≥" => range(1),
        "=<" => bad("has the operator =<, which is written <=".into()),
        "=>" => bad("has the operator =>, which is written >=".into()),
        "==" | "===" => bad(format!("has the operator {operator}, which is written =")),
        "<>" | "=!" | "!==" => bad(format!("has the operator {operator}, which is written !=")),
        other => bad(format!("has the operator {other}: operators are =, !=, <, <=, >, >= and in")),
    }
}

/// Values between commas, in parentheses or not.
fn one_of(field: &str, right: &str) -> Result<Filter> {
    let inner = right.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')).unwrap_or(right);
    let all = Filter::any_of(field, inner.split(',').flat_map(|part| values(field, part.trim())));
    // The field "colour not" is none that is meant.
    match strip_last_word(field, "not") {
        Some(field) => one_of(field, right).map(Filter::not),
        None => Ok(all),
    }
}

fn strip_last_word<'t>(text: &'t str, word: &str) -> Option<&'t str> {
    let (rest, last) = text.rsplit_once(char::is_whitespace)?;
    last.eq_ignore_ascii_case(word).then(|| rest.trim_end())
}

fn between(text: &str, field: &str, right: &str) -> Result<Filter> {
    let and = right.to_ascii_lowercase().find(" and ").filter(|at| *at > 0);
    let Some(and) = and else {
        let what = format!("{text:?} has no two bounds: write them as in {field} between 10 and 20");
        return Err(IndexError::Filter { what });
    };
    let (low, high) = (right[..and].trim(), right[and + " and ".len()..].trim());
    let (gte, lte) = (Some(bound(text, field, low)?), Some(bound(text, field, high)?));
    let within = |field: &str| Filter::Range {
        field: field.into(),
        gt: None,
        gte: gte.clone(),
        lt: None,
        lte: lte.clone(),
    };
    Ok(match strip_last_word(field, "not") {
        Some(field) => Filter::not(within(field)),
        None => within(field),
    })
}

/// The bound of a range. What looks like a number and is none would be compared as text.
fn bound(text: &str, field: &str, right: &str) -> Result<Value> {
    let value = value(field, right);
    let digits = right.strip_prefix('-').unwrap_or(right);
    let of = |allowed: &[char]| {
        digits.starts_with(|c: char| c.is_ascii_digit())
            && digits.chars().all(|c| c.is_ascii_digit() || allowed.contains(&c))
    };
    let bad = |what: String| Err(IndexError::Filter { what: format!("{text:?} {what}") });
    let is_text = matches!(field, "key" | "class" | "super_class");
    if is_text || !value.is_string() || right.starts_with('"') {
        return Ok(value);
    }
    if right.parse::<f64>().is_ok_and(f64::is_infinite) && of(&['.', 'e', 'E', '+', '-']) {
        return bad(format!(
            "compares with {right}, which is beyond all numbers (they end at 1.8e308): quote it to compare text"
        ));
    }
    if right.contains(',') && of(&[',', '.']) {
        return bad(format!(
            "compares with {right}: write a point before the decimals, and none between thousands, or quote it to compare text"
        ));
    }
    Ok(value)
}

/// A word in an unquoted value after which another condition follows.
fn joined(right: &str) -> Option<&'static str> {
    let lower = right.to_ascii_lowercase();
    let second = |word: &str| lower.find(word).is_some_and(|at| lower[at..].contains(['=', '<', '>']));
    let words = [(" and ", "and"), (" or ", "or"), ("&&", "&&"), ("||", "||")];
    let quoted = right.starts_with('"');
    words.into_iter().find(|(word, _)| !quoted && second(word)).map(|(_, word)| word)
}

fn value(field: &str, text: &str) -> Value {
    let is_text = matches!(field, "key" | "class" | "super_class");
    match serde_json::from_str(text) {
        Ok(value @ Value::String(_)) => value,
        Ok(value) if !is_text => value,
        _ => Value::String(text.into()),
    }
}

/// The value of a text, and the text itself where it reads as a number: a column of article numbers is text as soon as one
/// of them does not survive printing. A whole number with more digits than can be compared is only text.
fn values(field: &str, text: &str) -> Vec<Value> {
    let whole = text.bytes().all(|b| b.is_ascii_digit() || b == b'-');
    match value(field, text) {
        Value::Number(number) if whole && number.is_f64() => vec![Value::String(text.into())],
        Value::Number(number) if field != "id" => vec![Value::Number(number), Value::String(text.into())],
        other => vec![other],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(text: &str) -> Value {
        serde_json::to_value(text.parse::<Filter>().unwrap()).unwrap()
    }

    #[test]
    fn each_operator_is_what_it_looks_like() {
        let bound = |name: &str, text: &str| assert_eq!(read(text)["range"][name], 5, "{text}");
        bound("lt", "price<5");
        bound("lte", "price <= 5");
        bound("gt", "price > 5");
        bound("gte", "price>=5");
        assert_eq!(read("a.b = x = y"), json!({"eq": {"field": "a.b", "value": "x = y"}}));
        assert_eq!(read("a != -1.5"), json!({"not": {"in": {"field": "a", "values": [-1.5, "-1.5"]}}}));
        assert_eq!(read("sold"), json!({"exists": {"field": "sold"}}));
        assert_eq!(read("not sold"), json!({"not": {"exists": {"field": "sold"}}}));
        assert_eq!(read("within = 3"), json!({"in": {"field": "within", "values": [3, "3"]}}));
        assert_eq!(read("a in 1, b ,\"2\""), json!({"in": {"field": "a", "values": [1, "1", "b", "2"]}}));
    }

    #[test]
    fn values_have_the_type_json_gives_them_but_for_fields_that_are_text() {
        assert_eq!(read("a=true")["eq"]["value"], json!(true));
        assert_eq!(read("a=\"5\"")["eq"]["value"], json!("5"));
        assert_eq!(read("class=5")["eq"]["value"], json!("5"));
        assert_eq!(read("super_class in 1, \"2\"")["in"]["values"], json!(["1", "2"]));
        assert_eq!(read("id=5")["eq"]["value"], json!(5));
    }

    #[test]
    fn json_is_read_whole_and_nonsense_refused() {
        assert_eq!(
            read(r#" {"or": [{"exists": {"field": "a"}}]}"#),
            json!({"or": [{"exists": {"field": "a"}}]})
        );
        let refused = |text: &str| text.parse::<Filter>().unwrap_err().to_string();
        assert!(refused("{\"or\": 5}").contains("no filter as JSON"));
        assert!(refused("= 5").contains("no name"));
        assert!(refused("").contains("no name"));
        assert!(refused("price < true").contains("all numbers or all strings"));
        assert!(refused(&"not ".repeat(40)).contains("not"));
    }

    #[test]
    fn slips_are_errors_that_say_what_is_right() {
        for (text, right) in [
            ("price =< 20", "written <="),
            ("price=<20", "written <="),
            ("price => 20", "written >="),
            ("price == 20", "written ="),
            ("price <> 20", "written !="),
            ("price =! 20", "written !="),
            ("price <<= 20", "operators are"),
            ("price < = 20", "two operators"),
            ("price = = 20", "two operators"),
            ("price <", "no value"),
            ("brand =", "no value"),
            ("price < 20 and size = 3", "another condition after \"and\""),
            ("price > 5 && price < 20", "another condition"),
            ("price < 1e400", "beyond all numbers"),
            ("price >= -1e400", "beyond all numbers"),
            ("price < 1,5", "write a point"),
            ("price < 1.234,50", "write a point"),
            ("price between 1", "price between 10 and 20"),
            ("price between 1 and 1e400", "beyond all numbers"),
        ] {
            let error = text.parse::<Filter>().unwrap_err().to_string();
            assert!(error.contains(right) && error.contains(text), "{text}: {error}");
        }
        assert_eq!(read("price ≤ 5"), read("price <= 5"));
        assert_eq!(read("brand = Salt and Pepper")["eq"]["value"], json!("Salt and Pepper"));
        assert_eq!(read(r#"note = "=<5 and a = b""#)["eq"]["value"], json!("=<5 and a = b"));
        assert_eq!(read("size IN 40"), read("size in 40"));
        assert_eq!(read("NOT size"), read("not size"));
    }

    #[test]
    fn lists_and_bounds_are_written_in_several_ways() {
        let within = json!({"range": {"field": "price", "gt": null, "gte": 1, "lt": null, "lte": 2.5}});
        assert_eq!(read("price between 1 and 2.5"), within);
        assert_eq!(read("price BETWEEN 1 AND 2.5"), within);
        assert_eq!(read("not price between 1 and 2.5"), json!({"not": within}));
        assert_eq!(read("price not between 1 and 2.5"), json!({"not": within}));
        assert_eq!(read("name between a and b and c")["range"]["lte"], json!("b and c"));
        assert_eq!(read("price in (10,20)"), read("price in 10, 20"));
        assert_eq!(read("price in(10, 20)"), read("price in 10, 20"));
        assert_eq!(read("price not in (10, 20)"), read("not price in 10, 20"));
        assert_eq!(read("version < \"1e400\"")["range"]["lt"], json!("1e400"));
        assert_eq!(read("version < 1.2.3")["range"]["lt"], json!("1.2.3"));
        assert_eq!(read("class < 1,5")["range"]["lt"], json!("1,5"));
    }

    #[test]
    fn a_field_can_have_the_name_of_a_word() {
        assert_eq!(read("not = 1"), json!({"in": {"field": "not", "values": [1, "1"]}}));
        assert_eq!(read("not not < 1")["not"]["range"]["field"], json!("not"));
        assert_eq!(read("not in a, b"), json!({"in": {"field": "not", "values": ["a", "b"]}}));
        assert_eq!(read("not not"), json!({"not": {"exists": {"field": "not"}}}));
        assert_eq!(read("in = 1"), json!({"in": {"field": "in", "values": [1, "1"]}}));
        assert_eq!(read("metadata.class = x"), json!({"eq": {"field": "metadata.class", "value": "x"}}));
    }

    #[test]
    fn numbers_also_stand_for_their_text() {
        let article = "12345678901234567890123";
        let found = read(&format!("article = {article}"));
        assert_eq!(found["eq"]["value"], json!(article));
        assert_eq!(read("version = 1.10")["in"]["values"], json!([1.1, "1.10"]));
        assert_eq!(read("version in 1.10, 2")["in"]["values"], json!([1.1, "1.10", 2, "2"]));
        assert_eq!(read("version != 1.10")["not"]["in"]["values"], json!([1.1, "1.10"]));
        assert_eq!(read("size = 40")["in"]["values"], json!([40, "40"]));
        assert_eq!(read("size = \"40\"")["eq"]["value"], json!("40"));
    }
}
