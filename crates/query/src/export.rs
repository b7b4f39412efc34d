//! Vectors as files for other programs: safetensors and NumPy's .npy, with a table of the rows beside them.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, TensorView};
use semblance_embed::dataset::Sample;

use crate::error::{QueryError, Result};

/// File of the vectors, f32, one row a picture: tensor `vectors` of a safetensors file whose metadata has the `model`'s
/// fingerprint and the `catalogue`.
pub const SAFETENSORS: &str = "vectors.safetensors";
/// The same rows in NumPy's format.
pub const NPY: &str = "vectors.npy";
/// The rows' table: `path,class,super_class`.
pub const ITEMS: &str = "items.csv";

/// Rows to be written.
#[derive(Clone, Copy, Debug)]
pub struct Vectors<'a> {
    /// Length of a row.
    pub dim: usize,
    /// Row after row.
    pub values: &'a [f32],
    /// The picture of each row.
    pub samples: &'a [&'a Sample],
    /// Fingerprint of the model.
    pub model: &'a str,
    /// The catalogue's name.
    pub catalogue: &'a str,
}

/// Makes sure that `dir` can take new files: makes it if need be, refuses it if there is something in it. Call it before
/// the long work, so that this does not fail at its end.
///
/// # Errors
/// [`QueryError::NotEmpty`], or [`QueryError::Write`] with what the system said.
pub fn prepare_folder(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).map_err(|source| at(dir, source))?;
    check_folder(dir)
}

/// As [`prepare_folder`], without making it.
///
/// # Errors
/// As [`prepare_folder`].
pub fn check_folder(dir: &Path) -> Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    match fs::read_dir(dir).map_err(|source| at(dir, source))?.next() {
        None => Ok(()),
        Some(_) => Err(QueryError::NotEmpty { path: dir.to_owned() }),
    }
}

/// Writes the three files into `dir`, each whole or not at all, and returns their paths.
///
/// # Errors
/// [`QueryError::Write`] with the file that could not be written.
///
/// # Panics
/// If `values` are not `samples × dim` numbers.
pub fn write(dir: &Path, vectors: &Vectors<'_>) -> Result<[PathBuf; 3]> {
    assert_eq!(vectors.values.len(), vectors.samples.len() * vectors.dim, "rows × dim numbers");
    let bytes: Vec<u8> = vectors.values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Ok([
        whole(dir, SAFETENSORS, |out| safetensors(out, vectors, &bytes))?,
        whole(dir, NPY, |out| npy(out, vectors, &bytes))?,
        whole(dir, ITEMS, |out| items(out, vectors.samples))?,
    ])
}

fn at(path: &Path, source: io::Error) -> QueryError {
    QueryError::Write { path: path.to_owned(), source }
}

/// Writes a file under another name and renames it when it is complete and on disk.
pub(crate) fn whole(
    dir: &Path,
    name: &str,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<PathBuf> {
    let (path, partial) = (dir.join(name), dir.join(format!(".{name}.partial")));
    let save = || -> io::Result<()> {
        let mut out = BufWriter::new(File::create(&partial)?);
        write(&mut out)?;
        out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        fs::rename(&partial, &path)
    };
    save().map_err(|source| at(&path, source))?;
    Ok(path)
}

fn safetensors(out: &mut impl Write, vectors: &Vectors<'_>, bytes: &[u8]) -> io::Result<()> {
    let shape = vec![vectors.samples.len(), vectors.dim];
    let view = TensorView::new(Dtype::F32, shape, bytes).map_err(io::Error::other)?;
    let pairs = [("model", vectors.model), ("catalogue", vectors.catalogue)];
    let metadata = pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into_iter().collect();
    let file = safetensors::serialize([("vectors", view)], Some(metadata)).map_err(io::Error::other)?;
    out.write_all(&file)
}

/// NumPy's format, version 1.0 (NEP 1): magic, version, length of the header, the header as a Python literal padded with
/// spaces so that the numbers begin at a multiple of 64, the numbers.
fn npy(out: &mut impl Write, vectors: &Vectors<'_>, bytes: &[u8]) -> io::Result<()> {
    const BEFORE_HEADER: usize = 10;
    let shape = (vectors.samples.len(), vectors.dim);
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {}), }}", shape.0, shape.1);
    let length = (BEFORE_HEADER + header.len() + 1).next_multiple_of(64) - BEFORE_HEADER;
    out.write_all(b"\x93NUMPY\x01\x00")?;
    out.write_all(&(length as u16).to_le_bytes())?;
    writeln!(out, "{header:width$}", width = length - 1)?;
    out.write_all(bytes)
}

fn items(out: &mut impl Write, samples: &[&Sample]) -> io::Result<()> {
    let mut table = csv::Writer::from_writer(out);
    table.write_record(["path", "class", "super_class"])?;
    for sample in samples {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        table.write_record([sample.key(), text(&sample.class), text(&sample.super_class)])?;
    }
    table.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(path: &str, class: Option<&str>) -> Sample {
        Sample { path: path.into(), class: class.map(str::to_owned), super_class: None, split: None }
    }

    #[test]
    fn three_files_with_the_same_rows() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (sample("a, b/1.jpg", Some("mug")), sample("2.jpg", None));
        let vectors = Vectors {
            dim: 3,
            values: &[1.0, 0.0, 0.0, 0.6, 0.8, 0.0],
            samples: &[&a, &b],
            model: "f",
            catalogue: "c",
        };
        prepare_folder(dir.path()).unwrap();
        let paths = write(dir.path(), &vectors).unwrap();
        assert!(paths.iter().all(|path| path.is_file()));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3, "no partial file is left");

        let file = fs::read(dir.path().join(SAFETENSORS)).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&file).unwrap();
        let tensor = tensors.tensor("vectors").unwrap();
        assert_eq!(tensor.shape(), [2, 3]);
        let numbers: Vec<f32> =
            tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        assert_eq!(numbers, vectors.values);

        // numpy: np.save("x.npy", np.array([[1, 0, 0], [.6, .8, 0]], "f4")); open("x.npy", "rb").read()[:128]
        let file = fs::read(dir.path().join(NPY)).unwrap();
        let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }";
        assert_eq!(file[..10], *b"\x93NUMPY\x01\x00\x76\x00");
        assert_eq!(std::str::from_utf8(&file[10..128]).unwrap(), format!("{header:117}\n"));
        assert_eq!(file[128..], *tensor.data());

        let table = fs::read_to_string(dir.path().join(ITEMS)).unwrap();
        assert_eq!(table, "path,class,super_class\n\"a, b/1.jpg\",mug,\n2.jpg,,\n");
    }

    #[test]
    fn a_folder_in_use_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("notes.txt");
        fs::write(&file, "keep me").unwrap();
        let error = prepare_folder(dir.path()).unwrap_err();
        assert!(error.to_string().contains("is not empty"), "{error}");
        let error = prepare_folder(&file).unwrap_err();
        assert!(error.to_string().contains("notes.txt"), "{error}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "keep me");
    }
}
