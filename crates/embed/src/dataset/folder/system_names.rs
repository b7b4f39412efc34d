//! Names of files and folders that systems and storage devices put among a user's own.

/// In lower case.
const NAMES: [&str; 27] = [
    // Windows
    "$recycle.bin",
    "recycler",
    "recycled",
    "system volume information",
    "thumbs.db",
    "thumbs.db:encryptable",
    "ehthumbs.db",
    "ehthumbs_vista.db",
    "desktop.ini",
    // macOS
    "__macosx",
    ".ds_store",
    "icon\r",
    "network trash folder",
    "temporary items",
    "thevolumesettingsfolder",
    // Storage devices
    "@eadir",
    "#recycle",
    "@recycle",
    "@recently-snapshot",
    "#snapshot",
    "@snapshot",
    "@tmp",
    "@sharebin",
    "@syno",
    // Linux, version control, tools
    "lost+found",
    ".git",
    "__pycache__",
];

/// Whether a file or folder of this name belongs to a system and not to a catalogue.
pub(super) fn is_system_name(name: &str) -> bool {
    // `._NAME` is where macOS keeps what other file systems cannot hold of NAME.
    name.starts_with("._") || NAMES.contains(&name.to_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systems_write_their_names_in_any_case() {
        for name in ["@eaDir", "$RECYCLE.BIN", "Thumbs.db", "._a.jpg", "LOST+FOUND", ".git"] {
            assert!(is_system_name(name), "{name}");
        }
        assert!(!is_system_name("apple") && !is_system_name("recycle") && !is_system_name(".hidden"));
    }
}
