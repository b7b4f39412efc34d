//! Every request gets an id, a line in the log and a place in the counters.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::Response;
use tracing::Instrument as _;

use crate::app::Shared;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Numbers the requests, tells of them and counts them.
pub(crate) async fn observe(State(app): State<Shared>, request: Request, next: Next) -> Response {
    let id = id_of(&request);
    let method = known(request.method());
    let route = request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str).to_owned();
    let span = tracing::info_span!("request", id, method, path = request.uri().path());
    let started = Instant::now();
    let in_flight = app.metrics.begin();
    async move {
        let mut response = next.run(request).await;
        let (took, status) = (started.elapsed(), response.status().as_u16());
        app.metrics.answered(method, &route, status, took);
        drop(in_flight);
        tracing::info!(status, ms = took.as_secs_f64() * 1e3, "answered");
        if let Ok(value) = HeaderValue::from_str(&id) {
            response.headers_mut().insert(REQUEST_ID, value);
        }
        response
    }
    .instrument(span)
    .await
}

/// The id the client gave, if it is a sensible one, or a new one.
fn id_of(request: &Request) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let given = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok());
    if let Some(id) = given
        && (1..=64).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    {
        return id.to_owned();
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{:x}-{:x}", now.as_micros(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Methods by name; whatever a client makes up is one word, so that it cannot fill the counters.
fn known(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}
