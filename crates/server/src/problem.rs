//! How a request fails: a status, a word for programs, a sentence for people.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use semblance_embed::transform::{ImageError, ImageErrorKind};
use semblance_index::IndexError;
use semblance_query::QueryError;
use serde::Serialize;
use utoipa::ToSchema;

/// `Result` of a request.
pub(crate) type Answer<T> = Result<T, Problem>;

/// Body of every answer that is no success.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct ProblemBody {
    /// A word that does not change, such as `unknown_index`.
    pub(crate) code: &'static str,
    /// What is wrong, and what to do.
    pub(crate) message: String,
}

/// A request that fails.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    status: StatusCode,
    body: ProblemBody,
    retry_after: Option<u32>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, body: ProblemBody { code, message: cut(message.into()) }, retry_after: None }
    }

    /// 400: the request means nothing.
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    /// 404.
    pub(crate) fn not_found(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message)
    }

    /// 413.
    pub(crate) fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
    }

    /// 415.
    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message)
    }

    /// 503: come back in a moment.
    pub(crate) fn busy(message: impl Into<String>) -> Self {
        let problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", message);
        Self { retry_after: Some(1), ..problem }
    }

    /// The same, with the number of seconds after which it may go better.
    pub(crate) fn retry_after(self, seconds: u32) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }

    /// Adds what the operator can do, in brackets; nothing if it is empty.
    pub(crate) fn with_advice(mut self, advice: &str) -> Self {
        if !advice.is_empty() {
            self.body.message = format!("{} ({advice})", self.body.message);
        }
        self
    }

    /// 500: a fault of ours. The cause goes into the log, not to the client: it may name files.
    pub(crate) fn internal(cause: impl std::fmt::Display) -> Self {
        tracing::error!(%cause, "a request failed");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "the server failed on this request; its log says why, under the answer's x-request-id",
        )
    }

    #[cfg(test)]
    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }
}

/// A message may repeat what a client sent, which can be long.
fn cut(mut message: String) -> String {
    const MOST: usize = 1_000;
    if message.len() > MOST {
        let end = (0..=MOST).rev().find(|end| message.is_char_boundary(*end)).unwrap_or(0);
        message.truncate(end);
        message.push('…');
    }
    message
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body)).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<IndexError> for Problem {
    fn from(error: IndexError) -> Self {
        use IndexError as E;
        let code = match &error {
            E::WrongDimension { .. } | E::WrongLength { .. } => "wrong_dimension",
            E::NotFinite { .. } | E::ZeroVector { .. } | E::NotUnit { .. } => "bad_vector",
            E::ZeroK | E::Parameter { .. } => "bad_request",
            E::Cancelled => return Self::busy("the request took too long and was given up"),
            E::Filter { .. } => "bad_filter",
            E::Item { .. } => "bad_item",
            E::UnknownId { id } => {
                return Self::not_found("unknown_item", format!("there is no item with id {id}"));
            }
            E::DiskFull { .. } | E::LittleRoom { .. } => {
                tracing::error!(%error, "the disk is full");
                let message = "the server's disk is full: nothing was changed";
                return Self::new(StatusCode::INSUFFICIENT_STORAGE, "disk_full", message);
            }
            E::Moved { .. } => {
                tracing::error!(%error, "an index is gone");
                let message = "the folder of the index was moved or removed: nothing was changed";
                return Self::new(StatusCode::SERVICE_UNAVAILABLE, "index_gone", message);
            }
            E::Uncertain { .. } => {
                tracing::error!(%error, "a write failed");
                let message = "the server's disk failed: the write may have been kept all the same, so look before you \
                               repeat it";
                return Self::new(StatusCode::INTERNAL_SERVER_ERROR, "write_uncertain", message);
            }
            _ => return Self::internal(error),
        };
        Self::new(StatusCode::BAD_REQUEST, code, error.to_string())
    }
}

impl From<ImageError> for Problem {
    fn from(error: ImageError) -> Self {
        let message = format!("the photograph {}", words(&error.kind));
        match error.kind {
            ImageErrorKind::FileTooLarge { .. }
            | ImageErrorKind::TooManyPixels { .. }
            | ImageErrorKind::TooMuchMemory { .. } => Self::too_large(message),
            ImageErrorKind::UnknownFormat
            | ImageErrorKind::ForeignFormat(_)
            | ImageErrorKind::UnsupportedKind(_) => Self::unsupported(message),
            _ => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_photo", message),
        }
    }
}

fn words(kind: &ImageErrorKind) -> String {
    match kind {
        ImageErrorKind::Empty => "is empty".to_owned(),
        ImageErrorKind::Damaged(part) => format!("is damaged: {part}"),
        ImageErrorKind::Truncated => "is truncated: it ends before its picture does".to_owned(),
        ImageErrorKind::FileTooLarge { bytes, limit } => {
            format!("has {bytes} bytes, more than the limit of {limit}")
        }
        ImageErrorKind::TooManyPixels { .. } => format!("is too large: its {kind}"),
        other => other.to_string(),
    }
}

impl From<QueryError> for Problem {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::Index(error) => error.into(),
            QueryError::Image(error) => error.into(),
            QueryError::Crop(error) => Self::bad_request(error.to_string()),
            error @ QueryError::NothingInCommon => Self::bad_request(error.to_string()),
            other => Self::internal(other),
        }
    }
}
