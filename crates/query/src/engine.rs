//! A photograph in, the catalogue's most similar items out.

use std::path::{Path, PathBuf};

use semblance_embed::transform::{Limits, decode_bytes, decode_file};
use semblance_embed::{Embedder, ModelSource};
use semblance_index::{Explain, Index, Item, Neighbor, SearchParams};
use serde::Serialize;

use crate::catalog;
use crate::error::{QueryError, Result};

/// A found item.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Hit {
    /// Place in the result, from 1.
    pub rank: usize,
    /// Cosine similarity of the photograph and the item's picture, greater is closer.
    pub score: f32,
    /// The item.
    #[serde(flatten)]
    pub item: Item,
}

impl Hit {
    /// Joins neighbours, best first, with what the index knows of them.
    ///
    /// # Errors
    /// An id the index does not have, and failures of the index.
    pub fn of(index: &Index, neighbors: &[Neighbor]) -> Result<Vec<Self>> {
        let hit = |(place, neighbor): (usize, &Neighbor)| {
            Ok(Self { rank: place + 1, score: neighbor.score, item: index.item(neighbor.id)? })
        };
        neighbors.iter().enumerate().map(hit).collect()
    }
}

/// An open index with the model that made it.
pub struct Engine {
    index: Index,
    embedder: Embedder,
    limits: Limits,
}

impl Engine {
    /// Opens the index in the folder `dir` and its model: the one it was built with, or `model` if given.
    ///
    /// # Errors
    /// A missing or unfinished index, a model that cannot be opened, and a model other than the index's.
    pub fn open(dir: &Path, model: Option<&ModelSource>) -> Result<Self> {
        let index = Index::open(dir)?;
        let recorded;
        let source = match model {
            Some(source) => source,
            None => {
                recorded = recorded_model(&index)?;
                &recorded
            }
        };
        let embedder = Embedder::open(source).map_err(|error| match model {
            Some(_) => error.into(),
            None => {
                let (dir, model) = (dir.to_owned(), source.model.clone());
                QueryError::ModelOfIndex { dir, model, source: Box::new(error) }
            }
        })?;
        Self::new(index, embedder)
    }

    /// Puts an open index and an open model together.
    ///
    /// # Errors
    /// If the index was built with another model.
    pub fn new(index: Index, embedder: Embedder) -> Result<Self> {
        index.check_model(embedder.fingerprint())?;
        Ok(Self { index, embedder, limits: Limits::default() })
    }

    /// Sets what a photograph to search with may cost.
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// The index.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// The model.
    pub fn embedder(&self) -> &Embedder {
        &self.embedder
    }

    /// Where the picture of an item lies, if the catalogue's folder is known.
    pub fn picture(&self, item: &Item) -> Option<PathBuf> {
        picture(&self.index, item)
    }

    /// The items most similar to the photograph in a file.
    ///
    /// # Errors
    /// A photograph that cannot be read, named, and whatever [`Self::search_vector`] reports.
    pub fn search_file(&self, photo: &Path, params: &SearchParams) -> Result<Vec<Hit>> {
        let image = decode_file(photo, &self.limits)?;
        self.search_vector(&self.embed(&image)?, params)
    }

    /// The items most similar to the photograph with this content (JPEG, PNG, …).
    ///
    /// # Errors
    /// As [`Self::search_file`].
    pub fn search_bytes(&self, photo: &[u8], params: &SearchParams) -> Result<Vec<Hit>> {
        let image = decode_bytes(photo, &self.limits)?;
        self.search_vector(&self.embed(&image)?, params)
    }

    /// Like [`Self::search_file`], and tells how the answer was found.
    ///
    /// # Errors
    /// As [`Self::search_file`].
    pub fn search_file_explained(&self, photo: &Path, params: &SearchParams) -> Result<(Vec<Hit>, Explain)> {
        let vector = self.embed(&decode_file(photo, &self.limits)?)?;
        let (neighbors, explain) = self.index.search_explained(&vector, params)?;
        Ok((Hit::of(&self.index, &neighbors)?, explain))
    }

    fn embed(&self, image: &image::RgbImage) -> Result<Vec<f32>> {
        Ok(self.embedder.embed(&self.embedder.transform().apply(image), 1)?)
    }

    /// The items nearest to a unit vector of the index's dimension, best first.
    ///
    /// # Errors
    /// A vector of another dimension or without direction, k = 0, and failures of the index.
    pub fn search_vector(&self, vector: &[f32], params: &SearchParams) -> Result<Vec<Hit>> {
        Hit::of(&self.index, &self.index.search(vector, params)?)
    }
}

/// Where the picture of an item lies, if the catalogue's folder is known.
pub fn picture(index: &Index, item: &Item) -> Option<PathBuf> {
    if let Some(name) = item.metadata.get(catalog::PHOTO).and_then(|name| name.as_str()) {
        return Some(index.dir().join(catalog::UPLOADS).join(name));
    }
    Some(Path::new(index.manifest().config.attributes.get(catalog::ROOT)?).join(&item.key))
}

/// The model an index says it was built with.
///
/// # Errors
/// [`QueryError::NoModelRecorded`] if it does not say.
pub fn recorded_model(index: &Index) -> Result<ModelSource> {
    let manifest = index.manifest();
    let attributes = &manifest.config.attributes;
    let Some(model) = attributes.get(catalog::MODEL) else {
        return Err(QueryError::NoModelRecorded { dir: index.dir().to_owned() });
    };
    Ok(ModelSource {
        arch: attributes.get(catalog::ARCH).and_then(|name| name.parse().ok()),
        transform: attributes.get(catalog::TRANSFORM).and_then(|text| serde_json::from_str(text).ok()),
        ..ModelSource::new(model)
    })
}
