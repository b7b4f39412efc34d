//! Searching a small segment without its graph: the rows whose sign bits say that they may be among the best of the
//! segments searched before are scored.

use super::Strategy;
use super::accepted_rows::AcceptedRows;
use super::segment_search::{SEARCH_COST, SegmentAnswer, SegmentQuery};
use crate::codes::rescore;
use crate::config::Codes;
use crate::error::Result;
use crate::hnsw::search::Scored;

/// A search of a graph scores about this many nodes on the way to the region of the query.
const DESCENT_COST: usize = 300;
/// How far a score by codes is taken to be off at most, in standard deviations.
const DEVIATIONS: f32 = 5.0;

/// Searches a segment for nodes that reach the score `bar`. `None` if it has no bits, or if too much would have to be
/// scored: then its graph is quicker.
pub(super) fn search(
    rows: &AcceptedRows<'_>,
    query: &[f32],
    padded: &[f32],
    wanted: SegmentQuery,
    bar: f32,
) -> Result<Option<SegmentAnswer>> {
    let segment = rows.segment;
    let Some(bits) = segment.sign_bits()? else { return Ok(None) };
    let most = (DESCENT_COST + SEARCH_COST * wanted.ef).min(segment.nodes() / 2);
    let Some(near) = bits.candidates(&bits.query(padded), bar, most) else { return Ok(None) };
    let all = rows.is_whole();
    let near = near.iter().map(|near| near.row).filter(|&row| all || rows.accepts(row));
    let mut best: Vec<Scored> = near.map(|node| Scored { score: bar, node }).collect();
    let mut scored = 0;
    // Vectors are longer than codes: what is below the bar by its codes need not be read.
    if segment.kind() != Codes::F32 && !best.is_empty() {
        scored += best.len();
        let codes = segment.codes()?.query(query);
        let least = bar - DEVIATIONS * codes.deviation(&best);
        let (nodes, mut scores): (Vec<u32>, _) = (best.iter().map(|s| s.node).collect(), Vec::new());
        codes.scores(&nodes, &mut scores);
        best.iter_mut().zip(scores).for_each(|(s, score)| s.score = score);
        best.retain(|s| s.score >= least);
    }
    scored += rescore::all(segment, padded, &mut best)?;
    let found = rows.items(&best, wanted.k, bar);
    let strategy = Strategy::Graph { ef: wanted.ef };
    Ok(Some(SegmentAnswer { found, strategy, scored, reached: f32::NEG_INFINITY }))
}
