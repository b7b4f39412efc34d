//! PCA-whitening: the directions a gallery varies along, each scaled to the same spread.
//!
//! Learned on the vectors of an index and kept among the attributes of the index derived from it ([`crate::derive()`]). Such
//! an index has a fingerprint of its own, made of the model's and the transform's: a query that was not
//! transformed is refused for the wrong model.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use half::f16;
use nalgebra::{DMatrix, SymmetricEigen};
use rayon::prelude::*;
use sha2::{Digest as _, Sha256};

use crate::answer::normalise;
use crate::error::{QueryError, Result};
use crate::pictures::seal::SEAL;

/// Attribute of an index: the transform of its vectors.
pub const ATTRIBUTE: &str = "whitening";
/// Share of the greatest variance from which a direction counts as one.
const LEAST_VARIANCE: f64 = 1e-7;

/// `y = normalise(Λ^(−1/2) Uᵀ (x − μ))`, cut to the directions of the greatest variance (Jégou and Chum 2012, "Negative
/// evidences and co-occurences in image retrieval: the benefit of PCA and whitening").
#[derive(Clone, Debug, PartialEq)]
pub struct Whitening {
    /// μ, one number for each input dimension.
    mean: Vec<f32>,
    /// Λ^(−1/2) Uᵀ, output × input dimensions.
    rows: Vec<f32>,
    outputs: usize,
}

impl Whitening {
    /// Learns from `vectors` (n × `dim`) and keeps `outputs` directions.
    ///
    /// # Errors
    /// [`QueryError::TooFewDirections`] if the vectors do not span so many.
    pub fn learn(vectors: &[f32], dim: usize, outputs: usize) -> Result<Self> {
        let (mean, covariance) = moments(vectors, dim);
        let failed = || QueryError::Whitening { reason: "the eigenvalues do not converge".to_owned() };
        let eigen = SymmetricEigen::try_new(covariance, f64::EPSILON, 0).ok_or_else(failed)?;
        let (values, directions) = (eigen.eigenvalues, eigen.eigenvectors);
        let mut order: Vec<usize> = (0..dim).collect();
        order.sort_by(|a, b| values[*b].total_cmp(&values[*a]));
        let least = values[order[0]].max(f64::MIN_POSITIVE) * LEAST_VARIANCE;
        let spanned = order.iter().filter(|place| values[**place] > least).count();
        if outputs == 0 || outputs > spanned {
            return Err(QueryError::TooFewDirections { asked: outputs, spanned });
        }
        let mut rows = Vec::with_capacity(outputs * dim);
        for &place in &order[..outputs] {
            let scale = values[place].sqrt().recip();
            // The sign of a direction means nothing: fix it, so that the same gallery gives the same file.
            let first = (0..dim).map(|c| directions[(c, place)]).find(|x| x.abs() > 1e-9).unwrap_or(1.0);
            rows.extend((0..dim).map(|c| (directions[(c, place)] * scale * first.signum()) as f32));
        }
        // Rounded before its first use, so that the gallery is transformed by what is stored.
        Ok(Self { mean: rounded(mean.iter().map(|x| *x as f32)), rows: rounded(rows), outputs })
    }

    /// Length of a vector that goes in.
    pub fn inputs(&self) -> usize {
        self.mean.len()
    }

    /// Length of a vector that comes out.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Each row of `vectors` (n × inputs) whitened and of norm 1 (n × outputs).
    pub fn apply(&self, vectors: &[f32]) -> Vec<f32> {
        let inputs = self.inputs();
        vectors
            .par_chunks_exact(inputs)
            .flat_map_iter(|vector| {
                let centred: Vec<f32> = vector.iter().zip(&self.mean).map(|(x, m)| x - m).collect();
                let dot = |row: &[f32]| row.iter().zip(&centred).map(|(a, b)| a * b).sum::<f32>();
                let mut out: Vec<f32> = self.rows.chunks_exact(inputs).map(dot).collect();
                normalise(&mut out);
                out
            })
            .collect()
    }

