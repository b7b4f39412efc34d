//! The time a request may take, and what becomes of its work when it is over.
//!
//! Work that only reads is cancelled. A write is cancelled before its commit begins, and waited for after that: an answer
//! that says that nothing was changed is true.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::SeqCst};
use std::time::Duration;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use semblance_index::Cancel;

use crate::app::Shared;
use crate::problem::{Answer, Problem};

const OPEN: u8 = 0;
const GIVEN_UP: u8 = 1;
const COMMITTING: u8 = 2;

/// The work of one request. Clones are of the same work.
#[derive(Clone, Default)]
pub(crate) struct Work(Arc<Stage>);

#[derive(Default)]
struct Stage {
    cancel: Cancel,
    stage: AtomicU8,
}

impl Work {
    /// What the work looks at to see whether it is still wanted.
    pub(crate) fn cancel(&self) -> &Cancel {
        &self.0.cancel
    }

    /// From here on the request is waited for, however long it takes.
    ///
    /// # Errors
    /// The request was given up before.
    pub(crate) fn begin_commit(&self) -> Answer<()> {
        match self.0.stage.compare_exchange(OPEN, COMMITTING, SeqCst, SeqCst) {
            Ok(_) | Err(COMMITTING) => Ok(()),
            Err(_) => Err(Problem::busy("the request was given up: nothing was changed")),
        }
    }

    /// Cancels the work; false if a commit has begun.
    fn give_up(&self) -> bool {
        self.0.cancel.cancel();
        self.0.stage.compare_exchange(OPEN, GIVEN_UP, SeqCst, SeqCst) != Err(COMMITTING)
    }
}

impl FromRequestParts<Shared> for Work {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _app: &Shared) -> Answer<Self> {
        let work = parts.extensions.get::<Self>().cloned();
        work.ok_or_else(|| Problem::internal("the route has no time limit"))
    }
}

/// Gives the work up when nobody waits for its answer any more.
struct Wanted(Work);

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.give_up();
    }
}

/// Answers each request in time.
pub(crate) async fn limit_time(State(app): State<Shared>, mut request: Request, next: Next) -> Response {
    let work = Work::default();
    request.extensions_mut().insert(work.clone());
    in_time(app.config.limits.request_time, work, next.run(request)).await
}

/// The answer, if it comes within the limit or its commit has begun by then; the work is given up otherwise.
pub(crate) async fn in_time(limit: Duration, work: Work, answer: impl Future<Output = Response>) -> Response {
    let _wanted = Wanted(work.clone());
    tokio::pin!(answer);
    if let Ok(response) = tokio::time::timeout(limit, &mut answer).await {
        return response;
    }
    if work.give_up() {
        let seconds = limit.as_secs_f32();
        let message = format!("the request took longer than {seconds} seconds; nothing was changed");
        return Problem::busy(message).into_response();
    }
    match tokio::time::timeout(limit, &mut answer).await {
        Ok(response) => response,
        Err(_) => {
            let message = "the change is still being written, and whether it succeeds is not known yet: look at the \
                           item, or repeat the request with the same Idempotency-Key";
            let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "outcome_unknown", message);
            problem.retry_after(5).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_cancelled_before_its_commit_and_never_after() {
        let work = Work::default();
        assert!(work.give_up() && work.cancel().is_cancelled());
        assert_eq!(work.begin_commit().unwrap_err().status(), 503);
        let work = Work::default();
        work.begin_commit().unwrap();
        assert!(!work.give_up());
        work.begin_commit().unwrap();
    }
}
