//! Conditions on items, and whether an item meets them.
//!
//! A field is `key`, `class`, `super_class`, `id`, or the name of a metadata entry (`metadata.` in front says so where
//! an entry has one of those four names). Values are compared by type: numbers with numbers, whatever their notation
//! (`1` equals `1.0`) and without loss of digits, strings with strings in byte order; a string equals itself in another
//! Unicode form. A list meets a condition if one of its elements does. A missing field meets no condition, so
//! [`Filter::Not`] of one accepts it.

mod columns;
mod columns_file;
mod filter_warning;
mod matcher;
mod text;
mod value_kinds;
mod value_order;
mod warnings;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(crate) use self::columns::{Columns, ColumnsBuilder};
pub use self::filter_warning::FilterWarning;
pub use self::matcher::Matcher;
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

    /// How a filter names a metadata entry: with `metadata.` in front where the name alone means the item's own field or
    /// begins so itself.
    ///
    /// ```
    /// use semblance_index::Filter;
    ///
    /// assert_eq!(Filter::metadata_field("price"), "price");
    /// assert_eq!(Filter::metadata_field("class"), "metadata.class");
    /// ```
    pub fn metadata_field(entry: &str) -> Cow<'_, str> {
        match Field::parse(entry) {
            Field::Metadata(name) if name.len() == entry.len() => Cow::Borrowed(entry),
            _ => Cow::Owned(format!("metadata.{entry}")),
        }
    }

    /// Most conditions of a filter, those that combine others included.
    pub const MAX_CONDITIONS: usize = 1_024;
    /// Most values that all conditions of a filter compare with; what lists and objects hold counts too.
    pub const MAX_VALUES: usize = 65_536;
    /// How deep conditions, and lists and objects within their values, can lie within each other.
    pub const MAX_DEPTH: usize = 32;
    /// Longest name of a field in bytes.
    pub const MAX_FIELD_BYTES: usize = 4_096;

    /// Refuses conditions that could never be meant (empty names, bounds of mixed or unordered types), and filters that
    /// are larger than the limits above.
    ///
    /// # Errors
    /// [`IndexError::Filter`] with what is wrong.
    pub fn validate(&self) -> Result<()> {
        self.measure(&mut Size::default(), 1)
    }

    fn measure(&self, size: &mut Size, depth: usize) -> Result<()> {
        size.conditions += 1;
        if size.conditions > Self::MAX_CONDITIONS {
            return refused(format!(
                "it has more than {} conditions: list values that one field may have with `in`",
                Self::MAX_CONDITIONS
            ));
        }
        if depth > Self::MAX_DEPTH {
            return refused(too_deep("its conditions"));
        }
        match self {
            Self::Not(inner) => inner.measure(size, depth + 1),
            Self::And(all) | Self::Or(all) => all.iter().try_for_each(|f| f.measure(size, depth + 1)),
            Self::Eq { field, value } => check_name(field).and_then(|()| size.add(value, 1)),
            Self::In { field, values } => {
                check_name(field)?;
                values.iter().try_for_each(|value| size.add(value, 1))
            }
            Self::Exists { field } => check_name(field),
            Self::Range { field, gt, gte, lt, lte } => {
                check_name(field)?;
                let bounds: Vec<&Value> = [gt, gte, lt, lte].into_iter().flatten().collect();
                if bounds.is_empty() {
                    return refused(format!("the range of {field:?} has no bound: give gt, gte, lt or lte"));
                }
                if !(bounds.iter().all(|b| b.is_number()) || bounds.iter().all(|b| b.is_string())) {
                    return refused(format!("the bounds of {field:?} must be all numbers or all strings"));
                }
                Ok(())
            }
        }
    }

    /// Whether an item meets the condition. For many items, [`Self::matcher`] is quicker.
    pub fn matches(&self, item: &Item) -> bool {
        self.matcher().matches(item)
    }

    /// The filter made ready for many items.
    pub fn matcher(&self) -> Matcher<'_> {
        Matcher::new(self)
    }
}

/// What a filter's limits count.
#[derive(Default)]
struct Size {
    conditions: usize,
    values: usize,
}

impl Size {
    fn add(&mut self, value: &Value, depth: usize) -> Result<()> {
        self.values += 1;
        if self.values > Filter::MAX_VALUES {
            return refused(format!("it compares with more than {} values", Filter::MAX_VALUES));
        }
        if depth > Filter::MAX_DEPTH {
            return refused(too_deep("one of its values"));
        }
        match value {
            Value::Array(elements) => elements.iter().try_for_each(|element| self.add(element, depth + 1)),
            Value::Object(entries) => entries.values().try_for_each(|entry| self.add(entry, depth + 1)),
            _ => Ok(()),
        }
    }
}

fn check_name(field: &str) -> Result<()> {
    match field.len() {
        0 => refused("a field has no name".into()),
        1..=Filter::MAX_FIELD_BYTES => Ok(()),
        _ => refused(format!("the name of a field has more than {} bytes", Filter::MAX_FIELD_BYTES)),
    }
}

fn too_deep(what: &str) -> String {
    format!("{what} lie more than {} deep within each other", Filter::MAX_DEPTH)
}

fn refused<T>(what: String) -> Result<T> {
    Err(IndexError::Filter { what })
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

    #[test]
    fn filters_beyond_the_limits_are_refused() {
        let refused = |filter: Filter| filter.validate().unwrap_err().to_string();
        let leaf = || Filter::eq("price", 1);
        let many = |n: usize| Filter::Or((0..n).map(|_| leaf()).collect());
        many(Filter::MAX_CONDITIONS - 1).validate().unwrap();
        assert!(refused(many(Filter::MAX_CONDITIONS)).contains("more than 1024 conditions"));
        let values = |n: usize| Filter::any_of("price", 0..n);
        values(Filter::MAX_VALUES).validate().unwrap();
        assert!(refused(values(Filter::MAX_VALUES + 1)).contains("more than 65536 values"));
        let objects = Filter::any_of("price", (0..40_000).map(|_| json!({"": 0})));
        assert!(refused(objects).contains("more than 65536 values"));
        let deep = |n: usize| (1..n).fold(leaf(), |inner, _| Filter::not(inner));
        deep(Filter::MAX_DEPTH).validate().unwrap();
        assert!(refused(deep(Filter::MAX_DEPTH + 1)).contains("more than 32 deep"));
        let nested = (0..Filter::MAX_DEPTH).fold(json!(0), |inner, _| json!([inner]));
        assert!(refused(Filter::eq("price", nested)).contains("more than 32 deep"));
        assert!(refused(Filter::eq("x".repeat(5000), 1)).contains("more than 4096 bytes"));
    }
}
