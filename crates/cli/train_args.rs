//! The arguments of `semblance train`: one flag for every setting of a run.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use semblance_embed::train::Freeze;

use crate::args::{ModelArgs, positive};
use crate::data::DatasetArgs;
use crate::head_args::HeadArgs;
use crate::loss_args::LossArgs;

#[derive(Debug, Args)]
pub(crate) struct TrainArgs {
    #[command(flatten)]
    pub(crate) data: DatasetArgs,
    /// Take the settings of this TOML file, whose keys are the flags below (`lr = 0.01`); flags given as well win
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Folder of the run: best/, last/, train.jsonl
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Go on with the run in --out as if it had never stopped; give the same settings
    #[arg(long)]
    pub(crate) resume: bool,
    /// Stop at the first photograph that cannot be read, instead of leaving it out, and before the first if the folder
    /// holds pictures that cannot be taken
    #[arg(long)]
    pub(crate) strict: bool,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Start a second stage from the weights of an earlier run: its checkpoint folder, or a weight file. Its head is
    /// kept, unless the settings ask for another, which is then initialised
    #[arg(long, value_name = "PATH", conflicts_with = "model", help_heading = "Model")]
    pub(crate) init: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) head: HeadArgs,
    #[command(flatten)]
    pub(crate) validation: ValidationArgs,
    #[command(flatten)]
    pub(crate) loss: LossArgs,
    #[command(flatten)]
    pub(crate) optimizer: OptimizerArgs,
    #[command(flatten)]
    pub(crate) augment: AugmentArgs,
    /// Decides the batches, the augmentation, the held-out classes and the initial weights
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
}

