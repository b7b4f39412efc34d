//! What an index costs while it grows, as a table: one item added and removed, searches over several segments,
//! and what adding one item takes beside sled alone.
//!
//! ```sh
//! cargo run --release -p semblance-index --example growth -- DIR [ITEMS] [DIM]
//! ```
//!
//! Bytes and processor time are those of this process (Linux). By default 200,000 × 512. An index that the folder holds
//! already is used.

mod beside_sled;
mod synthetic;

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use semblance_index::*;
use synthetic::Source;

/// As in the `semblance` program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BATCH: usize = 2048;
const QUERIES: usize = 1000;
/// Sizes of the segments beside the large one.
const SMALL: [usize; 7] = [1_000, 2_000, 3_000, 4_000, 5_000, 7_000, 10_000];

type Outcome<T> = Result<T, Box<dyn Error>>;

/// What a process has used so far.
#[derive(Clone, Copy)]
struct Used {
    written: u64,
    processor_ms: u64,
    started: Instant,
}

impl Used {
    fn now() -> Outcome<Self> {
        let io = std::fs::read_to_string("/proc/self/io")?;
        let written = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
        let stat = std::fs::read_to_string("/proc/self/stat")?;
        // Times of the process itself, in hundredths of a second, behind the name in parentheses.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks: u64 = fields.iter().skip(11).take(2).filter_map(|f| f.parse::<u64>().ok()).sum();
        let written = written.and_then(|text| text.parse().ok()).ok_or("/proc/self/io has no write_bytes")?;
        Ok(Self { written, processor_ms: ticks * 10, started: Instant::now() })
    }

    fn print(self, what: &str) -> Outcome<()> {
        let now = Self::now()?;
        println!(
            "{what:44} {:10.3} MB written {:7} ms of processors {:7} ms",
            (now.written - self.written) as f64 / 1e6,
            now.processor_ms - self.processor_ms,
            self.started.elapsed().as_millis()
        );
        Ok(())
    }
}

fn main() -> Outcome<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let dir = Path::new(args.first().ok_or("usage: growth DIR [ITEMS] [DIM]")?);
    let number = |at: usize, default: usize| args.get(at).map_or(Ok(default), |text| text.parse());
    let (n, dim) = (number(1, 200_000)?, number(2, 512)?);
    if beside_sled::child(dir, dim)? {
        return Ok(());
    }
    let mut source = Source::new(dim);
    let grown = dir.join("grown");
    if !grown.join(MANIFEST_NAME).exists() {
        build(&grown, &mut source, n, dim)?;
    }
    beside_sled::compare(&grown, &dir.join("copy"), dim)?;
    one_item(&grown, &mut Source::new(dim), dim)?;
    segments(&dir.join("segments"), &[&[n][..], &SMALL].concat(), dim)?;
    segments(&dir.join("equal"), &[n / 8; 8], dim)
}

fn build(dir: &Path, source: &mut Source, n: usize, dim: usize) -> Outcome<()> {
    let config = IndexConfig { durability: Durability::Finish, ..IndexConfig::new(dim, "synthetic") };
    let writer = IndexWriter::create(dir, &config)?;
    let used = Used::now()?;
    add(&writer, source, 0, n)?;
    writer.sync()?;
    used.print(&format!("importing {n}: storing"))?;
    let used = Used::now()?;
    writer.finish(&|_| {})?;
    used.print("  publishing")?;
    let used = Used::now()?;
    drop(writer);
    used.print("  closing")
}

fn add(writer: &IndexWriter, source: &mut Source, first: usize, n: usize) -> Outcome<()> {
    for from in (first..first + n).step_by(BATCH) {
        let numbers = from..(first + n).min(from + BATCH);
        let items: Vec<NewItem> = numbers.map(|i| NewItem::new(format!("photographs/{i:08}.jpg"))).collect();
        writer.upsert(&items, &source.batch(items.len()))?;
    }
    Ok(())
}

/// Adds and removes items one by one through an open writer with a reader, as a server does, then through a new one.
fn one_item(dir: &Path, source: &mut Source, dim: usize) -> Outcome<()> {
    let used = Used::now()?;
    let writer = IndexWriter::open(dir)?;
    used.print("opening a writer")?;
    let used = Used::now()?;
    let reader = writer.reader()?;
    used.print("opening its reader")?;
    for round in 0..3 {
        let item = [NewItem::new(format!("added/{round}"))];
        let used = Used::now()?;
        writer.upsert(&item, &source.batch(1))?;
        writer.finish(&|_| {})?;
        used.print("one item added and published")?;
        let used = Used::now()?;
        writer.delete_keys(&[format!("photographs/{:08}.jpg", round * 7)])?;
        writer.finish(&|_| {})?;
        used.print("one item removed and published")?;
    }
    let used = Used::now()?;
    while writer.merge(&MergeOptions::default(), &|_| {})?.is_some() {}
    used.print("merges that were due")?;
    println!("{} segments, {} items", reader.manifest().segments.len(), reader.len());
    drop((reader, writer));
    let used = Used::now()?;
    let writer = IndexWriter::open(dir)?;
    writer.upsert(&[NewItem::new("alone")], &source.batch(1)[..dim])?;
    writer.finish(&|_| {})?;
    drop(writer);
    used.print("opened, one item added, published, closed")
}

/// Searches several segments, and the same items merged.
fn segments(dir: &Path, sizes: &[usize], dim: usize) -> Outcome<()> {
    let _ = std::fs::remove_dir_all(dir);
    let config = IndexConfig { durability: Durability::Finish, ..IndexConfig::new(dim, "synthetic") };
    let (writer, mut source) = (IndexWriter::create(dir, &config)?, Source::new(dim));
    let mut first = 0;
    for &size in sizes {
        add(&writer, &mut source, first, size)?;
        writer.finish(&|_| {})?;
        first += size;
    }
    let queries = source.batch(QUERIES);
    println!("segments of {sizes:?}");
    let parted = Index::open(dir)?;
    let truth = parted.search_batch(&queries, QUERIES, &SearchParams::exact(10))?;
    writer.compact(&|_| {})?;
    let merged = Index::open(dir)?;
    for ef in [16, 32, 64, 128, 256] {
        let params = SearchParams { ef_search: Some(ef), ..SearchParams::new(10) };
        let (mut times, mut found, mut scored) = ([vec![], vec![]], [0, 0], [0, 0]);
        for round in 0..5 {
            for (which, index) in [&parted, &merged].into_iter().enumerate() {
                let start = Instant::now();
                for (query, truth) in queries.chunks_exact(dim).zip(&truth) {
                    let (hits, explain) = index.search_explained(query, &params)?;
                    let known = |n: &&Neighbor| n.score >= truth[9].score - 1e-6;
                    if round == 0 {
                        found[which] += hits.iter().filter(known).count();
                        scored[which] += explain.scored;
                    }
                }
                times[which].push(start.elapsed().as_secs_f64() * 1e6 / QUERIES as f64);
            }
        }
        let median = |times: &mut Vec<f64>| {
            times.sort_by(f64::total_cmp);
            times[times.len() / 2]
        };
        let [parted, merged] = times.each_mut().map(median);
        println!(
            "  ef {ef:3}: {parted:7.0} µs, recall {:.4}, {} scored; merged {merged:7.0} µs, {:.4}, {}; times {:.2}",
            found[0] as f64 / (10 * QUERIES) as f64,
            scored[0] / QUERIES,
            found[1] as f64 / (10 * QUERIES) as f64,
            scored[1] / QUERIES,
            parted / merged
        );
    }
    Ok(())
}
