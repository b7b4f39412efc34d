//! What each option of searching brings, measured on the same queries.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::answer::augment::{AugmentConfig, augmented};
use crate::answer::{
    AnswerConfig, Answering, CropBox, ExpansionConfig, Matrix, PhotoConfig, RerankConfig, Views, together,
};
use crate::error::{QueryError, Result};
use crate::evaluate::{Details, EvalConfig, Gallery, Queries, evaluate_in_detail};
use crate::report::LoneQueries;
use crate::statistics::bootstrap::{BootstrapConfig, Difference, differences};
use crate::whitening::Whitening;

/// Photographs of one class that [`Trial::Together`] puts together.
const TOGETHER: usize = 3;

/// One option, by exact search.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OptionRow {
    /// What was tried; `None` for plain search.
    #[serde(skip)]
    pub trial: Option<Trial>,
    /// Its name, with the value that was tried.
    pub name: String,
    /// What it does.
    pub what: String,
    /// Scored queries.
    pub queries: usize,
    /// Recall@1.
    pub recall_at_1: f64,
    /// Recall@10.
    pub recall_at_10: f64,
    /// MAP@R; `None` where the option shows each class once.
    pub map_at_r: Option<f64>,
    /// R-Precision, likewise.
    pub r_precision: Option<f64>,
    /// Queries a second of the search, embedding not counted.
    pub queries_per_second: f64,
    /// Against plain search by the paired bootstrap: Recall@1. `None` for plain search itself and other queries.
    pub gain_recall_at_1: Option<Difference>,
    /// The same for MAP@R.
    pub gain_map_at_r: Option<Difference>,
}

/// Something to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trial {
    /// The middle of each photograph only.
    Box,
    /// The photograph and its mirror image.
    Flip,
    /// Ten views of the photograph.
    Crops,
    /// Three photographs of a class as one query.
    Together,
    /// α-weighted query expansion.
    Expansion,
    /// Database augmentation.
    Augment,
    /// k-reciprocal re-ranking.
    Rerank,
    /// PCA-whitening, to a quarter of the directions at most 256.
    Whiten,
    /// The best item of each class only.
    OnePerClass,
    /// Mirror image, whitening, augmentation and expansion at once.
    Combined,
}

impl Trial {
    /// All, in the order of the table.
    pub const ALL: [Self; 10] = [
        Self::Box,
        Self::Flip,
        Self::Crops,
        Self::Together,
        Self::Expansion,
        Self::Augment,
        Self::Rerank,
        Self::Whiten,
        Self::OnePerClass,
        Self::Combined,
    ];

    /// Its name, by which users ask for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Box => "box",
            Self::Flip => "flip",
            Self::Crops => "crops",
            Self::Together => "together",
            Self::Expansion => "expand",
            Self::Augment => "augment",
            Self::Rerank => "rerank",
            Self::Whiten => "whiten",
            Self::OnePerClass => "one-per-class",
            Self::Combined => "combined",
        }
    }

    /// The photographs, if it needs them embedded otherwise.
    fn photo(self) -> Option<PhotoConfig> {
        let plain = PhotoConfig::default();
        match self {
            Self::Box => Some(PhotoConfig { crop: Some(CropBox::middle(0.8)), ..plain }),
            Self::Flip | Self::Combined => Some(PhotoConfig { views: Views::Flip, ..plain }),
            Self::Crops => Some(PhotoConfig { views: Views::Crops, ..plain }),
            _ => None,
        }
    }
}

impl FromStr for Trial {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let names = || Self::ALL.map(Self::name).join(", ");
        Self::ALL
            .into_iter()
            .find(|trial| trial.name() == text)
            .ok_or_else(|| format!("is none of {}", names()))
    }
}

/// Embeds the queries again with another treatment of their photographs, the same rows in the same order.
pub type Embed<'a> = dyn Fn(&PhotoConfig) -> Result<Vec<f32>> + 'a;

/// What the options are tried on.
pub struct Trials<'a> {
    /// The gallery, as the index holds it.
    pub gallery: &'a Matrix,
    /// The queries, plainly embedded.
    pub queries: &'a Queries<'a>,
    /// Embeds them otherwise; `None` where the photographs are not at hand: trials that need them are left out.
    pub embed: Option<&'a Embed<'a>>,
    /// What becomes of queries without a match.
    pub lone_queries: LoneQueries,
    /// For the gains.
    pub bootstrap: BootstrapConfig,
}

/// What one trial searches.
struct Setting<'a> {
    gallery: &'a Matrix,
    vectors: &'a [f32],
    answer: AnswerConfig,
}

