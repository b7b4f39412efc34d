//! Applying changes to the index: once per `Idempotency-Key`, cancelled before the commit or not at all.

use std::sync::Arc;

use super::description::Description;
use super::writer;
use crate::app::App;
use crate::pictures::{name_of_upload, upload_name};
use crate::problem::{Answer, Problem};
use crate::shelf::Shelf;
use crate::view::ItemView;
use crate::work::{Begun, Lane, Pending, Reply, RequestHash, Work};
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use semblance_index::{IndexError, Item, NewItem};
use semblance_query::catalog;
use serde::Serialize;

/// A photograph that is to be an item's.
pub(super) struct NewPhoto {
    pub(super) bytes: Bytes,
    pub(super) vector: Vec<f32>,
}

/// What becomes of a request that changes something.
pub(super) enum Start {
    /// It is to be done.
    Do(Option<Pending>),
    /// It was done before.
    Done(Response),
}

/// Looks up the request's `Idempotency-Key`, if it has one.
///
/// # Errors
/// A key that another request had.
pub(super) async fn start(
    app: &App,
    shelf: &Shelf,
    key: Option<&str>,
    request: RequestHash,
) -> Answer<Start> {
    let Some(key) = key else { return Ok(Start::Do(None)) };
    Ok(match app.repeated.begin(&shelf.name, key, request).await? {
        Begun::New(pending) => Start::Do(Some(pending)),
        Begun::Done(reply) => Start::Done(reply.replayed()),
    })
}

/// Makes a change on a thread where it may take its time. It calls [`Work::begin_commit`] before it writes the index.
pub(super) async fn commit<T: Serialize>(
    app: &App,
    shelf: Arc<Shelf>,
    work: &Work,
    pending: Option<Pending>,
    change: impl FnOnce(&Shelf) -> Answer<(StatusCode, T)> + Send + 'static,
) -> Answer<Response> {
    in_lane(&app.writes, work, pending, move || change(&shelf)).await
}

async fn in_lane<T: Serialize>(
    lane: &Lane,
    work: &Work,
    pending: Option<Pending>,
    change: impl FnOnce() -> Answer<(StatusCode, T)> + Send + 'static,
) -> Answer<Response> {
    let done = lane.run(work.cancel(), move || {
        let (status, body) = change()?;
        let reply = Reply { status, json: serde_json::to_vec(&body).map_err(Problem::internal)?.into() };
        if let Some(pending) = pending {
            pending.finish(&reply);
        }
        Ok(reply)
    });
    Ok(done.await?.into_response())
}

/// Writes picture and item; the caller has the key's turn. `before` is the item that is replaced, if there is one.
pub(super) fn store(
    shelf: &Shelf,
    work: &Work,
    key: String,
    description: Description,
    before: Option<Item>,
    photo: Option<NewPhoto>,
) -> Answer<ItemView> {
    // Before the picture is kept.
    writer(shelf)?.check_place()?;
    let Description { class, super_class, metadata, .. } = description;
    let mut item = NewItem { key, class, super_class, metadata };
    let old = before.as_ref().and_then(upload_name);
    let is_new = photo.is_some();
    let (vector, kept) = match (photo, &before) {
        (Some(photo), _) => {
            let kept = shelf.pictures.keep(&item.key, &photo.bytes).map_err(keeping_failed)?;
            (photo.vector, Some(kept))
        }
        (None, Some(before)) => (shelf.index.vector(before.id)?, old.map(str::to_owned)),
        (None, None) => {
            let message =
                format!("there is no item with the key {:?}: a new one needs a photograph", item.key);
            return Err(Problem::not_found("unknown_item", message));
        }
    };
    if let Some(kept) = &kept {
        item.metadata.insert(catalog::PHOTO.to_owned(), kept.clone().into());
    }
    if let Err(given_up) = work.begin_commit() {
        // No item names the picture that was just kept.
        kept.iter().filter(|kept| is_new && old != Some(kept)).for_each(|kept| shelf.pictures.forget(kept));
        return Err(given_up);
    }
    let ids = writer(shelf)?.upsert(std::slice::from_ref(&item), &vector)?;
    // Only now does no item name the previous picture.
    if let Some(old) = old
        && kept.as_deref() != Some(old)
    {
        shelf.pictures.forget(old);
    }
    shelf.changed();
    Ok(ItemView::stored(item.with_id(ids[0]), shelf))
}

