//! The layers that nodes reach up to.

use crate::config::HnswConfig;
use crate::hnsw::graph::MAX_LEVEL;

/// Seeded layer of a node: geometric, a share of 1/m a layer (the paper's `1/ln m`), the same whatever the order.
pub(crate) fn level_of(node: u32, config: &HnswConfig) -> u8 {
    // SplitMix64: a good hash of (seed, node) is all the randomness needed.
    let mut z = config.seed.wrapping_add(u64::from(node).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let uniform = ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64;
    let level = -(1.0 - uniform).ln() / (config.m as f64).ln();
    (level as u64).min(u64::from(MAX_LEVEL)) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_seeded_and_thin_out() {
        let config = HnswConfig::default();
        let levels: Vec<u8> = (0..20_000).map(|n| level_of(n, &config)).collect();
        let above = levels.iter().filter(|&&l| l > 0).count();
        assert!((1000..1500).contains(&above), "{above} of 20000 above the ground, expected one in 16");
        assert_ne!(
            levels,
            (0..20_000).map(|n| level_of(n, &HnswConfig { seed: 1, ..config.clone() })).collect::<Vec<_>>()
        );
    }
}
