//! Why a server cannot start.

use std::net::SocketAddr;
use std::path::PathBuf;

use semblance_embed::EmbedError;
use semblance_index::IndexError;
use semblance_query::QueryError;

/// `Result` with this crate's error.
pub type Result<T, E = ServerError> = std::result::Result<T, E>;

/// Why a server cannot start, or had to stop. Messages say what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// Nothing to serve.
    #[error("no index to serve: name at least one")]
    NoIndex,
    /// Two indexes of one name.
    #[error("two indexes are called {name:?}: indexes are distinguished by the last part of their path")]
    RepeatedName {
        /// The name.
        name: String,
    },
    /// An address other machines can reach, without a token.
    #[error(
        "{listen} can be reached from other machines: give a token that requests must bring, or listen on 127.0.0.1"
    )]
    TokenNeeded {
        /// The address.
        listen: SocketAddr,
    },
    /// A token that is too short, or that no header can carry.
    #[error("the token {what}: use at least 16 letters, digits or any of -._~+/=, drawn at random")]
    BadToken {
        /// What is wrong with it.
        what: &'static str,
    },
    /// An origin that is none.
    #[error("{origin:?} is no origin: it looks like https://shop.example, without a path")]
    BadOrigin {
        /// What was given.
        origin: String,
    },
    /// A public host that is none.
    #[error("{host:?} is no name of a host: it looks like shop.example or shop.example:8443")]
    BadHost {
        /// What was given.
        host: String,
    },
    /// A base path that is none.
    #[error("{path:?} is no base path: it looks like /semblance")]
    BadBasePath {
        /// What was given.
        path: String,
    },
    /// The address is taken, or not ours.
    #[error("cannot listen on {listen}: {source}")]
    Listen {
        /// The address.
        listen: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// Certificate or key cannot be used.
    #[error("cannot use the certificate {} with the key {}: {source}", certificate.display(), key.display())]
    Tls {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The system refused threads, sockets or signals.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// An index cannot be opened, or its last writes could not be published.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// A model cannot be opened.
    #[error(transparent)]
    Query(#[from] QueryError),
}

impl From<EmbedError> for ServerError {
    fn from(error: EmbedError) -> Self {
        Self::Query(error.into())
    }
}
