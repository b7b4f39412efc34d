//! Memory for requests and answers: each within limits of size and time, all together within a budget.
//!
//! Memory is accounted for as it is taken, chunk by chunk, so a slow sender holds only what it has sent; what is read from
//! a body is accounted for as well, and everything is given back when the work on it has ended.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody as _};
use axum::http::StatusCode;
use serde::de::DeserializeOwned;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::json::{self, JsonLimits};
use crate::problem::{Answer, Problem};

/// The unit memory is counted in.
const UNIT: usize = 4096;
/// Longest pause of a sender.
const PAUSE: Duration = Duration::from_secs(15);
/// How many times the limit a body may go on beyond it before the connection is cut.
const SWALLOWED: usize = 4;

/// How much memory all requests and answers together may take.
pub(crate) struct Memory {
    left: Arc<Semaphore>,
    units: usize,
    each: usize,
    json: JsonLimits,
    time: Duration,
}

/// A share of the memory, given back when dropped.
#[derive(Debug, Default)]
pub(crate) struct Share(Option<OwnedSemaphorePermit>);

/// A body, and the share it holds as long as it lives.
pub(crate) struct Received {
    pub(crate) bytes: Bytes,
    _share: Share,
}

impl Memory {
    /// Bodies of at most `each` bytes sent within `time`; `all` bytes for everything.
    pub(crate) fn new(each: usize, all: usize, time: Duration) -> Self {
        let units = (all / UNIT).clamp(1, Semaphore::MAX_PERMITS);
        let json = JsonLimits::default();
        let json = JsonLimits { bytes: json.bytes.min(each), ..json };
        Self { left: Arc::new(Semaphore::new(units)), units, each, json, time }
    }

    /// A share of so many bytes.
    ///
    /// # Errors
    /// There is too little left.
    pub(crate) fn claim(&self, bytes: usize) -> Answer<Share> {
        let units = bytes.div_ceil(UNIT);
        if units > self.units {
            let all = self.units * UNIT;
            return Err(Problem::too_large(format!(
                "this takes {bytes} bytes, more than the {all} there are"
            )));
        }
        let more = self.left.clone().try_acquire_many_owned(units as u32);
        let more =
            more.map_err(|_| Problem::busy("the memory for requests is used up: try again in a moment"))?;
        Ok(Share(Some(more)))
    }

    /// What JSON says, and the share it takes. `what` names it.
    ///
    /// # Errors
    /// JSON that is malformed, of another form, beyond the limits, or more than there is memory for.
    pub(crate) fn parse<T: DeserializeOwned>(&self, json: &[u8], what: &str) -> Answer<(T, Share)> {
        let share = self.claim(self.json.cost(json)?)?;
        Ok((json::read(json, what)?, share))
    }

    /// A whole body.
    pub(crate) async fn read(&self, body: Body) -> Answer<Received> {
        self.read_up_to(body, self.each).await
    }

    /// A whole body of JSON.
    pub(crate) async fn read_json(&self, body: Body) -> Answer<Received> {
        self.read_up_to(body, self.json.bytes).await
    }

