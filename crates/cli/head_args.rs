//! The head of a new model, as flags of `semblance train`.

use anyhow::bail;
use clap::{Args, ValueEnum};
use semblance_embed::head::{HeadActivation, HeadConfig, Pool};

use crate::args::positive;

/// What stands on a bare backbone; a checkpoint has its own head.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Head, on a bare backbone")]
pub(crate) struct HeadArgs {
    /// What makes the embedding of the pooled features [default: linear with --embedding-dim, pooled without]
    #[arg(long, value_enum)]
    pub(crate) head: Option<HeadName>,
    /// Size of the embedding [default: that of the pooled features]
    #[arg(long, value_name = "DIM", value_parser = positive)]
    pub(crate) embedding_dim: Option<usize>,
    /// Sizes of the hidden layers of --head mlp, separated by commas
    #[arg(long, value_name = "SIZES", value_delimiter = ',', value_parser = positive)]
    pub(crate) hidden: Vec<usize>,
    /// What stands between the layers of --head mlp [default: relu]
    #[arg(long, value_enum)]
    pub(crate) activation: Option<ActivationName>,
    /// How the features of all places become one vector [default: class_token for vision transformers, average for
    /// convolutional networks]
    #[arg(long, value_enum)]
    pub(crate) pool: Option<PoolName>,
    /// Where the learned power of --pool gem starts [default: 3]
    #[arg(long, value_name = "P")]
    pub(crate) gem_power: Option<f32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum HeadName {
    /// The pooled features themselves
    Pooled,
    /// A linear layer
    Linear,
    /// A layer norm, then a linear layer if --embedding-dim is given
    LayerNorm,
    /// A linear layer if --embedding-dim is given, then a batch norm without a shift
    BatchNorm,
    /// Several linear layers
    Mlp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum PoolName {
    /// The mean over all places
    Average,
    /// The greatest value of each channel
    Max,
    /// The generalised mean with a learned power
    Gem,
    /// The class token of a vision transformer
    ClassToken,
    /// The class token, and the mean of the patches behind it
    ClassAndMean,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ActivationName {
    Relu,
    Gelu,
}

impl HeadArgs {
    /// The head, if any setting speaks of one.
    pub(crate) fn wanted(&self) -> anyhow::Result<Option<HeadConfig>> {
        let named = self.head.is_some() || self.embedding_dim.is_some();
        let head = self.head()?;
        Ok(named.then_some(head))
    }

    /// The head, where the settings agree with one another.
    fn head(&self) -> anyhow::Result<HeadConfig> {
        let name = self.head.unwrap_or(match self.embedding_dim {
            Some(_) => HeadName::Linear,
            None => HeadName::Pooled,
        });
        if name != HeadName::Mlp && (!self.hidden.is_empty() || self.activation.is_some()) {
            bail!("--hidden and --activation belong to --head mlp");
        }
        Ok(match (name, self.embedding_dim) {
            (HeadName::Pooled, None) => HeadConfig::Pooled,
            (HeadName::Pooled, Some(dim)) => {
                bail!("--head pooled keeps the size of the features, not --embedding-dim {dim}: take linear")
            }
            (HeadName::Linear, Some(dim)) => HeadConfig::Linear { dim },
            (HeadName::LayerNorm, dim) => HeadConfig::LayerNorm { dim },
            (HeadName::BatchNorm, dim) => HeadConfig::BatchNorm { dim },
            (HeadName::Mlp, Some(dim)) => {
                let activation = match self.activation {
                    Some(ActivationName::Gelu) => HeadActivation::Gelu,
                    Some(ActivationName::Relu) | None => HeadActivation::Relu,
                };
                HeadConfig::Mlp { dim, hidden: self.hidden.clone(), activation }
            }
            (HeadName::Linear | HeadName::Mlp, None) => {
                bail!("--head linear and --head mlp need a size: give --embedding-dim")
            }
        })
    }

    /// The pooling, where one is asked for.
    pub(crate) fn pool(&self) -> anyhow::Result<Option<Pool>> {
        if self.gem_power.is_some() && self.pool != Some(PoolName::Gem) {
            bail!("--gem-power belongs to --pool gem");
        }
        Ok(self.pool.map(|pool| match pool {
            PoolName::Average => Pool::Average,
            PoolName::Max => Pool::Max,
            PoolName::Gem => Pool::Gem { p: self.gem_power.unwrap_or(3.0) },
            PoolName::ClassToken => Pool::ClassToken,
            PoolName::ClassAndMean => Pool::ClassAndMean,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_contradict_each_other_are_refused_by_name() {
        let default = HeadArgs::default();
        let head = |name| HeadArgs { head: Some(name), ..default.clone() };
        for (args, flag) in [
            (HeadArgs { embedding_dim: Some(8), ..head(HeadName::Pooled) }, "--embedding-dim"),
            (head(HeadName::Linear), "--embedding-dim"),
            (head(HeadName::Mlp), "--embedding-dim"),
            (HeadArgs { hidden: vec![4], ..head(HeadName::LayerNorm) }, "--hidden"),
            (HeadArgs { activation: Some(ActivationName::Gelu), ..default.clone() }, "--activation"),
        ] {
            let error = args.head().unwrap_err().to_string();
            assert!(error.contains(flag), "{error}");
        }
        let pool = HeadArgs { gem_power: Some(2.0), pool: Some(PoolName::Max), ..default.clone() };
        assert!(pool.pool().unwrap_err().to_string().contains("--gem-power"));
    }

    #[test]
    fn a_size_alone_means_a_linear_layer_and_nothing_the_pooled_features() {
        let args = HeadArgs { embedding_dim: Some(8), ..HeadArgs::default() };
        assert_eq!(args.head().unwrap(), HeadConfig::Linear { dim: 8 });
        assert_eq!(HeadArgs::default().head().unwrap(), HeadConfig::Pooled);
        assert_eq!(HeadArgs::default().pool().unwrap(), None);
    }
}
