//! Whether the server lives, whether it can work, and how much it did.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::app::Shared;
use crate::problem::{Answer, Problem, ProblemBody};

/// Whether the server lives
#[utoipa::path(get, path = "/healthz", tag = "server", responses((status = 200, content_type = "text/plain")))]
pub(crate) async fn healthz() -> &'static str {
    "alive\n"
}

/// Whether the server takes requests
///
/// Indexes and models are open before the server listens, so it is ready till it is told to stop.
#[utoipa::path(
    get, path = "/readyz", tag = "server",
    responses((status = 200, content_type = "text/plain"), (status = 503, body = ProblemBody)),
)]
pub(crate) async fn readyz(State(app): State<Shared>) -> Answer<&'static str> {
    if app.is_stopping() {
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", "the server is stopping"));
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
