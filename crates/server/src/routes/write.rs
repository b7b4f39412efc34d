//! Adding, changing and deleting items. What was answered with success is durable.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use semblance_index::{IndexError, IndexWriter, Item, NewItem};
use semblance_query::{PhotoConfig, catalog};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;

use crate::app::{App, Shared, blocking};
use crate::extract::{OfIndex, OfItem, Pairs};
use crate::http::content::MediaType;
use crate::photo::{self, Upload};
use crate::pictures::{hex, upload_name};
use crate::problem::{Answer, Problem, ProblemBody};
use crate::shelf::Shelf;
use crate::view::ItemView;

/// Longest description of an item in bytes of JSON.
const DESCRIPTION: usize = 64 << 10;

/// What is known of an item.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Description {
    /// Unique name; a new item without one is named after its picture.
    key: Option<String>,
    /// Product.
    class: Option<String>,
    /// Category of the product.
    super_class: Option<String>,
    /// Whatever else is known of it.
    #[schema(value_type = Object)]
    metadata: Map<String, Value>,
}

/// The form of a new or changed item.
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes the form that `Upload` reads")]
pub(crate) struct ItemForm {
    /// The photograph: JPEG, PNG, WebP, GIF, BMP or TIFF.
    #[schema(format = Binary, value_type = String)]
    photo: Vec<u8>,
    /// What is known of it, as JSON.
    item: Description,
}

/// What was deleted.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Deleted {
    /// Number of items that went.
    deleted: usize,
}

/// A photograph that is to be an item's.
struct NewPhoto {
    bytes: Bytes,
    vector: Vec<f32>,
}

/// Add an item
///
/// As a form with the photograph in the field `photo` and its description as JSON in `item`, or as a body that is the
/// photograph with `key`, `class` and `super_class` in the address. A key that is taken is refused.
#[utoipa::path(
    post, path = "/v1/indexes/{index}/items", tag = "items",
    params(("index" = String, Path, description = "Name of the index")),
    request_body(content = ItemForm, content_type = "multipart/form-data"),
    responses(
        (status = 201, body = ItemView), (status = 400, body = ProblemBody), (status = 403, body = ProblemBody),
        (status = 404, body = ProblemBody), (status = 408, body = ProblemBody),
        (status = 409, body = ProblemBody, description = "The key is taken"), (status = 413, body = ProblemBody),
        (status = 415, body = ProblemBody), (status = 422, body = ProblemBody), (status = 503, body = ProblemBody),
        (status = 507, body = ProblemBody, description = "The disk is full"),
    ),
)]
pub(crate) async fn add(
    State(app): State<Shared>,
    OfIndex(shelf): OfIndex,
    pairs: Pairs,
    request: Request,
) -> Answer<(StatusCode, Json<ItemView>)> {
    writer(&shelf)?;
    let upload = Upload::read(&app, request).await?;
    let (description, photo) = (describe(&upload, &pairs)?, upload.one()?);
    let photo = embedded(&app, &shelf, photo).await?;
    let done = blocking(move || {
        let key = description.key.clone().unwrap_or_else(|| name_of(&photo.bytes));
        let _turn = shelf.lock_key(&key);
        if writer(&shelf)?.contains(&key)? {
            let message = format!("there is an item with the key {key:?} already: PUT replaces it");
            return Err(Problem::new(StatusCode::CONFLICT, "key_taken", message));
        }
        store(&shelf, key, description, None, Some(photo))
    });
    let item = done.await?;
    // Only now is the memory of the photograph given back.
    drop(upload);
    Ok((StatusCode::CREATED, Json(item)))
}

