//! Conditions on items, and whether an item meets them.
//!
//! A field is `key`, `class`, `super_class`, `id`, or the name of a metadata entry (`metadata.` in front says so where
//! an entry has one of those four names). Values are compared by type: numbers with numbers, whatever their notation
//! (`1` equals `1.0`), strings with strings in byte order. A list meets a condition if one of its elements does. A
//! missing field meets no condition, so [`Filter::Not`] of one accepts it.

mod columns;
mod text;

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(crate) use self::columns::Columns;
use crate::error::{IndexError, Result};
use crate::item::Item;

/// A condition on items. In JSON: `{"eq": {"field": "class", "value": "shoe"}}`, `{"and": [..]}` and so on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Filter {
    /// The field has this value.
    Eq {
        /// Name of the field.
        field: String,
        /// The value.
        value: Value,
    },
    /// The field has one of these values.
    In {
        /// Name of the field.
        field: String,
        /// The values.
        values: Vec<Value>,
    },
    /// The field lies within bounds, numbers or strings; at least one bound is given.
    Range {
        /// Name of the field.
        field: String,
        /// Greater than this.
        #[serde(default)]
        gt: Option<Value>,
        /// At least this.
        #[serde(default)]
        gte: Option<Value>,
        /// Less than this.
        #[serde(default)]
        lt: Option<Value>,
        /// At most this.
        #[serde(default)]
        lte: Option<Value>,
    },
    /// The field is there, and not null.
    Exists {
        /// Name of the field.
        field: String,
    },
    /// The condition is not met.
    Not(Box<Filter>),
    /// All are met.
    And(Vec<Filter>),
    /// At least one is met.
    Or(Vec<Filter>),
}

impl Filter {
    /// The field has this value.
    pub fn eq(field: impl Into<String>, value: impl Into<Value>) -> Self {
        Self::Eq { field: field.into(), value: value.into() }
    }

    /// The field has one of these values.
    pub fn any_of<V: Into<Value>>(field: impl Into<String>, values: impl IntoIterator<Item = V>) -> Self {
        Self::In { field: field.into(), values: values.into_iter().map(Into::into).collect() }
    }

    /// The field lies within `[low, high)`.
    pub fn range(field: impl Into<String>, low: impl Into<Value>, high: impl Into<Value>) -> Self {
        Self::Range { field: field.into(), gt: None, gte: Some(low.into()), lt: Some(high.into()), lte: None }
    }

    /// The condition is not met.
    #[allow(clippy::should_implement_trait)]
    pub fn not(filter: Filter) -> Self {
        Self::Not(Box::new(filter))
    }

    /// Refuses conditions that could never be meant: empty names, bounds of mixed or unordered types.
    pub fn validate(&self) -> Result<()> {
        let bad = |what: String| Err(IndexError::Filter { what });
        match self {
            Self::Eq { field, .. } | Self::In { field, .. } | Self::Exists { field } if field.is_empty() => {
                bad("a field has no name".into())
            }
            Self::Eq { .. } | Self::In { .. } | Self::Exists { .. } => Ok(()),
            Self::Range { field, gt, gte, lt, lte } => {
                let bounds: Vec<&Value> = [gt, gte, lt, lte].into_iter().flatten().collect();
                if field.is_empty() {
                    bad("a field has no name".into())
                } else if bounds.is_empty() {
                    bad(format!("the range of {field:?} has no bound: give gt, gte, lt or lte"))
                } else if !(bounds.iter().all(|b| b.is_number()) || bounds.iter().all(|b| b.is_string())) {
                    bad(format!("the bounds of {field:?} must be all numbers or all strings"))
                } else {
                    Ok(())
                }
            }
            Self::Not(inner) => inner.validate(),
            Self::And(all) | Self::Or(all) => all.iter().try_for_each(Self::validate),
        }
    }

    /// Whether an item meets the condition.
    pub fn matches(&self, item: &Item) -> bool {
        match self {
            Self::Not(inner) => !inner.matches(item),
            Self::And(all) => all.iter().all(|f| f.matches(item)),
            Self::Or(any) => any.iter().any(|f| f.matches(item)),
            leaf => match leaf.field() {
                Some(Field::Key) => leaf.accepts(&Value::String(item.key.clone())),
                Some(Field::Class) => {
                    item.class.as_ref().is_some_and(|c| leaf.accepts(&Value::String(c.clone())))
                }
                Some(Field::SuperClass) => {
                    item.super_class.as_ref().is_some_and(|c| leaf.accepts(&Value::String(c.clone())))
                }
                Some(Field::Id) => leaf.accepts(&Value::from(item.id)),
                Some(Field::Metadata(name)) => item.metadata.get(name).is_some_and(|v| leaf.accepts(v)),
                None => false,
            },
        }
    }

