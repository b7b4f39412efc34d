//! Which photographs make a batch.
//!
//! A [`Sampler`] yields batches of positions in a data set forever. Batch number `t` is a pure function of the seed, the
//! settings and `t`, so training resumes exactly with [`Sampler::skip_batches`], at no cost however far it had come.

use rand::Rng;
use rand::seq::SliceRandom;
use rand::seq::index::sample;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde::{Deserialize, Serialize};

use crate::dataset::Dataset;

/// How batches are drawn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "sampler", rename_all = "snake_case")]
pub enum SamplerConfig {
    /// All samples in a new random order every epoch, cut into batches. What is left over at the end of an epoch is less
    /// than a batch and is not used in that epoch: a small last batch would disturb batch statistics, and a new order
    /// leaves other samples out next time.
    Shuffled {
        /// Samples in a batch.
        batch: usize,
    },
    /// P × K: `classes` different classes, `per_class` samples of each, side by side. The classes pass by in a new random
    /// order every epoch (leftover classes as for `Shuffled`). A class with fewer than `per_class` samples gives each of
    /// them equally often, up to one; see [`Sampler::small_classes`].
    ClassBalanced {
        /// Different classes in a batch (P).
        classes: usize,
        /// Samples of each class (K).
        per_class: usize,
    },
    /// Anchor, positive, negative, anchor, positive, negative, …: for each triplet two different classes, drawn again, two
    /// different samples of the first, which therefore has at least two, and one of the second.
    Triplet {
        /// Samples in a batch: three times the number of triplets.
        batch: usize,
    },
    /// P × K within categories, so that the negatives are hard: for each batch `super_classes` different super classes,
    /// drawn again, an equal share of `classes` different classes of each, and `per_class` samples of each class as
    /// for `ClassBalanced`. Super classes with fewer classes than their share are left out.
    Hierarchical {
        /// Different super classes in a batch.
        super_classes: usize,
        /// Different classes in a batch (P), a multiple of `super_classes`.
        classes: usize,
        /// Samples of each class (K).
        per_class: usize,
    },
}

impl SamplerConfig {
    /// Samples in a batch.
    pub fn batch_size(&self) -> usize {
        match *self {
            Self::Shuffled { batch } | Self::Triplet { batch } => batch,
            Self::ClassBalanced { classes, per_class } | Self::Hierarchical { classes, per_class, .. } => {
                classes.saturating_mul(per_class)
            }
        }
    }
}

/// Why a data set cannot be sampled as wished.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SamplerError {
    /// A size of zero.
    #[error("{name} is 0, but must be at least 1")]
    Zero {
        /// The setting.
        name: &'static str,
    },
    /// Fewer samples than one batch takes.
    #[error("a batch of {batch} cannot be drawn from {samples} photographs: choose a smaller batch")]
    BatchTooLarge {
        /// Samples in a batch.
        batch: usize,
        /// Samples there are.
        samples: usize,
    },
    /// Samples without classes.
    #[error("none of the {samples} photographs has a class, which this sampler draws by")]
    NoClasses {
        /// Samples there are.
        samples: usize,
    },
    /// Fewer classes than one batch takes.
    #[error("{wanted} classes per batch, but the data set has {classes}: choose fewer, or more data")]
    TooFewClasses {
        /// Classes in a batch.
        wanted: usize,
        /// Classes there are.
        classes: usize,
    },
    /// Only classes with one photograph, so there are no positives.
    #[error("none of the {classes} classes has two photographs, so there is no pair of anchor and positive")]
    NoPairs {
        /// Classes there are.
        classes: usize,
    },
    /// Fewer super classes with enough classes than one batch takes.
    #[error(
        "{wanted} super classes with at least {share} classes each, but the data set has {found}: choose fewer, or fewer \
         classes per batch"
    )]
    TooFewSuperClasses {
        /// Super classes in a batch.
        wanted: usize,
        /// Classes of each.
        share: usize,
        /// Super classes with as many classes.
        found: usize,
    },
    /// Classes that super classes cannot share evenly.
    #[error(
        "{classes} classes per batch cannot be shared by {super_classes} super classes: choose a multiple"
    )]
    UnevenShare {
        /// Different classes in a batch.
        classes: usize,
        /// Different super classes in a batch.
        super_classes: usize,
    },
    /// A triplet batch that is not made of triplets.
    #[error("a batch of {batch} is not a number of triplets: choose a multiple of 3, such as {}", (batch / 3).max(1) * 3)]
    NotTriplets {
        /// Samples in a batch.
        batch: usize,
    },
}

