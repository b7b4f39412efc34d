//! Evaluations of small, known galleries.

use rand::{Rng, SeedableRng};
use semblance_index::IndexError;

use super::*;
use crate::error::QueryError;
use crate::metrics;

/// Compares with every vector, one by one; can imitate a bad graph.
struct Naive {
    dim: usize,
    vectors: Vec<f32>,
    /// When not searching exactly: forgets every item whose id is a multiple of this.
    forgets: Option<u64>,
}

impl VectorIndex for Naive {
    fn dim(&self) -> usize {
        self.dim
    }
    fn len(&self) -> usize {
        self.vectors.len() / self.dim
    }
    fn search(&self, query: &[f32], params: &SearchParams) -> Result<Vec<Neighbor>, IndexError> {
        let rows = self.vectors.chunks(self.dim).enumerate();
        let score = |row: &[f32]| row.iter().zip(query).map(|(a, b)| a * b).sum();
        let mut found: Vec<Neighbor> =
            rows.map(|(id, row)| Neighbor { id: id as u64, score: score(row) }).collect();
        if let (Some(step), false) = (self.forgets, params.exact) {
            found.retain(|neighbor| neighbor.id % step != 0);
        }
        found.sort_by(Neighbor::cmp_best_first);
        found.truncate(params.k);
        Ok(found)
    }
    fn search_batch(
        &self,
        queries: &[f32],
        _: usize,
        params: &SearchParams,
    ) -> Result<Vec<Vec<Neighbor>>, IndexError> {
        queries.chunks(self.dim).map(|query| self.search(query, params)).collect()
    }
}

fn random_vectors(rows: usize, dim: usize, seed: u64) -> Vec<f32> {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let mut vectors: Vec<f32> = (0..rows * dim).map(|_| rng.random_range(-1.0..1.0)).collect();
    for row in vectors.chunks_mut(dim) {
        let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt();
        row.iter_mut().for_each(|x| *x /= norm);
    }
    vectors
}

fn naive(rows: usize, seed: u64) -> Naive {
    Naive { dim: 4, vectors: random_vectors(rows, 4, seed), forgets: None }
}

fn classes(numbers: &[u32]) -> Vec<Option<String>> {
    numbers.iter().map(|number| Some(format!("class {number}"))).collect()
}

fn gallery<'a>(index: &'a Naive, classes: &'a [Option<String>]) -> Gallery<'a> {
    Gallery::new(index, classes.iter().enumerate().map(|(id, class)| (id as u64, class.as_ref())), "g", "m")
}

fn config(ks: &[usize]) -> EvalConfig {
    EvalConfig { ks: ks.to_vec(), ..EvalConfig::default() }
}

fn leave_one_out(index: &Naive, of: &[Option<String>], config: &EvalConfig) -> Result<Report> {
    let ids: Vec<u64> = (0..of.len() as u64).collect();
    let queries = Queries { name: "g", vectors: &index.vectors, classes: of, own_ids: Some(&ids) };
    evaluate(&gallery(index, of), &queries, config, &|_, _| {})
}

#[test]
fn leave_one_out_agrees_with_a_literal_loop() {
    let (rows, index) = (60, naive(60, 1));
    let numbers: Vec<u32> = (0..rows).map(|i| [0, 0, 1, 2, 2, 2][i % 6] + 3 * u32::from(i > 40)).collect();
    let of = classes(&numbers);
    let report = leave_one_out(&index, &of, &EvalConfig { block: 7, ..config(&[5, 1, 5]) }).unwrap();
    let (mut at_1, mut at_5, mut map, mut precision) = (0.0, 0.0, 0.0, 0.0);
    for query in 0..rows {
        let score = |row: usize| -> f32 {
            (0..4).map(|i| index.vectors[query * 4 + i] * index.vectors[row * 4 + i]).sum()
        };
        let mut others: Vec<usize> = (0..rows).filter(|row| *row != query).collect();
        others.sort_by(|a, b| score(*b).total_cmp(&score(*a)));
        let ranking: Vec<u32> = others.iter().map(|row| numbers[*row]).collect();
        let relevant = ranking.iter().filter(|class| **class == numbers[query]).count();
        at_1 += f64::from(u8::from(ranking[0] == numbers[query]));
        at_5 += f64::from(u8::from(ranking[..5].contains(&numbers[query])));
        map += metrics::map_at_r(&numbers[query], &ranking, relevant).unwrap();
        precision += metrics::r_precision(&numbers[query], &ranking, relevant).unwrap();
    }
    let (exact, n) = (report.exact().unwrap(), rows as f64);
    let close = |a: Option<f64>, b: f64| assert!((a.unwrap() - b / n).abs() < 1e-12, "{a:?} {}", b / n);
    close(exact.recall(1), at_1);
    close(exact.recall(5), at_5);
    close(exact.map_at_r, map);
    close(exact.r_precision, precision);
    assert_eq!(exact.recall_at_k.iter().map(|at| at.k).collect::<Vec<_>>(), [1, 5], "sorted, once each");
    // The naive index ignores the graph: the two ways agree and the overlap is whole.
    let graph = report.graph().unwrap();
    assert_eq!(graph.recall_at_k, exact.recall_at_k);
    assert!(graph.ann_recall.iter().all(|at| at.value == Some(1.0)), "{graph:?}");
    assert_eq!((exact.short_lists, graph.short_lists, exact.ties, exact.duplicates), (0, 0, 0, 0));
    let whole = leave_one_out(&index, &of, &config(&[1, 5])).unwrap();
    assert_eq!(whole.exact().unwrap().map_at_r, exact.map_at_r, "the block size changes nothing");
}

