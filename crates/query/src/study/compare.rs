//! Two studies of the same queries: which is better, and is it more than chance?

use serde::{Deserialize, Serialize};

use super::{FORMAT, QueryColumns, Study};
use crate::report::SearchKind;
use crate::statistics::bootstrap::{BootstrapConfig, Difference, differences};

/// Why two studies cannot be compared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CompareError {
    /// Written by a program with another idea of the format.
    #[error("{which} has format {found}, this program reads {FORMAT}: write the report again")]
    Format {
        /// Which of the two.
        which: String,
        /// Its format.
        found: u32,
    },
    /// Another number of queries.
    #[error("not the same queries: {a} has {count_a}, {b} has {count_b}")]
    Count {
        /// The first study.
        a: String,
        /// The second study.
        b: String,
        /// Queries of the first.
        count_a: usize,
        /// Queries of the second.
        count_b: usize,
    },
    /// The same number, but not the same.
    #[error(
        "not the same queries: number {number} is {query_a} in {a}, and {query_b} in {b} ({differing} of them differ)"
    )]
    Query {
        /// The first study.
        a: String,
        /// The second study.
        b: String,
        /// Place of the first that differs, from 1.
        number: usize,
        /// Its name, class and whether it was scored in the first study.
        query_a: String,
        /// The same in the second.
        query_b: String,
        /// How many differ.
        differing: usize,
    },
    /// Nothing to compare.
    #[error("none of the {queries} queries was scored: there is nothing to compare")]
    NothingScored {
        /// Queries of both.
        queries: usize,
    },
    /// Lists of different lengths in one file.
    #[error("{which} is damaged: its lists of queries and results have different lengths")]
    Damaged {
        /// Which of the two.
        which: String,
    },
}

/// What a comparison found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Name of the first study.
    pub a: String,
    /// Name of the second.
    pub b: String,
    /// Queries that both scored.
    pub queries: usize,
    /// Every measure, for every way of searching that both have.
    pub rows: Vec<ComparisonRow>,
    /// What differs beside the results: models, galleries, protocols.
    pub notes: Vec<String>,
    /// How the intervals were made.
    pub bootstrap: BootstrapConfig,
}

/// One measure of both.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ComparisonRow {
    /// `exact` or `graph`.
    pub search: String,
    /// The measure.
    pub measure: String,
    /// Its average in the first study.
    pub a: f64,
    /// Its average in the second.
    pub b: f64,
    /// Second minus first, by the paired bootstrap.
    pub difference: Difference,
    /// Which is better.
    pub verdict: Verdict,
}

/// Which of two is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The first, by more than chance.
    A,
    /// The second, by more than chance.
    B,
    /// The difference may be chance.
    Neither,
}

impl Verdict {
    /// What a difference (second minus first) says.
    pub fn of(difference: &Difference) -> Self {
        match (difference.is_significant(), difference.mean > 0.0) {
            (false, _) => Self::Neither,
            (true, true) => Self::B,
            (true, false) => Self::A,
        }
    }
}

/// Compares two studies, named `a` and `b` in its messages.
///
/// # Errors
/// If they are not of the same queries with the same classes in the same order, scored alike.
pub fn compare(
    (name_a, a): (&str, &Study),
    (name_b, b): (&str, &Study),
    config: &BootstrapConfig,
) -> Result<Comparison, CompareError> {
    for (which, study) in [(name_a, a), (name_b, b)] {
        check(which, study)?;
    }
    same_queries((name_a, a), (name_b, b))?;
    let scored: Vec<usize> = (0..a.per_query.keys.len()).filter(|query| a.per_query.scored[*query]).collect();
    if scored.is_empty() {
        return Err(CompareError::NothingScored { queries: a.per_query.keys.len() });
    }
    let ks = common_ks(a, b);
    let mut rows = Vec::new();
    for columns_a in &a.per_query.searches {
        let kind = kind(columns_a.search);
        let Some(columns_b) = b.per_query.searches.iter().find(|c| self::kind(c.search) == kind) else {
            continue;
        };
        let (values_a, values_b) = (measures(columns_a, &scored, &ks), measures(columns_b, &scored, &ks));
        let mut pairs = Vec::new();
        for ((_, a), (_, b)) in values_a.iter().zip(&values_b) {
            pairs.push(b.iter().zip(a).map(|(b, a)| b - a).collect());
        }
        let found = differences(&pairs, config).into_iter().zip(values_a.iter().zip(&values_b));
        rows.extend(found.filter_map(|(difference, ((measure, a), (_, b)))| {
            let difference = difference?;
            let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
            let verdict = Verdict::of(&difference);
            Some(ComparisonRow {
                search: kind.to_owned(),
                measure: measure.clone(),
                a: mean(a),
                b: mean(b),
                difference,
                verdict,
            })
        }));
    }
    Ok(Comparison {
        a: name_a.to_owned(),
        b: name_b.to_owned(),
        queries: scored.len(),
        rows,
        notes: notes(a, b),
        bootstrap: *config,
    })
}

