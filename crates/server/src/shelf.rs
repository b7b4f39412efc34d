//! A served index: its reader, its writer if we have the right to write, its model and its pictures.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use semblance_embed::transform::EvalTransform;
use semblance_index::{Cancel, Index, IndexError, IndexWriter, MergeOptions};

use crate::batcher::Batcher;
use crate::config::IndexSource;
use crate::error::Result;
use crate::facets::Facets;
use crate::pictures::Pictures;
use crate::problem::{Answer, Problem};
use crate::view::encoded;

/// Number of changes that are published at once, without waiting for a quiet moment.
const MANY: u64 = 512;
/// Time without a change after which they are.
const QUIET: Duration = Duration::from_secs(5);

/// What is known of a model, and the way to it: it lives on its own thread.
pub(crate) struct Model {
    pub(crate) arch: String,
    pub(crate) fingerprint: String,
    pub(crate) transform: EvalTransform,
    pub(crate) batcher: Batcher,
}

/// An index as it is served.
pub(crate) struct Shelf {
    pub(crate) name: String,
    /// Where its items are, for links.
    pub(crate) items_address: String,
    pub(crate) index: Index,
    pub(crate) model: Arc<Model>,
    pub(crate) pictures: Pictures,
    writer: Option<IndexWriter>,
    /// Why there is no writer.
    pub(crate) remark: Option<String>,
    /// One write of a key at a time: a key has one of these.
    keys: [Mutex<()>; 64],
    /// One publication at a time.
    publishing: Mutex<()>,
    changes: AtomicU64,
    unpublished: Mutex<Unpublished>,
    facets: Mutex<Option<KnownFacets>>,
    /// Whether the folder of the index was moved or removed, as of the last round.
    moved: AtomicBool,
}

/// Facets, and the state of the index they were counted in.
type KnownFacets = ((u64, u64), Bytes);

#[derive(Clone, Copy)]
struct Unpublished {
    changes: u64,
    last: Instant,
}

/// An index just opened, before it has its model.
pub(crate) struct Opened {
    pub(crate) index: Index,
    writer: Option<IndexWriter>,
    remark: Option<String>,
}

