//! A [`Report`] and everything worth looking at beside its averages: how far they can be trusted, which queries fail, which
//! classes, which labels look wrong. Plain data; [`crate::report::html`] makes a page of it, JSON keeps it for
//! [`compare`](mod@compare).

use std::path::PathBuf;

use semblance_embed::extract::Failure;
use semblance_index::{Neighbor, SearchParams};
use serde::{Deserialize, Serialize};

use crate::answer::{AnswerConfig, Answering, ItemIndex};
use crate::error::{QueryError, Result};
use crate::evaluate::{Details, EvalConfig, Gallery, Queries, evaluate_in_detail};
use crate::report::Report;
use crate::statistics::Interval;
use crate::statistics::bootstrap::BootstrapConfig;

mod accuracy;
pub mod cases;
mod classes;
pub mod compare;
pub mod curves;
pub mod options;
mod per_query;
mod provenance;
mod scores;
mod shelf;
mod suspects;

pub use cases::{Case, CaseHit};
pub use classes::ClassRow;
pub use options::OptionRow;
pub use per_query::{PerQuery, QueryColumns};
pub use provenance::Provenance;
pub use scores::ScoreStudy;
pub use shelf::Shelf;
pub use suspects::{NearDuplicate, Suspect};

/// The layout of [`Study`] as JSON; counted up when a field changes its meaning.
pub const FORMAT: u32 = 1;

/// What an evaluation found, in full.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Study {
    /// [`FORMAT`] of the program that wrote it.
    pub format: u32,
    /// The averages.
    pub report: Report,
    /// How far they can be trusted, one entry for each of [`Report::searches`].
    pub accuracy: Vec<Accuracy>,
    /// Recall@K for every K, by exact search.
    pub recall_curve: Vec<curves::RecallPoint>,
    /// What the width of the walk through the graph costs and brings.
    pub ef_sweep: Vec<curves::EfPoint>,
    /// Cosines of right and wrong neighbours, and a threshold between them.
    pub scores: Option<ScoreStudy>,
    /// What each option of searching brings; empty where none was tried.
    pub options: Vec<OptionRow>,
    /// Each class of the queries, worst first.
    pub classes: Vec<ClassRow>,
    /// Each super class of the queries, worst first.
    pub super_classes: Vec<ClassRow>,
    /// The queries answered worst.
    pub hardest: Vec<Case>,
    /// Queries taken at equal distances from all of them: what is usual.
    pub usual: Vec<Case>,
    /// Pairs of pictures that are almost or quite the same.
    pub near_duplicates: suspects::NearDuplicates,
    /// Queries whose neighbours all carry one other label.
    pub suspects: Vec<Suspect>,
    /// What made it.
    pub provenance: Provenance,
    /// Each query's results by exact search and through the graph.
    pub per_query: PerQuery,
}

/// Confidence intervals of 95 %.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// Of each entry of [`crate::report::SearchReport::recall_at_k`]: Wilson's score interval.
    pub recall_at_k: Vec<Option<Interval>>,
    /// By the bootstrap over queries.
    pub map_at_r: Option<Interval>,
    /// By the bootstrap over queries.
    pub r_precision: Option<Interval>,
}

/// What goes into a study, and how much of it.
#[derive(Clone, Debug, PartialEq)]
pub struct StudyConfig {
    /// Queries in each gallery of pictures.
    pub cases: usize,
    /// Neighbours shown of each.
    pub neighbours: usize,
    /// Share of queries without a match that may be answered: gives the threshold of [`ScoreStudy`].
    pub false_accepts: f64,
    /// Cosine from which two pictures count as near-duplicates.
    pub near_duplicate: f32,
    /// Neighbours that must all carry one other label to make a query a suspect.
    pub suspect_neighbours: usize,
    /// Widths of the walk to try; none without the graph.
    pub ef_search: Vec<usize>,
    /// For the intervals of MAP@R and R-Precision.
    pub bootstrap: BootstrapConfig,
}

