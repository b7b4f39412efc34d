//! The k best of a stream of scores, without keeping or sorting all of them.

use crate::hnsw::search::Scored;

/// Scores from which on they are sorted digit by digit, and the bits of a digit.
const RADIX_FROM: usize = 256;
const DIGIT: u32 = 11;

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

    #[inline]
    pub(crate) fn push(&mut self, score: f32, node: u32) {
        if score >= self.bar {
            self.buffer.push(Scored { score, node });
            if self.buffer.len() >= self.capacity {
                self.cut();
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

    /// The best, best first.
    pub(crate) fn into_sorted(mut self) -> Vec<Scored> {
        self.cut();
        let mut buffer = std::mem::take(&mut self.buffer);
        sort(&mut buffer);
        for equal in buffer.chunk_by_mut(|a, b| a.score.total_cmp(&b.score).is_eq()) {
            if equal.len() > 1 {
                equal.sort_unstable_by_key(|s| (self.tie)(s.node));
            }
        }
        buffer
    }
}

/// Orders scores from the best to the worst, as integers: as `f32::total_cmp` does, but without a branch.
pub(crate) fn descending(score: f32) -> u32 {
    let bits = score.to_bits() as i32;
    !((bits ^ ((bits >> 31) as u32 >> 1) as i32) as u32 ^ 1 << 31)
}

/// Sorts by score, best first; nodes of equal scores in any order that is always the same.
fn sort(buffer: &mut Vec<Scored>) {
    if buffer.len() < RADIX_FROM {
        return buffer.sort_unstable_by_key(place);
    }
    let mut other = buffer.clone();
    for shift in (0..u32::BITS).step_by(DIGIT as usize) {
        let digit = |scored: &Scored| (descending(scored.score) >> shift) as usize % (1 << DIGIT);
        let mut starts = [0; 1 << DIGIT];
        buffer.iter().for_each(|scored| starts[digit(scored)] += 1);
        let mut sum = 0;
        for start in &mut starts {
            sum += std::mem::replace(start, sum);
        }
        for scored in buffer.iter() {
            let start = &mut starts[digit(scored)];
            other[*start] = *scored;
            *start += 1;
        }
        std::mem::swap(buffer, &mut other);
    }
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
            for (node, &score) in (0..).zip(&scores) {
                if (node as usize) < half { left.push(score, node) } else { right.push(score, node) }
            }
            left.merge(right);
            let got: Vec<(u32, f32)> = left.into_sorted().into_iter().map(|s| (s.node, s.score)).collect();
            prop_assert_eq!(got, want);
        }
    }
}
