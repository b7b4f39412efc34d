//! What is known of an item, as it comes with a request.

use semblance_query::catalog;
use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;

use crate::app::App;
use crate::extract::Pairs;
use crate::photo::Upload;
use crate::problem::{Answer, Problem};
use crate::work::RequestHash;

/// Longest description of an item in bytes of JSON.
pub(super) const DESCRIPTION: usize = 64 << 10;

/// What is known of an item.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Description {
    /// Unique name; a new item without one is named after its picture.
    pub(super) key: Option<String>,
    /// Product.
    pub(super) class: Option<String>,
    /// Category of the product.
    pub(super) super_class: Option<String>,
    /// Whatever else is known of it.
    #[schema(value_type = Object)]
    pub(super) metadata: Map<String, Value>,
}

impl Description {
    /// The description that came with a photograph: the field `item`, or the address.
    pub(super) fn with(app: &App, upload: &Upload, pairs: &Pairs) -> Answer<Self> {
        pairs.only(&["key", "class", "super_class"])?;
        let one = |name: &str| pairs.one(name).map(str::to_owned);
        if let Some(unknown) = upload.fields.keys().find(|name| *name != "item") {
            let message = format!("there is no field {unknown:?}; there is: photo, item");
            return Err(Problem::bad_request(message));
        }
        let mut given = match upload.fields.get("item") {
            Some(text) => Self::read(app, text.as_bytes())?,
            None => Self::default(),
        };
        given.key = given.key.or(one("key"));
        given.class = given.class.or(one("class"));
        given.super_class = given.super_class.or(one("super_class"));
        Ok(given)
    }

    /// A description as JSON.
    pub(super) fn read(app: &App, json: &[u8]) -> Answer<Self> {
        if json.len() > DESCRIPTION {
            return Err(Problem::too_large(format!("the description has more than {DESCRIPTION} bytes")));
        }
        // So little takes so little that its share need not be kept.
        let (given, _) = app.bodies.parse::<Self>(json, "the item's description")?;
        if given.metadata.contains_key(catalog::PHOTO) {
            let message = format!("{:?} is kept for the program's own use", catalog::PHOTO);
            return Err(Problem::bad_request(message));
        }
        Ok(given)
    }

    /// What tells a request from others: the method, the description and the photograph.
    pub(super) fn hash(&self, method: &str, photo: Option<&[u8]>) -> RequestHash {
        let Self { key, class, super_class, metadata } = self;
        let text =
            serde_json::json!([method, key, class, super_class, metadata, photo.is_some()]).to_string();
        let digest = Sha256::digest(photo.unwrap_or_default());
        Sha256::new().chain_update(digest).chain_update(text).finalize().into()
    }
}
