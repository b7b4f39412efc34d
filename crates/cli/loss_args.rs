//! The losses by name, and their settings as flags.

use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::args::positive;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub(crate) enum LossName {
    /// Classification by a linear layer
    Softmax,
    /// Classification with an additive angular margin (ArcFace)
    Arcmargin,
    /// Anchor nearer to the positive than to the negative
    Triplet,
    /// The farthest pair of one class nearer than the nearest pair of two (margin sample mining)
    Quadruplet,
    /// Means of exponential distances (Paddle)
    Eml,
    /// Each anchor's positive among all classes' positives
    Npairs,
    /// Pairs of one class near, pairs of two beyond a margin
    Contrastive,
    /// Pairs weighed by their similarity and that of the others
    MultiSimilarity,
    /// Pairs weighed by how far they are from their optimum
    Circle,
    /// Supervised contrastive
    Supcon,
    /// A proxy a class, the nearest one classifies (ProxyNCA++)
    ProxyNca,
    /// A proxy a class is the anchor of the batch
    ProxyAnchor,
    /// ArcFace with several weights a class
    Subcenter,
    /// Several centres per class, softly chosen
    SoftTriple,
    /// Average precision with soft steps
    SmoothAp,
    /// Recall@K with soft steps
    RecallSurrogate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum MeasureName {
    /// The distance between normalised embeddings
    Euclidean,
    /// Their cosine
    Cosine,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum MinerName {
    /// Rows are anchor, positive, negative in turn
    Layout,
    /// Every triplet of the batch
    BatchAll,
    /// The farthest positive and the nearest negative of each anchor
    BatchHard,
    /// For each pair the nearest negative beyond the positive
    SemiHard,
    /// For each pair a negative drawn so that all distances are as likely
    DistanceWeighted,
}

/// What is minimised. Each setting is one of the losses' by name; one that the chosen loss does not have is an error.
#[derive(Debug, Args, Serialize)]
#[command(next_help_heading = "Loss")]
pub(crate) struct LossArgs {
    /// The loss
    #[arg(long, value_enum, default_value = "arcmargin")]
    #[serde(rename = "name")]
    pub(crate) loss: LossName,
    /// Scale of the cosines (arcmargin, subcenter, soft_triple; softmax and npairs normalised) or squared distances (eml normalised)
    #[arg(long, value_name = "S")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) scale: Option<f64>,
    /// Margin (arcmargin, subcenter: radians; triplet, quadruplet: squared distance; circle, proxy_anchor, soft_triple: cosine)
    #[arg(long, value_name = "M")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) margin: Option<f64>,
    /// Apply arcmargin's margin only to angles below 90°
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) easy_margin: Option<bool>,
    /// Normalise embeddings (eml, npairs), and class weights (softmax)
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) normalize: Option<bool>,
    /// Share of the target spread over all classes (softmax)
    #[arg(long, value_name = "SHARE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) label_smoothing: Option<f64>,
    /// Which triplets (triplet)
    #[arg(long, value_enum)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) miner: Option<MinerName>,
    /// Multiplies the ratio (eml), or sharpness over negatives (multi_similarity)
    #[arg(long, value_name = "B")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) beta: Option<f64>,
    /// Sharpness over positives (multi_similarity), or scale of the cosines (proxy_anchor)
    #[arg(long, value_name = "A")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) alpha: Option<f64>,
    /// The cosine around which pairs weigh (multi_similarity)
    #[arg(long, value_name = "COSINE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) base: Option<f64>,
    /// How near to the hardest of the other kind a pair must be (multi_similarity)
    #[arg(long, value_name = "COSINE")]
    #[serde(skip_serializing_if = "Option::is_none", rename = "epsilon")]
    pub(crate) mining_epsilon: Option<f64>,
    /// Look at all pairs (multi_similarity)
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) all_pairs: Option<bool>,
    /// Weight of the mean squared norm (npairs)
    #[arg(long, value_name = "L")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reg_lambda: Option<f64>,
    /// What pairs are measured by (contrastive)
    #[arg(long, value_enum)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) measure: Option<MeasureName>,
    /// What a pair of one class may cost nothing at (contrastive)
    #[arg(long, value_name = "M")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pos_margin: Option<f64>,
    /// What a pair of two classes may cost nothing at (contrastive)
    #[arg(long, value_name = "M")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) neg_margin: Option<f64>,
    /// Scale of the cosines (circle), or temperature of the choice of a centre (soft_triple)
    #[arg(long, value_name = "G")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) gamma: Option<f64>,
    /// Divides the similarities (supcon, proxy_nca, smooth_ap, recall_surrogate)
    #[arg(long, value_name = "T")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) temperature: Option<f64>,
    /// Weights a class (subcenter, soft_triple)
    #[arg(long, value_name = "N", value_parser = positive)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) centers: Option<usize>,
    /// Weight of the regulariser (soft_triple)
    #[arg(long, value_name = "T")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tau: Option<f64>,
    /// The K of the mean (recall_surrogate), separated by commas
    #[arg(long, value_name = "K", value_delimiter = ',')]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) ks: Vec<usize>,
}
