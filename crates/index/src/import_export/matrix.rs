//! Matrices of numbers in files: opened by format, checked against the file's length, read as rows of f32.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use half::{bf16, f16};

use super::{bad, npy, safetensors};
use crate::error::{IndexError, Result};

/// Type of a number in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Number {
    F16,
    Bf16,
    F32,
    F64,
}

/// What the header of a file says of its matrix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) number: Number,
    pub(super) big_endian: bool,
    /// True if columns lie one after the other, false if rows do.
    pub(super) fortran_order: bool,
    pub(super) rows: u64,
    pub(super) dim: usize,
    /// Offset of the first number in the file, in bytes.
    pub(super) start: u64,
    /// True if nothing may follow the numbers.
    pub(super) ends_file: bool,
}

/// An open matrix. Rows are read in order, as many at a time as the caller asks for.
pub(super) struct MatrixFile {
    path: PathBuf,
    reader: BufReader<File>,
    layout: Layout,
    next: u64,
}

impl Number {
    fn bytes(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    /// The little-endian number in `bytes`, rounded to f32.
    fn read(self, bytes: &[u8]) -> f32 {
        match self {
            Self::F16 => f16::from_le_bytes(bytes.try_into().expect("2 bytes")).to_f32(),
            Self::Bf16 => bf16::from_le_bytes(bytes.try_into().expect("2 bytes")).to_f32(),
            Self::F32 => f32::from_le_bytes(bytes.try_into().expect("4 bytes")),
            Self::F64 => f64::from_le_bytes(bytes.try_into().expect("8 bytes")) as f32,
        }
    }
}

impl MatrixFile {
    /// Opens a `.npy` or `.safetensors` file. Nothing is allocated by what the header says before the file is known to
    /// be long enough for it.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let io = |e| IndexError::io(path, e);
        let file = File::open(path).map_err(|e| IndexError::reading(path, e))?;
        let len = file.metadata().map_err(io)?.len();
        let mut reader = BufReader::with_capacity(1 << 20, file);
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
        let layout = match extension.as_str() {
            "npy" => npy::read_header(&mut reader),
            "safetensors" => safetensors::read_header(&mut reader),
            _ => Err("its name ends in none of .npy, .safetensors, .parquet and .jsonl".into()),
        };
        let layout = layout.map_err(|what| bad(path, what))?;
        let Layout { rows, dim, start, ends_file, number, .. } = layout;
        let end = rows
            .checked_mul(dim as u64)
            .and_then(|n| n.checked_mul(number.bytes() as u64))
            .and_then(|n| n.checked_add(start));
        let fits = end.is_some_and(|end| if ends_file { end == len } else { end <= len });
        if dim == 0 || !fits {
            let what = format!(
                "its header says {rows} × {dim} numbers of {} bytes after the first {start} bytes, and the file has {len} bytes",
                number.bytes()
            );
            return Err(bad(path, what));
        }
        reader.seek(SeekFrom::Start(start)).map_err(io)?;
        Ok(Self { path: path.into(), reader, layout, next: 0 })
    }

    pub(super) fn rows(&self) -> u64 {
        self.layout.rows
    }

    pub(super) fn dim(&self) -> usize {
        self.layout.dim
    }

    /// The next `count` rows, one after the other. The caller asks for no more rows than are left.
    pub(super) fn read(&mut self, count: usize) -> Result<Vec<f32>> {
        let Layout { number, big_endian, fortran_order, rows, dim, start, .. } = self.layout;
        let width = number.bytes();
        let mut bytes = vec![0; count * dim * width];
        let read = if fortran_order {
            let file = self.reader.get_mut();
            bytes.chunks_exact_mut((count * width).max(1)).zip(0u64..).try_for_each(|(column, at)| {
                file.seek(SeekFrom::Start(start + (at * rows + self.next) * width as u64))?;
                file.read_exact(column)
            })
        } else {
            self.reader.read_exact(&mut bytes)
        };
        read.map_err(|e| bad(&self.path, format!("its rows from {} on cannot be read: {e}", self.next)))?;
        self.next += count as u64;
        if big_endian {
            bytes.chunks_exact_mut(width).for_each(<[u8]>::reverse);
        }
        let at = |position: usize| number.read(&bytes[position * width..(position + 1) * width]);
        Ok(if fortran_order {
            (0..count * dim).map(|i| at(i % dim * count + i / dim)).collect()
        } else {
            (0..count * dim).map(at).collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A .npy file as NumPy writes it, with the bytes of its numbers.
    fn file(descr: &str, fortran: bool, shape: &str, numbers: &[u8], version: u8) -> Vec<u8> {
        let order = if fortran { "True" } else { "False" };
        let dict = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}\n");
        let mut bytes = [&b"\x93NUMPY"[..], &[version, 0]].concat();
        match version {
            1 => bytes.extend((dict.len() as u16).to_le_bytes()),
            _ => bytes.extend((dict.len() as u32).to_le_bytes()),
        }
        bytes.extend(dict.as_bytes());
        bytes.extend(numbers);
        bytes
    }

    fn rows_of(bytes: &[u8], batch: usize) -> Result<Vec<f32>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("v.npy");
        std::fs::write(&path, bytes).unwrap();
        let mut matrix = MatrixFile::open(&path)?;
        let (mut rows, mut left) = (vec![], matrix.rows() as usize);
        while left > 0 {
            let count = batch.min(left);
            rows.extend(matrix.read(count)?);
            left -= count;
        }
        Ok(rows)
    }

    #[test]
    fn every_float_of_numpy_in_both_orders_and_byte_orders() {
        // Three rows of two numbers, which all the types hold exactly.
        let values = [1.0f32, -2.0, 0.5, 4.0, -0.25, 8.0];
        for version in [1, 2, 3] {
            for batch in [1, 2, 5] {
                for fortran in [false, true] {
                    let mut order = values;
                    if fortran {
                        order = [values[0], values[2], values[4], values[1], values[3], values[5]];
                    }
                    let join = |bytes: Vec<Vec<u8>>| bytes.concat();
                    let of = |f: &dyn Fn(f32) -> Vec<u8>| join(order.iter().map(|x| f(*x)).collect());
                    for (descr, numbers) in [
                        ("<f2", of(&|x| f16::from_f32(x).to_le_bytes().into())),
                        (">f2", of(&|x| f16::from_f32(x).to_be_bytes().into())),
                        ("<f4", of(&|x| x.to_le_bytes().into())),
                        (">f4", of(&|x| x.to_be_bytes().into())),
                        ("<f8", of(&|x| f64::from(x).to_le_bytes().into())),
                        (">f8", of(&|x| f64::from(x).to_be_bytes().into())),
                    ] {
                        let bytes = file(descr, fortran, "(3, 2)", &numbers, version);
                        let found = rows_of(&bytes, batch).unwrap();
                        assert_eq!(found, values, "{descr} {fortran} {version} {batch}");
                    }
                }
            }
        }
    }

    #[test]
    fn shapes_that_the_file_does_not_hold_are_refused_before_anything_is_allocated() {
        for (shape, numbers) in [
            ("(1099511627776, 3)", 12),
            ("(18446744073709551615, 18446744073709551615)", 12),
            ("(1, 18446744073709551615)", 12),
            ("(2, 3)", 23),
            ("(2, 3)", 25),
            ("(3, 0)", 0),
        ] {
            let error = rows_of(&file("<f4", false, shape, &vec![0; numbers], 1), 8).unwrap_err();
            let text = error.to_string();
            assert!(text.contains("v.npy cannot be imported") && text.contains("bytes"), "{shape}: {text}");
        }
    }
}
