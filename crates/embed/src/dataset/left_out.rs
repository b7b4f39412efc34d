//! Files and folders of a data set's folder that are not among its samples.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Why something is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LeftOutReason {
    /// A picture in a format that is not decoded.
    UnsupportedFormat,
    /// A folder that the system does not let anyone list.
    UnreadableFolder,
    /// A file that the system does not let anyone read.
    UnreadableFile,
    /// A link back to a folder that it lies in.
    LinkLoop,
    /// A link to nothing.
    BrokenLink,
    /// A link out of the data set's folder.
    LinkOutside,
    /// A name that is not UTF-8 text.
    NameNotUtf8,
    /// A pipe, socket or device.
    SpecialFile,
    /// A folder without any picture, which would be a class.
    EmptyFolder,
    /// A file that is no picture.
    NotAPicture,
    /// A file or folder whose name begins with a dot.
    Hidden,
    /// A file or folder that an operating system or storage device keeps for itself.
    System,
}

impl LeftOutReason {
    /// Whether a picture may be missing because of it. Other reasons are only counted.
    pub fn is_fault(self) -> bool {
        !matches!(self, Self::EmptyFolder | Self::NotAPicture | Self::Hidden | Self::System)
    }
}

/// What is left out for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// The reason.
    pub reason: LeftOutReason,
    /// The format, or what the system said; empty for other reasons.
    pub detail: String,
    /// The ending of the files' names in lower case; empty for folders and names without one.
    pub ending: String,
    /// Files and folders left out. What a folder that is left out holds is not counted.
    pub count: usize,
    /// Their paths below the root: all of them where a picture may be missing, else the first 100. Bytes that are not
    /// UTF-8 are written as `\xNN`.
    pub paths: Vec<String>,
}

impl std::fmt::Display for LeftOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { count, detail, .. } = self;
        let plural = if *count == 1 { "" } else { "s" };
        let files = match self.ending.as_str() {
            "" => format!("{count} file{plural}"),
            ending => format!("{count} .{ending} file{plural}"),
        };
        let entries = if *count == 1 { "1 entry".to_owned() } else { format!("{count} entries") };
        match self.reason {
            LeftOutReason::UnsupportedFormat => {
                write!(f, "left out: {files} ({detail} is not supported; convert to JPEG)")
            }
            LeftOutReason::UnreadableFolder => write!(f, "left out: {count} folder{plural} ({detail})"),
            LeftOutReason::UnreadableFile => write!(f, "left out: {files} ({detail})"),
            LeftOutReason::LinkLoop => {
                write!(f, "left out: {count} link{plural} to a folder above (a loop; remove the link)")
            }
            LeftOutReason::BrokenLink => write!(f, "left out: {count} link{plural} to nothing"),
            LeftOutReason::LinkOutside => write!(
                f,
                "left out: {count} link{plural} out of the folder (copy the files in, or allow outside links)"
            ),
            LeftOutReason::NameNotUtf8 => {
                write!(f, "left out: {entries} with a name that is not UTF-8 text (rename)")
            }
            LeftOutReason::SpecialFile => {
                write!(f, "left out: {count} pipe{plural}, socket{plural} or device{plural}")
            }
            LeftOutReason::EmptyFolder => {
                write!(f, "{count} folder{plural} without a picture, thus no class")
            }
            LeftOutReason::NotAPicture => write!(f, "left out: {files} (no pictures)"),
            LeftOutReason::Hidden => write!(f, "left out: {entries} with a hidden name"),
            LeftOutReason::System => {
                write!(f, "left out: {entries} that an operating system or storage device keeps for itself")
            }
        }?;
        match self.paths.as_slice() {
            [] => Ok(()),
            [one] if *count == 1 => write!(f, ": {one}"),
            [first, ..] => write!(f, ", such as {first}"),
        }
    }
}

/// Paths kept of those that are only counted.
const EXAMPLES: usize = 100;

/// Counts what is left out, by reason and ending.
#[derive(Debug, Default)]
pub(super) struct LeftOutCounter(BTreeMap<(LeftOutReason, String, String), (usize, Vec<String>)>);

impl LeftOutCounter {
    pub(super) fn add(&mut self, reason: LeftOutReason, detail: &str, ending: &str, path: String) {
        let key = (reason, detail.to_owned(), ending.to_owned());
        let (count, paths) = self.0.entry(key).or_default();
        *count += 1;
        if reason.is_fault() || paths.len() < EXAMPLES {
            paths.push(path);
        }
    }

    pub(super) fn finish(self) -> Vec<LeftOut> {
        let groups = self.0.into_iter();
        groups
            .map(|((reason, detail, ending), (count, paths))| LeftOut {
                reason,
                detail,
                ending,
                count,
                paths,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_counted_by_reason_and_ending() {
        let mut counter = LeftOutCounter::default();
        for i in 0..12 {
            counter.add(LeftOutReason::UnsupportedFormat, "HEIC", "heic", format!("a/{i}.heic"));
        }
        for i in 0..150 {
            counter.add(LeftOutReason::NotAPicture, "", "txt", format!("{i}.txt"));
        }
        counter.add(LeftOutReason::LinkLoop, "", "", "a/up".to_owned());
        let found = counter.finish();
        let counts: Vec<_> = found.iter().map(|l| (l.count, l.paths.len())).collect();
        assert_eq!(counts, [(12, 12), (1, 1), (150, 100)]);
        assert_eq!(
            found[0].to_string(),
            "left out: 12 .heic files (HEIC is not supported; convert to JPEG), such as a/0.heic"
        );
        assert!(found[1].to_string().ends_with(": a/up"));
        let json = serde_json::to_value(&found[0]).unwrap();
        assert_eq!((&json["reason"], &json["count"]), (&"unsupported_format".into(), &12.into()));
    }
}
