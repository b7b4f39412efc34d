use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

fn labels(counts: &[usize]) -> Vec<Option<usize>> {
    counts.iter().enumerate().flat_map(|(class, &n)| std::iter::repeat_n(Some(class), n)).collect()
}

fn sampler(config: SamplerConfig, counts: &[usize], seed: u64) -> Sampler {
    Sampler::from_labels(&config, &labels(counts), seed).unwrap()
}

#[test]
fn an_epoch_has_every_sample_once_and_no_two_are_alike() {
    let mut sampler = sampler(SamplerConfig::Shuffled { batch: 5 }, &[10, 10, 3], 1);
    assert_eq!(sampler.batches_per_epoch(), 4);
    let epochs: Vec<Vec<usize>> = (0..3).map(|_| sampler.by_ref().take(4).flatten().collect()).collect();
    for epoch in &epochs {
        assert_eq!(epoch.iter().collect::<BTreeSet<_>>().len(), 20);
        assert!(epoch.iter().all(|&i| i < 23));
    }
    assert_ne!(epochs[0], epochs[1]);
    // What one epoch leaves out, others use.
    assert_eq!(epochs.iter().flatten().collect::<BTreeSet<_>>().len(), 23);
}

#[test]
fn small_classes_repeat_evenly_and_are_counted() {
    let mut sampler = sampler(SamplerConfig::ClassBalanced { classes: 2, per_class: 5 }, &[2, 9, 5], 1);
    assert_eq!((sampler.small_classes(), sampler.batch_size()), (1, 10));
    let batch =
        sampler.by_ref().flat_map(|b| [b[..5].to_vec(), b[5..].to_vec()]).find(|group| group[0] < 2).unwrap();
    let mut times = BTreeMap::new();
    batch.iter().for_each(|i| *times.entry(*i).or_insert(0) += 1);
    assert_eq!(times.values().sum::<i32>(), 5);
    assert_eq!(times.len(), 2);
    assert!(times.values().all(|t| (2..=3).contains(t)));
}

#[test]
fn every_class_passes_by_once_an_epoch() {
    let mut sampler = sampler(SamplerConfig::ClassBalanced { classes: 4, per_class: 2 }, &[3; 12], 9);
    for _ in 0..3 {
        let seen: Vec<usize> = sampler.by_ref().take(3).flatten().map(|i| i / 3).collect();
        assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), 12);
    }
}

#[test]
fn impossible_wishes_are_refused_with_numbers() {
    let refused = |config: SamplerConfig, counts: &[usize]| {
        Sampler::from_labels(&config, &labels(counts), 0).map(|_| ()).unwrap_err()
    };
    let triplet = |batch| SamplerConfig::Triplet { batch };
    let balanced = |classes, per_class| SamplerConfig::ClassBalanced { classes, per_class };
    assert_eq!(
        refused(SamplerConfig::Shuffled { batch: 8 }, &[4, 3]),
        SamplerError::BatchTooLarge { batch: 8, samples: 7 }
    );
    assert!(matches!(refused(SamplerConfig::Shuffled { batch: 0 }, &[4]), SamplerError::Zero { .. }));
    assert!(matches!(refused(balanced(0, 2), &[4]), SamplerError::Zero { .. }));
    assert!(matches!(refused(balanced(2, 0), &[4]), SamplerError::Zero { .. }));
    assert_eq!(refused(balanced(3, 2), &[4, 4]), SamplerError::TooFewClasses { wanted: 3, classes: 2 });
    assert_eq!(refused(triplet(6), &[4]), SamplerError::TooFewClasses { wanted: 2, classes: 1 });
    assert_eq!(refused(triplet(6), &[1, 1]), SamplerError::NoPairs { classes: 2 });
    assert!(refused(triplet(8), &[4, 4]).to_string().contains("such as 6"));
    let unlabelled = Sampler::from_labels(&balanced(1, 1), &[None; 5], 0).unwrap_err();
    assert_eq!(unlabelled, SamplerError::NoClasses { samples: 5 });
    assert!(Sampler::from_labels(&SamplerConfig::Shuffled { batch: 5 }, &[None; 5], 0).is_ok());
}

/// Three super classes of 4, 3 and 1 classes, three pictures each.
fn families() -> Dataset {
    let class = |family: usize, class: usize| {
        (0..3).map(move |i| crate::dataset::Sample {
            path: format!("{family}/{class}/{i}.png").into(),
            class: Some(format!("{family}-{class}")),
            super_class: Some(family.to_string()),
            split: None,
        })
    };
    let counts = [4, 3, 1];
    let samples = (0..3).flat_map(|f| (0..counts[f]).flat_map(move |c| class(f, c)));
    Dataset::new("photos", "photos", samples.collect())
}

