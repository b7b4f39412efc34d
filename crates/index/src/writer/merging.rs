//! Merging segments in the background, and compacting an index to one.
//!
//! The new segment is written without any lock that a write needs. Deletions that are published meanwhile are carried over
//! when it takes the place of its sources: of its rows, those count whose item a source still holds.

use std::collections::BTreeSet;
use std::sync::{Arc, MutexGuard};

use roaring::RoaringBitmap;

use super::{IndexWriter, Publishing};
use crate::cancel::Cancel;
use crate::config::{Builder, Progress};
use crate::error::Result;
use crate::segment::manifest::{Manifest, SegmentEntry};
use crate::segment::merge_policy::{self, Size};
use crate::segment::publish::opened;
use crate::segment::row_source::{RowSource, Source, StoreRows};
use crate::segment::segment_writer::SegmentWriter;
use crate::segment::snapshot::{Segment, Snapshot};
use crate::segment::state::State;

/// Share of dead or new nodes up to which a graph is extended instead of rebuilt.
const EXTEND_UP_TO: f64 = 0.3;

/// How a merge runs.
#[derive(Debug, Clone)]
pub struct MergeOptions {
    /// Threads that link the graph; 0 for all of the machine.
    pub threads: usize,
    /// Asks the merge to stop; nothing has changed then.
    pub cancel: Cancel,
}

impl Default for MergeOptions {
    /// One thread: merging is no hurry, and searches go on beside it.
    fn default() -> Self {
        Self { threads: 1, cancel: Cancel::default() }
    }
}

impl MergeOptions {
    /// All threads of the machine: for a caller that waits.
    pub fn all_threads() -> Self {
        Self { threads: 0, ..Self::default() }
    }
}

