//! What a search asks for, and the search.

use semblance_index::{Filter, Index, SearchParams};
use semblance_query::answer::{AnswerConfig, CropError, ExpansionConfig, RerankConfig};
use semblance_query::{Hit, PhotoConfig, Question};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::config::Limits;
use crate::problem::{Answer, Problem};
use crate::work::{Memory, Share};

/// How hits are gathered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum GroupBy {
    /// The best hit of each class; items without a class stand for themselves.
    Class,
}

/// What a search asks for, as it comes in an address or a form.
#[derive(Debug, Clone, Default, IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "describes the parameters that `Wanted::set` takes")]
pub(crate) struct SearchQuery {
    /// Hits wanted.
    #[param(minimum = 1, maximum = 1000, default = 10)]
    k: Option<usize>,
    /// Candidates the walk through the graph keeps.
    #[param(minimum = 1, maximum = 10000)]
    ef_search: Option<usize>,
    /// Compare with every vector.
    exact: Option<bool>,
    /// Condition on the items as JSON, such as `{"eq":{"field":"class","value":"shoe"}}`.
    filter: Option<String>,
    /// Lowest cosine of a hit.
    #[param(minimum = -1, maximum = 1)]
    min_score: Option<f32>,
    /// `class`: only the best hit of each class.
    group_by: Option<String>,
    /// Search again with the query moved towards this many of its nearest.
    #[param(minimum = 1, maximum = 1000)]
    expand: Option<usize>,
    /// Re-rank this many of the nearest by the neighbours they share with the query.
    #[param(minimum = 1, maximum = 1000)]
    rerank: Option<usize>,
    /// Part of each photograph to search with: `x,y,width,height` in pixels of the upright photograph, or as shares of it
    /// (a decimal point makes them shares).
    #[param(rename = "box")]
    crop: Option<String>,
    /// Views of each photograph, averaged: `centre`, `flip` (and its mirror image) or `crops` (ten).
    views: Option<String>,
}

/// What a search asks for.
#[derive(Default)]
pub(crate) struct Wanted {
    pub(crate) params: SearchParams,
    /// The memory that the filter takes.
    pub(crate) share: Share,
    pub(crate) config: AnswerConfig,
    pub(crate) photo: PhotoConfig,
}

impl Wanted {
    /// Takes a parameter from an address or a form.
    pub(crate) fn set(&mut self, name: &str, value: &str, memory: &Memory) -> Answer<()> {
        let bad = |what: &str| Problem::bad_request(format!("{name} = {value:?}: {what}"));
        let count = || value.parse().map_err(|_| bad("must be a whole number"));
        match name {
            "k" => self.params.k = count()?,
            "ef_search" => self.params.ef_search = Some(count()?),
            "exact" => self.params.exact = value.parse().map_err(|_| bad("must be true or false"))?,
            "min_score" => {
                self.params.min_score = Some(value.parse().map_err(|_| bad("must be a number"))?);
            }
            "filter" => {
                let (filter, share) = memory.parse(value.as_bytes(), "the filter")?;
                (self.params.filter, self.share) = (Some(filter), share);
            }
            "group_by" if value == "class" => self.config.one_per_class = true,
            "group_by" => return Err(bad("must be class")),
            "expand" => self.expand(count()?),
            "rerank" => self.rerank(count()?),
            "box" => self.photo.crop = Some(value.parse().map_err(|e: CropError| bad(&e.to_string()))?),
            "views" => self.photo.views = value.parse().map_err(|e: String| bad(&e))?,
            _ => {
                let known = "k, ef_search, exact, filter, min_score, group_by, expand, rerank, box, views";
                let message = format!("there is no parameter {name:?}; there is: {known}");
                return Err(Problem::bad_request(message));
            }
        }
        Ok(())
    }

    pub(crate) fn expand(&mut self, neighbours: usize) {
        self.config.expansion = Some(ExpansionConfig { neighbours, ..ExpansionConfig::default() });
    }

    pub(crate) fn rerank(&mut self, pool: usize) {
        self.config.rerank = Some(RerankConfig { pool, ..RerankConfig::default() });
    }

