//! The exponential moving average of a network's weights.

use std::collections::BTreeMap;

use candle_core::{Result, Tensor};

use crate::checkpoint::model_entries;
use crate::params::ParamStore;

/// Follows the weights and running statistics of the model: `a ← decay · a + (1 − decay) · w` after each step.
/// It starts as a copy of them.
#[derive(Debug)]
pub(super) struct Average {
    decay: f64,
    shadow: BTreeMap<String, Tensor>,
}

impl Average {
    pub(super) fn new(decay: f64, store: &ParamStore) -> Result<Self> {
        let copy = |(name, param): (String, crate::params::Param)| -> Result<_> {
            Ok((name, param.var.as_detached_tensor().copy()?))
        };
        Ok(Self { decay, shadow: model_entries(store).into_iter().map(copy).collect::<Result<_>>()? })
    }

    pub(super) fn follow(&mut self, store: &ParamStore) -> Result<()> {
        for (name, param) in model_entries(store) {
            if let Some(shadow) = self.shadow.get_mut(&name) {
                let new = (param.var.as_detached_tensor() * (1.0 - self.decay))?;
                *shadow = ((&*shadow * self.decay)? + new)?;
            }
        }
        Ok(())
    }

    /// Exchanges the model's tensors with the averaged ones; twice is nothing.
    pub(super) fn swap(&mut self, store: &ParamStore) -> Result<()> {
        for (name, param) in model_entries(store) {
            if let Some(shadow) = self.shadow.get_mut(&name) {
                let now = param.var.as_detached_tensor().copy()?;
                param.var.set(shadow)?;
                *shadow = now;
            }
        }
        Ok(())
    }

    /// The tensors held in place of the model's.
    pub(super) fn held(&self) -> impl Iterator<Item = (&String, &Tensor)> {
        self.shadow.iter()
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::params::Init;

    #[test]
    fn the_average_follows_and_comes_and_goes() {
        let store = ParamStore::new(0, &Device::Cpu);
        let w = store.root().at("head").parameter("w", 1, Init::Const(1.0)).unwrap();
        let mut average = Average::new(0.75, &store).unwrap();
        for value in [5f32, 9.0] {
            w.set(&Tensor::new(&[value], &Device::Cpu).unwrap()).unwrap();
            average.follow(&store).unwrap();
        }
        let now = || w.to_vec1::<f32>().unwrap()[0];
        average.swap(&store).unwrap();
        // 1 → 0.75 · 1 + 0.25 · 5 = 2 → 0.75 · 2 + 0.25 · 9.
        assert_eq!(now(), 3.75);
        average.swap(&store).unwrap();
        assert_eq!(now(), 9.0);
    }
}
