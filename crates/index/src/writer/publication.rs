//! Publishing: whatever can fail comes before the manifest is renamed, and memory follows the disk right after it.

use std::sync::Arc;

use super::{IndexWriter, Inner};
use crate::config::Progress;
use crate::error::{IndexError, Result};
use crate::segment::delta::{Delta, State};
use crate::segment::manifest::{Manifest, sync_dir};
use crate::segment::publish::{Prepared, prepare, remove_others};
use crate::store::disk_space;

impl IndexWriter {
    /// Publishes: builds or extends the graph and writes the files readers open, the manifest last. Writes that arrive
    /// meanwhile wait. The writer can go on afterwards, also after an error: what was published before stays, unless the
    /// error came after the new state was, and the call can be repeated.
    pub fn finish(&self, progress: &(dyn Fn(Progress) + Sync)) -> Result<Manifest> {
        self.publish(false, progress)
    }

    /// Like [`Self::finish`], with the graph built anew: nothing of deleted items is left.
    pub fn compact(&self, progress: &(dyn Fn(Progress) + Sync)) -> Result<Manifest> {
        self.publish(true, progress)
    }

    fn publish(&self, compact: bool, progress: &(dyn Fn(Progress) + Sync)) -> Result<Manifest> {
        let mut inner = self.inner();
        self.reopen_failed(&mut inner)?;
        self.tell_of_losses(&mut inner)?;
        // Vectors twice, once in order of ids, and codes of at most half their size; links and records beside them.
        let bytes = inner.state.items * (self.config.dim.next_multiple_of(32) as u64 * 10 + 1024);
        disk_space::check(&self.dir, bytes)?;
        // A published state must never hold more than the store has for sure.
        let synced = self.store().sync();
        if let Err(error) = synced {
            let _ = self.reopen_failed(&mut inner);
            return Err(error);
        }
        let is_new = compact
            || inner.snapshot.as_ref().is_none_or(|snapshot| {
                snapshot.manifest.sequence != inner.state.sequence || snapshot.manifest.config != self.config
            });
        if is_new {
            let prepared = self.prepare(&inner, compact, progress)?;
            self.put(&mut inner, prepared)?;
        }
        self.settle(&mut inner)
    }

    fn prepare(
        &self,
        inner: &Inner,
        compact: bool,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Prepared> {
        let store = self.store();
        match prepare(&store, &self.dir, inner.snapshot.as_deref(), compact, progress) {
            // The last published state is damaged: what it was made from is not.
            Err(error) if error.is_rebuildable() && inner.snapshot.is_some() => {
                prepare(&store, &self.dir, None, true, progress)
            }
            done => done,
        }
    }

    /// Makes the prepared state the one that readers open, here and in other processes.
    fn put(&self, inner: &mut Inner, prepared: Prepared) -> Result<()> {
        let manifest = prepared.snapshot.manifest.clone();
        if let Err(error) = manifest.put(&self.dir) {
            // Removed only if it is sure that nobody refers to the files.
            match Manifest::read(&self.dir) {
                Ok(published) if published != *manifest => prepared.discard(&self.dir),
                Err(IndexError::Missing { .. } | IndexError::Unfinished { .. }) => {
                    prepared.discard(&self.dir)
                }
                _ => {}
            }
            return Err(error);
        }
        let snapshot = Arc::new(prepared.snapshot);
        if let Some(live) = &inner.live {
            live.swap(State { snapshot: snapshot.clone(), delta: Delta::default() });
        }
        inner.snapshot = Some(snapshot);
        inner.settled = false;
        Ok(())
    }

    /// Makes the published state survive a power cut; only then goes what it replaced.
    pub(super) fn settle(&self, inner: &mut Inner) -> Result<Manifest> {
        let snapshot = inner.snapshot.as_ref().expect("a state was published");
        let manifest = (*snapshot.manifest).clone();
        if inner.settled {
            return Ok(manifest);
        }
        if sync_dir(&self.dir).is_err() {
            // Of a sync that failed it is not known what it reached: the name is made once more.
            manifest.put(&self.dir)?;
            sync_dir(&self.dir)?;
        }
        inner.settled = true;
        remove_others(&self.dir, Some(&manifest));
        let store = self.store();
        let forgotten = store.forget_changes(manifest.sequence).and_then(|()| store.sync());
        drop(store);
        // What is not forgotten now is the next time; the store must be usable, though.
        if forgotten.is_err() {
            self.reopen_failed(inner)?;
        }
        Ok(manifest)
    }
}
