//! What made a study.

use std::collections::BTreeMap;
use std::path::PathBuf;

use semblance_embed::extract::Failure;
use semblance_index::{Codes, HnswConfig};
use serde::{Deserialize, Serialize};

use super::{StudyConfig, Subject};
use crate::statistics::bootstrap::BootstrapConfig;
use crate::whitening::readable;

/// Everything one must know to repeat it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// The program and its version.
    pub program: String,
    /// Folder of the index, or of the data set where there was none.
    pub index: PathBuf,
    /// The program that wrote the index.
    pub index_program: String,
    /// The graph: links, candidates, seed, builder; none where there was no index.
    pub graph: Option<HnswConfig>,
    /// Numbers the graph is walked with.
    pub codes: Option<Codes>,
    /// What the index knows of its making: catalogue, its folder, model, transform, and what was done to its vectors.
    pub attributes: BTreeMap<String, String>,
    /// For the intervals of MAP@R and R-Precision.
    pub bootstrap: BootstrapConfig,
    /// Pictures of the query set that could not be read, and why.
    pub unreadable: Vec<(String, String)>,
}

pub(super) fn provenance(subject: &Subject<'_>, config: &StudyConfig) -> Provenance {
    let shelf = subject.shelf;
    let (graph, codes) = shelf.graph.clone().unzip();
    let reason = |failure: &Failure| (failure.path.clone(), failure.reason.clone());
    Provenance {
        program: concat!("semblance ", env!("CARGO_PKG_VERSION")).to_owned(),
        index: shelf.place.clone(),
        index_program: shelf.program.clone(),
        graph,
        codes,
        attributes: readable(&shelf.attributes),
        bootstrap: config.bootstrap,
        unreadable: subject.failures.iter().map(reason).collect(),
    }
}
