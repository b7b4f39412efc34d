//! Hugging Face's safetensors: matrices of vectors. Model weights in the same format are read by the embedding crate.

use std::io::Read;

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use super::matrix::{Layout, Number};

const TENSOR: &str = "vectors";
/// Longest header that is read, in bytes, as in the `safetensors` crate.
const MAX_HEADER: u64 = 100 << 20;

/// Header of one f32 matrix with labels, padded so that the numbers begin at a multiple of 8 bytes, as the format wants.
pub(super) fn header(rows: u64, dim: usize, labels: &[(&str, &str)]) -> Result<Vec<u8>, String> {
    let rows = usize::try_from(rows).map_err(|e| e.to_string())?;
    let end = rows.checked_mul(dim).and_then(|n| n.checked_mul(4)).ok_or("the matrix is too large")?;
    let tensor = TensorInfo { dtype: Dtype::F32, shape: vec![rows, dim], data_offsets: (0, end) };
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let metadata =
        Metadata::new(Some(labels), vec![(TENSOR.to_owned(), tensor)]).map_err(|e| e.to_string())?;
    let mut json = serde_json::to_string(&metadata).map_err(|e| e.to_string())?;
    json.extend(std::iter::repeat_n(' ', json.len().next_multiple_of(8) - json.len()));
    Ok([&(json.len() as u64).to_le_bytes()[..], json.as_bytes()].concat())
}

/// Reads the header of a matrix of F16, BF16, F32 or F64. The tensor is the one called `vectors`, or the only one.
pub(super) fn read_header(reader: &mut impl Read) -> Result<Layout, String> {
    let short = |_| "its header is cut short".to_string();
    let mut len = [0; 8];
    reader.read_exact(&mut len).map_err(short)?;
    let len = u64::from_le_bytes(len);
    if len > MAX_HEADER {
        return Err("its header is longer than 100 megabytes".into());
    }
    // Grows with what the file has, not with what it says.
    let mut text = Vec::new();
    reader.take(len).read_to_end(&mut text).map_err(|e| e.to_string())?;
    if text.len() as u64 != len {
        return Err("its header is cut short".into());
    }
    let header: Metadata = serde_json::from_slice(&text)
        .map_err(|e| format!("its header is none of the safetensors format: {e}"))?;
    let tensors = header.tensors();
    let tensor = match tensors.get(TENSOR) {
        Some(tensor) => tensor,
        None if tensors.len() == 1 => tensors.values().next().expect("there is one"),
        None => return Err(format!("it has {} tensors, and none is called \"vectors\"", tensors.len())),
    };
    let number = match tensor.dtype {
        Dtype::F16 => Number::F16,
        Dtype::BF16 => Number::Bf16,
        Dtype::F32 => Number::F32,
        Dtype::F64 => Number::F64,
        other => return Err(format!("its numbers are {other}, expected F16, BF16, F32 or F64")),
    };
    let &[rows, dim] = tensor.shape.as_slice() else {
        return Err(format!("the shape of its tensor is {:?}, expected [rows, dimension]", tensor.shape));
    };
    let start = 8 + len + tensor.data_offsets.0 as u64;
    let (rows, ends_file) = (rows as u64, false);
    Ok(Layout { number, big_endian: false, fortran_order: false, rows, dim, start, ends_file })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_comes_back_aligned() {
        let bytes = header(5, 7, &[("model", "f")]).unwrap();
        assert_eq!(bytes.len() % 8, 0);
        let found = read_header(&mut &bytes[..]).unwrap();
        assert_eq!((found.rows, found.dim, found.start), (5, 7, bytes.len() as u64));
        assert!(header(u64::MAX, 2, &[]).is_err());
    }

    #[test]
    fn other_tensors_are_refused_and_skipped() {
        let of = |json: &str| {
            let bytes = [&(json.len() as u64).to_le_bytes()[..], json.as_bytes()].concat();
            read_header(&mut &bytes[..])
        };
        let half = of(r#"{"v":{"dtype":"F16","shape":[1,2],"data_offsets":[0,4]}}"#).unwrap();
        assert_eq!(half.number, Number::F16);
        assert!(
            of(r#"{"v":{"dtype":"I32","shape":[1,2],"data_offsets":[0,8]}}"#).unwrap_err().contains("I32")
        );
        assert!(
            of(r#"{"v":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#).unwrap_err().contains("shape")
        );
        for hostile in [
            r#"{"v":{"dtype":"F32","shape":[-1,2],"data_offsets":[0,8]}}"#,
            r#"{"v":{"dtype":"F32","shape":[1,2],"data_offsets":[0,9]}}"#,
            r#"{"v":{"dtype":"F32","shape":[18446744073709551615,2],"data_offsets":[0,8]}}"#,
            "[]",
            "{}",
        ] {
            assert!(of(hostile).is_err(), "{hostile}");
        }
        let two = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"vectors":{"dtype":"F32","shape":[1,2],"data_offsets":[4,12]}}"#;
        assert_eq!(of(two).unwrap().start, 8 + two.len() as u64 + 4);
        assert!(read_header(&mut &(1u64 << 60).to_le_bytes()[..]).unwrap_err().contains("megabytes"));
    }
}
