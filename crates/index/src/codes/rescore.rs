//! Rescoring the best candidates of a search over codes by their vectors.

use crate::codes::coded_query::Query;
use crate::codes::kernel::{prefetch_floats, score_f32};
use crate::error::Result;
use crate::hnsw::search::Scored;
use crate::segment::segment_reader::SegmentReader;

/// Scores by vectors from which the error of those by codes is judged, at least.
const JUDGED_BY: usize = 8;
/// How far beyond their mean the errors of scores by codes are taken to go, in standard deviations.
const DEVIATIONS: f32 = 4.0;
/// Nodes scored before it is asked again which are still open.
const BLOCK: usize = 8;

/// What scoring the best of a walk by their vectors gave.
pub(crate) struct Rescored {
    /// Nodes scored.
    pub(crate) scored: usize,
    /// Whether nodes that the walk left out may be among the best: all it kept were open, and many are too near to the
    /// last of the best for codes to tell them apart.
    pub(crate) undecided: bool,
}

/// Replaces the scores of nodes, best first by their codes, with those by their vectors, as far as it is open whether
/// they are among the `k` best; the others are dropped.
pub(crate) fn best(
    segment: &SegmentReader,
    query: &[f32],
    codes: &Query<'_>,
    nodes: &mut Vec<Scored>,
    k: usize,
) -> Result<Rescored> {
    let coded: Vec<f32> = nodes.iter().map(|s| s.score).collect();
    let deviation = codes.deviation(nodes);
    let mut done = k.max(JUDGED_BY).min(nodes.len());
    all(segment, query, &mut nodes[..done])?;
    let mut exact: Vec<f32> = nodes[..done].iter().map(|s| s.score).collect();
    let errors = Errors::of(&exact, &coded, deviation);
    loop {
        let open = open(&mut exact.clone(), &coded, k, &errors).min(BLOCK);
        if open == 0 {
            break;
        }
        all(segment, query, &mut nodes[done..done + open])?;
        exact.extend(nodes[done..done + open].iter().map(|s| s.score));
        done += open;
    }
    let undecided = done == coded.len() && done >= k && {
        let kth = kth(&mut exact, k) - errors.mean;
        let near = coded.iter().filter(|&&coded| (coded - kth).abs() < deviation).count();
        near > k / 2 + 2
    };
    nodes.truncate(done);
    Ok(Rescored { scored: done, undecided })
}

/// How far scores by codes are below those by vectors.
struct Errors {
    mean: f32,
    deviation: f32,
}

impl Errors {
    /// As seen from the first scores, and no less than the codes' rounding makes likely.
    fn of(exact: &[f32], coded: &[f32], least: f32) -> Self {
        let known = exact.len() as f32;
        let off = || exact.iter().zip(coded).map(|(exact, coded)| exact - coded);
        let mean = off().sum::<f32>() / known.max(1.0);
        let deviation = (off().map(|x| (x - mean).powi(2)).sum::<f32>() / (known - 1.0).max(1.0)).sqrt();
        Self { mean, deviation: deviation.max(least) }
    }
}

fn kth(exact: &mut [f32], k: usize) -> f32 {
    *exact.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a)).1
}

/// How many of those behind the first may be among the `k` best, given the exact scores of the first and those by the
/// codes of all, falling.
fn open(exact: &mut [f32], coded: &[f32], k: usize, errors: &Errors) -> usize {
    let known = exact.len();
    if known == coded.len() || known < k {
        return coded.len() - known;
    }
    let (reach, kth) = (errors.mean + DEVIATIONS * errors.deviation, kth(exact, k));
    coded[known..].iter().take_while(|&coded| coded + reach >= kth).count()
}

/// Replaces scores by codes with scores by vectors; returns how many.
pub(crate) fn all(segment: &SegmentReader, query: &[f32], nodes: &mut [Scored]) -> Result<usize> {
    for scored in nodes.iter() {
        prefetch_floats(segment.vector(scored.node)?);
    }
    let names: Vec<u32> = nodes.iter().map(|s| s.node).collect();
    let mut scores = vec![0.0; names.len()];
    score_f32(query, segment.unchecked_exact()?.rows, &names, &mut scores);
    nodes.iter_mut().zip(scores).for_each(|(s, score)| s.score = score);
    Ok(names.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open_of(exact: &[f32], coded: &[f32], k: usize, least: f32) -> usize {
        open(&mut exact.to_vec(), coded, k, &Errors::of(exact, coded, least))
    }

    #[test]
    fn those_are_open_that_the_errors_seen_so_far_could_lift_among_the_best() {
        // Errors of ±0.01 around 0.1: their deviation is 0.0107, so 0.143 can be added.
        let coded = [0.90, 0.88, 0.86, 0.84, 0.82, 0.80, 0.78, 0.76, 0.70, 0.669, 0.666, 0.60];
        let exact: Vec<f32> = coded[..8]
            .iter()
            .enumerate()
            .map(|(i, c)| c + 0.1 + if i % 2 == 0 { 0.01 } else { -0.01 })
            .collect();
        // The eighth best is 0.85, the seventh 0.89, the fourth 0.93.
        assert_eq!(open_of(&exact, &coded, 8, 0.0), 0);
        assert_eq!(open_of(&exact, &[&coded[..8], &[0.71, 0.708, 0.706]].concat(), 8, 0.0), 2);
        assert_eq!(open_of(&exact, &[&coded[..8], &[0.75, 0.747, 0.746]].concat(), 7, 0.0), 1);
        assert_eq!(open_of(&exact, &coded[..8], 8, 0.0), 0);
    }

    #[test]
    fn exact_codes_leave_only_ties_open() {
        let coded = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.2, 0.2, 0.1];
        assert_eq!(open_of(&coded[..8], &coded, 8, 0.0), 2);
        assert_eq!(open_of(&coded[..8], &coded, 7, 0.0), 0);
    }

    #[test]
    fn errors_are_taken_to_be_no_less_than_rounding_makes_them() {
        // The first eight have the same codes and the same scores: nothing is seen of the errors there can be.
        let (coded, exact) = ([0.999; 40], [0.9995; 8]);
        assert_eq!(open_of(&exact, &[&coded[..8], &[0.998; 3], &[0.99]].concat(), 8, 0.0), 0);
        assert_eq!(open_of(&exact, &[&coded[..8], &[0.998; 3], &[0.99]].concat(), 8, 5e-4), 3);
        assert_eq!(open_of(&exact, &coded, 8, 5e-4), 32);
    }
}
