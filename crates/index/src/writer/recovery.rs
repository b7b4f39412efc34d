//! Going on after the disk failed: memory follows the disk.

use std::sync::atomic::Ordering;
use std::sync::{Arc, TryLockError};

use super::store_check::check_store;
use super::{IndexWriter, Inner, state_since};
use crate::config::Durability;
use crate::error::{IndexError, Result};
use crate::store::Store;

/// A write that waits for its durability.
#[derive(Clone, Copy)]
pub(super) struct Ticket {
    /// How often the store had been opened again before.
    pub(super) reopened: usize,
    pub(super) sequence: u64,
}

impl IndexWriter {
    /// Why nothing can be written at present, if so: the disk failed, and the store was not opened again since. Every
    /// write tries to, and so does [`Self::recover`].
    pub fn fault(&self) -> Option<String> {
        match self.store.try_read() {
            Ok(store) => store.failure().map(|failure| failure.message()),
            Err(TryLockError::Poisoned(store)) => {
                store.into_inner().failure().map(|failure| failure.message())
            }
            Err(TryLockError::WouldBlock) => Some("the store is being opened again after an error".into()),
        }
    }

    /// Opens the store again if the disk failed under it. Readers from [`Self::reader`] then see what the disk holds.
    pub fn recover(&self) -> Result<()> {
        if self.fault().is_none() { Ok(()) } else { self.reopen_failed(&mut self.inner()) }
    }

    pub(super) fn reopen_failed(&self, inner: &mut Inner) -> Result<()> {
        if self.store().failure().is_none() {
            return Ok(());
        }
        let mut store = self.store.write().unwrap_or_else(|e| e.into_inner());
        store.close()?;
        let fresh = Store::reopen(&self.dir)?;
        let state = fresh.state()?;
        let (found, expected) = (state.sequence, inner.state.sequence);
        if let Some(snapshot) = &inner.snapshot {
            check_store(&self.dir, &fresh, &state, snapshot)?;
        }
        let recent = match &inner.live {
            Some(live) => Some(Arc::new(state_since(&fresh, live.state().snapshot.clone())?)),
            None => None,
        };
        // From here on nothing fails.
        match recent {
            Some(recent) => inner.show(recent),
            None => inner.recent = None,
        }
        inner.epoch += 1;
        inner.state = state;
        inner.found.push(found);
        // Writes that were to be durable at once are answered one by one; of others nobody would hear.
        inner.lost |= self.durability == Durability::Finish && found < expected;
        *store = fresh;
        self.reopened.store(inner.found.len(), Ordering::Release);
        Ok(())
    }

    /// Waits until a write is as durable as was promised.
    pub(super) fn acknowledge(&self, ticket: Ticket) -> Result<()> {
        let done = match self.durability {
            Durability::Power => self.commit.wait(|| self.store().sync()),
            Durability::Process => self.commit.wait(|| self.store().flush()),
            Durability::Finish => return Ok(()),
        };
        self.answer(ticket, done)
    }

    /// Makes every write so far survive a power cut, whatever the durability.
    pub fn sync(&self) -> Result<()> {
        let ticket = {
            let mut inner = self.inner();
            self.reopen_failed(&mut inner)?;
            self.tell_of_losses(&mut inner)?;
            Ticket { reopened: inner.found.len(), sequence: inner.state.sequence }
        };
        let done = self.commit.wait(|| self.store().sync());
        self.answer(ticket, done)
    }

    /// What becomes of a write once the sync that it waited for has ended.
    fn answer(&self, ticket: Ticket, done: Result<()>) -> Result<()> {
        match done {
            Ok(()) if self.reopened.load(Ordering::Acquire) == ticket.reopened => Ok(()),
            Ok(()) => {
                let what = "the disk failed during this write, which was not kept: repeat it".into();
                let undone = IndexError::Store { path: self.store().path().into(), what };
                self.settle_failed(&mut self.inner(), ticket, undone)
            }
            Err(error) => self.settle_failed(&mut self.inner(), ticket, error),
        }
    }

    /// Finds out what became of a write that met an error: kept and durable by now, undone, or not known.
    pub(super) fn settle_failed(&self, inner: &mut Inner, ticket: Ticket, error: IndexError) -> Result<()> {
        if self.reopen_failed(inner).is_err() {
            return Err(IndexError::Uncertain { source: Box::new(error) });
        }
        match inner.found.get(ticket.reopened) {
            Some(&found) if found >= ticket.sequence => Ok(()),
            // Lost when the store was opened again, or refused before the store took up any of it.
            _ => Err(error),
        }
    }

    /// An error, once, if writes were lost that were to be durable later.
    pub(super) fn tell_of_losses(&self, inner: &mut Inner) -> Result<()> {
        if std::mem::take(&mut inner.lost) {
            return Err(IndexError::Lost { dir: self.dir.clone() });
        }
        Ok(())
    }
}
