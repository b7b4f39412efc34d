//! Validation: which photographs a model is measured on during training.

use std::collections::BTreeMap;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::dataset::{Dataset, Sample};

/// Fewest classes a validation on unseen classes is made of: among those of one class every photograph finds its like.
const MIN_CLASSES: usize = 5;
/// Fewest queries of a validation. One of them is then a tenth of Recall@1.
const MIN_QUERIES: usize = 10;
/// Most queries, and most photographs they are searched among, of each class where classes are few.
const MAX_OF_CLASS: usize = 50;

/// How held-out photographs are searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Whole classes are held out, and each of their photographs is searched among the others.
    Classes,
    /// Photographs of every class are held out, and searched among those that are learned from.
    Photographs,
    /// There are too few photographs to judge a model by, so that nothing is held out.
    Nothing,
}

/// A data set divided into what is learned from and what the model is judged by.
#[derive(Debug, Clone)]
pub struct Holdout {
    /// How the queries are searched.
    pub protocol: Protocol,
    /// The photographs to learn from.
    pub learn: Dataset,
    /// The photographs to judge by.
    pub queries: Dataset,
    /// The photographs they are searched among, where those are not the other queries.
    pub gallery: Option<Dataset>,
}

impl Holdout {
    /// Holds out `share` (0 to 1) of the classes, or where those are fewer than five or have fewer than ten queries, as
    /// large a share of the photographs of every class, and up to a third where that gives too few. `seed` decides which.
    pub fn new(data: &Dataset, share: f64, seed: u64) -> Self {
        let (queries, learn) = data.class_split(share, seed);
        if queries.classes().len() >= MIN_CLASSES
            && learn.classes().len() >= 2
            && queries_with_a_match(&queries, None) >= MIN_QUERIES
        {
            return Self { protocol: Protocol::Classes, learn, queries, gallery: None };
        }
        let shares = [share, 0.2, 1.0 / 3.0];
        let held = shares
            .into_iter()
            .filter(|tried| *tried >= share)
            .find_map(|share| photographs(data, share, seed));
        held.unwrap_or_else(|| Self {
            protocol: Protocol::Nothing,
            learn: data.clone(),
            queries: data.select(&[]),
            gallery: None,
        })
    }

    /// Queries that have a photograph of their class to be found.
    pub fn queries_with_a_match(&self) -> usize {
        queries_with_a_match(&self.queries, self.gallery.as_ref())
    }
}

/// Holds out a share of the photographs of every class that has three or more.
fn photographs(data: &Dataset, share: f64, seed: u64) -> Option<Holdout> {
    let mut by_class = BTreeMap::<&str, Vec<usize>>::new();
    for (at, sample) in data.samples.iter().enumerate() {
        if let Some(class) = sample.class.as_deref() {
            by_class.entry(class).or_default().push(at);
        }
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (mut queries, mut learn, mut gallery, mut classes) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for members in by_class.values_mut() {
        members.shuffle(&mut rng);
        let count = (members.len() as f64 * share).round().max(1.0) as usize;
        let count = count.min(members.len().saturating_sub(2)).min(MAX_OF_CLASS);
        let (held, rest) = members.split_at(count);
        classes += usize::from(count > 0);
        queries.extend_from_slice(held);
        learn.extend_from_slice(rest);
        gallery.extend(rest.iter().take(MAX_OF_CLASS));
    }
    if classes < 2 || queries.len() < MIN_QUERIES {
        return None;
    }
    let select = |mut rows: Vec<usize>| {
        rows.sort_unstable();
        data.select(&rows)
    };
    let (learn, queries, gallery) = (select(learn), select(queries), Some(select(gallery)));
    Some(Holdout { protocol: Protocol::Photographs, learn, queries, gallery })
}

/// Queries of which the gallery, or else the other queries, have a photograph of the same class.
fn queries_with_a_match(queries: &Dataset, gallery: Option<&Dataset>) -> usize {
    fn counts(data: &Dataset) -> BTreeMap<&str, usize> {
        let mut counts = BTreeMap::new();
        for class in data.samples.iter().filter_map(|sample| sample.class.as_deref()) {
            *counts.entry(class).or_default() += 1;
        }
        counts
    }
    // A query does not find itself.
    let (counts, own) = match gallery {
        Some(gallery) => (counts(gallery), 0),
        None => (counts(queries), 1),
    };
    let matched = |sample: &&Sample| {
        let class = sample.class.as_deref();
        class.and_then(|class| counts.get(class)).is_some_and(|count| *count > own)
    };
    queries.samples.iter().filter(matched).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(classes: usize, each: usize) -> Dataset {
        let sample = |i: usize| Sample {
            path: format!("{i}.jpg").into(),
            class: Some(format!("class {}", i % classes)),
            super_class: None,
            split: None,
        };
        Dataset::new("/photos", "test", (0..classes * each).map(sample).collect())
    }

    #[test]
    fn many_classes_are_held_out_whole() {
        let held = Holdout::new(&data(60, 4), 0.1, 3);
        assert_eq!(
            (held.protocol, held.queries.classes().len(), held.queries.len()),
            (Protocol::Classes, 6, 24)
        );
        assert_eq!((held.learn.len(), held.gallery.is_none()), (216, true));
        assert_eq!(held.queries_with_a_match(), 24);
        assert!(held.learn.classes().iter().all(|class| !held.queries.classes().contains(class)));
    }

    #[test]
    fn of_few_classes_photographs_are_held_out_and_searched_among_those_learned_from() {
        let ten = data(10, 12);
        let held = Holdout::new(&ten, 0.1, 3);
        assert_eq!((held.protocol, held.queries.len(), held.learn.len()), (Protocol::Photographs, 10, 110));
        assert_eq!((held.queries.classes().len(), held.learn.classes().len()), (10, 10));
        assert_eq!(held.gallery.as_ref(), Some(&held.learn));
        assert_eq!(held.queries_with_a_match(), 10);
        let twice = Holdout::new(&ten, 0.1, 3);
        assert_eq!((&twice.learn, &twice.queries), (&held.learn, &held.queries));
        assert_ne!(Holdout::new(&ten, 0.1, 4).queries, held.queries);
        // A tenth of these would be 6 queries; a fifth is 12.
        assert_eq!(Holdout::new(&data(3, 20), 0.1, 0).queries.len(), 12);
        // Large classes are searched among a part of them.
        let large = Holdout::new(&data(4, 1000), 0.1, 0);
        assert_eq!((large.queries.len(), large.learn.len()), (200, 3800));
        assert_eq!(large.gallery.as_ref().map(Dataset::len), Some(200));
    }

    #[test]
    fn nothing_is_held_out_where_that_would_say_nothing() {
        for few in [data(10, 2), data(1, 100), data(3, 3), data(9, 3)] {
            let held = Holdout::new(&few, 0.1, 0);
            assert_eq!(
                (held.protocol, held.learn.len(), held.queries.len()),
                (Protocol::Nothing, few.len(), 0)
            );
        }
        assert_eq!(Holdout::new(&data(10, 3), 0.1, 0).protocol, Protocol::Photographs);
    }
}
