//! Bytes of the records kept in the store and in the item table, each with its checksum.

use serde_json::{Map, Value};

use crate::item::{Item, NewItem};

/// Why bytes are no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CodecError {
    #[error("a record is cut short")]
    Short,
    #[error("the checksum of a record does not fit")]
    Checksum,
    #[error("a record is of unknown kind {0}")]
    Kind(u8),
    #[error("a record holds something that is not text or JSON")]
    Content,
}

const ITEM_KIND: u8 = 1;
const NONE: u32 = u32::MAX;

/// Big-endian, so that a scan of the store is in order of ids.
pub(crate) fn encode_id(id: u64) -> [u8; 8] {
    id.to_be_bytes()
}

pub(crate) fn decode_id(bytes: &[u8]) -> Result<u64, CodecError> {
    Ok(u64::from_be_bytes(bytes.try_into().map_err(|_| CodecError::Short)?))
}

/// A vector: CRC-32, then little-endian f32.
pub(crate) fn encode_vector(vector: &[f32]) -> Vec<u8> {
    let body: &[u8] = bytemuck::cast_slice(vector);
    let mut bytes = Vec::with_capacity(4 + body.len());
    bytes.extend_from_slice(&crc32fast::hash(body).to_le_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// Appends the vector of a record to `out`.
pub(crate) fn decode_vector(bytes: &[u8], dim: usize, out: &mut Vec<f32>) -> Result<(), CodecError> {
    let body = checked(bytes)?;
    if body.len() != dim * 4 {
        return Err(CodecError::Short);
    }
    out.extend(body.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("4 bytes"))));
    Ok(())
}

/// An item without its id: CRC-32, kind, key, class, super class, metadata; each text with its length in front.
pub(crate) fn encode_item(item: &NewItem) -> Vec<u8> {
    let mut bytes = vec![0, 0, 0, 0, ITEM_KIND];
    let mut text = |text: Option<&str>| match text {
        Some(text) => {
            bytes.extend_from_slice(&(text.len() as u32).to_le_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
        None => bytes.extend_from_slice(&NONE.to_le_bytes()),
    };
    text(Some(&item.key));
    text(item.class.as_deref());
    text(item.super_class.as_deref());
    let metadata = (!item.metadata.is_empty())
        .then(|| serde_json::to_string(&item.metadata).expect("JSON values can be written"));
    text(metadata.as_deref());
    let crc = crc32fast::hash(&bytes[4..]);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// The item of a record.
pub(crate) fn decode_item(id: u64, bytes: &[u8]) -> Result<Item, CodecError> {
    let body = checked(bytes)?;
    let (&kind, mut rest) = body.split_first().ok_or(CodecError::Short)?;
    if kind != ITEM_KIND {
        return Err(CodecError::Kind(kind));
    }
    let mut text = || take_text(&mut rest);
    let key = text()?.ok_or(CodecError::Content)?.to_string();
    let class = text()?.map(str::to_string);
    let super_class = text()?.map(str::to_string);
    let metadata: Map<String, Value> = match text()? {
        Some(json) => serde_json::from_str(json).map_err(|_| CodecError::Content)?,
        None => Map::new(),
    };
    Ok(Item { id, key, class, super_class, metadata })
}

/// The key alone of an item's record, without its checksum being looked at.
pub(crate) fn item_key(bytes: &[u8]) -> Option<&str> {
    take_text(&mut bytes.get(5..)?).ok()?
}

fn checked(bytes: &[u8]) -> Result<&[u8], CodecError> {
    let (crc, body) = bytes.split_first_chunk::<4>().ok_or(CodecError::Short)?;
    if u32::from_le_bytes(*crc) != crc32fast::hash(body) {
        return Err(CodecError::Checksum);
    }
    Ok(body)
}

fn take_text<'a>(bytes: &mut &'a [u8]) -> Result<Option<&'a str>, CodecError> {
    let (len, rest) = bytes.split_first_chunk::<4>().ok_or(CodecError::Short)?;
    let len = u32::from_le_bytes(*len);
    if len == NONE {
        *bytes = rest;
        return Ok(None);
    }
    let (text, rest) = rest.split_at_checked(len as usize).ok_or(CodecError::Short)?;
    *bytes = rest;
    std::str::from_utf8(text).map(Some).map_err(|_| CodecError::Content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    proptest! {
        #[test]
        fn items_come_back(key in ".{0,40}", class in proptest::option::of(".{0,9}"), price: i64, id: u64) {
            let metadata = json!({"price": price, "tags": [class.clone()]}).as_object().unwrap().clone();
            let item = NewItem { key, super_class: class.clone(), class, metadata };
            let bytes = encode_item(&item);
            prop_assert_eq!(item_key(&bytes), Some(item.key.as_str()));
            prop_assert_eq!(decode_item(id, &bytes).unwrap(), item.with_id(id));
        }

        #[test]
        fn vectors_come_back_bit_for_bit(vector in proptest::collection::vec(any::<f32>(), 0..40)) {
            let mut read = Vec::new();
            decode_vector(&encode_vector(&vector), vector.len(), &mut read).unwrap();
            prop_assert!(read.iter().map(|x| x.to_bits()).eq(vector.iter().map(|x| x.to_bits())));
        }

        #[test]
        fn damage_is_noticed(position in 0usize..60, bit in 0u8..8) {
            let good = encode_item(&NewItem { class: Some("shoe".into()), ..NewItem::new("a/b.jpg") });
            let mut bad = good.clone();
            let at = position % bad.len();
            bad[at] ^= 1 << bit;
            prop_assert!(decode_item(1, &bad).is_err());
            prop_assert!(decode_item(1, &good[..at]).is_err());
        }

        #[test]
        fn garbage_is_an_error_not_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut with_crc = crc32fast::hash(&bytes).to_le_bytes().to_vec();
            with_crc.extend_from_slice(&bytes);
            let _ = decode_item(1, &with_crc);
            let _ = item_key(&bytes);
            prop_assert!(decode_vector(&bytes, 3, &mut Vec::new()).is_err() || bytes.len() == 16);
        }
    }

    #[test]
    fn ids_sort_as_numbers() {
        assert!(encode_id(255) < encode_id(256));
        assert_eq!(decode_id(&encode_id(77)), Ok(77));
        assert_eq!(decode_id(&[1]), Err(CodecError::Short));
    }
}
