//! Cosines of right and wrong neighbours, and the threshold between answering and saying "no match".

use serde::{Deserialize, Serialize};

use crate::evaluate::Details;

/// Bars of a histogram.
const BINS: usize = 40;

/// How the cosine of a query's nearest item of its own class and that of its nearest item of any other class are
/// distributed over the queries.
///
/// The second is what a photograph of a product that the gallery lacks would score: take the query's class out of the
/// gallery, and it is the best answer left. So the share of queries where it reaches a threshold is the false-accept
/// rate of that threshold (the false positive identification rate of ISO/IEC 19795-1).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScoreStudy {
    /// Where the first bar begins.
    pub low: f32,
    /// Where the last bar ends.
    pub high: f32,
    /// Share of the queries in each bar, by the nearest item of the same class.
    pub same: Vec<f64>,
    /// Share of the queries in each bar, by the nearest item of another class.
    pub other: Vec<f64>,
    /// The false-accept rate asked for.
    pub false_accepts: f64,
    /// The least cosine that keeps to it.
    pub threshold: f32,
    /// Share of the queries that it lets through although only wrong items are left.
    pub accepted_wrong: f64,
    /// Share of the queries whose nearest item of the same class reaches it.
    pub accepted_right: f64,
}

/// `None` where no query has both neighbours.
pub(super) fn scores(details: &Details, false_accepts: f64) -> Option<ScoreStudy> {
    let same: Vec<f32> = details.scored().filter_map(|(_, o)| Some(o.best_match?.score)).collect();
    let other: Vec<f32> = details.scored().filter_map(|(_, o)| Some(o.best_other?.score)).collect();
    let threshold = threshold(&other, false_accepts)?;
    let all = || same.iter().chain(&other).copied();
    let (low, high) = (all().fold(f32::MAX, f32::min), all().fold(f32::MIN, f32::max).max(threshold));
    let (low, high) = ((low * 50.0).floor() / 50.0, (high * 50.0).ceil() / 50.0);
    if same.is_empty() || high <= low {
        return None;
    }
    let shares = |scores: &[f32]| {
        let mut bars = vec![0.0; BINS];
        for score in scores {
            let bar = ((score - low) / (high - low) * BINS as f32) as usize;
            bars[bar.min(BINS - 1)] += 1.0 / scores.len() as f64;
        }
        bars
    };
    let reaches = |scores: &[f32]| {
        scores.iter().filter(|score| **score >= threshold).count() as f64 / scores.len() as f64
    };
    Some(ScoreStudy {
        low,
        high,
        same: shares(&same),
        other: shares(&other),
        false_accepts,
        threshold,
        accepted_wrong: reaches(&other),
        accepted_right: reaches(&same),
    })
}

/// The least threshold that at most the share `rate` of `wrong` reaches. `None` for no scores.
pub(super) fn threshold(wrong: &[f32], rate: f64) -> Option<f32> {
    let mut falling = wrong.to_vec();
    falling.sort_by(|a, b| b.total_cmp(a));
    let allowed = (rate * falling.len() as f64 + 1e-9).floor() as usize;
    // Just above the first score that may not pass; equal scores below stay out with it.
    match falling.get(allowed) {
        Some(score) => Some(score.next_up()),
        None => falling.last().copied(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_threshold_keeps_to_the_rate() {
        let wrong: Vec<f32> = (0..100).map(|i| i as f32 / 100.0).collect();
        for rate in [0.0, 0.01, 0.05, 0.5, 1.0] {
            let threshold = threshold(&wrong, rate).unwrap();
            let pass = |t: f32| wrong.iter().filter(|score| **score >= t).count();
            assert!(pass(threshold) as f64 <= rate * 100.0 + 1e-9, "{rate}");
            // A literal search over all candidates finds no lower one.
            let best = wrong.iter().map(|s| s.next_up()).filter(|t| pass(*t) as f64 <= rate * 100.0 + 1e-9);
            assert!(best.fold(f32::MAX, f32::min) >= threshold.min(wrong[0].next_up()), "{rate}");
        }
        assert_eq!(threshold(&[0.5, 0.5, 0.5], 0.4), Some(0.5_f32.next_up()), "ties stay out together");
        assert_eq!(threshold(&[], 0.1), None);
    }
}
