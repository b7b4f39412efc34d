//! Listening, and stopping without losing anything.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use semblance_index::{Cancel, IndexError};
use semblance_query::pictures::{CatalogueRoot, Survey};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::app::App;
use crate::config::ServerConfig;
use crate::error::{Result, ServerError};
use crate::http::proxy::{base_path, public_host};
use crate::network::{self, NetworkConfig, read_tls};
use crate::problem::Answer;
use crate::routes::router;
use crate::shelf::Shelf;

/// How often indexes are looked after.
const ROUND: Duration = Duration::from_secs(1);
/// Pictures looked for at the start: enough to see that a catalogue was moved.
const FEW_PICTURES: usize = 50;
/// How long work that is left behind is waited for.
const FAREWELL: Duration = Duration::from_secs(1);

/// Indexes and models, open, and a socket that is bound.
pub struct Server {
    app: Arc<App>,
    listener: TcpListener,
    listening: SocketAddr,
    tls: Option<TlsAcceptor>,
    runtime: Runtime,
}

impl Server {
    /// Opens indexes and models and binds the address.
    ///
    /// # Errors
    /// [`ServerError::TokenNeeded`] for an address beyond loopback without a token; indexes and models that cannot be
    /// opened; an address that is taken; certificates that cannot be used.
    pub fn open(mut config: ServerConfig) -> Result<Self> {
        let listen = config.listen;
        if !listen.ip().is_loopback() && config.token.is_none() {
            return Err(ServerError::TokenNeeded { listen });
        }
        config.allowed_origins = config.allowed_origins.iter().map(|o| origin(o)).collect::<Result<_>>()?;
        config.public_hosts =
            config.public_hosts.iter().map(|host| public_host(host)).collect::<Result<_>>()?;
        config.base_path = base_path(&config.base_path)?;
        // Before the models, which take their time to open.
        let listener = TcpListener::bind(listen).map_err(|source| ServerError::Listen { listen, source })?;
        let nonblocking = listener.set_nonblocking(true).and_then(|()| listener.local_addr());
        let listening = nonblocking.map_err(|source| ServerError::Listen { listen, source })?;
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        if config.threads > 0 {
            builder.worker_threads(config.threads);
        }
        // What the lanes let through at once, and what the system's name resolution needs.
        builder.max_blocking_threads(App::blocking_threads(&config) + 4);
        let runtime = builder.enable_all().build();
        let runtime =
            runtime.map_err(|source| ServerError::System { what: "cannot start threads", source })?;
        let tls = config.tls.as_ref().map(read_tls).transpose()?;
        let app = Arc::new(App::open(config)?);
        Ok(Self { app, listener, listening, tls, runtime })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.listening
    }

    /// The same as the start of an address for browsers.
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.listening)
    }

    /// Names of the indexes, and for those that cannot be written, why.
    pub fn indexes(&self) -> Vec<(String, Option<String>)> {
        self.app.shelves.values().map(|shelf| (shelf.name.clone(), shelf.remark.clone())).collect()
    }

    /// The folder of each index's pictures, and how many of a few were found there.
    ///
    /// # Errors
    /// Failures of the indexes.
    pub fn catalogues(&self) -> Result<Vec<(String, CatalogueRoot, Survey)>> {
        let looked_at = |shelf: &Arc<Shelf>| {
            let pictures = shelf.pictures.catalogue();
            let few = if pictures.root().is_open() { FEW_PICTURES } else { 0 };
            let survey = if few > 0 { pictures.sample(&shelf.index, few)? } else { Survey::default() };
            Ok((shelf.name.clone(), pictures.root().clone(), survey))
        };
        self.app.shelves.values().map(looked_at).collect()
    }

    /// Answers requests until SIGINT or SIGTERM: then requests under way are finished, and
    /// what was written is published. Work that does not end in time (a disk that hangs) is left behind.
    ///
    /// # Errors
    /// Failures of the socket, and of publishing; what was acknowledged is in the index's store all the same.
    pub fn run(self) -> Result<()> {
        let Self { app, listener, tls, runtime, .. } = self;
        let limits = app.config.limits;
        let served = runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let (stop, stopping) = watch::channel(false);
            tokio::spawn(stop_on_signal(app.clone(), stop));
            let mut tending = JoinSet::new();
            for shelf in app.shelves.values() {
                tending.spawn(publish_in_rounds(app.clone(), shelf.clone()));
                tending.spawn(merge_in_rounds(app.clone(), shelf.clone()));
            }
            let config = NetworkConfig {
                connections: limits.connections,
                idle_time: limits.idle_time,
                shutdown_time: limits.shutdown_time,
            };
            network::serve(listener, tls, router(app.clone()), config, stopping).await;
            tending.abort_all();
            // Changes whose client went away are finished, too.
            if !app.writes.drain(limits.shutdown_time).await {
                tracing::error!("changes are still being written: the server stops without waiting for them");
            }
            Ok(())
        });
        runtime.shutdown_timeout(FAREWELL);
        served.map_err(|source| ServerError::System { what: "the server failed", source })?;
        let published: Vec<_> = app.shelves.values().map(|shelf| shelf.publish()).collect();
        published.into_iter().collect::<Result<(), _>>().map_err(ServerError::from)
    }
}

/// An origin as browsers send it.
fn origin(given: &str) -> Result<String> {
    // Browsers send it in lower case.
    let origin = given.trim_end_matches('/').to_ascii_lowercase();
    let is_one = origin.split_once("://").is_some_and(|(scheme, host)| {
        matches!(scheme, "http" | "https") && !host.is_empty() && !host.contains('/')
    });
    let is_one = is_one && origin.bytes().all(|b| b.is_ascii_graphic());
    if is_one { Ok(origin) } else { Err(ServerError::BadOrigin { origin: given.to_owned() }) }
}

async fn stop_on_signal(app: Arc<App>, stop: watch::Sender<bool>) {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        match signal(SignalKind::terminate()) {
            Ok(mut terminate) => {
                tokio::select! {
                    _ = tokio::signal::ctrl_c() => {}
                    _ = terminate.recv() => {}
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot wait for SIGTERM");
                let _ = tokio::signal::ctrl_c().await;
            }
        }
    }
    #[cfg(not(unix))]
    let _ = tokio::signal::ctrl_c().await;
    tracing::info!("stopping: requests under way are finished");
    app.stop();
    let _ = stop.send(true);
}

/// Publishes what was written to an index, and takes up what other processes published.
async fn publish_in_rounds(app: Arc<App>, shelf: Arc<Shelf>) {
    loop {
        tokio::time::sleep(ROUND).await;
        let tended = shelf.clone();
        let done = app.publications.run(&Cancel::default(), move || Ok(tended.tend())).await;
        report(&shelf.name, "could not be published", done);
    }
}

/// Merges segments of an index. Writes, searches and publications go on meanwhile.
async fn merge_in_rounds(app: Arc<App>, shelf: Arc<Shelf>) {
    while !app.is_stopping() {
        tokio::time::sleep(ROUND).await;
        let (merged, cancel) = (shelf.clone(), app.merging.clone());
        let done = app.merges.run(&app.merging, move || Ok(merged.merge(&cancel))).await;
        report(&shelf.name, "its segments could not be merged", done);
    }
}

fn report(index: &str, what: &str, done: Answer<std::result::Result<(), IndexError>>) {
    match done {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(index, %error, "{what}"),
        Err(_) => tracing::error!(index, "{what}: it panicked, or the server stops"),
    }
}
