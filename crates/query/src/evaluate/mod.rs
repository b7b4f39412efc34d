//! All queries over a gallery: how often the right product comes back.
//!
//! Two protocols, told apart by whether the queries have ids in the gallery: **leave-one-out** searches each item of one
//! set among all the others, itself removed by id (Stanford Online Products' protocol); **query against gallery**
//! searches one set within another. Exact search measures the model; searching through the graph measures the system;
//! [`crate::metrics::ann_recall`] between the two is what the graph costs.
//!
//! Traps stepped around here: the query itself is removed by id, never by place; equal scores put non-matches first,
//! so that the order in which items were stored cannot flatter a collapsed embedding; a K the gallery cannot give is cut
//! and the report says so; rankings are at least as deep as the largest class, or MAP@R would be wrong; lists that come
//! back short count as misses and are counted.

use std::time::Instant;

use semblance_index::{Neighbor, SearchParams, VectorIndex};

use crate::error::Result;
use crate::report::{AtK, LoneQueries, Protocol, Report, SearchKind, SearchReport};

mod gallery;
mod outcome;
mod plan;
mod tally;
#[cfg(test)]
mod tests;

pub use gallery::{Gallery, OwnItems, Queries};
pub use outcome::{Details, Outcome};
use plan::Plan;
use tally::Tally;

/// What to measure and how to search.
#[derive(Clone, Debug)]
pub struct EvalConfig {
    /// The K of Recall@K; sorted and without repetition in the report.
    pub ks: Vec<usize>,
    /// Search through the graph too, and measure its overlap with exact search.
    pub graph: bool,
    /// Candidates the graph search keeps; never fewer than the places asked for.
    pub ef_search: Option<usize>,
    /// What becomes of queries without a match.
    pub lone_queries: LoneQueries,
    /// Queries searched at once: bounds memory, changes no result.
    pub block: usize,
    /// Neighbours of each query that [`evaluate_in_detail`] hands back.
    pub keep: usize,
}

impl Default for EvalConfig {
    fn default() -> Self {
        Self {
            ks: vec![1, 10, 100, 1000],
            graph: true,
            ef_search: None,
            lone_queries: LoneQueries::default(),
            block: 1024,
            keep: 0,
        }
    }
}

/// One way of searching, with its results so far.
struct Run {
    kind: SearchKind,
    params: SearchParams,
    tally: Tally,
    seconds: f64,
}

/// Searches with every query and averages the measures.
///
/// `progress` receives the queries done and their number, after each block.
///
/// # Errors
/// No K or a K of zero, an empty gallery, no queries, lists of different lengths, and whatever the index reports.
pub fn evaluate(
    gallery: &Gallery<'_>,
    queries: &Queries<'_>,
    config: &EvalConfig,
    progress: &dyn Fn(usize, usize),
) -> Result<Report> {
    Ok(evaluate_in_detail(gallery, queries, config, progress)?.0)
}

/// As [`evaluate`], and hands back what came of each query: one [`Details`] for each of [`Report::searches`].
///
/// # Errors
/// As [`evaluate`].
pub fn evaluate_in_detail(
    gallery: &Gallery<'_>,
    queries: &Queries<'_>,
    config: &EvalConfig,
    progress: &dyn Fn(usize, usize),
) -> Result<(Report, Vec<Details>)> {
    let plan = Plan::new(gallery, queries, config)?;
    let mut runs = vec![Run::new(&plan, SearchParams::exact(plan.search_k()))];
    if config.graph {
        let params = SearchParams { ef_search: config.ef_search, ..SearchParams::new(plan.search_k()) };
        runs.push(Run::new(&plan, params));
    }
    let (dim, total) = (gallery.index.dim(), queries.classes.len());
    let mut done = 0;
    while done < total {
        let rows = done..total.min(done + config.block.max(1));
        let vectors = &queries.vectors[rows.start * dim..rows.end * dim];
        let mut exact: Option<Vec<Vec<Neighbor>>> = None;
        for run in &mut runs {
            let found = run.search(gallery.index, vectors, rows.len())?;
            let found = plan.without_queries(found, rows.start);
            run.tally.add(&plan, &found, exact.as_deref(), rows.start);
            if run.kind == SearchKind::Exact {
                exact = Some(found);
            }
        }
        done = rows.end;
        progress(done, total);
    }
    let (searches, details) = runs.into_iter().map(|run| run.report(&plan)).unzip();
    let report = Report {
        gallery: gallery.name.clone(),
        queries: queries.name.to_owned(),
        protocol: plan.protocol(),
        model: gallery.model.clone(),
        dim,
        gallery_items: gallery.index.len(),
        gallery_classes: gallery.classes(),
        gallery_unlabelled: gallery.unlabelled(),
        query_counts: plan.counts,
        depth: plan.depth,
        searches,
    };
    Ok((report, details))
}

impl Run {
    fn new(plan: &Plan<'_>, params: SearchParams) -> Self {
        let kind =
            if params.exact { SearchKind::Exact } else { SearchKind::Graph { ef_search: params.ef() } };
        Self { kind, params, tally: Tally::new(plan.ks.len()), seconds: 0.0 }
    }

    fn search(&mut self, index: &dyn VectorIndex, vectors: &[f32], n: usize) -> Result<Vec<Vec<Neighbor>>> {
        let start = Instant::now();
        let found = index.search_batch(vectors, n, &self.params)?;
        self.seconds += start.elapsed().as_secs_f64();
        Ok(found)
    }

    fn report(self, plan: &Plan<'_>) -> (SearchReport, Details) {
        let tally = self.tally;
        let mean = |sum: f64, count: usize| (count > 0).then(|| sum / count as f64);
        let at = |sums: &[f64], count: usize| -> Vec<AtK> {
            let pairs = plan.ks.iter().zip(sums);
            pairs.map(|(&(k, used), &sum)| AtK { k, used, value: mean(sum, count) }).collect()
        };
        let report = SearchReport {
            search: self.kind,
            recall_at_k: at(&tally.recall, tally.scored),
            map_at_r: mean(tally.map_at_r, tally.scored),
            r_precision: mean(tally.r_precision, tally.scored),
            ann_recall: if self.kind == SearchKind::Exact {
                vec![]
            } else {
                at(&tally.ann_recall, plan.counts.total)
            },
            short_lists: tally.short_lists,
            ties: tally.ties,
            duplicates: tally.duplicates,
            seconds: self.seconds,
        };
        (report, tally.details)
    }
}

/// Leave-one-out over vectors in memory, by exact search: what training calls to validate.
///
/// `vectors` are n × `dim`, `classes` one per row. Only exact search is reported, whatever `config.graph` says.
///
/// # Errors
/// As [`evaluate`], and vectors that are not finite and of norm 1.
pub fn evaluate_vectors(
    name: &str,
    vectors: &[f32],
    dim: usize,
    classes: &[Option<String>],
    config: &EvalConfig,
) -> Result<Report> {
    let flat = semblance_index::FlatIndex::new(vectors, dim)?;
    let ids: Vec<u64> = (0..classes.len() as u64).collect();
    let items = ids.iter().copied().zip(classes.iter().map(Option::as_deref));
    let gallery = Gallery::new(&flat, items, name, "");
    let queries = Queries { name, vectors, classes, own_ids: Some(&ids) };
    evaluate(&gallery, &queries, &EvalConfig { graph: false, ..config.clone() }, &|_, _| {})
}
