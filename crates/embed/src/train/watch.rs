//! Whether a run is exploding: values that are still finite, and far beyond what they began with.

use std::collections::BTreeMap;

use candle_core::{Device, Result, Tensor};

/// Steps whose median is what later ones are compared with.
const FIRST: usize = 20;

/// Compares the loss and the gradient's norm of each step with their medians over the first twenty.
///
/// A step is over where one of the two is more than `factor` times its median; `steps` such steps one after another are
/// an explosion. Where the run itself changes what is measured, the medians are [measured again](Self::restart).
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Watch {
    factor: f64,
    steps: usize,
    loss: Vec<f32>,
    norm: Vec<f32>,
    over: usize,
}

/// What exploded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Explosion {
    /// The loss or the gradient.
    pub(super) what: &'static str,
    /// Its value now.
    pub(super) value: f32,
    /// Its median over the first steps.
    pub(super) median: f32,
}

impl Watch {
    /// With a factor of 0 it never says anything.
    pub(super) fn new(factor: f64, steps: usize) -> Self {
        Self { factor, steps, loss: Vec::new(), norm: Vec::new(), over: 0 }
    }

    /// Forgets the medians; the next steps make new ones.
    pub(super) fn restart(&mut self) {
        *self = Self::new(self.factor, self.steps);
    }

    /// Whether the last step was over, so that its weights are not worth keeping.
    pub(super) fn is_over(&self) -> bool {
        self.over > 0
    }

    /// Looks at a step; says so when it is the last of enough steps that were over.
    pub(super) fn see(&mut self, loss: f32, norm: f32) -> Option<Explosion> {
        if self.factor == 0.0 {
            return None;
        }
        if self.loss.len() < FIRST {
            self.loss.push(loss);
            self.norm.push(norm);
            return None;
        }
        let beyond = |what, value: f32, first: &[f32]| {
            let median = median(first);
            // Nothing is a multiple of zero: a loss that begins there may rise.
            let over = median > 0.0 && f64::from(value) > self.factor * f64::from(median);
            over.then_some(Explosion { what, value, median })
        };
        let found = beyond("loss", loss, &self.loss).or_else(|| beyond("gradient", norm, &self.norm));
        self.over = if found.is_some() { self.over + 1 } else { 0 };
        found.filter(|_| self.over >= self.steps)
    }

    /// What it remembers, by names to save it under.
    pub(super) fn state(&self) -> Result<Vec<(String, Tensor)>> {
        if self.loss.is_empty() {
            return Ok(Vec::new());
        }
        let tensor = |values: &[f32]| Tensor::from_slice(values, values.len(), &Device::Cpu);
        let over = Tensor::new(&[self.over as u32], &Device::Cpu)?;
        let named = [("loss", tensor(&self.loss)?), ("norm", tensor(&self.norm)?), ("over", over)];
        Ok(named.map(|(name, t)| (name.to_owned(), t)).into())
    }

    /// Goes on from what was saved.
    pub(super) fn restore(&mut self, saved: &BTreeMap<String, Tensor>) -> Result<()> {
        if let (Some(loss), Some(norm), Some(over)) =
            (saved.get("loss"), saved.get("norm"), saved.get("over"))
        {
            self.loss = loss.to_vec1()?;
            self.norm = norm.to_vec1()?;
            self.over = over.to_vec1::<u32>()?[0] as usize;
        }
        Ok(())
    }
}

fn median(values: &[f32]) -> f32 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f32::total_cmp);
    sorted[sorted.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Past the first steps: losses around 2, norms around 1.
    fn begun() -> Watch {
        let mut watch = Watch::new(10.0, 3);
        for i in 0..FIRST {
            assert_eq!(watch.see(1.5 + i as f32 / 20.0, 1.0), None);
        }
        watch
    }

    #[test]
    fn enough_steps_over_one_after_another_are_an_explosion() {
        let mut watch = begun();
        assert_eq!([watch.see(50.0, 1.0), watch.see(50.0, 1.0)], [None; 2]);
        assert!(watch.is_over());
        let found = watch.see(60.0, 1.0).unwrap();
        assert_eq!((found.what, found.value, found.median), ("loss", 60.0, 2.0));
    }

    #[test]
    fn the_gradient_alone_is_enough_and_one_good_step_starts_the_count_again() {
        let mut watch = begun();
        let seen = [11.0, 11.0, 9.0, 11.0, 11.0, 11.0].map(|norm| watch.see(1.0, norm).map(|e| e.what));
        assert_eq!(seen, [None, None, None, None, None, Some("gradient")]);
    }

    #[test]
    fn a_loss_that_begins_at_zero_may_rise_and_zero_turns_it_off() {
        let mut zero = Watch::new(10.0, 1);
        assert!((0..FIRST).all(|_| zero.see(0.0, 0.0).is_none()) && zero.see(5.0, 5.0).is_none());
        let mut off = Watch::new(0.0, 1);
        assert!((0..FIRST).all(|_| off.see(1.0, 1.0).is_none()) && off.see(1e30, 1e30).is_none());
    }

    #[test]
    fn it_goes_on_from_its_state_and_restarts() {
        let mut watch = begun();
        watch.see(50.0, 1.0);
        let mut again = Watch::new(10.0, 3);
        again.restore(&watch.state().unwrap().into_iter().collect()).unwrap();
        assert_eq!(again, watch);
        again.restart();
        assert_eq!(again, Watch::new(10.0, 3));
        assert_eq!(again.state().unwrap().len(), 0);
    }
}
