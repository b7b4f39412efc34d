//! An uploaded photograph: out of the request, decoded within limits, cropped, through the model.

use std::collections::BTreeMap;

use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, FromRequest as _, Multipart, Request};
use axum::http::{HeaderMap, header};
use image::RgbImage;
use image::imageops::crop_imm;
use semblance_embed::transform::decode_bytes;
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::body::Received;
use crate::find::CropBox;
use crate::problem::{Answer, Problem};
use crate::shelf::Shelf;

/// What came with a request: a photograph, and fields with a name.
pub(crate) struct Upload {
    pub(crate) photo: Option<Bytes>,
    pub(crate) fields: BTreeMap<String, String>,
    /// The memory that the photograph takes.
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
        let kind = content_type(&parts.headers).to_owned();
        let body = app.bodies.read(body).await?;
        if kind.starts_with("multipart/form-data") {
            return Self::of_form(&kind, body).await;
        }
        if kind.is_empty() || kind.starts_with("image/") || kind == "application/octet-stream" {
            let photo = (!body.bytes.is_empty()).then(|| body.bytes.clone());
            return Ok(Self { photo, fields: BTreeMap::new(), _body: body });
        }
        Err(Problem::unsupported(format!(
            "the content type {kind:?} is not understood: send the photograph as image/…, or as the field `photo` of \
             multipart/form-data"
        )))
    }

    async fn of_form(kind: &str, body: Received) -> Answer<Self> {
        let mut request = Request::new(Body::from(body.bytes.clone()));
        let kind = kind.parse().map_err(|_| Problem::bad_request("the content type is malformed"))?;
        request.headers_mut().insert(header::CONTENT_TYPE, kind);
        // The body's size has been limited already.
        DefaultBodyLimit::disable().apply(&mut request);
        let bad =
            |error: &dyn std::fmt::Display| Problem::bad_request(format!("the form is malformed: {error}"));
        let mut form = Multipart::from_request(request, &()).await.map_err(|e| bad(&e))?;
        let (mut photo, mut fields) = (None, BTreeMap::new());
        while let Some(field) = form.next_field().await.map_err(|e| bad(&e))? {
            let name = field.name().unwrap_or_default().to_owned();
            if name == "photo" {
                let bytes = field.bytes().await.map_err(|e| bad(&e))?;
                if photo.replace(bytes).is_some() {
                    return Err(Problem::bad_request("the form has two photographs: send one"));
                }
            } else {
                let value = field.text().await.map_err(|e| bad(&e))?;
                fields.insert(name, value);
            }
        }
        Ok(Self { photo, fields, _body: body })
    }

    /// The photograph, which must be there.
    pub(crate) fn required(&self) -> Answer<Bytes> {
        self.photo
            .clone()
            .ok_or_else(|| Problem::bad_request("there is no photograph: send one in the field `photo`"))
    }
}

/// The vector of a photograph, or of a part of it.
pub(crate) async fn embed(
    app: &App,
    shelf: &Shelf,
    photo: Bytes,
    crop: Option<CropBox>,
) -> Answer<(Vec<f32>, PhotoInfo)> {
    let announced = shelf.model.batcher.announce();
    let (limits, transform) = (app.config.limits.picture(), shelf.model.transform.clone());
    let decoded = app.decode(move || {
        let picture = decode_bytes(&photo, &limits)?;
        let info = PhotoInfo { width: picture.width(), height: picture.height() };
        let picture = match crop {
            Some(part) => cut(&picture, part)?,
            None => picture,
        };
        Ok((transform.apply(&picture), info))
    });
    let (pixels, info) = decoded.await?;
    Ok((shelf.model.batcher.embed(pixels, announced).await?, info))
}

/// The part of the picture that the box holds.
fn cut(picture: &RgbImage, part: CropBox) -> Answer<RgbImage> {
    let CropBox { x, y, .. } = part;
    let width = part.width.min(picture.width().saturating_sub(x));
    let height = part.height.min(picture.height().saturating_sub(y));
    if width == 0 || height == 0 {
        return Err(Problem::bad_request(format!(
            "the box {x},{y},{},{} holds nothing of the photograph, which has {} × {} pixels",
            part.width,
            part.height,
            picture.width(),
            picture.height()
        )));
    }
    Ok(crop_imm(picture, x, y, width, height).to_image())
}

/// The content type of a request, empty if it has none.
pub(crate) fn content_type(headers: &HeaderMap) -> &str {
    headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default().trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_are_cut_to_the_photograph() {
        let picture = RgbImage::from_fn(10, 8, |x, y| image::Rgb([x as u8, y as u8, 0]));
        let part = |x, y, width, height| cut(&picture, CropBox { x, y, width, height });
        let whole = part(8, 1, 100, 3).unwrap();
        assert_eq!((whole.dimensions(), whole.get_pixel(0, 0).0), ((2, 3), [8, 1, 0]));
        for (x, y, width, height) in [(10, 0, 1, 1), (0, 8, 1, 1), (0, 0, 0, 5), (u32::MAX, 0, u32::MAX, 1)] {
            assert_eq!(part(x, y, width, height).unwrap_err().status(), 400);
        }
    }
}
