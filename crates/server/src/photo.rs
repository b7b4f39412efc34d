//! Uploaded photographs: out of the request, decoded within limits, cropped, through the model.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use axum::body::{Body, Bytes};
use axum::extract::multipart::Field;
use axum::extract::{DefaultBodyLimit, FromRequest as _, Multipart, Request};
use axum::http::HeaderMap;
use futures_util::future::try_join_all;
use semblance_embed::transform::decode_small_bytes;
use semblance_query::answer::photo::mean_of_views;
use semblance_query::answer::together;
use semblance_query::{PhotoConfig, QueryError};
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::batcher::Ready;
use crate::http::content::{MediaType, field_name};
use crate::problem::{Answer, Problem};
use crate::shelf::Shelf;
use crate::work::Received;

/// The field of a form that a photograph goes into.
const PHOTO: &str = "photo";
/// Photographs of one item that a request may bring.
const MOST_PHOTOS: usize = 16;
/// Other fields that a form may have.
const MOST_FIELDS: usize = 64;

/// What came with a request: photographs, and fields with a name.
pub(crate) struct Upload {
    pub(crate) photos: Vec<Bytes>,
    pub(crate) fields: BTreeMap<String, String>,
    /// The memory that the photographs take.
    _body: Received,
}

/// A photograph as it was understood.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub(crate) struct PhotoInfo {
    /// Width of the upright photograph in pixels.
    pub(crate) width: u32,
    /// Height of the upright photograph in pixels.
    pub(crate) height: u32,
}

impl Upload {
    /// Reads a form (`multipart/form-data` with the photograph in the field `photo`), or a body that is the photograph.
    pub(crate) async fn read(app: &App, request: Request) -> Answer<Self> {
        let (parts, body) = request.into_parts();
        let kind = MediaType::of(&parts.headers)?;
        let body = app.bodies.read(body).await?;
        if kind.is("multipart/form-data") {
            return Self::of_form(parts.headers, body).await;
        }
        if kind.may_be_picture() {
            let photos = if body.bytes.is_empty() { Vec::new() } else { vec![body.bytes.clone()] };
            return Ok(Self { photos, fields: BTreeMap::new(), _body: body });
        }
        Err(Problem::unsupported(format!(
            "the content type {kind} is not understood: send the photograph as image/…, or as the field `photo` of \
             multipart/form-data"
        )))
    }

    async fn of_form(headers: HeaderMap, body: Received) -> Answer<Self> {
        let mut request = Request::new(Body::from(body.bytes.clone()));
        *request.headers_mut() = headers;
        // The body's size has been limited already.
        DefaultBodyLimit::disable().apply(&mut request);
        let bad =
            |error: &dyn std::fmt::Display| Problem::bad_request(format!("the form is malformed: {error}"));
        let mut form = Multipart::from_request(request, &()).await.map_err(|e| bad(&e))?;
        let (mut photos, mut fields) = (Vec::new(), BTreeMap::new());
        while let Some(field) = form.next_field().await.map_err(|e| bad(&e))? {
            let name = field.name().map(str::to_owned).or_else(|| field_name(field.headers()));
            let name = name.unwrap_or_default();
            if name == PHOTO {
                let bytes = field.bytes().await.map_err(|e| bad(&e))?;
                if photos.len() == MOST_PHOTOS {
                    let message = format!("the form has more than {MOST_PHOTOS} photographs");
                    return Err(Problem::bad_request(message));
                }
                photos.push(bytes);
            } else if is_file(&field) {
                let message =
                    format!("the photograph goes into the field `{PHOTO}`: the form has a file in {name:?}");
                return Err(Problem::bad_request(message));
            } else {
                let value = field.text().await.map_err(|e| bad(&e))?;
                fields.insert(name, value);
                if fields.len() > MOST_FIELDS {
                    return Err(Problem::bad_request(format!("the form has more than {MOST_FIELDS} fields")));
                }
            }
        }
        Ok(Self { photos, fields, _body: body })
    }

    /// The photographs, of which there must be one.
    pub(crate) fn some(&self) -> Answer<&[Bytes]> {
        if self.photos.is_empty() {
            return Err(Problem::bad_request("there is no photograph: send one in the field `photo`"));
        }
        Ok(&self.photos)
    }

    /// The photograph, if there is one, of which there must be no more.
    pub(crate) fn at_most_one(&self) -> Answer<Option<Bytes>> {
        match &self.photos[..] {
            [] => Ok(None),
            [photo] => Ok(Some(photo.clone())),
            more => {
                Err(Problem::bad_request(format!("the form has {} photographs: an item has one", more.len())))
            }
        }
    }

    /// The photograph, which there must be, and no other.
    pub(crate) fn one(&self) -> Answer<Bytes> {
        self.some()?;
        self.at_most_one()?.ok_or_else(|| Problem::internal("no photograph"))
    }
}

/// The vector of several photographs of one item, or of one.
pub(crate) async fn embed(
    app: &App,
    shelf: &Shelf,
    photos: &[Bytes],
    config: PhotoConfig,
) -> Answer<(Vec<f32>, PhotoInfo)> {
    let each = photos.iter().map(|photo| embed_one(app, shelf, photo.clone(), config));
    let (vectors, infos): (Vec<_>, Vec<_>) = try_join_all(each).await?.into_iter().unzip();
    let vector = together(&vectors).ok_or(QueryError::NothingInCommon)?;
    let info = *infos.first().ok_or_else(|| Problem::internal("no photograph"))?;
    Ok((vector, info))
}

async fn embed_one(
    app: &App,
    shelf: &Shelf,
    photo: Bytes,
    config: PhotoConfig,
) -> Answer<(Vec<f32>, PhotoInfo)> {
    let (limits, transform) = (app.config.limits.picture(), shelf.model.transform.clone());
    let size = Arc::new(OnceLock::new());
    let tell = size.clone();
    let prepare = move || {
        let small = decode_small_bytes(&photo, &limits, config.short_side(&transform))?;
        let _ = tell.set(PhotoInfo { width: small.width, height: small.height });
        Ok(Ready { pixels: config.pixels(&transform, &small.picture)?, views: config.views.count() })
    };
    let vectors = shelf.model.batcher.embed(Box::new(prepare)).await?;
    let info = size.get().copied().ok_or_else(|| Problem::internal("a photograph without a size"))?;
    Ok((mean_of_views(&vectors, shelf.index.dim(), config.views.count()).concat(), info))
}

/// Whether a field of a form was filled with a file.
fn is_file(field: &Field<'_>) -> bool {
    let is_picture = field.content_type().is_some_and(|kind| kind.to_ascii_lowercase().starts_with("image/"));
    field.file_name().is_some() || is_picture
}
