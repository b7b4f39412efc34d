//! Listing and describing the served indexes.

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use semblance_query::catalog;
use semblance_query::pictures::CatalogueRoot;
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::Shared;
use crate::extract::OfIndex;
use crate::facets::Facets;
use crate::problem::{Answer, ProblemBody};
use crate::routes::report::has_report;
use crate::shelf::Shelf;
use crate::work::Work;

/// What an index is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct IndexView {
    /// Its name in addresses.
    name: String,
    /// Number of items.
    items: usize,
    /// Dimension of its vectors.
    dim: usize,
    /// Whether items can be added and deleted.
    writable: bool,
    /// Why not, if not.
    remark: Option<String>,
    /// Name of the catalogue it was built over.
    catalogue: Option<String>,
    /// Whether the catalogue's pictures are there.
    pictures: bool,
    /// Why not, if the index records a folder of them.
    pictures_remark: Option<&'static str>,
    /// The model.
    model: ModelView,
    /// The graph.
    graph: GraphView,
    /// Number of its published state, counting up.
    generation: u64,
    /// Changes that other processes do not see yet.
    unpublished: u64,
    /// Bytes of its published files.
    bytes: u64,
    /// Whether there is an evaluation report, at `report` below this address.
    report: bool,
}

/// What makes the vectors.
#[derive(Debug, Serialize, ToSchema)]
struct ModelView {
    /// Its architecture.
    arch: String,
    /// Fingerprint of weights and settings.
    fingerprint: String,
    /// Width and height in pixels of what it sees.
    pixels: u32,
}

/// How approximate search is done.
#[derive(Debug, Serialize, ToSchema)]
struct GraphView {
    /// Links of a node.
    m: usize,
    /// Candidates considered when it was built.
    ef_construction: usize,
    /// Numbers it is walked with.
    codes: String,
}

/// All indexes.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct IndexList {
    /// By name.
    indexes: Vec<IndexView>,
}

fn view(shelf: &Shelf, app: &Shared) -> IndexView {
    let manifest = shelf.index.manifest();
    let config = &manifest.config;
    let model = &shelf.model;
    let codes = serde_json::to_value(manifest.codes());
    IndexView {
        name: shelf.name.clone(),
        items: shelf.index.len(),
        dim: config.dim,
        writable: shelf.writer().is_some(),
        remark: shelf.remark.clone(),
        catalogue: config.attributes.get(catalog::CATALOGUE).cloned(),
        pictures: shelf.pictures.has_catalogue(),
        pictures_remark: pictures_remark(shelf.pictures.root()),
        model: ModelView {
            arch: model.arch.clone(),
            fingerprint: model.fingerprint.clone(),
            pixels: model.transform.crop,
        },
        graph: GraphView {
            m: config.hnsw.m,
            ef_construction: config.hnsw.ef_construction,
            codes: codes.ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default(),
        },
        generation: manifest.generation,
        unpublished: shelf.unpublished(),
        bytes: manifest.bytes(),
        report: has_report(app, &shelf.name),
    }
}

/// Clients are not told of folders.
fn pictures_remark(root: &CatalogueRoot) -> Option<&'static str> {
    match root {
        CatalogueRoot::Open { .. } | CatalogueRoot::NotRecorded => None,
        CatalogueRoot::Unavailable { .. } => Some("the folder of the pictures cannot be opened"),
        CatalogueRoot::Foreign { .. } => {
            Some("the index was built elsewhere, and the folder of its pictures was not named to the server")
        }
    }
}

/// All indexes
#[utoipa::path(get, path = "/v1/indexes", tag = "indexes", responses((status = 200, body = IndexList)))]
pub(crate) async fn list(State(app): State<Shared>, work: Work) -> Answer<Json<IndexList>> {
    let all = app.clone();
    let views = move || Ok(all.shelves.values().map(|shelf| view(shelf, &all)).collect());
    let indexes = app.files.run(work.cancel(), views).await?;
    Ok(Json(IndexList { indexes }))
}

/// What an index is
#[utoipa::path(
    get, path = "/v1/indexes/{index}", tag = "indexes",
    params(("index" = String, Path, description = "Name of the index")),
    responses((status = 200, body = IndexView), (status = 404, body = ProblemBody)),
)]
pub(crate) async fn show(
    State(app): State<Shared>,
    OfIndex(shelf): OfIndex,
    work: Work,
) -> Answer<Json<IndexView>> {
    let shared = app.clone();
    app.files.run(work.cancel(), move || Ok(Json(view(&shelf, &shared)))).await
}

/// Classes and attributes that items can be filtered by
#[utoipa::path(
    get, path = "/v1/indexes/{index}/facets", tag = "indexes",
    params(("index" = String, Path, description = "Name of the index")),
    responses((status = 200, body = Facets), (status = 404, body = ProblemBody)),
)]
pub(crate) async fn facets(
    State(app): State<Shared>,
    OfIndex(shelf): OfIndex,
    work: Work,
) -> Answer<Response> {
    let cancel = work.cancel().clone();
    let json = app.searches.run(work.cancel(), move || shelf.facets(&cancel)).await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], json).into_response())
}
