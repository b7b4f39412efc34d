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
/// | `colour in red, blue` | the field has one of the values |
/// | `price` | the field is there |
/// | `not CONDITION` | the condition is not met |
///
/// A value that reads as JSON has the type JSON gives it (`20`, `true`, `"20"`), any other is a string, and so is every
/// value compared with `key`, `class` or `super_class`.
///
/// ```
/// use semblance_index::Filter;
///
/// assert_eq!("brand = Acme".parse::<Filter>()?, Filter::eq("brand", "Acme"));
/// assert_eq!("not size in 40, 41".parse::<Filter>()?, Filter::not(Filter::any_of("size", [40, 41])));
/// assert_eq!("class=17".parse::<Filter>()?, Filter::eq("class", "17"));
/// # Ok::<(), semblance_index::IndexError>(())
/// ```
impl FromStr for Filter {
    type Err = IndexError;

    fn from_str(text: &str) -> Result<Self> {
        let text = text.trim();
        let filter = match text.strip_prefix("not ") {
            _ if text.starts_with('{') => serde_json::from_str(text)
                .map_err(|e| IndexError::Filter { what: format!("{text:?} is no filter as JSON: {e}") })?,
            Some(rest) => Self::not(rest.parse()?),
            None => condition(text),
        };
        filter.validate()?;
        Ok(filter)
    }
}

fn condition(text: &str) -> Filter {
    // The operator that comes first; of those that begin at one place the longest.
    const OPERATORS: [&str; 7] = ["!=", "<=", ">=", "=", "<", ">", " in "];
    let found = OPERATORS.iter().filter_map(|op| Some((text.find(op)?, *op)));
    let Some((at, operator)) = found.min_by_key(|(at, op)| (*at, std::cmp::Reverse(op.len()))) else {
        return Filter::Exists { field: text.into() };
    };
    let (field, right) = (text[..at].trim(), text[at + operator.len()..].trim());
    let one = || value(field, right);
    let range =
        |[gt, gte, lt, lte]: [Option<Value>; 4]| Filter::Range { field: field.into(), gt, gte, lt, lte };
    match operator {
        "=" => Filter::eq(field, one()),
        "!=" => Filter::not(Filter::eq(field, one())),
        "<" => range([None, None, Some(one()), None]),
        "<=" => range([None, None, None, Some(one())]),
        ">" => range([Some(one()), None, None, None]),
        ">=" => range([None, Some(one()), None, None]),
        _ => Filter::any_of(field, right.split(',').map(|part| value(field, part.trim()))),
    }
}

fn value(field: &str, text: &str) -> Value {
    let is_text = matches!(field, "key" | "class" | "super_class");
    match serde_json::from_str(text) {
        Ok(value @ Value::String(_)) => value,
        Ok(value) if !is_text => value,
        _ => Value::String(text.into()),
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
        assert_eq!(read("a != -1.5"), json!({"not": {"eq": {"field": "a", "value": -1.5}}}));
        assert_eq!(read("sold"), json!({"exists": {"field": "sold"}}));
        assert_eq!(read("not sold"), json!({"not": {"exists": {"field": "sold"}}}));
        assert_eq!(read("within = 3"), json!({"eq": {"field": "within", "value": 3}}));
        assert_eq!(read("a in 1, b ,\"2\""), json!({"in": {"field": "a", "values": [1, "b", "2"]}}));
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
    }
}
