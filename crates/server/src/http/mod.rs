//! What HTTP leaves to every server: what a body is, and the names that a proxy gives this one.

pub(crate) mod content;
pub(crate) mod proxy;
