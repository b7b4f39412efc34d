//! Who a request comes from, and how many may come from there.

mod client;
mod rate;

pub use self::client::ProxyNetwork;
pub(crate) use self::client::{Client, find_client};
pub(crate) use self::rate::{Rates, limit_rate};
