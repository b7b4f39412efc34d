//! The web page: files that are part of the program.

use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Router, body::Bytes};
use sha2::{Digest as _, Sha256};
use tower_http::compression::CompressionLayer;

use crate::app::Shared;
use crate::pictures::hex;

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";

/// Address, media type and content of every file.
const FILES: [(&str, &str, &str); 12] = [
    ("/", HTML, include_str!("../../web/index.html")),
    ("/web/page.css", CSS, include_str!("../../web/page.css")),
    ("/web/icon.svg", "image/svg+xml", include_str!("../../web/icon.svg")),
    ("/web/main.js", JS, include_str!("../../web/main.js")),
    ("/web/api.js", JS, include_str!("../../web/api.js")),
    ("/web/dom.js", JS, include_str!("../../web/dom.js")),
    ("/web/photo.js", JS, include_str!("../../web/photo.js")),
    ("/web/search.js", JS, include_str!("../../web/search.js")),
    ("/web/filter.js", JS, include_str!("../../web/filter.js")),
    ("/web/browse.js", JS, include_str!("../../web/browse.js")),
    ("/web/item.js", JS, include_str!("../../web/item.js")),
    ("/web/about.js", JS, include_str!("../../web/about.js")),
];

/// What the page may do: nothing but talk to this server and show pictures the user chose.
pub(crate) const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; \
     connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'";

/// Routes of all files.
pub(crate) fn routes() -> Router<Shared> {
    let routes = FILES.into_iter().fold(Router::new(), |routes, (path, kind, content)| {
        let tag = format!("\"{}\"", hex(&Sha256::digest(content)[..8]));
        routes.route(path, get(move |headers: HeaderMap| async move { file(&headers, kind, content, &tag) }))
    });
    routes.layer(CompressionLayer::new())
}

fn file(headers: &HeaderMap, kind: &'static str, content: &'static str, tag: &str) -> Response {
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let about = [
        (header::ETAG, tag),
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
    ];
    if known.is_some_and(|known| known.contains(tag)) {
        return (StatusCode::NOT_MODIFIED, about.map(|(name, value)| (name, value.to_owned())))
            .into_response();
    }
    (about.map(|(name, value)| (name, value.to_owned())), Bytes::from_static(content.as_bytes()))
        .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_small_and_takes_nothing_from_elsewhere() {
        let bytes: usize = FILES.iter().map(|(.., content)| content.len()).sum();
        assert!(bytes < 100_000, "{bytes} bytes before compression");
        for (path, kind, content) in FILES {
            let outside = content.replace("http://www.w3.org/2000/svg", "");
            assert!(
                !outside.contains("http://") && !outside.contains("https://"),
                "{path} names another server"
            );
            assert!(kind != JS || !content.contains("innerHTML"), "{path} makes HTML of text");
        }
    }
}