/// Whether an item is what a request asks to be added: then an earlier one with the same `Idempotency-Key` added it, and
/// its answer was lost with the server's memory.
pub(super) fn is_same(item: &Item, description: &Description, photo: &NewPhoto) -> bool {
    let others = item.metadata.iter().filter(|(name, _)| *name != catalog::PHOTO);
    let upload = name_of_upload(&item.key, &photo.bytes).ok();
    item.class == description.class
        && item.super_class == description.super_class
        && upload.is_some()
        && upload_name(item) == upload.as_deref()
        && others.eq(description.metadata.iter())
}

fn keeping_failed(error: std::io::Error) -> Problem {
    if matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded) {
        return IndexError::DiskFull { path: catalog::UPLOADS.into() }.into();
    }
    Problem::internal(error)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::sync::mpsc::{Receiver, channel};
    use std::time::Duration;

    use super::*;
    use crate::work::{Idempotency, in_time};
    use axum::http::StatusCode as S;
    use semblance_index::Cancel;

    /// An index that takes changes, and counts them.
    struct Fixture {
        lane: Lane,
        repeated: Arc<Idempotency>,
        committed: Arc<AtomicUsize>,
    }

    impl Fixture {
        fn new() -> Self {
            let (repeated, committed) = Default::default();
            Self { lane: Lane::new("changes", 4, 16), repeated, committed }
        }

        /// A request with this key whose commit takes until `end` says something, if it is given.
        async fn request(&self, limit: Duration, key: &str, end: Option<Receiver<()>>) -> StatusCode {
            let work = Work::default();
            let answer = async {
                let pending = match self.repeated.begin("shop", key, [0; 32]).await.unwrap() {
                    Begun::New(pending) => pending,
                    Begun::Done(reply) => return reply.replayed(),
                };
                let (of, committed) = (work.clone(), self.committed.clone());
                let change = move || {
                    of.begin_commit()?;
                    if let Some(end) = &end {
                        let _ = end.recv();
                    }
                    committed.fetch_add(1, SeqCst);
                    Ok((S::CREATED, "done"))
                };
                in_lane(&self.lane, &work, Some(pending), change).await.into_response()
            };
            in_time(limit, work.clone(), answer).await.status()
        }
    }

    const SHORT: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_write_that_waits_for_a_place_is_given_up_and_changes_nothing() {
        let fixture = Arc::new(Fixture::new());
        // Four changes that hang have all places.
        let (hanging, ends): (Vec<_>, Vec<_>) = (0..4)
            .map(|_| {
                let (fixture, (end, wait)) = (fixture.clone(), channel::<()>());
                let hang = move || Ok(wait.recv().is_err());
                let hang = async move { fixture.lane.run(&Cancel::default(), hang).await };
                (tokio::spawn(hang), end)
            })
            .unzip();
        while fixture.lane.drain(Duration::from_millis(1)).await {}
        for _ in 0..4 {
            assert_eq!(fixture.request(SHORT, "a", None).await, S::SERVICE_UNAVAILABLE);
        }
        drop(ends);
        for hanging in hanging {
            hanging.await.unwrap().unwrap();
        }
        assert!(fixture.lane.drain(LONG).await);
        assert_eq!(fixture.committed.load(SeqCst), 0, "what was answered with 503 was not done");
        assert_eq!(fixture.request(LONG, "a", None).await, S::CREATED);
        assert_eq!(fixture.request(LONG, "a", None).await, S::CREATED, "the same answer again");
        assert_eq!(fixture.committed.load(SeqCst), 1);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_write_that_hangs_in_its_commit_is_not_called_undone_and_can_be_repeated() {
        let fixture = Arc::new(Fixture::new());
        let (end, wait) = channel();
        // Neither done nor undone: the answer is 503, and the commit goes on.
        let limit = Duration::from_secs(2);
        assert_eq!(fixture.request(limit, "a", Some(wait)).await, S::SERVICE_UNAVAILABLE);
        let again = tokio::spawn({
            let fixture = fixture.clone();
            async move { fixture.request(LONG, "a", None).await }
        });
        end.send(()).unwrap();
        assert_eq!(again.await.unwrap(), S::CREATED, "it waits for the first and gets its answer");
        assert_eq!(fixture.committed.load(SeqCst), 1);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_commit_that_has_begun_is_waited_for() {
        let fixture = Arc::new(Fixture::new());
        let (end, wait) = channel();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_secs(6));
            end.send(()).unwrap();
        });
        assert_eq!(fixture.request(Duration::from_secs(5), "a", Some(wait)).await, S::CREATED);
        assert_eq!(fixture.committed.load(SeqCst), 1);
    }
}
