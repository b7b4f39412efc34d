//! What an index of so many synthetic vectors takes on disk and in memory, for the table of `benches/peers/index`:
//!
//! ```sh
//! cargo run --release -p semblance-index --example scale -- DIR [ITEMS] [DIM] [CODES]
//! ```
//!
//! By default 1,000,000 × 512 with i8 codes: some 8 GB of disk, to be run by hand. A folder that holds an index already
//! is only searched, in a process that built nothing.

mod synthetic;

use std::error::Error;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use semblance_index::*;
use synthetic::Source;

/// As in the `semblance` program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BATCH: usize = 2048;

/// Megabytes (of 10⁶ bytes) of a line of `/proc/self/status`.
fn status(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find(|l| l.starts_with(name)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * 1024 / 1_000_000
}

/// The most memory in use while something runs, in megabytes: the process's own, and pages of mapped files.
fn most<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let (done, start) = (Mutex::new(false), Instant::now());
    let watch = || {
        let mut most = [0; 2];
        loop {
            most = [most[0].max(status("RssAnon")), most[1].max(status("RssFile"))];
            if *done.lock().expect("no panic") {
                return most;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    std::thread::scope(|scope| {
        let watch = scope.spawn(watch);
        let result = work();
        *done.lock().expect("no panic") = true;
        let [own, files] = watch.join().expect("no panic");
        let seconds = start.elapsed().as_secs_f64();
        println!("{what}: {seconds:.0} s, at most {own} MB of its own and {files} MB of mapped files");
        result
    })
}

fn megabytes(path: &Path) -> u64 {
    let files = std::fs::read_dir(path).into_iter().flatten().flatten();
    let bytes = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => megabytes(&entry.path()) * 1_000_000,
        Ok(meta) => meta.len(),
        Err(_) => 0,
    };
    files.map(bytes).sum::<u64>() / 1_000_000
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let dir = Path::new(args.first().ok_or("usage: scale DIR [ITEMS] [DIM] [CODES]")?);
    let number = |at: usize, default: usize| args.get(at).map_or(Ok(default), |text| text.parse());
    let (n, dim) = (number(1, 1_000_000)?, number(2, 512)?);
    let mut config = IndexConfig::new(dim, "synthetic");
    config.codes = args.get(3).map_or(Ok(Codes::I8), |text| text.parse())?;
    config.durability = Durability::Finish;

    let mut source = Source::new(dim);
    if !dir.join("manifest.json").exists() {
        let writer = IndexWriter::create(dir, &config)?;
        most("storing", || (0..n).step_by(BATCH).try_for_each(|from| store(&writer, &mut source, from, n)))?;
        let stage = Mutex::new(None);
        let stages = |p: Progress| {
            if stage.lock().expect("no panic").replace(p.stage) != Some(p.stage) {
                println!("  {:?}: {} MB, {} MB", p.stage, status("RssAnon"), status("RssFile"));
            }
        };
        most("building", || writer.finish(&stages))?;
        drop(writer);
        println!("when the writer was closed: {} MB, {} MB", status("RssAnon"), status("RssFile"));
    }
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let size = if entry.path().is_dir() {
            megabytes(&entry.path())
        } else {
            entry.metadata()?.len() / 1_000_000
        };
        println!("  {:24} {size:6} MB", entry.file_name().to_string_lossy());
    }
    let mut source = Source::new(dim);
    let queries: Vec<f32> = (0..10).flat_map(|_| source.batch(BATCH)[..100 * dim].to_vec()).collect();
    most("searching", || search(dir, &queries, dim))
}

fn store(writer: &IndexWriter, source: &mut Source, from: usize, n: usize) -> Result<(), Box<dyn Error>> {
    let items: Vec<NewItem> =
        (from..n.min(from + BATCH)).map(|i| NewItem::new(format!("photographs/{i:08}.jpg"))).collect();
    let vectors = source.batch(items.len());
    writer.upsert(&items, &vectors)?;
    Ok(())
}

fn search(dir: &Path, queries: &[f32], dim: usize) -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    let index = Index::open(dir)?;
    index.search(&queries[..dim], &SearchParams::new(10))?;
    println!("opened and first query: {:.0} ms", start.elapsed().as_secs_f64() * 1e3);
    for ef in [32, 64, 128] {
        let params = SearchParams { ef_search: Some(ef), ..SearchParams::new(10) };
        let start = Instant::now();
        let mut hits = 0;
        for query in queries.chunks_exact(dim) {
            // The query is a stored vector, so it must come first.
            hits += usize::from(index.search(query, &params)?[0].score > 0.9999);
        }
        let count = queries.len() / dim;
        let speed = count as f64 / start.elapsed().as_secs_f64();
        println!("ef {ef}: {speed:.0} queries/s, {hits} of {count} stored vectors found");
    }
    Ok(())
}
