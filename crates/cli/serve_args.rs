//! Arguments of `semblance serve`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use semblance_server::ProxyNetwork;

use crate::args::{IndexDirArgs, ModelArgs};

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// An index to serve: a name below --index-dir, or a path (with a / in it); may be given several times
    #[arg(long, required = true, value_name = "NAME")]
    pub(crate) index: Vec<String>,
    #[command(flatten)]
    pub(crate) dir: IndexDirArgs,
    /// Folder of the catalogue's pictures, in place of the one that an index records; needed for an index that was built
    /// elsewhere (`semblance index move-root` records it for good). Of several indexes, NAME=DIR says whose; may be given
    /// several times
    #[arg(long, visible_alias = "catalogue-root", value_name = "[NAME=]DIR")]
    pub(crate) root: Vec<String>,
    /// Address and port to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub(crate) listen: SocketAddr,
    /// Refuse every change, and leave the right to write to others
    #[arg(long)]
    pub(crate) read_only: bool,
    /// Folder of evaluation reports; that of an index lies in a folder of the index's name
    #[arg(long, value_name = "DIR", default_value = "runs/reports")]
    pub(crate) reports: PathBuf,
    #[command(flatten)]
    pub(crate) access: AccessArgs,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
    /// How the log on stderr is written
    #[arg(long, value_enum, default_value_t)]
    pub(crate) log: LogFormat,
    /// How much of it
    #[arg(long, value_enum, default_value_t)]
    pub(crate) log_level: LogLevel,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}

/// Who may use the server.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Access")]
pub(crate) struct AccessArgs {
    /// File with the token requests must bring (`Authorization: Bearer TOKEN`) [default: the environment variable
    /// SEMBLANCE_TOKEN, if set]; needed to listen beyond loopback
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// PEM file of the certificate, to speak TLS
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// PEM file of the certificate's private key
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Origin whose pages may use the server (CORS), such as `https://shop.example`; may be given several times
    #[arg(long, value_name = "ORIGIN")]
    pub(crate) allow_origin: Vec<String>,
    /// Name that a proxy before this server passes on as `Host`, such as `shop.example`; may be given several times
    #[arg(long, value_name = "HOST")]
    pub(crate) public_host: Vec<String>,
    /// Path below which a proxy before this server serves it, such as `/semblance`, whether or not the proxy takes it off
    #[arg(long, value_name = "PATH")]
    pub(crate) base_path: Option<String>,
    /// Proxy whose `X-Forwarded-For` is believed, as an address or a network such as 10.0.0.0/8; may be given several times
    #[arg(long, value_name = "NETWORK")]
    pub(crate) trusted_proxy: Vec<ProxyNetwork>,
}

/// What requests may cost.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Limits")]
pub(crate) struct LimitArgs {
    /// Largest upload in MiB
    #[arg(long, value_name = "MIB", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) max_upload: u32,
    /// Largest photograph in millions of pixels
    #[arg(long, value_name = "MILLIONS", default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) max_pixels: u32,
    /// Memory for all requests and answers together in MiB: uploads, what is read from JSON, pictures on their way out
    #[arg(long, value_name = "MIB", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) upload_memory: u32,
    /// Seconds a request may take; three quarters of them may go into sending it
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) time_limit: u32,
    /// Requests per second from one address, ten times as many at once; 0 for no limit [default: 100, and no limit for
    /// addresses of this machine]
    #[arg(long, value_name = "N")]
    pub(crate) rate_limit: Option<u32>,
    /// Most connections at once, as far as the limit on open files (ulimit -n) allows; when there are more, those on which
    /// nothing happened for longest are closed
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub(crate) max_connections: u32,
    /// Seconds a connection may be silent: before its first request, between requests, and within an answer
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) idle_time: u32,
    /// Most photographs the model gets at once
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) batch: u32,
    /// Photographs that may wait for the model, and thumbnails, searches and changes that may wait for a thread; more are
    /// sent away with 503
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) queue: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Lines for people
    #[default]
    Text,
    /// One JSON object per line
    Json,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogLevel {
    /// Nothing
    Off,
    /// What went wrong
    Error,
    /// And what is odd
    Warn,
    /// And every request
    #[default]
    Info,
}
