//! From features to one vector per image.

use std::fmt;

use candle_core::{Result, Tensor, Var};
use semblance_kernels::global_avg_pool;
use serde::{Deserialize, Serialize};

use crate::backbone::{Arch, Features};
use crate::error::EmbedError;
use crate::onnx::{Edge, Graph};
use crate::params::{Init, Scope, value};

/// Least value that GeM raises to a power.
const GEM_FLOOR: f64 = 1e-6;

/// How the features of all places become one vector.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Pool {
    /// The mean over all places.
    Average,
    /// The greatest value of each channel.
    Max,
    /// The generalised mean `(mean xᵖ)^(1/p)` of values of at least 1e-6, with a learned `p` (GeM: Radenović et al. 2018,
    /// arXiv 1711.02512).
    Gem {
        /// Where `p` starts: 1 is the mean, greater is nearer to the greatest value.
        p: f32,
    },
    /// The class token of a vision transformer.
    ClassToken,
    /// The class token and, behind it, the mean of the patches: twice as many values.
    ClassAndMean,
}

impl Pool {
    /// What the network's authors take: the class token where there is one, the mean otherwise.
    pub fn of(arch: Arch) -> Self {
        if arch.vit().is_some() { Self::ClassToken } else { Self::Average }
    }

    /// Refuses what cannot be.
    ///
    /// # Errors
    /// [`EmbedError::Config`] for a class token where the network has none, or a power that is not positive.
    pub fn check(self, arch: Arch) -> std::result::Result<(), EmbedError> {
        let fail = |reason: String| Err(EmbedError::Config { key: "pool", reason });
        match self {
            Self::ClassToken | Self::ClassAndMean if arch.vit().is_none() => fail(format!(
                "{arch} has no class token for {self}: only vision transformers have; take average, max or gem"
            )),
            Self::Gem { p } if !(p.is_finite() && p > 0.0) => {
                fail(format!("gem's power is {p}, but must be a number above 0"))
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Average => "average",
            Self::Max => "max",
            Self::Gem { .. } => "gem",
            Self::ClassToken => "class_token",
            Self::ClassAndMean => "class_and_mean",
        })
    }
}

/// [`Pool`] with what it learns.
#[derive(Debug, Clone)]
pub(super) struct Pooling {
    kind: Pool,
    power: Option<Var>,
}

impl Pooling {
    pub(super) fn new(kind: Pool, scope: &Scope) -> Result<Self> {
        let power = match kind {
            Pool::Gem { p } => Some(scope.parameter("p", 1, Init::Const(p))?),
            _ => None,
        };
        Ok(Self { kind, power })
    }

    /// Values a pooled vector has, from features of `channels`.
    pub(super) fn dim(&self, channels: usize) -> usize {
        if self.kind == Pool::ClassAndMean { 2 * channels } else { channels }
    }

    pub(super) fn is_average(&self) -> bool {
        self.kind == Pool::Average
    }

    pub(super) fn forward(&self, features: &Features, train: bool) -> Result<Tensor> {
        // What is pooled lies in the last dimension, or is the class token.
        let (places, class) = match features {
            Features::Map(map) if self.kind == Pool::Average => return global_avg_pool(map),
            Features::Map(map) => (map.flatten_from(2)?, None),
            Features::Tokens(tokens) => {
                let patches = tokens.narrow(1, 1, tokens.dim(1)? - 1)?.transpose(1, 2)?;
                (patches, Some(tokens.get_on_dim(1, 0)?))
            }
        };
        let class = || match &class {
            Some(token) => token.contiguous(),
            None => candle_core::bail!("the features have no class token"),
        };
        match (self.kind, &self.power) {
            (Pool::Max, _) => places.contiguous()?.max(2),
            (Pool::ClassToken, _) => class(),
            (Pool::ClassAndMean, _) => Tensor::cat(&[&class()?, &places.mean(2)?], 1),
            (Pool::Gem { .. }, Some(power)) => {
                let power = value(power, train);
                let logs = places.contiguous()?.maximum(GEM_FLOOR)?.log()?;
                let powers = logs.broadcast_mul(&power)?.exp()?;
                powers.mean(2)?.log()?.broadcast_div(&power)?.exp()
            }
            (Pool::Average | Pool::Gem { .. }, _) => places.mean(2),
        }
    }

