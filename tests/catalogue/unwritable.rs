//! Checking an index where nothing can be written, as backups are kept.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use crate::durability::catalogue;
use crate::util::Dir;

/// Sets the permissions of a folder and everything in it.
fn permit(path: &Path, folders: u32, files: u32) {
    let is_folder = path.is_dir();
    if is_folder {
        for entry in std::fs::read_dir(path).expect("a folder") {
            permit(&entry.expect("an entry").path(), folders, files);
        }
    }
    let mode = if is_folder { folders } else { files };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("permissions");
}

/// The program as a user without rights: this one, or nobody where this one is root. None where that cannot be.
fn without_rights(dir: &Dir) -> Option<Command> {
    let binary = env!("CARGO_BIN_EXE_semblance");
    let id = Command::new("id").arg("-u").output().ok()?;
    if id.stdout.trim_ascii() != b"0" {
        return Some(Command::new(binary));
    }
    // A link of our own, since nobody may be kept out of the folder that the program was built in.
    let own = dir.path("semblance");
    if !own.exists() && std::fs::hard_link(binary, &own).is_err() {
        std::fs::copy(binary, &own).ok()?;
    }
    let user = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    let works = Command::new("setpriv").args(user).arg(&own).arg("--version").output();
    if !works.is_ok_and(|output| output.status.success()) {
        eprintln!("no setpriv to give up the rights of root with: left out");
        return None;
    }
    let mut command = Command::new("setpriv");
    command.args(user).arg(&own);
    Some(command)
}

#[test]
fn a_damaged_store_is_found_where_nothing_can_be_written() {
    let dir = Dir::new();
    catalogue(&dir);
    dir.run(["index", "import", "in/vectors.npy", "--index", "whole"]).exits(0);
    dir.run(["index", "import", "in/vectors.npy", "--index", "damaged"]).exits(0);
    let log = dir.path("index-data/damaged/store/db");
    let mut bytes = std::fs::read(&log).expect("the store");
    let (used, third) = (bytes.iter().rposition(|b| *b != 0).expect("content"), bytes.len() / 3);
    let start = third.min(used / 2);
    bytes[start..start + 400].iter_mut().for_each(|b| *b ^= 255);
    std::fs::write(&log, bytes).expect("damaged");
    std::fs::set_permissions(dir.path(""), std::fs::Permissions::from_mode(0o755)).expect("permissions");
    let verify = |name: &str| {
        let mut command = without_rights(&dir)?;
        let output = command.args(["index", "verify", "--index", name]).current_dir(dir.path("")).output();
        let output = output.expect("the program runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Some((output.status.code(), text, String::from_utf8_lossy(&output.stderr).into_owned()))
    };
    permit(&dir.path("index-data"), 0o555, 0o444);
    let (whole, damaged) = (verify("whole"), verify("damaged"));
    // Nor is what cannot even be read sound.
    std::fs::set_permissions(dir.path("index-data/whole/store/db"), std::fs::Permissions::from_mode(0o000))
        .expect("permissions");
    let unreadable = verify("whole");
    permit(&dir.path("index-data"), 0o755, 0o644);
    let (Some(whole), Some(damaged), Some(unreadable)) = (whole, damaged, unreadable) else { return };

    assert!(whole.0 == Some(0) && whole.1.contains("40 stored") && whole.1.contains("\nsound"), "{whole:?}");
    assert!(damaged.0 == Some(1) && damaged.1.contains("NOT sound"), "{damaged:?}");
    assert!(damaged.1.contains("index-data/damaged/store"), "faults name the index's own files: {damaged:?}");
    assert!(unreadable.0 == Some(1) && unreadable.1.contains("NOT CHECKED"), "{unreadable:?}");
    assert!(!unreadable.1.contains("sound"), "{unreadable:?}");
    let left = std::fs::read_dir(std::env::temp_dir()).expect("a folder").flatten();
    let left = left.filter(|entry| entry.file_name().to_string_lossy().starts_with("semblance-verify-"));
    assert_eq!(left.count(), 0, "copies are removed");
    // In place the same is found.
    let in_place = dir.run(["index", "verify", "--index", "damaged"]).exits(1);
    assert!(in_place.stdout.contains("NOT sound"), "{}", in_place.stdout);
}