/// An endless stream of batches of sample positions.
#[derive(Clone, Debug)]
pub struct Sampler {
    config: SamplerConfig,
    seed: u64,
    next: u64,
    samples: usize,
    /// Positions of the samples of each class.
    classes: Vec<Vec<usize>>,
    /// The classes with at least two samples.
    paired: Vec<usize>,
    /// The classes of each super class that has enough of them.
    families: Vec<Vec<usize>>,
    /// The order of an epoch, computed when its first batch is asked for.
    order: Option<(u64, Vec<usize>)>,
}

impl Sampler {
    /// A sampler over a data set. Samples without a class take part in [`SamplerConfig::Shuffled`] only.
    ///
    /// # Errors
    /// [`SamplerError`] if not even one batch can be drawn.
    pub fn new(config: &SamplerConfig, dataset: &Dataset, seed: u64) -> Result<Self, SamplerError> {
        let SamplerConfig::Hierarchical { super_classes, classes, .. } = config else {
            return Self::from_labels(config, &dataset.class_indices(), seed);
        };
        let mut sampler = Self::unchecked(config, &dataset.class_indices(), seed);
        let mut families = std::collections::BTreeMap::<&str, Vec<usize>>::new();
        for (number, members) in sampler.classes.iter().enumerate() {
            let first = members.first().and_then(|&m| dataset.samples[m].super_class.as_deref());
            families.entry(first.unwrap_or_default()).or_default().push(number);
        }
        let share = classes / super_classes.max(&1);
        sampler.families = families.into_values().filter(|f| f.len() >= share).collect();
        sampler.check()?;
        Ok(sampler)
    }

    /// As [`Sampler::new`], from the class number of each sample.
    ///
    /// # Errors
    /// [`SamplerError`] if not even one batch can be drawn.
    pub fn from_labels(
        config: &SamplerConfig,
        labels: &[Option<usize>],
        seed: u64,
    ) -> Result<Self, SamplerError> {
        let sampler = Self::unchecked(config, labels, seed);
        sampler.check()?;
        Ok(sampler)
    }

    fn unchecked(config: &SamplerConfig, labels: &[Option<usize>], seed: u64) -> Self {
        let mut by_class = std::collections::BTreeMap::<usize, Vec<usize>>::new();
        for (position, label) in labels.iter().enumerate() {
            if let Some(label) = label {
                by_class.entry(*label).or_default().push(position);
            }
        }
        let classes: Vec<Vec<usize>> = by_class.into_values().collect();
        let paired = (0..classes.len()).filter(|&c| classes[c].len() >= 2).collect();
        Self {
            config: config.clone(),
            seed,
            next: 0,
            samples: labels.len(),
            classes,
            paired,
            families: Vec::new(),
            order: None,
        }
    }

    fn check(&self) -> Result<(), SamplerError> {
        let (samples, classes) = (self.samples, self.classes.len());
        let enough_classes = |wanted: usize| match classes {
            0 => Err(SamplerError::NoClasses { samples }),
            _ if classes < wanted => Err(SamplerError::TooFewClasses { wanted, classes }),
            _ => Ok(()),
        };
        match self.config {
            SamplerConfig::Shuffled { batch: 0 } | SamplerConfig::Triplet { batch: 0 } => {
                Err(SamplerError::Zero { name: "the batch size" })
            }
            SamplerConfig::ClassBalanced { classes: 0, .. }
            | SamplerConfig::Hierarchical { classes: 0, .. } => {
                Err(SamplerError::Zero { name: "classes per batch" })
            }
            SamplerConfig::ClassBalanced { per_class: 0, .. }
            | SamplerConfig::Hierarchical { per_class: 0, .. } => {
                Err(SamplerError::Zero { name: "photographs per class" })
            }
            SamplerConfig::Hierarchical { super_classes: 0, .. } => {
                Err(SamplerError::Zero { name: "super classes per batch" })
            }
            SamplerConfig::Hierarchical { super_classes, classes: wanted, .. } => {
                enough_classes(wanted)?;
                if wanted % super_classes != 0 {
                    return Err(SamplerError::UnevenShare { classes: wanted, super_classes });
                }
                let (share, found) = (wanted / super_classes, self.families.len());
                match found < super_classes {
                    true => Err(SamplerError::TooFewSuperClasses { wanted: super_classes, share, found }),
                    false => Ok(()),
                }
            }
            SamplerConfig::Shuffled { batch } if batch > samples => {
                Err(SamplerError::BatchTooLarge { batch, samples })
            }
            SamplerConfig::Shuffled { .. } => Ok(()),
            SamplerConfig::ClassBalanced { classes, .. } => enough_classes(classes),
            SamplerConfig::Triplet { batch } if batch % 3 != 0 => Err(SamplerError::NotTriplets { batch }),
            SamplerConfig::Triplet { .. } => {
                enough_classes(2)?;
                if self.paired.is_empty() { Err(SamplerError::NoPairs { classes }) } else { Ok(()) }
            }
        }
    }

