//! Protection against requests that pages of other sites send through a browser: they are refused.
//!
//! A proxy may pass on another name as `Host`, which the operator then gives as one of the public hosts.
//!
//! A page elsewhere can post a form to `127.0.0.1` (cross-site request forgery), or give its own name this machine's
//! address and then be "the same origin" (DNS rebinding). The first shows in `Origin` and `Sec-Fetch-Site`, the second
//! in `Host`, which a server on loopback knows.

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::app::Shared;
use crate::http::proxy::{is_origin_of, is_public};
use crate::problem::Problem;

/// Refuses what a page of another site sends.
pub(crate) async fn guard(State(app): State<Shared>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    // Which of two is meant, this server and a proxy before it could see differently (RFC 9112, 3.2).
    if headers.get_all(header::HOST).iter().count() > 1 {
        return Problem::bad_request("the request has more than one Host").into_response();
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).map(str::to_owned);
    // HTTP/2 has it in the address.
    let host = host.or_else(|| request.uri().authority().map(|a| a.as_str().to_owned()));
    let public = &app.config.public_hosts;
    let is_ours = |host: &str| is_this_machine(host) || is_public(host, public);
    if app.config.listen.ip().is_loopback() && !host.as_deref().is_none_or(is_ours) {
        let message = format!(
            "this server answers for 127.0.0.1, localhost{} only: its operator can add the name that a proxy passes on to the public \
             hosts, or let the proxy send one of these as Host",
            public.iter().map(|host| format!(", {host}")).collect::<String>()
        );
        let problem = Problem::new(StatusCode::MISDIRECTED_REQUEST, "wrong_host", message);
        return problem.with_advice(&app.config.advice.public_host).into_response();
    }
    let own: Vec<&str> = host.as_deref().into_iter().chain(public.iter().map(String::as_str)).collect();
    if is_foreign(headers, &own, &app.config.allowed_origins) {
        let message = "pages of other sites may not use this server, unless its operator allows their origin or, for its own page \
                       behind a proxy, adds the proxy's name to the public hosts";
        let problem = Problem::new(StatusCode::FORBIDDEN, "foreign_origin", message);
        return problem.with_advice(&app.config.advice.allowed_origin).into_response();
    }
    next.run(request).await
}

fn is_this_machine(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

/// Whether a page of an origin that is neither one of our `own` hosts nor allowed sends this.
fn is_foreign(headers: &HeaderMap, own: &[&str], allowed: &[String]) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    match text("origin") {
        Some(origin) if allowed.iter().any(|a| a == origin) => false,
        Some(origin) => !own.iter().any(|host| is_origin_of(origin, host)),
        // Without Origin it is a simple GET; following a link to here is no harm.
        None => text("sec-fetch-site") == Some("cross-site") && text("sec-fetch-mode") != Some("navigate"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_this_machine() {
        for host in ["localhost", "localhost:8080", "127.0.0.1:80", "[::1]:8080", "127.1.2.3"] {
            assert!(is_this_machine(host), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example", "10.0.0.1:8080", "", "0.0.0.0"] {
            assert!(!is_this_machine(host), "{host}");
        }
    }

    #[test]
    fn foreign_pages_are_told_by_their_headers() {
        let foreign = |pairs: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            pairs.iter().for_each(|(name, value)| {
                headers.insert(*name, value.parse().unwrap());
            });
            is_foreign(&headers, &["127.0.0.1:8080", "public.example"], &["https://shop.example".to_owned()])
        };
        assert!(!foreign(&[]));
        assert!(!foreign(&[("origin", "http://127.0.0.1:8080")]));
        assert!(!foreign(&[("origin", "https://shop.example")]));
        assert!(!foreign(&[("origin", "https://public.example")]), "a proxy before us speaks TLS");
        assert!(foreign(&[("origin", "https://evil.example")]));
        assert!(foreign(&[("origin", "null")]));
        assert!(foreign(&[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors")]));
        assert!(!foreign(&[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")]));
        assert!(!foreign(&[("sec-fetch-site", "same-origin")]));
    }
}
