//! A filter made ready for many items: names are resolved and lists of values sorted once.

use std::borrow::Cow;
use std::cmp::Ordering;

use serde_json::Value;
use unicode_normalization::UnicodeNormalization;

use super::value_order::{compare, compare_in_range, equal};
use super::{Field, Filter};
use crate::item::Item;

/// A filter made ready to be held against many items. From [`Filter::matcher`].
pub struct Matcher<'f>(pub(crate) Node<'f>);

/// A condition, or several combined.
pub(crate) enum Node<'f> {
    One(Field<'f>, Test<'f>),
    Not(Box<Node<'f>>),
    And(Vec<Node<'f>>),
    Or(Vec<Node<'f>>),
}

/// What a value of the field must be.
pub(crate) enum Test<'f> {
    /// One of these, which are sorted and different. Strings are there in both Unicode forms.
    OneOf(Vec<Cow<'f, Value>>),
    /// Within bounds, numbers or strings.
    Within(Bounds<'f>),
    /// Not null.
    Exists,
}

/// Bounds of a range.
#[derive(Clone, Copy)]
pub(crate) struct Bounds<'f> {
    pub(crate) gt: Option<&'f Value>,
    pub(crate) gte: Option<&'f Value>,
    pub(crate) lt: Option<&'f Value>,
    pub(crate) lte: Option<&'f Value>,
}

impl<'f> Matcher<'f> {
    pub(crate) fn new(filter: &'f Filter) -> Self {
        Self(Node::new(filter))
    }

    /// Whether an item meets the filter.
    pub fn matches(&self, item: &Item) -> bool {
        self.0.matches(item)
    }
}

impl<'f> Node<'f> {
    fn new(filter: &'f Filter) -> Self {
        let all = |filters: &'f [Filter]| filters.iter().map(Self::new).collect();
        match filter {
            Filter::Not(inner) => Self::Not(Box::new(Self::new(inner))),
            Filter::And(filters) => Self::And(all(filters)),
            Filter::Or(filters) => Self::Or(all(filters)),
            Filter::Eq { field, value } => {
                Self::One(Field::parse(field), Test::one_of(std::slice::from_ref(value)))
            }
            Filter::In { field, values } => Self::One(Field::parse(field), Test::one_of(values)),
            Filter::Range { field, gt, gte, lt, lte } => {
                let bounds =
                    Bounds { gt: gt.as_ref(), gte: gte.as_ref(), lt: lt.as_ref(), lte: lte.as_ref() };
                Self::One(Field::parse(field), Test::Within(bounds))
            }
            Filter::Exists { field } => Self::One(Field::parse(field), Test::Exists),
        }
    }

    fn matches(&self, item: &Item) -> bool {
        let text = |test: &Test<'_>, text: &str| test.accepts(&Value::String(text.to_owned()));
        match self {
            Self::Not(inner) => !inner.matches(item),
            Self::And(all) => all.iter().all(|node| node.matches(item)),
            Self::Or(any) => any.iter().any(|node| node.matches(item)),
            Self::One(Field::Key, test) => text(test, &item.key),
            Self::One(Field::Class, test) => item.class.as_ref().is_some_and(|class| text(test, class)),
            Self::One(Field::SuperClass, test) => {
                item.super_class.as_ref().is_some_and(|class| text(test, class))
            }
            Self::One(Field::Id, test) => test.accepts(&Value::from(item.id)),
            Self::One(Field::Metadata(name), test) => {
                item.metadata.get(*name).is_some_and(|value| test.accepts(value))
            }
        }
    }
}

impl<'f> Test<'f> {
    /// One text has several Unicode forms, and what is typed may be in another than what is stored.
    fn one_of(values: &'f [Value]) -> Self {
        let mut all: Vec<Cow<'f, Value>> = values.iter().map(Cow::Borrowed).collect();
        for text in values.iter().filter_map(Value::as_str).filter(|text| !text.is_ascii()) {
            all.push(Cow::Owned(Value::String(text.nfc().collect())));
            all.push(Cow::Owned(Value::String(text.nfd().collect())));
        }
        all.sort_by(|a, b| compare(a, b));
        all.dedup_by(|a, b| equal(a, b));
        Self::OneOf(all)
    }

    /// Whether a value of the field passes: of a list, one of its elements.
    pub(crate) fn accepts(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Exists, value) => !value.is_null(),
            (_, Value::Array(elements)) => elements.iter().any(|element| self.accepts(element)),
            (Self::OneOf(wanted), value) => wanted.binary_search_by(|w| compare(w, value)).is_ok(),
            (Self::Within(bounds), value) => bounds.hold(value),
        }
    }
}

impl Bounds<'_> {
    fn hold(&self, value: &Value) -> bool {
        let holds = |bound: Option<&Value>, accept: fn(Ordering) -> bool| {
            bound.is_none_or(|bound| compare_in_range(value, bound).is_some_and(accept))
        };
        holds(self.gt, Ordering::is_gt)
            && holds(self.gte, Ordering::is_ge)
            && holds(self.lt, Ordering::is_lt)
            && holds(self.lte, Ordering::is_le)
    }

    /// One of the bounds: all of a valid range are of one type.
    pub(crate) fn any(&self) -> Option<&Value> {
        self.gt.or(self.gte).or(self.lt).or(self.lte)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::item::NewItem;

    #[test]
    fn a_text_is_found_in_whatever_unicode_form_it_is_typed() {
        let (composed, decomposed) = ("gr\u{fc}n", "gru\u{308}n");
        for (stored, typed) in [(composed, decomposed), (decomposed, composed), (composed, composed)] {
            let mut item = NewItem::new(stored);
            item.metadata.insert("colour".into(), stored.into());
            let item = item.with_id(1);
            assert!(Filter::eq("colour", typed).matches(&item) && Filter::eq("key", typed).matches(&item));
            assert!(Filter::any_of("colour", ["red", typed]).matches(&item));
            assert!(!Filter::eq("colour", "grun").matches(&item));
        }
    }
}
