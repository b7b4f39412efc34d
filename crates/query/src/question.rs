//! A question to an index, and its answer.

use semblance_index::{Explain, Index, Item, Neighbor, SearchParams, VectorIndex as _};
use serde::Serialize;

use crate::answer::{AnswerConfig, Answering, ItemIndex, Recorded, Without};
use crate::error::Result;

/// A found item.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Hit {
    /// Place in the result, from 1.
    pub rank: usize,
    /// Cosine similarity of the photograph and the item's picture, greater is closer.
    pub score: f32,
    /// The item.
    #[serde(flatten)]
    pub item: Item,
}

impl Hit {
    /// Joins neighbours, best first, with what the index knows of them.
    ///
    /// # Errors
    /// An id the index does not have, and failures of the index.
    pub fn of(index: &Index, neighbors: &[Neighbor]) -> Result<Vec<Self>> {
        let hit = |(place, neighbor): (usize, &Neighbor)| {
            Ok(Self { rank: place + 1, score: neighbor.score, item: index.item(neighbor.id)? })
        };
        neighbors.iter().enumerate().map(hit).collect()
    }
}

/// What a question got.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Answer {
    /// The items found, best first; those below the threshold are left out.
    pub hits: Vec<Hit>,
    /// Whether even the best item stayed below the threshold.
    pub no_match: bool,
    /// Cosine of the best item, whether above the threshold or below.
    pub best: Option<f32>,
    /// How the index was searched, search after search, if that was asked for: expansion and grouping search several times.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub searches: Vec<Explain>,
}

/// What is asked of an index.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Unit vector of the index's dimension.
    pub vector: &'a [f32],
    /// An item that is no answer: the one that is searched with.
    pub without: Option<u64>,
    /// How many, how searched, on which conditions.
    pub params: &'a SearchParams,
    /// What is done for a better answer.
    pub config: &'a AnswerConfig,
    /// Whether to tell how the answer was found.
    pub explain: bool,
}

impl Question<'_> {
    /// The answer of an index, all from one of its states, whatever is written meanwhile.
    ///
    /// # Errors
    /// A vector of another dimension or without direction, k = 0, and failures of the index.
    pub fn ask(&self, index: &Index) -> Result<Answer> {
        let index = index.frozen();
        let recorded;
        let (found, searches) = if self.explain {
            recorded = Recorded::new(&index);
            let found = self.search(&recorded)?;
            (found, recorded.searches())
        } else {
            (self.search(&index)?, Vec::new())
        };
        let best = found.iter().map(|neighbor| neighbor.score).max_by(f32::total_cmp);
        let threshold = self.config.threshold;
        let enough = |neighbor: &Neighbor| threshold.is_none_or(|least| neighbor.score >= least);
        let kept: Vec<Neighbor> = found.into_iter().filter(enough).collect();
        let no_match = threshold.is_some() && kept.is_empty();
        Ok(Answer { hits: Hit::of(&index, &kept)?, no_match, best, searches })
    }

    fn search(&self, index: &dyn ItemIndex) -> Result<Vec<Neighbor>> {
        let without;
        let index = match self.without {
            None => index,
            Some(id) => {
                without = Without::new(index, id);
                &without
            }
        };
        Ok(Answering::new(index, self.config).search(self.vector, self.params)?)
    }
}

#[cfg(test)]
mod tests {
    use semblance_index::{IndexConfig, IndexWriter, NewItem};

    use super::*;
    use crate::answer::ExpansionConfig;

    fn index(dir: &std::path::Path) -> Index {
        let writer = IndexWriter::create(dir, &IndexConfig::new(2, "m")).unwrap();
        let item = |i: u32| NewItem {
            class: (i < 50).then(|| format!("c{}", i / 25)),
            ..NewItem::new(i.to_string())
        };
        let angle = |i: u32| i as f32 / 60.0;
        let vectors: Vec<f32> = (0..60).flat_map(|i| [angle(i).cos(), angle(i).sin()]).collect();
        writer.upsert(&(0..60).map(item).collect::<Vec<_>>(), &vectors).unwrap();
        writer.finish(&|_| {}).unwrap();
        Index::open(dir).unwrap()
    }

    fn keys(answer: &Answer) -> Vec<&str> {
        answer.hits.iter().map(|hit| hit.item.key.as_str()).collect()
    }

    #[test]
    fn groups_reach_beyond_the_first_class_and_every_search_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let index = index(dir.path());
        let (params, plain) = (SearchParams::new(4), AnswerConfig::default());
        let question =
            Question { vector: &[1.0, 0.0], without: None, params: &params, config: &plain, explain: true };
        let answer = question.ask(&index).unwrap();
        assert_eq!((keys(&answer), answer.searches.len()), (vec!["0", "1", "2", "3"], 1));

        let grouped = AnswerConfig { one_per_class: true, ..AnswerConfig::default() };
        let answer = Question { config: &grouped, ..question }.ask(&index).unwrap();
        assert_eq!(keys(&answer), ["0", "25", "50", "51"], "items without a class stand for themselves");
        assert!(answer.searches.len() > 1, "{:?}", answer.searches);
        // The item that is searched with does not stand for its class.
        let own = Question { config: &grouped, without: index.find("0").unwrap(), ..question };
        assert_eq!(keys(&own.ask(&index).unwrap()), ["1", "25", "50", "51"]);

        let expanded =
            AnswerConfig { expansion: Some(ExpansionConfig::default()), ..AnswerConfig::default() };
        let answer = Question { config: &expanded, ..question }.ask(&index).unwrap();
        assert_eq!(answer.searches.len(), 2);
        let silent = Question { explain: false, ..question }.ask(&index).unwrap();
        assert_eq!(silent.searches, []);
    }

    #[test]
    fn below_the_threshold_is_no_match_and_the_best_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let index = index(dir.path());
        let params = SearchParams::new(3);
        let config = AnswerConfig { threshold: Some(0.5), ..AnswerConfig::default() };
        let question = Question {
            vector: &[-1.0, 0.0],
            without: None,
            params: &params,
            config: &config,
            explain: false,
        };
        let answer = question.ask(&index).unwrap();
        assert!(answer.no_match && answer.hits.is_empty());
        assert!(answer.best.is_some_and(|best| best < 0.0), "{:?}", answer.best);
    }
}
