//! Liveness, readiness and counters.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use semblance_index::IndexWriter;

use crate::app::Shared;
use crate::problem::{Answer, Problem, ProblemBody};

/// Whether the server lives
#[utoipa::path(get, path = "/healthz", tag = "server", responses((status = 200, content_type = "text/plain")))]
pub(crate) async fn healthz() -> &'static str {
    "alive\n"
}

/// Whether the server takes requests
///
/// Indexes and models are open before the server listens, so it is ready until it stops, until the disk fails
/// under an index that it writes, or until the folder of an index is moved or removed.
#[utoipa::path(
    get, path = "/readyz", tag = "server",
    responses((status = 200, content_type = "text/plain"), (status = 503, body = ProblemBody)),
)]
pub(crate) async fn readyz(State(app): State<Shared>) -> Answer<&'static str> {
    if app.is_stopping() {
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", "the server is stopping"));
    }
    for shelf in app.shelves.values() {
        if shelf.is_moved() {
            let message = format!(
                "the folder of the index {:?} was moved or removed: put it back, or start the server again where it is now",
                shelf.name
            );
            return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "index_gone", message));
        }
        if let Some(fault) = shelf.writer().and_then(IndexWriter::fault) {
            let message = format!("the index {:?} cannot be written: {fault}", shelf.name);
            return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "cannot_write", message));
        }
    }
    Ok("ready\n")
}

/// Counters in the text format of Prometheus
#[utoipa::path(get, path = "/metrics", tag = "server", responses((status = 200, content_type = "text/plain")))]
pub(crate) async fn metrics(State(app): State<Shared>) -> Answer<Response> {
    let text = app.metrics.text().map_err(Problem::internal)?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}
