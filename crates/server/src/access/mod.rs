//! The client address of a request, and the rate limit per address.

mod client;
mod rate;

pub use self::client::ProxyNetwork;
pub(crate) use self::client::{Client, find_client};
pub(crate) use self::rate::{Rates, limit_rate};
