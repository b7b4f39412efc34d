//! Which segments are merged: a tiered policy, as in Lucene.
//!
//! Segments of similar size are of one tier; when a tier holds [`PER_TIER`] of them, they become one segment of the next.
//! An item is thus written again as often as there are tiers: the logarithm of the number of items, to the base
//! [`PER_TIER`]. Segments of which much is deleted are written again by themselves.

/// Segments of one tier that become one of the next.
const PER_TIER: usize = 8;
/// Items up to which all segments are of the lowest tier.
const LOWEST: u64 = 1_000;
/// Share of deleted items from which on a segment is written again.
const DELETED: f64 = 0.3;

/// What the policy looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    /// Items it was written with.
    pub(crate) items: u64,
    pub(crate) deleted: u64,
}

impl Size {
    fn live(self) -> u64 {
        self.items - self.deleted.min(self.items)
    }

    fn tier(self) -> u32 {
        let (mut tier, mut most) = (0, LOWEST);
        while self.live() > most {
            tier += 1;
            most = most.saturating_mul(PER_TIER as u64);
        }
        tier
    }
}

/// The segments to merge next, by their place in `sizes`; none if nothing is due.
pub(crate) fn choose(sizes: &[Size]) -> Vec<usize> {
    let mut by_size: Vec<usize> = (0..sizes.len()).collect();
    by_size.sort_by_key(|&at| (sizes[at].live(), at));
    // The smallest tier first: it is the cheapest to merge.
    let tiers = by_size.chunk_by(|&a, &b| sizes[a].tier() == sizes[b].tier());
    if let Some(tier) = tiers.into_iter().find(|tier| tier.len() >= PER_TIER) {
        return tier.to_vec();
    }
    let worn = |&at: &usize| sizes[at].deleted as f64 > DELETED * sizes[at].items as f64;
    by_size.into_iter().find(worn).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(items: &[u64]) -> Vec<Size> {
        items.iter().map(|&items| Size { items, deleted: 0 }).collect()
    }

    #[test]
    fn eight_of_a_tier_are_merged_and_fewer_are_not() {
        assert_eq!(choose(&sizes(&[1; 7])), [0; 0]);
        assert_eq!(choose(&sizes(&[1; 8])), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(
            choose(&sizes(&[200_000, 1, 5, 1, 2, 1, 1, 1])),
            [0; 0],
            "the large one is of another tier"
        );
        let chosen = choose(&sizes(&[200_000, 1, 5, 1, 2, 1, 1, 1, 900]));
        assert_eq!(chosen, [1, 3, 5, 6, 7, 4, 2, 8]);
    }

    #[test]
    fn a_segment_with_many_deleted_items_is_written_again() {
        let worn = Size { items: 100, deleted: 31 };
        assert_eq!(choose(&[Size { items: 100, deleted: 30 }, worn]), [1]);
        assert_eq!(choose(&[]), [0; 0]);
    }

    #[test]
    fn publications_of_one_item_write_each_item_a_few_times() {
        let (mut segments, mut written) = (vec![Size { items: 1_000_000, deleted: 0 }], 0u64);
        for _ in 0..20_000 {
            segments.push(Size { items: 1, deleted: 0 });
            loop {
                let merged = choose(&segments);
                if merged.is_empty() {
                    break;
                }
                let items = merged.iter().map(|&at| segments[at].live()).sum();
                let mut at = 0;
                segments.retain(|_| {
                    at += 1;
                    !merged.contains(&(at - 1))
                });
                segments.push(Size { items, deleted: 0 });
                written += items;
            }
            assert!(segments.len() < 24, "{segments:?}");
        }
        assert!(written < 100 * 20_000, "{} copies per item", written / 20_000);
    }
}