#[test]
fn hierarchical_batches_take_their_classes_from_few_super_classes() {
    let data = families();
    let config = SamplerConfig::Hierarchical { super_classes: 2, classes: 4, per_class: 2 };
    let mut sampler = Sampler::new(&config, &data, 3).unwrap();
    let mut resumed = sampler.clone();
    resumed.skip_batches(5);
    let batches: Vec<Vec<usize>> = sampler.by_ref().take(20).collect();
    assert_eq!(resumed.take(15).collect::<Vec<_>>(), batches[5..]);
    for batch in &batches {
        let family = |&i: &usize| data.samples[i].super_class.clone().unwrap();
        let class = |&i: &usize| data.samples[i].class.clone().unwrap();
        assert_eq!(batch.iter().collect::<BTreeSet<_>>().len(), 8);
        assert_eq!(batch.iter().map(class).collect::<BTreeSet<_>>().len(), 4);
        let families: BTreeSet<_> = batch.iter().map(family).collect();
        // The third has one class only, too few for its share of two.
        assert_eq!(families, ["0", "1"].map(String::from).into());
    }
    assert_ne!(batches[0], batches[1]);
    let refused = |super_classes, classes| {
        let config = SamplerConfig::Hierarchical { super_classes, classes, per_class: 2 };
        Sampler::new(&config, &data, 0).unwrap_err()
    };
    assert_eq!(refused(2, 5), SamplerError::UnevenShare { classes: 5, super_classes: 2 });
    assert_eq!(refused(3, 6), SamplerError::TooFewSuperClasses { wanted: 3, share: 2, found: 2 });
    assert_eq!(refused(1, 9), SamplerError::TooFewClasses { wanted: 9, classes: 8 });
    // Labels alone know no super classes.
    let blind = Sampler::from_labels(&config, &data.class_indices(), 0).unwrap_err();
    assert!(matches!(blind, SamplerError::TooFewSuperClasses { found: 0, .. }));
}

fn any_config() -> impl Strategy<Value = SamplerConfig> {
    prop_oneof![
        (1usize..12).prop_map(|batch| SamplerConfig::Shuffled { batch }),
        (1usize..5, 1usize..6)
            .prop_map(|(classes, per_class)| SamplerConfig::ClassBalanced { classes, per_class }),
        (1usize..6).prop_map(|n| SamplerConfig::Triplet { batch: 3 * n }),
    ]
}

proptest! {
    #[test]
    fn batches_keep_their_promises(config in any_config(), counts in prop::collection::vec(1usize..7, 1..9), seed: u64) {
        let labels = labels(&counts);
        let Ok(mut sampler) = Sampler::from_labels(&config, &labels, seed) else { return Ok(()) };
        for batch in sampler.by_ref().take(12) {
            prop_assert_eq!(batch.len(), config.batch_size());
            prop_assert!(batch.iter().all(|&i| i < labels.len()));
            match config {
                SamplerConfig::Shuffled { .. } => {
                    prop_assert_eq!(batch.iter().collect::<BTreeSet<_>>().len(), batch.len());
                }
                SamplerConfig::ClassBalanced { classes, per_class } => {
                    let mut seen = BTreeSet::new();
                    for group in batch.chunks(per_class) {
                        let class = labels[group[0]].unwrap();
                        prop_assert!(group.iter().all(|&i| labels[i] == Some(class)));
                        let distinct = group.iter().collect::<BTreeSet<_>>().len();
                        prop_assert_eq!(distinct, per_class.min(counts[class]));
                        seen.insert(class);
                    }
                    prop_assert_eq!(seen.len(), classes);
                }
                // Needs super classes; it has a test of its own.
                SamplerConfig::Hierarchical { .. } => prop_assert!(false),
                SamplerConfig::Triplet { .. } => {
                    for triplet in batch.chunks(3) {
                        prop_assert_eq!(labels[triplet[0]], labels[triplet[1]]);
                        prop_assert_ne!(triplet[0], triplet[1]);
                        prop_assert_ne!(labels[triplet[0]], labels[triplet[2]]);
                    }
                }
            }
        }
    }

    #[test]
    fn skipping_is_exact(config in any_config(), counts in prop::collection::vec(2usize..7, 3..9), seed: u64, skip in 0u64..40) {
        let labels = labels(&counts);
        let Ok(straight) = Sampler::from_labels(&config, &labels, seed) else { return Ok(()) };
        let mut resumed = straight.clone();
        resumed.skip_batches(skip / 2);
        resumed.next();
        resumed.skip_batches(skip - skip / 2);
        let expected: Vec<_> = straight.skip(skip as usize + 1).take(5).collect();
        prop_assert_eq!(resumed.position(), skip + 1);
        prop_assert_eq!(resumed.take(5).collect::<Vec<_>>(), expected);
    }
}
