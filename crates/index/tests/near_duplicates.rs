//! Near-copies: recall rises with the width of a search, and items are found by their own vectors.

mod data;

use data::unit;
use rand::{Rng, SeedableRng};
use semblance_index::*;

const DIM: usize = 128;

/// `n` unit vectors in clusters of `size`, `noise` away from their centres.
fn clusters(n: usize, size: usize, noise: f32) -> Vec<f32> {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(21);
    let mut all = Vec::with_capacity(n * DIM);
    for i in 0..n {
        // In an order that mixes the clusters.
        let centre = unit(DIM, (i % (n / size)) as u64);
        let far = noise * 3f32.sqrt() / (DIM as f32).sqrt();
        let v: Vec<f32> = centre.iter().map(|c| c + far * rng.random_range(-1.0f32..1.0)).collect();
        let norm = v.iter().map(|x| x * x).sum::<f32>().sqrt();
        all.extend(v.iter().map(|x| x / norm));
    }
    all
}

fn index(dir: &std::path::Path, codes: Codes, vectors: &[f32]) -> Index {
    built(dir, IndexConfig { codes, ..IndexConfig::new(DIM, "m") }, vectors)
}

fn built(dir: &std::path::Path, config: IndexConfig, vectors: &[f32]) -> Index {
    let config = IndexConfig { durability: Durability::Finish, ..config };
    let writer = IndexWriter::create(dir, &config).unwrap();
    for (i, part) in vectors.chunks(2000 * DIM).enumerate() {
        let items: Vec<NewItem> =
            (0..part.len() / DIM).map(|j| NewItem::new(format!("{}", i * 2000 + j))).collect();
        writer.upsert(&items, part).unwrap();
    }
    writer.finish(&|_| {}).unwrap();
    drop(writer);
    Index::open(dir).unwrap()
}

/// Of stored vectors, the share of the ten nearest that is found (`ann_recall`), and how many are not found by
/// themselves. A neighbour counts if its score is at least the tenth exact one, less 1e-6. No search may be flat.
fn measure(index: &Index, vectors: &[f32], ef: Option<usize>) -> (f64, usize) {
    let params = SearchParams { ef_search: ef, ..SearchParams::new(10) };
    let (mut hits, mut missed, mut asked) = (0, 0, 0);
    for (id, query) in vectors.chunks_exact(DIM).enumerate().step_by(13) {
        let (found, explain) = index.search_explained(query, &params).unwrap();
        assert!(matches!(explain.strategy, Strategy::Graph { .. }), "{explain:?}");
        let exact = index.search(query, &SearchParams::exact(10)).unwrap();
        hits += found.iter().filter(|f| f.score >= exact[9].score - 1e-6).count();
        missed += usize::from(found[0].id != id as u64);
        asked += 1;
    }
    (hits as f64 / (10 * asked) as f64, missed)
}

#[test]
fn recall_of_near_copies_rises_with_the_width_for_every_code() {
    // A search of width 1,024 is not flat with more than 12,288 items.
    let vectors = clusters(12_600, 60, 0.02);
    for codes in [Codes::I8, Codes::F16, Codes::F32, Codes::Auto] {
        let dir = tempfile::tempdir().unwrap();
        let index = index(dir.path(), codes, &vectors);
        let manifest = index.manifest();
        let precision = manifest.precision().expect("8-bit codes do not tell these apart");
        assert!(precision.i8_recall() < 0.9, "{precision:?}");
        assert_eq!(manifest.codes() == codes, codes != Codes::Auto);
        assert!(codes == Codes::I8 || manifest.codes() != Codes::I8);
        let (narrow, _) = measure(&index, &vectors, Some(10));
        let (default, missed) = measure(&index, &vectors, None);
        assert!(default >= 0.98 && missed <= 2, "{codes:?}: {default}, {missed} missed");
        let (wide, missed) = measure(&index, &vectors, Some(1024));
        assert!(wide >= 0.999 && wide >= default && missed == 0, "{codes:?}: {wide}, {missed} missed");
        assert!(narrow <= default && narrow > 0.9, "{codes:?}: {narrow}, {default}");
    }
}