fn check(which: &str, study: &Study) -> Result<(), CompareError> {
    if study.format != FORMAT {
        return Err(CompareError::Format { which: which.to_owned(), found: study.format });
    }
    let queries = &study.per_query;
    let count = queries.keys.len();
    let whole = queries.classes.len() == count
        && queries.scored.len() == count
        && queries.searches.iter().all(|c| {
            c.first_match.len() == count && c.map_at_r.len() == count && c.r_precision.len() == count
        });
    if whole { Ok(()) } else { Err(CompareError::Damaged { which: which.to_owned() }) }
}

fn same_queries((name_a, a): (&str, &Study), (name_b, b): (&str, &Study)) -> Result<(), CompareError> {
    let (a, b) = (&a.per_query, &b.per_query);
    let names = || (name_a.to_owned(), name_b.to_owned());
    if a.keys.len() != b.keys.len() {
        let ((name_a, name_b), count_a, count_b) = (names(), a.keys.len(), b.keys.len());
        return Err(CompareError::Count { a: name_a, b: name_b, count_a, count_b });
    }
    let differs = |i: &usize| {
        a.keys[*i] != b.keys[*i] || a.classes[*i] != b.classes[*i] || a.scored[*i] != b.scored[*i]
    };
    let differing: Vec<usize> = (0..a.keys.len()).filter(differs).collect();
    let Some(&first) = differing.first() else { return Ok(()) };
    let told = |queries: &super::PerQuery| {
        let class = queries.classes[first].as_deref().unwrap_or("no class");
        let scored = if queries.scored[first] { "" } else { ", not scored" };
        format!("{} ({class}{scored})", queries.keys[first])
    };
    let (a_name, b_name) = names();
    Err(CompareError::Query {
        a: a_name,
        b: b_name,
        number: first + 1,
        query_a: told(a),
        query_b: told(b),
        differing: differing.len(),
    })
}

/// The K that both were asked for, and neither had to cut.
fn common_ks(a: &Study, b: &Study) -> Vec<usize> {
    let whole = |study: &Study| -> Vec<usize> {
        let exact = study.report.searches.first();
        exact.iter().flat_map(|s| &s.recall_at_k).filter(|at| at.used == at.k).map(|at| at.k).collect()
    };
    let others = whole(b);
    whole(a).into_iter().filter(|k| others.contains(k)).collect()
}

fn kind(search: SearchKind) -> &'static str {
    match search {
        SearchKind::Exact => "exact",
        SearchKind::Graph { .. } => "graph",
    }
}

/// Names and values of the measures, one value a scored query.
fn measures(columns: &QueryColumns, scored: &[usize], ks: &[usize]) -> Vec<(String, Vec<f64>)> {
    let hit = |k: usize| move |place: u32| f64::from(u8::from(place > 0 && place as usize <= k));
    let recall = |k: &usize| {
        let hit = hit(*k);
        (format!("Recall@{k}"), scored.iter().map(|query| hit(columns.first_match[*query])).collect())
    };
    let mut values: Vec<(String, Vec<f64>)> = ks.iter().map(recall).collect();
    for (name, column) in [("MAP@R", &columns.map_at_r), ("R-Precision", &columns.r_precision)] {
        values.push((name.to_owned(), scored.iter().map(|query| f64::from(column[*query])).collect()));
    }
    values
}

fn notes(a: &Study, b: &Study) -> Vec<String> {
    let (a, b) = (&a.report, &b.report);
    let mut notes = Vec::new();
    let mut differ = |what: &str, a: String, b: String| {
        if a != b {
            notes.push(format!("{what}: {a} and {b}"));
        }
    };
    differ("models differ", a.model.chars().take(12).collect(), b.model.chars().take(12).collect());
    differ("dimensions differ", a.dim.to_string(), b.dim.to_string());
    differ("galleries differ in size", a.gallery_items.to_string(), b.gallery_items.to_string());
    differ("protocols differ", format!("{:?}", a.protocol), format!("{:?}", b.protocol));
    notes
}
