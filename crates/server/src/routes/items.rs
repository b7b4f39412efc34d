//! Looking at items: page by page, one by one, and their pictures.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use semblance_index::{Cancel, Filter, Index, Item};
use semblance_query::catalog;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::app::Shared;
use crate::extract::{OfIndex, OfItem, Pairs};
use crate::pictures::NoPicture;
use crate::problem::{Answer, Problem, ProblemBody};
use crate::shelf::Shelf;
use crate::thumbnail;
use crate::view::ItemView;
use crate::work::Work;

/// Items of a page, by default and at most.
const PAGE: (usize, usize) = (50, 500);

/// Bytes of items after which a page ends, even if more were asked for.
const PAGE_BYTES: usize = 4 << 20;

/// A page of items.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ItemPage {
    /// Number of items that meet `filter` and `key`, on all pages; without them, of all items of the index.
    total: usize,
    /// The items in order of their ids.
    items: Vec<ItemView>,
    /// What to give as `after` for the next page; null on the last.
    next: Option<u64>,
    /// Conditions of the filter that no item can meet, such as fields that no item has, or that pass over items.
    warnings: Vec<String>,
}

/// Items page by page
#[utoipa::path(
    get, path = "/v1/indexes/{index}/items", tag = "items",
    params(
        ("index" = String, Path, description = "Name of the index"),
        ("after" = Option<u64>, Query, description = "Only items with greater ids"),
        ("limit" = Option<usize>, Query, minimum = 1, maximum = 500, description = "Items of a page, 50 by default; a page of \
         large items ends earlier"),
        ("filter" = Option<String>, Query, description = "Condition on the items as JSON"),
        ("key" = Option<String>, Query, description = "Only the item with this key"),
    ),
    responses(
        (status = 200, body = ItemPage), (status = 400, body = ProblemBody), (status = 404, body = ProblemBody),
        (status = 413, body = ProblemBody, description = "The filter is too large"), (status = 503, body = ProblemBody),
    ),
)]
pub(crate) async fn list(
    State(app): State<Shared>,
    OfIndex(shelf): OfIndex,
    work: Work,
    pairs: Pairs,
) -> Answer<Response> {
    pairs.only(&["after", "limit", "filter", "key"])?;
    let number = |name: &str| {
        let bad = |value: &str| Problem::bad_request(format!("{name} = {value:?}: must be a whole number"));
        pairs.one(name).map(|value| value.parse::<u64>().map_err(|_| bad(value))).transpose()
    };
    let limit = number("limit")?.map_or(PAGE.0, |limit| limit as usize);
    if limit == 0 || limit > PAGE.1 {
        return Err(Problem::bad_request(format!("limit = {limit}: must be from 1 to {}", PAGE.1)));
    }
    let filter = pairs.one("filter").map(|text| app.bodies.parse::<Filter>(text.as_bytes(), "the filter"));
    let (filter, share) = filter.transpose()?.unzip();
    filter.as_ref().map_or(Ok(()), Filter::validate)?;
    let after = number("after")?;
    let key = pairs.one("key").map(str::to_owned);
    let cancel = work.cancel().clone();
    app.clone()
        .searches
        .run(work.cancel(), move || {
            let _share = share;
            let page = match key {
                Some(key) => only(&shelf, &key, filter.as_ref())?,
                None => page(&shelf, after, limit, filter.as_ref(), &cancel)?,
            };
            app.json(&page)
        })
        .await
}

fn only(shelf: &Shelf, key: &str, filter: Option<&Filter>) -> Answer<ItemPage> {
    let found =
        catalog::id_of(key, |form| shelf.index.find(form))?.map(|id| shelf.index.item(id)).transpose()?;
    let wanted = |item: &Item| filter.is_none_or(|filter| filter.matches(item));
    let items: Vec<_> = found.into_iter().filter(wanted).map(|item| ItemView::of(item, shelf)).collect();
    Ok(ItemPage { total: items.len(), items, next: None, warnings: warnings(&shelf.index, filter)? })
}

fn page(
    shelf: &Shelf,
    after: Option<u64>,
    limit: usize,
    filter: Option<&Filter>,
    cancel: &Cancel,
) -> Answer<ItemPage> {
    // One state for the whole page.
    let index = shelf.index.frozen();
    let matcher = filter.map(Filter::matcher);
    let ids = index.ids();
    let start = after.map_or(0, |after| ids.partition_point(|id| *id <= after));
    let (mut items, mut next) = (Vec::new(), None);
    let mut bytes = 0;
    for &id in &ids[start..] {
        cancel.check()?;
        let item = index.item(id)?;
        if matcher.as_ref().is_none_or(|matcher| matcher.matches(&item)) {
            if items.len() == limit || bytes > PAGE_BYTES {
                next = items.last().map(|last: &ItemView| last.id);
                break;
            }
            bytes += size(&item);
            items.push(ItemView::of(item, shelf));
        }
    }
    let total = filter.map_or(Ok(ids.len()), |filter| index.count(filter, cancel))?;
    Ok(ItemPage { total, items, next, warnings: warnings(&index, filter)? })
}

/// Bytes of what is known of an item, roughly.
fn size(item: &Item) -> usize {
    fn of(value: &Value) -> usize {
        match value {
            Value::String(text) => text.len() + 2,
            Value::Array(elements) => elements.iter().map(of).sum::<usize>() + 2,
            Value::Object(entries) => entries.iter().map(|(name, value)| name.len() + of(value) + 4).sum(),
            _ => 8,
        }
    }
    item.key.len() + item.metadata.iter().map(|(name, value)| name.len() + of(value) + 4).sum::<usize>()
}

