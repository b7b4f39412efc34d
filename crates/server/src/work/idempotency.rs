//! Repeated requests that change something: one that brings an `Idempotency-Key` is done once, and answered alike.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::sync::watch;

use crate::problem::{Answer, Problem};

/// The header of requests.
pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The header of answers that were given before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// Longest key in bytes.
const KEY_BYTES: usize = 255;
/// Most answers remembered; the oldest is forgotten first.
const ANSWERS: usize = 4_096;
/// Most bytes of them.
const BYTES: usize = 16 << 20;

/// Hash of everything that a request asks for.
pub(crate) type RequestHash = [u8; 32];

/// An answer to a request that changed something.
#[derive(Clone)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) json: Bytes,
}

/// Requests with a key, and what they were answered.
#[derive(Default)]
pub(crate) struct Idempotency(Mutex<Table>);

#[derive(Default)]
struct Table {
    entries: HashMap<Arc<str>, Entry>,
    /// Keys of the answers, in the order in which they were given.
    answered: VecDeque<Arc<str>>,
    bytes: usize,
}

struct Entry {
    request: RequestHash,
    state: State,
}

enum State {
    UnderWay(watch::Receiver<()>),
    Answered(Reply),
}

/// What becomes of a request with a key.
pub(crate) enum Begun {
    /// It is new, and is to be done.
    New(Pending),
    /// It was done, with this answer.
    Done(Reply),
}

/// A request that is being done. Dropped without an answer it was not done, and can be repeated.
pub(crate) struct Pending {
    table: Arc<Idempotency>,
    key: Arc<str>,
    _done: watch::Sender<()>,
}

/// The key of a request, if it has one.
///
/// # Errors
/// A key that is empty, too long, or no plain text.
pub(crate) fn key_of(headers: &HeaderMap) -> Answer<Option<&str>> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    match value.to_str() {
        Ok(key) if (1..=KEY_BYTES).contains(&key.len()) => Ok(Some(key)),
        _ => Err(Problem::bad_request(format!(
            "the Idempotency-Key must be 1 to {KEY_BYTES} plain characters: a UUID will do"
        ))),
    }
}

impl Idempotency {
    /// Begins a request, or waits for the one of the same key that is under way.
    ///
    /// # Errors
    /// A key that another request had.
    pub(crate) async fn begin(
        self: &Arc<Self>,
        index: &str,
        key: &str,
        request: RequestHash,
    ) -> Answer<Begun> {
        let key: Arc<str> = format!("{index}\n{key}").into();
        loop {
            let mut under_way = {
                let mut table = self.table();
                match table.entries.get(&key) {
                    Some(entry) if entry.request != request => {
                        let message = "another request had this Idempotency-Key: each needs one of its own";
                        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "key_reused", message));
                    }
                    Some(Entry { state: State::Answered(reply), .. }) => {
                        return Ok(Begun::Done(reply.clone()));
                    }
                    Some(Entry { state: State::UnderWay(done), .. }) => done.clone(),
                    None => {
                        let (done, wait) = watch::channel(());
                        table.entries.insert(key.clone(), Entry { request, state: State::UnderWay(wait) });
                        return Ok(Begun::New(Pending { table: self.clone(), key, _done: done }));
                    }
                }
            };
            // Ends when the sender is dropped.
            while under_way.changed().await.is_ok() {}
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pending {
    /// Remembers the answer.
    pub(crate) fn finish(self, reply: &Reply) {
        let mut table = self.table.table();
        let Some(entry) = table.entries.get_mut(&self.key) else { return };
        entry.state = State::Answered(reply.clone());
        table.answered.push_back(self.key.clone());
        table.bytes += reply.json.len();
        while table.answered.len() > ANSWERS || table.bytes > BYTES {
            let Some(oldest) = table.answered.pop_front() else { break };
            if let Some(Entry { state: State::Answered(reply), .. }) = table.entries.remove(&oldest) {
                table.bytes -= reply.json.len();
            }
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let mut table = self.table.table();
        if matches!(table.entries.get(&self.key), Some(Entry { state: State::UnderWay(_), .. })) {
            table.entries.remove(&self.key);
        }
    }
}

impl Reply {
    /// The same answer once more.
    pub(crate) fn replayed(self) -> Response {
        let mut response = self.into_response();
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
        response
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        (self.status, [(header::CONTENT_TYPE, "application/json")], self.json).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(text: &'static str) -> Reply {
        Reply { status: StatusCode::CREATED, json: Bytes::from_static(text.as_bytes()) }
    }

    async fn begin(table: &Arc<Idempotency>, key: &str, request: u8) -> Answer<Begun> {
        table.begin("shop", key, [request; 32]).await
    }

    fn new(begun: Answer<Begun>) -> Pending {
        match begun.unwrap() {
            Begun::New(pending) => pending,
            Begun::Done(_) => panic!("it was answered before"),
        }
    }

    #[tokio::test]
    async fn a_repeated_request_gets_the_answer_of_the_first() {
        let table = Arc::new(Idempotency::default());
        let first = new(begin(&table, "a", 1).await);
        assert_eq!(begin(&table, "a", 2).await.err().unwrap().status(), 422);
        let second = tokio::spawn({
            let table = table.clone();
            async move { begin(&table, "a", 1).await }
        });
        tokio::task::yield_now().await;
        first.finish(&reply("done"));
        assert!(matches!(second.await.unwrap().unwrap(), Begun::Done(reply) if reply.json == "done"));
        // What was not done is done by who comes next.
        let failed = new(begin(&table, "b", 1).await);
        drop(failed);
        new(begin(&table, "b", 2).await);
        new(table.begin("other index", "a", [2; 32]).await);
    }

    #[tokio::test]
    async fn the_table_is_bounded() {
        let table = Arc::new(Idempotency::default());
        for i in 0..2 * ANSWERS {
            new(begin(&table, &i.to_string(), 1).await).finish(&reply("x"));
        }
        let large = Reply { status: StatusCode::OK, json: vec![0; BYTES / 4].into() };
        assert_eq!(table.table().entries.len(), ANSWERS);
        for i in 0..8 {
            new(begin(&table, &format!("large {i}"), 1).await).finish(&large);
        }
        let table = table.table();
        assert!(table.bytes <= BYTES && table.entries.len() <= 4, "{}", table.entries.len());
    }

    #[test]
    fn keys_are_plain_and_short() {
        let of = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(IDEMPOTENCY_KEY, HeaderValue::from_bytes(value.as_bytes()).unwrap());
            key_of(&headers).map(|key| key.map(str::to_owned)).map_err(|problem| problem.status().as_u16())
        };
        assert_eq!(of("a-b"), Ok(Some("a-b".to_owned())));
        assert_eq!(of(""), Err(400));
        assert_eq!(of("ä"), Err(400));
        assert_eq!(of(&"x".repeat(256)), Err(400));
        assert!(key_of(&HeaderMap::new()).unwrap().is_none());
    }
}
