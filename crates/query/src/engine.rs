//! A photograph in, the catalogue's most similar items out.

use std::path::Path;

use semblance_embed::transform::{Limits, decode_file, decode_small_bytes, decode_small_file};
use semblance_embed::{Embedder, ModelSource, Precision};
use semblance_index::{Index, SearchParams};

use crate::answer::PhotoConfig;
use crate::catalog;
use crate::error::{QueryError, Result};
use crate::pictures::CataloguePictures;
use crate::question::Hit;
use crate::whitening::Whitening;

/// An open index with the model that made it.
pub struct Engine {
    index: Index,
    embedder: Embedder,
    whitening: Option<Whitening>,
    pictures: CataloguePictures,
    limits: Limits,
}

impl Engine {
    /// Opens the index in the folder `dir` and its model: the one it was built with, computed with `precision`, or `model` if
    /// given.
    ///
    /// # Errors
    /// A missing or unfinished index, a model that cannot be opened, and a model other than the index's.
    pub fn open(dir: &Path, model: Option<&ModelSource>, precision: Precision) -> Result<Self> {
        let index = Index::open(dir)?;
        let recorded;
        let source = match model {
            Some(source) => source,
            None => {
                recorded = ModelSource { precision, ..recorded_model(&index)? };
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
        let whitening = check_model(&index, &embedder)?;
        let pictures = CataloguePictures::of(&index, None)?;
        Ok(Self { index, embedder, whitening, pictures, limits: Limits::default() })
    }

    /// Names the folder of the catalogue's pictures, in place of the one that the index records.
    ///
    /// # Errors
    /// [`QueryError::PictureFolder`] if it cannot be opened.
    pub fn with_root(self, root: &Path) -> Result<Self> {
        Ok(Self { pictures: CataloguePictures::of(&self.index, Some(root))?, ..self })
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

    /// The pictures of the index's items.
    pub fn pictures(&self) -> &CataloguePictures {
        &self.pictures
    }

    /// The items most similar to the photograph in a file.
    ///
    /// # Errors
    /// A photograph that cannot be read, named, and whatever [`Self::search_vector`] reports.
    pub fn search_file(&self, photo: &Path, params: &SearchParams) -> Result<Vec<Hit>> {
        self.search_vector(&self.embed_file(photo, &PhotoConfig::default())?, params)
    }

    /// The items most similar to the photograph with this content (JPEG, PNG, …).
    ///
    /// # Errors
    /// As [`Self::search_file`].
    pub fn search_bytes(&self, photo: &[u8], params: &SearchParams) -> Result<Vec<Hit>> {
        let config = PhotoConfig::default();
        let small = decode_small_bytes(photo, &self.limits, config.short_side(self.embedder.transform()))?;
        self.search_vector(&self.embed(&small.picture, &config)?, params)
    }

    /// The upright picture in a file, within the engine's limits.
    ///
    /// # Errors
    /// A photograph that cannot be read, named.
    pub fn read(&self, photo: &Path) -> Result<image::RgbImage> {
        Ok(decode_file(photo, &self.limits)?)
    }

    /// The vector of the photograph in a file, as this index wants it.
    ///
    /// # Errors
    /// A photograph that cannot be read, named, a box outside it, and failures of the model.
    pub fn embed_file(&self, photo: &Path, config: &PhotoConfig) -> Result<Vec<f32>> {
        let short = config.short_side(self.embedder.transform());
        self.embed(&decode_small_file(photo, &self.limits, short)?.picture, config)
    }

    /// The vector of a photograph as this index wants it.
    ///
    /// # Errors
    /// A box outside the picture, and failures of the model.
    pub fn embed(&self, image: &image::RgbImage, config: &PhotoConfig) -> Result<Vec<f32>> {
        Ok(self.to_index(config.embed(&self.embedder, image)?))
    }

    /// Vectors of the embedder (row after row) as vectors of the index: whitened where the index is.
    pub fn to_index(&self, vectors: Vec<f32>) -> Vec<f32> {
        match &self.whitening {
            Some(whitening) => whitening.apply(&vectors),
            None => vectors,
        }
    }

    /// The items nearest to a unit vector of the index's dimension, best first.
    ///
    /// # Errors
    /// A vector of another dimension or without direction, k = 0, and failures of the index.
    pub fn search_vector(&self, vector: &[f32], params: &SearchParams) -> Result<Vec<Hit>> {
        Hit::of(&self.index, &self.index.search(vector, params)?)
    }
}

/// Makes sure that an index's vectors came from this model; returns what is done to them afterwards.
///
/// # Errors
/// If they came from another model, or the transform is damaged.
pub fn check_model(index: &Index, embedder: &Embedder) -> Result<Option<Whitening>> {
    let whitening = Whitening::of_attributes(&index.manifest().config.attributes)?;
    match &whitening {
        Some(whitening) => index.check_model(&whitening.fingerprint(embedder.fingerprint()))?,
        None => index.check_model(embedder.fingerprint())?,
    }
    Ok(whitening)
}

/// The model an index says it was built with.
///
/// # Errors
/// [`QueryError::NoModelRecorded`] if it does not say, [`QueryError::ModelIsNoFile`] if it names what is no model's file.
pub fn recorded_model(index: &Index) -> Result<ModelSource> {
    let manifest = index.manifest();
    let attributes = &manifest.config.attributes;
    let Some(model) = attributes.get(catalog::MODEL) else {
        return Err(QueryError::NoModelRecorded { dir: index.dir().to_owned() });
    };
    // An index from elsewhere may name a pipe, a device or a file of the system, which would be read for ever.
    if std::fs::metadata(model).is_ok_and(|about| !about.is_dir() && (!about.is_file() || about.len() == 0)) {
        return Err(QueryError::ModelIsNoFile { dir: index.dir().to_owned(), model: model.clone() });
    }
    Ok(ModelSource {
        arch: attributes.get(catalog::ARCH).and_then(|name| name.parse().ok()),
        transform: attributes.get(catalog::TRANSFORM).and_then(|text| serde_json::from_str(text).ok()),
        ..ModelSource::new(model)
    })
}
