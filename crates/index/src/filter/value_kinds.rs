//! Which kinds of values a field has.

use serde_json::Value;

/// A set of kinds of JSON values. Of a list, the kinds of its elements.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Kinds(u8);

/// Bit and name of each kind.
const NAMES: [(u8, &str); 5] =
    [(1, "true or false"), (2, "numbers"), (4, "text"), (8, "lists"), (16, "objects")];

impl Kinds {
    /// The kind of one value; null has none.
    pub(crate) fn of(value: &Value) -> Self {
        Self(match value {
            Value::Null => 0,
            Value::Bool(_) => 1,
            Value::Number(_) => 2,
            Value::String(_) => 4,
            Value::Array(_) => 8,
            Value::Object(_) => 16,
        })
    }

    /// These, and those of a field's value.
    pub(crate) fn with(self, value: &Value) -> Self {
        match value {
            Value::Array(elements) => elements.iter().fold(self, |kinds, e| kinds.and(Self::of(e))),
            other => self.and(Self::of(other)),
        }
    }

    /// The union.
    pub(crate) fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether both have a kind in common.
    pub(crate) fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether all of these are among the others.
    pub(crate) fn within(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    /// The kinds in words.
    pub(crate) fn words(self) -> String {
        let names: Vec<&str> =
            NAMES.iter().filter(|(bit, _)| self.0 & bit != 0).map(|(_, name)| *name).collect();
        names.join(" and ")
    }
}
