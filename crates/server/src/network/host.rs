//! Which host a request is for: exactly one, named the same wherever it is named.

use axum::extract::Request;
use axum::http::uri::Authority;
use axum::http::{Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::problem::Problem;

/// Refuses requests that leave open which host they are for (RFC 9112, section 3.2; RFC 9113, section 8.3.1).
pub(crate) async fn check_host(request: Request, next: Next) -> Response {
    match fault(&request) {
        Some(what) => Problem::bad_request(what).into_response(),
        None => next.run(request).await,
    }
}

fn fault<B>(request: &axum::http::Request<B>) -> Option<&'static str> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let (host, another) = (hosts.next(), hosts.next());
    if another.is_some() {
        return Some("the request has more than one Host header");
    }
    let Some(host) = host else {
        let needed = request.version() == Version::HTTP_11 && request.uri().authority().is_none();
        return needed.then_some("the request has no Host header, which HTTP/1.1 asks for");
    };
    let Ok(text) = host.to_str() else { return Some("the Host header is malformed") };
    let Ok(named) = text.parse::<Authority>() else {
        // An empty one is allowed where the address has no host.
        return (!text.is_empty()).then_some("the Host header is malformed");
    };
    if named.as_str().contains('@') {
        return Some("the Host header is malformed");
    }
    let other = request.uri().authority().is_some_and(|a| !a.as_str().eq_ignore_ascii_case(named.as_str()));
    other.then_some("the Host header names another host than the request's address")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_fine(uri: &str, version: Version, hosts: &[&str]) -> bool {
        let mut request = axum::http::Request::builder().uri(uri).version(version);
        for host in hosts {
            request = request.header(header::HOST, *host);
        }
        fault(&request.body(()).unwrap()).is_none()
    }

    #[test]
    fn there_is_one_host() {
        for fine in ["localhost", "127.0.0.1:8080", "[::1]:80", "Shop.example"] {
            assert!(is_fine("/", Version::HTTP_11, &[fine]), "{fine}");
        }
        assert!(!is_fine("/", Version::HTTP_11, &["a.example", "a.example"]));
        assert!(!is_fine("/", Version::HTTP_11, &["a.example", "b.example"]));
        assert!(!is_fine("/", Version::HTTP_11, &[]));
        assert!(is_fine("/", Version::HTTP_10, &[]));
        for bad in ["a b", "a/b", "user@a.example", "a.example:port:5", "ä"] {
            assert!(!is_fine("/", Version::HTTP_11, &[bad]), "{bad}");
        }
    }

    #[test]
    fn addresses_name_the_same_host() {
        assert!(is_fine("http://a.example/", Version::HTTP_11, &["A.example"]));
        assert!(!is_fine("http://a.example/", Version::HTTP_11, &["b.example"]));
        assert!(is_fine("https://a.example/", Version::HTTP_2, &[]));
        assert!(!is_fine("https://a.example/", Version::HTTP_2, &["b.example"]));
    }
}
