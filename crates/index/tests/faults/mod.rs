//! File operations that fail, or at which the process ends: a small library in C, compiled here and loaded with
//! `LD_PRELOAD`, so that it covers whatever a program calls.
#![allow(dead_code)] // each test takes what it needs

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// A child that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// Kinds of operations, to be added up.
pub(crate) const OPEN: u32 = 1;
pub(crate) const CREATE: u32 = 2;
pub(crate) const WRITE: u32 = 4;
pub(crate) const SYNC: u32 = 8;
pub(crate) const RENAME: u32 = 16;
pub(crate) const UNLINK: u32 = 32;
pub(crate) const MKDIR: u32 = 64;
pub(crate) const TRUNCATE: u32 = 128;
pub(crate) const MAP: u32 = 256;
/// Reads of pages that are not in the system's memory; of one that fails the page stays bad.
pub(crate) const READ: u32 = 512;
/// Whatever can fail, reads apart.
pub(crate) const ALL: u32 = OPEN | WRITE | SYNC | RENAME | UNLINK | MKDIR | TRUNCATE | MAP;
/// Whatever changes files.
pub(crate) const CHANGES: u32 = CREATE | WRITE | SYNC | RENAME | UNLINK | MKDIR | TRUNCATE;

/// What happens at an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// It fails, and no other does.
    Fail,
    /// It fails, and so do all later ones.
    Stick,
    /// The process ends before it.
    Kill,
    /// Half of it is written, then the process ends.
    Torn,
}

/// The compiled library.
pub(crate) struct Faults {
    dir: tempfile::TempDir,
}

impl Faults {
    /// Compiles the library. `None`, with a note, where the system loads none.
    pub(crate) fn compile() -> Option<Self> {
        if !cfg!(target_os = "linux") {
            eprintln!("SKIPPED: file operations are made to fail on Linux only");
            return None;
        }
        let dir = tempfile::tempdir().expect("a temporary folder");
        let source = dir.path().join("io_faults.c");
        std::fs::write(&source, include_str!("io_faults.c")).expect("a file");
        let mut compiler = Command::new("gcc");
        compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(dir.path().join("faults.so")).arg(source);
        let status = compiler.status().expect("this test needs gcc");
        assert!(status.success(), "the library does not compile");
        Some(Self { dir })
    }

    /// Lets the `at`th of these operations (from 1 on; 0 for none) on files below `root` meet its fault in the program.
    pub(crate) fn load(&self, program: &mut Command, root: &Path, kinds: u32, at: usize, action: Action) {
        // The folder itself may be what the program makes.
        let parent = root.parent().expect("a folder").canonicalize().expect("a folder");
        let root = parent.join(root.file_name().expect("a name"));
        let action = match action {
            Action::Fail => "fail",
            Action::Stick => "stick",
            Action::Kill => "kill",
            Action::Torn => "torn",
        };
        let _ = std::fs::remove_file(self.log());
        program
            .env("LD_PRELOAD", self.dir.path().join("faults.so"))
            .env("FAULT_ROOT", root)
            .env("FAULT_KINDS", kinds.to_string())
            .env("FAULT_AT", at.to_string())
            .env("FAULT_ACTION", action)
            .env("FAULT_LOG", self.log());
    }

    /// A file while which exists operations count; without it all do.
    pub(crate) fn switch(&self) -> PathBuf {
        self.dir.path().join("switch")
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    /// The operations that counted in the program that was loaded last, a line each.
    pub(crate) fn operations(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }

    /// The operation that met its fault.
    pub(crate) fn met(&self) -> Option<String> {
        self.operations().into_iter().find(|line| line.ends_with(" FAULT"))
    }
}

/// All of `1..=count` while they are few, else the first and last of them and a sample drawn by `seed`.
pub(crate) fn places(count: usize, few: usize, seed: u64) -> Vec<usize> {
    if count <= few {
        return (1..=count).collect();
    }
    let mut chosen = std::collections::BTreeSet::from([1, count]);
    let mut state = seed;
    while chosen.len() < few {
        // A linear congruence is enough to spread them.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        chosen.insert(1 + (state >> 33) as usize % count);
    }
    chosen.into_iter().collect()
}

/// A number from the environment, for longer runs.
pub(crate) fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// Status and error output of a child; the output alone if the child hangs.
pub(crate) fn run_to_its_end(command: &mut Command) -> std::result::Result<(ExitStatus, String), String> {
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let stderr = child.stderr.take().unwrap();
    let (send, receive) = mpsc::channel();
    let reading = std::thread::spawn(move || {
        let lines: Vec<String> = BufReader::new(stderr).lines().map_while(|l| l.ok()).collect();
        let _ = send.send(());
        lines.join("\n")
    });
    if receive.recv_timeout(PATIENCE).is_err() {
        child.kill().unwrap();
        child.wait().unwrap();
        return Err(reading.join().unwrap());
    }
    Ok((child.wait().unwrap(), reading.join().unwrap()))
}
