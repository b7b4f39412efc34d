//! Which links a node gets and keeps.
//!
//! Malkov and Yashunin 2016, algorithm 4: of the candidates, best first, one is taken if it is nearer to the node than to
//! any already taken, so that links lead in all directions; what room is left goes to the nearest of those passed over.
//! A list keeps the two apart, so that a further link finds its place by a few scores instead of by a new choice.
//!
//! Near-copies of a node would fill its list and leave no room for links out of their cluster, which would then be an
//! island. Where candidates hold both near-copies and other nodes, a list stays partly empty: further links are added
//! while there is room, and a full list is chosen again.

use crate::codes::coded_query::Query;
use crate::hnsw::search::Scored;

/// Candidates compared with those taken before at once. More are often not needed: few are enough to fill a list.
const BLOCK: usize = 32;
/// A link is to a near-copy if its squared distance is below this share of another link's.
const COPY: f32 = 0.02;
/// Share of a list that near-copies passed over may fill, one in so many.
const COPIES_FILL: usize = 4;

/// Of two links of a node, whether the nearer one is a near-copy of the node as seen from the farther one. The
/// squared distance of unit vectors is two minus twice their score.
fn is_copy(near: Scored, far: Scored) -> bool {
    1.0 - near.score < COPY * (1.0 - far.score)
}

/// Links of a node: the taken ones, then those passed over, each best first.
#[derive(Default)]
pub(crate) struct Selection {
    pub(crate) links: Vec<Scored>,
    /// How many of them were taken.
    pub(crate) taken: usize,
    names: Vec<u32>,
    scores: Vec<f32>,
    left: Vec<Scored>,
}

