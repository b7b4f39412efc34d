//! The arguments of `semblance train`: one flag for every setting of a run.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::args::{DatasetArgs, ModelArgs, positive};

#[derive(Debug, Args)]
pub(crate) struct TrainArgs {
    #[command(flatten)]
    pub(crate) data: DatasetArgs,
    /// Folder of the run: best/, last/, train.jsonl
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Go on with the run in --out as if it had never stopped; give the same settings
    #[arg(long)]
    pub(crate) resume: bool,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Put a linear layer to this many dimensions on a bare backbone [default: the pooled features]
    #[arg(long, value_name = "DIM", value_parser = positive, help_heading = "Model")]
    pub(crate) embedding_dim: Option<usize>,
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
    /// others. 0 holds out none
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
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LossName {
    /// Classification by a linear layer
    Softmax,
    /// Classification with an additive angular margin (ArcFace)
    Arcmargin,
    /// Anchor nearer to the positive than to the negative
    Triplet,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum MinerName {
    /// Rows are anchor, positive, negative in turn
    Layout,
    /// Every triplet of the batch
    BatchAll,
    /// The farthest positive and the nearest negative of each anchor
    BatchHard,
    /// For each pair the nearest negative beyond the positive
    SemiHard,
}

/// What is minimised.
#[derive(Debug, Args)]
#[command(next_help_heading = "Loss")]
pub(crate) struct LossArgs {
    /// The loss
    #[arg(long, value_enum, default_value = "arcmargin")]
    pub(crate) loss: LossName,
    /// Scale of the cosines (arcmargin, normalised softmax)
    #[arg(long, value_name = "S")]
    pub(crate) scale: Option<f64>,
    /// Margin (arcmargin: radians; triplet: squared distance)
    #[arg(long, value_name = "M")]
    pub(crate) margin: Option<f64>,
    /// Apply arcmargin's margin only to angles below 90°
    #[arg(long)]
    pub(crate) easy_margin: bool,
    /// Normalise embeddings and class weights (softmax)
    #[arg(long)]
    pub(crate) normalize: bool,
    /// Share of the target spread over all classes (softmax)
    #[arg(long, value_name = "SHARE")]
    pub(crate) label_smoothing: Option<f64>,
    /// Which triplets (triplet)
    #[arg(long, value_enum)]
    pub(crate) miner: Option<MinerName>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ScheduleName {
    /// Half a cosine down to zero
    Cosine,
    /// Multiplied by --lr-factor at each of --lr-steps
    Piecewise,
    /// The same throughout
    Constant,
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
    /// Steps over which the learning rate rises at first
    #[arg(long, value_name = "STEPS")]
    pub(crate) warmup: Option<usize>,
    /// Learning rate of the loss's own parameters, as a multiple
    #[arg(long, value_name = "FACTOR")]
    pub(crate) loss_lr: Option<f64>,
    /// Momentum
    #[arg(long)]
    pub(crate) momentum: Option<f64>,
    /// Nesterov's momentum
    #[arg(long)]
    pub(crate) nesterov: bool,
    /// L2 penalty
    #[arg(long)]
    pub(crate) weight_decay: Option<f64>,
    /// Leave scales, shifts and biases out of the penalty
    #[arg(long)]
    pub(crate) no_decay_vectors: bool,
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
    /// Width and height of training photographs [default: the model's crop]
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) train_size: Option<u32>,
}

fn share(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "is not a number".to_owned())?;
    if (0.0..1.0).contains(&value) {
        Ok(value)
    } else {
        Err("must be from 0 up to, not including, 1".to_owned())
    }
}