    /// Batches in an epoch: a pass over the samples, or over the classes for P × K. Triplets have no epochs; there it is
    /// the number of batches that hold as many samples as the data set.
    pub fn batches_per_epoch(&self) -> u64 {
        let batches = match self.config {
            SamplerConfig::Shuffled { batch } | SamplerConfig::Triplet { batch } => self.samples / batch,
            SamplerConfig::ClassBalanced { classes, .. } | SamplerConfig::Hierarchical { classes, .. } => {
                self.classes.len() / classes
            }
        };
        batches.max(1) as u64
    }

    /// Samples in every batch.
    pub fn batch_size(&self) -> usize {
        self.config.batch_size()
    }

    /// The number of classes with fewer than K samples, whose samples therefore repeat within a batch; 0 for the other
    /// samplers.
    pub fn small_classes(&self) -> usize {
        match self.config {
            SamplerConfig::ClassBalanced { per_class, .. }
            | SamplerConfig::Hierarchical { per_class, .. } => {
                self.classes.iter().filter(|c| c.len() < per_class).count()
            }
            _ => 0,
        }
    }

    /// The number of the batch that comes next, from 0.
    pub fn position(&self) -> u64 {
        self.next
    }

    /// Leaves out the next `count` batches, exactly as if they had been drawn.
    pub fn skip_batches(&mut self, count: u64) {
        self.next = self.next.wrapping_add(count);
    }

    fn rng(&self, purpose: u64, number: u64) -> ChaCha8Rng {
        seeded([self.seed, purpose, number, 0])
    }

    /// The slice of this epoch's random order that batch `number` takes.
    fn turn(&mut self, number: u64, of: usize, take: usize) -> Vec<usize> {
        let per_epoch = self.batches_per_epoch();
        let (epoch, within) = (number / per_epoch, (number % per_epoch) as usize);
        if self.order.as_ref().is_none_or(|(e, _)| *e != epoch) {
            let mut order: Vec<usize> = (0..of).collect();
            order.shuffle(&mut self.rng(0, epoch));
            self.order = Some((epoch, order));
        }
        let order = self.order.as_ref().map_or(&[][..], |(_, order)| order);
        order[within * take..(within + 1) * take].to_vec()
    }

    /// `per_class` samples of each of these classes, a class's side by side.
    fn of_each(&self, classes: &[usize], per_class: usize, rng: &mut ChaCha8Rng) -> Vec<usize> {
        let mut batch = Vec::with_capacity(classes.len() * per_class);
        for &class in classes {
            let mut members = self.classes[class].clone();
            members.shuffle(rng);
            batch.extend(members.iter().cycle().take(per_class));
        }
        batch
    }

    fn triplet(&self, rng: &mut ChaCha8Rng) -> [usize; 3] {
        let first = self.paired[rng.random_range(0..self.paired.len())];
        let mut second = rng.random_range(0..self.classes.len() - 1);
        second += usize::from(second >= first);
        let (positives, negatives) = (&self.classes[first], &self.classes[second]);
        let anchor = rng.random_range(0..positives.len());
        let mut positive = rng.random_range(0..positives.len() - 1);
        positive += usize::from(positive >= anchor);
        [positives[anchor], positives[positive], negatives[rng.random_range(0..negatives.len())]]
    }
}

impl Iterator for Sampler {
    type Item = Vec<usize>;

    /// Never `None`.
    fn next(&mut self) -> Option<Vec<usize>> {
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        Some(match self.config {
            SamplerConfig::Shuffled { batch } => self.turn(number, self.samples, batch),
            SamplerConfig::ClassBalanced { classes, per_class } => {
                let chosen = self.turn(number, self.classes.len(), classes);
                self.of_each(&chosen, per_class, &mut self.rng(1, number))
            }
            SamplerConfig::Hierarchical { super_classes, classes, per_class } => {
                let mut rng = self.rng(1, number);
                let mut chosen = Vec::with_capacity(classes);
                for family in sample(&mut rng, self.families.len(), super_classes) {
                    let family = &self.families[family];
                    let drawn = sample(&mut rng, family.len(), classes / super_classes);
                    chosen.extend(drawn.into_iter().map(|c| family[c]));
                }
                self.of_each(&chosen, per_class, &mut rng)
            }
            SamplerConfig::Triplet { batch } => {
                let mut rng = self.rng(1, number);
                (0..batch / 3).flat_map(|_| self.triplet(&mut rng)).collect()
            }
        })
    }
}

/// A generator that four numbers determine.
pub(crate) fn seeded(words: [u64; 4]) -> ChaCha8Rng {
    let mut seed = [0; 32];
    for (bytes, word) in seed.chunks_exact_mut(8).zip(words) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    ChaCha8Rng::from_seed(seed)
}

#[cfg(test)]
#[path = "sampler_tests.rs"]
mod tests;
