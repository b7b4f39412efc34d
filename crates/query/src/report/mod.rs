//! What an evaluation found, with everything one must know to compare it with another. Rendered by [`text`] and [`json`].

use serde::{Deserialize, Serialize};

pub mod folder;
pub mod html;
pub mod json;
pub mod text;

/// The result of one evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The gallery's name, as its owner calls it.
    pub gallery: String,
    /// The name of the set the queries came from; the gallery's own for leave-one-out.
    pub queries: String,
    /// Who was searched among whom.
    pub protocol: Protocol,
    /// Fingerprint of the model that made the vectors.
    pub model: String,
    /// Length of a vector.
    pub dim: usize,
    /// Items in the gallery.
    pub gallery_items: usize,
    /// Classes in the gallery.
    pub gallery_classes: usize,
    /// Gallery items without a class: they never match.
    pub gallery_unlabelled: usize,
    /// Which queries count, and how many do not.
    pub query_counts: QueryCounts,
    /// Places each query's ranking was asked for: the greatest K or the greatest R, within the gallery.
    pub depth: usize,
    /// One entry per way of searching: exact first, then through the graph where that was asked for.
    pub searches: Vec<SearchReport>,
}

/// Who is searched among whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// Each item of one set against all the others, itself removed by id (Stanford Online Products' protocol).
    LeaveOneOut,
    /// A set of queries against another set.
    QueryAgainstGallery,
}

/// What becomes of a query whose class the gallery does not have (for leave-one-out: a class of one image).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LoneQueries {
    /// Left out of every average, and counted in the report. The default, and the habit of most libraries.
    #[default]
    Exclude,
    /// A miss in every measure.
    CountAsMiss,
}

/// How many queries there were and how many the averages are over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryCounts {
    /// All queries.
    pub total: usize,
    /// Queries the averages are over.
    pub scored: usize,
    /// Labelled queries without any match in the gallery.
    pub without_match: usize,
    /// Queries without a class: never scored.
    pub unlabelled: usize,
    /// What was done with those without a match.
    pub rule: LoneQueries,
}

/// A way of searching.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum SearchKind {
    /// Every vector compared: measures the model.
    Exact,
    /// Through the graph: measures the system.
    Graph {
        /// Candidates kept while searching.
        ef_search: usize,
    },
}

/// The measures of one way of searching, averaged over the scored queries. `None` where no query could be scored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SearchReport {
    /// How the neighbours were found.
    pub search: SearchKind,
    /// Recall@K for each K asked for, smallest first.
    pub recall_at_k: Vec<AtK>,
    /// Mean average precision at R.
    pub map_at_r: Option<f64>,
    /// R-Precision.
    pub r_precision: Option<f64>,
    /// Overlap with exact search at each K, over all queries, labelled or not. Only for the graph.
    pub ann_recall: Vec<AtK>,
    /// Queries that got fewer neighbours than asked for; the missing ones count as misses.
    pub short_lists: usize,
    /// Scored queries where a match and a non-match had the same score; the non-match was put first.
    pub ties: usize,
    /// Queries whose nearest neighbour has a cosine of at least 1 − 10⁻⁶: most likely the same picture.
    pub duplicates: usize,
    /// Seconds spent searching, all queries together.
    pub seconds: f64,
}

/// A value at a K.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AtK {
    /// The K asked for.
    pub k: usize,
    /// The K used: `k`, or as many neighbours as the gallery can give.
    pub used: usize,
    /// The value, 0 to 1.
    pub value: Option<f64>,
}

impl Report {
    /// The report of exact search, where there is one.
    pub fn exact(&self) -> Option<&SearchReport> {
        self.searches.iter().find(|entry| entry.search == SearchKind::Exact)
    }

    /// The report of the search through the graph, where there is one.
    pub fn graph(&self) -> Option<&SearchReport> {
        self.searches.iter().find(|entry| matches!(entry.search, SearchKind::Graph { .. }))
    }
}

impl SearchReport {
    /// Recall@K for a K that was asked for.
    pub fn recall(&self, k: usize) -> Option<f64> {
        self.recall_at_k.iter().find(|entry| entry.k == k).and_then(|entry| entry.value)
    }
}