#[test]
fn lone_and_unlabelled_queries_are_counted_and_ruled_on() {
    let index = naive(6, 2);
    let mut of = classes(&[0, 0, 1, 0, 0, 0]);
    of[5] = None;
    let report = leave_one_out(&index, &of, &config(&[5])).unwrap();
    let counts = report.query_counts;
    assert_eq!((counts.total, counts.scored, counts.without_match, counts.unlabelled), (6, 4, 1, 1));
    assert_eq!((report.gallery_items, report.gallery_classes, report.gallery_unlabelled), (6, 2, 1));
    assert_eq!(report.exact().unwrap().recall(5), Some(1.0));
    let strict = EvalConfig { lone_queries: LoneQueries::CountAsMiss, ..config(&[5]) };
    let report = leave_one_out(&index, &of, &strict).unwrap();
    assert_eq!(report.query_counts.scored, 5);
    assert_eq!(report.exact().unwrap().recall(5), Some(0.8));
}

#[test]
fn k_beyond_the_gallery_is_cut_and_shown() {
    let index = naive(5, 3);
    let report = leave_one_out(&index, &classes(&[0; 5]), &config(&[1, 1000])).unwrap();
    let at = report.exact().unwrap().recall_at_k[1];
    assert_eq!((at.k, at.used, at.value), (1000, 4, Some(1.0)));
    assert_eq!(report.depth, 4);
}

#[test]
fn rankings_reach_the_largest_class() {
    // Recall@1 alone needs one place; MAP@R of a class of eight needs seven.
    let report = leave_one_out(&naive(8, 4), &classes(&[0; 8]), &config(&[1])).unwrap();
    assert_eq!(report.depth, 7);
    assert_eq!(report.exact().unwrap().map_at_r, Some(1.0));
}

#[test]
fn queries_against_a_gallery_keep_every_neighbour() {
    let index = naive(10, 5);
    let of = classes(&[0, 0, 0, 1, 1, 1, 2, 2, 2, 2]);
    // The gallery's first four pictures again, one under a class that the gallery lacks.
    let queries =
        Queries { name: "q", vectors: &index.vectors[..16], classes: &classes(&[0, 0, 9, 1]), own_ids: None };
    let report = evaluate(&gallery(&index, &of), &queries, &config(&[1]), &|_, _| {}).unwrap();
    assert_eq!(report.protocol, Protocol::QueryAgainstGallery);
    assert_eq!((report.query_counts.scored, report.query_counts.without_match), (3, 1));
    let exact = report.exact().unwrap();
    assert_eq!(exact.recall(1), Some(1.0), "nothing is taken out: each finds itself");
    assert_eq!(exact.duplicates, 4);
    assert_eq!(report.depth, 3, "as deep as the largest class asked about");
}

#[test]
fn a_graph_that_forgets_shows_in_ann_recall_and_short_lists() {
    let index = Naive { forgets: Some(2), ..naive(8, 6) };
    let report = leave_one_out(&index, &classes(&[0; 8]), &config(&[7])).unwrap();
    let graph = report.graph().unwrap();
    assert_eq!(graph.short_lists, 8);
    // Even queries see 4 of their 7 neighbours, odd ones 3.
    assert!((graph.ann_recall[0].value.unwrap() - 0.5).abs() < 1e-12, "{graph:?}");
    assert_eq!(report.exact().unwrap().short_lists, 0);
    assert!((graph.r_precision.unwrap() - 0.5).abs() < 1e-12);
}

#[test]
fn a_collapsed_embedding_gains_nothing_from_storage_order() {
    let index = Naive { dim: 1, vectors: vec![1.0; 40], forgets: None };
    // Stored class by class, as product lists are.
    let numbers: Vec<u32> = (0..40).map(|i| i / 4).collect();
    let report = leave_one_out(&index, &classes(&numbers), &config(&[1, 30])).unwrap();
    let exact = report.exact().unwrap();
    assert_eq!(exact.recall(1), Some(0.0));
    assert_eq!(exact.duplicates, 40);
    assert!(exact.ties > 0);
}

#[test]
fn bad_questions_are_refused() {
    let (index, of) = (naive(4, 7), classes(&[0; 4]));
    for ks in [&[][..], &[1, 0]] {
        assert!(matches!(leave_one_out(&index, &of, &config(ks)), Err(QueryError::ZeroK)));
    }
    let short = Queries { name: "q", vectors: &[1.0; 3], classes: &of[..1], own_ids: None };
    let error = evaluate(&gallery(&index, &of), &short, &config(&[1]), &|_, _| {}).unwrap_err();
    assert_eq!(error.to_string(), "1 queries of 4 dimensions need 4 numbers, got 3 (own ids: None)");
    let none = Queries { name: "q", vectors: &[], classes: &[], own_ids: None };
    let error = evaluate(&gallery(&index, &of), &none, &config(&[1]), &|_, _| {}).unwrap_err();
    assert_eq!(error.to_string(), "q holds no query");
    let empty = Naive { dim: 4, vectors: vec![], forgets: None };
    let error = leave_one_out(&empty, &[], &config(&[1])).unwrap_err();
    assert_eq!(error.to_string(), "the gallery g holds no item");
}
