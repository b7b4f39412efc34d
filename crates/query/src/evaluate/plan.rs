//! What is settled before the first search: which queries count, how deep the rankings go.

use semblance_index::Neighbor;

use super::{EvalConfig, Gallery, LoneQueries, Protocol, Queries};
use crate::error::{QueryError, Result};
use crate::metrics::without_self;
use crate::report::QueryCounts;

/// The settled facts of an evaluation.
pub(super) struct Plan<'a> {
    pub(super) gallery: &'a Gallery<'a>,
    own_ids: Option<&'a [u64]>,
    /// `None` for an unlabelled query.
    pub(super) classes: Vec<Option<QueryClass>>,
    pub(super) counts: QueryCounts,
    /// K asked for and K used, ascending.
    pub(super) ks: Vec<(usize, usize)>,
    /// Places of a ranking: the greatest K used, or the greatest R.
    pub(super) depth: usize,
    /// Neighbours of each query to keep for [`super::Details`].
    pub(super) keep: usize,
}

/// A query's class.
#[derive(Clone, Copy)]
pub(super) struct QueryClass {
    /// Its number in the gallery; `None` for a class the gallery does not have.
    pub(super) number: Option<u32>,
    /// R: the matches the gallery holds, the query itself not counted.
    pub(super) relevant: usize,
}

impl<'a> Plan<'a> {
    pub(super) fn new(gallery: &'a Gallery<'a>, queries: &Queries<'a>, config: &EvalConfig) -> Result<Self> {
        check(gallery, queries, config)?;
        let class = |(place, class): (usize, &Option<String>)| -> Option<QueryClass> {
            let Some((number, size)) = gallery.class(class.as_ref()?) else {
                return Some(QueryClass { number: None, relevant: 0 });
            };
            let own = queries.own_ids.is_some_and(|ids| gallery.class_of(ids[place]) == Some(number));
            Some(QueryClass { number: Some(number), relevant: size - usize::from(own) })
        };
        let classes: Vec<Option<QueryClass>> = queries.classes.iter().enumerate().map(class).collect();

        let labelled = classes.iter().flatten().count();
        let without_match = classes.iter().flatten().filter(|class| class.relevant == 0).count();
        let counts = QueryCounts {
            total: classes.len(),
            scored: match config.lone_queries {
                LoneQueries::Exclude => labelled - without_match,
                LoneQueries::CountAsMiss => labelled,
            },
            without_match,
            unlabelled: classes.len() - labelled,
            rule: config.lone_queries,
        };

        let reachable = gallery.index.len() - usize::from(queries.own_ids.is_some());
        let mut ks = config.ks.clone();
        ks.sort_unstable();
        ks.dedup();
        let ks: Vec<(usize, usize)> = ks.into_iter().map(|k| (k, k.min(reachable))).collect();
        let deepest_k = ks.iter().map(|(_, used)| *used).max().unwrap_or(0);
        let deepest_class = classes.iter().flatten().map(|class| class.relevant).max().unwrap_or(0);
        Ok(Self {
            gallery,
            own_ids: queries.own_ids,
            classes,
            counts,
            ks,
            depth: deepest_k.max(deepest_class),
            keep: config.keep,
        })
    }

    /// Neighbours to ask for: one more where the query itself will be among them.
    pub(super) fn search_k(&self) -> usize {
        (self.depth + usize::from(self.own_ids.is_some())).max(1)
    }

    pub(super) fn protocol(&self) -> Protocol {
        if self.own_ids.is_some() { Protocol::LeaveOneOut } else { Protocol::QueryAgainstGallery }
    }

    /// Takes the queries themselves out of their neighbours; `first` is the place of the first list's query.
    pub(super) fn without_queries(&self, found: Vec<Vec<Neighbor>>, first: usize) -> Vec<Vec<Neighbor>> {
        let Some(ids) = self.own_ids else { return found };
        let own = &ids[first..first + found.len()];
        found.into_iter().zip(own).map(|(list, id)| without_self(list, *id, self.depth, |n| n.id)).collect()
    }
}

fn check(gallery: &Gallery<'_>, queries: &Queries<'_>, config: &EvalConfig) -> Result<()> {
    let (dim, total) = (gallery.index.dim(), queries.classes.len());
    if config.ks.is_empty() || config.ks.contains(&0) {
        return Err(QueryError::ZeroK);
    }
    if gallery.index.is_empty() {
        return Err(QueryError::EmptyGallery { gallery: gallery.name.clone() });
    }
    if total == 0 {
        return Err(QueryError::NoQueries { queries: queries.name.to_owned() });
    }
    if queries.vectors.len() != total * dim || queries.own_ids.is_some_and(|ids| ids.len() != total) {
        return Err(QueryError::QueryShape {
            queries: total,
            dim,
            numbers: queries.vectors.len(),
            ids: queries.own_ids.map(<[u64]>::len),
        });
    }
    Ok(())
}
