//! Extractors of parts of requests, with error messages of this crate.

use std::sync::Arc;

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;

use crate::app::Shared;
use crate::problem::{Answer, Problem};
use crate::shelf::Shelf;

/// Most parameters behind the question mark.
const MOST_PAIRS: usize = 64;

/// The index an address names.
pub(crate) struct OfIndex(pub(crate) Arc<Shelf>);

/// The index and the number of an item that an address names.
pub(crate) struct OfItem(pub(crate) Arc<Shelf>, pub(crate) u64);

/// What stands behind the question mark, in order.
pub(crate) struct Pairs(pub(crate) Vec<(String, String)>);

impl FromRequestParts<Shared> for OfIndex {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Shared) -> Answer<Self> {
        let name = part(parts, app, "index").await?;
        Ok(Self(app.shelf(&name)?))
    }
}

impl FromRequestParts<Shared> for OfItem {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Shared) -> Answer<Self> {
        let OfIndex(shelf) = OfIndex::from_request_parts(parts, app).await?;
        let id = part(parts, app, "id").await?;
        let id = id
            .parse()
            .map_err(|_| Problem::bad_request(format!("{id:?} is no item's id: ids are numbers")))?;
        Ok(Self(shelf, id))
    }
}

async fn part(parts: &mut Parts, app: &Shared, name: &str) -> Answer<String> {
    let malformed = |_| Problem::bad_request("the address is malformed");
    let all = RawPathParams::from_request_parts(parts, app).await.map_err(malformed)?;
    let found = all.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_owned());
    found.ok_or_else(|| Problem::internal(format!("the route has no part {name}")))
}

impl FromRequestParts<Shared> for Pairs {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Shared) -> Answer<Self> {
        let count = parts.uri.query().map_or(0, |query| query.matches('&').count() + 1);
        if count > MOST_PAIRS {
            let message = format!("the address has {count} parameters, more than {MOST_PAIRS}");
            return Err(Problem::bad_request(message));
        }
        let query = axum::extract::Query::<Vec<(String, String)>>::from_request_parts(parts, app).await;
        let query =
            query.map_err(|error| Problem::bad_request(format!("the address is malformed: {error}")))?;
        Ok(Self(query.0))
    }
}

impl Pairs {
    /// The value of a parameter that may be given once.
    pub(crate) fn one(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Refuses parameters of other names.
    pub(crate) fn only(&self, known: &[&str]) -> Answer<()> {
        match self.0.iter().find(|(key, _)| !known.contains(&key.as_str())) {
            Some((key, _)) => Err(Problem::bad_request(format!(
                "there is no parameter {key:?}; there is: {}",
                known.join(", ")
            ))),
            None => Ok(()),
        }
    }
}
