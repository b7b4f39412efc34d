//! The measures of each query, summed.

use rayon::prelude::*;
use semblance_index::Neighbor;

use super::outcome::{Details, Outcome};
use super::plan::{Plan, QueryClass};
use crate::metrics::{ann_recall, map_at_r, r_precision, recall_at_k};
use crate::report::LoneQueries;

/// Cosine from which two vectors are taken for the same picture.
const SAME_PICTURE: f32 = 1.0 - 1e-6;

/// Sums over the queries so far.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) scored: usize,
    /// One a K.
    pub(super) recall: Vec<f64>,
    pub(super) map_at_r: f64,
    pub(super) r_precision: f64,
    /// One a K; over all queries, not only the scored ones.
    pub(super) ann_recall: Vec<f64>,
    pub(super) short_lists: usize,
    pub(super) ties: usize,
    pub(super) duplicates: usize,
    pub(super) details: Details,
}

/// What one query contributes.
struct QueryScores {
    short: bool,
    duplicate: bool,
    ann_recall: Vec<f64>,
    measures: Option<Measures>,
}

/// What a scored query contributes.
struct Measures {
    recall: Vec<bool>,
    outcome: Outcome,
    tie: bool,
}

impl Tally {
    pub(super) fn new(ks: usize) -> Self {
        Self { recall: vec![0.0; ks], ann_recall: vec![0.0; ks], ..Self::default() }
    }

    /// Adds the queries from place `first` on, one list of neighbours each. Summed in query order, so that the number of
    /// threads changes no digit.
    pub(super) fn add(
        &mut self,
        plan: &Plan<'_>,
        found: &[Vec<Neighbor>],
        exact: Option<&[Vec<Neighbor>]>,
        first: usize,
    ) {
        let scores: Vec<QueryScores> = found
            .par_iter()
            .enumerate()
            .map(|(row, list)| {
                score(plan, list, exact.map(|lists| lists[row].as_slice()), plan.classes[first + row])
            })
            .collect();
        let kept = |list: &Vec<Neighbor>| list.iter().take(plan.keep).copied().collect();
        self.details.nearest.extend(found.iter().map(kept));
        for query in scores {
            self.short_lists += usize::from(query.short);
            self.duplicates += usize::from(query.duplicate);
            for (sum, value) in self.ann_recall.iter_mut().zip(&query.ann_recall) {
                *sum += value;
            }
            self.details.outcomes.push(query.measures.as_ref().map(|measures| measures.outcome));
            let Some(measures) = query.measures else { continue };
            self.scored += 1;
            self.ties += usize::from(measures.tie);
            self.map_at_r += measures.outcome.map_at_r;
            self.r_precision += measures.outcome.r_precision;
            for (sum, hit) in self.recall.iter_mut().zip(&measures.recall) {
                *sum += f64::from(u8::from(*hit));
            }
        }
    }
}

fn score(
    plan: &Plan<'_>,
    list: &[Neighbor],
    exact: Option<&[Neighbor]>,
    class: Option<QueryClass>,
) -> QueryScores {
    let ids = |list: &[Neighbor]| list.iter().map(|neighbor| neighbor.id).collect::<Vec<u64>>();
    let ann_recall = exact.map_or_else(Vec::new, |exact| {
        let (list, exact) = (ids(list), ids(exact));
        plan.ks.iter().map(|(_, used)| ann_recall(&list, &exact, *used)).collect()
    });
    QueryScores {
        short: list.len() < plan.depth,
        duplicate: list.first().is_some_and(|neighbor| neighbor.score >= SAME_PICTURE),
        ann_recall,
        measures: class.and_then(|class| measure(plan, list, class)),
    }
}

fn measure(plan: &Plan<'_>, list: &[Neighbor], class: QueryClass) -> Option<Measures> {
    let best = |wanted: bool| {
        let is_match = |n: &&Neighbor| class.number.is_some() && plan.gallery.class_of(n.id) == class.number;
        list.iter().find(|neighbor| is_match(neighbor) == wanted).copied()
    };
    let (best_match, best_other) = (best(true), best(false));
    if class.relevant == 0 {
        // Whatever came back, nothing in it can be right.
        let outcome = Outcome { first_match: None, map_at_r: 0.0, r_precision: 0.0, best_match, best_other };
        let miss = Measures { recall: vec![false; plan.ks.len()], outcome, tie: false };
        return (plan.counts.rule == LoneQueries::CountAsMiss).then_some(miss);
    }
    let mut ranking: Vec<(f32, Option<u32>)> =
        list.iter().map(|n| (n.score, plan.gallery.class_of(n.id))).collect();
    let tie = misses_first(&mut ranking, &class.number);
    let ranking: Vec<Option<u32>> = ranking.into_iter().map(|(_, class)| class).collect();
    let outcome = Outcome {
        first_match: ranking.iter().position(|other| *other == class.number).map(|place| place + 1),
        map_at_r: map_at_r(&class.number, &ranking, class.relevant).unwrap_or(0.0),
        r_precision: r_precision(&class.number, &ranking, class.relevant).unwrap_or(0.0),
        best_match,
        best_other,
    };
    let recall = plan.ks.iter().map(|(_, used)| recall_at_k(&class.number, &ranking, *used)).collect();
    Some(Measures { recall, outcome, tie })
}

/// Within every run of equal scores puts the items of other classes first; says whether any run held both kinds.
fn misses_first<C: PartialEq>(ranking: &mut [(f32, C)], wanted: &C) -> bool {
    let mut mixed = false;
    for run in ranking.chunk_by_mut(|a, b| a.0 == b.0) {
        let matches = run.iter().filter(|(_, class)| class == wanted).count();
        if matches > 0 && matches < run.len() {
            mixed = true;
            run.sort_by_key(|(_, class)| class == wanted);
        }
    }
    mixed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_are_counted_against_us() {
        let mut ranking = [(0.9, 1), (0.8, 1), (0.8, 2), (0.8, 1), (0.7, 2), (0.7, 2)];
        assert!(misses_first(&mut ranking, &1));
        assert_eq!(ranking.map(|(_, class)| class), [1, 2, 1, 1, 2, 2]);
        assert!(!misses_first(&mut [(0.9, 1), (0.9, 1), (0.8, 2)], &1), "all of one kind: nothing to decide");
    }
}
