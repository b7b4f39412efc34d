//! What bounds the work of a request: its time, its memory, and how much of its kind is done at once.

mod idempotency;
mod json;
mod lane;
mod memory;
mod time_limit;

pub(crate) use self::idempotency::{
    Begun, IDEMPOTENCY_KEY, Idempotency, Pending, Reply, RequestHash, key_of,
};
pub(crate) use self::lane::Lane;
pub(crate) use self::memory::{Memory, Received, Share};
#[cfg(test)]
pub(crate) use self::time_limit::in_time;
pub(crate) use self::time_limit::{Work, limit_time};
