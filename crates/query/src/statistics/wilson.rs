//! Confidence of a share.

use super::Interval;

/// The 97.5 % point of the standard normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// The 95 % score interval of a share: `successes` of `n` (Wilson 1927, "Probable Inference, the Law of Succession, and
/// Statistical Inference"). Unlike the usual `p ± z·√(p(1−p)/n)` it means something at 0, at 1 and for few queries. `None`
/// for n = 0.
pub fn wilson(successes: usize, n: usize) -> Option<Interval> {
    if n == 0 {
        return None;
    }
    let (count, share) = (n as f64, successes as f64 / n as f64);
    let scale = 1.0 + Z * Z / count;
    let centre = (share + Z * Z / (2.0 * count)) / scale;
    let half = Z / scale * (share * (1.0 - share) / count + Z * Z / (4.0 * count * count)).sqrt();
    Some(Interval { low: (centre - half).max(0.0), high: (centre + half).min(1.0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    // from scipy.stats import binomtest
    // for k, n in ((0, 10), (10, 10), (181, 296), (1, 3)):
    //     print(binomtest(k, n).proportion_ci(0.95, method="wilson"))
    #[test]
    fn agrees_with_scipy() {
        let cases = [
            ((0, 10), (0.0, 0.2775327998628892)),
            ((10, 10), (0.7224672001371106, 1.0)),
            ((181, 296), (0.5548702144191274, 0.665246110586709)),
            ((1, 3), (0.06149194472039626, 0.7923403991979523)),
        ];
        for ((successes, n), (low, high)) in cases {
            let interval = wilson(successes, n).unwrap();
            assert!((interval.low - low).abs() < 1e-8, "{successes}/{n}: {interval:?}");
            assert!((interval.high - high).abs() < 1e-8, "{successes}/{n}: {interval:?}");
        }
        assert_eq!(wilson(0, 0), None);
    }
}
