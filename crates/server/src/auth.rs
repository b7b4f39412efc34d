//! Authentication: a bearer token, in a header or in the page's cookie, compared in constant time.

use std::fmt;

use axum::extract::{Request, State};
use axum::http::{Extensions, HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq;

use crate::access::Client;
use crate::app::{App, Shared};
use crate::error::{Result, ServerError};
use crate::problem::{Answer, Problem};

/// Name of the cookie the web page signs in with.
pub(crate) const COOKIE: &str = "semblance_token";

/// A secret that requests must bring. Never printed.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// # Errors
    /// [`ServerError::BadToken`] for a secret that is too short, or that a header cannot carry as it is.
    pub fn new(secret: &str) -> Result<Self> {
        let secret = secret.trim();
        if secret.len() < 16 {
            return Err(ServerError::BadToken { what: "is shorter than 16 characters" });
        }
        if !secret.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b)) {
            return Err(ServerError::BadToken { what: "has characters a header cannot carry" });
        }
        Ok(Self(secret.to_owned()))
    }

    /// Whether `given` is this token, in a time that does not tell how much of it is right.
    pub(crate) fn is(&self, given: &str) -> bool {
        self.0.as_bytes().ct_eq(given.as_bytes()).into()
    }

    /// For the cookie of a page that brought the token itself.
    pub(crate) fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Lets requests pass that bring the token, if one is needed.
pub(crate) async fn guard(State(app): State<Shared>, request: Request, next: Next) -> Response {
    match admit(&app, request.headers(), request.extensions(), brings) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

/// Lets a request pass if it `brings` the token. After too many wrong ones from an address none is looked at for a while.
///
/// # Errors
/// No token, a wrong one, or too many wrong ones.
pub(crate) fn admit(
    app: &App,
    headers: &HeaderMap,
    extensions: &Extensions,
    brings: fn(&Token, &HeaderMap) -> bool,
) -> Answer<()> {
    let Some(token) = &app.config.token else { return Ok(()) };
    if bearer(headers).is_none() && cookie(headers).next().is_none() {
        return Err(refusal());
    }
    let client = extensions.get::<Client>().map(|client| client.0);
    client.map_or(Ok(()), |client| app.rates.may_try(client))?;
    if brings(token, headers) {
        return Ok(());
    }
    client.into_iter().for_each(|client| app.rates.wrong_token(client));
    Err(refusal())
}

pub(crate) fn refusal() -> Problem {
    let message = "this server wants a token: send it as `Authorization: Bearer TOKEN`";
    Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
}

fn brings(token: &Token, headers: &HeaderMap) -> bool {
    bearer(headers).is_some_and(|given| token.is(given)) || cookie(headers).any(|given| token.is(given))
}

/// The token of the header `Authorization`.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, given) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| given.trim())
}

fn cookie(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let all = headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    all.flat_map(|line| line.split(';')).filter_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        (name == COOKIE).then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_token_is_let_in() {
        let token = Token::new("0123456789abcdef").unwrap();
        let with = |name: header::HeaderName, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            brings(&token, &headers)
        };
        assert!(with(header::AUTHORIZATION, "Bearer 0123456789abcdef"));
        assert!(with(header::AUTHORIZATION, "bearer 0123456789abcdef"));
        assert!(with(header::COOKIE, "a=b; semblance_token=0123456789abcdef"));
        assert!(!with(header::AUTHORIZATION, "Bearer 0123456789abcde"));
        assert!(!with(header::AUTHORIZATION, "Basic 0123456789abcdef"));
        assert!(!with(header::COOKIE, "token=0123456789abcdef"));
        assert!(!brings(&token, &HeaderMap::new()));
    }

    #[test]
    fn weak_tokens_are_refused_and_none_is_printed() {
        assert!(Token::new("short").is_err());
        assert!(Token::new("0123456789 abcdef").is_err());
        assert_eq!(format!("{:?}", Token::new(" 0123456789abcdef\n").unwrap()), "Token(…)");
    }
}