impl IndexWriter {
    /// Publishes as [`Self::finish`] does, and merges until nothing is due.
    ///
    /// # Errors
    /// Those of [`Self::finish`] and [`Self::merge`].
    pub fn finish_merged(
        &self,
        options: &MergeOptions,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Manifest> {
        let mut manifest = self.finish(progress)?;
        while let Some(merged) = self.merge(options, progress)? {
            manifest = merged;
        }
        Ok(manifest)
    }

    /// Merges segments if a tier of them is full or one holds many deleted items; `None` if nothing is due. To be called
    /// after publications, again until nothing is due. Takes time by what the merged segments hold. Writes and
    /// publications go on meanwhile; a second call waits for the first.
    ///
    /// # Errors
    /// Failures of the disk, damaged segments, and [`crate::IndexError::Cancelled`]. What is published stays.
    pub fn merge(
        &self,
        options: &MergeOptions,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Option<Manifest>> {
        let _one = self.merging.lock().unwrap_or_else(|e| e.into_inner());
        self.recover()?;
        let Some(snapshot) = self.sound_snapshot() else { return Ok(None) };
        let size = |s: &Segment| Size { items: s.reader.len() as u64, deleted: s.deleted.len() };
        let sizes: Vec<Size> = snapshot.segments.iter().map(size).collect();
        let chosen = merge_policy::choose(&sizes);
        if chosen.is_empty() {
            return Ok(None);
        }
        // Segments of a state are sorted by size, so the largest of the chosen comes first.
        let chosen: BTreeSet<usize> = chosen.into_iter().collect();
        let sources: Vec<&Segment> = chosen.iter().map(|&at| &snapshot.segments[at]).collect();
        self.check_room(sources.iter().map(|s| s.live()).sum(), 0)?;
        let step = |step| {
            progress(step);
            options.cancel.check()
        };
        let number = self.next_number();
        let writer = self.segment_writer(&number, &step);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(options.threads).build();
        let merged = match pool {
            Ok(pool) => pool.install(|| merged(&writer, &sources)),
            // Without threads of its own it takes those that searches use.
            Err(_) => merged(&writer, &sources),
        }?;
        let numbers = sources.iter().map(|s| s.number()).collect();
        let mut publishing = self.publishing();
        self.replace_segments(&mut publishing, &writer, merged, &numbers).map(Some)
    }

    /// Publishes, and makes all segments again from the store as one: nothing of deleted items is left, and whatever was
    /// damaged is whole. Takes time by what the index holds; writes go on meanwhile.
    pub fn compact(&self, progress: &(dyn Fn(Progress) + Sync)) -> Result<Manifest> {
        let _one = self.merging.lock().unwrap_or_else(|e| e.into_inner());
        let step = |step| {
            progress(step);
            Ok(())
        };
        self.usable_store()?.remove_placeholders()?;
        let from_nothing = self.sound_snapshot().is_none();
        let mut publishing = self.publishing();
        if from_nothing {
            return self.publish_everything(&mut publishing, &step);
        }
        // Of what is published, nothing can be touched from here on without being noticed.
        let manifest = self.publish(&mut publishing, &step)?;
        drop(publishing);
        let numbers: BTreeSet<u64> = manifest.segments.iter().map(|s| s.number).collect();
        self.check_room(manifest.items, 0)?;
        let number = self.next_number();
        let writer = self.segment_writer(&number, &step);
        let collected = {
            let store = self.store();
            StoreRows::new(&store).and_then(|rows| writer.collect(&RowSource::Store(rows)))
        };
        let all = collected.inspect_err(|_| writer.discard()).and_then(|rows| writer.finish(rows))?;
        let mut publishing = self.publishing();
        // What was read may be newer than what is published: it counts from the segments that this publishes.
        self.publish(&mut publishing, &step).inspect_err(|_| writer.discard())?;
        self.replace_segments(&mut publishing, &writer, all, &numbers)
    }

    /// Publishes a state in which a new segment, or nothing, is in the place of others.
    fn replace_segments(
        &self,
        publishing: &mut MutexGuard<'_, Publishing>,
        writer: &SegmentWriter<'_>,
        merged: Option<SegmentEntry>,
        numbers: &BTreeSet<u64>,
    ) -> Result<Manifest> {
        let snapshot = self.inner().snapshot.clone().expect("a state was published");
        let (replaced, kept): (Vec<&Segment>, Vec<&Segment>) =
            snapshot.segments.iter().partition(|s| numbers.contains(&s.number()));
        let mut edition = self.edition(snapshot.manifest.sequence);
        edition.keep(&snapshot.manifest, kept.iter().map(|s| (s.reader.clone(), s.deleted.clone())));
        if let Some(entry) = merged {
            let deleted = opened(&self.dir, &self.config, &entry).map(|s| not_held(&s, &replaced));
            let deleted = deleted.inspect_err(|_| writer.discard())?;
            edition.segments.push((entry, Arc::new(deleted)));
        }
        let prepared = edition.prepare(Some(&snapshot)).inspect_err(|_| writer.discard())?;
        if prepared.snapshot.manifest.items != snapshot.manifest.items {
            let (before, after) = (snapshot.manifest.items, prepared.snapshot.manifest.items);
            prepared.discard();
            let what = format!("merging segments of {before} items left {after}");
            return Err(crate::IndexError::damaged(&self.dir, what));
        }
        self.put(publishing, prepared, |inner, snapshot| {
            inner.recent.as_ref().map(|recent| State::of(snapshot, recent.delta.clone()))
        })?;
        self.settle(publishing)
    }

    /// The published state, if there is one and all of its segments are sound.
    fn sound_snapshot(&self) -> Option<Arc<Snapshot>> {
        let inner = self.inner();
        inner.snapshot.clone().filter(|_| !inner.damaged)
    }
}

/// One segment of all rows of others that are not deleted.
fn merged(writer: &SegmentWriter<'_>, sources: &[&Segment]) -> Result<Option<SegmentEntry>> {
    let rows: Vec<Source<'_>> = sources.iter().map(|s| (&*s.reader, &*s.deleted)).collect();
    let base = &*sources[0].reader;
    if !can_extend(writer, sources)? {
        return writer.write(&RowSource::Segments(&rows));
    }
    writer.extend(base, &RowSource::Segments(&rows)).map(Some)
}

/// Whether extending the graph of the first segment is less work than building a new one.
fn can_extend(writer: &SegmentWriter<'_>, sources: &[&Segment]) -> Result<bool> {
    let [base, others @ ..] = sources else { return Ok(false) };
    if base.reader.graph()?.is_none() || writer.config.hnsw.builder != Builder::Native {
        return Ok(false);
    }
    let dead = base.deleted.len() + base.reader.entry().dead_nodes;
    let new: u64 = others.iter().map(|s| s.live()).sum();
    Ok(((dead + new) as f64) < EXTEND_UP_TO * base.reader.nodes() as f64)
}

/// Rows of a segment whose items the others do not hold any more.
fn not_held(segment: &Segment, others: &[&Segment]) -> RoaringBitmap {
    let held =
        |id: u64| others.iter().any(|s| s.reader.items().row(id).is_some_and(|row| !s.deleted.contains(row)));
    let rows = (0u32..).zip(segment.reader.items().ids());
    rows.filter(|(_, id)| !held(**id)).map(|(row, _)| row).collect()
}
