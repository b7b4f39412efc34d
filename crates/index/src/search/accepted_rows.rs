//! Which rows of a segment count in a search: those not hidden that meet the filter.

use roaring::RoaringBitmap;

use crate::backend::vector_index::{Neighbor, SearchParams};
use crate::error::Result;
use crate::hnsw::search::Scored;
use crate::segment::item_table::NodeRows;
use crate::segment::segment_reader::SegmentReader;

/// Which rows of a segment count.
pub(super) struct AcceptedRows<'a> {
    pub(super) segment: &'a SegmentReader,
    rows: NodeRows<'a>,
    hidden: &'a RoaringBitmap,
    /// One bit per row that meets the filter and is not hidden. `None` without a filter.
    bits: Option<Vec<u64>>,
    /// How many rows count.
    pub(super) count: usize,
}

impl<'a> AcceptedRows<'a> {
    pub(super) fn new(
        segment: &'a SegmentReader,
        hidden: &'a RoaringBitmap,
        params: &SearchParams,
    ) -> Result<Self> {
        params.cancel.check()?;
        let (len, rows) = (segment.len(), segment.items().node_rows());
        let Some(filter) = &params.filter else {
            return Ok(Self { segment, rows, hidden, bits: None, count: len - hidden.len() as usize });
        };
        let columns = segment.columns(&params.cancel)?;
        let mut bits = columns.matching(&filter.matcher().0, segment.items(), &params.cancel)?;
        hidden.iter().for_each(|row| bits[row as usize / 64] &= !(1 << (row % 64)));
        let count = bits.iter().map(|w| w.count_ones() as usize).sum();
        Ok(Self { segment, rows, hidden, bits: Some(bits), count })
    }

    /// True if every node has a row that counts.
    pub(super) fn is_whole(&self) -> bool {
        self.bits.is_none() && self.hidden.is_empty() && self.segment.entry().dead_nodes == 0
    }

    /// Rows of a node that count, in order of ids.
    fn of(&self, node: u32) -> impl Iterator<Item = u32> + '_ {
        let all = self.rows.of(node).iter().copied();
        all.filter(|&row| match &self.bits {
            Some(bits) => bits[row as usize / 64] >> (row % 64) & 1 == 1,
            None => !self.hidden.contains(row),
        })
    }

    /// Whether a node has a row that counts.
    pub(super) fn accepts(&self, node: u32) -> bool {
        self.of(node).next().is_some()
    }

    /// Lowest id of a node's items that count: the order among equal scores.
    pub(super) fn tie(&self, node: u32) -> u64 {
        self.of(node).next().map_or(u64::MAX, |row| self.segment.items().ids()[row as usize])
    }

    /// Nodes with an item that counts, each once.
    pub(super) fn nodes(&self) -> Vec<u32> {
        let all = 0..self.segment.nodes() as u32;
        match &self.bits {
            _ if self.is_whole() => all.collect(),
            // Few: from the rows. Else each node is asked.
            Some(bits) if self.count < self.segment.nodes() / 8 => {
                let node_of = self.segment.items().node_of();
                let mut nodes = Vec::with_capacity(self.count);
                for (word, &bits) in bits.iter().enumerate() {
                    let mut rest = bits;
                    while rest != 0 {
                        nodes.push(node_of[word * 64 + rest.trailing_zeros() as usize]);
                        rest &= rest - 1;
                    }
                }
                nodes.sort_unstable();
                nodes.dedup();
                nodes
            }
            _ => all.filter(|&node| self.accepts(node)).collect(),
        }
    }

    /// The `k` best items of scored nodes, best first.
    pub(super) fn items(&self, nodes: &[Scored], k: usize, min: f32) -> Vec<Neighbor> {
        let ids = self.segment.items().ids();
        let mut found = Vec::with_capacity(nodes.len().min(k));
        // Each node has an item that counts: one below k others needs no look at its items.
        let mut min = min;
        if (1..nodes.len()).contains(&k) {
            let mut scores: Vec<f32> = nodes.iter().map(|s| s.score).collect();
            min = min.max(*scores.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a)).1);
        }
        for scored in nodes.iter().filter(|s| s.score >= min) {
            for row in self.of(scored.node).take(k) {
                found.push(Neighbor { id: ids[row as usize], score: scored.score });
            }
        }
        found.sort_unstable_by(Neighbor::cmp_best_first);
        found.truncate(k);
        found
    }
}
