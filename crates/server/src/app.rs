//! What all requests share.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use semblance_embed::{Embedder, ModelSource};
use semblance_query::{QueryError, engine};
use tokio::sync::Semaphore;

use crate::batcher::Batcher;
use crate::body::BodyBudget;
use crate::config::ServerConfig;
use crate::error::{Result, ServerError};
use crate::metrics::Metrics;
use crate::problem::{Answer, Problem};
use crate::shelf::{Model, Opened, Shelf};
use crate::thumbnail::Thumbnails;

/// Shared by all requests.
pub(crate) type Shared = Arc<App>;

/// The served indexes, and what bounds the work on them.
pub(crate) struct App {
    pub(crate) config: ServerConfig,
    pub(crate) shelves: BTreeMap<String, Arc<Shelf>>,
    pub(crate) bodies: BodyBudget,
    pub(crate) metrics: Metrics,
    pub(crate) thumbnails: Thumbnails,
    decoders: Semaphore,
    waiting: AtomicUsize,
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
            bodies: BodyBudget::new(
                limits.upload_bytes,
                limits.buffered_bytes,
                limits.request_time.mul_f32(0.75),
            ),
            thumbnails: Thumbnails::new(limits.thumbnail_bytes),
            decoders: Semaphore::new(decoders),
            waiting: AtomicUsize::new(0),
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

    /// Work on a picture's bytes for a thumbnail, no more of it at once than there are decoders, on a thread where it may
    /// take its time.
    pub(crate) async fn decode<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Answer<T> + Send + 'static,
    ) -> Answer<T> {
        let place = Place(&self.waiting);
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.config.limits.waiting {
            return Err(Problem::busy("too many pictures wait to be decoded: try again in a moment"));
        }
        let _decoder = self.decoders.acquire().await.map_err(Problem::internal)?;
        drop(place);
        blocking(work).await
    }

    /// From now on the server is not ready.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }
}

/// A place in the queue before the decoders, given up when dropped.
struct Place<'a>(&'a AtomicUsize);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Work that takes its time, on a thread where it may. A panic in it fails the request and nothing else.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Answer<T> + Send + 'static,
) -> Answer<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(Problem::internal(error)),
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
