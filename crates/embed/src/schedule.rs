//! How the learning rate changes over a run.

use serde::{Deserialize, Serialize};

/// The shape of the learning rate after the warm-up.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(tag = "shape", rename_all = "snake_case", deny_unknown_fields)]
pub enum Shape {
    /// The same throughout.
    Constant,
    /// Multiplied by `factor` at each of `steps`.
    Piecewise {
        /// Step numbers, ascending.
        steps: Vec<usize>,
        /// What each multiplies by; the Paddle original's is 0.1.
        factor: f64,
    },
    /// Half a cosine down to zero at the last step (Loshchilov & Hutter 2017, arXiv 1608.03983, one period).
    #[default]
    Cosine,
    /// A straight line down to zero after the last step.
    Linear,
    /// Half a cosine up from `lr / 25` over the first `rise` of the run and another down to `lr / 250,000` at its
    /// last step (Smith & Topin 2019, arXiv 1708.07120), as PyTorch's `OneCycleLR`. It has no other warm-up.
    OneCycle {
        /// Share of the run in which the rate rises; PyTorch's is 0.3.
        rise: f64,
    },
}

/// The learning rate as a function of the step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Schedule {
    /// The highest rate.
    pub lr: f64,
    /// Steps over which the rate first rises linearly from `lr / warmup`.
    pub warmup: usize,
    /// What it does afterwards.
    pub shape: Shape,
}

impl Default for Schedule {
    fn default() -> Self {
        Self { lr: 0.01, warmup: 0, shape: Shape::default() }
    }
}

impl Schedule {
    /// The rate of step `step` (from 0) in a run of `total` steps.
    pub fn at(&self, step: usize, total: usize) -> f64 {
        if step < self.warmup {
            return self.lr * (step + 1) as f64 / self.warmup as f64;
        }
        match &self.shape {
            Shape::Constant => self.lr,
            Shape::Piecewise { steps, factor } => {
                let passed = steps.iter().filter(|&&at| step >= at).count();
                self.lr * factor.powi(passed as i32)
            }
            Shape::Cosine => {
                let length = total.saturating_sub(self.warmup).max(1);
                let done = ((step - self.warmup) as f64 / length as f64).min(1.0);
                self.lr * half_cosine(done)
            }
            Shape::Linear => {
                let length = total.saturating_sub(self.warmup).max(1);
                self.lr * (1.0 - (step - self.warmup) as f64 / length as f64).max(0.0)
            }
            Shape::OneCycle { rise } => {
                let (first, last) = (self.lr / 25.0, self.lr / 25.0 / 1e4);
                let top = (rise * total as f64 - 1.0).max(0.0);
                let end = total.saturating_sub(1) as f64;
                let step = (step as f64).min(end);
                if step < top {
                    return self.lr + (first - self.lr) * half_cosine(step / top);
                }
                last + (self.lr - last) * half_cosine((step - top) / (end - top).max(1.0))
            }
        }
    }
}

/// From one to zero as `done` goes from zero to one.
fn half_cosine(done: f64) -> f64 {
    0.5 * (1.0 + (std::f64::consts::PI * done).cos())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paddles_two_drops() {
        let shape = Shape::Piecewise { steps: vec![15_000, 25_000], factor: 0.1 };
        let schedule = Schedule { lr: 0.01, warmup: 0, shape };
        for (step, lr) in [(0, 0.01), (14_999, 0.01), (15_000, 0.001), (24_999, 0.001), (25_000, 0.0001)] {
            assert!((schedule.at(step, 30_000) - lr).abs() < 1e-12, "{step}");
        }
    }

    #[test]
    fn cosine_falls_from_the_rate_to_nearly_nothing() {
        let schedule = Schedule { lr: 2.0, warmup: 10, shape: Shape::Cosine };
        assert!((schedule.at(0, 110) - 0.2).abs() < 1e-12);
        assert!((schedule.at(9, 110) - 2.0).abs() < 1e-12);
        assert!((schedule.at(10, 110) - 2.0).abs() < 1e-12);
        assert!((schedule.at(60, 110) - 1.0).abs() < 1e-12);
        let last = schedule.at(109, 110);
        assert!(last > 0.0 && last < 0.001, "{last}");
        assert_eq!(schedule.at(500, 110), 0.0);
    }

    #[test]
    fn linear_falls_in_equal_steps() {
        let schedule = Schedule { lr: 2.0, warmup: 10, shape: Shape::Linear };
        for (step, lr) in [(9, 2.0), (10, 2.0), (60, 1.0), (109, 0.02), (500, 0.0)] {
            assert!((schedule.at(step, 110) - lr).abs() < 1e-12, "{step}");
        }
    }

    // import torch
    // o = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.)
    // s = torch.optim.lr_scheduler.OneCycleLR(o, max_lr=2., total_steps=20, pct_start=.3)
    // for i in range(19): print(o.param_groups[0]['lr']); o.step(); s.step()
    #[test]
    fn one_cycle_is_pytorchs() {
        let schedule = Schedule { lr: 2.0, warmup: 0, shape: Shape::OneCycle { rise: 0.3 } };
        let wanted = [(0, 0.08), (1, 0.263_343_685), (4, 1.816_656_315), (5, 2.0), (6, 1.974_928_012)];
        for (step, lr) in wanted.into_iter().chain([(12, 1.000_004), (18, 0.025_079_988), (19, 8e-6)]) {
            assert!((schedule.at(step, 20) - lr).abs() < 1e-8, "{step}: {}", schedule.at(step, 20));
        }
    }
}
