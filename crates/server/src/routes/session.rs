//! Signing the web page in: pictures and reports are fetched by the browser itself, which brings a cookie, not a header.

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::app::{App, Shared};
use crate::auth::{self, COOKIE};
use crate::problem::{Answer, ProblemBody};

/// Sign in: the token of the header `Authorization` becomes a cookie
#[utoipa::path(
    post, path = "/session", tag = "server",
    responses((status = 204, description = "Signed in"), (status = 401, body = ProblemBody),
        (status = 429, body = ProblemBody, description = "Too many wrong tokens")),
)]
pub(crate) async fn sign_in(State(app): State<Shared>, request: Request) -> Answer<Response> {
    let Some(token) = &app.config.token else { return Ok(StatusCode::NO_CONTENT.into_response()) };
    auth::admit(&app, request.headers(), request.extensions(), |token, headers| {
        auth::bearer(headers).is_some_and(|given| token.is(given))
    })?;
    Ok(cookie(token.secret(), "", &app))
}

/// Sign out: the cookie goes
#[utoipa::path(delete, path = "/session", tag = "server", responses((status = 204, description = "Signed out")))]
pub(crate) async fn sign_out(State(app): State<Shared>) -> Response {
    cookie("", "; Max-Age=0", &app)
}

fn cookie(value: &str, age: &str, app: &App) -> Response {
    let secure = if app.config.tls.is_some() { "; Secure" } else { "" };
    let base = &app.config.base_path;
    let cookie = format!("{COOKIE}={value}; Path={base}/; HttpOnly; SameSite=Strict{age}{secure}");
    (StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie)]).into_response()
}
