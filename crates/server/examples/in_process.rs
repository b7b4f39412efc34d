//! What the engine does without HTTP, to compare the server with (`benches/peers/server`).
//!
//! - `prepare VECTORS.f32 DIR` makes an index of raw f32 vectors of 512 numbers, under the model `random:resnet18`;
//! - `vectors DIR THREADS SECONDS` searches with the index's own vectors, 10 neighbours each;
//! - `photos DIR SECONDS PHOTO…` decodes and embeds photographs in batches, and embeds alone.

use std::error::Error;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rayon::prelude::*;
use semblance_embed::transform::decode_small_file;
use semblance_embed::{Embedder, ModelSource};
use semblance_index::{Index, IndexConfig, IndexWriter, NewItem, SearchParams};
use semblance_query::{catalog, engine};

const DIM: usize = 512;
const BATCH: usize = 16;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["prepare", vectors, dir] => prepare(Path::new(vectors), Path::new(dir)),
        ["vectors", dir, threads, seconds] => vectors(Path::new(dir), threads.parse()?, seconds.parse()?),
        ["photos", dir, seconds, ref photos @ ..] => embed(Path::new(dir), seconds.parse()?, photos),
        _ => {
            Err("usage: prepare VECTORS.f32 DIR | vectors DIR THREADS SECONDS | photos DIR SECONDS PHOTO…"
                .into())
        }
    }
}

fn prepare(vectors: &Path, dir: &Path) -> Result<(), Box<dyn Error>> {
    let model = ModelSource::new("random:resnet18");
    let mut config = IndexConfig::new(DIM, Embedder::open(&model)?.fingerprint());
    config.attributes.insert(catalog::MODEL.to_owned(), model.model);
    let writer = IndexWriter::create(dir, &config)?;
    let bytes = std::fs::read(vectors)?;
    for (batch, bytes) in bytes.chunks(DIM * 4 * 1024).enumerate() {
        let numbers: Vec<f32> =
            bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        let rows = numbers.len() / DIM;
        let items: Vec<NewItem> =
            (0..rows).map(|row| NewItem::new(format!("{:06}.jpg", batch * 1024 + row))).collect();
        writer.upsert(&items, &numbers)?;
    }
    let manifest = writer.finish(&|_| {})?;
    println!("{} items", manifest.items);
    Ok(())
}

fn vectors(dir: &Path, threads: usize, seconds: f64) -> Result<(), Box<dyn Error>> {
    let index = Index::open(dir)?;
    let ids = index.ids();
    let queries: Vec<Vec<f32>> =
        (0..1000).map(|i| index.vector(ids[i * 7919 % ids.len()])).collect::<Result<_, _>>()?;
    let (count, end) = (AtomicU64::new(0), Instant::now() + Duration::from_secs_f64(seconds));
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (index, queries, count) = (&index, &queries, &count);
            scope.spawn(move || {
                for at in (thread * 331..).take_while(|_| Instant::now() < end) {
                    let found = index
                        .search(&queries[at % queries.len()], &SearchParams::new(10))
                        .expect("an answer");
                    assert_eq!(found.len(), 10);
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    println!("in-process, {threads} threads: {:.0} queries/s", count.into_inner() as f64 / seconds);
    Ok(())
}

fn embed(dir: &Path, seconds: f64, photos: &[&str]) -> Result<(), Box<dyn Error>> {
    let embedder = Embedder::open(&engine::recorded_model(&Index::open(dir)?)?)?;
    let transform = embedder.transform().clone();
    let prepare = |photo: &&str| -> Vec<f32> {
        let picture = decode_small_file(Path::new(photo), &Default::default(), transform.resize);
        transform.apply(&picture.expect("a photograph").picture)
    };
    let batches: Vec<&[&str]> = photos.chunks_exact(BATCH).collect();
    let pixels: Vec<f32> = batches[0].par_iter().flat_map_iter(prepare).collect();
    embedder.embed(&pixels, BATCH)?;
    let rate = |work: &mut dyn FnMut(usize)| {
        let started = Instant::now();
        let mut rounds = 0;
        while started.elapsed().as_secs_f64() < seconds {
            work(rounds);
            rounds += 1;
        }
        (rounds * BATCH) as f64 / started.elapsed().as_secs_f64()
    };
    let alone = rate(&mut |_| drop(embedder.embed(&pixels, BATCH).expect("vectors")));
    let whole = rate(&mut |round| {
        let pixels: Vec<f32> = batches[round % batches.len()].par_iter().flat_map_iter(prepare).collect();
        embedder.embed(&pixels, BATCH).expect("vectors");
    });
    println!("the model alone, batches of {BATCH}: {alone:.1} photos/s");
    println!("decoded and embedded, batches of {BATCH}: {whole:.1} photos/s");
    Ok(())
}
