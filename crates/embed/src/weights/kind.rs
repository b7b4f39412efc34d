//! Recognises files that hold no weights, and describes them with what to do about it.

use std::borrow::Cow;
use std::io::Cursor;

use serde_json::Value;
use zip::ZipArchive;

use super::pytorch;

/// Magic numbers of formats, where they stand, and what the format is with what to do.
const MAGIC: [(usize, &[u8], &str); 19] = [
    (0, b"\x1f\x8b", "compressed with gzip; unpack it first"),
    (0, b"BZh", "compressed with bzip2; unpack it first"),
    (0, b"\xfd7zXZ\0", "compressed with xz; unpack it first"),
    (0, b"\x28\xb5\x2f\xfd", "compressed with Zstandard; unpack it first"),
    (0, b"\x04\x22\x4d\x18", "compressed with LZ4; unpack it first"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it first"),
    (0, b"Rar!\x1a\x07", "a RAR archive; unpack it first"),
    (257, b"ustar", "a tar archive; unpack it first, and give the weight file within it"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes; save the network's weights as safetensors"),
    (4, b"TFL3", "a TensorFlow Lite model; give the safetensors or PyTorch weights it was made from"),
    (0, b"GGUF", "a GGUF file, whose weights are quantised; give the safetensors weights it was made from"),
    (0, b"\x93NUMPY", "a NumPy array; save the network's tensors by name as safetensors"),
    (0, b"PAR1", "a Parquet table"),
    (0, b"\x89PNG\r\n\x1a\n", "a PNG picture"),
    (0, b"\xff\xd8\xff", "a JPEG picture"),
    (0, b"RIFF", "a WebP picture, or sound"),
    (0, b"%PDF", "a PDF document"),
    (0, b"\x7fELF", "a program"),
    (0, b"MZ", "a program"),
];

/// What these bytes are instead of weights: "it is …", with what to do; nothing if they are of no known kind.
pub(crate) fn describe(bytes: &[u8]) -> Option<String> {
    if bytes.is_empty() {
        return Some("it is empty; download or copy it again".to_owned());
    }
    if bytes.iter().all(|byte| *byte == 0) {
        return Some(
            "it holds nothing but zeros, as downloads do that were cut off; download it again".to_owned(),
        );
    }
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii_start();
    let begins = |words: &str| {
        text.get(..words.len()).is_some_and(|start| start.eq_ignore_ascii_case(words.as_bytes()))
    };
    if begins("version https://git-lfs") || begins("version http://git-lfs") {
        return Some(
            "it is a Git LFS pointer, not the file it points to; fetch the file with Git LFS, or download it from its page"
                .to_owned(),
        );
    }
    if begins("/annex/objects/") || begins("../.git/annex/") || begins(".git/annex/") {
        return Some(
            "it is a git-annex pointer, not the file it points to; fetch the file with git-annex".to_owned(),
        );
    }
    if begins("<!doctype html") || begins("<html") || begins("<head") || begins("<!--") {
        let title = title(text).map(|title| format!(" ({title})")).unwrap_or_default();
        return Some(format!(
            "it is a web page{title}, not the file it leads to; download the file itself, signed in if the page asks for \
             it"
        ));
    }
    if begins("<?xml") || begins("<error") {
        return Some(format!(
            "it is an XML answer of a server ({}); download the file again",
            start_of(text)
        ));
    }
    if matches!(text.first(), Some(b'{' | b'[')) && !looks_like_safetensors(bytes) {
        return Some(json(text));
    }
    if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"PK\x05\x06") {
        return zip(bytes);
    }
    if let Some((_, _, what)) = MAGIC.iter().find(|(at, magic, _)| {
        bytes.get(*at..).is_some_and(|rest| rest.starts_with(magic)) && !looks_like_safetensors(bytes)
    }) {
        return Some(format!("it is {what}"));
    }
    if is_pickle(bytes) {
        return Some(match pytorch::describe_pickle(bytes) {
            Some(what) => {
                format!(
                    "it is a Python pickle of {what}, not one that torch.save wrote; save a state_dict() with torch.save"
                )
            }
            None => "it is a damaged Python pickle; download or copy it again".to_owned(),
        });
    }
    if let [8, version, 0x0a | 0x12 | 0x1a | 0x22 | 0x28 | 0x32 | 0x3a | 0x42, ..] = bytes {
        return match version {
            1 | 2 => Some(
                "it looks like a TensorFlow model; save the network's weights as safetensors".to_owned(),
            ),
            3..=20 => Some(
                "it looks like an ONNX model, whose weights have no names of a known network; give the safetensors or \
                 PyTorch weights it was made from"
                    .to_owned(),
            ),
            _ => None,
        };
    }
    is_text(bytes).then(|| format!("it is text, which begins {:?}", start_of(text)))
}

/// Whether bytes begin as a text does.
pub(crate) fn is_text(bytes: &[u8]) -> bool {
    let sample = &bytes[..bytes.len().min(512)];
    let sample = match std::str::from_utf8(sample) {
        Ok(text) => text,
        // A letter that the sample cuts.
        Err(error) if error.error_len().is_none() && sample.len() < bytes.len() => {
            std::str::from_utf8(&sample[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => return false,
    };
    !sample.trim().is_empty() && sample.chars().all(|c| !c.is_control() || c.is_ascii_whitespace())
}

/// Whether bytes have the length and the brace that safetensors begin with.
pub(super) fn looks_like_safetensors(bytes: &[u8]) -> bool {
    let length = bytes.first_chunk().map(|length| u64::from_le_bytes(*length));
    length.is_some_and(|length| (2..=100 << 20).contains(&length)) && bytes.get(8) == Some(&b'{')
}

/// Whether bytes begin as pickles of protocol 2 to 5 do.
pub(super) fn is_pickle(bytes: &[u8]) -> bool {
    matches!(bytes, [0x80, 2..=5, ..])
}

/// The names of the files in an archive; those that are no text are left out.
pub(super) fn names_in<R: std::io::Read + std::io::Seek>(zip: &ZipArchive<R>) -> Vec<String> {
    zip.file_names().filter_map(|name| name.ok().map(Cow::into_owned)).collect()
}

/// What an archive is that PyTorch did not write.
fn zip(bytes: &[u8]) -> Option<String> {
    let Ok(zip) = ZipArchive::new(Cursor::new(bytes)) else {
        return Some(
            "it is a zip archive, as PyTorch writes, that is cut short or damaged; download or copy it again"
                .into(),
        );
    };
    let mut names = names_in(&zip);
    if pytorch::is_archive(names.iter().map(String::as_str)) {
        return None;
    }
    names.sort();
    let ends = |ends: &[&str]| names.iter().find(|name| ends.iter().any(|end| name.ends_with(end)));
    Some(if let Some(weights) = ends(&[".safetensors", ".pth", ".pt", ".bin"]) {
        format!("it is a zip archive with {weights} within it; unpack it and give that file")
    } else if ends(&[".npy"]).is_some() {
        "it is NumPy's archive (.npz); save the network's tensors by name as safetensors".to_owned()
    } else if ends(&["model.weights.h5"]).is_some() {
        "it is a Keras model; save the network's weights as safetensors".to_owned()
    } else {
        let first: Vec<&str> = names.iter().take(3).map(String::as_str).collect();
        format!("it is a zip archive of {} files without weights ({})", names.len(), first.join(", "))
    })
}

/// What a JSON file is, with the words of an error in it.
fn json(text: &[u8]) -> String {
    let Ok(value) = serde_json::from_slice::<Value>(text) else {
        return format!("it is text, which begins {:?}", start_of(text));
    };
    if let Some(files) = value["weight_map"].as_object() {
        let mut parts: Vec<&str> = files.values().filter_map(Value::as_str).collect();
        parts.sort_unstable();
        parts.dedup();
        return format!(
            "it is the index of weights in {} files ({}), which are not read; save them as one file",
            parts.len(),
            parts.iter().take(2).copied().collect::<Vec<_>>().join(", ")
        );
    }
    let said = ["error", "message", "detail", "errors"].iter().find_map(|key| value.get(key));
    match said {
        Some(said) => {
            let said = said.as_str().map_or_else(|| said.to_string(), str::to_owned);
            format!(
                "it is an answer of a server, which says {:?}; download the file again",
                said.chars().take(120).collect::<String>()
            )
        }
        None => "it is a JSON file, such as a configuration; give the file of the weights".to_owned(),
    }
}

/// The title of a web page.
fn title(page: &[u8]) -> Option<String> {
    let page = String::from_utf8_lossy(&page[..page.len().min(1 << 16)]);
    let lower = page.to_ascii_lowercase();
    let from = lower.find("<title>")? + "<title>".len();
    let to = from + lower[from..].find("</title>")?;
    let title: String = page[from..to].split_whitespace().collect::<Vec<_>>().join(" ");
    (!title.is_empty()).then(|| title.chars().take(80).collect())
}

/// The first words of a text.
fn start_of(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(&text[..text.len().min(400)]);
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(60).collect()
}

#[cfg(test)]
#[path = "kind_tests.rs"]
mod tests;
