//! Measures along a parameter: Recall against K, recall and speed against the width of the walk.

use std::time::Instant;

use semblance_index::{Neighbor, SearchParams};
use serde::{Deserialize, Serialize};

use super::exactly;
use crate::error::Result;
use crate::evaluate::{Details, Gallery, Queries};
use crate::metrics::{ann_recall, without_self};
use crate::report::Report;
use crate::statistics::{Interval, wilson};

/// Points of a curve over K, at most about this many.
const POINTS: usize = 60;
/// Queries the sweep asks at most, taken at equal distances.
const SWEEP_QUERIES: usize = 2000;
/// Neighbours the sweep asks for.
pub const SWEEP_K: usize = 10;

/// Recall@K at one K.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecallPoint {
    /// The K.
    pub k: usize,
    /// Recall@K.
    pub value: f64,
    /// Wilson's interval.
    pub interval: Interval,
}

/// Recall@K for K from 1 to the depth of the rankings, close together at first.
pub(super) fn recall_curve(details: &Details, report: &Report) -> Vec<RecallPoint> {
    let places: Vec<Option<usize>> = details.scored().map(|(_, outcome)| outcome.first_match).collect();
    let growth = (report.depth.max(2) as f64).powf(1.0 / POINTS as f64);
    let mut ks: Vec<usize> =
        (0..=POINTS).map(|i| (growth.powi(i as i32).round() as usize).min(report.depth)).collect();
    ks.dedup();
    let point = |k: usize| {
        let found = places.iter().flatten().filter(|place| **place <= k).count();
        let interval = wilson(found, places.len())?;
        Some(RecallPoint { k, value: found as f64 / places.len() as f64, interval })
    };
    ks.into_iter().filter(|k| *k > 0).filter_map(point).collect()
}

/// Searching with one width of the walk, [`SWEEP_K`] neighbours a query, on all threads.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EfPoint {
    /// Candidates kept; `None` for exact search.
    pub ef_search: Option<usize>,
    /// Overlap with the exact neighbours.
    pub ann_recall: f64,
    /// Queries a second.
    pub queries_per_second: f64,
}

/// One pass over up to [`SWEEP_QUERIES`] queries for each width; the first entry is exact search. Empty for no widths.
pub(super) fn ef_sweep(
    gallery: &Gallery<'_>,
    queries: &Queries<'_>,
    widths: &[usize],
) -> Result<Vec<EfPoint>> {
    if widths.is_empty() {
        return Ok(Vec::new());
    }
    let index = gallery.index();
    let (dim, total) = (index.dim(), queries.classes.len());
    let step = total.div_ceil(SWEEP_QUERIES);
    let rows: Vec<usize> = (0..total).step_by(step).collect();
    let vectors: Vec<f32> =
        rows.iter().flat_map(|row| &queries.vectors[row * dim..(row + 1) * dim]).copied().collect();
    let own = queries.own_ids.map(|ids| rows.iter().map(|row| ids[*row]).collect::<Vec<u64>>());
    let k = SWEEP_K + usize::from(own.is_some());
    let ask = |params: &SearchParams| -> Result<(Vec<Vec<Neighbor>>, f64)> {
        let start = Instant::now();
        let found = index.search_batch(&vectors, rows.len(), params)?;
        let rate = rows.len() as f64 / start.elapsed().as_secs_f64().max(1e-9);
        let Some(own) = &own else { return Ok((found, rate)) };
        let others = found.into_iter().zip(own);
        Ok((others.map(|(list, id)| without_self(list, *id, SWEEP_K, |n| n.id)).collect(), rate))
    };
    let ids = |list: &[Neighbor]| list.iter().map(|n| n.id).collect::<Vec<u64>>();
    // The first search reads the files; it is not the one to be timed.
    ask(&SearchParams::new(k))?;
    let (exact, rate) = ask(&exactly(k))?;
    let mut points = vec![EfPoint { ef_search: None, ann_recall: 1.0, queries_per_second: rate }];
    for &width in widths {
        let (found, rate) = ask(&SearchParams { ef_search: Some(width), ..SearchParams::new(k) })?;
        let overlap: f64 =
            found.iter().zip(&exact).map(|(list, exact)| ann_recall(&ids(list), &ids(exact), SWEEP_K)).sum();
        let ann_recall = overlap / rows.len() as f64;
        points.push(EfPoint { ef_search: Some(width), ann_recall, queries_per_second: rate });
    }
    Ok(points)
}