impl Selection {
    /// Chooses up to `count` of the candidates, which come best first. `pair` scores two nodes.
    pub(crate) fn choose(&mut self, candidates: &[Scored], count: usize, pair: &mut Query<'_>) {
        self.links.clear();
        'blocks: for block in candidates.chunks(BLOCK) {
            self.left.clear();
            self.left.extend_from_slice(block);
            for at in 0..self.links.len() {
                self.pass_over(self.links[at].node, pair);
            }
            while !self.left.is_empty() {
                if self.links.len() >= count {
                    break 'blocks;
                }
                let best = self.left.remove(0);
                self.links.push(best);
                self.pass_over(best.node, pair);
            }
        }
        self.taken = self.links.len();
        let copies =
            candidates.first().zip(candidates.last()).is_some_and(|(&near, &far)| is_copy(near, far));
        let full = if copies { count / COPIES_FILL } else { count };
        let mut taken = 0;
        for candidate in candidates {
            if self.links.len() >= full {
                break;
            }
            if taken < self.taken && self.links[taken].node == candidate.node {
                taken += 1;
            } else {
                self.links.push(*candidate);
            }
        }
    }

    /// Leaves those that are nearer to the node whose links are chosen than to `taken`.
    fn pass_over(&mut self, taken: u32, pair: &mut Query<'_>) {
        if self.left.is_empty() {
            return;
        }
        self.names.clear();
        self.names.extend(self.left.iter().map(|c| c.node));
        pair.set_node(taken);
        pair.scores(&self.names, &mut self.scores);
        let mut scores = self.scores.iter();
        self.left.retain(|c| *scores.next().expect("a score for each") < c.score);
    }

    /// Whether the list, with one more link, holds near-copies of its node beside other nodes.
    pub(crate) fn holds_copies(&self, link: Scored) -> bool {
        let (taken, passed) = self.links.split_at(self.taken);
        let by_score = |a: &&Scored, b: &&Scored| a.score.total_cmp(&b.score);
        let near = [taken.first(), passed.first(), Some(&link)].into_iter().flatten().max_by(by_score);
        let far = [taken.last(), passed.last(), Some(&link)].into_iter().flatten().min_by(by_score);
        near.zip(far).is_some_and(|(&near, &far)| is_copy(near, far))
    }

    /// Adds a link to a list with so much room, if it belongs there; `query` is its node. Returns whether it does.
    ///
    /// The others are not chosen anew: one that was passed over stays so, though what it was passed over for may be gone.
    pub(crate) fn admit(&mut self, link: Scored, room: usize, query: &Query<'_>) -> bool {
        let better = self.links[..self.taken].partition_point(|l| l.score >= link.score);
        self.names.clear();
        self.names.extend(self.links[..better].iter().map(|l| l.node));
        query.scores(&self.names, &mut self.scores);
        if self.scores.iter().any(|&score| score >= link.score) {
            let place = self.taken + self.links[self.taken..].partition_point(|l| l.score >= link.score);
            self.links.insert(place, link);
            self.links.truncate(room);
            return place < room;
        }
        self.names.clear();
        self.names.extend(self.links[better..self.taken].iter().map(|l| l.node));
        query.scores(&self.names, &mut self.scores);
        // Worst first, so that the places of the others stay.
        for at in (better..self.taken).rev() {
            if self.scores[at - better] >= self.links[at].score {
                let passed = self.links.remove(at);
                self.taken -= 1;
                let place =
                    self.taken + self.links[self.taken..].partition_point(|l| l.score >= passed.score);
                self.links.insert(place, passed);
            }
        }
        self.links.insert(better, link);
        self.taken += 1;
        self.links.truncate(room);
        self.taken = self.taken.min(room);
        better < room
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codes::quantize::CodeView;
    use rand::{Rng, SeedableRng};

    const DIM: usize = 16;

    fn unit_rows(n: usize, seed: u64) -> Vec<f32> {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        let mut rows: Vec<f32> = (0..n * DIM).map(|_| rng.random_range(-1.0f32..1.0)).collect();
        for row in rows.chunks_exact_mut(DIM) {
            let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt();
            row.iter_mut().for_each(|x| *x /= norm);
        }
        rows
    }

    /// Nodes 1 and up, best first, with their scores with node 0.
    fn candidates(codes: CodeView<'_>) -> Vec<Scored> {
        let names: Vec<u32> = (1..codes.nodes() as u32).collect();
        let (mut query, mut scores) = (codes.blank_query(), vec![]);
        query.set_node(0);
        query.scores(&names, &mut scores);
        let mut all: Vec<Scored> =
            names.iter().zip(scores).map(|(&node, score)| Scored { score, node }).collect();
        all.sort_by(|a, b| b.score.total_cmp(&a.score));
        all
    }

    /// The paper's algorithm 4, literally: those taken, and those passed over.
    fn literal(candidates: &[Scored], count: usize, codes: CodeView<'_>) -> (Vec<Scored>, Vec<Scored>) {
        let (mut taken, mut passed): (Vec<Scored>, Vec<Scored>) = (vec![], vec![]);
        let (mut pair, mut score) = (codes.blank_query(), vec![]);
        for &candidate in candidates {
            if taken.len() == count {
                break;
            }
            let nearer = |other: &Scored| {
                pair.set_node(other.node);
                pair.scores(&[candidate.node], &mut score);
                score[0] >= candidate.score
            };
            if taken.iter().any(nearer) { passed.push(candidate) } else { taken.push(candidate) }
        }
        passed.truncate(count - taken.len());
        (taken, passed)
    }

    #[test]
    fn the_choice_is_that_of_the_literal_algorithm() {
        let mut selection = Selection::default();
        for (n, seed) in [(2, 1), (9, 2), (33, 3), (34, 4), (150, 5), (150, 6)] {
            let rows = unit_rows(n, seed);
            let codes = CodeView::f32(DIM, &rows);
            let candidates = candidates(codes);
            for count in [1, 4, 8, 32] {
                selection.choose(&candidates, count, &mut codes.blank_query());
                let (taken, passed) = literal(&candidates, count, codes);
                assert_eq!(selection.taken, taken.len());
                assert_eq!(selection.links, [taken, passed].concat());
            }
        }
    }

    #[test]
    fn admitted_links_keep_the_list_in_order_and_diverse() {
        for seed in 0..20 {
            let rows = unit_rows(120, seed);
            let codes = CodeView::f32(DIM, &rows);
            let (mut query, mut pair, mut score) = (codes.blank_query(), codes.blank_query(), vec![]);
            let mut list = Selection::default();
            let mut all = candidates(codes);
            all.sort_by_key(|c| c.node);
            for (at, &link) in all.iter().enumerate() {
                query.set_node(link.node);
                let before = list.links.clone();
                let admitted = list.admit(link, 12, &query);
                assert_eq!(admitted, list.links != before);
                assert_eq!(list.links.len(), 12.min(at + 1));
                assert!(list.links.iter().all(|l| all[..=at].contains(l)));
                let (taken, passed) = list.links.split_at(list.taken);
                assert!([taken, passed].iter().all(|part| part.is_sorted_by(|a, b| a.score >= b.score)));
                for (i, worse) in taken.iter().enumerate() {
                    pair.set_node(worse.node);
                    for better in &taken[..i] {
                        pair.scores(&[better.node], &mut score);
                        assert!(score[0] < worse.score, "nearer to another than to the node");
                    }
                }
            }
            // The nearest of all is always there.
            let nearest = all.iter().max_by(|a, b| a.score.total_cmp(&b.score)).unwrap();
            assert_eq!(list.links[0], *nearest);
        }
    }
}
