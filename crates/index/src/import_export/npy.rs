//! NumPy's array format (`numpy.lib.format`): a magic string, a version, a length, a Python dictionary, the numbers.

use std::io::Read;

use super::matrix::{Layout, Number};

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// Longest header that is read, in bytes. NumPy's own headers of matrices have 128.
const MAX_HEADER: usize = 1 << 20;

/// Header of a little-endian f32 matrix in C order; with it the numbers begin at a multiple of 64 bytes.
pub(super) fn header(rows: u64, dim: usize) -> Vec<u8> {
    let dict = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {dim}), }}");
    let len = (10 + dict.len() + 1).next_multiple_of(64) - 10;
    let mut bytes = [&MAGIC[..], &[1, 0], &(len as u16).to_le_bytes()[..], dict.as_bytes()].concat();
    bytes.resize(10 + len - 1, b' ');
    bytes.push(b'\n');
    bytes
}

/// Reads the header of a matrix: versions 1 to 3, f16, f32 or f64 of either byte order, in C or Fortran order.
pub(super) fn read_header(reader: &mut impl Read) -> Result<Layout, String> {
    let short = |_| "its header is cut short".to_string();
    let mut start = [0; 8];
    reader.read_exact(&mut start).map_err(short)?;
    if &start[..6] != MAGIC {
        return Err("it is no .npy file: it does not begin with NumPy's magic string".into());
    }
    // Version 1 has two bytes of length, later ones four.
    let width = match start[6] {
        1 => 2,
        2 | 3 => 4,
        version => return Err(format!("its format version is {version}, expected 1, 2 or 3")),
    };
    let mut len = [0; 4];
    reader.read_exact(&mut len[..width]).map_err(short)?;
    let len = u32::from_le_bytes(len) as usize;
    if len > MAX_HEADER {
        return Err("its header is longer than a megabyte".into());
    }
    let mut text = vec![0; len];
    reader.read_exact(&mut text).map_err(short)?;
    let text: String = String::from_utf8_lossy(&text)
        .chars()
        .filter(|c| !c.is_ascii_whitespace())
        .map(|c| if c == '"' { '\'' } else { c })
        .collect();
    let after = |key: &str| {
        text.split_once(&format!("'{key}':"))
            .map(|(_, rest)| rest)
            .ok_or(format!("its header has no {key:?}"))
    };
    let descr = after("descr")?.strip_prefix('\'').and_then(|rest| rest.split_once('\'')).map(|(d, _)| d);
    let (big_endian, number) = match descr {
        Some("<f2") => (false, Number::F16),
        Some(">f2") => (true, Number::F16),
        Some("<f4") => (false, Number::F32),
        Some(">f4") => (true, Number::F32),
        Some("<f8") => (false, Number::F64),
        Some(">f8") => (true, Number::F64),
        other => {
            let found = other.map_or("records".into(), |d| format!("{d:?}"));
            return Err(format!("its numbers are {found}, expected float16, float32 or float64"));
        }
    };
    let order = after("fortran_order")?;
    let fortran_order = order.starts_with("True");
    if !fortran_order && !order.starts_with("False") {
        return Err("its fortran_order is neither True nor False".into());
    }
    let shape = after("shape")?.strip_prefix('(').and_then(|rest| rest.split_once(')')).map(|(s, _)| s);
    let shape = shape.ok_or("its shape is no tuple")?;
    // Python 2 wrote long integers as 5L.
    let sizes: Option<Vec<u64>> = shape
        .split(',')
        .filter(|size| !size.is_empty())
        .map(|size| size.strip_suffix('L').unwrap_or(size).parse().ok())
        .collect();
    let Some(&[rows, dim]) = sizes.as_deref() else {
        return Err(format!("its shape is ({shape}), expected two sizes: (rows, dimension)"));
    };
    let dim = usize::try_from(dim).map_err(|e| e.to_string())?;
    let start = 8 + width as u64 + len as u64;
    Ok(Layout { number, big_endian, fortran_order, rows, dim, start, ends_file: true })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(mut bytes: &[u8]) -> Result<Layout, String> {
        read_header(&mut bytes)
    }

    fn with_dict(text: &str) -> Vec<u8> {
        [&MAGIC[..], &[1, 0], &(text.len() as u16).to_le_bytes()[..], text.as_bytes()].concat()
    }

    // python3 -c "import numpy as np; np.save('/dev/stdout', np.zeros((2, 3), '<f4'))" | head -c 128 | xxd
    #[test]
    fn the_header_is_what_numpy_writes() {
        let bytes = header(2, 3);
        let want = b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }";
        assert_eq!((&bytes[..want.len()], bytes.len()), (&want[..], 128));
        let found = read(&bytes).unwrap();
        assert_eq!((found.rows, found.dim, found.start, found.number), (2, 3, 128, Number::F32));
    }

    #[test]
    fn other_arrays_are_refused_and_the_error_says_what_is_expected() {
        let of = |text: &str| read(&with_dict(text)).unwrap_err();
        assert!(of("{'descr': '<i4', 'fortran_order': False, 'shape': (2, 3)}").contains("float32"));
        assert!(of("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,)}").contains("records"));
        assert!(of("{'descr': '<f4', 'fortran_order': 1, 'shape': (2, 3)}").contains("fortran_order"));
        for shape in
            ["(2,)", "()", "(2, 3, 4)", "(-2, 3)", "(2, x)", "(99999999999999999999, 3)", "5", "(2, 3"]
        {
            let error = of(&format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}"));
            assert!(error.contains("shape"), "{shape}: {error}");
        }
        assert!(of("{}").contains("descr"));
        let good = header(2, 3);
        for len in 0..good.len() {
            assert!(read(&good[..len]).is_err(), "{len} bytes");
        }
        let mut version = good.clone();
        version[6] = 4;
        assert!(read(&version).unwrap_err().contains("version is 4"));
        let huge = [&MAGIC[..], &[2, 0], &u32::MAX.to_le_bytes()[..]].concat();
        assert!(read(&huge).unwrap_err().contains("megabyte"));
    }

    proptest! {
        #[test]
        fn headers_come_back_and_damaged_ones_never_panic(
            rows in any::<u64>(), dim in any::<u32>(), at in 0usize..128, byte in any::<u8>(),
        ) {
            let mut bytes = header(rows, dim as usize);
            prop_assert_eq!(bytes.len() % 64, 0);
            let found = read(&bytes).unwrap();
            prop_assert_eq!((found.rows, found.dim, found.start), (rows, dim as usize, bytes.len() as u64));
            bytes[at] = byte;
            let _ = read(&bytes);
        }

        #[test]
        fn spacing_quotes_and_the_order_of_keys_do_not_matter(
            rows in 0u64..1 << 40, dim in 0u32..1 << 16, spaces in 0usize..5, fortran in any::<bool>(),
        ) {
            let (gap, order) = (" ".repeat(spaces), if fortran { "True" } else { "False" });
            let text = format!("{{\"shape\":{gap}({rows}L,{gap}{dim}),\"descr\":{gap}\">f8\",{gap}\"fortran_order\":{order}}}\n");
            let found = read(&with_dict(&text)).unwrap();
            prop_assert_eq!((found.rows, found.dim, found.fortran_order), (rows, dim as usize, fortran));
            prop_assert!(found.big_endian && found.number == Number::F64);
        }
    }
}
