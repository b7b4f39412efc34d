//! HTTP as clients and proxies speak it: what the standards leave them free to do is understood.

mod lenience;
mod proxy;
