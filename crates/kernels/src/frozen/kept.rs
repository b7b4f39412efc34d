//! Plans and memory that runs leave behind for the next ones, within bounds: those of the sizes used last.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::Result;

use super::plan::{Arena, Plan};

/// Sizes whose plans are kept.
const PLANS: usize = 4;
/// Arenas kept over all sizes, or as many as there are threads if those are more: each may run a network of its own.
const ARENAS: usize = 4;

/// Images, their height and width, and the threads they are computed on.
type Key = (usize, usize, usize, usize);

/// The plans and arenas kept, the most recently used size last.
#[derive(Default)]
pub(super) struct Kept(Mutex<Vec<Entry>>);

struct Entry {
    key: Key,
    plan: Arc<Plan>,
    /// Memory of runs that have ended.
    arenas: Vec<Arena>,
}

impl Kept {
    /// The plan for a size, which `make` makes if none is kept, and memory to run it in.
    pub(super) fn take(&self, key: Key, make: impl FnOnce() -> Result<Plan>) -> Result<(Arc<Plan>, Arena)> {
        if let Some((plan, arena)) = self.find(key) {
            let arena = arena.unwrap_or_else(|| plan.arena());
            return Ok((plan, arena));
        }
        let plan = Arc::new(make()?);
        let arena = plan.arena();
        let mut entries = self.lock();
        if !entries.iter().any(|entry| entry.key == key) {
            entries.push(Entry { key, plan: Arc::clone(&plan), arenas: Vec::new() });
        }
        let oldest = (entries.len() > PLANS).then(|| entries.remove(0));
        drop(entries);
        // Memory is returned to the system while nobody waits.
        drop(oldest);
        Ok((plan, arena))
    }

    /// Takes the memory of a run that has ended, unless its size is no longer kept.
    pub(super) fn give(&self, key: Key, arena: Arena) {
        let most = ARENAS.max(key.3);
        let mut entries = self.lock();
        let Some(entry) = entries.iter_mut().find(|entry| entry.key == key) else { return };
        entry.arenas.push(arena);
        let held: usize = entries.iter().map(|entry| entry.arenas.len()).sum();
        let surplus = (held > most).then(|| entries.iter_mut().find_map(|entry| entry.arenas.pop()));
        drop(entries);
        drop(surplus);
    }

    fn find(&self, key: Key) -> Option<(Arc<Plan>, Option<Arena>)> {
        let mut entries = self.lock();
        let at = entries.iter().position(|entry| entry.key == key)?;
        let mut entry = entries.remove(at);
        let found = (Arc::clone(&entry.plan), entry.arenas.pop());
        entries.push(entry);
        Some(found)
    }

    /// The list is changed by pushes, removals and pops alone, so a panic elsewhere leaves it usable.
    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sizes whose plans are kept, the most recently used last, and the arenas of each.
    #[cfg(test)]
    fn held(&self) -> Vec<(Key, usize)> {
        self.lock().iter().map(|entry| (entry.key, entry.arenas.len())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Conv2dConfig;
    use crate::frozen::{Builder, ConvLayer, FrozenNet};
    use crate::reference::noise;

    fn net() -> FrozenNet {
        let weights = noise(&[16, 3, 3, 3], 1);
        let mut net = Builder::new(3).unwrap();
        let x = net.input();
        let x = net.conv(x, &ConvLayer::new(&weights, Conv2dConfig::default())).unwrap();
        let y = net.global_avg_pool(x).unwrap();
        net.finish(y).unwrap()
    }

    fn run(net: &FrozenNet, n: usize, side: usize) -> Vec<f32> {
        let pixels: Vec<f32> =
            (0..n * 3 * side * side).map(|i| ((i * 7919) % 1013) as f32 / 1013.0).collect();
        net.forward(&pixels, n, side, side).unwrap()
    }

    #[test]
    fn memory_is_kept_for_the_sizes_used_last_and_no_others() {
        let net = net();
        let first = run(&net, 1, 8);
        for n in 1..=60 {
            run(&net, n, 8 + n % 7);
            // Used all along, so it stays.
            assert_eq!(run(&net, 1, 8), first);
            let held = net.kept.held();
            assert!(held.len() <= PLANS && held.iter().all(|(_, arenas)| *arenas <= 1), "{held:?}");
            assert_eq!(held.last().map(|((n, h, ..), _)| (*n, *h)), Some((1, 8)));
        }
        let sizes: Vec<usize> = net.kept.held().iter().map(|((n, ..), _)| *n).collect();
        assert_eq!(sizes, [58, 59, 60, 1], "the last four");
    }

    #[test]
    fn runs_at_once_leave_no_more_memory_than_is_kept() {
        let net = net();
        let key = (2, 8, 8, 1);
        let plan = || Plan::new(net.isa, net.precision, &net.nodes, &net.kinds, (2, 8, 8));
        let arenas: Vec<Arena> = (0..3 * ARENAS).map(|_| net.kept.take(key, plan).unwrap().1).collect();
        for arena in arenas {
            net.kept.give(key, arena);
        }
        assert_eq!(net.kept.held(), [(key, ARENAS)]);
        // Another size takes their place, the oldest first; what comes back too late is let go.
        let other = (1, 8, 8, 1);
        let plan = || Plan::new(net.isa, net.precision, &net.nodes, &net.kinds, (1, 8, 8));
        let arena = net.kept.take(other, plan).unwrap().1;
        net.kept.give(other, arena);
        assert_eq!(net.kept.held(), [(key, ARENAS - 1), (other, 1)]);
        let late = net.kept.take(other, plan).unwrap().1;
        net.kept.give((9, 9, 9, 1), late);
        assert_eq!(net.kept.held(), [(key, ARENAS - 1), (other, 0)]);
    }
}
