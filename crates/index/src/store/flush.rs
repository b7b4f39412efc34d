//! Waiting for sled's log.
//!
//! sled writes its log on threads of its own. If such a write fails, it notes the error but does not always wake those
//! who wait for the write; and a transaction that was cut short keeps its part of the log from ever being written. A
//! plain `flush` then waits for ever.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake};
use std::thread::{self, Thread};
use std::time::Duration;

use sled::{Db, Error};

/// How often a wait that takes long looks for an error that nobody told it of.
const LOOK: Duration = Duration::from_millis(50);

struct Waiting(Thread);

impl Wake for Waiting {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Flushes the log. `has_failed` says that the log will never be written to its end.
pub(super) fn flush(db: &Db, has_failed: impl Fn() -> bool) -> Result<(), Error> {
    let mut flushed = pin!(db.flush_async());
    let waker = Arc::new(Waiting(thread::current())).into();
    loop {
        if let Poll::Ready(done) = flushed.as_mut().poll(&mut Context::from_waker(&waker)) {
            return done.map(drop);
        }
        thread::park_timeout(LOOK);
        // With an error noted, a flush fails at once, and wakes the one that waits.
        if db.context.global_error().is_err() {
            db.flush()?;
        }
        if has_failed() {
            return Err(Error::ReportableBug("the log cannot be written to its end".into()));
        }
    }
}
