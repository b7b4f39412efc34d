//! Making an index, killed at every operation that changes a file: repeating the command, or what its message advises,
//! succeeds. `SEMBLANCE_FAULTS=100000` kills at every place.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use semblance_index::{Index, verify};

use crate::durability::catalogue;
use crate::faults::{Action, CHANGES, Faults, places, setting};
use crate::util::{Dir, MODEL};

/// A command that makes the index `new`, and the number of items that it then has.
struct Making {
    args: Vec<&'static str>,
    items: usize,
}

fn command(dir: &Dir, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_semblance"));
    command.args(args).args(["--quiet", "--threads", "2"]).current_dir(dir.path("")).stdin(Stdio::null());
    command
}

fn text(output: &Output) -> String {
    format!("{:?}: {}", output.status, String::from_utf8_lossy(&output.stderr))
}

/// Repeats a command that was killed: as it was, then as its message says.
fn repeat(dir: &Dir, making: &Making, at: usize) {
    let again = command(dir, &making.args).output().expect("the binary starts");
    if again.status.success() {
        return;
    }
    let message = text(&again);
    let advised: Vec<&str> =
        ["--resume", "--replace"].into_iter().filter(|way| message.contains(way)).collect();
    assert!(!advised.is_empty(), "no way on is named: {message}");
    let way = advised[at % advised.len()];
    let advised = command(dir, &[&making.args[..], &[way]].concat()).output().expect("the binary starts");
    assert!(advised.status.success(), "{message}, and with {way}: {}", text(&advised));
}

fn killed_anywhere(dir: &Dir, faults: &Faults, making: &Making) {
    let folder = dir.path("index-data/new");
    let run = |at, action| {
        let _ = std::fs::remove_dir_all(&folder);
        let mut killed = command(dir, &making.args);
        faults.load(&mut killed, &folder, CHANGES, at, action);
        killed.output().expect("the binary starts")
    };
    let whole = run(0, Action::Kill);
    assert!(whole.status.success(), "{}", text(&whole));
    let count = faults.operations().len();
    let few = setting("SEMBLANCE_FAULTS", 36);
    let (mut killed, mut tried) = (0, 0);
    for (action, few) in [(Action::Kill, few), (Action::Torn, few / 3)] {
        for at in places(count, few, 11) {
            let output = run(at, action);
            tried += 1;
            killed += usize::from(!output.status.success());
            let told = format!("{:?} {action:?} at {at} of {count}: {:?}", making.args, faults.met());
            assert!(output.status.code().is_none_or(|code| code == 0), "{told}: {}", text(&output));
            repeat(dir, making, at);
            holds(&folder, making.items, &told);
        }
    }
    assert!(killed > tried / 2, "only {killed} of {tried} runs were killed");
    eprintln!("{:?}: {count} operations, {killed} of {tried} runs killed", making.args);
}

fn holds(folder: &Path, items: usize, told: &str) {
    let index = Index::open(folder).unwrap_or_else(|e| panic!("{told}: {e}"));
    assert_eq!(index.len(), items, "{told}");
    let report = verify(folder, &|_| {}).unwrap_or_else(|e| panic!("{told}: {e}"));
    assert!(report.is_sound() && report.unpublished == 0, "{told}: {report:?}");
}

#[test]
fn a_killed_import_can_be_repeated() {
    let Some(faults) = Faults::compile() else { return };
    let dir = Dir::new();
    catalogue(&dir);
    let args = vec!["index", "import", "in/vectors.npy", "--index", "new", "--fingerprint", "m"];
    std::fs::create_dir(dir.path("index-data")).expect("a folder");
    killed_anywhere(&dir, &faults, &Making { args, items: 40 });
}

#[test]
fn a_killed_derivation_can_be_repeated() {
    let Some(faults) = Faults::compile() else { return };
    let dir = Dir::new();
    catalogue(&dir);
    let import = ["index", "import", "in/vectors.npy", "--index", "shop", "--fingerprint", "m"];
    dir.run(import).exits(0);
    let args = vec!["index", "derive", "--index", "shop", "--name", "new", "--augment", "3"];
    killed_anywhere(&dir, &faults, &Making { args: args.clone(), items: 40 });
    // Another index is not replaced unasked, and the source never.
    dir.run(args.clone()).exits(2).complains_of(&["already holds a finished index", "--replace"]);
    dir.run(args.iter().chain(&["--replace"])).exits(0);
    let onto = ["index", "derive", "--index", "shop", "--name", "shop", "--augment", "3", "--replace"];
    dir.run(onto).exits(2).complains_of(&["made from it"]);
    dir.run(["index", "verify", "--index", "shop"]).exits(0);
}

#[test]
fn a_killed_build_can_be_repeated() {
    let Some(faults) = Faults::compile() else { return };
    let dir = Dir::new();
    let drawn = ["data", "sample", "--quiet", "--out", "cat", "--classes", "3", "--images-per-class", "4"];
    dir.run(drawn.into_iter().chain(["--size", "48"])).exits(0);
    std::fs::create_dir(dir.path("index-data")).expect("a folder");
    let build = ["index", "build", "--data", "cat", "--name", "new", "--batch", "4"];
    let args: Vec<&str> = build.into_iter().chain(MODEL).collect();
    killed_anywhere(&dir, &faults, &Making { args, items: 12 });
}
