//! How far a measured average can be trusted.

use serde::{Deserialize, Serialize};

pub mod bootstrap;
mod wilson;

pub use wilson::wilson;

/// A confidence interval: where a measure would lie with other queries of the same kind.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}
