//! Single queries with their answers, for inspection.

use std::collections::HashMap;
use std::path::PathBuf;

use semblance_index::Neighbor;
use serde::{Deserialize, Serialize};

use super::{Seen, StudyConfig};

/// Hardest queries shown of one class, so that one class does not fill the page.
const OF_ONE_CLASS: usize = 2;

/// A query and what came first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Case {
    /// The query's name.
    pub key: String,
    /// Its class.
    pub class: Option<String>,
    /// Its picture.
    pub picture: Option<PathBuf>,
    /// The first items found.
    pub hits: Vec<CaseHit>,
    /// Place of the first item of its class, from 1; `None` if it is not in the ranking.
    pub first_match: Option<usize>,
    /// That item, if it is not among [`Self::hits`].
    pub right: Option<CaseHit>,
}

/// An item found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CaseHit {
    /// Its key.
    pub key: String,
    /// Its class.
    pub class: Option<String>,
    /// Its picture.
    pub picture: Option<PathBuf>,
    /// Cosine to the query.
    pub score: f32,
    /// Whether it is of the query's class.
    pub is_match: bool,
}

/// Queries whose first match comes last; among equals those that are surest of a wrong answer.
pub(super) fn hardest(seen: &Seen<'_>, config: &StudyConfig) -> Vec<Case> {
    let mut wrong: Vec<(usize, usize, f32)> = Vec::new();
    for (query, outcome) in seen.details.scored() {
        let place = outcome.first_match.unwrap_or(usize::MAX);
        if place > 1 {
            let score = |n: Option<Neighbor>| n.map_or(-1.0, |n| n.score);
            wrong.push((query, place, score(outcome.best_other) - score(outcome.best_match)));
        }
    }
    wrong.sort_by(|a, b| b.1.cmp(&a.1).then(b.2.total_cmp(&a.2)).then(a.0.cmp(&b.0)));
    let mut shown: HashMap<Option<&str>, usize> = HashMap::new();
    let mut chosen = Vec::new();
    for (query, ..) in wrong {
        let of_class = shown.entry(seen.class(query)).or_default();
        if *of_class < OF_ONE_CLASS && chosen.len() < config.cases {
            *of_class += 1;
            chosen.push(case(seen, query, config.neighbours));
        }
    }
    chosen
}

/// Queries at equal distances, a third as many as the hardest.
pub(super) fn usual(seen: &Seen<'_>, config: &StudyConfig) -> Vec<Case> {
    let scored: Vec<usize> = seen.details.scored().map(|(query, _)| query).collect();
    let wanted = config.cases.div_ceil(3).min(scored.len());
    let chosen = (0..wanted).map(|i| scored[(2 * i + 1) * scored.len() / (2 * wanted)]);
    chosen.map(|query| case(seen, query, config.neighbours)).collect()
}

pub(super) fn case(seen: &Seen<'_>, query: usize, neighbours: usize) -> Case {
    let (item, outcome) = (&seen.subject.items[query], seen.details.outcomes[query]);
    let hits: Vec<CaseHit> =
        seen.details.nearest[query].iter().take(neighbours).filter_map(|n| hit(seen, query, n)).collect();
    let right = outcome.and_then(|outcome| hit(seen, query, &outcome.best_match?));
    Case {
        key: item.key.clone(),
        class: seen.class(query).map(str::to_owned),
        picture: item.picture.clone(),
        right: right.filter(|_| !hits.iter().any(|hit| hit.is_match)),
        hits,
        first_match: outcome.and_then(|outcome| outcome.first_match),
    }
}

pub(super) fn hit(seen: &Seen<'_>, query: usize, neighbour: &Neighbor) -> Option<CaseHit> {
    let item = seen.shelf.item(neighbour.id)?;
    Some(CaseHit {
        key: item.key.clone(),
        class: item.class.clone(),
        picture: seen.shelf.picture(item),
        score: neighbour.score,
        is_match: item.class.is_some() && item.class.as_deref() == seen.class(query),
    })
}
