//! The routes, and the middleware that every request passes.

mod health;
mod indexes;
mod items;
mod page;
mod report;
mod search;
mod session;
mod write;

use std::any::Any;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::CorsLayer;
use utoipa::OpenApi;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::access::{find_client, limit_rate};
use crate::app::Shared;
use crate::http::{content, proxy};
use crate::network::check_host;
use crate::observe::observe;
use crate::problem::Problem;
use crate::work::{IDEMPOTENCY_KEY, limit_time};
use crate::{auth, origin};

/// Address of the description of all others.
const DOCUMENT: &str = "/openapi.json";
/// The same as the user interface, which lies in a folder beside it, is given it: a proxy may serve both below any path.
const DOCUMENT_FROM_UI: &str = "../openapi.json";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Semblance",
        description = "Visual product search: find the items of a catalogue by a photograph, an item or a vector."
    ),
    tags(
        (name = "search", description = "Finding items"),
        (name = "items", description = "Looking at items, adding and deleting them"),
        (name = "indexes", description = "What is served"),
        (name = "server", description = "Whether it works"),
    ),
    components(schemas(search::PhotoForm, write::ItemForm, write::Description)),
)]
struct Document;

/// The router of a server.
pub(crate) fn router(app: Shared) -> Router {
    let open = OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(session::sign_in, session::sign_out));
    let guarded = OpenApiRouter::new()
        .routes(routes!(health::metrics))
        .routes(routes!(indexes::list))
        .routes(routes!(indexes::show))
        .routes(routes!(indexes::facets))
        .routes(routes!(report::page))
        .routes(routes!(report::json))
        .routes(routes!(search::by_vector))
        .routes(routes!(search::by_photo))
        .routes(routes!(items::list, write::add, write::upsert, write::delete_key))
        .routes(routes!(items::show, write::delete))
        .routes(routes!(items::photo))
        .routes(routes!(items::small))
        .route_layer(from_fn_with_state(app.clone(), auth::guard));
    let (routes, mut document) = open.merge(guarded).split_for_parts();
    if app.config.token.is_some() {
        secure(&mut document);
    }
    if !app.config.base_path.is_empty() {
        document.servers = Some(vec![utoipa::openapi::Server::new(&app.config.base_path)]);
    }
    // Nothing but the document and the user interface itself, which brings styles within its page.
    let ui = SwaggerUi::new("/docs")
        .config(Config::new([DOCUMENT_FROM_UI]).validator_url("none"))
        .url(DOCUMENT, document);
    let ui = Router::new().merge(ui).layer(from_fn(docs_policy));
    let router =
        routes.merge(page::routes()).merge(ui).fallback(nothing_here).method_not_allowed_fallback(not_so);
    let base = app.config.base_path.clone();
    proxy::below(&base, wrap(router, app.clone()).with_state(app))
}

/// What every request passes, the last named first.
fn wrap(router: Router<Shared>, app: Shared) -> Router<Shared> {
    let router = router
        .layer(from_fn(content::plain_only))
        .layer(from_fn_with_state(app.clone(), limit_time))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(app.clone(), origin::guard))
        .layer(from_fn(check_host))
        .layer(from_fn_with_state(app.clone(), limit_rate))
        .layer(from_fn_with_state(app.clone(), find_client));
    let router = if app.config.allowed_origins.is_empty() { router } else { router.layer(cors(&app)) };
    router.layer(from_fn(security_headers)).layer(from_fn_with_state(app, observe))
}

fn cors(app: &Shared) -> CorsLayer {
    let origins = app.config.allowed_origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok());
    CorsLayer::new()
        .allow_origin(origins.collect::<Vec<_>>())
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE])
        .allow_headers([header::AUTHORIZATION, header::CONTENT_TYPE, IDEMPOTENCY_KEY])
        .expose_headers([HeaderName::from_static("x-request-id"), header::RETRY_AFTER])
}

fn secure(document: &mut utoipa::openapi::OpenApi) {
    let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    document.components.get_or_insert_default().add_security_scheme("token", scheme);
    let needed = utoipa::openapi::security::SecurityRequirement::new("token", [] as [&str; 0]);
    document.security = Some(vec![needed]);
}

fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
    Problem::internal(format_args!("panicked: {text}")).into_response()
}

async fn security_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let mut default = |name: HeaderName, value: &'static str| {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    };
    default(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    default(header::REFERRER_POLICY, "no-referrer");
    default(HeaderName::from_static("cross-origin-opener-policy"), "same-origin");
    default(header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'; sandbox");
    response
}

async fn docs_policy(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let policy = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; \
                  connect-src 'self'; frame-ancestors 'none'";
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    response
}

async fn nothing_here() -> Problem {
    Problem::not_found(
        "unknown_address",
        "there is nothing at this address; /openapi.json lists what there is",
    )
}

async fn not_so() -> Problem {
    let message = "this address does not know this method; /openapi.json lists what there is";
    Problem::new(axum::http::StatusCode::METHOD_NOT_ALLOWED, "unknown_method", message)
}
