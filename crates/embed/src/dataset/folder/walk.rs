//! The files below a folder, sorted into pictures and what is left out.

use std::collections::BTreeMap;
use std::path::{MAIN_SEPARATOR, Path};

use walkdir::{DirEntry, WalkDir};

use super::Listing;
use super::file_kind::{self, FileKind};
use super::system_names::is_system_name;
use crate::dataset::DatasetError;
use crate::dataset::inside::Boundary;
use crate::dataset::left_out::{LeftOutCounter, LeftOutReason};

/// Whether a folder has folders below it, and whether it has pictures.
#[derive(Default)]
struct Folder {
    is_inner: bool,
    has_pictures: bool,
}

struct Walk<'a> {
    root: &'a Path,
    follow_outside_links: bool,
    boundary: Boundary,
    pictures: Vec<String>,
    left_out: LeftOutCounter,
    folders: BTreeMap<String, Folder>,
}

/// What to do with a folder.
#[derive(PartialEq, Eq)]
enum Step {
    Into,
    Past,
}

/// Walks through `root` and all folders below, links followed. No entry stops the walk.
///
/// # Errors
/// If `root` itself cannot be listed.
pub(super) fn list(root: &Path, follow_outside_links: bool) -> Result<Listing, DatasetError> {
    let io = |e| DatasetError::io(root, e);
    std::fs::read_dir(root).map_err(io)?;
    let boundary = Boundary::new(root).map_err(io)?;
    let mut walk = Walk {
        root,
        follow_outside_links,
        boundary,
        pictures: Vec::new(),
        left_out: LeftOutCounter::default(),
        folders: BTreeMap::new(),
    };
    let mut entries = WalkDir::new(root).min_depth(1).follow_links(true).sort_by_file_name().into_iter();
    while let Some(entry) = entries.next() {
        match entry {
            Ok(entry) => {
                if walk.take(&entry) == Step::Past && entry.file_type().is_dir() {
                    entries.skip_current_dir();
                }
            }
            Err(error) => walk.take_error(&error),
        }
    }
    for (path, folder) in &walk.folders {
        if !folder.is_inner && !folder.has_pictures {
            walk.left_out.add(LeftOutReason::EmptyFolder, "", "", path.clone());
        }
    }
    Ok(Listing { pictures: walk.pictures, left_out: walk.left_out.finish() })
}

impl Walk<'_> {
    fn take(&mut self, entry: &DirEntry) -> Step {
        let path = entry.path();
        if self.is_reserved(path) {
            return Step::Past;
        }
        if entry.path_is_symlink() && !self.follow_outside_links && !self.boundary.contains(path) {
            self.leave_out(LeftOutReason::LinkOutside, "", "", path);
            return Step::Past;
        }
        let kind = entry.file_type();
        if kind.is_dir() {
            return self.take_folder(path);
        }
        let name = path.to_string_lossy();
        let ending = file_kind::ending(&name);
        if !kind.is_file() {
            self.leave_out(LeftOutReason::SpecialFile, "", &ending, path);
        } else if file_kind::is_picture_name(&name) {
            self.take_picture(path, &ending);
        } else {
            match file_kind::look_inside(path) {
                Ok(FileKind::Picture) => self.take_picture(path, &ending),
                Ok(FileKind::OtherPicture(format)) => {
                    self.leave_out(LeftOutReason::UnsupportedFormat, format, &ending, path);
                }
                Ok(FileKind::Other) => self.leave_out(LeftOutReason::NotAPicture, "", &ending, path),
                Err(error) => {
                    self.leave_out(LeftOutReason::UnreadableFile, &error.to_string(), &ending, path)
                }
            }
        }
        Step::Past
    }

    fn take_error(&mut self, error: &walkdir::Error) {
        let path = error.path().unwrap_or(self.root).to_path_buf();
        if self.is_reserved(&path) {
            return;
        }
        let ending = file_kind::ending(&path.to_string_lossy());
        let reason = error.io_error().map(ToString::to_string).unwrap_or_default();
        if error.loop_ancestor().is_some() {
            self.leave_out(LeftOutReason::LinkLoop, "", "", &path);
        } else if path.is_symlink() {
            // A broken link with a picture's name is a missing photograph: it is listed, and reported when it is read.
            if file_kind::is_picture_name(&path.to_string_lossy()) {
                self.take_picture(&path, &ending);
            } else {
                self.leave_out(LeftOutReason::BrokenLink, "", &ending, &path);
            }
        } else if path.is_dir() {
            self.folders.remove(&self.below(&path));
            self.leave_out(LeftOutReason::UnreadableFolder, &reason, "", &path);
        } else {
            self.leave_out(LeftOutReason::UnreadableFile, &reason, &ending, &path);
        }
    }

    /// Counts hidden entries and those of systems.
    fn is_reserved(&mut self, path: &Path) -> bool {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let reason = if is_system_name(&name) {
            LeftOutReason::System
        } else if name.starts_with('.') {
            LeftOutReason::Hidden
        } else {
            return false;
        };
        self.leave_out(reason, "", "", path);
        true
    }

    fn take_folder(&mut self, path: &Path) -> Step {
        if path.strip_prefix(self.root).is_ok_and(|below| below.to_str().is_none()) {
            self.leave_out(LeftOutReason::NameNotUtf8, "", "", path);
            return Step::Past;
        }
        let below = self.below(path);
        if let Some(above) = below.rsplit_once('/').and_then(|(above, _)| self.folders.get_mut(above)) {
            above.is_inner = true;
        }
        self.folders.insert(below, Folder::default());
        Step::Into
    }

    fn take_picture(&mut self, path: &Path, ending: &str) {
        if path.strip_prefix(self.root).is_ok_and(|below| below.to_str().is_none()) {
            return self.leave_out(LeftOutReason::NameNotUtf8, "", ending, path);
        }
        let below = self.below(path);
        if let Some(folder) = below.rsplit_once('/').and_then(|(folder, _)| self.folders.get_mut(folder)) {
            folder.has_pictures = true;
        }
        self.pictures.push(below);
    }

    fn leave_out(&mut self, reason: LeftOutReason, detail: &str, ending: &str, path: &Path) {
        let below = self.below(path);
        self.left_out.add(reason, detail, ending, below);
    }

    /// The path below the root with `/` between its parts. If it is not UTF-8, the bytes that are not are written as `\xNN`.
    fn below(&self, path: &Path) -> String {
        let below = path.strip_prefix(self.root).unwrap_or(path);
        match below.to_str() {
            Some(text) if MAIN_SEPARATOR == '/' => text.to_owned(),
            Some(text) => text.replace(MAIN_SEPARATOR, "/"),
            None => escape_bytes(below.as_os_str().as_encoded_bytes()),
        }
    }
}

/// Text as it is, a backslash doubled, other bytes as `\xNN`: no two names become the same.
fn escape_bytes(bytes: &[u8]) -> String {
    let mut out = String::new();
    for chunk in bytes.utf8_chunks() {
        out.push_str(&chunk.valid().replace('\\', "\\\\"));
        out.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02X}")));
    }
    out
}
