//! A catalogue into an index: samples → vectors in batches → store → graph.

use std::collections::{BTreeMap, HashSet};

use semblance_embed::dataset::{Dataset, Sample};
use semblance_embed::extract::{ExtractConfig, Failure, extract};
use semblance_embed::{Embedder, ModelSource};
use semblance_index::{IndexConfig, IndexWriter, Manifest, MergeOptions, NewItem, Progress};
use serde::Serialize;
use unicode_normalization::UnicodeNormalization;

use crate::error::{QueryError, Result};
use crate::metadata::Metadata;
use crate::whitening::Whitening;

/// Attribute of an index: the catalogue's name.
pub const CATALOGUE: &str = "catalogue";
/// Attribute of an index: the folder the items' keys are relative to.
pub const ROOT: &str = "catalogue_root";
/// Metadata entry of an item whose picture came in by itself, not as a file of the catalogue: the picture's name in the
/// folder [`UPLOADS`].
pub const PHOTO: &str = "semblance:photo";
/// Folder within an index's own for the pictures of such items.
pub const UPLOADS: &str = "uploads";
/// Attribute of an index: the name the model was opened by.
pub const MODEL: &str = "model";
/// Attribute of an index: the model's architecture, for weight files that do not say it.
pub const ARCH: &str = "model_arch";
/// Attribute of an index: the model's evaluation transform as JSON.
pub const TRANSFORM: &str = "model_transform";

/// What happens while an index is built.
#[derive(Clone, Copy, Debug)]
pub enum BuildProgress {
    /// Pictures dealt with, of how many.
    Embedding {
        /// Dealt with, the unreadable ones included.
        done: usize,
        /// All that were not in the index already.
        total: usize,
    },
    /// All vectors are stored; the searchable form is being made.
    Indexing(Progress),
}

/// What became of the catalogue's pictures.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BuildSummary {
    /// Pictures embedded and stored.
    pub embedded: usize,
    /// Pictures an earlier, interrupted build had stored already.
    pub already_stored: usize,
    /// Pictures stored before whose metadata changed.
    pub described: usize,
    /// Pictures skipped because they could not be read.
    pub failures: Vec<Failure>,
}

/// The configuration of an index over `dataset` with `embedder`: what is needed to search it again later goes into its
/// attributes. `source` is what the embedder was opened from; a local path is made absolute.
pub fn index_config(dataset: &Dataset, embedder: &Embedder, source: &ModelSource) -> IndexConfig {
    let mut attributes = BTreeMap::new();
    let mut set = |key: &str, value: String| attributes.insert(key.to_owned(), value);
    set(CATALOGUE, dataset.name.clone());
    set(ROOT, absolute(&dataset.root.to_string_lossy()));
    set(MODEL, absolute(&source.model));
    set(ARCH, embedder.config().arch.to_string());
    if let Ok(transform) = serde_json::to_string(embedder.transform()) {
        set(TRANSFORM, transform);
    }
    IndexConfig { attributes, ..IndexConfig::new(embedder.dim(), embedder.fingerprint()) }
}

/// The absolute form of a name that is a path on this machine, any other name as it is.
fn absolute(name: &str) -> String {
    match std::fs::canonicalize(name) {
        Ok(path) => path.to_string_lossy().into_owned(),
        Err(_) => name.to_owned(),
    }
}

/// Embeds every picture of `dataset` that `writer` does not have, stores it under its path as key, and finishes the
/// index.
///
/// Each batch is stored as soon as it is embedded, so an interrupted build goes on where it was when called again with
/// the same writer folder. Unreadable pictures are listed in the summary, unless `config.strict` makes the first one an
/// error; what was stored before stays stored.
///
/// # Errors
/// [`QueryError::NothingReadable`] if not a single picture got in; the errors of decoding, of the model and of the index.
pub fn build(
    dataset: &Dataset,
    embedder: &Embedder,
    writer: &IndexWriter,
    config: &ExtractConfig,
    progress: &(dyn Fn(BuildProgress) + Sync),
) -> Result<(BuildSummary, Manifest)> {
    build_with(dataset, &Metadata::default(), embedder, writer, config, progress)
}

