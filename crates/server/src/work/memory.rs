//! Bodies of requests into memory, within limits: each by size and time, all together by size.
//!
//! Memory is accounted for as it is taken, chunk by chunk, so a slow sender holds only what it has sent.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody as _};
use axum::http::StatusCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::problem::{Answer, Problem};

/// The unit memory is counted in.
const UNIT: usize = 4096;
/// How many times the limit a body may go on beyond it before the connection is cut.
const SWALLOWED: usize = 4;

/// How much of all bodies together may be in memory.
pub(crate) struct BodyBudget {
    left: Arc<Semaphore>,
    each: usize,
    time: Duration,
}

/// A body, and the share of the budget it holds as long as it lives.
pub(crate) struct Received {
    pub(crate) bytes: Bytes,
    _share: Option<OwnedSemaphorePermit>,
}

impl BodyBudget {
    /// Bodies of at most `each` bytes, `all` in all, sent within `time`.
    pub(crate) fn new(each: usize, all: usize, time: Duration) -> Self {
        let units = (all / UNIT).clamp(1, Semaphore::MAX_PERMITS);
        Self { left: Arc::new(Semaphore::new(units)), each, time }
    }

    /// A whole body.
    pub(crate) async fn read(&self, body: Body) -> Answer<Received> {
        match tokio::time::timeout(self.time, self.collect(body)).await {
            Ok(received) => received,
            Err(_) => Err(Problem::new(
                StatusCode::REQUEST_TIMEOUT,
                "slow_body",
                format!("the request was not sent within {} seconds", self.time.as_secs()),
            )),
        }
    }

    /// Reads on for a while and keeps nothing: who is still sending would not see an answer, only a broken connection.
    async fn swallow(&self, mut body: Body) {
        let mut left = SWALLOWED * self.each;
        while let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            let len = frame.data_ref().map_or(0, Bytes::len);
            if len > left {
                return;
            }
            left -= len;
        }
    }

    async fn collect(&self, body: Body) -> Answer<Received> {
        let mut whole = Vec::new();
        let mut share: Option<OwnedSemaphorePermit> = None;
        let mut held = 0;
        let mut body = body;
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            let chunk = frame.map(|frame| frame.into_data().unwrap_or_default());
            let chunk =
                chunk.map_err(|error| Problem::bad_request(format!("the request broke off: {error}")))?;
            if whole.len() + chunk.len() > self.each {
                drop((whole, share));
                self.swallow(body).await;
                let message = format!("the request has more than the limit of {} bytes", self.each);
                return Err(Problem::too_large(message));
            }
            let wanted = (whole.len() + chunk.len()).div_ceil(UNIT);
            if wanted > held {
                let more = self.left.clone().try_acquire_many_owned((wanted - held) as u32);
                let more =
                    more.map_err(|_| Problem::busy("too many uploads at once: try again in a moment"))?;
                held = wanted;
                match &mut share {
                    Some(share) => share.merge(more),
                    None => share = Some(more),
                }
            }
            whole.extend_from_slice(&chunk);
        }
        Ok(Received { bytes: whole.into(), _share: share })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bodies_within_the_limits_arrive_and_give_their_share_back() {
        let budget = BodyBudget::new(10_000, 16_384, Duration::from_secs(1));
        let first = budget.read(Body::from(vec![7u8; 10_000])).await.unwrap();
        assert_eq!(first.bytes.len(), 10_000);
        let second = budget.read(Body::from(vec![7u8; 10_000])).await.err().expect("no room for two");
        assert_eq!(second.status(), 503);
        drop(first);
        assert!(budget.read(Body::from(vec![7u8; 10_000])).await.is_ok());
        assert_eq!(budget.read(Body::from(vec![7u8; 10_001])).await.err().unwrap().status(), 413);
        assert!(budget.read(Body::empty()).await.unwrap().bytes.is_empty());
        assert_eq!(budget.left.available_permits(), 4, "everything was given back");
    }
}
