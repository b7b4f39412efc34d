//! A graph while it is built: links that threads write while others follow them.

use std::sync::Mutex;
use std::sync::atomic::{
    AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

use crate::hnsw::graph::NONE;
use crate::hnsw::neighbor_selection::Selection;
use crate::hnsw::search::Links;

/// Of a node whose links come from a graph made before.
pub(super) const UNKNOWN: u16 = u16::MAX;

/// A graph that is being built.
pub(super) struct Growing<'a> {
    pub(super) m: usize,
    pub(super) stride: usize,
    pub(super) levels: Vec<u8>,
    pub(super) ground: &'a [AtomicU32],
    pub(super) upper_start: Vec<u32>,
    pub(super) upper: &'a [AtomicU32],
    /// Scores of the links on the ground layer with the node that has them.
    pub(super) scores: Vec<AtomicU32>,
    /// How many of a node's links on the ground layer were taken, the rest having been passed over; or [`UNKNOWN`].
    pub(super) taken: Vec<Mutex<u16>>,
    /// Entry node and its layer in one word, so that both are read together.
    pub(super) entry: AtomicU64,
    pub(super) entry_lock: Mutex<()>,
}

impl Links for Growing<'_> {
    fn nodes(&self) -> usize {
        self.levels.len()
    }

    #[inline(always)]
    fn each(&self, node: u32, level: u8, mut visit: impl FnMut(u32)) {
        for link in self.row(node, level) {
            let link = link.load(Acquire);
            if link == NONE {
                break;
            }
            visit(link);
        }
    }

    #[inline(always)]
    fn prefetch(&self, node: u32) {
        crate::codes::kernel::prefetch(self.row(node, 0).as_ptr(), 128);
    }
}

impl Growing<'_> {
    pub(super) fn row(&self, node: u32, level: u8) -> &[AtomicU32] {
        if level == 0 {
            &self.ground[node as usize * self.stride..][..2 * self.m]
        } else {
            let start = self.upper_start[node as usize] as usize + usize::from(level - 1) * self.m;
            &self.upper[start..start + self.m]
        }
    }

    pub(super) fn entry(&self) -> Option<(u32, u8)> {
        let word = self.entry.load(Acquire);
        (word != u64::MAX).then_some((word as u32, (word >> 32) as u8))
    }

    /// Writes the links of a node, whose lock the caller holds.
    pub(super) fn put(&self, node: u32, layer: u8, selection: &Selection, taken: &mut u16) {
        let row = self.row(node, layer);
        for (i, place) in row.iter().enumerate() {
            place.store(selection.links.get(i).map_or(NONE, |l| l.node), Release);
        }
        if layer == 0 {
            *taken = selection.taken as u16;
            for (place, link) in self.scores[node as usize * row.len()..].iter().zip(&selection.links) {
                place.store(link.score.to_bits(), Relaxed);
            }
        }
    }

    pub(super) fn set_entry(&self, node: u32) {
        self.entry.store(u64::from(self.levels[node as usize]) << 32 | u64::from(node), Release);
    }
}

/// The same numbers, for threads to share.
pub(super) fn atomics(numbers: &mut [u32]) -> &[AtomicU32] {
    const { assert!(align_of::<AtomicU32>() == align_of::<u32>()) };
    // SAFETY: an `AtomicU32` has the size of a `u32` and, here, its alignment; the borrow is exclusive, so while the
    // result lives nobody reads or writes the numbers in any other way.
    unsafe { &*(std::ptr::from_mut(numbers) as *const [AtomicU32]) }
}
