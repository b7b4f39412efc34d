//! Tests of which model a run keeps as its best.

use super::tests::{arcmargin, pictures, settings, tiny};
use super::*;

/// The step of the model that is kept of those with these scores, before the first step and after each fourth.
fn kept_of(scores: &[(f64, f64)], patience: usize) -> (usize, bool) {
    let (dir, data) = pictures();
    let config = TrainConfig { patience, ..settings(arcmargin(), 4 * (scores.len() - 1)) };
    let (mut embedder, stop) = (tiny(), AtomicBool::new(false));
    let job = TrainJob { data: &data, run: &dir.path().join("run"), resume: false, stop: &stop };
    let mut left = scores.iter();
    let mut validate = |_: &Embedder| {
        let (recall_at_1, map_at_r) = *left.next().expect("a score for each validation");
        Ok(Score { recall_at_1, map_at_r })
    };
    let summary = train(&mut embedder, &config, &job, Some(&mut validate), &mut |_| {}).unwrap();
    (summary.best.unwrap().0, summary.early)
}

#[test]
fn a_recall_that_is_full_from_the_start_chooses_no_untrained_model() {
    assert_eq!(kept_of(&[(1.0, 1.0), (1.0, 1.0), (1.0, 1.0)], 0).0, 8, "of equals the last");
    assert_eq!(kept_of(&[(1.0, 0.5), (1.0, 0.9), (1.0, 0.7)], 0).0, 4, "MAP@R tells them apart");
    assert_eq!(kept_of(&[(0.5, 0.9), (0.6, 0.1), (0.6, 0.1)], 0).0, 8, "Recall@1 comes first");
    assert_eq!(kept_of(&[(0.9, 0.9), (0.6, 0.9), (0.6, 0.9)], 0).0, 0, "unless training made it worse");
    // Equals are not better: patience ends.
    assert!(kept_of(&[(1.0, 1.0), (1.0, 1.0), (1.0, 1.0), (1.0, 1.0)], 2).1);
}
