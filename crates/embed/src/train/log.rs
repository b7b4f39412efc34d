//! `train.jsonl`: one line per step and one line per validation; and the same for TensorBoard.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use super::Score;
use super::events::Events;
use crate::error::{Result, io_at};

#[derive(Serialize)]
struct StepRecord {
    step: usize,
    loss: f32,
    lr: f64,
    images_per_second: f64,
}

#[derive(Serialize)]
pub(super) struct ValidationRecord {
    pub(super) step: usize,
    #[serde(flatten)]
    pub(super) score: Score,
    pub(super) best: bool,
}

/// The run's log, appended to.
pub(super) struct RunLog {
    path: PathBuf,
    file: File,
    events: Events,
}

impl RunLog {
    /// Opens the log of `run`, without what an earlier process wrote after the state that is resumed from: steps
    /// beyond `done`, and a line cut short.
    pub(super) fn open(run: &Path, done: usize) -> Result<Self> {
        let path = run.join("train.jsonl");
        if let Ok(text) = fs::read_to_string(&path) {
            let step_of = |line: &str| serde_json::from_str::<Value>(line).ok()?.get("step")?.as_u64();
            let kept = text.lines().filter(|line| step_of(line).is_some_and(|step| step <= done as u64));
            // A run that starts afresh validates before its first step again.
            let kept = kept.filter(|_| done > 0);
            let kept: String = kept.map(|line| format!("{line}\n")).collect();
            fs::write(&path, kept).map_err(io_at(&path))?;
        }
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(io_at(&path))?;
        Ok(Self { path, file, events: Events::begin(run, done)? })
    }

    pub(super) fn step(&mut self, step: usize, loss: f32, lr: f64, images_per_second: f64) -> Result<()> {
        self.write(&StepRecord { step, loss, lr, images_per_second })?;
        self.events.scalar(step, "loss", loss)?;
        self.events.scalar(step, "lr", lr as f32)?;
        self.events.scalar(step, "images_per_second", images_per_second as f32)
    }

    pub(super) fn validation(&mut self, record: &ValidationRecord) -> Result<()> {
        self.write(record)?;
        self.events.scalar(record.step, "recall_at_1", record.score.recall_at_1 as f32)?;
        self.events.scalar(record.step, "map_at_r", record.score.map_at_r as f32)
    }

    fn write(&mut self, record: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_vec(record).map_err(std::io::Error::from).map_err(io_at(&self.path))?;
        line.push(b'\n');
        self.file.write_all(&line).map_err(io_at(&self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resuming_cuts_what_came_after_the_saved_state() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = RunLog::open(dir.path(), 0).unwrap();
        for step in 1..=5 {
            log.step(step, 0.5, 0.1, 10.0).unwrap();
        }
        log.file.write_all(b"{\"step\": 6, \"lo").unwrap();
        drop(log);
        drop(RunLog::open(dir.path(), 3).unwrap());
        let text = fs::read_to_string(dir.path().join("train.jsonl")).unwrap();
        assert_eq!(text.lines().count(), 3);
    }
}
