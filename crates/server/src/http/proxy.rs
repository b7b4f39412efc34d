//! A proxy before the server: the path below which it serves it, and the names that it passes on as `Host`.

use axum::Router;
use axum::extract::{Request, State};
use axum::http::uri::{Authority, PathAndQuery, Uri};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};

use crate::error::{Result, ServerError};

/// A base path as it is used: with a slash at its start and none at its end; empty for none.
pub(crate) fn base_path(given: &str) -> Result<String> {
    let path = given.trim_end_matches('/');
    let slash = if path.is_empty() || path.starts_with('/') { "" } else { "/" };
    let path = format!("{slash}{path}");
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~/%".contains(&b);
    let is_clean = !path.split('/').skip(1).any(|part| part.is_empty() || part == "." || part == "..");
    if is_clean && path.bytes().all(plain) {
        return Ok(path);
    }
    Err(ServerError::BadBasePath { path: given.to_owned() })
}

/// The name of a host, perhaps with a port, in lower case.
pub(crate) fn public_host(given: &str) -> Result<String> {
    let bad = || ServerError::BadHost { host: given.to_owned() };
    let authority: Authority = given.parse().map_err(|_| bad())?;
    if given.contains('@') || authority.host().is_empty() {
        return Err(bad());
    }
    Ok(given.to_ascii_lowercase())
}

/// Whether a `Host` is one of these names. A port counts only where the name has one.
pub(crate) fn is_public(host: &str, public: &[String]) -> bool {
    let Ok(host) = host.parse::<Authority>() else { return false };
    public.iter().any(|name| {
        name.parse::<Authority>().is_ok_and(|name| {
            let same_port = name.port().is_none() || name.port_u16() == host.port_u16();
            name.host().eq_ignore_ascii_case(host.host()) && same_port
        })
    })
}

/// Whether an origin, as browsers send it, is that of pages from this authority.
pub(crate) fn is_origin_of(origin: &str, authority: &str) -> bool {
    let Some((scheme, given)) = origin.split_once("://") else { return false };
    let default = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => return false,
    };
    // Browsers leave the usual port out, proxies may not.
    let plain = |authority: &str| {
        let lower = authority.to_ascii_lowercase();
        lower.strip_suffix(default).map(str::to_owned).unwrap_or(lower)
    };
    plain(given) == plain(authority)
}

/// The router below a base path: requests may come with the path, or without it where the proxy takes it off.
pub(crate) fn below(base: &str, router: Router) -> Router {
    if base.is_empty() {
        return router;
    }
    // Only what is around a router can change the address before it chooses a route.
    Router::new().fallback_service(router).layer(from_fn_with_state(base.to_owned(), strip))
}

async fn strip(State(base): State<String>, mut request: Request, next: Next) -> Response {
    let Some(rest) = request.uri().path_and_query().and_then(|path| path.as_str().strip_prefix(&base)) else {
        return next.run(request).await;
    };
    if rest.is_empty() || rest.starts_with('?') {
        // Relative addresses in the page need the slash.
        return (StatusCode::PERMANENT_REDIRECT, [(header::LOCATION, format!("{base}/{rest}"))])
            .into_response();
    }
    if rest.starts_with('/')
        && let Ok(rest) = rest.parse::<PathAndQuery>()
    {
        let mut parts = request.uri().clone().into_parts();
        parts.path_and_query = Some(rest);
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
    }
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_paths_are_read_in_every_form() {
        for given in ["/shop", "shop", "/shop/", "shop//"] {
            assert_eq!(base_path(given).unwrap(), "/shop", "{given}");
        }
        assert_eq!(base_path("/a/b%20c").unwrap(), "/a/b%20c");
        assert_eq!((base_path("").unwrap(), base_path("/").unwrap()), (String::new(), String::new()));
        for bad in ["/a b", "//a", "/a?b", "/a#b", "/../a", "/a/./b", "http://shop.example/a"] {
            assert!(base_path(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn public_hosts_are_compared_by_name_and_by_their_own_port() {
        let public = ["Shop.Example", "other.example:8443"].map(|host| public_host(host).unwrap());
        for host in ["shop.example", "SHOP.example:8080", "other.example:8443"] {
            assert!(is_public(host, &public), "{host}");
        }
        for host in ["evil.example", "other.example", "other.example:80", "shop.example.evil.example", ""] {
            assert!(!is_public(host, &public), "{host}");
        }
        for bad in ["https://shop.example", "user@shop.example", "", "a b", "shop.example/x"] {
            assert!(public_host(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn origins_leave_out_the_usual_port() {
        assert!(is_origin_of("https://shop.example", "shop.example"));
        assert!(is_origin_of("https://shop.example", "Shop.Example:443"));
        assert!(is_origin_of("http://localhost:8080", "LOCALHOST:8080"));
        assert!(!is_origin_of("https://shop.example", "shop.example:80"));
        assert!(!is_origin_of("https://shop.example.evil", "shop.example"));
        assert!(!is_origin_of("null", "null"));
    }
}
