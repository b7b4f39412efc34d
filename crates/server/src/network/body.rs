//! Request and response bodies that report their progress to the connection.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};

use super::activity::{Activity, Receiving};

/// Largest part of an answer given out at a time: what is given out is soon sent, so that a client that stops reading
/// is noticed, and its answer not kept in the connection's buffers.
const PART: usize = 64 << 10;

/// A request's body. It counts as being sent until it has ended, or nobody reads it any more.
pub(crate) struct RequestBody {
    inner: Incoming,
    receiving: Option<Receiving>,
}

impl RequestBody {
    pub(crate) fn new(inner: Incoming, activity: &Arc<Activity>) -> Self {
        let receiving = (!inner.is_end_stream()).then(|| activity.receive());
        Self { inner, receiving }
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) || self.inner.is_end_stream() {
            self.receiving = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// An answer's body, given out in small parts.
pub(crate) struct ResponseBody {
    inner: Body,
    rest: Bytes,
    activity: Arc<Activity>,
}

impl ResponseBody {
    pub(crate) fn new(inner: Body, activity: Arc<Activity>) -> Self {
        Self { inner, rest: Bytes::new(), activity }
    }
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                end => return Poll::Ready(end),
            }
        }
        self.activity.progress();
        let part = self.rest.len().min(PART);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(part)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (inner, rest) = (self.inner.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower() + rest);
        inner.upper().into_iter().for_each(|upper| hint.set_upper(upper + rest));
        hint
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test]
    async fn answers_come_in_small_parts_and_whole() {
        let whole: Vec<u8> = (0..200_000u32).map(|i| i as u8).collect();
        let mut body = ResponseBody::new(Body::from(whole.clone()), Arc::new(Activity::new()));
        assert_eq!(body.size_hint().exact(), Some(200_000));
        let mut got = Vec::new();
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            let data = frame.unwrap().into_data().unwrap();
            assert!(data.len() <= PART);
            got.extend_from_slice(&data);
            assert_eq!(body.size_hint().exact(), Some(200_000 - got.len() as u64));
        }
        assert!(got == whole && body.is_end_stream());
    }
}
