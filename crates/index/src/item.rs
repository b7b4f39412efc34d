//! Items: the key, class and metadata that belong to a vector.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Longest key, in bytes.
pub const MAX_KEY_BYTES: usize = 4096;

/// How deep lists and objects of metadata can lie within each other.
pub const MAX_METADATA_DEPTH: usize = 64;

/// An item on its way into the index.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NewItem {
    /// Unique name, such as the path of the photograph within its catalogue; adding it again replaces the item.
    pub key: String,
    /// Product, if known: what a search should find again.
    #[serde(default)]
    pub class: Option<String>,
    /// Category of the product, if known.
    #[serde(default)]
    pub super_class: Option<String>,
    /// Anything else, as typed JSON values; filters can ask for it.
    #[serde(default)]
    pub metadata: Map<String, Value>,
}

impl NewItem {
    /// An item that is nothing but its key.
    pub fn new(key: impl Into<String>) -> Self {
        Self { key: key.into(), ..Self::default() }
    }

    /// Gives the item an id.
    pub fn with_id(self, id: u64) -> Item {
        Item { id, key: self.key, class: self.class, super_class: self.super_class, metadata: self.metadata }
    }
}

/// An item of the index.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// Number given by the index: counts up, is kept when the item is replaced, never used twice.
    pub id: u64,
    /// See [`NewItem::key`].
    pub key: String,
    /// See [`NewItem::class`].
    pub class: Option<String>,
    /// See [`NewItem::super_class`].
    pub super_class: Option<String>,
    /// See [`NewItem::metadata`].
    pub metadata: Map<String, Value>,
}

impl From<Item> for NewItem {
    fn from(item: Item) -> Self {
        Self { key: item.key, class: item.class, super_class: item.super_class, metadata: item.metadata }
    }
}
