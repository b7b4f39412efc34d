//! How many images go through a network together.
//!
//! Every part of a batch reads all weights again, so parts should be large; but the maps of a large part are gone from the
//! caches before the next layer reads them. ResNets (45 to 94 MB of weights, 3 MB the largest map at 224 × 224) gain by batches
//! of 16 and more, MobileNetV2 (9 and 5 MB) takes 10 to 20 % less an image in fours than in eights, measured on two cores of a
//! Sapphire Rapids server.

use candle_core::Result;

use super::builder::{Kind, Node};
use super::layer::blocks;
use super::plan::sizes;
use crate::simd::LANES;

/// Bytes of a map that parts need not be smaller than: caches hold them, or nearly.
const ENOUGH: usize = 16 << 20;

/// The most images of `h` × `w` pixels that should be computed together: those whose largest map takes twice the memory
/// of all weights, or [`ENOUGH`].
pub(super) fn together(nodes: &[Node], kinds: &[Kind], h: usize, w: usize) -> Result<usize> {
    let map = |m: super::map::Map| {
        let plane = m.height.saturating_mul(m.width);
        plane.saturating_mul(blocks(m.channels) * LANES * size_of::<f32>())
    };
    let largest = sizes(nodes, kinds, h, w)?.into_iter().flatten().map(map).max().unwrap_or(0);
    let weights: usize = nodes
        .iter()
        .map(|node| match node {
            Node::Conv { layer, .. } => layer.weights(),
            Node::Linear { layer, .. } => layer.weight.len(),
            Node::Input | Node::MaxPool { .. } | Node::GlobalAvgPool { .. } => 0,
        })
        .sum();
    Ok(ENOUGH.max(2 * weights * size_of::<f32>()).div_ceil(largest.max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Conv2dConfig;
    use crate::frozen::{Builder, ConvLayer, FrozenNet};
    use crate::reference::noise;

    /// Two 1×1 layers of 16 and of so many output channels.
    fn net(out: usize) -> FrozenNet {
        let (a, b) = (noise(&[16, 3, 1, 1], 1), noise(&[out, 16, 1, 1], 2));
        let mut net = Builder::new(3).unwrap();
        let x = net.input();
        let x = net.conv(x, &ConvLayer::new(&a, Conv2dConfig::default())).unwrap();
        let x = net.conv(x, &ConvLayer::new(&b, Conv2dConfig { stride: 8, ..Default::default() })).unwrap();
        let y = net.global_avg_pool(x).unwrap();
        net.finish(y).unwrap()
    }

    #[test]
    fn few_weights_beside_large_maps_make_small_parts() {
        let images = |out, side| {
            let net = net(out);
            together(&net.nodes, &net.kinds, side, side).unwrap()
        };
        // 512 · 512 · 16 channels are 16 MiB.
        assert_eq!(images(32, 512), 1);
        assert_eq!(images(32, 128), 16);
        assert_eq!(images(32, 8), 4096);
        // Of 200,000 × 16 weights twice the bytes, and the layer's 200,000 channels of 2 × 2 pixels.
        assert_eq!(images(200_000, 16), (2 * 4 * (200_000 * 16 + 48_usize)).div_ceil(2 * 2 * 200_000 * 4));
        assert!(together(&net(32).nodes, &net(32).kinds, 0, 0).is_err());
    }

    #[test]
    fn a_batch_in_parts_gives_every_image_its_vector() {
        let (net, side) = (net(20), 600);
        let pixels: Vec<f32> =
            (0..3 * 3 * side * side).map(|i| ((i * 7919) % 1013) as f32 / 1013.0 - 0.5).collect();
        assert_eq!(together(&net.nodes, &net.kinds, side, side).unwrap(), 1);
        let all = net.forward(&pixels, 3, side, side).unwrap();
        assert_eq!(all.len(), 3 * 20);
        for (image, vector) in pixels.chunks(3 * side * side).zip(all.chunks(20)) {
            assert_eq!(net.forward(image, 1, side, side).unwrap(), vector);
        }
        assert!(all[..20] != all[20..40]);
    }
}
