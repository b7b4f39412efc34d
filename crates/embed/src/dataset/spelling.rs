//! The ways in which a list can write the path of one file.

use std::borrow::Cow;
use std::path::{Component, Path, PathBuf};

use percent_encoding::percent_decode_str;

/// The path as it is written, then what else it may mean, likelier first: `\` as the separator, percent-escapes
/// decoded, a `file:` URL.
pub(super) fn spellings(text: &str) -> Vec<Cow<'_, str>> {
    let mut found: Vec<Cow<'_, str>> = vec![Cow::Borrowed(text)];
    let mut add = |candidate: Cow<'_, str>| {
        if !found.contains(&candidate) {
            found.push(Cow::Owned(candidate.into_owned()));
        }
    };
    let decoded =
        |text: &str| percent_decode_str(text).decode_utf8().map_or_else(|_| text.to_owned(), Cow::into_owned);
    if text.contains('\\') {
        add(text.replace('\\', "/").into());
    }
    if text.contains('%') {
        add(decoded(text).into());
        add(decoded(text).replace('\\', "/").into());
    }
    let url = text.get(..5).filter(|scheme| scheme.eq_ignore_ascii_case("file:")).map(|_| &text[5..]);
    if let Some(rest) = url {
        let path = rest.strip_prefix("//localhost").or_else(|| rest.strip_prefix("//")).unwrap_or(rest);
        add(decoded(path).into());
    }
    found
}

/// The path without `.` and `..` parts, which are resolved by name alone.
pub(super) fn lexical(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            // Above the top there is only the top.
            Component::ParentDir => _ = out.pop(),
            other => out.push(other),
        }
    }
    out
}

/// The absolute forms of a folder: by name, and with links followed. They are often the same.
pub(super) fn absolute_forms(folder: &Path) -> Vec<PathBuf> {
    let by_name = std::path::absolute(folder).ok().map(|path| lexical(&path));
    let mut forms: Vec<PathBuf> = by_name.into_iter().chain(folder.canonicalize().ok()).collect();
    forms.dedup();
    forms
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_comes_first() {
        let all = |text: &str| spellings(text).into_iter().map(Cow::into_owned).collect::<Vec<_>>();
        assert_eq!(all("a/b.jpg"), ["a/b.jpg"]);
        assert_eq!(all(r"p\a b\1.png"), [r"p\a b\1.png", "p/a b/1.png"]);
        assert_eq!(all("a%20b/%C3%A4.jpg"), ["a%20b/%C3%A4.jpg", "a b/ä.jpg"]);
        assert_eq!(all("100%.jpg"), ["100%.jpg"]);
        assert_eq!(
            all("file:///srv/a%20b.jpg"),
            ["file:///srv/a%20b.jpg", "file:///srv/a b.jpg", "/srv/a b.jpg"]
        );
        assert_eq!(lexical(Path::new("/a/./b/../c")), Path::new("/a/c"));
    }
}