/// Warnings about conditions of a filter that no item can meet.
pub(super) fn warnings(index: &Index, filter: Option<&Filter>) -> Answer<Vec<String>> {
    let warnings = filter.map(|filter| index.filter_warnings(filter)).transpose()?.unwrap_or_default();
    Ok(warnings.iter().map(ToString::to_string).collect())
}

/// An item
#[utoipa::path(
    get, path = "/v1/indexes/{index}/items/{id}", tag = "items",
    params(
        ("index" = String, Path, description = "Name of the index"), ("id" = u64, Path, description = "Id of the item"),
    ),
    responses((status = 200, body = ItemView), (status = 400, body = ProblemBody), (status = 404, body = ProblemBody)),
)]
pub(crate) async fn show(OfItem(shelf, id): OfItem) -> Answer<Json<ItemView>> {
    Ok(Json(ItemView::of(shelf.index.item(id)?, &shelf)))
}

/// Picture of an item, as it is
#[utoipa::path(
    get, path = "/v1/indexes/{index}/items/{id}/photo", tag = "items",
    params(
        ("index" = String, Path, description = "Name of the index"), ("id" = u64, Path, description = "Id of the item"),
    ),
    responses(
        (status = 200, content_type = "image/jpeg"), (status = 304, description = "Not changed"),
        (status = 400, body = ProblemBody), (status = 404, body = ProblemBody),
        (status = 503, body = ProblemBody, description = "Too busy: Retry-After says when to come back"),
    ),
)]
pub(crate) async fn photo(
    State(app): State<Shared>,
    OfItem(shelf, id): OfItem,
    work: Work,
    headers: HeaderMap,
) -> Answer<Response> {
    let item = shelf.index.item(id)?;
    let memory = app.clone();
    let read = app.files.run(work.cancel(), move || {
        let picture = shelf.pictures.open(&item).map_err(no_picture)?;
        let tag = format!("\"{}\"", picture.version);
        if is_known(&headers, &tag) {
            return Ok(not_modified(tag));
        }
        let share = memory.bodies.claim(picture.bytes() as usize)?;
        let (bytes, kind) = picture.read(&Default::default()).map_err(no_picture)?;
        Ok(picture_response(share.of(bytes), kind, tag))
    });
    read.await
}

/// Small version of an item's picture
#[utoipa::path(
    get, path = "/v1/indexes/{index}/items/{id}/thumbnail", tag = "items",
    params(
        ("index" = String, Path, description = "Name of the index"), ("id" = u64, Path, description = "Id of the item"),
        ("size" = Option<u32>, Query, minimum = 1, maximum = 640, description = "Longest side in pixels, 320 by default; \
         taken up to 160, 320 or 640"),
    ),
    responses(
        (status = 200, content_type = "image/jpeg"), (status = 304, description = "Not changed"),
        (status = 400, body = ProblemBody), (status = 404, body = ProblemBody),
        (status = 503, body = ProblemBody, description = "Too busy: Retry-After says when to come back"),
    ),
)]
pub(crate) async fn small(
    State(app): State<Shared>,
    OfItem(shelf, id): OfItem,
    work: Work,
    pairs: Pairs,
    headers: HeaderMap,
) -> Answer<Response> {
    pairs.only(&["size"])?;
    let bad = |value: &str| Problem::bad_request(format!("size = {value:?}: must be a number of pixels"));
    let wanted = pairs.one("size").map(|value| value.parse().map_err(|_| bad(value))).transpose()?;
    let size = thumbnail::size(wanted.unwrap_or(320));
    let item = shelf.index.item(id)?;
    let name = shelf.name.clone();
    let open = move || shelf.pictures.open(&item).map_err(no_picture);
    let picture = app.files.run(work.cancel(), open).await?;
    let tag = format!("\"{}-{size}\"", picture.version);
    if is_known(&headers, &tag) {
        return Ok(not_modified(tag));
    }
    let key = (name, picture.version.clone(), size);
    let jpeg = match app.thumbnails.get(&key) {
        Some(jpeg) => jpeg,
        None => {
            let share = app.bodies.claim(picture.bytes() as usize)?;
            let read = move || Ok(share.of(picture.read(&Default::default()).map_err(no_picture)?.0));
            let bytes = app.files.run(work.cancel(), read).await?;
            let shrink = move || thumbnail::shrink(&bytes, size, &Default::default());
            let jpeg = app.decoders.run(work.cancel(), shrink).await?;
            app.thumbnails.keep(key, jpeg.clone());
            jpeg
        }
    };
    Ok(picture_response(jpeg, "image/jpeg", tag))
}

fn no_picture(why: NoPicture) -> Problem {
    let message = match why {
        NoPicture::NotOpened => {
            "the index was built elsewhere, so the folder that it records for its pictures is not opened; the server's operator \
             can name it"
        }
        NoPicture::Missing => "the item's picture is not in the catalogue's folder",
        NoPicture::NotAPicture => "the item's file is no picture",
        NoPicture::TooLarge => "the item's picture is too large to be shown",
    };
    Problem::not_found("no_picture", message)
}

fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    known.is_some_and(|known| known.split(',').any(|one| one.trim().trim_start_matches("W/") == tag))
}

fn not_modified(tag: String) -> Response {
    (StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response()
}

fn picture_response(bytes: impl Into<axum::body::Body>, kind: &'static str, tag: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind.to_owned()),
        (header::ETAG, tag),
        // Nobody else's cache may keep what may need a token; ours asks whether it changed.
        (header::CACHE_CONTROL, "private, no-cache".to_owned()),
    ];
    (headers, bytes.into()).into_response()
}