impl Default for StudyConfig {
    fn default() -> Self {
        Self {
            cases: 18,
            neighbours: 6,
            false_accepts: 0.01,
            near_duplicate: 0.98,
            suspect_neighbours: 5,
            ef_search: vec![10, 16, 32, 64, 128, 256, 512],
            bootstrap: BootstrapConfig::default(),
        }
    }
}

/// A query's picture, by the side of [`Queries`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryItem {
    /// Its name: a path relative to its data set, or its key in the index.
    pub key: String,
    /// Its super class, if known.
    pub super_class: Option<String>,
    /// The file, if there is one.
    pub picture: Option<PathBuf>,
}

/// What a study is made of.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// The index searched.
    pub index: &'a dyn ItemIndex,
    /// Its items.
    pub shelf: &'a Shelf,
    /// What the report calls it.
    pub name: &'a str,
    /// The queries.
    pub queries: &'a Queries<'a>,
    /// Their pictures, in the same order.
    pub items: &'a [QueryItem],
    /// What is done to the search.
    pub answer: &'a AnswerConfig,
    /// Pictures of the query set that could not be read.
    pub failures: &'a [Failure],
}

/// Evaluates, and looks at the answers from all sides.
///
/// # Errors
/// As [`crate::evaluate()`]; [`QueryError::QueryShape`] if there is not one item a query.
pub fn study(
    subject: &Subject<'_>,
    eval: &EvalConfig,
    config: &StudyConfig,
    progress: &dyn Fn(usize, usize),
) -> Result<Study> {
    let Subject { index, shelf, queries, .. } = *subject;
    if subject.items.len() != queries.classes.len() {
        let (count, numbers) = (queries.classes.len(), queries.vectors.len());
        let ids = Some(subject.items.len());
        return Err(QueryError::QueryShape { queries: count, dim: index.dim(), numbers, ids });
    }
    let answering = Answering::new(index, subject.answer);
    let gallery = Gallery::new(&answering, shelf.classes(), subject.name, &shelf.model);
    let keep = config.neighbours.max(config.suspect_neighbours).max(1);
    let eval = EvalConfig { keep, ..eval.clone() };
    let (report, details) = evaluate_in_detail(&gallery, queries, &eval, progress)?;
    let exact = &details[0];
    let seen = Seen { subject, shelf, details: exact };
    let sweep = if eval.graph { config.ef_search.as_slice() } else { &[] };
    Ok(Study {
        format: FORMAT,
        accuracy: details
            .iter()
            .zip(&report.searches)
            .map(|(details, search)| accuracy::accuracy(details, search, &config.bootstrap))
            .collect(),
        recall_curve: curves::recall_curve(exact, &report),
        ef_sweep: curves::ef_sweep(&gallery, queries, sweep)?,
        scores: scores::scores(exact, config.false_accepts),
        options: Vec::new(),
        classes: classes::by_class(&seen),
        super_classes: classes::by_super_class(&seen),
        hardest: cases::hardest(&seen, config),
        usual: cases::usual(&seen, config),
        near_duplicates: suspects::near_duplicates(&seen, config),
        suspects: suspects::suspects(&seen, config),
        provenance: provenance::provenance(subject, config),
        per_query: per_query::per_query(subject, &report, &details),
        report,
    })
}

/// What the parts of a study look at.
pub(crate) struct Seen<'a> {
    pub(crate) subject: &'a Subject<'a>,
    pub(crate) shelf: &'a Shelf,
    pub(crate) details: &'a Details,
}

impl Seen<'_> {
    pub(crate) fn class(&self, query: usize) -> Option<&str> {
        self.subject.queries.classes[query].as_deref()
    }

    pub(crate) fn class_of(&self, neighbour: &Neighbor) -> Option<&str> {
        self.shelf.item(neighbour.id)?.class.as_deref()
    }
}

/// The parameters every part of a study searches with exactly.
pub(crate) fn exactly(k: usize) -> SearchParams {
    SearchParams::exact(k)
}
