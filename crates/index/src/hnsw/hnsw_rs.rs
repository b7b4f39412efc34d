//! The graph, built by hnsw_rs. The only file that names it.
//!
//! Its graphs are good, its points lie behind `Arc`s and locks: links are copied into our own layout, which is what is
//! stored and searched; its dump and reload are not used. It ends the process for some parameters and panics on
//! distances that are not numbers, so all is validated before it is called.

use hnsw_rs::prelude::{Distance, Hnsw};

use crate::backend::vector_index::check_vectors;
use crate::codes::kernel::dot_f32;
use crate::config::{HnswConfig, Progress, Stage};
use crate::error::Result;
use crate::hnsw::graph::{GraphData, MAX_LEVEL, NONE, ground_stride};

/// Layers hnsw_rs is told to have; it allows no more than 16.
const LAYERS: usize = 16;
/// Points inserted between two reports of progress.
const REPORT: usize = 8192;

/// One minus the scalar product, never below zero: rounding must not trip hnsw_rs's assertions.
#[derive(Clone, Copy)]
struct Dot;

impl Distance<f32> for Dot {
    fn eval(&self, a: &[f32], b: &[f32]) -> f32 {
        (1.0 - dot_f32(a, b)).max(0.0)
    }
}

/// Builds a graph over padded rows of unit vectors.
pub(crate) fn build(
    rows: &[f32],
    stride: usize,
    config: &HnswConfig,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<GraphData> {
    // Padding is zeros: a padded row has the norm of its vector.
    check_vectors(rows, rows.len().div_ceil(stride), stride)?;
    let nodes = rows.len() / stride;
    if nodes == 0 {
        return Ok(GraphData::unlinked(config.m, vec![]));
    }
    let mut hnsw = Hnsw::<f32, Dot>::new(config.m, nodes, LAYERS, config.ef_construction, Dot);
    hnsw.set_keeping_pruned(true);
    let points: Vec<(&[f32], usize)> = rows.chunks_exact(stride).zip(0..).collect();
    for (i, part) in points.chunks(REPORT).enumerate() {
        progress(Progress { stage: Stage::Link, done: (i * REPORT) as u64, total: nodes as u64 });
        hnsw.parallel_insert_slice(&part.to_vec());
    }
    progress(Progress { stage: Stage::Link, done: nodes as u64, total: nodes as u64 });

    let mut levels = vec![0u8; nodes];
    let points = hnsw.get_point_indexation();
    for point in points {
        levels[point.get_origin_id()] = point.get_point_id().0.min(MAX_LEVEL);
    }
    let mut graph = GraphData::unlinked(config.m, levels);
    let stride = ground_stride(config.m);
    for point in points {
        let node = point.get_origin_id();
        for (level, neighbours) in point.get_neighborhood_id().into_iter().enumerate() {
            // A node keeps links on layers it does not reach, and to nodes below a layer; neither is of use to a walk.
            let reached = |n: &usize| usize::from(graph.levels[*n]) >= level && *n != node;
            let links: Vec<u32> =
                neighbours.iter().map(|n| n.get_origin_id()).filter(reached).map(|n| n as u32).collect();
            let places = match level {
                0 => &mut graph.ground[node * stride..][..2 * config.m],
                _ if level <= usize::from(graph.levels[node]) => {
                    let start = graph.upper_start[node] as usize + (level - 1) * config.m;
                    &mut graph.upper[start..start + config.m]
                }
                _ => continue,
            };
            for (i, place) in places.iter_mut().enumerate() {
                *place = links.get(i).copied().unwrap_or(NONE);
            }
        }
    }
    Ok(graph)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codes::quantize::CodeView;
    use crate::error::IndexError;
    use crate::hnsw::search::{Scratch, search};
    use rand::{Rng, SeedableRng};

    #[test]
    fn its_graph_finds_the_true_neighbours_in_our_layout() {
        let (n, dim) = (1500, 16);
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let mut rows: Vec<f32> = (0..n * dim).map(|_| rng.random_range(-1.0f32..1.0)).collect();
        for row in rows.chunks_exact_mut(dim) {
            let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt();
            row.iter_mut().for_each(|x| *x /= norm);
        }
        let config = HnswConfig { m: 10, ef_construction: 80, ..HnswConfig::default() };
        let graph = build(&rows, dim, &config, &|_| {}).unwrap();
        let codes = CodeView::f32(dim, &rows);
        let (mut hits, mut scratch) = (0, Scratch::default());
        for node in (0..n).step_by(15) {
            let query = &rows[node * dim..][..dim];
            let mut exact: Vec<u32> = (0..n as u32).collect();
            exact.sort_by(|&a, &b| {
                let score = |m: u32| dot_f32(query, &rows[m as usize * dim..][..dim]);
                score(b).total_cmp(&score(a))
            });
            search(&graph.view(), &codes.query(query), 64, &mut scratch);
            hits += scratch.pool[..10].iter().filter(|c| exact[..10].contains(&c.node)).count();
        }
        assert!(hits >= 970, "{hits} of 1000");
        assert_eq!(build(&[], dim, &config, &|_| {}).unwrap().entry, NONE);
    }

    #[test]
    fn rows_that_would_make_it_panic_or_exit_are_refused() {
        let refused = |rows: &[f32]| build(rows, 2, &HnswConfig::default(), &|_| {}).err().unwrap();
        assert!(matches!(refused(&[1.0, 0.0, f32::NAN, 0.0]), IndexError::NotFinite { row: 1, .. }));
        assert!(matches!(refused(&[1.0, 0.0, 3.0, 0.0]), IndexError::NotUnit { row: 1, .. }));
        assert!(matches!(refused(&[1.0, 0.0, 0.0]), IndexError::WrongLength { .. }));
    }
}
