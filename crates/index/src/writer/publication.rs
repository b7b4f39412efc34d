//! Publishing what was written: one new segment, and bitmaps of what it replaces.
//!
//! Whatever can fail comes before the manifest is renamed, and memory follows the disk right after it. Writes go on
//! meanwhile; they wait only while many rows that are not in memory are read from the store.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};

use roaring::RoaringBitmap;

use super::{IndexWriter, Inner, Publishing};
use crate::config::{Memory, Progress};
use crate::error::{IndexError, Result};
use crate::segment::manifest::{Manifest, SegmentEntry, sync_dir};
use crate::segment::publish::{Edition, Prepared, remove_others};
use crate::segment::row_source::{RowSource, StoreRows};
use crate::segment::segment_writer::{Collected, OnProgress, SegmentWriter};
use crate::segment::snapshot::Snapshot;
use crate::segment::state::State;
use crate::segment::store_segment::Uncoded;
use crate::store::{self, Store, disk_space};

/// What is published: the writes up to one point.
struct Captured {
    counters: store::State,
    /// How often the store had been opened again.
    reopened: usize,
    epoch: u64,
    /// The published state that segments are kept of.
    base: Option<Arc<Snapshot>>,
    /// NewRows of those segments that do not count any more.
    hidden: Vec<Arc<RoaringBitmap>>,
    rows: NewRows,
}

/// The rows that the new segment is made from.
enum NewRows {
    /// All writes since the published state.
    InMemory(Arc<State>),
    /// Read from the store into files already.
    Read(Box<Collected>),
    /// Read from the store, but for the vectors, which are read again.
    Nodes(Box<Uncoded>),
}

/// What is published.
#[derive(Clone, Copy)]
struct Extent {
    /// The whole store, in place of all that is published.
    everything: bool,
    /// Whether the vectors may be read from the store again, for codes and when these are linked.
    reads_twice: bool,
}

/// A number given to a segment; its files are left alone until it is dropped.
pub(super) struct Number<'a> {
    pub(super) number: u64,
    writer: &'a IndexWriter,
}

impl Drop for Number<'_> {
    fn drop(&mut self) {
        self.writer.numbers_in_use().remove(&self.number);
    }
}

impl IndexWriter {
    /// Publishes what was written since the last publication: a new segment and the manifest that readers open. Takes time
    /// by what was written, not by what the index holds. Writes go on meanwhile. The writer can go on afterwards, also
    /// after an error: what was published before stays, unless the error came after the new state was, and the call can
    /// be repeated.
    ///
    /// Many publications leave many segments, which make searches slower: see [`Self::merge`] and [`Self::compact`].
    pub fn finish(&self, progress: &(dyn Fn(Progress) + Sync)) -> Result<Manifest> {
        let mut publishing = self.publishing();
        self.publish(&mut publishing, &|step| {
            progress(step);
            Ok(())
        })
    }

    /// Publishes while the right to publish is held.
    pub(super) fn publish(
        &self,
        publishing: &mut MutexGuard<'_, Publishing>,
        progress: OnProgress<'_>,
    ) -> Result<Manifest> {
        match self.try_publish(publishing, Extent { everything: false, reads_twice: true }, progress) {
            // A published segment is damaged, or does not hold what the store counts: what it was made from is whole.
            Err(error) if error.is_rebuildable() => self.publish_everything(publishing, progress),
            done => done,
        }
    }

    /// Publishes the whole store as one segment, in the place of all others.
    pub(super) fn publish_everything(
        &self,
        publishing: &mut MutexGuard<'_, Publishing>,
        progress: OnProgress<'_>,
    ) -> Result<Manifest> {
        self.try_publish(publishing, Extent { everything: true, reads_twice: true }, progress)
    }

