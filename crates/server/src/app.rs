//! What all requests share.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use semblance_embed::{Embedder, ModelSource};
use semblance_index::Cancel;
use semblance_query::{QueryError, engine};
use serde::Serialize;

use crate::access::Rates;
use crate::batcher::Batcher;
use crate::config::ServerConfig;
use crate::error::{Result, ServerError};
use crate::metrics::Metrics;
use crate::problem::{Answer, Problem};
use crate::shelf::{Model, Opened, Shelf};
use crate::thumbnail::Thumbnails;
use crate::work::{Idempotency, Lane, Memory};

/// Shared by all requests.
pub(crate) type Shared = Arc<App>;

/// Files that are read at once.
const FILES: usize = 32;
/// Changes that are written at once: they share syncs of the disk.
const WRITES: usize = 32;
/// Indexes that are published at once.
const PUBLICATIONS: usize = 4;
/// Indexes whose segments are merged at once: it is no hurry, and takes processors from searches.
const MERGES: usize = 1;

/// The served indexes, and what bounds the work on them.
pub(crate) struct App {
    pub(crate) config: ServerConfig,
    pub(crate) shelves: BTreeMap<String, Arc<Shelf>>,
    pub(crate) bodies: Memory,
    pub(crate) rates: Rates,
    pub(crate) repeated: Arc<Idempotency>,
    pub(crate) metrics: Metrics,
    pub(crate) thumbnails: Thumbnails,
    /// Pictures made small.
    pub(crate) decoders: Lane,
    /// Searches that can take long, pages of items, facets.
    pub(crate) searches: Lane,
    /// Files that are opened and read: pictures and reports, whose disk may hang.
    pub(crate) files: Lane,
    /// Changes of indexes.
    pub(crate) writes: Lane,
    /// Publications: of several indexes at the same time.
    pub(crate) publications: Lane,
    /// Merges of segments, which take long.
    pub(crate) merges: Lane,
    /// Cancelled when the server stops.
    pub(crate) merging: Cancel,
    stopping: AtomicBool,
}

impl App {
    /// Opens the indexes and their models.
    pub(crate) fn open(config: ServerConfig) -> Result<Self> {
        if config.indexes.is_empty() {
            return Err(ServerError::NoIndex);
        }
        let metrics = Metrics::new();
        let mut shelves = BTreeMap::new();
        let mut models: Vec<Arc<Model>> = Vec::new();
        for source in &config.indexes {
            if shelves.contains_key(&source.name) {
                return Err(ServerError::RepeatedName { name: source.name.clone() });
            }
            let opened = Opened::open(&source.dir, config.read_only)?;
            let wanted = opened.index.manifest().config.model.clone();
            // Indexes of one model share its thread and its batches.
            let model = match models.iter().find(|model| model.fingerprint == wanted) {
                Some(model) => model.clone(),
                None => {
                    let model = Arc::new(open_model(&opened, &config, &metrics)?);
                    models.push(model.clone());
                    model
                }
            };
            let shelf = Arc::new(Shelf::new(source, opened, model, &config.base_path)?);
            metrics.watch(&shelf);
            shelves.insert(source.name.clone(), shelf);
        }
        let limits = config.limits;
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        let decoders = if limits.decoders == 0 { processors } else { limits.decoders };
        Ok(Self {
            bodies: Memory::new(
                limits.upload_bytes,
                limits.buffered_bytes,
                limits.request_time.mul_f32(0.75),
            ),
            thumbnails: Thumbnails::new(limits.thumbnail_bytes),
            decoders: Lane::new("thumbnails", decoders, limits.waiting),
            searches: Lane::new("searches", 2 * processors, limits.waiting),
            files: Lane::new("pictures", FILES, limits.waiting),
            writes: Lane::new("changes", WRITES, limits.waiting),
            publications: Lane::new("publications", PUBLICATIONS, usize::MAX),
            merges: Lane::new("merges", MERGES, usize::MAX),
            merging: Cancel::default(),
            rates: Rates::new(config.request_rate),
            repeated: Arc::default(),
            stopping: AtomicBool::new(false),
            metrics,
            shelves,
            config,
        })
    }

    /// The index of this name.
    pub(crate) fn shelf(&self, name: &str) -> Answer<Arc<Shelf>> {
        let known = || self.shelves.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        self.shelves.get(name).cloned().ok_or_else(|| {
            Problem::not_found("unknown_index", format!("there is no index {name:?}; there is: {}", known()))
        })
    }

    /// An answer as JSON, which counts as memory until it is sent.
    pub(crate) fn json<T: Serialize>(&self, body: &T) -> Answer<Response> {
        let json = serde_json::to_vec(body).map_err(Problem::internal)?;
        let json = self.bodies.claim(json.len())?.of(json);
        Ok(([(header::CONTENT_TYPE, "application/json")], Body::from(json)).into_response())
    }

    /// From now on the server is not ready.
    pub(crate) fn stop(&self) {
        self.merging.cancel();
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// The most threads on which work may take its time: those of all lanes.
    pub(crate) fn blocking_threads(config: &ServerConfig) -> usize {
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        let decoders = if config.limits.decoders == 0 { processors } else { config.limits.decoders };
        decoders + 2 * processors + FILES + WRITES + PUBLICATIONS + MERGES
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }
}

fn open_model(opened: &Opened, config: &ServerConfig, metrics: &Metrics) -> Result<Model> {
    let index = &opened.index;
    let recorded: ModelSource;
    let source = match &config.model {
        Some(source) => source,
        None => {
            recorded = ModelSource { precision: config.precision, ..engine::recorded_model(index)? };
            &recorded
        }
    };
    let embedder = Embedder::open(source).map_err(|error| match &config.model {
        Some(_) => ServerError::from(error),
        None => {
            let (dir, model) = (index.dir().to_owned(), source.model.clone());
            QueryError::ModelOfIndex { dir, model, source: Box::new(error) }.into()
        }
    })?;
    let whitening = engine::check_model(index, &embedder)?;
    // A whitened index has a fingerprint of its own; what shares it also shares the whitening.
    let (arch, fingerprint) = (embedder.config().arch.to_string(), index.manifest().config.model.clone());
    let (transform, batches) = (embedder.transform().clone(), metrics.batches());
    let batcher = Batcher::start(
        config.batch,
        Box::new(move |pixels, n| {
            let vectors = embedder.embed(pixels, n).map_err(|error| error.to_string())?;
            Ok(match &whitening {
                Some(whitening) => whitening.apply(&vectors),
                None => vectors,
            })
        }),
        Box::new(move |n| batches.observe(n as f64)),
    );
    let batcher = batcher.map_err(|source| ServerError::System { what: "cannot start a thread", source })?;
    Ok(Model { arch, fingerprint, transform, batcher })
}
