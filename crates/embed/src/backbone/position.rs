//! Position embeddings for images of another size than the network was made for.

use candle_core::{Result, Tensor};

/// The grid `(1, from.0 · from.1, dim)` as one of `to`, by the cubic filter with a = −0.5 whose support widens when
/// shrinking: timm's `resample_abs_pos_embed`, which is PyTorch's bicubic interpolation with `antialias=True`. Gradients
/// pass through it.
pub(super) fn resample(grid: &Tensor, from: (usize, usize), to: (usize, usize)) -> Result<Tensor> {
    if from == to {
        return Ok(grid.clone());
    }
    let dim = grid.dim(2)?;
    let filter = |from: usize, to: usize| Tensor::from_vec(weights(from, to), (to, from), grid.device());
    let rows = filter(from.0, to.0)?.matmul(&grid.reshape((from.0, from.1 * dim))?)?;
    let columns = rows.reshape((to.0, from.1, dim))?.transpose(0, 1)?.contiguous()?;
    let both = filter(from.1, to.1)?.matmul(&columns.reshape((from.1, to.0 * dim))?)?;
    both.reshape((to.1, to.0, dim))?.transpose(0, 1)?.contiguous()?.reshape((1, to.0 * to.1, dim))
}

/// What each of `from` values counts in each of `to`: `to` rows.
fn weights(from: usize, to: usize) -> Vec<f32> {
    let scale = from as f64 / to as f64;
    let widened = scale.max(1.0);
    let mut all = vec![0f32; from * to];
    for (place, row) in all.chunks_mut(from.max(1)).enumerate() {
        let centre = scale * (place as f64 + 0.5);
        let first = (centre - 2.0 * widened + 0.5).max(0.0) as usize;
        let end = ((centre + 2.0 * widened + 0.5) as usize).min(from);
        let raw: Vec<f64> = (first..end).map(|i| cubic((i as f64 - centre + 0.5) / widened)).collect();
        let total: f64 = raw.iter().sum();
        row[first..end].iter_mut().zip(raw).for_each(|(w, r)| *w = (r / total) as f32);
    }
    all
}

/// Keys 1981, "Cubic convolution interpolation for digital image processing", with a = −0.5.
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    match x {
        _ if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
        _ if x < 2.0 => A * (((x - 5.0) * x + 8.0) * x - 4.0),
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    // from timm.layers import resample_abs_pos_embed as r
    // p = ((torch.arange(18) * 7919) % 255 / 127 - 1).reshape(1, 9, 2)
    // r(p, [2, 4], [3, 3], num_prefix_tokens=0).flatten(), r(p, [5, 2], [3, 3], num_prefix_tokens=0).flatten()
    #[test]
    fn grids_are_resampled_as_timm_does() {
        let values: Vec<f32> = (0..18).map(|i| ((i * 7919) % 255) as f32 / 127.0 - 1.0).collect();
        let grid = Tensor::from_vec(values, (1, 9, 2), &Device::Cpu).unwrap();
        for (to, wanted) in [((2, 4), &WIDE[..]), ((5, 2), &TALL[..])] {
            let found = resample(&grid, (3, 3), to).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(found.len(), wanted.len());
            assert!(found.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 2e-6), "{found:?}");
        }
    }

    #[test]
    fn the_same_size_stays_as_it_is_and_a_constant_stays_constant() {
        let grid = Tensor::ones((1, 12, 2), candle_core::DType::F32, &Device::Cpu).unwrap();
        assert_eq!(resample(&grid, (3, 4), (3, 4)).unwrap().id(), grid.id());
        let other = resample(&grid, (3, 4), (7, 2)).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(other.iter().all(|v| (v - 1.0).abs() < 1e-6) && other.len() == 28);
    }

    const WIDE: [f32; 16] = [
        -0.806616, -0.6963797, -0.6723849, -0.5621486, -0.4768676, -0.3666315, -0.3426366, -0.2324004,
        0.1064161, 0.2166524, 0.2406472, 0.3508834, 0.4361643, 0.5464005, 0.5703954, 0.6806316,
    ];
    const TALL: [f32; 20] = [
        -0.9816177, -0.8713816, -0.6772738, -0.5670376, -0.7293255, -0.6190894, -0.4249816, -0.3147454,
        -0.2702822, -0.160046, 0.03406174, 0.144298, 0.1887611, 0.2989974, 0.4931051, 0.6033413, 0.4410533,
        0.5512896, 0.7453973, 0.8556335,
    ];
}
