//! Confidence intervals of the averages.

use super::Accuracy;
use crate::evaluate::Details;
use crate::report::SearchReport;
use crate::statistics::bootstrap::{self, BootstrapConfig};
use crate::statistics::wilson;

pub(super) fn accuracy(details: &Details, search: &SearchReport, config: &BootstrapConfig) -> Accuracy {
    let scored: Vec<_> = details.scored().map(|(_, outcome)| outcome).collect();
    let recall =
        |k: usize| wilson(scored.iter().filter(|outcome| outcome.recall_at_k(k)).count(), scored.len());
    let columns = [
        scored.iter().map(|outcome| outcome.map_at_r).collect(),
        scored.iter().map(|outcome| outcome.r_precision).collect(),
    ];
    let intervals = bootstrap::intervals(&columns, config);
    Accuracy {
        recall_at_k: search.recall_at_k.iter().map(|at| recall(at.used)).collect(),
        map_at_r: intervals[0],
        r_precision: intervals[1],
    }
}
