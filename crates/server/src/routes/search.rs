//! Searching by vector, by an item of the index, and by a photograph.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::response::Response;
use semblance_index::{Filter, SearchParams};
use semblance_query::catalog;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::app::Shared;
use crate::extract::{OfIndex, Pairs};
use crate::find::{GroupBy, SearchQuery, Wanted};
use crate::http::content::MediaType;
use crate::photo::{self, PhotoInfo, Upload};
use crate::problem::{Answer, Problem, ProblemBody};
use crate::routes::items::warnings;
use crate::shelf::Shelf;
use crate::view::{self, HitView};
use crate::work::Work;

/// What to search with, and for. Exactly one of `vector`, `id` and `key` is given.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct SearchRequest {
    /// A vector of the index's dimension; its length does not matter, its direction does.
    vector: Option<Vec<f32>>,
    /// An item of the index, by its id; it is no hit itself.
    id: Option<u64>,
    /// An item of the index, by its key; it is no hit itself.
    key: Option<String>,
    /// Hits wanted, 10 by default.
    #[schema(minimum = 1, maximum = 1000)]
    k: Option<usize>,
    /// Candidates the walk through the graph keeps.
    #[schema(minimum = 1, maximum = 10000)]
    ef_search: Option<usize>,
    /// Compare with every vector.
    exact: bool,
    /// Condition on the items, such as `{"eq": {"field": "class", "value": "shoe"}}`.
    #[schema(value_type = Option<Object>)]
    filter: Option<Filter>,
    /// Lowest cosine of a hit.
    #[schema(minimum = -1, maximum = 1)]
    min_score: Option<f32>,
    /// `class`: only the best hit of each class.
    group_by: Option<GroupBy>,
    /// Search again with the query moved towards this many of its nearest.
    #[schema(minimum = 1, maximum = 1000)]
    expand: Option<usize>,
    /// Re-rank this many of the nearest by the neighbours they share with the query.
    #[schema(minimum = 1, maximum = 1000)]
    rerank: Option<usize>,
}

/// What was found.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SearchResponse {
    /// The index.
    index: String,
    /// Time it took in milliseconds, without the transfer.
    took_ms: f32,
    /// The photograph searched with, if it was one; the first of several.
    #[serde(skip_serializing_if = "Option::is_none")]
    photo: Option<PhotoInfo>,
    /// The hits, best first.
    hits: Vec<HitView>,
    /// Conditions of the filter that no item can meet, such as fields that no item has.
    warnings: Vec<String>,
}

impl SearchRequest {
    fn wanted(&mut self) -> Wanted {
        let params = SearchParams {
            k: self.k.unwrap_or(SearchParams::default().k),
            ef_search: self.ef_search,
            exact: self.exact,
            filter: self.filter.take(),
            min_score: self.min_score,
            ..SearchParams::default()
        };
        let mut wanted = Wanted { params, ..Wanted::default() };
        wanted.config.one_per_class = matches!(self.group_by, Some(GroupBy::Class));
        self.expand.into_iter().for_each(|neighbours| wanted.expand(neighbours));
        self.rerank.into_iter().for_each(|pool| wanted.rerank(pool));
        wanted
    }
}

/// Search with a vector or an item
///
/// The body is JSON, or, as `application/octet-stream`, the vector alone as little-endian f32 with everything else in
/// the address.
#[utoipa::path(
    post, path = "/v1/indexes/{index}/search", tag = "search",
    params(("index" = String, Path, description = "Name of the index")),
    request_body(content = SearchRequest, content_type = "application/json"),
    responses(
        (status = 200, body = SearchResponse), (status = 400, body = ProblemBody), (status = 404, body = ProblemBody),
        (status = 408, body = ProblemBody), (status = 413, body = ProblemBody), (status = 415, body = ProblemBody),
        (status = 503, body = ProblemBody, description = "Too busy: Retry-After says when to come back"),
    ),
)]
pub(crate) async fn by_vector(
    State(app): State<Shared>,
    OfIndex(shelf): OfIndex,
    work: Work,
    pairs: Pairs,
    request: Request,
) -> Answer<Response> {
    let started = Instant::now();
    let (parts, body) = request.into_parts();
    let kind = MediaType::of(&parts.headers)?;
    let body = app.bodies.read_json(body).await?;
    let mut asked = SearchRequest::default();
    let mut wanted;
    if kind.is("application/json") {
        let share;
        (asked, share) = app.bodies.parse(&body.bytes, "the body")?;
        wanted = asked.wanted();
        wanted.share = share;
    } else if kind.is("application/octet-stream") {
        let numbers = body.bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        asked.vector = Some(numbers.collect());
        wanted = Wanted::default();
    } else {
        let message = format!(
            "the content type {kind} is not understood: send application/json here, and photographs to search/photo"
        );
        return Err(Problem::unsupported(message));
    }
    drop(body);
    for (name, value) in &pairs.0 {
        wanted.set(name, value, &app.bodies)?;
    }
    if !wanted.photo.is_plain() {
        return Err(Problem::bad_request("box and views belong to a photograph: use search/photo"));
    }
    wanted.check(&app.config.limits)?;
    let (vector, but) = query_of(asked, &shelf)?;
    let query = Query { vector, but, photo: None, started };
    answer(app, shelf, work, query, wanted).await
}