    fn try_publish(
        &self,
        publishing: &mut MutexGuard<'_, Publishing>,
        extent: Extent,
        progress: OnProgress<'_>,
    ) -> Result<Manifest> {
        self.check_place()?;
        let number = self.next_number();
        let writer = self.segment_writer(&number, progress);
        let captured = self.capture(&writer, extent)?;
        // A published state must never hold more than the store has for sure.
        let synced = self.store().sync();
        if let Err(error) = synced {
            writer.discard();
            let _ = self.reopen_failed(&mut self.inner());
            return Err(error);
        }
        let Some(captured) = captured else {
            return self.settle(publishing);
        };
        let Captured { counters, reopened, epoch, base, hidden, rows } = captured;
        let (entry, batch) = match rows {
            NewRows::InMemory(state) => {
                (writer.write(&RowSource::Delta(&state.delta))?, Some((epoch, state.delta.batch())))
            }
            NewRows::Read(collected) => (writer.finish(*collected)?, None),
            NewRows::Nodes(nodes) => {
                match self.read_again(&writer, *nodes).inspect_err(|_| writer.discard())? {
                    Some(entry) => (Some(entry), None),
                    None => {
                        writer.discard();
                        return self.try_publish(
                            publishing,
                            Extent { reads_twice: false, ..extent },
                            progress,
                        );
                    }
                }
            }
        };
        let mut edition = self.edition(counters.sequence);
        if let Some(base) = &base {
            let kept = base.segments.iter().zip(hidden).map(|(s, hidden)| (s.reader.clone(), hidden));
            edition.keep(&base.manifest, kept);
        }
        edition.segments.extend(entry.map(|entry| (entry, Arc::default())));
        let prepared = edition.prepare(base.as_deref())?;
        if prepared.snapshot.manifest.items != counters.items {
            let (counted, held) = (counters.items, prepared.snapshot.manifest.items);
            prepared.discard();
            let what = format!("it counts {counted} items and holds {held}");
            return Err(if extent.everything {
                IndexError::StoreDamaged { path: self.store().path().into(), what }
            } else {
                IndexError::damaged(&self.dir, format!("its segments hold {held} items instead of {counted}"))
            });
        }
        if self.reopened.load(Ordering::Acquire) != reopened {
            prepared.discard();
            let what = "the disk failed while the index was being published: repeat it".into();
            return Err(IndexError::Store { path: self.store().path().into(), what });
        }
        self.put(publishing, prepared, |inner, snapshot| match (&inner.recent, batch) {
            (Some(recent), Some((epoch, batch))) if inner.epoch == epoch => {
                Some(State::of(snapshot, recent.delta.after(batch)))
            }
            // Of the writes that are held it is not known which are published now: they count all.
            (Some(recent), _) => Some(State::of(snapshot, recent.delta.clone())),
            (None, _) if inner.state.sequence == counters.sequence => Some(State::published(snapshot)),
            (None, _) => None,
        })?;
        self.settle(publishing)
    }

    /// Writes a segment whose vectors are still in the store; `None` if one of them was written meanwhile.
    fn read_again(&self, writer: &SegmentWriter<'_>, nodes: Uncoded) -> Result<Option<SegmentEntry>> {
        let coded = writer.code(nodes, &self.store())?;
        let ordered = coded.map(|coded| writer.link_codes(coded)).transpose()?;
        let placed = ordered.map(|ordered| writer.place_vectors(ordered, &self.store())).transpose()?;
        Ok(placed.flatten())
    }

    /// Takes hold of what is to be published; `None` if there is nothing new.
    fn capture(&self, writer: &SegmentWriter<'_>, extent: Extent) -> Result<Option<Captured>> {
        let mut inner = self.inner();
        self.reopen_failed(&mut inner)?;
        self.tell_of_losses(&mut inner)?;
        let counters = inner.state;
        let (reopened, epoch) = (inner.found.len(), inner.epoch);
        let store = self.store();
        // Read before notes begin: what was published earlier, if anything, is not of this store.
        let forgotten = store.forgotten()?;
        store.begin_notes(counters.sequence)?;
        let base = match &inner.snapshot {
            Some(base) if !extent.everything && forgotten <= base.manifest.sequence => Some(base.clone()),
            _ => None,
        };
        let is_published = |base: &Arc<Snapshot>| {
            base.manifest.sequence == counters.sequence && base.manifest.config == self.config
        };
        if !inner.damaged && base.as_ref().is_some_and(is_published) {
            return Ok(None);
        }
        let captured = |hidden, rows, base| Captured { counters, reopened, epoch, base, hidden, rows };
        let recent = inner.recent.as_ref().filter(|recent| {
            !inner.damaged && base.as_ref().is_some_and(|base| Arc::ptr_eq(base, &recent.snapshot))
        });
        if let Some(recent) = recent {
            self.check_room(recent.delta.count() as u64, counters.items)?;
            let rows = NewRows::InMemory(recent.clone());
            return Ok(Some(captured(recent.hidden.clone(), rows, base)));
        }
        let Some(base) = base else {
            self.check_room(counters.items, 0)?;
            if extent.reads_twice && writer.reads_twice(counters.items) {
                let nodes = writer.collect_nodes(&store).inspect_err(|_| writer.discard())?;
                return Ok(Some(captured(vec![], NewRows::Nodes(Box::new(nodes)), None)));
            }
            let collected = writer.collect(&RowSource::Store(StoreRows::new(&store)?));
            let collected = collected.inspect_err(|_| writer.discard())?;
            return Ok(Some(captured(vec![], NewRows::Read(Box::new(collected)), None)));
        };
        let mut ids: BTreeSet<u64> = store.changed_since(base.manifest.sequence)?.into_iter().collect();
        let mut state = State::published(base.clone());
        state.hide(ids.iter().copied());
        if inner.damaged {
            ids.extend(unpublished(&store, &state)?);
        }
        let ids: Vec<u64> = ids.into_iter().collect();
        self.check_room(ids.len() as u64, counters.items)?;
        let collected = writer.collect(&RowSource::Listed(&store, &ids));
        let collected = collected.inspect_err(|_| writer.discard())?;
        Ok(Some(captured(state.hidden, NewRows::Read(Box::new(collected)), Some(base))))
    }