    /// Refuses what costs too much or means nothing.
    pub(crate) fn check(&self, limits: &Limits) -> Answer<()> {
        let SearchParams { k, ef_search, min_score, ref filter, .. } = self.params;
        let AnswerConfig { expansion, rerank, .. } = self.config;
        let counts = [
            ("k", Some(k)),
            ("expand", expansion.map(|config| config.neighbours)),
            ("rerank", rerank.map(|config| config.pool)),
        ];
        for (name, count) in counts {
            if let Some(count) = count
                && (count == 0 || count > limits.k)
            {
                let message = format!("{name} = {count}: must be from 1 to {}", limits.k);
                return Err(Problem::bad_request(message));
            }
        }
        if let Some(ef) = ef_search
            && (ef == 0 || ef > limits.ef_search)
        {
            let message = format!("ef_search = {ef}: must be from 1 to {}", limits.ef_search);
            return Err(Problem::bad_request(message));
        }
        if min_score.is_some_and(|score| !score.is_finite()) {
            return Err(Problem::bad_request("min_score must be a finite number"));
        }
        filter.as_ref().map_or(Ok(()), Filter::validate)?;
        Ok(())
    }

    /// Whether the search is so quick that handing it to another thread would cost more.
    pub(crate) fn is_quick(&self) -> bool {
        let SearchParams { k, ef_search, exact, ref filter, min_score, .. } = self.params;
        let narrow = k <= 100 && ef_search.is_none_or(|ef| ef <= 256);
        narrow && !exact && filter.is_none() && min_score.is_none() && self.config.is_plain()
    }

    /// The hits for a unit vector, best first, `without` left out.
    pub(crate) fn find(&self, index: &Index, vector: &[f32], without: Option<u64>) -> Answer<Vec<Hit>> {
        let question =
            Question { vector, without, params: &self.params, config: &self.config, explain: false };
        Ok(question.ask(index)?.hits)
    }
}

#[cfg(test)]
mod tests {
    use semblance_query::answer::{CropBox, Views};

    use super::*;
    #[test]
    fn parameters_are_read_and_checked() {
        let memory = Memory::new(1 << 20, 1 << 20, std::time::Duration::from_secs(1));
        let mut wanted = Wanted::default();
        for (name, value) in [
            ("box", "1, 2,30,40"),
            ("views", "flip"),
            ("expand", "3"),
            ("rerank", "50"),
            ("group_by", "class"),
        ] {
            wanted.set(name, value, &memory).unwrap();
        }
        assert_eq!(
            wanted.photo,
            PhotoConfig { crop: Some(CropBox::Pixels([1, 2, 30, 40])), views: Views::Flip }
        );
        assert_eq!(wanted.config.expansion.map(|config| config.neighbours), Some(3));
        assert_eq!(wanted.config.rerank.map(|config| config.pool), Some(50));
        assert!(wanted.config.one_per_class && !wanted.is_quick());
        wanted.set("filter", r#"{"eq":{"field":"class","value":"c1"}}"#, &memory).unwrap();
        wanted.check(&Limits::default()).unwrap();
        for (name, value) in [
            ("k", "-1"),
            ("k", "x"),
            ("exact", "yes"),
            ("min_score", "high"),
            ("filter", "{}"),
            ("group_by", "colour"),
            ("box", "1,2,3"),
            ("box", "1,2,3,-4"),
            ("views", "all"),
            ("expand", "-1"),
            ("colour", "red"),
        ] {
            let refused = Wanted::default().set(name, value, &memory).unwrap_err();
            assert_eq!(refused.status(), 400, "{name} = {value}");
        }
        for (name, value) in [
            ("k", "0"),
            ("k", "1001"),
            ("expand", "0"),
            ("rerank", "1001"),
            ("ef_search", "0"),
            ("min_score", "NaN"),
        ] {
            let mut wanted = Wanted::default();
            wanted.set(name, value, &memory).unwrap();
            assert_eq!(wanted.check(&Limits::default()).unwrap_err().status(), 400, "{name} = {value}");
        }
    }
}
