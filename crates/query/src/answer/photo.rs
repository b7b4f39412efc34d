//! A photograph to a vector: cut out, seen several times, averaged.

use image::RgbImage;
use semblance_embed::Embedder;
use semblance_embed::transform::EvalTransform;
use serde::{Deserialize, Serialize};

use super::{CropBox, Views, together};
use crate::error::Result;

/// What is done to a photograph before it is searched with. By default nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PhotoConfig {
    /// The part that shows the item.
    pub crop: Option<CropBox>,
    /// Which views of it are embedded.
    pub views: Views,
}

impl PhotoConfig {
    /// Whether the photograph is taken as it is.
    pub fn is_plain(&self) -> bool {
        *self == Self::default()
    }

    /// The short side in pixels that a decoded photograph needs, for
    /// [`decode_small_file`](semblance_embed::transform::decode_small_file) and its kind.
    pub fn short_side(&self, transform: &EvalTransform) -> u32 {
        // Of a part there is no telling how small it is, and a box may count the file's own pixels.
        if self.crop.is_some() { u32::MAX } else { transform.resize }
    }

    /// The views as the network takes them: `f32[views][3][crop][crop]`.
    ///
    /// # Errors
    /// A box outside the picture.
    pub fn pixels(&self, transform: &EvalTransform, picture: &RgbImage) -> Result<Vec<f32>> {
        let part;
        let picture = match &self.crop {
            None => picture,
            Some(crop) => {
                part = crop.cut(picture)?;
                &part
            }
        };
        Ok(self.views.apply(picture, transform))
    }

    /// The unit vector of a photograph.
    ///
    /// # Errors
    /// A box outside the picture, and failures of the model.
    pub fn embed(&self, embedder: &Embedder, picture: &RgbImage) -> Result<Vec<f32>> {
        let views = self.views.count();
        let vectors = embedder.embed(&self.pixels(embedder.transform(), picture)?, views)?;
        Ok(mean_of_views(&vectors, embedder.dim(), views).concat())
    }
}

/// The mean direction of every `views` rows.
pub fn mean_of_views(vectors: &[f32], dim: usize, views: usize) -> Vec<Vec<f32>> {
    let rows: Vec<&[f32]> = vectors.chunks_exact(dim).collect();
    let mean = |rows: &[&[f32]]| together(rows).unwrap_or_else(|| rows[0].to_vec());
    rows.chunks_exact(views).map(mean).collect()
}
