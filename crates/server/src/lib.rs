//! The search engine over HTTP, with a web page.
//!
//! [`Server::open`] opens indexes and models, [`Server::run`] answers until SIGINT or SIGTERM. The addresses are
//! described at `/openapi.json`, and can be tried at `/docs`; the web page is at `/`.
//!
//! What it promises: an answered write is durable; a fault in one request costs no other; memory is bounded, whatever is
//! sent; and nothing outside of the catalogue's folder is ever read.

mod access;
mod app;
mod auth;
mod batcher;
mod config;
mod error;
mod extract;
mod facets;
mod find;
mod http;
mod metrics;
mod network;
mod observe;
mod origin;
mod photo;
mod pictures;
mod problem;
mod routes;
mod server;
mod shelf;
mod thumbnail;
mod view;
mod work;

pub use access::ProxyNetwork;
pub use auth::Token;
pub use config::{BatchConfig, IndexSource, Limits, OperatorAdvice, ServerConfig, TlsFiles};
pub use error::{Result, ServerError};
pub use server::Server;
