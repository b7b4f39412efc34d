//! Small segments beside a larger one are searched by the signs of their numbers: the answers are those of exact search,
//! without much being scored, whatever the codes, and say nothing of what was deleted.

mod data;

use data::unit;
use rand::{Rng, SeedableRng};
use semblance_index::*;

/// No multiple of 64, and more than that.
const DIM: usize = 200;
const SIZES: [usize; 3] = [4_000, 1_500, 1_100];

fn quiet(_: Progress) {}

/// Unit vectors in a space of a few dimensions.
fn vectors(n: usize, seed: u64) -> Vec<f32> {
    const LATENT: usize = 10;
    let mapping: Vec<Vec<f32>> = (0..LATENT as u64).map(|seed| unit(DIM, seed)).collect();
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let mut all = Vec::with_capacity(n * DIM);
    for _ in 0..n {
        let place: [f32; LATENT] = std::array::from_fn(|_| rng.random_range(-1.0..1.0));
        let row: Vec<f32> =
            (0..DIM).map(|at| place.iter().zip(&mapping).map(|(x, to)| x * to[at]).sum()).collect();
        let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt();
        all.extend(row.iter().map(|x| x / norm));
    }
    all
}

/// An index of a segment for each size, and its vectors.
fn segmented(dir: &std::path::Path, codes: Codes) -> (IndexWriter, Vec<f32>) {
    let hnsw = HnswConfig { m: 8, ef_construction: 60, ..HnswConfig::default() };
    let config = IndexConfig { hnsw, codes, durability: Durability::Finish, ..IndexConfig::new(DIM, "m") };
    let writer = IndexWriter::create(dir, &config).unwrap();
    let (all, mut first) = (vectors(SIZES.iter().sum(), 1), 0);
    for size in SIZES {
        let items: Vec<NewItem> = (first..first + size).map(|i| NewItem::new(format!("{i}"))).collect();
        writer.upsert(&items, &all[first * DIM..(first + size) * DIM]).unwrap();
        writer.finish(&quiet).unwrap();
        first += size;
    }
    (writer, all)
}

#[test]
fn answers_are_those_of_exact_search() {
    for codes in [Codes::F32, Codes::F16, Codes::I8] {
        let dir = tempfile::tempdir().unwrap();
        drop(segmented(dir.path(), codes));
        let index = Index::open(dir.path()).unwrap();
        assert_eq!(index.manifest().segments.len(), SIZES.len());
        let queries = vectors(200, 2);
        let (mut found_small, mut all_small, mut found, mut scored) = (0, 0, 0, 0);
        for query in queries.chunks(DIM) {
            let truth = index.search(query, &SearchParams::exact(10)).unwrap();
            let (hits, explain) = index.search_explained(query, &SearchParams::new(10)).unwrap();
            assert!(hits.len() == 10 && hits.is_sorted_by(|a, b| a.cmp_best_first(b).is_lt()));
            assert_eq!(explain.segments, SIZES.len());
            scored += explain.scored;
            for near in &truth {
                let hit = hits.iter().any(|hit| hit == near);
                found += usize::from(hit);
                if near.id >= SIZES[0] as u64 {
                    all_small += 1;
                    found_small += usize::from(hit);
                }
            }
        }
        assert!(found >= 1_980, "{codes:?}: {found} of 2000");
        assert!(
            all_small > 500 && found_small * 1000 >= all_small * 990,
            "{codes:?}: {found_small} of {all_small}"
        );
        // The larger graph takes some 700 scores, each of the smaller some 400.
        assert!(scored / 200 < 1_100, "{codes:?}: {}", scored / 200);
    }
}

#[test]
fn what_was_deleted_is_not_found_and_equal_scores_are_in_order_of_ids() {
    for codes in [Codes::F32, Codes::I8] {
        let dir = tempfile::tempdir().unwrap();
        let (writer, all) = segmented(dir.path(), codes);
        // The same vector, from each segment, under keys whose ids come later.
        let copied = &all[5_000 * DIM..5_001 * DIM];
        let copies: Vec<NewItem> = ["a", "7", "5300", "b"].map(NewItem::new).into();
        writer.upsert(&copies, &copied.repeat(4)).unwrap();
        // Deleted from each.
        let deleted: Vec<String> = (0..6_600).step_by(3).map(|i| i.to_string()).collect();
        let kept: Vec<String> = deleted.into_iter().filter(|key| key != "5300").collect();
        writer.delete_keys(&kept).unwrap();
        writer.finish(&quiet).unwrap();
        let index = Index::open(dir.path()).unwrap();
        let hidden = |id: u64| index.item(id).is_err();
        let mut hits = 0;
        for query in all.chunks(DIM).step_by(41) {
            let found = index.search(query, &SearchParams::new(10)).unwrap();
            let truth = index.search(query, &SearchParams::exact(10)).unwrap();
            assert!(found.len() == 10 && !found.iter().any(|near| hidden(near.id)));
            hits += truth.iter().filter(|near| found.contains(near)).count();
        }
        assert!(hits >= 1_590, "{codes:?}: {hits} of 1610");
        let ids: Vec<u64> =
            ["5000", "7", "5300", "a", "b"].map(|key| index.find(key).unwrap().unwrap()).into();
        let mut want = ids.clone();
        want.sort_unstable();
        for k in 1..=5 {
            let found = index.search(copied, &SearchParams::new(k)).unwrap();
            assert_eq!(found.iter().map(|near| near.id).collect::<Vec<_>>(), want[..k], "{codes:?} {k}");
        }
    }
}

#[test]
fn ranges_filters_and_many_neighbours_are_answered_as_before() {
    let dir = tempfile::tempdir().unwrap();
    let (_, all) = segmented(dir.path(), Codes::Auto);
    let index = Index::open(dir.path()).unwrap();
    for query in all.chunks(DIM).step_by(700) {
        let some =
            SearchParams { filter: Some(Filter::any_of("id", [1, 4_100, 6_000])), ..SearchParams::new(10) };
        let range = SearchParams { min_score: Some(0.8), ..SearchParams::new(5_000) };
        let many = SearchParams::new(5_000);
        for params in [some, range, many] {
            let truth = index.search(query, &SearchParams { exact: true, ..params.clone() }).unwrap();
            let found = index.search(query, &params).unwrap();
            let hits = truth.iter().filter(|near| found.contains(near)).count();
            assert!(hits * 100 >= truth.len() * 98, "{params:?}: {hits} of {}", truth.len());
        }
    }
}

#[test]
fn a_cancelled_search_stops() {
    let dir = tempfile::tempdir().unwrap();
    let (_, all) = segmented(dir.path(), Codes::I8);
    let index = Index::open(dir.path()).unwrap();
    let params = SearchParams::new(10);
    assert!(index.search(&all[..DIM], &params).is_ok());
    params.cancel.cancel();
    assert!(matches!(index.search(&all[..DIM], &params), Err(IndexError::Cancelled)));
}
