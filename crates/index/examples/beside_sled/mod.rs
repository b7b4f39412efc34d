//! One item added by a process of its own, and the same records inserted by sled alone into a copy of the same store.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use semblance_index::*;

use super::{Outcome, Source};

/// Names the work of a child process.
const CHILD: &str = "GROWTH_CHILD";
const ROUNDS: usize = 5;

/// Does the work of a child, if this is one.
pub(crate) fn child(dir: &Path, dim: usize) -> Outcome<bool> {
    let Ok(task) = std::env::var(CHILD) else { return Ok(false) };
    let vector = Source::new(dim).batch(1);
    let started = Instant::now();
    match task.as_str() {
        "ours" => {
            let writer = IndexWriter::open(dir)?;
            writer.upsert(&[NewItem::new("alone")], &vector)?;
            writer.finish(&|_| {})?;
        }
        _ => {
            let db = sled::Config::new().path(dir.join("store"));
            let db = db.cache_capacity(128 << 20).flush_every_ms(None).open()?;
            let id = u64::MAX.to_be_bytes();
            db.open_tree("vectors")?.insert(id, bytemuck::cast_slice::<f32, u8>(&vector))?;
            db.open_tree("items")?.insert(id, [0u8; 64].as_slice())?;
            db.open_tree("keys")?.insert("alone", &id)?;
            db.flush()?;
            fs::File::open(dir.join("store/db"))?.sync_all()?;
        }
    }
    let ms = started.elapsed().as_secs_f64() * 1e3;
    let status = fs::read_to_string("/proc/self/status")?;
    let kilobytes = |name: &str| -> Option<f64> {
        status.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
    };
    let peak = kilobytes("VmHWM:").ok_or("/proc/self/status has no VmHWM")?;
    println!("{ms} {}", peak / 1e3);
    Ok(true)
}

/// Prints medians of several rounds, each on a fresh copy of the index.
pub(crate) fn compare(grown: &Path, scratch: &Path, dim: usize) -> Outcome<()> {
    let mut results = [vec![], vec![]];
    for _ in 0..ROUNDS {
        for (which, task) in ["ours", "sled"].into_iter().enumerate() {
            let _ = fs::remove_dir_all(scratch);
            copy(grown, scratch)?;
            let mut child = Command::new(std::env::current_exe()?);
            let output = child.arg(scratch).arg("0").arg(dim.to_string()).env(CHILD, task).output()?;
            if !output.status.success() {
                return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
            }
            let text = String::from_utf8(output.stdout)?;
            let (ms, peak) = text.trim().split_once(' ').ok_or("a child printed nothing")?;
            results[which].push((ms.parse::<f64>()?, peak.parse::<f64>()?));
        }
    }
    fs::remove_dir_all(scratch)?;
    let median = |of: fn(&(f64, f64)) -> f64, which: usize| {
        let mut values: Vec<f64> = results[which].iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    for (what, of) in [("ms", (|r| r.0) as fn(&(f64, f64)) -> f64), ("MB of memory at most", |r| r.1)] {
        let (ours, sled) = (median(of, 0), median(of, 1));
        println!(
            "one item by a process of its own: {ours:.0} {what}, sled alone {sled:.0}, ratio {:.2}",
            ours / sled
        );
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Outcome<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (entry, place) = (entry.path(), to.join(entry.file_name()));
        if entry.is_dir() {
            copy(&entry, &place)?;
        } else {
            fs::copy(&entry, &place)?;
            // The copy must not be on its way to the disk while a child waits for its own syncs.
            fs::OpenOptions::new().write(true).open(&place)?.sync_all()?;
        }
    }
    Ok(())
}
