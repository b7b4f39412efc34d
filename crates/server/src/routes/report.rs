//! The latest evaluation report of an index.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use crate::app::{App, Shared};
use crate::extract::OfIndex;
use crate::problem::{Answer, Problem, ProblemBody};
use crate::work::Work;

/// What a report may do: show itself. It is whole, so it needs nothing from anywhere.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox allow-popups; frame-ancestors 'self'";

/// Evaluation report as a page
#[utoipa::path(
    get, path = "/v1/indexes/{index}/report", tag = "indexes",
    params(("index" = String, Path, description = "Name of the index")),
    responses((status = 200, content_type = "text/html"), (status = 404, body = ProblemBody)),
)]
pub(crate) async fn page(State(app): State<Shared>, OfIndex(shelf): OfIndex, work: Work) -> Answer<Response> {
    let page = read(app, &shelf.name, "report.html", &work).await?;
    let headers =
        [(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CONTENT_SECURITY_POLICY, POLICY)];
    Ok((headers, page).into_response())
}

/// Evaluation report as JSON
#[utoipa::path(
    get, path = "/v1/indexes/{index}/report.json", tag = "indexes",
    params(("index" = String, Path, description = "Name of the index")),
    responses((status = 200, content_type = "application/json"), (status = 404, body = ProblemBody)),
)]
pub(crate) async fn json(State(app): State<Shared>, OfIndex(shelf): OfIndex, work: Work) -> Answer<Response> {
    let report = read(app, &shelf.name, "report.json", &work).await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], report).into_response())
}

/// Whether there is a report on the index of this name.
pub(crate) fn has_report(app: &App, index: &str) -> bool {
    app.config.reports.join(index).join("report.html").is_file()
}

async fn read(app: Shared, index: &str, file: &str, work: &Work) -> Answer<Bytes> {
    let path = app.config.reports.join(index).join(file);
    let memory = app.clone();
    let open = move || match std::fs::metadata(&path) {
        // Opening anything else, such as a pipe, can wait for ever.
        Ok(about) if about.is_file() => {
            let share = memory.bodies.claim(about.len() as usize)?;
            Ok(share.of(std::fs::read(&path).map_err(Problem::internal)?))
        }
        Ok(_) => Err(Problem::internal(format_args!("{} is no file", path.display()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let message = "there is no evaluation report of this index yet";
            Err(Problem::not_found("no_report", message).with_advice(&memory.config.advice.report))
        }
        Err(error) => Err(Problem::internal(error)),
    };
    app.files.run(work.cancel(), open).await
}
