//! The gradients of one step, by parameter name, so that several passes can be added up before it is taken.

use std::collections::BTreeMap;

use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor};

use crate::params::{Kind, ParamStore};

/// The gradient of each learned tensor that took part.
#[derive(Debug, Default)]
pub struct Gradients {
    by_name: BTreeMap<String, Tensor>,
}

impl Gradients {
    /// What one backward pass left for the tensors of `store`.
    pub fn collect(store: &ParamStore, grads: &GradStore) -> Result<Self> {
        let mut all = Self::default();
        all.add(store, grads)?;
        Ok(all)
    }

    /// Adds those of another pass.
    pub fn add(&mut self, store: &ParamStore, grads: &GradStore) -> Result<()> {
        for (name, param) in store.entries("") {
            let Some(grad) = grads.get(&param.var).filter(|_| param.kind == Kind::Parameter) else {
                continue;
            };
            let sum = match self.by_name.get(&name) {
                Some(before) => (before + grad)?,
                None => grad.contiguous()?,
            };
            self.by_name.insert(name, sum);
        }
        Ok(())
    }

    /// Multiplies all of them.
    pub fn scale(&mut self, factor: f64) -> Result<()> {
        for grad in self.by_name.values_mut() {
            *grad = (&*grad * factor)?;
        }
        Ok(())
    }

    /// The gradient of the tensor of this name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.by_name.get(name)
    }

    /// The length of all of them as one vector.
    pub fn norm(&self) -> Result<f64> {
        let mut sum = 0.0;
        for grad in self.by_name.values() {
            sum += f64::from(grad.sqr()?.sum_all()?.to_scalar::<f32>()?);
        }
        Ok(sum.sqrt())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::params::Init;

    #[test]
    fn passes_add_up() {
        let store = ParamStore::new(0, &Device::Cpu);
        let w = store.root().parameter("w", 2, Init::Const(1.0)).unwrap();
        store.root().buffer("b", 2, Init::Const(1.0)).unwrap();
        let pass = |factor: f64| (w.as_tensor() * factor).unwrap().sum_all().unwrap().backward().unwrap();
        let mut all = Gradients::collect(&store, &pass(1.0)).unwrap();
        all.add(&store, &pass(2.0)).unwrap();
        all.scale(2.0).unwrap();
        assert_eq!(all.get("w").unwrap().to_vec1::<f32>().unwrap(), [6.0, 6.0]);
        assert!(all.get("b").is_none());
        assert!((all.norm().unwrap() - 72f64.sqrt()).abs() < 1e-6);
    }
}