/// The vector to search with, and the item that is no hit.
fn query_of(asked: SearchRequest, shelf: &Shelf) -> Answer<(Vec<f32>, Option<u64>)> {
    let id = match (asked.vector, asked.id, asked.key) {
        (Some(vector), None, None) => return Ok((normalised(vector, shelf.index.dim())?, None)),
        (None, Some(id), None) => id,
        (None, None, Some(key)) => catalog::id_of(&key, |form| shelf.index.find(form))?.ok_or_else(|| {
            Problem::not_found("unknown_item", format!("there is no item with the key {key:?}"))
        })?,
        _ => return Err(Problem::bad_request("give exactly one of vector, id and key")),
    };
    Ok((shelf.index.vector(id)?, Some(id)))
}

fn normalised(mut vector: Vec<f32>, dim: usize) -> Answer<Vec<f32>> {
    // The index reports the other faults.
    let norm = vector.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
    if vector.len() == dim && norm.is_finite() && norm > 0.0 {
        vector.iter_mut().for_each(|v| *v = (f64::from(*v) / norm) as f32);
    }
    Ok(vector)
}

/// Search with a photograph
///
/// As a form with the photograph in the field `photo` and the parameters as fields or in the address, or as a body that
/// is the photograph. A form may have up to 16 photographs of one item, which are searched with as one.
#[utoipa::path(
    post, path = "/v1/indexes/{index}/search/photo", tag = "search",
    params(("index" = String, Path, description = "Name of the index"), SearchQuery),
    request_body(
        content(
            (PhotoForm = "multipart/form-data"),
            (Vec<u8> = "image/jpeg"),
        ),
    ),
    responses(
        (status = 200, body = SearchResponse), (status = 400, body = ProblemBody), (status = 404, body = ProblemBody),
        (status = 408, body = ProblemBody), (status = 413, body = ProblemBody), (status = 415, body = ProblemBody),
        (status = 422, body = ProblemBody, description = "No picture, or a damaged one"),
        (status = 503, body = ProblemBody, description = "Too busy: Retry-After says when to come back"),
    ),
)]
pub(crate) async fn by_photo(
    State(app): State<Shared>,
    OfIndex(shelf): OfIndex,
    work: Work,
    pairs: Pairs,
    request: Request,
) -> Answer<Response> {
    let mut wanted = Wanted::default();
    for (name, value) in &pairs.0 {
        wanted.set(name, value, &app.bodies)?;
    }
    let upload = Upload::read(&app, request).await?;
    let started = Instant::now();
    // Before the other fields: a photograph under another name would be taken for a wrong parameter.
    let photos = upload.some()?;
    for (name, value) in &upload.fields {
        wanted.set(name, value, &app.bodies)?;
    }
    wanted.check(&app.config.limits)?;
    let (vector, info) = photo::embed(&app, &shelf, photos, wanted.photo).await?;
    drop(upload);
    let query = Query { vector, but: None, photo: Some(info), started };
    answer(app, shelf, work, query, wanted).await
}

/// The form of a search by photograph.
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes the form that `Upload` reads")]
pub(crate) struct PhotoForm {
    /// The photograph: JPEG, PNG, WebP, GIF, BMP or TIFF.
    #[schema(format = Binary, value_type = String)]
    photo: Vec<u8>,
}

/// What is searched with.
struct Query {
    vector: Vec<f32>,
    /// The item that is no hit.
    but: Option<u64>,
    photo: Option<PhotoInfo>,
    started: Instant,
}

async fn answer(
    app: Shared,
    shelf: Arc<Shelf>,
    work: Work,
    query: Query,
    mut wanted: Wanted,
) -> Answer<Response> {
    let (quick, shared) = (wanted.is_quick(), app.clone());
    wanted.params.cancel = work.cancel().clone();
    let find = move || {
        let Query { vector, but, photo, started } = query;
        let hits = view::hits(wanted.find(&shelf.index, &vector, but)?, &shelf);
        let warnings = warnings(&shelf.index, wanted.params.filter.as_ref())?;
        let took_ms = started.elapsed().as_secs_f32() * 1e3;
        app.json(&SearchResponse { index: shelf.name.clone(), took_ms, photo, hits, warnings })
    };
    if quick { find() } else { shared.searches.run(work.cancel(), find).await }
}