/// Like [`build`], with what is known of the pictures beside their class; filters can ask for it.
///
/// # Errors
/// As [`build`].
pub fn build_with(
    dataset: &Dataset,
    metadata: &Metadata,
    embedder: &Embedder,
    writer: &IndexWriter,
    config: &ExtractConfig,
    progress: &(dyn Fn(BuildProgress) + Sync),
) -> Result<(BuildSummary, Manifest)> {
    let missing = missing_from(dataset, writer)?;
    let described = describe_stored(dataset, metadata, writer)?;
    // An index that whitens its vectors does so for every item that is added.
    let whitening = Whitening::of_attributes(&writer.config().attributes)?;
    let total = missing.len();
    let mut store = |rows: &[usize], vectors: &[f32]| -> Result<()> {
        let items: Vec<NewItem> = rows.iter().map(|row| item(&missing.samples[*row], metadata)).collect();
        match &whitening {
            Some(whitening) => writer.upsert(&items, &whitening.apply(vectors))?,
            None => writer.upsert(&items, vectors)?,
        };
        Ok(())
    };
    let extracted = extract(embedder, &missing, config, &mut store, &mut |done| {
        progress(BuildProgress::Embedding { done, total });
    })?;
    let summary = BuildSummary {
        embedded: extracted.embedded,
        already_stored: dataset.len() - total,
        described,
        failures: extracted.failures,
    };
    if summary.embedded + summary.already_stored == 0 {
        return Err(QueryError::nothing_readable(dataset, &summary.failures));
    }
    let options = MergeOptions::all_threads();
    let manifest = writer.finish_merged(&options, &|step| progress(BuildProgress::Indexing(step)))?;
    Ok((summary, manifest))
}

/// The samples that the index has no item for, whatever Unicode form its key has there: a folder copied from one system to
/// another has its names in another form. Of two samples in two forms each is looked for by itself.
fn missing_from(dataset: &Dataset, writer: &IndexWriter) -> Result<Dataset> {
    let keys = keys_beyond_ascii(dataset);
    let mut rows = Vec::new();
    for (row, sample) in dataset.samples.iter().enumerate() {
        if stored_id(&sample.key(), &keys, writer)?.is_none() {
            rows.push(row);
        }
    }
    Ok(dataset.select(&rows))
}

fn keys_beyond_ascii(dataset: &Dataset) -> HashSet<String> {
    dataset.samples.iter().map(Sample::key).filter(|key| !key.is_ascii()).collect()
}

/// The item of a key, or of another Unicode form of it that is no key of the data set itself.
fn stored_id(key: &str, keys: &HashSet<String>, writer: &IndexWriter) -> Result<Option<u64>> {
    let is_other = |form: &str| form != key && keys.contains(form);
    Ok(id_of(key, |form| if is_other(form) { Ok(None) } else { writer.find(form) })?)
}

/// The item of a key, or of its other Unicode forms: letters composed (NFC) or in several code points (NFD), as file names
/// of some systems are. `find` looks up one form.
///
/// # Errors
/// Those of `find`.
pub fn id_of<E>(key: &str, find: impl Fn(&str) -> Result<Option<u64>, E>) -> Result<Option<u64>, E> {
    if let Some(id) = find(key)? {
        return Ok(Some(id));
    }
    if key.is_ascii() {
        return Ok(None);
    }
    match find(&key.nfc().collect::<String>())? {
        Some(id) => Ok(Some(id)),
        None => find(&key.nfd().collect::<String>()),
    }
}

/// Gives items that the index holds already what the metadata says of them; fields that it does not name stay. Returns how
/// many changed.
fn describe_stored(dataset: &Dataset, metadata: &Metadata, writer: &IndexWriter) -> Result<usize> {
    let (keys, mut described) = (keys_beyond_ascii(dataset), 0);
    if metadata.is_empty() {
        return Ok(0);
    }
    for samples in dataset.samples.chunks(1024) {
        let (mut items, mut vectors) = (Vec::new(), Vec::new());
        for sample in samples {
            let fields = metadata.of(&sample.key());
            let Some(id) = stored_id(&sample.key(), &keys, writer)? else { continue };
            let (Some(item), Some(vector)) = (writer.item(id)?, writer.vector(id)?) else { continue };
            let mut changed = item.metadata.clone();
            changed.extend(fields);
            if changed != item.metadata {
                items.push(NewItem { metadata: changed, ..NewItem::from(item) });
                vectors.extend(vector);
            }
        }
        writer.upsert(&items, &vectors)?;
        described += items.len();
    }
    Ok(described)
}

pub(crate) fn item(sample: &Sample, metadata: &Metadata) -> NewItem {
    NewItem {
        metadata: metadata.of(&sample.key()),
        class: sample.class.clone(),
        super_class: sample.super_class.clone(),
        ..NewItem::new(sample.key())
    }
}
