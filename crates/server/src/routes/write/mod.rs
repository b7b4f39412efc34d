//! Adding, changing and deleting items. What was answered with success is durable.

mod commit;
mod description;

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use semblance_index::{IndexError, IndexWriter};
use semblance_query::{PhotoConfig, catalog};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;

use self::commit::{NewPhoto, Start, commit, is_same, start, store};
pub(crate) use self::description::Description;
use crate::app::{App, Shared};
use crate::extract::{OfIndex, OfItem, Pairs};
use crate::http::content::MediaType;
use crate::photo::{self, Upload};
use crate::pictures::{hex, upload_name};
use crate::problem::{Answer, Problem, ProblemBody};
use crate::shelf::Shelf;
use crate::view::ItemView;
use crate::work::{Work, key_of};

/// What names a request, so that it is done once however often it is sent.
pub(crate) struct Repeatable(Option<String>);

impl FromRequestParts<Shared> for Repeatable {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _app: &Shared) -> Answer<Self> {
        Ok(Self(key_of(&parts.headers)?.map(str::to_owned)))
    }
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

/// Add an item
///
/// As a form with the photograph in the field `photo` and its description as JSON in `item`, or as a body that is the
/// photograph with `key`, `class` and `super_class` in the address. A key that is taken is refused.
/// With the header `Idempotency-Key` the request can be repeated: it is done once, and answered alike.
#[utoipa::path(
    post, path = "/v1/indexes/{index}/items", tag = "items",
    params(
        ("index" = String, Path, description = "Name of the index"),
        ("Idempotency-Key" = Option<String>, Header, description = "Up to 255 characters: the request is done once, however \
         often it is sent"),
    ),
    request_body(content = ItemForm, content_type = "multipart/form-data"),
    responses(
        (status = 201, body = ItemView), (status = 400, body = ProblemBody), (status = 403, body = ProblemBody),
        (status = 404, body = ProblemBody), (status = 408, body = ProblemBody),
        (status = 409, body = ProblemBody, description = "The key is taken"), (status = 413, body = ProblemBody),
        (status = 415, body = ProblemBody),
        (status = 422, body = ProblemBody, description = "No picture, a damaged one, or a key of another request"),
        (status = 503, body = ProblemBody, description = "`busy`: nothing was changed; `outcome_unknown`: it may have been"),
        (status = 507, body = ProblemBody, description = "The disk is full"),
    ),
)]
pub(crate) async fn add(
    State(app): State<Shared>,
    OfIndex(shelf): OfIndex,
    work: Work,
    repeatable: Repeatable,
    pairs: Pairs,
    request: Request,
) -> Answer<Response> {
    writer(&shelf)?;
    let upload = Upload::read(&app, request).await?;
    let (description, photo) = (Description::with(&app, &upload, &pairs)?, upload.one()?);
    let hash = description.hash("POST", Some(&photo));
    let pending = match start(&app, &shelf, repeatable.0.as_deref(), hash).await? {
        Start::Do(pending) => pending,
        Start::Done(response) => return Ok(response),
    };
    let photo = embedded(&app, &shelf, photo).await?;
    let (of, is_repeatable) = (work.clone(), pending.is_some());
    let change = move |shelf: &Shelf| {
        // The memory of the photograph is given back at the end of this.
        let _upload = upload;
        let key = description.key.clone().unwrap_or_else(|| name_of(&photo.bytes));
        let _turn = shelf.lock_key(&key);
        let writer = writer(shelf)?;
        if let Some(item) = writer.find(&key)?.map(|id| writer.item(id)).transpose()?.flatten() {
            if is_repeatable && is_same(&item, &description, &photo) {
                return Ok((StatusCode::CREATED, ItemView::stored(item, shelf)));
            }
            let message = format!("there is an item with the key {key:?} already: PUT replaces it");
            return Err(Problem::new(StatusCode::CONFLICT, "key_taken", message));
        }
        Ok((StatusCode::CREATED, store(shelf, &of, key, description, None, Some(photo))?))
    };
    commit(&app, shelf, &work, pending, change).await
}

/// Add an item, or replace the one with its key
///
/// As adding one, with a key. Without a photograph, an item that is there keeps its own; the description alone can also
/// be sent as JSON. `Idempotency-Key` as for adding.
#[utoipa::path(
    put, path = "/v1/indexes/{index}/items", tag = "items",
    params(
        ("index" = String, Path, description = "Name of the index"),
        ("Idempotency-Key" = Option<String>, Header, description = "Up to 255 characters: the request is done once, however \
         often it is sent"),
    ),
    request_body(
        content((ItemForm = "multipart/form-data"), (Description = "application/json")),
    ),
    responses(
        (status = 200, body = ItemView), (status = 400, body = ProblemBody), (status = 403, body = ProblemBody),
        (status = 404, body = ProblemBody), (status = 408, body = ProblemBody), (status = 413, body = ProblemBody),
        (status = 415, body = ProblemBody),
        (status = 422, body = ProblemBody, description = "No picture, a damaged one, or a key of another request"),
        (status = 503, body = ProblemBody, description = "`busy`: nothing was changed; `outcome_unknown`: it may have been"),
        (status = 507, body = ProblemBody, description = "The disk is full"),
    ),
)]
pub(crate) async fn upsert(
    State(app): State<Shared>,
    OfIndex(shelf): OfIndex,
    work: Work,
    repeatable: Repeatable,
    pairs: Pairs,
    request: Request,
) -> Answer<Response> {
    writer(&shelf)?;
    let (description, photo, held) = if MediaType::of(request.headers())?.is("application/json") {
        let body = app.bodies.read_json(request.into_body()).await?;
        pairs.only(&[])?;
        (Description::read(&app, &body.bytes)?, None, None)
    } else {
        let upload = Upload::read(&app, request).await?;
        (Description::with(&app, &upload, &pairs)?, upload.at_most_one()?, Some(upload))
    };
    let Some(key) = description.key.clone() else {
        return Err(Problem::bad_request("there is no key: it says which item is replaced"));
    };
    let hash = description.hash("PUT", photo.as_deref());
    let pending = match start(&app, &shelf, repeatable.0.as_deref(), hash).await? {
        Start::Do(pending) => pending,
        Start::Done(response) => return Ok(response),
    };
    let photo = match photo {
        Some(photo) => Some(embedded(&app, &shelf, photo).await?),
        None => None,
    };
    let of = work.clone();
    let change = move |shelf: &Shelf| {
        let _held = held;
        let _turn = shelf.lock_key(&key);
        let writer = writer(shelf)?;
        let before = writer.find(&key)?.map(|id| writer.item(id)).transpose()?.flatten();
        Ok((StatusCode::OK, store(shelf, &of, key, description, before, photo)?))
    };
    commit(&app, shelf, &work, pending, change).await
}