impl Opened {
    /// Opens the index, to write if that is wanted and nobody else does.
    pub(crate) fn open(dir: &Path, read_only: bool) -> Result<Self> {
        if read_only {
            let remark = Some("the server was started read-only".to_owned());
            return Ok(Self { index: Index::open(dir)?, writer: None, remark });
        }
        // An unfinished index is reported as unfinished.
        let published = Index::open(dir)?;
        match IndexWriter::open(dir) {
            Ok(writer) => {
                // What a server that was killed had written but not published.
                writer.finish(&|_progress| {})?;
                sweep(&writer);
                Ok(Self { index: writer.reader()?, writer: Some(writer), remark: None })
            }
            Err(error @ (IndexError::Locked { .. } | IndexError::ReadOnly { .. })) => {
                let remark = Some(format!("served read-only: {error}"));
                Ok(Self { index: published, writer: None, remark })
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Removes pictures that crashes left behind. They do no harm, so neither does a failure.
fn sweep(writer: &IndexWriter) {
    let index = writer.dir().display();
    match semblance_query::uploads::sweep(writer) {
        Ok(swept) if swept.files > 0 => {
            let (files, bytes) = (swept.files, swept.bytes);
            tracing::info!(%index, files, bytes, "uploads that no item names were removed");
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(%index, %error, "uploads that no item names could not be looked for"),
    }
}

impl Shelf {
    pub(crate) fn new(source: &IndexSource, opened: Opened, model: Arc<Model>, base: &str) -> Result<Self> {
        let Opened { index, writer, remark } = opened;
        Ok(Self {
            name: source.name.clone(),
            items_address: format!("{base}/v1/indexes/{}/items", encoded(&source.name)),
            pictures: Pictures::new(&index, source.root.as_deref(), &source.dir)?,
            index,
            model,
            writer,
            remark,
            keys: std::array::from_fn(|_| Mutex::new(())),
            publishing: Mutex::default(),
            changes: AtomicU64::new(0),
            unpublished: Mutex::new(Unpublished { changes: 0, last: Instant::now() }),
            facets: Mutex::new(None),
            moved: AtomicBool::new(false),
        })
    }

    /// The writer, if we may write.
    pub(crate) fn writer(&self) -> Option<&IndexWriter> {
        self.writer.as_ref()
    }

    /// The right to write this key; keys of other requests are written meanwhile.
    pub(crate) fn lock_key(&self, key: &str) -> MutexGuard<'_, ()> {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        unpoisoned(&self.keys[hasher.finish() as usize % self.keys.len()])
    }

    /// To be called after every change.
    pub(crate) fn changed(&self) {
        self.changes.fetch_add(1, Ordering::Relaxed);
        let mut unpublished = unpoisoned(&self.unpublished);
        *unpublished = Unpublished { changes: unpublished.changes + 1, last: Instant::now() };
    }

    /// An error if the folder of the index was moved or removed. Looks at the disk.
    pub(crate) fn check_place(&self) -> Result<(), IndexError> {
        match &self.writer {
            Some(writer) => writer.check_place(),
            None if self.index.dir().is_dir() => Ok(()),
            None => Err(IndexError::Moved { dir: self.index.dir().to_owned() }),
        }
    }

    /// Whether the folder of the index had been moved or removed in the last round.
    pub(crate) fn is_moved(&self) -> bool {
        self.moved.load(Ordering::Relaxed)
    }

    /// Takes up what another process published, and publishes what was written here once it is much or a while ago.
    pub(crate) fn tend(&self) -> Result<(), IndexError> {
        let placed = self.check_place();
        let known = self.moved.swap(placed.is_err(), Ordering::Relaxed);
        if let Err(error) = placed {
            // Said once: every round finds it again.
            return if known { Ok(()) } else { Err(error) };
        }
        let Some(writer) = &self.writer else {
            return self.index.refresh().map(|_| ());
        };
        // After an error of the disk, so that the server gets ready again without a write.
        writer.recover()?;
        let now = *unpoisoned(&self.unpublished);
        if now.changes >= MANY || (now.changes > 0 && now.last.elapsed() >= QUIET) {
            self.publish()?;
        }
        Ok(())
    }

    /// Makes what was written part of the searchable files, so that other processes see it too.
    pub(crate) fn publish(&self) -> Result<(), IndexError> {
        let Some(writer) = &self.writer else { return Ok(()) };
        let _one = unpoisoned(&self.publishing);
        let before = std::mem::replace(&mut unpoisoned(&self.unpublished).changes, 0);
        if before == 0 {
            return Ok(());
        }
        let started = Instant::now();
        match writer.finish(&|_progress| {}) {
            Ok(manifest) => {
                let seconds = started.elapsed().as_secs_f32();
                tracing::info!(
                    index = self.name,
                    changes = before,
                    items = manifest.items,
                    seconds,
                    "published"
                );
                Ok(())
            }
            Err(error) => {
                // The store has it all; the next round tries again.
                let mut unpublished = unpoisoned(&self.unpublished);
                *unpublished = Unpublished { changes: unpublished.changes + before, last: Instant::now() };
                Err(error)
            }
        }
    }

    /// Merges segments, if that is due.
    pub(crate) fn merge(&self, cancel: &Cancel) -> Result<(), IndexError> {
        let Some(writer) = self.writer.as_ref().filter(|_| !self.is_moved()) else { return Ok(()) };
        let options = MergeOptions { cancel: cancel.clone(), ..MergeOptions::default() };
        let started = Instant::now();
        match writer.merge(&options, &|_progress| {}) {
            Ok(None) | Err(IndexError::Cancelled) => Ok(()),
            Ok(Some(manifest)) => {
                let (segments, seconds) = (manifest.segments.len(), started.elapsed().as_secs_f32());
                tracing::info!(index = self.name, segments, seconds, "merged");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Changes that only this process sees yet.
    pub(crate) fn unpublished(&self) -> u64 {
        unpoisoned(&self.unpublished).changes
    }

    /// What items can be filtered by, as JSON; counted again after a change.
    pub(crate) fn facets(&self, cancel: &Cancel) -> Answer<Bytes> {
        let state = (self.changes.load(Ordering::Relaxed), self.index.manifest().generation);
        if let Some((of, facets)) = &*unpoisoned(&self.facets)
            && *of == state
        {
            return Ok(facets.clone());
        }
        let facets = Facets::of(&self.index, cancel)?;
        let facets = Bytes::from(serde_json::to_vec(&facets).map_err(Problem::internal)?);
        *unpoisoned(&self.facets) = Some((state, facets.clone()));
        Ok(facets)
    }
}

/// Nothing behind these locks can be left half done by a panic.
fn unpoisoned<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}
