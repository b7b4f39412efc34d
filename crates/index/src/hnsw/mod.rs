//! Hierarchical navigable small world graphs: building, storing and searching them.

pub(crate) mod build;
pub(crate) mod early_abandon;
pub(crate) mod first_share;
pub(crate) mod graph;
mod growing_graph;
pub(crate) mod hnsw_rs;
mod layers;
pub(crate) mod neighbor_selection;
pub(crate) mod prefix_regression;
pub(crate) mod reachability;
pub(crate) mod reorder;
pub(crate) mod search;
mod second_descent;
pub(crate) mod visited;
