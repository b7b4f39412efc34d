//! Cancellation of searches.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{IndexError, Result};

/// Asks a search to stop. Clones share their state; the search looks at it between blocks of work and then fails with
/// [`IndexError::Cancelled`].
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Asks to stop, for good.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether stopping was asked for.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// # Errors
    /// [`IndexError::Cancelled`] once stopping was asked for.
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(IndexError::Cancelled) } else { Ok(()) }
    }
}

/// All are equal: whether work was asked to stop is no part of what it is.
impl PartialEq for Cancel {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}
