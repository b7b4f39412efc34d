//! What a search asks for, and the search.

use semblance_index::{Filter, Index, Item, Neighbor, SearchParams};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::config::Limits;
use crate::problem::{Answer, Problem};

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
    /// Part of the photograph to search with, `x,y,width,height` in pixels of the upright photograph.
    #[param(rename = "box")]
    crop: Option<String>,
}

/// A part of a photograph in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CropBox {
    pub(crate) x: u32,
    pub(crate) y: u32,
    pub(crate) width: u32,
    pub(crate) height: u32,
}

/// What a search asks for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    pub(crate) params: SearchParams,
    pub(crate) group_by: Option<GroupBy>,
    pub(crate) crop: Option<CropBox>,
}

impl Wanted {
    /// Takes a parameter from an address or a form.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> Answer<()> {
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
                let filter = serde_json::from_str(value);
                self.params.filter = Some(filter.map_err(|e| bad(&format!("is no filter: {e}")))?);
            }
            "group_by" if value == "class" => self.group_by = Some(GroupBy::Class),
            "group_by" => return Err(bad("must be class")),
            "box" => {
                let numbers: Vec<u32> = value
                    .split(',')
                    .map(|part| part.trim().parse().map_err(|_| bad("must be x,y,width,height in pixels")))
                    .collect::<Answer<_>>()?;
                let [x, y, width, height] = numbers[..] else {
                    return Err(bad("must be x,y,width,height in pixels"));
                };
                self.crop = Some(CropBox { x, y, width, height });
            }
            _ => {
                let known = "k, ef_search, exact, filter, min_score, group_by, box";
                let message = format!("there is no parameter {name:?}; there is: {known}");
                return Err(Problem::bad_request(message));
            }
        }
        Ok(())
    }

    /// Refuses what costs too much or means nothing.
    pub(crate) fn check(&self, limits: &Limits) -> Answer<()> {
        let SearchParams { k, ef_search, min_score, ref filter, .. } = self.params;
        if k == 0 || k > limits.k {
            return Err(Problem::bad_request(format!("k = {k}: must be from 1 to {}", limits.k)));
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
        let SearchParams { k, ef_search, exact, ref filter, min_score } = self.params;
        let narrow = k <= 100 && ef_search.is_none_or(|ef| ef <= 256);
        narrow && !exact && filter.is_none() && min_score.is_none() && self.group_by.is_none()
    }

    /// The hits for a unit vector, best first, `but` left out.
    pub(crate) fn find(&self, index: &Index, vector: &[f32], but: Option<u64>) -> Answer<Vec<(Item, f32)>> {
        let (k, items) = (self.params.k, index.len());
        let mut asked = k + usize::from(but.is_some());
        if self.group_by.is_some() {
            asked = asked.saturating_mul(4);
        }
        loop {
            let params = SearchParams { k: asked, ..self.params.clone() };
            let found = index.search(vector, &params)?;
            let exhausted = found.len() < asked || asked >= items;
            let hits = self.gather(index, found, but)?;
            if hits.len() >= k || exhausted {
                return Ok(hits);
            }
            asked = asked.saturating_mul(4);
        }
    }

    /// The first `k` that count.
    fn gather(&self, index: &Index, found: Vec<Neighbor>, but: Option<u64>) -> Answer<Vec<(Item, f32)>> {
        let mut hits: Vec<(Item, f32)> = Vec::with_capacity(self.params.k.min(found.len()));
        for neighbor in found.into_iter().filter(|neighbor| Some(neighbor.id) != but) {
            if hits.len() == self.params.k {
                break;
            }
            let item = match index.item(neighbor.id) {
                Ok(item) => item,
                // Deleted since it was found.
                Err(semblance_index::IndexError::UnknownId { .. }) => continue,
                Err(error) => return Err(error.into()),
            };
            let seen = |(other, _): &(Item, f32)| item.class.is_some() && other.class == item.class;
            if self.group_by.is_none() || !hits.iter().any(seen) {
                hits.push((item, neighbor.score));
            }
        }
        Ok(hits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use semblance_index::{IndexConfig, IndexWriter, NewItem};

    fn index(dir: &std::path::Path) -> Index {
        let writer = IndexWriter::create(dir, &IndexConfig::new(2, "m")).unwrap();
        let items: Vec<NewItem> = (0..60)
            .map(|i| NewItem {
                class: (i < 50).then(|| format!("c{}", i / 25)),
                ..NewItem::new(format!("{i}"))
            })
            .collect();
        let vectors: Vec<f32> =
            (0..60).flat_map(|i| [(i as f32 / 60.0).cos(), (i as f32 / 60.0).sin()]).collect();
        writer.upsert(&items, &vectors).unwrap();
        writer.finish(&|_| {}).unwrap();
        Index::open(dir).unwrap()
    }

    #[test]
    fn groups_reach_beyond_the_first_class() {
        let dir = tempfile::tempdir().unwrap();
        let index = index(dir.path());
        let mut wanted = Wanted::default();
        wanted.set("k", "4").unwrap();
        wanted.set("group_by", "class").unwrap();
        let hits = wanted.find(&index, &[1.0, 0.0], None).unwrap();
        let keys: Vec<_> = hits.iter().map(|(item, _)| item.key.as_str()).collect();
        assert_eq!(keys, ["0", "25", "50", "51"], "one a class; items without a class by themselves");
        wanted.group_by = None;
        let first = index.find("0").unwrap();
        let hits = wanted.find(&index, &[1.0, 0.0], first).unwrap();
        assert_eq!(hits.iter().map(|(item, _)| item.key.as_str()).collect::<Vec<_>>(), ["1", "2", "3", "4"]);
    }

    #[test]
    fn parameters_are_read_and_checked() {
        let mut wanted = Wanted::default();
        wanted.set("box", "1, 2,30,40").unwrap();
        assert_eq!(wanted.crop, Some(CropBox { x: 1, y: 2, width: 30, height: 40 }));
        wanted.set("filter", r#"{"eq":{"field":"class","value":"c1"}}"#).unwrap();
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
            ("colour", "red"),
        ] {
            assert_eq!(Wanted::default().set(name, value).unwrap_err().status(), 400, "{name} = {value}");
        }
        for (name, value) in [("k", "0"), ("k", "1001"), ("ef_search", "0"), ("min_score", "NaN")] {
            let mut wanted = Wanted::default();
            wanted.set(name, value).unwrap();
            assert_eq!(wanted.check(&Limits::default()).unwrap_err().status(), 400, "{name} = {value}");
        }
    }
}
