//! What a request says of its body: its media type and its encoding.

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use mime::Mime;

use crate::problem::{Answer, Problem};

/// The media type of a body. Names are compared whatever their case (RFC 9110, 8.3.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MediaType(Option<Mime>);

impl MediaType {
    /// The media type that the headers give; none is no error.
    pub(crate) fn of(headers: &HeaderMap) -> Answer<Self> {
        let Some(value) = headers.get(header::CONTENT_TYPE).filter(|value| !value.is_empty()) else {
            return Ok(Self(None));
        };
        let parsed = value.to_str().ok().and_then(|text| text.trim().parse().ok());
        let malformed = || {
            let message = format!("the content type {value:?} is malformed: it looks like image/jpeg");
            Problem::unsupported(message)
        };
        Ok(Self(Some(parsed.ok_or_else(malformed)?)))
    }

    /// Whether it is this one, whatever its parameters.
    pub(crate) fn is(&self, essence: &str) -> bool {
        self.0.as_ref().is_some_and(|mime| mime.essence_str().eq_ignore_ascii_case(essence))
    }

    /// Whether the body may be a picture by itself: of a type for pictures, or of none in particular.
    pub(crate) fn may_be_picture(&self) -> bool {
        let is_image = |mime: &Mime| mime.type_() == mime::IMAGE;
        self.0.as_ref().is_none_or(is_image) || self.is("application/octet-stream")
    }
}

impl std::fmt::Display for MediaType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.as_ref().map_or(Ok(()), |mime| write!(f, "{mime}"))
    }
}

/// The name of a form's field, whatever the case of the parameter that gives it (RFC 2183, 2).
pub(crate) fn field_name(headers: &HeaderMap) -> Option<String> {
    let disposition = headers.get(header::CONTENT_DISPOSITION)?.to_str().ok()?;
    // A disposition and its parameters are written as the second half of a media type and its parameters.
    let parsed: Mime = format!("x/{disposition}").parse().ok()?;
    Some(parsed.get_param("name")?.as_str().to_owned())
}

/// Refuses bodies that are compressed or otherwise encoded, before one is taken for a damaged picture.
pub(crate) async fn plain_only(request: Request, next: Next) -> Response {
    let mut codings = request.headers().get_all(header::CONTENT_ENCODING).iter();
    let encoded = codings.find(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"));
    let Some(coding) = encoded else { return next.run(request).await };
    let message = format!(
        "the body has the content encoding {coding:?}: send it as it is, without the header Content-Encoding"
    );
    let mut response = Problem::unsupported(message).into_response();
    response.headers_mut().insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn media_type(value: &str) -> Answer<MediaType> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, value.parse().unwrap());
        MediaType::of(&headers)
    }

    #[test]
    fn media_types_have_no_case() {
        for json in
            ["application/json", "Application/JSON", "APPLICATION/JSON; Charset=UTF-8", " application/json "]
        {
            assert!(media_type(json).unwrap().is("application/json"), "{json}");
        }
        assert!(!media_type("application/jsonp").unwrap().is("application/json"));
        for picture in ["image/jpeg", "Image/JPEG", "IMAGE/webp; q=1", "Application/Octet-Stream", ""] {
            assert!(media_type(picture).unwrap().may_be_picture(), "{picture}");
        }
        assert!(!media_type("text/plain").unwrap().may_be_picture());
        assert!(MediaType::of(&HeaderMap::new()).unwrap().may_be_picture());
        assert_eq!(media_type("no media type").unwrap_err().status(), 415);
    }

    #[test]
    fn names_of_fields_have_parameters_of_any_case() {
        let name = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_DISPOSITION, value.parse().unwrap());
            field_name(&headers)
        };
        assert_eq!(name("form-data; name=\"photo\"").as_deref(), Some("photo"));
        assert_eq!(name("Form-Data; Name=photo; FileName=\"a b.jpg\"").as_deref(), Some("photo"));
        assert_eq!(name("form-data; filename=\"name=x\""), None);
    }
}
