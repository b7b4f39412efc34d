//! Scoring the best of a walk over codes by their vectors.

use crate::config::Codes;
use crate::error::Result;
use crate::kernel::{prefetch_floats, score_f32};
use crate::snapshot::Snapshot;
use crate::walk::Scored;

/// Scores by vectors from which the error of those by codes is judged, at least.
const JUDGED_BY: usize = 8;
/// How far beyond their mean the errors of scores by codes are taken to go, in standard deviations.
const DEVIATIONS: f32 = 4.0;

/// How many of the best by their codes may be scored, for `k` of them to be the right ones.
pub(crate) fn candidates(snapshot: &Snapshot, k: usize) -> usize {
    match snapshot.manifest.config.codes.resolve(snapshot.dim()) {
        Codes::F32 => k,
        _ => k.saturating_add(k / 2).saturating_add(8),
    }
}

/// Replaces the scores of nodes, best first by their codes, with those by their vectors, as far as it is open whether
/// they are among the `k` best; the others are dropped. Returns how many were scored.
pub(crate) fn best(snapshot: &Snapshot, query: &[f32], nodes: &mut Vec<Scored>, k: usize) -> Result<usize> {
    let coded: Vec<f32> = nodes.iter().map(|s| s.score).collect();
    let sure = k.max(JUDGED_BY).min(nodes.len());
    all(snapshot, query, &mut nodes[..sure])?;
    let exact: Vec<f32> = nodes[..sure].iter().map(|s| s.score).collect();
    nodes.truncate(sure + open(exact, &coded, k));
    all(snapshot, query, &mut nodes[sure..])?;
    Ok(nodes.len())
}

/// How many of those behind the first may be among the `k` best, given the exact scores of the first and those by the
/// codes of all, falling: how far the latter are off is seen from the first.
fn open(mut exact: Vec<f32>, coded: &[f32], k: usize) -> usize {
    let known = exact.len();
    if known == coded.len() {
        return 0;
    }
    let off = || exact.iter().zip(coded).map(|(exact, coded)| exact - coded);
    let mean = off().sum::<f32>() / known as f32;
    let deviation = (off().map(|x| (x - mean).powi(2)).sum::<f32>() / (known - 1) as f32).sqrt();
    let reach = mean + DEVIATIONS * deviation;
    let kth = *exact.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a)).1;
    coded[known..].iter().take_while(|&coded| coded + reach >= kth).count()
}

/// Replaces scores by codes with scores by vectors; returns how many.
pub(crate) fn all(snapshot: &Snapshot, query: &[f32], nodes: &mut [Scored]) -> Result<usize> {
    for scored in nodes.iter() {
        prefetch_floats(snapshot.vector(scored.node)?);
    }
    let names: Vec<u32> = nodes.iter().map(|s| s.node).collect();
    let mut scores = vec![0.0; names.len()];
    score_f32(query, snapshot.unchecked_exact()?.rows, &names, &mut scores);
    nodes.iter_mut().zip(scores).for_each(|(s, score)| s.score = score);
    Ok(names.len())
}

#[cfg(test)]
mod tests {
    use super::open;

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
        assert_eq!(open(exact.clone(), &coded, 8), 0);
        assert_eq!(open(exact.clone(), &[&coded[..8], &[0.71, 0.708, 0.706]].concat(), 8), 2);
        assert_eq!(open(exact.clone(), &[&coded[..8], &[0.75, 0.747, 0.746]].concat(), 7), 1);
        assert_eq!(open(exact, &coded[..8], 8), 0);
    }

    #[test]
    fn exact_codes_leave_only_ties_open() {
        let coded = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.2, 0.2, 0.1];
        assert_eq!(open(coded[..8].to_vec(), &coded, 8), 2);
        assert_eq!(open(coded[..8].to_vec(), &coded, 7), 0);
    }
}