/// Add an item, or replace the one with its key
///
/// As adding one, with a key. Without a photograph, an item that is there keeps its own; the description alone can also
/// be sent as JSON.
#[utoipa::path(
    put, path = "/v1/indexes/{index}/items", tag = "items",
    params(("index" = String, Path, description = "Name of the index")),
    request_body(
        content((ItemForm = "multipart/form-data"), (Description = "application/json")),
    ),
    responses(
        (status = 200, body = ItemView), (status = 400, body = ProblemBody), (status = 403, body = ProblemBody),
        (status = 404, body = ProblemBody), (status = 408, body = ProblemBody), (status = 413, body = ProblemBody),
        (status = 415, body = ProblemBody), (status = 422, body = ProblemBody), (status = 503, body = ProblemBody),
        (status = 507, body = ProblemBody, description = "The disk is full"),
    ),
)]
pub(crate) async fn upsert(
    State(app): State<Shared>,
    OfIndex(shelf): OfIndex,
    pairs: Pairs,
    request: Request,
) -> Answer<Json<ItemView>> {
    writer(&shelf)?;
    let (description, photo, held) = if MediaType::of(request.headers())?.is("application/json") {
        let body = app.bodies.read(request.into_body()).await?;
        pairs.only(&[])?;
        (description(&body.bytes)?, None, None)
    } else {
        let upload = Upload::read(&app, request).await?;
        (describe(&upload, &pairs)?, upload.at_most_one()?, Some(upload))
    };
    let Some(key) = description.key.clone() else {
        return Err(Problem::bad_request("there is no key: it says which item is replaced"));
    };
    let photo = match photo {
        Some(photo) => Some(embedded(&app, &shelf, photo).await?),
        None => None,
    };
    let done = blocking(move || {
        let _turn = shelf.lock_key(&key);
        let writer = writer(&shelf)?;
        let before = writer.find(&key)?.map(|id| writer.item(id)).transpose()?.flatten();
        store(&shelf, key, description, before, photo)
    });
    let item = done.await?;
    drop(held);
    Ok(Json(item))
}

/// Delete an item
#[utoipa::path(
    delete, path = "/v1/indexes/{index}/items/{id}", tag = "items",
    params(
        ("index" = String, Path, description = "Name of the index"), ("id" = u64, Path, description = "Id of the item"),
    ),
    responses(
        (status = 200, body = Deleted), (status = 400, body = ProblemBody), (status = 403, body = ProblemBody),
        (status = 404, body = ProblemBody),
    ),
)]
pub(crate) async fn delete(OfItem(shelf, id): OfItem) -> Answer<Json<Deleted>> {
    let item = writer(&shelf)?.item(id)?.ok_or(IndexError::UnknownId { id })?;
    remove(shelf, item.key).await
}

/// Delete the item with a key
#[utoipa::path(
    delete, path = "/v1/indexes/{index}/items", tag = "items",
    params(
        ("index" = String, Path, description = "Name of the index"), ("key" = String, Query, description = "Its key"),
    ),
    responses(
        (status = 200, body = Deleted), (status = 400, body = ProblemBody), (status = 403, body = ProblemBody),
        (status = 404, body = ProblemBody),
    ),
)]
pub(crate) async fn delete_key(OfIndex(shelf): OfIndex, pairs: Pairs) -> Answer<Json<Deleted>> {
    writer(&shelf)?;
    pairs.only(&["key"])?;
    let key =
        pairs.one("key").ok_or_else(|| Problem::bad_request("there is no key: say which item to delete"))?;
    remove(shelf, key.to_owned()).await
}

async fn remove(shelf: Arc<Shelf>, key: String) -> Answer<Json<Deleted>> {
    blocking(move || {
        let _turn = shelf.lock_key(&key);
        let writer = writer(&shelf)?;
        let item = writer.find(&key)?.map(|id| writer.item(id)).transpose()?.flatten();
        let Some(item) = item else {
            return Err(Problem::not_found("unknown_item", format!("there is no item with the key {key:?}")));
        };
        let deleted = writer.delete(&[item.id])?;
        shelf.changed();
        if let Some(name) = upload_name(&item) {
            shelf.pictures.forget(name);
        }
        Ok(Json(Deleted { deleted }))
    })
    .await
}