    /// A whole body of at most so many bytes.
    pub(crate) async fn read_up_to(&self, body: Body, most: usize) -> Answer<Received> {
        match tokio::time::timeout(self.time, self.collect(body, most)).await {
            Ok(received) => received,
            Err(_) => {
                Err(slow(format!("the request was not sent within {} seconds", self.time.as_secs_f32())))
            }
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

    async fn collect(&self, mut body: Body, most: usize) -> Answer<Received> {
        let mut whole = Vec::new();
        let mut share = Share::default();
        let mut held = 0;
        loop {
            let frame = tokio::time::timeout(PAUSE, poll_fn(|cx| Pin::new(&mut body).poll_frame(cx))).await;
            let frame =
                frame.map_err(|_| slow(format!("nothing was sent for {} seconds", PAUSE.as_secs())))?;
            let Some(frame) = frame else { break };
            let chunk = frame.map(|frame| frame.into_data().unwrap_or_default());
            let chunk =
                chunk.map_err(|error| Problem::bad_request(format!("the request broke off: {error}")))?;
            let len = whole.len() + chunk.len();
            if len > most {
                drop((whole, share));
                self.swallow(body).await;
                return Err(Problem::too_large(format!(
                    "the request has more than the limit of {most} bytes"
                )));
            }
            if len > held {
                // Twice as much as before, as the vector would take by itself.
                let wanted = len.max(2 * held).min(most).next_multiple_of(UNIT);
                share.merge(self.claim(wanted - held)?);
                held = wanted;
                whole.reserve_exact(held - whole.len());
            }
            whole.extend_from_slice(&chunk);
        }
        Ok(Received { bytes: whole.into(), _share: share })
    }
}

impl Share {
    fn merge(&mut self, more: Self) {
        match (&mut self.0, more.0) {
            (Some(share), Some(more)) => share.merge(more),
            (share @ None, more) => *share = more,
            (Some(_), None) => {}
        }
    }

    /// Bytes that hold this share as long as they live.
    pub(crate) fn of(self, bytes: Vec<u8>) -> Bytes {
        struct Held {
            bytes: Vec<u8>,
            _share: Share,
        }
        impl AsRef<[u8]> for Held {
            fn as_ref(&self) -> &[u8] {
                &self.bytes
            }
        }
        Bytes::from_owner(Held { bytes, _share: self })
    }
}

fn slow(message: String) -> Problem {
    Problem::new(StatusCode::REQUEST_TIMEOUT, "slow_body", message)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[tokio::test]
    async fn bodies_within_the_limits_arrive_and_give_their_share_back() {
        let budget = Memory::new(10_000, 16_384, Duration::from_secs(1));
        let first = budget.read(Body::from(vec![7u8; 10_000])).await.unwrap();
        assert_eq!(first.bytes.len(), 10_000);
        let second = budget.read(Body::from(vec![7u8; 10_000])).await.err().expect("no room for two");
        assert_eq!(second.status(), 503);
        drop(first);
        assert!(budget.read(Body::from(vec![7u8; 10_000])).await.is_ok());
        assert_eq!(budget.read(Body::from(vec![7u8; 10_001])).await.err().unwrap().status(), 413);
        assert!(budget.read(Body::empty()).await.unwrap().bytes.is_empty());
        assert_eq!(budget.left.available_permits(), 4, "everything was given back");
        let bytes = budget.claim(10_000).unwrap().of(vec![1, 2, 3]);
        assert_eq!(budget.claim(10_000).err().unwrap().status(), 503);
        assert_eq!(budget.claim(20_000).err().unwrap().status(), 413, "never");
        let part = bytes.slice(1..2);
        drop(bytes);
        assert_eq!(budget.left.available_permits(), 1);
        drop(part);
        assert_eq!(budget.left.available_permits(), 4);
    }

    #[test]
    fn what_json_becomes_is_accounted_for() {
        let budget = Memory::new(1 << 20, 1 << 20, Duration::from_secs(1));
        let json = |n: usize| format!("[{}0]", r#"{"":0},"#.repeat(n));
        let (value, share) = budget.parse::<Value>(json(1000).as_bytes(), "it").unwrap();
        assert_eq!(value.as_array().map(Vec::len), Some(1001));
        assert_eq!(budget.parse::<Value>(json(1000).as_bytes(), "it").err().unwrap().status(), 503);
        drop(share);
        assert!(budget.parse::<Value>(json(1000).as_bytes(), "it").is_ok());
        assert_eq!(budget.parse::<Value>(b"[1", "it").err().unwrap().status(), 400);
        assert_eq!(budget.parse::<Value>(json(2000).as_bytes(), "it").err().unwrap().status(), 413);
        assert_eq!(budget.left.available_permits(), 256);
    }
}
