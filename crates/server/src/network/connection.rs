//! One connection, from the handshake to its end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::Peer;
use super::activity::Activity;
use super::body::{RequestBody, ResponseBody};

/// Time that a connection has for its farewell.
const FAREWELL: Duration = Duration::from_secs(1);
/// Longest head of a request, and most that is read ahead of it, in bytes.
const READ_AHEAD: usize = 64 << 10;
/// Requests at once on a connection of HTTP/2.
const STREAMS: u32 = 64;
/// What a client of HTTP/2 may send before anybody reads it, a request and all of a connection, in bytes.
const WINDOWS: (u32, u32) = (256 << 10, 512 << 10);

/// What all connections have in common.
#[derive(Clone)]
pub(crate) struct Connection {
    router: TowerToHyperService<Router>,
    tls: Option<TlsAcceptor>,
    http: Arc<Builder<TokioExecutor>>,
    idle_time: Duration,
    stop: watch::Receiver<bool>,
}

impl Connection {
    pub(crate) fn new(
        router: Router,
        tls: Option<TlsAcceptor>,
        idle_time: Duration,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let mut http = Builder::new(TokioExecutor::new());
        http.http1().timer(TokioTimer::new()).max_buf_size(READ_AHEAD).header_read_timeout(idle_time);
        // A client that has said all it has to say may close its side and still wait for the answer.
        http.http1().half_close(true);
        http.http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .initial_stream_window_size(WINDOWS.0)
            .initial_connection_window_size(WINDOWS.1);
        let router = TowerToHyperService::new(router);
        Self { router, tls, http: Arc::new(http), idle_time, stop }
    }

    /// Serves a client until it leaves, is silent for too long, or must make room.
    pub(crate) async fn run(self, stream: TcpStream, peer: SocketAddr, activity: Arc<Activity>) {
        let Some(tls) = &self.tls else { return self.http(stream, peer, activity).await };
        let secured = tokio::select! {
            secured = tokio::time::timeout(self.idle_time, tls.accept(stream)) => secured,
            () = activity.closing() => return,
        };
        if let Ok(Ok(stream)) = secured {
            self.http(stream, peer, activity).await;
        }
    }

    async fn http(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: SocketAddr,
        activity: Arc<Activity>,
    ) {
        let requests = Requests { router: self.router.clone(), peer, activity: activity.clone() };
        let served = self.http.serve_connection(TokioIo::new(stream), requests);
        tokio::pin!(served);
        let mut stop = self.stop.clone();
        let (mut stopping, mut farewell) = (false, None);
        loop {
            let wake = farewell.unwrap_or_else(|| activity.deadline(self.idle_time));
            tokio::select! {
                _ = served.as_mut() => return,
                () = activity.closing() => return,
                () = tokio::time::sleep_until(wake.into()) => {
                    if farewell.is_some() {
                        return;
                    }
                    if activity.deadline(self.idle_time) <= Instant::now() {
                        served.as_mut().graceful_shutdown();
                        farewell = Some(Instant::now() + FAREWELL);
                    }
                }
                _ = stop.wait_for(|stop| *stop), if !stopping => {
                    stopping = true;
                    served.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

/// Requests of a connection on their way to the router.
struct Requests {
    router: TowerToHyperService<Router>,
    peer: SocketAddr,
    activity: Arc<Activity>,
}

impl Service<Request<Incoming>> for Requests {
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let (activity, handling) = (self.activity.clone(), self.activity.handle());
        let mut request = request.map(|body| Body::new(RequestBody::new(body, &activity)));
        request.extensions_mut().insert(Peer(self.peer));
        let answer = self.router.call(request);
        Box::pin(async move {
            let response = answer.await?;
            drop(handling);
            Ok(response.map(|body| ResponseBody::new(body, activity)))
        })
    }
}