    /// Makes a prepared state the one that readers open, here and in other processes. `recent` is that state with the
    /// writes that it does not hold.
    pub(super) fn put(
        &self,
        publishing: &mut MutexGuard<'_, Publishing>,
        prepared: Prepared,
        recent: impl FnOnce(&Inner, Arc<Snapshot>) -> Option<State>,
    ) -> Result<()> {
        // Readers of this process search it at once: whatever can fail of that comes first.
        let has_readers = self.inner().has_readers();
        let ready = if has_readers { prepared.snapshot.prepare_search(Memory::Auto) } else { Ok(()) };
        if let Err(error) = ready {
            prepared.discard();
            return Err(error);
        }
        let manifest = prepared.snapshot.manifest.clone();
        if let Err(error) = manifest.put(&self.dir) {
            // Removed only if it is sure that nobody refers to the files.
            match Manifest::read(&self.dir) {
                Ok(published) if published != *manifest => prepared.discard(),
                Err(IndexError::Missing { .. } | IndexError::Unfinished { .. }) => prepared.discard(),
                _ => {}
            }
            return Err(error);
        }
        publishing.settled = false;
        let snapshot = Arc::new(prepared.snapshot);
        let mut inner = self.inner();
        match recent(&inner, snapshot.clone()) {
            Some(state) => inner.show(Arc::new(state)),
            None => inner.recent = None,
        }
        inner.snapshot = Some(snapshot);
        inner.damaged = false;
        Ok(())
    }

    /// Makes the published state survive a power cut; only then goes what it replaced.
    pub(super) fn settle(&self, publishing: &mut MutexGuard<'_, Publishing>) -> Result<Manifest> {
        let snapshot = self.inner().snapshot.clone().expect("a state was published");
        let manifest = (*snapshot.manifest).clone();
        if publishing.settled {
            return Ok(manifest);
        }
        if sync_dir(&self.dir).is_err() {
            // Of a sync that failed it is not known what it reached: the name is made once more.
            manifest.put(&self.dir)?;
            sync_dir(&self.dir)?;
        }
        publishing.settled = true;
        remove_others(&self.dir, Some(&manifest), &self.numbers_in_use());
        let store = self.store();
        let forgotten = store.forget_changes(manifest.sequence).and_then(|()| store.sync());
        drop(store);
        // What is not forgotten now is the next time; the store must be usable, though.
        if forgotten.is_err() {
            self.reopen_failed(&mut self.inner())?;
        }
        Ok(manifest)
    }

    /// A state of no segments yet, with a number of its own.
    pub(super) fn edition(&self, sequence: u64) -> Edition<'_> {
        let generation = self.last_number.fetch_add(1, Ordering::Relaxed) + 1;
        Edition { dir: &self.dir, config: &self.config, sequence, generation, segments: vec![] }
    }

    pub(super) fn next_number(&self) -> Number<'_> {
        let number = self.last_number.fetch_add(1, Ordering::Relaxed) + 1;
        self.numbers_in_use().insert(number);
        Number { number, writer: self }
    }

    pub(super) fn segment_writer<'a>(
        &'a self,
        number: &Number<'_>,
        progress: OnProgress<'a>,
    ) -> SegmentWriter<'a> {
        SegmentWriter { dir: &self.dir, config: &self.config, number: number.number, progress }
    }

    pub(super) fn publishing(&self) -> MutexGuard<'_, Publishing> {
        self.publishing.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn numbers_in_use(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.being_written.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Refuses to write a segment for which the disk has no room.
    pub(super) fn check_room(&self, rows: u64, items: u64) -> Result<()> {
        // Vectors twice, once in order of ids, and codes of at most half their size; links and records beside them; a bit
        // for each item that may be deleted.
        let row = self.config.dim.next_multiple_of(32) as u64 * 10 + 1024;
        disk_space::check(&self.dir, rows * row + items / 8)
    }
}

/// Ids of items in the store that no sound segment holds.
fn unpublished(store: &Store, state: &State) -> Result<Vec<u64>> {
    let mut ids = vec![];
    store.scan_items(|id, _| {
        if state.place(id).is_none() {
            ids.push(id);
        }
        Ok(())
    })?;
    Ok(ids)
}