/// What the model is judged by while it learns.
#[derive(Debug, Args)]
#[command(next_help_heading = "Validation")]
pub(crate) struct ValidationArgs {
    /// Share of the classes held out from training; Recall@1 is measured among their photographs, each against all
    /// others. Where that makes fewer than 5 classes or 10 queries, photographs of every class are held out instead, and
    /// searched among those trained on. 0 holds out none
    #[arg(long, value_name = "SHARE", default_value_t = 0.1, value_parser = share)]
    pub(crate) holdout: f64,
    /// Judge by the photographs of this folder or table instead; read with the same layout
    #[arg(long, value_name = "PATH")]
    pub(crate) valid: Option<PathBuf>,
    /// Search each photograph of --valid among the training photographs, not among each other
    #[arg(long, requires = "valid")]
    pub(crate) valid_against_train: bool,
    /// Steps between validations
    #[arg(long, value_name = "STEPS", value_parser = positive)]
    pub(crate) validate_every: Option<usize>,
    /// Steps between saved states
    #[arg(long, value_name = "STEPS", value_parser = positive)]
    pub(crate) save_every: Option<usize>,
    /// Saved models kept beside the best and the last
    #[arg(long, value_name = "N")]
    pub(crate) keep: Option<usize>,
    /// End the run after this many validations without a better one
    #[arg(long, value_name = "N", value_parser = positive)]
    pub(crate) patience: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ScheduleName {
    /// Half a cosine down to zero
    Cosine,
    /// Multiplied by --lr-factor at each of --lr-steps
    Piecewise,
    /// The same throughout
    Constant,
    /// A straight line down to zero
    Linear,
    /// Up from lr / 25 and down again, each half a cosine
    OneCycle,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OptimizerName {
    /// Gradient descent with momentum
    Sgd,
    /// Adam, weight decay in the gradient
    Adam,
    /// Adam, weight decay apart
    Adamw,
}

/// Steps, batches and learning rate.
#[derive(Debug, Args)]
#[command(next_help_heading = "Optimisation")]
pub(crate) struct OptimizerArgs {
    /// Photographs a batch
    #[arg(long, value_name = "N", value_parser = positive)]
    pub(crate) batch: Option<usize>,
    /// Photographs of each class in a batch [default: shuffled for classification losses, 4 for mined triplets]
    #[arg(long, value_name = "K", value_parser = positive)]
    pub(crate) per_class: Option<usize>,
    /// Different super classes a batch, so that negatives are hard; 0 does not look at them
    #[arg(long, value_name = "N")]
    pub(crate) super_classes: Option<usize>,
    /// Batches whose mean gradient makes one step
    #[arg(long, value_name = "N", value_parser = positive)]
    pub(crate) accumulate: Option<usize>,
    /// Photographs that go through the network at a time, with the gradient of the whole batch; saves memory, takes
    /// two passes
    #[arg(long, value_name = "N", value_parser = positive)]
    pub(crate) chunk: Option<usize>,
    /// Embeddings of earlier batches that a loss over pairs compares with too (cross-batch memory)
    #[arg(long, value_name = "N", value_parser = positive)]
    pub(crate) memory: Option<usize>,
    /// Step from which on the memory is used
    #[arg(long, value_name = "STEP")]
    pub(crate) memory_start: Option<usize>,
    /// Decay of a moving average of the weights, which is then what is kept
    #[arg(long, value_name = "DECAY")]
    pub(crate) average: Option<f64>,
    /// How long the backbone stays as it is: none, all, or a number of steps
    #[arg(long, value_name = "STEPS")]
    pub(crate) freeze_backbone: Option<Freeze>,
    /// How long batch norms keep their running statistics: none, all, or a number of steps. The layer norms of ViT and
    /// ConvNeXt have none
    #[arg(long, value_name = "STEPS")]
    pub(crate) freeze_norms: Option<Freeze>,
    /// Passes over the photographs
    #[arg(long, value_name = "N")]
    pub(crate) epochs: Option<f64>,
    /// Steps in all, instead of --epochs
    #[arg(long, value_name = "N", value_parser = positive, conflicts_with = "epochs")]
    pub(crate) steps: Option<usize>,
    /// Highest learning rate
    #[arg(long, value_name = "RATE")]
    pub(crate) lr: Option<f64>,
    /// Shape of the learning rate
    #[arg(long, value_enum, default_value = "cosine")]
    pub(crate) lr_schedule: ScheduleName,
    /// Steps of the piecewise schedule, separated by commas
    #[arg(long, value_name = "STEPS", value_delimiter = ',', required_if_eq("lr_schedule", "piecewise"))]
    pub(crate) lr_steps: Vec<usize>,
    /// Factor of the piecewise schedule
    #[arg(long, value_name = "FACTOR", default_value_t = 0.1)]
    pub(crate) lr_factor: f64,
    /// Share of the run in which the one-cycle rate rises
    #[arg(long, value_name = "SHARE", default_value_t = 0.3)]
    pub(crate) lr_rise: f64,
    /// Steps over which the learning rate rises at first
    #[arg(long, value_name = "STEPS")]
    pub(crate) warmup: Option<usize>,
    /// Learning rate of the loss's own parameters, as a multiple
    #[arg(long, value_name = "FACTOR")]
    pub(crate) loss_lr: Option<f64>,
    /// Learning rate of the head, as a multiple
    #[arg(long, value_name = "FACTOR")]
    pub(crate) head_lr: Option<f64>,
    /// The rule by which gradients become steps
    #[arg(long, value_enum, default_value = "sgd")]
    pub(crate) optimizer: OptimizerName,
    /// Share of the mean gradient kept (Adam)
    #[arg(long)]
    pub(crate) beta1: Option<f64>,
    /// Share of the mean squared gradient kept (Adam)
    #[arg(long)]
    pub(crate) beta2: Option<f64>,
    /// Added to the root of the mean squared gradient (Adam)
    #[arg(long)]
    pub(crate) adam_epsilon: Option<f64>,
    /// Momentum
    #[arg(long)]
    pub(crate) momentum: Option<f64>,
    /// Nesterov's momentum
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub(crate) nesterov: Option<bool>,
    /// L2 penalty
    #[arg(long)]
    pub(crate) weight_decay: Option<f64>,
    /// Leave scales, shifts and biases out of the penalty
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub(crate) no_decay_vectors: Option<bool>,
    /// End the run when the loss or the gradient's norm stays beyond so many times its median over the first 20 steps;
    /// 0 never does [default: 50]
    #[arg(long, value_name = "FACTOR")]
    pub(crate) explode_factor: Option<f64>,
    /// Steps one after another that it has to stay there [default: 10]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub(crate) explode_steps: Option<usize>,
    /// Scale gradients down to this norm; 0 leaves them alone
    #[arg(long, value_name = "NORM")]
    pub(crate) clip_norm: Option<f64>,
}

/// How photographs are varied.
#[derive(Debug, Args)]
#[command(next_help_heading = "Augmentation")]
pub(crate) struct AugmentArgs {
    /// Smallest area of the random crop, as a share of the photograph
    #[arg(long, value_name = "SHARE")]
    pub(crate) crop_min: Option<f32>,
    /// Largest area of the random crop
    #[arg(long, value_name = "SHARE")]
    pub(crate) crop_max: Option<f32>,
    /// Narrowest shape of the random crop, width / height
    #[arg(long, value_name = "RATIO")]
    pub(crate) ratio_min: Option<f32>,
    /// Widest shape of the random crop, width / height
    #[arg(long, value_name = "RATIO")]
    pub(crate) ratio_max: Option<f32>,
    /// Probability of mirroring
    #[arg(long, value_name = "P")]
    pub(crate) flip: Option<f32>,
    /// Greatest rotation to either side, in degrees
    #[arg(long, value_name = "DEGREES")]
    pub(crate) rotate: Option<f32>,
    /// Strength of random brightness
    #[arg(long, value_name = "SHARE")]
    pub(crate) brightness: Option<f32>,
    /// Strength of random contrast
    #[arg(long, value_name = "SHARE")]
    pub(crate) contrast: Option<f32>,
    /// Strength of random saturation
    #[arg(long, value_name = "SHARE")]
    pub(crate) saturation: Option<f32>,
    /// Greatest random turn of the hue, as a share of the colour circle
    #[arg(long, value_name = "SHARE")]
    pub(crate) hue: Option<f32>,
    /// Probability of losing all colour
    #[arg(long, value_name = "P")]
    pub(crate) grayscale: Option<f32>,
    /// Probability of being blurred
    #[arg(long, value_name = "P")]
    pub(crate) blur: Option<f32>,
    /// Smallest standard deviation of the blur, in pixels
    #[arg(long, value_name = "PIXELS")]
    pub(crate) blur_min: Option<f32>,
    /// Largest standard deviation of the blur
    #[arg(long, value_name = "PIXELS")]
    pub(crate) blur_max: Option<f32>,
    /// Probability that a rectangle is erased
    #[arg(long, value_name = "P")]
    pub(crate) erase: Option<f32>,
    /// Smallest area of that rectangle, as a share of the photograph
    #[arg(long, value_name = "SHARE")]
    pub(crate) erase_min: Option<f32>,
    /// Largest area of that rectangle
    #[arg(long, value_name = "SHARE")]
    pub(crate) erase_max: Option<f32>,
    /// Width and height of training photographs [default: the model's crop]
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) train_size: Option<u32>,
    /// Let training photographs grow: widths and heights separated by commas, each for an equal part of the run
    #[arg(long, value_name = "PIXELS", value_delimiter = ',', conflicts_with = "train_size")]
    pub(crate) progressive_size: Vec<u32>,
}

fn share(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "is not a number".to_owned())?;
    if (0.0..1.0).contains(&value) {
        Ok(value)
    } else {
        Err("must be from 0 up to, not including, 1".to_owned())
    }
}
