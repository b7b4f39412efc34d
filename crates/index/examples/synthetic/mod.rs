//! Synthetic vectors for the examples: the same for the same dimension.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const CLUSTER: usize = 5;
const LATENT: usize = 32;

/// Clustered vectors in a space of few dimensions, mapped to all by a random matrix, a few of each cluster in a row.
pub(crate) struct Source {
    rng: ChaCha8Rng,
    mapping: Vec<f32>,
    dim: usize,
}

impl Source {
    pub(crate) fn new(dim: usize) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let mapping = (0..LATENT * dim).map(|_| rng.random_range(-1.0..1.0)).collect();
        Self { rng, mapping, dim }
    }

    /// The next `n` vectors.
    pub(crate) fn batch(&mut self, n: usize) -> Vec<f32> {
        let mut all = Vec::with_capacity(n * self.dim);
        let mut centre = [0.0f32; LATENT];
        for i in 0..n {
            if i % CLUSTER == 0 {
                centre = std::array::from_fn(|_| self.rng.random_range(-1.0..1.0));
            }
            let mut row = vec![0.0f32; self.dim];
            for (latent, centre) in centre.iter().enumerate() {
                let x = centre + self.rng.random_range(-0.5..0.5);
                let mapping = &self.mapping[latent * self.dim..(latent + 1) * self.dim];
                row.iter_mut().zip(mapping).for_each(|(sum, m)| *sum += x * m);
            }
            let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt();
            all.extend(row.iter().map(|x| x / norm));
        }
        all
    }
}
