//! The k best of a stream of scores, without keeping or sorting all of them.

use crate::walk::Scored;

/// Keeps the `k` best of what is pushed: higher score first, then lower tie key.
///
/// What passes the bar is collected in a buffer of twice the size; when that is full, a selection (linear, no sort)
/// drops the worse half and raises the bar. That costs a few nanoseconds a push where a heap of 1,000 costs fifty.
pub(crate) struct TopK<K> {
    k: usize,
    capacity: usize,
    bar: f32,
    buffer: Vec<Scored>,
    tie: K,
}

impl<K: Fn(u32) -> u64> TopK<K> {
    /// Keeps `k` of the scores that are at least `min`; of equal scores those whose node has the lower `tie`.
    pub(crate) fn new(k: usize, min: f32, tie: K) -> Self {
        let capacity = k.saturating_mul(2).saturating_add(64);
        Self { k, capacity, bar: min, buffer: Vec::with_capacity(capacity.min(1 << 12)), tie }
    }

    /// Scores below this one need not be pushed.
    #[inline(always)]
    pub(crate) fn bar(&self) -> f32 {
        self.bar
    }

    #[inline]
    pub(crate) fn push(&mut self, score: f32, node: u32) {
        if score >= self.bar {
            self.buffer.push(Scored { score, node });
            if self.buffer.len() >= self.capacity {
                self.cut();
            }
        }
    }

    /// Pushes the scores of consecutive nodes.
    #[inline]
    pub(crate) fn push_run(&mut self, scores: &[f32], first: u32) {
        const RUN: usize = 32;
        for (i, run) in scores.chunks(RUN).enumerate() {
            // One look at the best of a run passes over most runs.
            let best = run.iter().fold(f32::NEG_INFINITY, |m, &s| if s > m { s } else { m });
            if best >= self.bar {
                // Without a branch a score: which of them pass is hard to foretell.
                let (mut passed, mut count) = ([Scored { score: 0.0, node: 0 }; RUN], 0);
                for (j, &score) in run.iter().enumerate() {
                    passed[count] = Scored { score, node: first + (i * RUN + j) as u32 };
                    count += usize::from(score >= self.bar);
                }
                self.buffer.extend_from_slice(&passed[..count]);
                if self.buffer.len() >= self.capacity {
                    self.cut();
                }
            }
        }
    }

    #[cold]
    fn cut(&mut self) {
        if self.buffer.len() > self.k && self.k > 0 {
            let mut buffer = std::mem::take(&mut self.buffer);
            let (_, last, rest) = buffer.select_nth_unstable_by_key(self.k - 1, place);
            let bar = last.score;
            if rest.iter().any(|s| s.score.total_cmp(&bar).is_eq()) {
                buffer.select_nth_unstable_by_key(self.k - 1, |s| (descending(s.score), (self.tie)(s.node)));
            }
            buffer.truncate(self.k);
            self.buffer = buffer;
            self.bar = bar;
        }
    }

    /// Takes in what another has kept.
    pub(crate) fn merge(&mut self, other: Self) {
        for kept in other.buffer {
            self.push(kept.score, kept.node);
        }
    }

    /// The lowest score that is kept, if `k` are; else none is too low.
    pub(crate) fn into_bar(mut self) -> f32 {
        self.cut();
        let lowest = self.buffer.iter().map(|s| s.score).fold(f32::INFINITY, f32::min);
        if self.buffer.len() < self.k { f32::NEG_INFINITY } else { lowest }
    }

    /// The best, in any order.
    pub(crate) fn into_unsorted(mut self) -> Vec<Scored> {
        self.cut();
        self.buffer
    }

    /// The best, best first.
    pub(crate) fn into_sorted(mut self) -> Vec<Scored> {
        self.cut();
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.sort_unstable_by_key(place);
        for equal in buffer.chunk_by_mut(|a, b| a.score.total_cmp(&b.score).is_eq()) {
            if equal.len() > 1 {
                equal.sort_unstable_by_key(|s| (self.tie)(s.node));
            }
        }
        buffer
    }
}

/// Orders scores from the best to the worst, as integers: as `f32::total_cmp` does, but without a branch.
fn descending(score: f32) -> u32 {
    let bits = score.to_bits() as i32;
    !((bits ^ ((bits >> 31) as u32 >> 1) as i32) as u32 ^ 1 << 31)
}

/// Orders by score, best first; nodes of equal scores in any order that is always the same.
fn place(scored: &Scored) -> u64 {
    u64::from(descending(scored.score)) << 32 | u64::from(scored.node)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_keeps_what_a_sort_would(scores in proptest::collection::vec(-4i8..4, 0..600), k in 1usize..40, min in -5i8..3) {
            let scores: Vec<f32> = scores.into_iter().map(f32::from).collect();
            let tie = |node: u32| u64::from(node * 7919 % 601);
            let mut want: Vec<(u32, f32)> = (0..).zip(scores.iter().copied()).filter(|s| s.1 >= f32::from(min)).collect();
            want.sort_by(|a, b| b.1.total_cmp(&a.1).then(tie(a.0).cmp(&tie(b.0))));
            want.truncate(k);
            let (mut left, mut right) = (TopK::new(k, f32::from(min), tie), TopK::new(k, f32::from(min), tie));
            let half = scores.len() / 2;
            left.push_run(&scores[..half], 0);
            right.push_run(&scores[half..], half as u32);
            left.merge(right);
            let got: Vec<(u32, f32)> = left.into_sorted().into_iter().map(|s| (s.node, s.score)).collect();
            prop_assert_eq!(got, want);
        }
    }
}
