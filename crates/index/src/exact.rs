//! Exact search: every row is compared, by kernels for one query, by blocked matrix products for many.

use rayon::prelude::*;

use crate::kernel::score_f32;
use crate::topk::TopK;
use crate::walk::Scored;

/// Rows a block of a matrix product: with the queries' block and the scores it stays within a core's cache.
const ROWS: usize = 512;
/// Queries a block.
const QUERIES: usize = 192;
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

    /// The best `k` nodes for each of many padded queries. Memory is a block of scores and `2k` places a query at work.
    pub(crate) fn many(
        &self,
        queries: &[f32],
        k: usize,
        min: f32,
        accept: impl Fn(u32) -> bool + Sync,
        tie: impl Fn(u32) -> u64 + Sync + Copy + Send,
    ) -> Vec<Vec<Scored>> {
        let count = queries.len() / self.stride;
        if count < PRODUCT_FROM || self.len() < ROWS {
            return queries.par_chunks(self.stride).map(|q| self.one(q, k, min, &accept, tie)).collect();
        }
        // Enough blocks for all threads, none larger than fits the cache.
        let block = QUERIES.min(count.div_ceil(rayon::current_num_threads())).max(PRODUCT_FROM);
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
        // Products sum in another order than kernels do, so the last digits differ: some more are kept, and in the end
        // all are scored again by the kernel.
        let keep = k.saturating_add(8 + k / 16).min(len);
        let slack = 1e-5;
        let mut best: Vec<_> = (0..count).map(|_| TopK::new(keep, min - slack, tie)).collect();
        let mut scores = vec![0.0f32; count * ROWS];
        let mut done = 0;
        while done < len {
            // The last block overlaps the one before: all are of one size and summed alike.
            let from = done.min(len - ROWS);
            product(queries, &self.rows[from * stride..(from + ROWS) * stride], stride, &mut scores);
            for (best, scores) in best.iter_mut().zip(scores.chunks_exact_mut(ROWS)) {
                for (at, score) in scores.iter_mut().enumerate() {
                    if *score >= best.bar() && !accept((from + at) as u32) {
                        *score = f32::NAN; // passes no bar
                    }
                }
                best.push_run(&scores[done - from..], done as u32);
            }
            done = from + ROWS;
        }
        let rescore = |(best, query): (TopK<_>, &[f32])| {
            let nodes: Vec<u32> = best.into_sorted().into_iter().map(|s| s.node).collect();
            self.listed_chunk(query, &nodes, k, min, tie).into_sorted()
        };
        best.into_iter().zip(queries.chunks_exact(stride)).map(rescore).collect()
    }
}

/// Scores of all queries (rows of `scores`) with [`ROWS`] rows: queries · rowsᵀ.
fn product(queries: &[f32], rows: &[f32], stride: usize, scores: &mut [f32]) {
    let count = queries.len() / stride;
    assert!(queries.len() == count * stride && rows.len() == ROWS * stride && scores.len() == count * ROWS);
    // Column-major product of (ROWS × stride) and (stride × count): each query's scores lie side by side.
    // SAFETY: the three matrices have the asserted sizes, their strides describe them, and scores are borrowed alone.
    unsafe {
        gemm::gemm(
            ROWS,
            count,
            stride,
            scores.as_mut_ptr(),
            ROWS as isize,
            1,
            false,
            rows.as_ptr(),
            1,
            stride as isize,
            queries.as_ptr(),
            stride as isize,
            1,
            0.0f32,
            1.0f32,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
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
                            let score =
                                crate::kernel::dot_f32(query, &rows[node as usize * stride..][..stride]);
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