/// Delete an item
#[utoipa::path(
    delete, path = "/v1/indexes/{index}/items/{id}", tag = "items",
    params(
        ("index" = String, Path, description = "Name of the index"), ("id" = u64, Path, description = "Id of the item"),
        ("Idempotency-Key" = Option<String>, Header, description = "Up to 255 characters: the request is done once, however \
         often it is sent"),
    ),
    responses(
        (status = 200, body = Deleted), (status = 400, body = ProblemBody), (status = 403, body = ProblemBody),
        (status = 404, body = ProblemBody),
    ),
)]
pub(crate) async fn delete(
    State(app): State<Shared>,
    OfItem(shelf, id): OfItem,
    work: Work,
    repeatable: Repeatable,
) -> Answer<Response> {
    let unknown = move || Problem::from(IndexError::UnknownId { id });
    writer(&shelf)?;
    remove(&app, shelf, work, repeatable, Which::Id(id), unknown).await
}

/// Delete the item with a key
#[utoipa::path(
    delete, path = "/v1/indexes/{index}/items", tag = "items",
    params(
        ("index" = String, Path, description = "Name of the index"), ("key" = String, Query, description = "Its key"),
        ("Idempotency-Key" = Option<String>, Header, description = "Up to 255 characters: the request is done once, however \
         often it is sent"),
    ),
    responses(
        (status = 200, body = Deleted), (status = 400, body = ProblemBody), (status = 403, body = ProblemBody),
        (status = 404, body = ProblemBody),
    ),
)]
pub(crate) async fn delete_key(
    State(app): State<Shared>,
    OfIndex(shelf): OfIndex,
    work: Work,
    repeatable: Repeatable,
    pairs: Pairs,
) -> Answer<Response> {
    writer(&shelf)?;
    pairs.only(&["key"])?;
    let key =
        pairs.one("key").ok_or_else(|| Problem::bad_request("there is no key: say which item to delete"))?;
    let (message, key) = (format!("there is no item with the key {key:?}"), key.to_owned());
    let unknown = move || Problem::not_found("unknown_item", message);
    remove(&app, shelf, work, repeatable, Which::Key(key), unknown).await
}

/// What tells an item.
#[derive(Debug)]
enum Which {
    Id(u64),
    Key(String),
}

async fn remove(
    app: &App,
    shelf: Arc<Shelf>,
    work: Work,
    repeatable: Repeatable,
    which: Which,
    unknown: impl FnOnce() -> Problem + Send + 'static,
) -> Answer<Response> {
    let hash = Sha256::digest(format!("DELETE {which:?}")).into();
    let pending = match start(app, &shelf, repeatable.0.as_deref(), hash).await? {
        Start::Do(pending) => pending,
        Start::Done(response) => return Ok(response),
    };
    let of = work.clone();
    let change = move |shelf: &Shelf| {
        let writer = writer(shelf)?;
        let key = match which {
            Which::Key(key) => {
                let id = catalog::id_of(&key, |form| writer.find(form))?;
                id.map(|id| writer.item(id)).transpose()?.flatten().map(|item| item.key)
            }
            Which::Id(id) => writer.item(id)?.map(|item| item.key),
        };
        let Some(key) = key else { return Err(unknown()) };
        let _turn = shelf.lock_key(&key);
        let item = writer.find(&key)?.map(|id| writer.item(id)).transpose()?.flatten();
        let Some(item) = item else { return Err(unknown()) };
        of.begin_commit()?;
        let deleted = writer.delete(&[item.id])?;
        shelf.changed();
        if let Some(name) = upload_name(&item) {
            shelf.pictures.forget(name);
        }
        Ok((StatusCode::OK, Deleted { deleted }))
    };
    commit(app, shelf, &work, pending, change).await
}

/// The writer, or why there is none.
fn writer(shelf: &Shelf) -> Answer<&IndexWriter> {
    shelf.writer().ok_or_else(|| {
        let why = shelf.remark.as_deref().unwrap_or("the index is read-only");
        Problem::new(StatusCode::FORBIDDEN, "read_only", format!("nothing can be changed here: {why}"))
    })
}

async fn embedded(app: &App, shelf: &Shelf, bytes: Bytes) -> Answer<NewPhoto> {
    let (vector, _) = photo::embed(app, shelf, std::slice::from_ref(&bytes), PhotoConfig::default()).await?;
    Ok(NewPhoto { bytes, vector })
}

/// The name of an item that was given none: the same picture has the same name.
fn name_of(photo: &[u8]) -> String {
    format!("{}/{}", catalog::UPLOADS, hex(&Sha256::digest(photo)[..12]))
}
