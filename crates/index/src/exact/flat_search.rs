//! Exact search: every row is compared, by kernels for one query, by blocked matrix products for many.

use rayon::prelude::*;

use crate::codes::kernel::{TILE, score_f32};
use crate::exact::batch_scores::Products;
use crate::exact::exact_candidates::Candidates;
use crate::exact::top_k::TopK;
use crate::hnsw::search::Scored;

/// Rows and queries a matrix product: the queries stay within a core's cache.
const ROWS: usize = 512;
const QUERIES: usize = 20 * TILE;
/// Queries that go through the rows together, at most: rows are read, and coded, once for all of them.
const BLOCK: usize = 9 * QUERIES;
/// Rows a query is compared with first, to know what it need not keep.
const SAMPLE: usize = 2 * ROWS;
/// Queries from which on matrix products beat kernels.
const PRODUCT_FROM: usize = 8;
/// Rows a thread scores at a time for a single query.
const CHUNK: usize = 2048;

/// Rows to compare with: padded, one after the other.
#[derive(Clone, Copy)]
pub(crate) struct Exact<'a> {
    /// Numbers a padded row.
    pub(crate) stride: usize,
    pub(crate) rows: &'a [f32],
}

impl Exact<'_> {
    fn len(&self) -> usize {
        self.rows.len() / self.stride
    }

    /// The best `k` nodes for one padded query, best first. `accept` chooses among nodes, `tie` orders equal scores.
    pub(crate) fn one(
        &self,
        query: &[f32],
        k: usize,
        min: f32,
        accept: impl Fn(u32) -> bool + Sync,
        tie: impl Fn(u32) -> u64 + Sync + Copy + Send,
    ) -> Vec<Scored> {
        let chunk = |from: usize| {
            let nodes: Vec<u32> =
                (from..self.len().min(from + CHUNK)).map(|n| n as u32).filter(|&n| accept(n)).collect();
            self.listed_chunk(query, &nodes, k, min, tie)
        };
        merge((0..self.len()).into_par_iter().step_by(CHUNK).map(chunk), k, min, tie)
    }

    /// The best `k` of the listed nodes.
    pub(crate) fn listed(
        &self,
        query: &[f32],
        nodes: &[u32],
        k: usize,
        min: f32,
        tie: impl Fn(u32) -> u64 + Sync + Copy + Send,
    ) -> Vec<Scored> {
        merge(nodes.par_chunks(CHUNK).map(|nodes| self.listed_chunk(query, nodes, k, min, tie)), k, min, tie)
    }

    fn listed_chunk<K: Fn(u32) -> u64>(
        &self,
        query: &[f32],
        nodes: &[u32],
        k: usize,
        min: f32,
        tie: K,
    ) -> TopK<K> {
        let (mut best, mut scores) = (TopK::new(k, min, tie), [0.0; 64]);
        for nodes in nodes.chunks(64) {
            let scores = &mut scores[..nodes.len()];
            score_f32(query, self.rows, nodes, scores);
            nodes.iter().zip(scores).for_each(|(&node, score)| best.push(*score, node));
        }
        best
    }

    /// The best `k` nodes for each of many padded queries. Memory is some `2k` places a query
    /// at work.
    pub(crate) fn many(
        &self,
        queries: &[f32],
        k: usize,
        min: f32,
        accept: impl Fn(u32) -> bool + Sync,
        tie: impl Fn(u32) -> u64 + Sync + Copy + Send,
    ) -> Vec<Vec<Scored>> {
        let count = queries.len() / self.stride;
        if count < PRODUCT_FROM || self.len() < ROWS || k == 0 {
            return queries.par_chunks(self.stride).map(|q| self.one(q, k, min, &accept, tie)).collect();
        }
        // As many blocks for each thread.
        let blocks = count.div_ceil(BLOCK).next_multiple_of(rayon::current_num_threads());
        let block = count.div_ceil(blocks).max(PRODUCT_FROM);
        let blocks = queries.par_chunks(block * self.stride);
        blocks.flat_map_iter(|block| self.block(block, k, min, &accept, tie)).collect()
    }

    fn block(
        &self,
        queries: &[f32],
        k: usize,
        min: f32,
        accept: &(impl Fn(u32) -> bool + Sync),
        tie: impl Fn(u32) -> u64 + Copy + Send + Sync,
    ) -> Vec<Vec<Scored>> {
        let (count, stride, len) = (queries.len() / self.stride, self.stride, self.len());
        // Products are not exactly the kernels' scores: those rows that can be among the k best are scored again.
        let sample = self.sample();
        let mut products = Products::new(queries, stride, ROWS);
        // A score that more than k rows reach, judged by the sample: what is lower need not be kept.
        let expected = ((k + k / 16 + 16) * SAMPLE) as f32 / len as f32;
        let rank = (expected + 3.0 * expected.sqrt()).ceil() as usize + 3;
        let mut sampled = Candidates::new(rank, sample.len() / stride, &vec![f32::NEG_INFINITY; count]);
        for (part, rows) in sample.chunks_exact(ROWS * stride).enumerate() {
            let node = |row| ((part * ROWS + row) * len / SAMPLE) as u32;
            compare(queries, rows, &mut products, &mut sampled, |row| (node(row), accept(node(row))));
        }
        let mut candidates = Candidates::new(k, len, &sampled.into_floors());
        let mut done = 0;
        while done < len {
            // The last rows overlap those before: all products are of one size and summed alike.
            let from = done.min(len - ROWS);
            let rows = &self.rows[from * stride..(from + ROWS) * stride];
            let node = |row| (from + row) as u32;
            let name = |row| (node(row), from + row >= done && accept(node(row)));
            compare(queries, rows, &mut products, &mut candidates, name);
            done = from + ROWS;
        }
        let nodes: Vec<Option<Vec<u32>>> = (0..count).map(|query| candidates.in_question(query)).collect();
        let scores = self.listed_for_each(queries, &nodes);
        let scores = scores.into_iter().zip(queries.chunks_exact(stride));
        let answers = nodes.into_iter().zip(scores).map(|(nodes, (scores, query))| {
            let Some(nodes) = nodes else { return self.one(query, k, min, accept, tie) };
            let mut best = TopK::new(k, min, tie);
            nodes.into_iter().zip(scores).for_each(|(node, score)| best.push(score, node));
            best.into_sorted()
        });
        answers.collect()
    }

    /// Some of very many rows, from all over.
    fn sample(&self) -> Vec<f32> {
        if self.len() < 16 * SAMPLE {
            return Vec::new();
        }
        let row = |i: usize| &self.rows[i * self.len() / SAMPLE * self.stride..][..self.stride];
        (0..SAMPLE).flat_map(row).copied().collect()
    }

    /// Scores of the nodes listed for each query, in order. All queries go through the rows together, so that a row is
    /// read from memory once.
    fn listed_for_each(&self, queries: &[f32], nodes: &[Option<Vec<u32>>]) -> Vec<Vec<f32>> {
        let lists: Vec<&[u32]> = nodes.iter().map(|nodes| nodes.as_deref().unwrap_or_default()).collect();
        let mut scores: Vec<Vec<f32>> = lists.iter().map(|nodes| vec![0.0; nodes.len()]).collect();
        let mut done = vec![0; lists.len()];
        for end in (0..self.len()).step_by(ROWS).map(|start| start + ROWS) {
            let work = queries.chunks_exact(self.stride).zip(&lists).zip(&mut scores).zip(&mut done);
            for (((query, nodes), scores), done) in work {
                let here = nodes[*done..].iter().take_while(|&&node| (node as usize) < end).count();
                let range = *done..*done + here;
                score_f32(query, self.rows, &nodes[range.clone()], &mut scores[range]);
                *done += here;
            }
        }
        scores
    }
}

