//! Items and hits as answers show them.

use semblance_index::{Filter, Item};
use semblance_query::{Hit, catalog};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::pictures::upload_name;
use crate::shelf::Shelf;

/// An item.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct ItemView {
    /// Number given by the index; never used twice.
    pub(crate) id: u64,
    /// Unique name.
    pub(crate) key: String,
    /// Product.
    pub(crate) class: Option<String>,
    /// Category of the product.
    pub(crate) super_class: Option<String>,
    /// Whatever else is known of it.
    #[schema(value_type = Object)]
    pub(crate) metadata: Map<String, Value>,
    /// Whether its picture came in through this server.
    pub(crate) uploaded: bool,
    /// Address of its picture.
    pub(crate) photo: String,
    /// Address of a small version of its picture.
    pub(crate) thumbnail: String,
    /// What to know of an item that was just stored, such as metadata that filters call by another name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub(crate) warnings: Vec<String>,
}

/// A found item.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct HitView {
    /// Place among the hits, from 1.
    pub(crate) rank: usize,
    /// Cosine of the query and the item, greater is closer.
    pub(crate) score: f32,
    /// The item.
    #[serde(flatten)]
    pub(crate) item: ItemView,
}

impl ItemView {
    pub(crate) fn of(item: Item, shelf: &Shelf) -> Self {
        let uploaded = upload_name(&item).is_some();
        let Item { id, key, class, super_class, mut metadata } = item;
        metadata.remove(catalog::PHOTO);
        let items = &shelf.items_address;
        let (photo, thumbnail) = (format!("{items}/{id}/photo"), format!("{items}/{id}/thumbnail"));
        Self { id, key, class, super_class, metadata, uploaded, photo, thumbnail, warnings: Vec::new() }
    }

    /// As [`of`](Self::of), for an item that was just stored: with warnings of metadata whose name means the item's own
    /// field in a filter.
    pub(crate) fn stored(item: Item, shelf: &Shelf) -> Self {
        let view = Self::of(item, shelf);
        let own = |name: &str| match name {
            "class" => view.class.as_deref(),
            "super_class" => view.super_class.as_deref(),
            _ => None,
        };
        let differs =
            |(name, value): &(&String, &Value)| own(name).is_none_or(|own| value.as_str() != Some(own));
        let fields =
            view.metadata.iter().filter(differs).map(|(name, _)| (name, Filter::metadata_field(name)));
        let shadowed = fields.filter(|(name, field)| *name != field);
        let warning = |(name, field): (&String, _)| {
            format!(
                "the metadata {name:?} is not what {name:?} means in a filter, which is the item's own field: write \
                 {field:?} there, or rename it"
            )
        };
        let warnings = shadowed.map(warning).collect();
        Self { warnings, ..view }
    }
}

/// Hits in order.
pub(crate) fn hits(found: Vec<Hit>, shelf: &Shelf) -> Vec<HitView> {
    let view = |hit: Hit| HitView { rank: hit.rank, score: hit.score, item: ItemView::of(hit.item, shelf) };
    found.into_iter().map(view).collect()
}

/// A name as a part of an address.
pub(crate) fn encoded(name: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    name.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_in_addresses() {
        assert_eq!(super::encoded("shop-1.x"), "shop-1.x");
        assert_eq!(super::encoded("a b/ü"), "a%20b%2F%C3%BC");
    }
}
