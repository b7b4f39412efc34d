//! What a server serves, to whom, and what a request may cost.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use semblance_embed::transform::Limits as PictureLimits;
use semblance_embed::{ModelSource, Precision};

use crate::access::ProxyNetwork;
use crate::auth::Token;

/// The settings of a [`crate::Server`].
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Where to listen; port 0 takes a free one. Beyond loopback a token is needed.
    pub listen: SocketAddr,
    /// The indexes, by the names they get in addresses.
    pub indexes: Vec<IndexSource>,
    /// The model of all indexes, in place of the one each remembers.
    pub model: Option<ModelSource>,
    /// What the models that indexes remember multiply.
    pub precision: Precision,
    /// Folder of evaluation reports: the report of an index lies in a folder of its name.
    pub reports: PathBuf,
    /// What every request must bring, if anything.
    pub token: Option<Token>,
    /// Certificate and key, if the server is to speak TLS.
    pub tls: Option<TlsFiles>,
    /// Refuse every change, and take no index's right to write.
    pub read_only: bool,
    /// Origins whose pages may use the server, such as `https://shop.example`.
    pub allowed_origins: Vec<String>,
    /// Names that a proxy before the server passes on as `Host`, such as `shop.example`.
    pub public_hosts: Vec<String>,
    /// Path below which a proxy before the server serves it, such as `/semblance`; empty without one. Requests may come with
    /// the path or without it.
    pub base_path: String,
    /// Proxies whose `X-Forwarded-For` is believed; nobody else's is.
    pub trusted_proxies: Vec<ProxyNetwork>,
    /// Requests per second from one address, ten times as many at once; 0 for no limit. `None` allows 100 to addresses
    /// that are not on this machine.
    pub request_rate: Option<u32>,
    /// Threads that answer requests; 0 means one per processor.
    pub threads: usize,
    /// What a request may cost.
    pub limits: Limits,
    /// How photographs are gathered for the model.
    pub batch: BatchConfig,
    /// What some answers advise the operator to do.
    pub advice: OperatorAdvice,
}

/// What the operator can do about some refusals, in the words of the program that runs the server, such as its flags. Answers
/// show it in brackets; an empty text is left out.
#[derive(Debug, Clone, Default)]
pub struct OperatorAdvice {
    /// How to add a name to [`ServerConfig::public_hosts`].
    pub public_host: String,
    /// How to add an origin to [`ServerConfig::allowed_origins`], or a name to the public hosts.
    pub allowed_origin: String,
    /// How to write an evaluation report where the server looks for it.
    pub report: String,
}

impl ServerConfig {
    /// Serves `indexes` on `listen`, everything else as by default.
    pub fn new(listen: SocketAddr, indexes: Vec<IndexSource>) -> Self {
        Self {
            listen,
            indexes,
            model: None,
            precision: Precision::F32,
            reports: PathBuf::from("runs/reports"),
            token: None,
            tls: None,
            read_only: false,
            allowed_origins: Vec::new(),
            public_hosts: Vec::new(),
            base_path: String::new(),
            trusted_proxies: Vec::new(),
            request_rate: None,
            threads: 0,
            limits: Limits::default(),
            batch: BatchConfig::default(),
            advice: OperatorAdvice::default(),
        }
    }
}

/// An index to serve.
#[derive(Debug, Clone)]
pub struct IndexSource {
    /// Its name in addresses.
    pub name: String,
    /// Its folder.
    pub dir: PathBuf,
    /// Folder of its catalogue's pictures, in place of the one that it records. An index that was built elsewhere needs it.
    pub root: Option<PathBuf>,
}

/// PEM files.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The certificate, with those that lead to the root.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// What a request, and all of them together, may cost.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Largest body of a request in bytes.
    pub upload_bytes: usize,
    /// Most bytes of all requests and answers together: bodies, what is read from them as JSON, and pictures on their way
    /// out. Beyond it requests are sent away for a while.
    pub buffered_bytes: usize,
    /// Most pixels of an uploaded photograph.
    pub pixels: u64,
    /// Longest side of an uploaded photograph in pixels.
    pub side: u32,
    /// Thumbnails made at once; 0 means one per processor.
    pub decoders: usize,
    /// Thumbnails that may wait to be made, searches that may wait for a thread, and so on; beyond it requests are sent away
    /// for a while.
    pub waiting: usize,
    /// Most connections at once, as far as the limit on open files allows. When there are more, those on which nothing
    /// happened for longest are closed.
    pub connections: usize,
    /// Time for a TLS handshake, for the head of a request, between two requests, and between two parts of an answer.
    pub idle_time: Duration,
    /// Most neighbours a search may ask for.
    pub k: usize,
    /// Widest walk through the graph a search may ask for.
    pub ef_search: usize,
    /// Time a request may take. Three quarters of it may go into sending the body.
    pub request_time: Duration,
    /// Time that requests under way have when the server is stopping.
    pub shutdown_time: Duration,
    /// Memory for thumbnails in bytes.
    pub thumbnail_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            upload_bytes: 16 << 20,
            buffered_bytes: 256 << 20,
            pixels: 40_000_000,
            side: 20_000,
            decoders: 0,
            waiting: 256,
            connections: 1_024,
            idle_time: Duration::from_secs(30),
            k: 1_000,
            ef_search: 10_000,
            request_time: Duration::from_secs(60),
            shutdown_time: Duration::from_secs(30),
            thumbnail_bytes: 64 << 20,
        }
    }
}

impl Limits {
    /// The part of the limits that decoding a picture knows.
    pub(crate) fn picture(&self) -> PictureLimits {
        PictureLimits {
            max_file_bytes: self.upload_bytes as u64,
            max_side: self.side,
            max_pixels: self.pixels,
            max_decoded_bytes: self.pixels.saturating_mul(8).max(1 << 20),
        }
    }
}

/// How photographs of different requests are gathered for the model.
#[derive(Debug, Clone, Copy)]
pub struct BatchConfig {
    /// Most photographs, or views of them, that the model gets at once.
    pub size: usize,
    /// Photographs that may wait for the model; beyond it requests are sent away for a while.
    pub queue: usize,
}

impl Default for BatchConfig {
    fn default() -> Self {
        Self { size: 16, queue: 256 }
    }
}
