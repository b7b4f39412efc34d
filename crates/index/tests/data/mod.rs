//! Vectors for tests: unit, clustered, the same for the same seed.
#![allow(dead_code)] // each test takes what it needs

use rand::{Rng, SeedableRng};

/// A unit vector in a direction of its own for each seed.
pub(crate) fn unit(dim: usize, seed: u64) -> Vec<f32> {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed ^ 0x5eed);
    normalised((0..dim).map(|_| rng.random_range(-1.0..1.0)).collect())
}

/// `n` unit vectors around centres that only depend on the dimension.
pub(crate) fn clustered(n: usize, dim: usize, seed: u64) -> Vec<f32> {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    (0..n)
        .flat_map(|_| {
            let centre = unit(dim, 1000 + rng.random_range(0..100));
            normalised(
                centre.into_iter().map(|x| x + rng.random_range(-1.0..1.0) / (dim as f32).sqrt()).collect(),
            )
        })
        .collect()
}

fn normalised(v: Vec<f32>) -> Vec<f32> {
    let norm = v.iter().map(|x| x * x).sum::<f32>().sqrt();
    v.into_iter().map(|x| x / norm).collect()
}