    /// The fingerprint of vectors made by the model of fingerprint `model` and this transform.
    pub fn fingerprint(&self, model: &str) -> String {
        let hash = Sha256::new().chain_update(model).chain_update(self.bytes()).finalize();
        hash.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The transform among an index's attributes, if there is one.
    ///
    /// # Errors
    /// [`QueryError::Whitening`] if it is damaged.
    pub fn of_attributes(attributes: &BTreeMap<String, String>) -> Result<Option<Self>> {
        attributes.get(ATTRIBUTE).map(|text| Self::from_text(text)).transpose()
    }

    /// Outputs, inputs, and base64 of the mean and the rows as little-endian f16.
    pub fn to_text(&self) -> String {
        format!("{} {} {}", self.outputs, self.inputs(), STANDARD.encode(self.bytes()))
    }

    fn from_text(text: &str) -> Result<Self> {
        let damaged = || QueryError::Whitening { reason: "the index's attribute is damaged".to_owned() };
        let mut parts = text.split(' ');
        let mut number = || parts.next().and_then(|part| part.parse::<usize>().ok()).filter(|n| *n > 0);
        let (outputs, inputs) = number().zip(number()).ok_or_else(damaged)?;
        let bytes = STANDARD.decode(parts.next().unwrap_or_default()).map_err(|_| damaged())?;
        let numbers: Vec<f32> =
            bytes.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect();
        if Some(numbers.len()) != inputs.checked_mul(outputs + 1) || !numbers.iter().all(|x| x.is_finite()) {
            return Err(damaged());
        }
        let (mean, rows) = numbers.split_at(inputs);
        Ok(Self { mean: mean.to_vec(), rows: rows.to_vec(), outputs })
    }

    fn bytes(&self) -> Vec<u8> {
        self.mean.iter().chain(&self.rows).flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect()
    }
}

/// The attributes as people read them: the transform by its size, without the seal.
pub fn readable(attributes: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let shorten = |(key, value): (&String, &String)| {
        let mut parts = value.split(' ');
        let value = match (key.as_str(), parts.next(), parts.next()) {
            (ATTRIBUTE, Some(outputs), Some(inputs)) => format!("PCA, {outputs} of {inputs} directions"),
            _ => value.clone(),
        };
        (key.clone(), value)
    };
    attributes.iter().filter(|(key, _)| *key != SEAL).map(shorten).collect()
}

fn rounded(values: impl IntoIterator<Item = f32>) -> Vec<f32> {
    values.into_iter().map(|x| f16::from_f32(x).to_f32()).collect()
}

/// The mean and the covariance (dim × dim) of n × `dim` numbers.
fn moments(vectors: &[f32], dim: usize) -> (Vec<f64>, DMatrix<f64>) {
    let n = (vectors.len() / dim).max(1) as f64;
    let mut mean = vec![0.0; dim];
    for row in vectors.chunks_exact(dim) {
        mean.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x));
    }
    mean.iter_mut().for_each(|sum| *sum /= n);
    let centred: Vec<f64> = vectors
        .par_chunks_exact(dim)
        .flat_map_iter(|row| row.iter().zip(&mean).map(|(x, m)| f64::from(*x) - m))
        .collect();
    let mut covariance = DMatrix::<f64>::zeros(dim, dim);
    // Column i as far as the diagonal; the other half mirrors it.
    covariance.as_mut_slice().par_chunks_exact_mut(dim).enumerate().for_each(|(i, column)| {
        for row in centred.chunks_exact(dim) {
            let x = row[i] / n;
            column[..=i].iter_mut().zip(row).for_each(|(sum, y)| *sum += x * y);
        }
    });
    covariance.fill_lower_triangle_with_upper_triangle();
    (mean, covariance)
}

#[cfg(test)]
mod tests {
    use rand::{Rng as _, SeedableRng as _};

    use super::*;

    /// 400 vectors of 6 numbers whose directions vary very differently.
    fn cloud() -> Vec<f32> {
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(5);
        let mut vectors = Vec::new();
        for _ in 0..400 {
            let mut row: Vec<f32> =
                (0..6).map(|c| random.random_range(-1.0..1.0) / (c + 1) as f32 + 0.3).collect();
            row[1] += row[0] * 0.5;
            normalise(&mut row);
            vectors.extend(row);
        }
        vectors
    }

    #[test]
    fn what_comes_out_is_uncorrelated_and_equally_spread() {
        let vectors = cloud();
        let whitening = Whitening::learn(&vectors, 6, 4).unwrap();
        // Before the norm is made 1: the definition says that the covariance is the identity.
        let centre =
            |row: &[f32]| -> Vec<f32> { row.iter().zip(&whitening.mean).map(|(x, m)| x - m).collect() };
        let project = |row: &[f32]| -> Vec<f64> {
            let centred = centre(row);
            let dot = |r: &[f32]| r.iter().zip(&centred).map(|(a, b)| f64::from(a * b)).sum();
            whitening.rows.chunks_exact(6).map(dot).collect()
        };
        let projected: Vec<Vec<f64>> = vectors.chunks_exact(6).map(project).collect();
        for i in 0..4 {
            for j in 0..4 {
                let covariance: f64 = projected.iter().map(|row| row[i] * row[j]).sum::<f64>() / 400.0;
                let expected = f64::from(u8::from(i == j));
                assert!((covariance - expected).abs() < 0.02, "({i}, {j}): {covariance}");
            }
        }
        let out = whitening.apply(&vectors);
        assert!(semblance_index::check_vectors(&out, 400, 4).is_ok());
        for (row, expected) in out.chunks_exact(4).zip(&projected) {
            let norm = expected.iter().map(|x| x * x).sum::<f64>().sqrt();
            assert!(row.iter().zip(expected).all(|(a, b)| (f64::from(*a) - b / norm).abs() < 1e-4));
        }
    }

    #[test]
    fn it_survives_being_written_and_says_when_it_did_not() {
        let whitening = Whitening::learn(&cloud(), 6, 3).unwrap();
        let attributes = |text: String| BTreeMap::from([(ATTRIBUTE.to_owned(), text)]);
        let text = whitening.to_text();
        assert_eq!(Whitening::of_attributes(&attributes(text.clone())).unwrap(), Some(whitening.clone()));
        assert_eq!(Whitening::of_attributes(&BTreeMap::new()).unwrap(), None);
        for bad in [text[..text.len() - 8].to_owned(), "0 6 AAAA".into(), "x".into(), format!("9{text}")] {
            assert!(Whitening::of_attributes(&attributes(bad)).is_err());
        }
        assert_eq!(readable(&attributes(text))[ATTRIBUTE], "PCA, 3 of 6 directions");
        assert_ne!(whitening.fingerprint("a"), whitening.fingerprint("b"));
    }

    #[test]
    fn more_directions_than_there_are_is_an_error() {
        // Three vectors span two directions around their mean.
        let few = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0];
        let error = Whitening::learn(&few, 3, 3).unwrap_err().to_string();
        assert!(error.contains("2 directions") && error.contains('3'), "{error}");
        assert_eq!(Whitening::learn(&few, 3, 2).unwrap().outputs(), 2);
    }
}
