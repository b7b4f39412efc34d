//! Files of the safetensors format.

use ::safetensors::{SafeTensorError, SafeTensors};

use super::Contents;
use super::number::Number;

pub(super) fn read(bytes: &[u8]) -> Result<Contents, String> {
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|error| reason(&error, bytes))?;
    let file = SafeTensors::deserialize(bytes).map_err(|error| reason(&error, bytes))?;
    let arch = metadata.metadata().as_ref().and_then(|pairs| pairs.get("arch").cloned());
    let mut contents = Contents { arch, ..Contents::default() };
    for (name, view) in file.iter() {
        match Number::of_safetensors(view.dtype()) {
            Some(number) => {
                let tensor = number.tensor(view.data(), view.shape());
                let tensor = tensor.map_err(|error| format!("tensor {name}: {error}"))?;
                contents.tensors.insert(name.to_owned(), tensor);
            }
            None => {
                let reason = format!("its numbers are of a type that is not read ({:?})", view.dtype());
                contents.unreadable.insert(name.to_owned(), reason);
            }
        }
    }
    Ok(contents)
}

/// Why a file is refused.
fn reason(error: &SafeTensorError, bytes: &[u8]) -> String {
    let header = bytes.first_chunk().map_or(0, |length| u64::from_le_bytes(*length));
    let after = (bytes.len() as u64).saturating_sub(8);
    match error {
        SafeTensorError::InvalidHeaderLength | SafeTensorError::HeaderTooSmall => format!(
            "it is cut short: its header takes {header} bytes, and {after} are there; download or copy it again"
        ),
        SafeTensorError::MetadataIncompleteBuffer => {
            let held = after.saturating_sub(header);
            match needed(&bytes[8..8 + header.min(after) as usize]) {
                Some(needed) if needed > held => format!(
                    "it is cut short: its tensors take {needed} bytes, and {held} are there; download or copy it again"
                ),
                _ => "its header and its numbers do not fit together; download or copy it again".to_owned(),
            }
        }
        other => format!("its safetensors header is damaged ({other}); download or copy it again"),
    }
}

/// Where the last tensor ends by the header.
fn needed(header: &[u8]) -> Option<u64> {
    let header: serde_json::Value = serde_json::from_slice(header).ok()?;
    header.as_object()?.values().filter_map(|tensor| tensor["data_offsets"].get(1)?.as_u64()).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, numbers: &[u8]) -> Vec<u8> {
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), numbers].concat()
    }

    #[test]
    fn tensors_of_all_types_are_read_from_an_unaligned_header_too() {
        let header = r#"{"__metadata__":{"arch":"resnet18"},
            "half":{"dtype":"F16","shape":[2],"data_offsets":[0,4]},
            "double":{"dtype":"F64","shape":[],"data_offsets":[4,12]},
            "count":{"dtype":"I64","shape":[1],"data_offsets":[12,20]},
            "none":{"dtype":"F32","shape":[0,3],"data_offsets":[20,20]},
            "fine":{"dtype":"F4","shape":[2],"data_offsets":[20,21]}}"#;
        let numbers = [&[0, 0x3c, 0, 0xc0][..], &0.5f64.to_le_bytes(), &7i64.to_le_bytes(), &[0]].concat();
        for padding in 0..3 {
            let contents = read(&file(&format!("{header}{}", " ".repeat(padding)), &numbers)).unwrap();
            assert_eq!(contents.arch.as_deref(), Some("resnet18"));
            assert_eq!(contents.tensors["half"].to_vec1::<f32>().unwrap(), [1.0, -2.0]);
            assert_eq!(contents.tensors["double"].to_scalar::<f32>().unwrap(), 0.5);
            assert_eq!(contents.tensors["count"].to_vec1::<i64>().unwrap(), [7]);
            assert_eq!(contents.tensors["none"].dims(), [0, 3]);
            assert!(contents.unreadable["fine"].contains("F4"));
        }
    }

    #[test]
    fn cut_and_damaged_files_say_how_much_is_there() {
        let whole = file(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, &[0; 8]);
        assert!(read(&whole).is_ok());
        for (bytes, words) in [
            (&whole[..whole.len() - 3], &["cut short", "8 bytes", "5 are there"][..]),
            (&whole[..30], &["cut short", "54 bytes", "22 are there"]),
            (&whole[..5], &["cut short"]),
            (&file(r#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}"#, &[0; 8]), &["damaged"]),
            (&file("{\"a\":", &[0; 8]), &["damaged"]),
            (&file(&format!("{{\"a\":{}", "[".repeat(100_000)), &[]), &["damaged"]),
            (&[&whole[..], &[0]].concat(), &["do not fit"]),
        ] {
            let error = read(bytes).unwrap_err();
            for word in words {
                assert!(error.contains(word), "{word} is not in: {error}");
            }
        }
    }
}