    /// Writes the pooling into an ONNX graph.
    pub(super) fn emit(&self, graph: &mut Graph, features: &Features<Edge>) -> Result<Edge> {
        let power = self.power.as_ref().map(|power| power.to_vec1::<f32>()).transpose()?;
        match (self.kind, features) {
            (Pool::Average, Features::Map(map)) => Ok(graph.global_avg_pool(map)),
            (Pool::ClassToken, Features::Tokens(tokens)) => Ok(graph.first_token(tokens)),
            (Pool::ClassAndMean, Features::Tokens(tokens)) => {
                let (class, others) = (graph.first_token(tokens), graph.other_tokens(tokens));
                let mean = graph.mean(&others, &[1]);
                Ok(graph.concat(&class, &mean))
            }
            (Pool::ClassToken | Pool::ClassAndMean, Features::Map(_)) => {
                candle_core::bail!("the features have no class token")
            }
            (Pool::Average | Pool::Max | Pool::Gem { .. }, _) => {
                let (places, axes) = match features {
                    Features::Map(map) => (map.clone(), &[2, 3][..]),
                    Features::Tokens(tokens) => (graph.other_tokens(tokens), &[1][..]),
                };
                Ok(match (self.kind, power.as_deref()) {
                    (Pool::Gem { .. }, Some(&[power])) => {
                        graph.power_mean(&places, axes, GEM_FLOOR as f32, power)
                    }
                    (Pool::Max, _) => graph.max(&places, axes),
                    _ => graph.mean(&places, axes),
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;
    use crate::params::ParamStore;

    fn pooled(kind: Pool, features: &Features) -> Vec<f32> {
        let store = ParamStore::new(0, &Device::Cpu);
        let pooling = Pooling::new(kind, &store.root()).unwrap();
        pooling.forward(features, false).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    fn close(found: &[f32], wanted: &[f32]) {
        assert_eq!(found.len(), wanted.len());
        assert!(found.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-5), "{found:?} {wanted:?}");
    }

    // x = torch.tensor([[[[1., 2.], [3., 6.]], [[-1., .5], [.25, 0.]]]], requires_grad=True)
    // p = torch.tensor([3.], requires_grad=True)
    // g = x.clamp(min=1e-6).pow(p).mean((-1, -2)).pow(1 / p); g.sum().backward(); g, x.grad, p.grad
    #[test]
    fn each_way_of_pooling_does_what_it_says() {
        let map = [[[[1f32, 2.], [3., 6.]], [[-1., 0.5], [0.25, 0.]]]];
        let map = Features::Map(Tensor::new(&map, &Device::Cpu).unwrap());
        close(&pooled(Pool::Average, &map), &[3.0, -0.0625]);
        close(&pooled(Pool::Max, &map), &[6.0, 0.5]);
        close(&pooled(Pool::Gem { p: 3.0 }, &map), &GEM);
        let tokens = [[[9f32, 8.], [1., -1.], [3., 0.5]]];
        let tokens = Features::Tokens(Tensor::new(&tokens, &Device::Cpu).unwrap());
        close(&pooled(Pool::Average, &tokens), &[2.0, -0.25]);
        close(&pooled(Pool::Max, &tokens), &[3.0, 0.5]);
        close(&pooled(Pool::ClassToken, &tokens), &[9.0, 8.0]);
        close(&pooled(Pool::ClassAndMean, &tokens), &[9.0, 8.0, 2.0, -0.25]);
        close(&pooled(Pool::Gem { p: 1.0 }, &tokens), &[2.0, 0.25]);
    }

    #[test]
    fn the_power_of_gem_is_learned() {
        let store = ParamStore::new(0, &Device::Cpu);
        let pooling = Pooling::new(Pool::Gem { p: 3.0 }, &store.root()).unwrap();
        let map = [[[[1f32, 2.], [3., 6.]], [[-1., 0.5], [0.25, 0.]]]];
        let x = Var::new(&map, &Device::Cpu).unwrap();
        let y = pooling.forward(&Features::Map(x.as_tensor().clone()), true).unwrap();
        let grads = y.sum_all().unwrap().backward().unwrap();
        let grad =
            |var: &Var| -> Vec<f32> { grads.get(var).unwrap().flatten_all().unwrap().to_vec1().unwrap() };
        close(&grad(&x), &GRADIENT);
        close(&grad(pooling.power.as_ref().unwrap()), &POWER);
    }

    #[test]
    fn a_convolutional_network_has_no_class_token() {
        for pool in [Pool::ClassToken, Pool::ClassAndMean] {
            let error = pool.check(Arch::ResNet50).unwrap_err().to_string();
            assert!(error.contains("resnet50") && error.contains("class token"), "{error}");
            pool.check(Arch::VitTiny16).unwrap();
        }
        assert!(Pool::Gem { p: 0.0 }.check(Arch::ResNet50).is_err());
        assert_eq!(Pool::of(Arch::ClipBase32), Pool::ClassToken);
        assert_eq!(Pool::of(Arch::ConvNextTiny), Pool::Average);
    }

    const GEM: [f32; 2] = [3.979057, 0.3275927];
    const GRADIENT: [f32; 8] = [0.01578991, 0.06315965, 0.1421092, 0.5684369, 0.0, 0.5823869, 0.1455967, 0.0];
    const POWER: [f32; 1] = [0.4283236];
}
