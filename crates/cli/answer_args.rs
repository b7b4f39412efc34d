//! Arguments that ask for better answers, of `search` and `eval` alike, and of derived indexes.

use std::path::PathBuf;

use clap::Args;
use semblance_query::answer::augment::AugmentConfig;
use semblance_query::answer::{CropBox, ExpansionConfig, RerankConfig, Views};
use semblance_query::{AnswerConfig, DeriveConfig, PhotoConfig};

use crate::args::{IndexArgs, positive};

/// What is done to a photograph and to the search with it.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Better answers")]
pub(crate) struct AnswerArgs {
    /// The part of each photograph that shows the item: left, top, width and height in pixels of the upright picture, or
    /// as shares of it (a decimal point makes them shares)
    #[arg(long = "box", value_name = "X,Y,W,H")]
    pub(crate) part: Option<CropBox>,
    /// Views of each photograph, averaged: centre, flip (and its mirror image) or crops (ten) [default: centre]
    #[arg(long, value_name = "VIEWS")]
    pub(crate) views: Option<Views>,
    /// Search again with the query drawn towards its N nearest [without N: 5]
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "5", value_parser = positive)]
    pub(crate) expand: Option<usize>,
    /// Power of the cosine that weighs those N [default: 3]
    #[arg(long, value_name = "ALPHA", requires = "expand", value_parser = power)]
    pub(crate) alpha: Option<f32>,
    /// Re-rank the N nearest by the neighbours they share with the query [without N: 100]
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "100", value_parser = positive)]
    pub(crate) rerank: Option<usize>,
    /// Only the best picture of each class
    #[arg(long)]
    pub(crate) one_per_class: bool,
}

impl AnswerArgs {
    pub(crate) fn photo(&self) -> PhotoConfig {
        PhotoConfig { crop: self.part, views: self.views.unwrap_or_default() }
    }

    pub(crate) fn answer(&self) -> AnswerConfig {
        let default = ExpansionConfig::default();
        let alpha = self.alpha.unwrap_or(default.alpha);
        AnswerConfig {
            expansion: self.expand.map(|neighbours| ExpansionConfig { neighbours, alpha }),
            rerank: self.rerank.map(|pool| RerankConfig { pool, ..RerankConfig::default() }),
            one_per_class: self.one_per_class,
            threshold: None,
        }
    }

    /// What is switched on, in words.
    pub(crate) fn told(&self) -> Vec<String> {
        let mut told = Vec::new();
        told.extend(self.part.map(|crop| format!("box {crop}")));
        told.extend(self.views.map(|views| format!("{} views", views.count())));
        told.extend(self.expand.map(|neighbours| format!("expanded by {neighbours}")));
        told.extend(self.rerank.map(|pool| format!("first {pool} re-ranked")));
        told.extend(self.one_per_class.then(|| "one per class".to_owned()));
        told
    }
}

/// How the answers of `search` are shown.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Answers")]
pub(crate) struct ShowArgs {
    /// Take all photographs for pictures of one item, and search with them as one
    #[arg(long)]
    pub(crate) together: bool,
    /// Items with a lower score are no answer; says "no match" where none is left (`eval --report` proposes a value)
    #[arg(long, value_name = "SCORE", value_parser = cosine)]
    pub(crate) threshold: Option<f32>,
    /// Write the answers as a page with their pictures
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Show pictures in the terminal: auto (where it says that it can), never, kitty, iterm or sixel; never where the
    /// output is no terminal
    #[arg(long, value_name = "HOW", value_enum, default_value_t)]
    pub(crate) pictures: PicturesArg,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum PicturesArg {
    /// Where the terminal says that it can
    #[default]
    Auto,
    /// Never
    Never,
    /// By kitty's protocol
    Kitty,
    /// By iTerm2's protocol
    Iterm,
    /// As sixels
    Sixel,
}

#[derive(Debug, Args)]
pub(crate) struct DeriveArgs {
    #[command(flatten)]
    pub(crate) index: IndexArgs,
    /// Name of the new index below --index-dir, or a path (with a / in it)
    #[arg(long, value_name = "NAME")]
    pub(crate) name: String,
    /// Whiten the vectors (PCA) to DIM numbers; queries and items added later are whitened alike
    #[arg(long, value_name = "DIM", value_parser = positive)]
    pub(crate) whiten: Option<usize>,
    /// Draw each item towards its N nearest [without N: 5]
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "5", value_parser = positive)]
    pub(crate) augment: Option<usize>,
    /// Replace an index of this name, once the new one is finished; until then the disk needs room for both
    #[arg(long)]
    pub(crate) replace: bool,
}

impl DeriveArgs {
    pub(crate) fn config(&self) -> DeriveConfig {
        let augment = |neighbours| AugmentConfig { neighbours, ..AugmentConfig::default() };
        DeriveConfig { whiten: self.whiten, augment: self.augment.map(augment), replace: self.replace }
    }
}

fn power(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(power) if (0.0..=100.0).contains(&power) => Ok(power),
        _ => Err("must be a number from 0 to 100".to_owned()),
    }
}

fn cosine(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(score) if (-1.0..=1.0).contains(&score) => Ok(score),
        _ => Err("must be a cosine from -1 to 1".to_owned()),
    }
}
