//! A store whose disk refused a write: what is in memory may not be what is on the disk, so nothing is read or written
//! through it any more.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use super::{Store, flush};
use crate::error::{IndexError, Result};

/// How long the log of a store that met an error may take to be flushed.
const PATIENCE: Duration = Duration::from_secs(3);

/// Why a store is used no more.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    /// What the disk, or sled, said; no paths.
    why: String,
    /// Whether the store can be closed and opened again within this process.
    can_reopen: bool,
}

impl Failure {
    /// Why the store is used no more and, if it has to, what the operator has to do.
    pub(crate) fn message(&self) -> String {
        let Self { why, can_reopen } = self;
        if *can_reopen { why.clone() } else { format!("{why}; start the program again to go on writing") }
    }
}

impl Store {
    /// Why the store is used no more, if so.
    pub(crate) fn failure(&self) -> Option<Failure> {
        self.failure.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }

    /// An error if the disk failed under the store.
    pub(super) fn check(&self) -> Result<()> {
        match self.failure() {
            None => Ok(()),
            Some(failure) => Err(IndexError::Store { path: self.path.clone(), what: failure.message() }),
        }
    }

    /// Whether a transaction was cut short, so that sled can neither go on nor be closed.
    pub(super) fn is_cut_short(&self) -> bool {
        self.failure().is_some_and(|failure| !failure.can_reopen)
    }

    /// Notes that a write failed. `is_whole` says that no transaction was cut short by it.
    pub(super) fn fail(&self, error: &IndexError, is_whole: bool) {
        // sled does nothing more on its disk once it knows of an error of its own. Otherwise closing it would write the
        // part of the transaction that it took up, or wait for ever for the part that it did not.
        let can_reopen = is_whole || self.trees().db.context.global_error().is_err();
        let mut failure = self.failure.lock().unwrap_or_else(|e| e.into_inner());
        match &mut *failure {
            Some(failure) => failure.can_reopen &= can_reopen,
            None => *failure = Some(Failure { why: words(error), can_reopen }),
        }
    }

    /// Notes that reading met an error, if it was one of a write: sled ends splits of pages that it meets on its way, and a
    /// write of that which fails can keep the log from ever being written to its end.
    pub(super) fn fail_reading(&self, error: &IndexError) {
        if matches!(error, IndexError::StoreDamaged { .. }) {
            return;
        }
        let (db, began) = (&self.trees().db, Instant::now());
        let is_stuck = || began.elapsed() > PATIENCE;
        let flushed = catch_unwind(AssertUnwindSafe(|| flush::flush(db, is_stuck)));
        if !matches!(flushed, Ok(Ok(()))) {
            self.fail(error, false);
        }
    }

    /// Closes a store that failed, so that it can be opened again. An error if that cannot be done in this process.
    pub(crate) fn close(&mut self) -> Result<()> {
        if self.is_cut_short() {
            self.keep_undo()?;
            return self.check();
        }
        self.drop_trees();
        Ok(())
    }

    /// Writes what a transaction that was cut short replaced to where the next opening finds it.
    pub(super) fn keep_undo(&self) -> Result<()> {
        let mut undo = self.undo.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(before) = &*undo {
            before.keep(&self.path)?;
            *undo = None;
        }
        Ok(())
    }

    /// Closes sled's trees. sled flushes its log then, and would wait for ever where a write of it failed: the log is
    /// flushed here first, so that nothing is left to wait for, or sled knows of the error.
    fn drop_trees(&mut self) {
        let Some(trees) = self.trees.take() else { return };
        let (began, has_failed) = (Instant::now(), self.failure().is_some());
        let is_stuck = || has_failed && began.elapsed() > PATIENCE;
        // sled panics if its last sync fails.
        let flushed = catch_unwind(AssertUnwindSafe(|| flush::flush(&trees.db, is_stuck)));
        if matches!(flushed, Ok(Ok(()))) || trees.db.context.global_error().is_err() {
            let _ = catch_unwind(AssertUnwindSafe(move || drop(trees)));
        } else {
            // Left open: nothing of it reaches the disk any more.
            std::mem::forget(trees);
        }
    }
}

fn words(error: &IndexError) -> String {
    match error {
        IndexError::Io { source, .. } => source.to_string(),
        IndexError::Store { what, .. } | IndexError::StoreDamaged { what, .. } => what.clone(),
        IndexError::DiskFull { .. } | IndexError::LittleRoom { .. } => "no space left on the disk".into(),
        IndexError::ReadOnly { .. } | IndexError::Unreadable { .. } => {
            "it is read-only, or permissions are missing".into()
        }
        other => other.to_string(),
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if self.is_cut_short() {
            let _ = self.keep_undo();
            // Left open: nothing of it reaches the disk any more.
            std::mem::forget(self.trees.take());
        } else {
            self.drop_trees();
        }
    }
}
