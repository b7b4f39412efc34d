//! The bootstrap over queries: draw as many queries again, with replacement, and see how the averages move (Efron 1979,
//! "Bootstrap Methods: Another Look at the Jackknife").

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::Interval;

/// How often and with which random numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootstrapConfig {
    /// Times the queries are drawn again.
    pub resamples: usize,
    /// Seed of the draws.
    pub seed: u64,
}

impl Default for BootstrapConfig {
    fn default() -> Self {
        Self { resamples: 2000, seed: 0 }
    }
}

/// The 95 % percentile interval of each column's average. A column holds one value a query, the same queries in each.
/// Empty columns have none.
pub fn intervals(columns: &[Vec<f64>], config: &BootstrapConfig) -> Vec<Option<Interval>> {
    resampled(columns, config).iter().map(|means| percentile_interval(means)).collect()
}

/// Whether an average difference is more than chance.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// The average over the queries.
    pub mean: f64,
    /// Its 95 % percentile interval.
    pub interval: Interval,
    /// How probable a difference at least this far from 0 is by the choice of queries alone, two-sided.
    pub p_value: f64,
}

impl Difference {
    /// Whether 0 lies outside the interval.
    pub fn is_significant(&self) -> bool {
        self.interval.low > 0.0 || self.interval.high < 0.0
    }
}

/// The paired bootstrap: each column holds the differences of a measure between two systems, one per query. Drawing whole
/// queries keeps what makes both systems fail together. `None` for an empty column.
pub fn differences(columns: &[Vec<f64>], config: &BootstrapConfig) -> Vec<Option<Difference>> {
    let tested = |(column, means): (&Vec<f64>, &Vec<f64>)| {
        let interval = percentile_interval(means)?;
        let share = |beyond: &dyn Fn(&f64) -> bool| {
            // The sample itself counts as one draw, so that p is never 0.
            (1 + means.iter().filter(|mean| beyond(mean)).count()) as f64 / (1 + means.len()) as f64
        };
        let p_value = (2.0 * share(&|mean| *mean <= 0.0).min(share(&|mean| *mean >= 0.0))).min(1.0);
        Some(Difference { mean: mean(column), interval, p_value })
    };
    columns.iter().zip(&resampled(columns, config)).map(tested).collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The sorted averages of each column over the draws; one draw serves all columns. Each draw has a random stream of its
/// own, so that the number of threads changes nothing.
fn resampled(columns: &[Vec<f64>], config: &BootstrapConfig) -> Vec<Vec<f64>> {
    let queries = columns.first().map_or(0, Vec::len);
    assert!(columns.iter().all(|column| column.len() == queries), "one value a query in each column");
    if queries == 0 {
        return vec![Vec::new(); columns.len()];
    }
    let draw = |number: usize| -> Vec<f64> {
        let mut random = ChaCha8Rng::seed_from_u64(config.seed);
        random.set_stream(number as u64);
        let mut sums = vec![0.0; columns.len()];
        for _ in 0..queries {
            let query = random.random_range(0..queries);
            for (sum, column) in sums.iter_mut().zip(columns) {
                *sum += column[query];
            }
        }
        sums.into_iter().map(|sum| sum / queries as f64).collect()
    };
    let draws: Vec<Vec<f64>> = (0..config.resamples).into_par_iter().map(draw).collect();
    let sorted = |column: usize| {
        let mut means: Vec<f64> = draws.iter().map(|draw| draw[column]).collect();
        means.sort_by(f64::total_cmp);
        means
    };
    (0..columns.len()).map(sorted).collect()
}

fn percentile_interval(sorted: &[f64]) -> Option<Interval> {
    let last = sorted.len().checked_sub(1)?;
    let at = |share: f64| sorted[(share * last as f64).round() as usize];
    Some(Interval { low: at(0.025), high: at(0.975) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_difference_is_none() {
        let found = differences(&[vec![0.0; 50]], &BootstrapConfig::default())[0].unwrap();
        assert_eq!((found.mean, found.p_value), (0.0, 1.0));
        assert!(!found.is_significant());
    }

    #[test]
    fn a_clear_difference_is_more_than_chance_and_a_slight_one_is_not() {
        let better: Vec<f64> = (0..100).map(|i| if i % 4 == 0 { 1.0 } else { 0.0 }).collect();
        let slight: Vec<f64> = (0..100).map(|i| [1.0, -1.0, 0.0][i % 3]).collect();
        let found = differences(&[better, slight], &BootstrapConfig::default());
        let (better, slight) = (found[0].unwrap(), found[1].unwrap());
        assert!(better.is_significant() && better.p_value < 0.01, "{better:?}");
        assert!(!slight.is_significant() && slight.p_value > 0.2, "{slight:?}");
        let worse = differences(&[vec![-1.0; 20]], &BootstrapConfig::default())[0].unwrap();
        assert!(worse.is_significant() && worse.interval.high < 0.0, "{worse:?}");
    }

    /// For a share the interval has to agree with the normal approximation, which it tends to.
    #[test]
    fn the_interval_is_as_wide_as_theory_says() {
        let values: Vec<f64> = (0..400).map(|i| f64::from(u8::from(i % 5 == 0))).collect();
        let interval = intervals(&[values], &BootstrapConfig { resamples: 4000, seed: 3 })[0].unwrap();
        let half = 1.96 * (0.2 * 0.8 / 400.0_f64).sqrt();
        assert!((interval.low - (0.2 - half)).abs() < 0.008, "{interval:?}");
        assert!((interval.high - (0.2 + half)).abs() < 0.008, "{interval:?}");
    }

    #[test]
    fn the_seed_decides() {
        let column = vec![(0..30).map(f64::from).collect::<Vec<f64>>()];
        let with = |seed| intervals(&column, &BootstrapConfig { resamples: 50, seed });
        assert_eq!(with(1), with(1));
        assert_ne!(with(1), with(2));
        assert_eq!(intervals(&[vec![]], &BootstrapConfig::default()), [None]);
    }
}