/// The writer, or why there is none.
fn writer(shelf: &Shelf) -> Answer<&IndexWriter> {
    shelf.writer().ok_or_else(|| {
        let why = shelf.remark.as_deref().unwrap_or("the index is read-only");
        Problem::new(StatusCode::FORBIDDEN, "read_only", format!("nothing can be changed here: {why}"))
    })
}

/// The description that came with a photograph: the field `item`, or the address.
fn describe(upload: &Upload, pairs: &Pairs) -> Answer<Description> {
    pairs.only(&["key", "class", "super_class"])?;
    let one = |name: &str| pairs.one(name).map(str::to_owned);
    if let Some(unknown) = upload.fields.keys().find(|name| *name != "item") {
        let message = format!("there is no field {unknown:?}; there is: photo, item");
        return Err(Problem::bad_request(message));
    }
    let mut given = match upload.fields.get("item") {
        Some(text) => description(text.as_bytes())?,
        None => Description::default(),
    };
    given.key = given.key.or(one("key"));
    given.class = given.class.or(one("class"));
    given.super_class = given.super_class.or(one("super_class"));
    Ok(given)
}

fn description(json: &[u8]) -> Answer<Description> {
    if json.len() > DESCRIPTION {
        return Err(Problem::too_large(format!("the description has more than {DESCRIPTION} bytes")));
    }
    let given: Description = serde_json::from_slice(json).map_err(|error| {
        Problem::bad_request(format!("the item's description is not what is expected: {error}"))
    })?;
    if given.metadata.contains_key(catalog::PHOTO) {
        return Err(Problem::bad_request(format!("{:?} is kept for the program's own use", catalog::PHOTO)));
    }
    Ok(given)
}

async fn embedded(app: &App, shelf: &Shelf, bytes: Bytes) -> Answer<NewPhoto> {
    let (vector, _) = photo::embed(app, shelf, std::slice::from_ref(&bytes), PhotoConfig::default()).await?;
    Ok(NewPhoto { bytes, vector })
}

/// The name of an item that was given none: the same picture has the same name.
fn name_of(photo: &[u8]) -> String {
    format!("{}/{}", catalog::UPLOADS, hex(&Sha256::digest(photo)[..12]))
}

/// Writes picture and item; the caller has the key's turn. `before` is the item that is replaced, if there is one.
fn store(
    shelf: &Shelf,
    key: String,
    description: Description,
    before: Option<Item>,
    photo: Option<NewPhoto>,
) -> Answer<ItemView> {
    let Description { class, super_class, metadata, .. } = description;
    let mut item = NewItem { key, class, super_class, metadata };
    let old = before.as_ref().and_then(upload_name);
    let (vector, kept) = match (photo, &before) {
        (Some(photo), _) => {
            let kept = shelf.pictures.keep(&item.key, &photo.bytes).map_err(keeping_failed)?;
            (photo.vector, Some(kept))
        }
        (None, Some(before)) => (shelf.index.vector(before.id)?, old.map(str::to_owned)),
        (None, None) => {
            let message =
                format!("there is no item with the key {:?}: a new one needs a photograph", item.key);
            return Err(Problem::not_found("unknown_item", message));
        }
    };
    if let Some(kept) = &kept {
        item.metadata.insert(catalog::PHOTO.to_owned(), kept.clone().into());
    }
    let ids = writer(shelf)?.upsert(std::slice::from_ref(&item), &vector)?;
    // Only now is the picture the item had before nobody's.
    if let Some(old) = old
        && kept.as_deref() != Some(old)
    {
        shelf.pictures.forget(old);
    }
    shelf.changed();
    Ok(ItemView::of(item.with_id(ids[0]), shelf))
}

fn keeping_failed(error: std::io::Error) -> Problem {
    if matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded) {
        return IndexError::DiskFull { path: catalog::UPLOADS.into() }.into();
    }
    Problem::internal(error)
}
