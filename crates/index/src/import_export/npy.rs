//! Header of NumPy's array format, version 1.0 (numpy.lib.format): a magic string, a length, a Python dictionary.

use std::io::Read;

const MAGIC: &[u8; 6] = b"\x93NUMPY";

/// Header of a little-endian f32 matrix in C order; with it the numbers begin at a multiple of 64 bytes.
pub(super) fn header(rows: u64, dim: usize) -> Vec<u8> {
    let dict = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {dim}), }}");
    let len = (10 + dict.len() + 1).next_multiple_of(64) - 10;
    let mut bytes = [&MAGIC[..], &[1, 0], &(len as u16).to_le_bytes()[..], dict.as_bytes()].concat();
    bytes.resize(10 + len - 1, b' ');
    bytes.push(b'\n');
    bytes
}

/// Rows, dimension, and the byte at which the numbers begin.
pub(super) fn read_header(reader: &mut impl Read) -> Result<(u64, usize, u64), String> {
    let short = |_| "its header is cut short".to_string();
    let mut start = [0; 8];
    reader.read_exact(&mut start).map_err(short)?;
    if &start[..6] != MAGIC {
        return Err("it is no .npy file".into());
    }
    // Version 1 has two bytes of length, later ones four.
    let mut len = [0; 4];
    let width = if start[6] == 1 { 2 } else { 4 };
    reader.read_exact(&mut len[..width]).map_err(short)?;
    let len = u32::from_le_bytes(len) as usize;
    if len > 1 << 20 {
        return Err("its header is longer than a megabyte".into());
    }
    let mut text = vec![0; len];
    reader.read_exact(&mut text).map_err(short)?;
    let text = String::from_utf8_lossy(&text).replace(' ', "");
    if !text.contains("'descr':'<f4'") {
        return Err("its numbers are not little-endian f32 ('<f4')".into());
    }
    if !text.contains("'fortran_order':False") {
        return Err("its rows do not lie one after the other (Fortran order)".into());
    }
    let shape = text.split("'shape':(").nth(1).and_then(|s| s.split(')').next()).unwrap_or_default();
    let sizes: Vec<u64> = shape.split(',').filter(|s| !s.is_empty()).map_while(|s| s.parse().ok()).collect();
    match sizes.as_slice() {
        &[rows, dim] => {
            Ok((rows, usize::try_from(dim).map_err(|e| e.to_string())?, 8 + width as u64 + len as u64))
        }
        _ => Err(format!("its shape is ({shape}), not (rows, dimension)")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // python3 -c "import numpy as np; np.save('/dev/stdout', np.zeros((2, 3), '<f4'))" | head -c 128 | xxd
    #[test]
    fn the_header_is_what_numpy_writes() {
        let bytes = header(2, 3);
        let want = b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }";
        assert_eq!((&bytes[..want.len()], bytes.len()), (&want[..], 128));
        assert_eq!(read_header(&mut &bytes[..]), Ok((2, 3, 128)));
    }

    #[test]
    fn other_arrays_are_refused() {
        let of = |text: &str| {
            let bytes =
                [&MAGIC[..], &[1, 0], &(text.len() as u16).to_le_bytes()[..], text.as_bytes()].concat();
            read_header(&mut &bytes[..]).unwrap_err()
        };
        assert!(of("{'descr': '<f8', 'fortran_order': False, 'shape': (2, 3)}").contains("f32"));
        assert!(of("{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3)}").contains("Fortran"));
        assert!(of("{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}").contains("shape"));
    }
}