#[test]
fn narrow_searches_of_a_sparse_graph_leave_the_wrong_cluster() {
    // With one descent 2,300 (i8) and 2,500 (f16) of the items are missed; with the second some 550 and 820.
    let vectors = clusters(18_000, 60, 0.22);
    for codes in [Codes::I8, Codes::F16] {
        let dir = tempfile::tempdir().unwrap();
        let hnsw = HnswConfig { m: 6, ef_construction: 60, ..HnswConfig::default() };
        let index = built(dir.path(), IndexConfig { codes, hnsw, ..IndexConfig::new(DIM, "m") }, &vectors);
        let params = SearchParams { ef_search: Some(10), ..SearchParams::new(10) };
        let found = index.search_batch(&vectors, vectors.len() / DIM, &params).unwrap();
        let missed = found.iter().enumerate().filter(|(id, found)| found[0].id != *id as u64).count();
        assert!(missed <= 1400, "{codes:?}: {missed} missed");
    }
}

#[test]
fn clusters_wider_than_the_search_are_told_apart_by_every_code() {
    let vectors = clusters(12_600, 600, 0.02);
    for codes in [Codes::I8, Codes::F16, Codes::Auto] {
        let dir = tempfile::tempdir().unwrap();
        let index = index(dir.path(), codes, &vectors);
        let (default, _) = measure(&index, &vectors, None);
        assert!(default >= 0.98, "{codes:?}: {default}");
        let (wide, missed) = measure(&index, &vectors, Some(1024));
        assert!(wide >= 0.999 && missed == 0, "{codes:?}: {wide}, {missed} missed");
    }
}

#[test]
fn a_thousand_copies_of_one_vector_hide_nothing() {
    let mut vectors = clusters(3000, 1, 0.0);
    let copy = vectors[5 * DIM..6 * DIM].to_vec();
    (0..1000).for_each(|_| vectors.extend_from_slice(&copy));
    let dir = tempfile::tempdir().unwrap();
    let index = index(dir.path(), Codes::Auto, &vectors);
    assert_eq!(index.manifest().nodes(), 3000);
    assert_eq!(index.manifest().codes(), Codes::I8, "copies are one node, which any code finds");
    assert_eq!(index.manifest().precision(), None);
    for (id, query) in vectors.chunks_exact(DIM).take(3000).enumerate() {
        assert_eq!(index.search(query, &SearchParams::new(10)).unwrap()[0].id, id as u64);
    }
    let found = index.search(&copy, &SearchParams::new(1001)).unwrap();
    assert!(found.iter().map(|f| f.id).eq([5].into_iter().chain(3000..4000)));
}

#[test]
fn an_index_is_extended_with_the_precision_it_was_built_with() {
    let vectors = clusters(9_000, 60, 0.02);
    for codes in [Codes::I8, Codes::Auto] {
        let dir = tempfile::tempdir().unwrap();
        let before = index(dir.path(), codes, &vectors[..7500 * DIM]).manifest();
        let writer = IndexWriter::open(dir.path()).unwrap();
        let items: Vec<NewItem> = (7500..9000).map(|i| NewItem::new(format!("{i}"))).collect();
        writer.upsert(&items, &vectors[7500 * DIM..]).unwrap();
        let after = writer.finish(&|_| {}).unwrap();
        drop(writer);
        assert_eq!((after.precision(), after.codes()), (before.precision(), before.codes()));
        let index = Index::open(dir.path()).unwrap();
        let (recall, missed) = measure(&index, &vectors, None);
        assert!(recall >= 0.98 && missed <= 2, "{codes:?}: {recall}, {missed} missed");
    }
}
