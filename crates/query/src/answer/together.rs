//! Several photographs of one item, searched with as one.

use super::normalise;

/// The mean direction of several unit vectors of the same length. `None` for none, or if they cancel out.
pub fn together<V: AsRef<[f32]>>(vectors: &[V]) -> Option<Vec<f32>> {
    let mut sum = vectors.first()?.as_ref().to_vec();
    for vector in &vectors[1..] {
        sum.iter_mut().zip(vector.as_ref()).for_each(|(s, x)| *s += x);
    }
    let length: f32 = sum.iter().map(|x| x * x).sum();
    normalise(&mut sum);
    (length > 1e-8).then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_direction() {
        assert_eq!(together(&[[1.0, 0.0], [0.0, 1.0]]), Some(vec![0.5_f32.sqrt(), 0.5_f32.sqrt()]));
        assert_eq!(together(&[vec![0.6, 0.8]]), Some(vec![0.6, 0.8]));
        assert_eq!(together::<Vec<f32>>(&[]), None);
        assert_eq!(together(&[[1.0, 0.0], [-1.0, 0.0]]), None, "no direction is left");
    }
}