impl Trials<'_> {
    /// Plain search first, then each trial; those that make no sense here are left out: whatever needs the photographs
    /// without them, and in leave-one-out those that would mix a query with its own item.
    ///
    /// # Errors
    /// Failures of embedding and of the search.
    pub fn run(&self, trials: &[Trial], progress: &dyn Fn(usize, usize)) -> Result<Vec<OptionRow>> {
        let own = self.queries.own_ids.is_some();
        let possible = |trial: &&Trial| {
            let alone = matches!(trial, Trial::Together | Trial::OnePerClass);
            (self.embed.is_some() || trial.photo().is_none()) && !(own && alone)
        };
        let trials: Vec<Trial> = trials.iter().filter(possible).copied().collect();
        let plain = self.measure(&self.setting(AnswerConfig::default()))?;
        let mut rows = vec![self.row("plain", "nearest neighbours", &plain, None)];
        for (done, trial) in trials.iter().enumerate() {
            progress(done, trials.len());
            rows.push(OptionRow { trial: Some(*trial), ..self.trial(*trial, &plain)? });
        }
        Ok(rows)
    }

    fn setting(&self, answer: AnswerConfig) -> Setting<'_> {
        Setting { gallery: self.gallery, vectors: self.queries.vectors, answer }
    }

    fn trial(&self, trial: Trial, plain: &Measured) -> Result<OptionRow> {
        let off = AnswerConfig::default();
        let expansion = Some(ExpansionConfig::default());
        let photo = match (trial.photo(), self.embed) {
            (Some(photo), Some(embed)) => Some(embed(&photo)?),
            _ => None,
        };
        let vectors = photo.as_deref().unwrap_or(self.queries.vectors);
        let answered = |answer: AnswerConfig, name: &str, what: &str| {
            let measured = self.measure(&Setting { vectors, ..self.setting(answer) })?;
            Ok(self.row(name, what, &measured, Some(plain)))
        };
        match trial {
            Trial::Box => answered(off, "box 0.1,0.1,0.8,0.8", "the middle of each photograph"),
            Trial::Flip => answered(off, "views flip", "and its mirror image, averaged"),
            Trial::Crops => answered(off, "views crops", "ten views, averaged"),
            Trial::Together => self.together(),
            Trial::Expansion => {
                let answer = AnswerConfig { expansion, ..off };
                answered(answer, "expand 5", "α-weighted query expansion, α = 3")
            }
            Trial::Rerank => {
                let answer = AnswerConfig { rerank: Some(RerankConfig::default()), ..off };
                answered(answer, "rerank", "k-reciprocal re-ranking of the first 100")
            }
            Trial::OnePerClass => {
                let answer = AnswerConfig { one_per_class: true, ..off };
                let mut row = answered(answer, "one-per-class", "the best item of each class")?;
                (row.map_at_r, row.r_precision, row.gain_map_at_r) = (None, None, None);
                Ok(row)
            }
            Trial::Augment => {
                let gallery = self.augmented(self.gallery)?;
                let measured = self.measure(&Setting { gallery: &gallery, ..self.setting(off) })?;
                Ok(self.row("augment 5", "items drawn to their neighbours", &measured, Some(plain)))
            }
            Trial::Whiten | Trial::Combined => {
                let dim = semblance_index::VectorIndex::dim(self.gallery);
                let outputs = (dim / 4).clamp(1, 256).min(self.gallery.ids().len().saturating_sub(1).max(1));
                let whitening = Whitening::learn(self.gallery.vectors(), dim, outputs)?;
                let mut gallery =
                    self.gallery.with_vectors(whitening.apply(self.gallery.vectors()), outputs)?;
                let vectors = whitening.apply(vectors);
                let (mut answer, name, what) = (off, format!("whiten {outputs}"), "PCA-whitening");
                if trial == Trial::Whiten {
                    let measured = self.measure(&Setting { gallery: &gallery, vectors: &vectors, answer })?;
                    return Ok(self.row(&name, what, &measured, Some(plain)));
                }
                gallery = self.augmented(&gallery)?;
                answer.expansion = expansion;
                let measured = self.measure(&Setting { gallery: &gallery, vectors: &vectors, answer })?;
                let (name, what) = ("combined", format!("flip, whiten {outputs}, augment 5, expand 5"));
                Ok(self.row(name, &what, &measured, Some(plain)))
            }
        }
    }

    fn augmented(&self, gallery: &Matrix) -> Result<Matrix> {
        let vectors = augmented(gallery, &AugmentConfig::default())?;
        Ok(gallery.with_vectors(vectors, semblance_index::VectorIndex::dim(gallery))?)
    }

    /// Every [`TOGETHER`] queries of a class, in their order, as one; what is left over is left out.
    fn together(&self) -> Result<OptionRow> {
        let dim = semblance_index::VectorIndex::dim(self.gallery);
        let rows: Vec<&[f32]> = self.queries.vectors.chunks_exact(dim).collect();
        let mut waiting = std::collections::BTreeMap::<&str, Vec<&[f32]>>::new();
        let (mut vectors, mut classes) = (Vec::new(), Vec::new());
        for (row, class) in rows.iter().zip(self.queries.classes) {
            let Some(class) = class.as_deref() else { continue };
            let group = waiting.entry(class).or_default();
            group.push(row);
            if group.len() == TOGETHER {
                vectors.extend(together(group).ok_or(QueryError::NothingInCommon)?);
                classes.push(Some(class.to_owned()));
                group.clear();
            }
        }
        let name = "together";
        let what = format!("{TOGETHER} photographs of a product as one query");
        if classes.is_empty() {
            let what = format!("{what}: no class has {TOGETHER}");
            return Ok(OptionRow { name: name.into(), what, ..OptionRow::nothing() });
        }
        let queries =
            Queries { name: self.queries.name, vectors: &vectors, classes: &classes, own_ids: None };
        let measured = self.measured(&queries, &self.setting(AnswerConfig::default()))?;
        Ok(self.row(name, &what, &measured, None))
    }

    fn measure(&self, setting: &Setting<'_>) -> Result<Measured> {
        let queries = Queries { vectors: setting.vectors, ..*self.queries };
        self.measured(&queries, setting)
    }

    fn measured(&self, queries: &Queries<'_>, setting: &Setting<'_>) -> Result<Measured> {
        let config = EvalConfig {
            ks: vec![1, 10],
            graph: false,
            lone_queries: self.lone_queries,
            ..EvalConfig::default()
        };
        let items = setting.gallery;
        let answering = Answering::new(items, &setting.answer);
        let labels = items.ids().iter().copied().zip(items.classes().iter().map(Option::as_deref));
        let gallery = Gallery::new(&answering, labels, "", "");
        let (report, mut details) = evaluate_in_detail(&gallery, queries, &config, &|_, _| {})?;
        let search = &report.searches[0];
        let queries_per_second = queries.classes.len() as f64 / search.seconds.max(1e-9);
        Ok(Measured { details: details.remove(0), queries_per_second })
    }

    fn row(&self, name: &str, what: &str, measured: &Measured, plain: Option<&Measured>) -> OptionRow {
        let values = Columns::of(&measured.details);
        let count = values.hit_at_1.len();
        let mean = |column: &[f64]| if count == 0 { 0.0 } else { column.iter().sum::<f64>() / count as f64 };
        let mut gains = [None, None];
        if let Some(plain) = plain.map(|plain| Columns::of(&plain.details)) {
            let minus = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<f64>>();
            let columns =
                [minus(&values.hit_at_1, &plain.hit_at_1), minus(&values.map_at_r, &plain.map_at_r)];
            gains = [0, 1].map(|column| differences(&columns, &self.bootstrap)[column]);
        }
        OptionRow {
            trial: None,
            name: name.to_owned(),
            what: what.to_owned(),
            queries: count,
            recall_at_1: mean(&values.hit_at_1),
            recall_at_10: mean(&values.hit_at_10),
            map_at_r: Some(mean(&values.map_at_r)),
            r_precision: Some(mean(&values.r_precision)),
            queries_per_second: measured.queries_per_second,
            gain_recall_at_1: gains[0],
            gain_map_at_r: gains[1],
        }
    }
}

impl OptionRow {
    fn nothing() -> Self {
        Self {
            trial: None,
            name: String::new(),
            what: String::new(),
            queries: 0,
            recall_at_1: 0.0,
            recall_at_10: 0.0,
            map_at_r: None,
            r_precision: None,
            queries_per_second: 0.0,
            gain_recall_at_1: None,
            gain_map_at_r: None,
        }
    }
}

struct Measured {
    details: Details,
    queries_per_second: f64,
}

/// The measures of the scored queries.
struct Columns {
    hit_at_1: Vec<f64>,
    hit_at_10: Vec<f64>,
    map_at_r: Vec<f64>,
    r_precision: Vec<f64>,
}

impl Columns {
    fn of(details: &Details) -> Self {
        let scored: Vec<_> = details.scored().map(|(_, outcome)| outcome).collect();
        let hit = |k: usize| scored.iter().map(|o| f64::from(u8::from(o.recall_at_k(k)))).collect();
        Self {
            hit_at_1: hit(1),
            hit_at_10: hit(10),
            map_at_r: scored.iter().map(|outcome| outcome.map_at_r).collect(),
            r_precision: scored.iter().map(|outcome| outcome.r_precision).collect(),
        }
    }
}
