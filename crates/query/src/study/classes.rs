//! Averages of each class and super class.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::Seen;
use crate::statistics::{Interval, wilson};

/// The averages over one class's (or super class's) scored queries, by exact search.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassRow {
    /// Its name.
    pub name: String,
    /// Scored queries.
    pub queries: usize,
    /// Items of the gallery.
    pub gallery_items: usize,
    /// Recall@1.
    pub recall_at_1: f64,
    /// Wilson's interval of it.
    pub interval: Interval,
    /// Recall@10.
    pub recall_at_10: f64,
    /// MAP@R.
    pub map_at_r: f64,
    /// R-Precision.
    pub r_precision: f64,
    /// The class that comes first most often instead, and how often.
    pub taken_for: Option<(String, usize)>,
}

pub(super) fn by_class(seen: &Seen<'_>) -> Vec<ClassRow> {
    let sizes = seen.shelf.class_sizes();
    rows(seen, |query| seen.class(query), |item| item.class.as_deref(), &sizes)
}

pub(super) fn by_super_class(seen: &Seen<'_>) -> Vec<ClassRow> {
    let mut sizes: HashMap<&str, usize> = HashMap::new();
    for item in seen.shelf.items() {
        if let Some(name) = item.super_class.as_deref() {
            *sizes.entry(name).or_default() += 1;
        }
    }
    let group = |query: usize| seen.subject.items[query].super_class.as_deref();
    rows(seen, group, |item| item.super_class.as_deref(), &sizes)
}

fn rows<'a>(
    seen: &'a Seen<'_>,
    group: impl Fn(usize) -> Option<&'a str>,
    group_of_item: impl Fn(&'a semblance_index::Item) -> Option<&'a str>,
    sizes: &HashMap<&str, usize>,
) -> Vec<ClassRow> {
    let mut members: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (query, _) in seen.details.scored() {
        if let Some(name) = group(query) {
            members.entry(name).or_default().push(query);
        }
    }
    let row = |(name, queries): (&str, Vec<usize>)| {
        let outcomes: Vec<_> = queries.iter().filter_map(|query| seen.details.outcomes[*query]).collect();
        let count = outcomes.len();
        let found = |k: usize| outcomes.iter().filter(|outcome| outcome.recall_at_k(k)).count();
        let mean = |value: fn(&crate::evaluate::Outcome) -> f64| {
            outcomes.iter().map(value).sum::<f64>() / count as f64
        };
        let mut instead: BTreeMap<&str, usize> = BTreeMap::new();
        for query in &queries {
            let first = seen.details.nearest[*query].first().and_then(|n| seen.shelf.item(n.id));
            match first.and_then(&group_of_item) {
                Some(other) if other != name => *instead.entry(other).or_default() += 1,
                _ => {}
            }
        }
        // The first by name among equals.
        let taken_for = instead.iter().rev().max_by_key(|(_, count)| **count);
        Some(ClassRow {
            name: name.to_owned(),
            queries: count,
            gallery_items: sizes.get(name).copied().unwrap_or(0),
            recall_at_1: found(1) as f64 / count as f64,
            interval: wilson(found(1), count)?,
            recall_at_10: found(10) as f64 / count as f64,
            map_at_r: mean(|outcome| outcome.map_at_r),
            r_precision: mean(|outcome| outcome.r_precision),
            taken_for: taken_for.map(|(name, count)| ((*name).to_owned(), *count)),
        })
    };
    let mut rows: Vec<ClassRow> = members.into_iter().filter_map(row).collect();
    rows.sort_by(|a, b| {
        let worse = |a: f64, b: f64| a.total_cmp(&b);
        worse(a.recall_at_1, b.recall_at_1).then(worse(a.map_at_r, b.map_at_r)).then(a.name.cmp(&b.name))
    });
    rows
}
