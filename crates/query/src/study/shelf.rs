//! What is known of a gallery beside its vectors.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use semblance_embed::dataset::Dataset;
use semblance_embed::{Embedder, ModelSource};
use semblance_index::{Codes, HnswConfig, Index, Item};

use crate::catalog;
use crate::embedded::Embedded;
use crate::error::Result;
use crate::pictures::CataloguePictures;

/// A gallery's items by id, where their pictures lie, and what made it: an index on disk, or a data set in memory.
#[derive(Debug)]
pub struct Shelf {
    items: HashMap<u64, Item>,
    pictures: Pictures,
    pub(crate) model: String,
    pub(crate) place: PathBuf,
    pub(crate) program: String,
    pub(crate) graph: Option<(HnswConfig, Codes)>,
    pub(crate) attributes: BTreeMap<String, String>,
}

/// Where the pictures of a gallery lie.
#[derive(Debug)]
enum Pictures {
    /// Where those of an index do.
    Catalogue(Arc<CataloguePictures>),
    /// Below the folder of a data set.
    DataSet(PathBuf),
}

impl Shelf {
    /// That of an index, with its pictures.
    ///
    /// # Errors
    /// Failures of the index.
    pub fn of(index: &Index, pictures: Arc<CataloguePictures>) -> Result<Self> {
        let manifest = index.manifest();
        let config = &manifest.config;
        Ok(Self {
            items: index.items()?.into_iter().map(|item| (item.id, item)).collect(),
            pictures: Pictures::Catalogue(pictures),
            model: config.model.clone(),
            place: index.dir().to_owned(),
            program: manifest.program.clone(),
            graph: Some((config.hnsw.clone(), manifest.codes())),
            attributes: config.attributes.clone(),
        })
    }

    /// That of a data set whose vectors are in memory, under the numbers of their rows; `source` is what the model was
    /// opened from.
    pub fn of_embedded(
        embedded: &Embedded<'_>,
        dataset: &Dataset,
        embedder: &Embedder,
        source: &ModelSource,
    ) -> Self {
        let config = catalog::index_config(dataset, embedder, source);
        let item = |(id, sample): (u64, _)| (id, catalog::item(sample, &Default::default()).with_id(id));
        Self {
            items: (0..).zip(embedded.samples.iter().copied()).map(item).collect(),
            pictures: Pictures::DataSet(dataset.root.clone()),
            model: config.model,
            place: dataset.root.clone(),
            program: concat!("semblance ", env!("CARGO_PKG_VERSION")).to_owned(),
            graph: None,
            attributes: config.attributes,
        }
    }

    /// Id and class of each item.
    pub fn classes(&self) -> impl Iterator<Item = (u64, Option<&str>)> {
        self.items.values().map(|item| (item.id, item.class.as_deref()))
    }

    /// The model's fingerprint.
    pub fn model(&self) -> &str {
        &self.model
    }

    pub(crate) fn item(&self, id: u64) -> Option<&Item> {
        self.items.get(&id)
    }

    /// All items, in no order.
    pub(crate) fn items(&self) -> impl Iterator<Item = &Item> {
        self.items.values()
    }

    pub(crate) fn picture(&self, item: &Item) -> Option<PathBuf> {
        match &self.pictures {
            Pictures::Catalogue(pictures) => pictures.path(item),
            Pictures::DataSet(root) => Some(root.join(&item.key)),
        }
    }

    /// Items of each class.
    pub(crate) fn class_sizes(&self) -> HashMap<&str, usize> {
        let mut sizes = HashMap::new();
        for class in self.items.values().filter_map(|item| item.class.as_deref()) {
            *sizes.entry(class).or_default() += 1;
        }
        sizes
    }
}
