//! Pictures that occur twice, and labels that look wrong.

use serde::{Deserialize, Serialize};

use super::cases::hit;
use super::{CaseHit, QueryItem, Seen, StudyConfig};

/// Pairs told at most.
const SHOWN: usize = 12;

/// Pairs of a query and its nearest item that are almost or quite the same picture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NearDuplicates {
    /// Cosine from which a pair counts.
    pub from: f32,
    /// Queries with such a neighbour.
    pub queries: usize,
    /// Of those, queries whose neighbour has another class: the same picture under two labels.
    pub other_class: usize,
    /// The closest pairs, those of two classes first.
    pub pairs: Vec<NearDuplicate>,
}

/// A query and an item that is almost the same picture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NearDuplicate {
    /// The query, with its own class and a score of 1.
    pub query: CaseHit,
    /// The item.
    pub item: CaseHit,
}

/// A query whose nearest items all carry one label that is not its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Suspect {
    /// The query, with its own class and a score of 1.
    pub query: CaseHit,
    /// The label of all its nearest items.
    pub neighbours_say: String,
    /// Those items.
    pub neighbours: Vec<CaseHit>,
}

fn as_hit(seen: &Seen<'_>, query: usize) -> CaseHit {
    let QueryItem { key, picture, .. } = seen.subject.items[query].clone();
    CaseHit { key, class: seen.class(query).map(str::to_owned), picture, score: 1.0, is_match: true }
}

pub(super) fn near_duplicates(seen: &Seen<'_>, config: &StudyConfig) -> NearDuplicates {
    let mut found: Vec<(usize, semblance_index::Neighbor, bool)> = Vec::new();
    for (query, list) in seen.details.nearest.iter().enumerate() {
        if let Some(first) = list.first().filter(|n| n.score >= config.near_duplicate) {
            let other = seen.class(query).is_some() && seen.class_of(first) != seen.class(query);
            found.push((query, *first, other));
        }
    }
    let other_class = found.iter().filter(|(.., other)| *other).count();
    let queries = found.len();
    found.sort_by(|a, b| b.2.cmp(&a.2).then(b.1.score.total_cmp(&a.1.score)).then(a.0.cmp(&b.0)));
    // Two items that find each other are one pair.
    let mut pairs: Vec<NearDuplicate> = Vec::new();
    for (query, neighbour, _) in found {
        let (query_hit, Some(item)) = (as_hit(seen, query), hit(seen, query, &neighbour)) else { continue };
        let again = pairs.iter().any(|pair| pair.query.key == item.key && pair.item.key == query_hit.key);
        if !again && pairs.len() < SHOWN {
            pairs.push(NearDuplicate { query: query_hit, item });
        }
    }
    NearDuplicates { from: config.near_duplicate, queries, other_class, pairs }
}

/// The surest first, by the average cosine of the neighbours.
pub(super) fn suspects(seen: &Seen<'_>, config: &StudyConfig) -> Vec<Suspect> {
    let wanted = config.suspect_neighbours.max(1);
    let mut found: Vec<(f32, Suspect)> = Vec::new();
    for (query, list) in seen.details.nearest.iter().enumerate() {
        let Some(own) = seen.class(query) else { continue };
        let Some(list) = list.get(..wanted) else { continue };
        let Some(label) = seen.class_of(&list[0]).filter(|label| *label != own) else { continue };
        if list.iter().all(|neighbour| seen.class_of(neighbour) == Some(label)) {
            let suspect = Suspect {
                query: as_hit(seen, query),
                neighbours_say: label.to_owned(),
                neighbours: list.iter().filter_map(|n| hit(seen, query, n)).collect(),
            };
            found.push((list.iter().map(|n| n.score).sum(), suspect));
        }
    }
    found.sort_by(|a, b| b.0.total_cmp(&a.0));
    found.into_iter().map(|(_, suspect)| suspect).collect()
}
