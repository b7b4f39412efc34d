//! What the items of an index can be filtered by: classes, and metadata entries with few values.

use std::collections::BTreeMap;

use semblance_index::{Cancel, Index, IndexError};
use semblance_query::catalog;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

/// Values of a metadata entry beyond which they are no longer listed.
const LISTED: usize = 50;

/// Classes and attributes of an index's items.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct Facets {
    /// Number of items.
    pub(crate) items: usize,
    /// Classes by name.
    pub(crate) classes: Vec<Count>,
    /// Super classes by name.
    pub(crate) super_classes: Vec<Count>,
    /// Metadata entries by name.
    pub(crate) attributes: Vec<Attribute>,
}

/// A value and how many items have it.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct Count {
    /// The value.
    #[schema(value_type = Object)]
    pub(crate) value: Value,
    /// Items that have it.
    pub(crate) items: usize,
}

/// A metadata entry.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct Attribute {
    /// Its name.
    pub(crate) name: String,
    /// Items that have it.
    pub(crate) items: usize,
    /// Its values, empty if they are too many to list.
    pub(crate) values: Vec<Count>,
}

impl Facets {
    /// Counts them, unless that is cancelled before the end.
    pub(crate) fn of(index: &Index, cancel: &Cancel) -> Result<Self, IndexError> {
        let mut items = 0;
        let mut classes = BTreeMap::<String, usize>::new();
        let mut super_classes = BTreeMap::<String, usize>::new();
        let mut attributes = BTreeMap::<String, (usize, Option<BTreeMap<String, Count>>)>::new();
        index.for_each(|item, _| {
            cancel.check()?;
            items += 1;
            item.class.into_iter().for_each(|class| *classes.entry(class).or_default() += 1);
            item.super_class.into_iter().for_each(|class| *super_classes.entry(class).or_default() += 1);
            for (name, value) in item.metadata {
                if name == catalog::PHOTO || value.is_null() {
                    continue;
                }
                let (count, values) = attributes.entry(name).or_insert_with(|| (0, Some(BTreeMap::new())));
                *count += 1;
                let elements = match value {
                    Value::Array(elements) => elements,
                    other => vec![other],
                };
                for value in elements {
                    let Some(listed) = values else { break };
                    listed.entry(value.to_string()).or_insert(Count { value, items: 0 }).items += 1;
                    if listed.len() > LISTED {
                        *values = None;
                    }
                }
            }
            Ok(())
        })?;
        let counts = |map: BTreeMap<String, usize>| {
            map.into_iter().map(|(value, items)| Count { value: value.into(), items }).collect()
        };
        let attributes = attributes.into_iter().map(|(name, (items, values))| Attribute {
            name,
            items,
            values: values.unwrap_or_default().into_values().collect(),
        });
        Ok(Self {
            items,
            classes: counts(classes),
            super_classes: counts(super_classes),
            attributes: attributes.collect(),
        })
    }
}
