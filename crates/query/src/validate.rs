//! Recall@1 and MAP@R of a model on photographs held out from training.

use semblance_embed::Embedder;
use semblance_embed::dataset::Dataset;
use semblance_embed::extract::ExtractConfig;
use semblance_embed::train::Score;
use semblance_index::FlatIndex;

use crate::embedded::Embedded;
use crate::error::Result;
use crate::evaluate::{EvalConfig, Gallery, Queries, evaluate, evaluate_vectors};
use crate::report::Report;

/// The photographs and the protocol.
#[derive(Clone, Debug)]
pub struct Validation {
    /// The photographs to search with.
    pub queries: Dataset,
    /// The photographs to search in; `None` searches each query among the other queries (leave-one-out), which suits
    /// held-out classes.
    pub gallery: Option<Dataset>,
    /// How they are read.
    pub extract: ExtractConfig,
}

impl Validation {
    /// Embeds the photographs and measures, by exact search.
    ///
    /// # Errors
    /// Failures of reading, of the model and of the search.
    pub fn report(&self, embedder: &Embedder, config: &EvalConfig) -> Result<Report> {
        let queries = Embedded::new(embedder, &self.queries, &self.extract, &mut |_| {})?;
        let classes = queries.classes();
        let Some(dataset) = &self.gallery else {
            return evaluate_vectors(&self.queries.name, &queries.vectors, queries.dim, &classes, config);
        };
        let gallery = Embedded::new(embedder, dataset, &self.extract, &mut |_| {})?;
        let flat = FlatIndex::new(&gallery.vectors, gallery.dim)?;
        let items =
            gallery.samples.iter().enumerate().map(|(row, sample)| (row as u64, sample.class.as_deref()));
        let gallery = Gallery::new(&flat, items, &dataset.name, embedder.fingerprint());
        let queries =
            Queries { name: &self.queries.name, vectors: &queries.vectors, classes: &classes, own_ids: None };
        evaluate(&gallery, &queries, &EvalConfig { graph: false, ..config.clone() }, &|_, _| {})
    }

    /// Recall@1 and MAP@R, averaged over the queries that have a match.
    ///
    /// # Errors
    /// As [`Self::report`]. NaN never comes out: without a query that has a match both are 0.
    pub fn score(&self, embedder: &Embedder) -> Result<Score> {
        let report = self.report(embedder, &EvalConfig { ks: vec![1], ..EvalConfig::default() })?;
        let exact = report.exact();
        let recall_at_1 = exact.and_then(|exact| exact.recall(1)).unwrap_or(0.0);
        Ok(Score { recall_at_1, map_at_r: exact.and_then(|exact| exact.map_at_r).unwrap_or(0.0) })
    }
}