/// Compares padded queries with [`ROWS`] rows. `name` gives a row's node, and whether it may become a candidate.
#[inline(always)]
fn compare<'a>(
    queries: &[f32],
    rows: &'a [f32],
    products: &mut Products<'a>,
    candidates: &mut Candidates,
    name: impl Fn(usize) -> (u32, bool),
) {
    let stride = rows.len() / ROWS;
    let count = queries.len() / stride;
    products.load(rows, stride);
    for (at, query) in queries.chunks_exact(stride).enumerate() {
        candidates.set_error(at, products.error(at, query));
    }
    let bars: Vec<f32> = (0..count).map(|query| candidates.bar(query)).collect();
    for first in (0..count).step_by(QUERIES) {
        products.compare(first..count.min(first + QUERIES), &bars, |query, row, reach, scores| {
            candidates.push(query, reach, scores, |lane| name(row + lane));
        });
    }
}

fn merge<K: Fn(u32) -> u64 + Copy + Send + Sync>(
    parts: impl ParallelIterator<Item = TopK<K>>,
    k: usize,
    min: f32,
    tie: K,
) -> Vec<Scored> {
    parts
        .reduce(
            || TopK::new(k, min, tie),
            |mut a, b| {
                a.merge(b);
                a
            },
        )
        .into_sorted()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};

    fn matrix(n: usize, stride: usize, seed: u64) -> Vec<f32> {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        (0..n * stride).map(|_| rng.random_range(-1.0..1.0)).collect()
    }

    #[test]
    fn products_and_kernels_give_the_same_lists_as_a_sort() {
        for (n, stride, queries, k) in
            [(1300, 32, 20, 10), (512, 16, 9, 512), (5000, 48, 400, 3), (100, 16, 12, 200)]
        {
            let (rows, queries) = (matrix(n, stride, 1), matrix(queries, stride, 2));
            let exact = Exact { stride, rows: &rows };
            let tie = |node: u32| u64::from(node);
            let even = |node: u32| node.is_multiple_of(2);
            for (accept, label) in [(&(|_| true) as &(dyn Fn(u32) -> bool + Sync), "all"), (&even, "even")] {
                let many = exact.many(&queries, k, f32::NEG_INFINITY, accept, tie);
                for (query, found) in queries.chunks_exact(stride).zip(&many) {
                    let mut want: Vec<Scored> = (0..n as u32)
                        .filter(|&node| accept(node))
                        .map(|node| {
                            let score = crate::codes::kernel::dot_f32(
                                query,
                                &rows[node as usize * stride..][..stride],
                            );
                            Scored { score, node }
                        })
                        .collect();
                    want.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.node.cmp(&b.node)));
                    want.truncate(k);
                    assert_eq!(found, &want, "{label}: {n} × {stride}");
                    assert_eq!(exact.one(query, k, f32::NEG_INFINITY, accept, tie), want);
                }
            }
        }
    }

    #[test]
    fn more_rows_in_question_than_were_kept_are_all_looked_at() {
        // Most rows differ in their last digits only, which products do not tell apart.
        let (stride, n, k) = (64, 2000, 5);
        let mut rows = matrix(n, stride, 4);
        let row = rows[..stride].to_vec();
        for (i, near) in rows.chunks_exact_mut(stride).enumerate().filter(|(i, _)| i % 8 != 0) {
            let change = 1.0 + (i * 7919 % n) as f32 * 2e-7;
            near.iter_mut().zip(&row).for_each(|(x, r)| *x = r * change);
        }
        let mut queries = matrix(70, stride, 5);
        queries[..stride * 40].chunks_exact_mut(stride).for_each(|query| query.copy_from_slice(&row));
        let exact = Exact { stride, rows: &rows };
        let tie = |node: u32| u64::from(n as u32 - node);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let many = pool.install(|| exact.many(&queries, k, f32::NEG_INFINITY, |_| true, tie));
        for (query, found) in queries.chunks_exact(stride).zip(&many) {
            assert_eq!(found, &exact.one(query, k, f32::NEG_INFINITY, |_| true, tie));
        }
    }

    #[test]
    fn a_sample_that_misleads_does_no_harm() {
        // The sample takes every 20th row: here these are the best, or the worst.
        let (stride, n) = (16, 20 * SAMPLE);
        for factor in [0.1, 1.0, 3.0] {
            let mut rows = matrix(n, stride, 6);
            rows.chunks_exact_mut(stride).step_by(20).flatten().for_each(|x| *x *= factor);
            let (queries, exact) = (matrix(40, stride, 7), Exact { stride, rows: &rows });
            for (accept, label) in [
                (&(|_| true) as &(dyn Fn(u32) -> bool + Sync), "all"),
                (&|n| n % 20 != 0, "none of the sample"),
                (&|n| n % 1000 == 7, "few"),
            ] {
                for k in [1, 300] {
                    let many = exact.many(&queries, k, 0.5, accept, u64::from);
                    for (query, found) in queries.chunks_exact(stride).zip(&many) {
                        let one = exact.one(query, k, 0.5, accept, u64::from);
                        assert_eq!(found, &one, "{factor} {label} {k}");
                    }
                }
            }
        }
    }

    #[test]
    fn equal_rows_are_ordered_by_tie_wherever_they_stand() {
        let stride = 48;
        let mut rows = matrix(1500, stride, 3);
        let row = rows[..stride].to_vec();
        for node in (3..1500).step_by(3) {
            rows[node * stride..][..stride].copy_from_slice(&row);
        }
        let queries: Vec<f32> = std::iter::repeat_n(row, 10).flatten().collect();
        let exact = Exact { stride, rows: &rows };
        let want: Vec<u32> = (0..20).map(|i| 1497 - 3 * i).collect();
        for found in exact.many(&queries, 20, f32::NEG_INFINITY, |_| true, |n| u64::from(u32::MAX - n)) {
            assert_eq!(found.iter().map(|s| s.node).collect::<Vec<_>>(), want);
        }
    }
}
