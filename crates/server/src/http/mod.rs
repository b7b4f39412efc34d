//! Parts of HTTP that every server handles: the media types of bodies, and the names that a proxy gives this server.

pub(crate) mod content;
pub(crate) mod proxy;
