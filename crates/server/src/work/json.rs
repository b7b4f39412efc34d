//! The memory that parsed JSON takes, bounded before parsing by counting brackets and commas.
//!
//! A few bytes of JSON can take hundreds in memory (`{"":0}` is a map with a node of its own), so the size of a body is
//! no bound. The scan needs no memory, never counts too little, and leaves it to the parser to find what is malformed.

use serde::de::DeserializeOwned;

use crate::problem::{Answer, Problem};

/// Bounds of any JSON that comes with a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct JsonLimits {
    /// Most bytes.
    pub(crate) bytes: usize,
    /// Most values; lists and objects are values, too.
    pub(crate) values: usize,
    /// Most lists and objects within each other.
    pub(crate) depth: usize,
}

impl Default for JsonLimits {
    fn default() -> Self {
        // A vector of the largest dimension, and a filter with as many values as it may have.
        Self { bytes: 4 << 20, values: 1 << 17, depth: 64 }
    }
}

/// Bytes in memory for a value, an entry's name included.
const VALUE: usize = 96;
/// Bytes in memory for the first node of a map.
const CONTAINER: usize = 704;

/// What JSON consists of, at most.
#[derive(Debug, Default, PartialEq, Eq)]
struct Shape {
    values: usize,
    containers: usize,
    depth: usize,
}

impl Shape {
    fn of(json: &[u8]) -> Self {
        let mut shape = Self { values: 1, ..Self::default() };
        let (mut depth, mut bytes) = (0usize, json.iter());
        while let Some(byte) = bytes.next() {
            match byte {
                b'"' => {
                    while let Some(byte) = bytes.next()
                        && *byte != b'"'
                    {
                        if *byte == b'\\' {
                            bytes.next();
                        }
                    }
                }
                b'[' | b'{' => {
                    depth += 1;
                    shape.depth = shape.depth.max(depth);
                    shape.containers += 1;
                    shape.values += 1;
                }
                b']' | b'}' => depth = depth.saturating_sub(1),
                b',' => shape.values += 1,
                _ => {}
            }
        }
        shape
    }
}

impl JsonLimits {
    /// Bytes that the JSON takes once it is read, at most.
    ///
    /// # Errors
    /// JSON beyond the limits.
    pub(crate) fn cost(&self, json: &[u8]) -> Answer<usize> {
        let too_much = |what: &str, count: usize, limit: usize| {
            Err(Problem::too_large(format!("the JSON has {count} {what}, more than the limit of {limit}")))
        };
        if json.len() > self.bytes {
            return too_much("bytes", json.len(), self.bytes);
        }
        let shape = Shape::of(json);
        if shape.depth > self.depth {
            return too_much("lists and objects within each other", shape.depth, self.depth);
        }
        if shape.values > self.values {
            return too_much("values", shape.values, self.values);
        }
        Ok(2 * json.len() + VALUE * shape.values + CONTAINER * shape.containers)
    }
}

/// Reads JSON whose cost is known to be borne. `what` names it.
pub(super) fn read<T: DeserializeOwned>(json: &[u8], what: &str) -> Answer<T> {
    serde_json::from_slice(json)
        .map_err(|error| Problem::bad_request(format!("{what} is not what is expected: {error}")))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn nothing_is_counted_too_low() {
        fn count(value: &Value) -> (usize, usize, usize) {
            let inner: Vec<_> = match value {
                Value::Array(elements) => elements.iter().map(count).collect(),
                Value::Object(entries) => entries.values().map(count).collect(),
                _ => return (1, 0, 0),
            };
            let sum = inner.iter().fold((1, 1, 0), |a, b| (a.0 + b.0, a.1 + b.1, a.2.max(b.2)));
            (sum.0, sum.1, sum.2 + 1)
        }
        for json in [
            "0",
            "[]",
            r#"{"a":[1,2,{"b":"],[,{\"\\"}],"]":{}}"#,
            r#"["\\","\"",["{"]]"#,
            r#"[[[[[[1]]]],{"":0},{"":0}]]"#,
        ] {
            let (values, containers, depth) = count(&serde_json::from_str(json).unwrap());
            let shape = Shape::of(json.as_bytes());
            assert!(shape.values >= values && shape.values <= 2 * values + 1, "{json}: {shape:?}");
            assert_eq!((shape.containers, shape.depth), (containers, depth), "{json}");
        }
        // Malformed JSON is no reason to panic.
        for json in ["\"", "\"\\", "]]]]", "{", ""] {
            Shape::of(json.as_bytes());
        }
    }

    #[test]
    fn json_beyond_the_limits_is_refused() {
        let limits = JsonLimits { bytes: 1000, values: 20, depth: 4 };
        let status = |json: &str| limits.cost(json.as_bytes()).map_err(|problem| problem.status().as_u16());
        assert!(status("[1,2,3]").is_ok());
        assert_eq!(status(&format!("\"{}\"", "x".repeat(1000))), Err(413));
        assert_eq!(status(&format!("[{}0]", "0,".repeat(20))), Err(413));
        assert_eq!(status("[[[[[]]]]]"), Err(413));
        assert!(status("[{},{}]").unwrap() > 2 * CONTAINER);
    }
}