    /// The field a condition on one field asks for.
    pub(crate) fn field(&self) -> Option<Field<'_>> {
        match self {
            Self::Eq { field, .. }
            | Self::In { field, .. }
            | Self::Range { field, .. }
            | Self::Exists { field } => Some(Field::parse(field)),
            Self::Not(_) | Self::And(_) | Self::Or(_) => None,
        }
    }

    /// Whether a value of the field meets a condition on one field.
    pub(crate) fn accepts(&self, value: &Value) -> bool {
        if let (Value::Array(elements), false) = (value, matches!(self, Self::Exists { .. })) {
            return elements.iter().any(|e| self.accepts(e));
        }
        match self {
            Self::Eq { value: wanted, .. } => equal(value, wanted),
            Self::In { values, .. } => values.iter().any(|wanted| equal(value, wanted)),
            Self::Range { gt, gte, lt, lte, .. } => {
                let holds = |bound: &Option<Value>, accept: fn(Ordering) -> bool| {
                    bound.as_ref().is_none_or(|b| compare(value, b).is_some_and(accept))
                };
                holds(gt, Ordering::is_gt)
                    && holds(gte, Ordering::is_ge)
                    && holds(lt, Ordering::is_lt)
                    && holds(lte, Ordering::is_le)
            }
            Self::Exists { .. } => !value.is_null(),
            Self::Not(_) | Self::And(_) | Self::Or(_) => false,
        }
    }
}

/// What a field's name refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Field<'a> {
    Key,
    Class,
    SuperClass,
    Id,
    Metadata(&'a str),
}

impl<'a> Field<'a> {
    fn parse(name: &'a str) -> Self {
        match name {
            "key" => Self::Key,
            "class" => Self::Class,
            "super_class" => Self::SuperClass,
            "id" => Self::Id,
            other => Self::Metadata(other.strip_prefix("metadata.").unwrap_or(other)),
        }
    }
}

fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(_), Value::Number(_)) => compare(a, b) == Some(Ordering::Equal),
        _ => a == b,
    }
}

/// Order of two values of one type; `None` across types.
pub(crate) fn compare(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Number(x), Value::Number(y)) => match (x.as_i64(), y.as_i64(), x.as_u64(), y.as_u64()) {
            // Integers beyond 2^53 would lose digits as floats.
            (Some(x), Some(y), ..) => Some(x.cmp(&y)),
            (.., Some(x), Some(y)) => Some(x.cmp(&y)),
            _ => x.as_f64()?.partial_cmp(&y.as_f64()?),
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::item::NewItem;
    use serde_json::json;

    fn item() -> Item {
        let mut item = NewItem::new("shop/1.jpg");
        item.class = Some("shoe".into());
        item.metadata = json!({"price": 20, "colours": ["red", "blue"], "big": 9007199254740993u64, "none": null, "class": "x"})
            .as_object()
            .unwrap()
            .clone();
        item.with_id(7)
    }

    fn holds(filter: Value) -> bool {
        let filter: Filter = serde_json::from_value(filter).unwrap();
        filter.validate().unwrap();
        filter.matches(&item())
    }

    #[test]
    fn equality_goes_by_type_and_value() {
        assert!(holds(json!({"eq": {"field": "class", "value": "shoe"}})));
        assert!(holds(json!({"eq": {"field": "metadata.class", "value": "x"}})));
        assert!(holds(json!({"eq": {"field": "price", "value": 20.0}})));
        assert!(!holds(json!({"eq": {"field": "price", "value": "20"}})));
        assert!(holds(json!({"eq": {"field": "id", "value": 7}})));
        assert!(holds(json!({"eq": {"field": "key", "value": "shop/1.jpg"}})));
        assert!(!holds(json!({"eq": {"field": "big", "value": 9007199254740992u64}})));
        assert!(!holds(json!({"eq": {"field": "super_class", "value": "x"}})));
    }

    #[test]
    fn lists_match_by_element() {
        assert!(holds(json!({"eq": {"field": "colours", "value": "blue"}})));
        assert!(holds(json!({"in": {"field": "colours", "values": ["green", "red"]}})));
        assert!(!holds(json!({"in": {"field": "colours", "values": ["green"]}})));
    }

    #[test]
    fn ranges_hold_their_bounds() {
        assert!(holds(json!({"range": {"field": "price", "gte": 20, "lt": 21}})));
        assert!(!holds(json!({"range": {"field": "price", "gt": 20}})));
        assert!(holds(json!({"range": {"field": "price", "lte": 20.5}})));
        assert!(!holds(json!({"range": {"field": "class", "lt": 5}})));
        assert!(holds(json!({"range": {"field": "class", "gte": "s"}})));
    }

    #[test]
    fn conditions_combine_and_missing_fields_meet_none() {
        assert!(!holds(json!({"eq": {"field": "weight", "value": 1}})));
        assert!(holds(json!({"not": {"eq": {"field": "weight", "value": 1}}})));
        assert!(!holds(json!({"exists": {"field": "none"}})));
        assert!(holds(json!({"exists": {"field": "colours"}})));
        assert!(holds(
            json!({"and": [{"exists": {"field": "price"}}, {"or": [{"eq": {"field": "id", "value": 1}}, {"eq": {"field": "id", "value": 7}}]}]})
        ));
        assert!(holds(json!({"and": []})) && !holds(json!({"or": []})));
    }

    #[test]
    fn meaningless_filters_are_refused() {
        let refused =
            |v: Value| serde_json::from_value::<Filter>(v).unwrap().validate().unwrap_err().to_string();
        assert!(refused(json!({"range": {"field": "price"}})).contains("no bound"));
        assert!(refused(json!({"range": {"field": "price", "gt": 1, "lt": "b"}})).contains("all numbers"));
        assert!(refused(json!({"not": {"eq": {"field": "", "value": 1}}})).contains("no name"));
    }
}
