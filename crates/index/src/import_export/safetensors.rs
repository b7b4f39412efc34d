//! Header of the safetensors format (github.com/huggingface/safetensors): a length and a JSON object.

use std::io::Read;

use serde_json::{Value, json};

const TENSOR: &str = "vectors";

/// Header of one f32 matrix, padded so that the numbers begin at a multiple of 8 bytes, as the format wants.
pub(super) fn header(rows: u64, dim: usize) -> Vec<u8> {
    let end = rows.saturating_mul(dim as u64).saturating_mul(4);
    let mut json =
        json!({TENSOR: {"dtype": "F32", "shape": [rows, dim], "data_offsets": [0, end]}}).to_string();
    json.extend(std::iter::repeat_n(' ', json.len().next_multiple_of(8) - json.len()));
    [&(json.len() as u64).to_le_bytes()[..], json.as_bytes()].concat()
}

/// Rows, dimension, and the byte at which the numbers begin. The tensor is the one called `vectors`, or the only one.
pub(super) fn read_header(reader: &mut impl Read) -> Result<(u64, usize, u64), String> {
    let short = |_| "its header is cut short".to_string();
    let mut len = [0; 8];
    reader.read_exact(&mut len).map_err(short)?;
    let len = u64::from_le_bytes(len);
    if len > 100 << 20 {
        return Err("its header is longer than 100 megabytes".into());
    }
    let mut text = vec![0; len as usize];
    reader.read_exact(&mut text).map_err(short)?;
    let header: serde_json::Map<String, Value> =
        serde_json::from_slice(&text).map_err(|e| format!("its header is no JSON object: {e}"))?;
    let tensors: Vec<_> = header.iter().filter(|(name, _)| *name != "__metadata__").collect();
    let (_, tensor) = match tensors.as_slice() {
        [only] => *only,
        several => {
            *several.iter().find(|(name, _)| *name == TENSOR).ok_or("it has no tensor called \"vectors\"")?
        }
    };
    if tensor["dtype"] != "F32" {
        return Err(format!("its numbers are {}, not F32", tensor["dtype"]));
    }
    let numbers = |key: &str| -> Vec<u64> {
        tensor[key].as_array().into_iter().flatten().filter_map(Value::as_u64).collect()
    };
    match (numbers("shape").as_slice(), numbers("data_offsets").as_slice()) {
        (&[rows, dim], &[from, _]) => {
            let skipped =
                std::io::copy(&mut reader.by_ref().take(from), &mut std::io::sink()).map_err(short)?;
            if skipped != from {
                return Err("it is cut short".into());
            }
            Ok((rows, usize::try_from(dim).map_err(|e| e.to_string())?, 8 + len + from))
        }
        _ => Err(format!("the shape of its tensor is {}, not [rows, dimension]", tensor["shape"])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_comes_back_aligned() {
        let bytes = header(5, 7);
        assert_eq!(bytes.len() % 8, 0);
        assert_eq!(read_header(&mut &bytes[..]), Ok((5, 7, bytes.len() as u64)));
    }

    #[test]
    fn other_tensors_are_refused_and_skipped() {
        let of = |json: &str, data: &[u8]| {
            let bytes = [&(json.len() as u64).to_le_bytes()[..], json.as_bytes(), data].concat();
            read_header(&mut &bytes[..])
        };
        assert!(
            of(r#"{"v":{"dtype":"F16","shape":[1,2],"data_offsets":[0,4]}}"#, &[])
                .unwrap_err()
                .contains("F16")
        );
        assert!(of(r#"{"v":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, &[]).is_err());
        assert!(of("[]", &[]).is_err() && of("{}", &[]).is_err());
        let two = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"vectors":{"dtype":"F32","shape":[1,2],"data_offsets":[4,12]}}"#;
        assert_eq!(of(two, &[0; 12]), Ok((1, 2, 8 + two.len() as u64 + 4)));
    }
}
