//! A folder that goes away after the test, and a runner for the binary that keeps what it printed.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// A fresh folder; commands run inside it, so that default paths (`index-data`, `runs`) land there.
pub(crate) struct Dir {
    dir: tempfile::TempDir,
}

impl Dir {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a temporary folder") }
    }

    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file, and the folders it lies in.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
        std::fs::write(&path, content).expect("a file");
        path
    }

    /// Runs `semblance` with these arguments inside the folder.
    pub(crate) fn run<S: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_semblance"));
        command.args(args).current_dir(self.dir.path()).stdin(Stdio::null());
        let line = format!("{command:?}");
        let output = command.output().expect("the binary starts");
        Output {
            line,
            code: output.status.code().expect("an exit code, not a signal"),
            stdout: String::from_utf8(output.stdout).expect("UTF-8 on stdout"),
            stderr: String::from_utf8(output.stderr).expect("UTF-8 on stderr"),
        }
    }

    /// Every file below the folder with its content, to see that a command changed nothing.
    pub(crate) fn snapshot(&self) -> Vec<(PathBuf, Vec<u8>)> {
        fn walk(folder: &Path, files: &mut Vec<(PathBuf, Vec<u8>)>) {
            for entry in std::fs::read_dir(folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    walk(&path, files);
                } else {
                    let content = std::fs::read(&path).expect("a file");
                    files.push((path, content));
                }
            }
        }
        let mut files = Vec::new();
        walk(self.dir.path(), &mut files);
        files.sort();
        files
    }
}

/// What a run left behind.
pub(crate) struct Output {
    line: String,
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Output {
    fn whole(&self) -> String {
        let mut text = format!("{}\nexit code {}\n", self.line, self.code);
        let _ = write!(text, "--- stdout\n{}\n--- stderr\n{}", self.stdout, self.stderr);
        text
    }

    /// Insists on an exit code.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}", self.whole());
        self
    }

    /// Insists that stderr mentions each of these.
    #[track_caller]
    pub(crate) fn complains_of(self, words: &[&str]) -> Self {
        for word in words {
            assert!(self.stderr.contains(word), "stderr does not mention {word:?}\n{}", self.whole());
        }
        assert!(!self.stderr.contains("panicked"), "{}", self.whole());
        self
    }

    /// Stdout as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}\n{}", self.whole()))
    }
}

/// A folder of real data beside the repository, if it is there.
pub(crate) fn shared(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data").join(name);
    path.exists().then_some(path)
}

/// Pictures of 12 products, 4 of each, 48 pixels wide.
pub(crate) fn draw_catalogue(dir: &Dir, name: &str) {
    let size = ["--classes", "12", "--images-per-class", "4", "--size", "48"];
    dir.run(["data", "sample", "--quiet", "--out", name].into_iter().chain(size)).exits(0);
}

/// The arguments for a small untrained network; the same weights every time.
pub(crate) const MODEL: [&str; 4] = ["--model", "random:resnet10_tiny", "--crop", "48"];

/// A catalogue `cat` and its index `shop`.
pub(crate) fn shop() -> Dir {
    let dir = Dir::new();
    draw_catalogue(&dir, "cat");
    dir.run(["index", "build", "--data", "cat", "--name", "shop"].into_iter().chain(MODEL)).exits(0);
    dir
}
