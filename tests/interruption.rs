//! Training runs that are killed anywhere, and disks that run full: what was saved stays whole, and goes on.

use std::process::{Command, Stdio};

use crate::util::{Dir, draw_catalogue};

const SETTINGS: [&str; 20] = [
    "train",
    "--data",
    "cat",
    "--arch",
    "resnet10_tiny",
    "--crop",
    "32",
    "--resize",
    "32",
    "--batch",
    "8",
    "--loss",
    "triplet",
    "--memory",
    "16",
    "--per-class",
    "2",
    "--holdout",
    "0.25",
    "-q",
];

/// Threads change the order of sums, so there is always the same number of them.
const STEPS: [&str; 8] = ["--steps", "30", "--save-every", "4", "--validate-every", "10", "--threads", "2"];

fn steps_done(dir: &Dir, run: &str) -> usize {
    let log = std::fs::read_to_string(dir.path(run).join("train.jsonl")).unwrap_or_default();
    log.lines().filter(|line| line.contains("\"loss\"")).count()
}

/// Kills the run with SIGKILL once its log has so many steps.
fn killed_at(dir: &Dir, args: &[&str], step: usize) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_semblance"))
        .args(args)
        .current_dir(dir.path(""))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while steps_done(dir, "cut") < step {
        assert_eq!(child.try_wait().unwrap(), None, "the run ended before step {step}");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_run_killed_three_times_ends_with_the_weights_of_one_never_stopped() {
    let dir = Dir::new();
    draw_catalogue(&dir, "cat");
    let run = |out: &'static str| [&SETTINGS[..], &STEPS, &["--out", out]].concat();
    dir.run(run("whole")).exits(0);
    // A third of the run each, the place in it drawn by a fixed seed (a linear congruence).
    let mut seed = 20_260_101u64;
    for kill in 0..3 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let step = 9 * kill + 1 + (seed >> 33) as usize % 9;
        // Before the first state is saved there is nothing to go on with.
        let saved = dir.path("cut/last/state.json").exists();
        if !saved && kill > 0 {
            std::fs::remove_dir_all(dir.path("cut")).unwrap();
        }
        let args = [&run("cut")[..], if saved { &["--resume"] } else { &[] }].concat();
        killed_at(&dir, &args, step);
    }
    dir.run(run("cut").into_iter().chain(["--resume"])).exits(0);
    for file in ["model.safetensors", "config.json", "state.safetensors"] {
        let read = |run: &str| std::fs::read(dir.path(run).join("last").join(file)).unwrap();
        assert!(read("whole") == read("cut"), "{file} differs after three kills");
    }
    assert_eq!(steps_done(&dir, "cut"), 30, "the log has every step once");
}

/// Files may not grow beyond a size, which the system reports as it reports a full disk.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_while_saving_leaves_the_last_checkpoint_whole() {
    let dir = Dir::new();
    draw_catalogue(&dir, "cat");
    let run = |steps| [&SETTINGS[..], &["--out", "run", "--save-every", "2", "--steps", steps]].concat();
    // Ends after a first state was saved.
    let mut child = Command::new(env!("CARGO_BIN_EXE_semblance"));
    let mut child = child.args(run("400")).current_dir(dir.path("")).spawn().unwrap();
    while !dir.path("run/last/state.json").exists() {
        assert_eq!(child.try_wait().unwrap(), None, "the run ended by itself");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let before = |file: &str| std::fs::read(dir.path("run/last").join(file)).unwrap();
    let files = ["model.safetensors", "config.json", "state.safetensors", "state.json"];
    let saved = files.map(before);

    // An ignored signal stays ignored in the program that is started: writes fail instead of ending it.
    for kilobytes in ["100", "2000"] {
        let script = format!("trap '' XFSZ; ulimit -f {kilobytes}; exec \"$0\" \"$@\"");
        let output = Command::new("bash")
            .args(["-c", &script, env!("CARGO_BIN_EXE_semblance")])
            .args(run("400").into_iter().chain(["--resume"]))
            .current_dir(dir.path(""))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{error}");
        for word in ["last", "safetensors", "too large"] {
            assert!(error.contains(word), "{word}: {error}");
        }
        assert!(files.map(before) == saved, "the checkpoint is as it was");
    }
    // With room again it goes on.
    let step = serde_json::from_slice::<serde_json::Value>(&saved[3]).unwrap()["step"].as_u64().unwrap();
    dir.run(["embed", "--data", "cat", "--model", "run/last", "--out", "vectors"]).exits(0);
    assert!(step >= 2);
}
