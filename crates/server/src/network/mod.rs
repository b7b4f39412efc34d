//! Connections: accepted up to a bound, closed when nothing happens on them, served by the router.

mod activity;
mod body;
mod connection;
mod crowd;
mod descriptors;
mod host;
mod tls;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use self::connection::Connection;
use self::crowd::Crowd;
pub(crate) use self::host::check_host;
pub(crate) use self::tls::read_tls;

/// Told to clients for whom there is no room, where TLS does not forbid it.
const FULL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
/// How long a client waits for another connection to close.
const ROOM_WAIT: Duration = Duration::from_secs(1);

/// Address of the other end of a request's connection: a client, or a proxy.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// What connections are allowed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NetworkConfig {
    /// Most connections at once.
    pub(crate) connections: usize,
    /// Time for a TLS handshake, for the head of a request, between requests, and between two parts of an answer.
    pub(crate) idle_time: Duration,
    /// Time that requests under way have when the server stops.
    pub(crate) shutdown_time: Duration,
}

/// Serves until `stop` becomes true and what was under way is finished, or the time for that is over.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
    config: NetworkConfig,
    mut stop: watch::Receiver<bool>,
) {
    let most = descriptors::connections(config.connections);
    let room = Arc::new(Semaphore::new(most));
    let crowd = Arc::new(Crowd::default());
    let template = Connection::new(router, tls.clone(), config.idle_time, stop.clone());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                pause_after(&error).await;
                continue;
            }
        };
        let Some(permit) = place(&room, &crowd).await else {
            if tls.is_none() {
                let _ = stream.try_write(FULL);
            }
            continue;
        };
        spawn(stream, peer, permit, &crowd, &template);
    }
    drop(listener);
    let _ = tokio::time::timeout(config.shutdown_time, room.acquire_many(most as u32)).await;
}

/// Room for one more connection. If there is none, the connection on which nothing happened for longest is closed.
async fn place(room: &Arc<Semaphore>, crowd: &Crowd) -> Option<OwnedSemaphorePermit> {
    if let Ok(permit) = room.clone().try_acquire_owned() {
        return Some(permit);
    }
    if !crowd.close_quietest() {
        tracing::warn!("every connection is busy: a client was turned away");
        return None;
    }
    tokio::time::timeout(ROOM_WAIT, room.clone().acquire_owned()).await.ok()?.ok()
}

fn spawn(
    stream: TcpStream,
    peer: SocketAddr,
    permit: OwnedSemaphorePermit,
    crowd: &Arc<Crowd>,
    template: &Connection,
) {
    let _ = stream.set_nodelay(true);
    let member = crowd.join();
    let connection = template.clone();
    tokio::spawn(async move {
        connection.run(stream, peer, member.activity()).await;
        drop((member, permit));
    });
}

/// Most failures concern one connection only; where descriptors or memory ran out, some must become free first.
async fn pause_after(error: &std::io::Error) {
    let of_the_client =
        [ErrorKind::ConnectionAborted, ErrorKind::ConnectionReset, ErrorKind::ConnectionRefused];
    if !of_the_client.contains(&error.kind()) {
        tracing::warn!(%error, "a connection could not be accepted");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
