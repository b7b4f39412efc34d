//! A catalogue that the program draws itself, for trying everything out with nothing downloaded.
//!
//! Every product is a solid body of one of a dozen families (its super class) with a form, a palette, a pattern and,
//! for many, a label of its own. Each of its photographs is taken from another side, in other light, before another background, at
//! another size, at times half hidden, blurred or noisy, and compressed as JPEG. Palettes and patterns are shared across products,
//! so colour alone does not tell them apart. The same settings give the same bytes on every platform: random numbers come
//! from ChaCha8, and functions whose rounding differs between systems from `libm`.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use self::geometry::Mesh;
use self::shape::Family;
use self::texture::Texture;
use super::{Dataset, Sample};
use crate::sampler::seeded;

mod geometry;
mod photo;
mod render;
mod shape;
mod texture;

/// The table in a catalogue's folder: `path,class,super_class`. It is written last, so where it is, the catalogue is
/// complete.
pub const TABLE_NAME: &str = "products.csv";

/// What to draw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SampleCatalogue {
    /// Products. The families take turns.
    pub classes: usize,
    /// Photographs of each product.
    pub images_per_class: usize,
    /// Width and height of the photographs in pixels.
    pub size: u32,
    /// What the random choices start from. A catalogue with more products or photographs but the same seed and size
    /// contains the smaller one.
    pub seed: u64,
}

impl Default for SampleCatalogue {
    fn default() -> Self {
        Self { classes: 300, images_per_class: 8, size: 112, seed: 0 }
    }
}

/// Why a catalogue cannot be drawn.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SampleError {
    /// A setting out of range.
    #[error("sample catalogue: {name} is {value}, but must be {wanted}")]
    Setting {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: u64,
        /// What it must be.
        wanted: &'static str,
    },
    /// There is something already.
    #[error("{} is not empty: the sample catalogue is drawn into a new folder only", path.display())]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("cannot write {}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The JPEG encoder refused.
    #[error("cannot encode {}: {reason}", path.display())]
    Encode {
        /// The file.
        path: PathBuf,
        /// What the encoder said.
        reason: String,
    },
}

/// A thing to photograph.
struct Product {
    mesh: Mesh,
    covers: [Texture; 3],
    /// Height of its lowest point, and how far it reaches from its axis down there.
    foot: (f32, f32),
}

impl SampleCatalogue {
    /// Draws the catalogue into a new or empty folder, on all threads of the current rayon pool: photographs as
    /// `<super class>/<product>/<number>.jpg` and the table [`TABLE_NAME`]. `progress` is called with the number of
    /// photographs done and the number in all, from several threads. Returns the data set that [`Dataset::open`] reads from it.
    ///
    /// # Errors
    /// [`SampleError`] for impossible settings, a folder with something in it, or one that cannot be written.
    pub fn write(
        &self,
        dir: &Path,
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<Dataset, SampleError> {
        self.validate()?;
        let io = |path: &Path| {
            let path = path.to_path_buf();
            move |source| SampleError::Io { path, source }
        };
        std::fs::create_dir_all(dir).map_err(io(dir))?;
        if std::fs::read_dir(dir).map_err(io(dir))?.next().is_some() {
            return Err(SampleError::NotEmpty { path: dir.to_path_buf() });
        }
        let done = AtomicUsize::new(0);
        let total = self.classes * self.images_per_class;
        let samples = (0..self.classes)
            .into_par_iter()
            .map(|number| {
                let (family, product) = self.product(number);
                let class = format!("{}-{:03}", family.name(), number / Family::ALL.len() + 1);
                let folder = dir.join(family.name()).join(&class);
                std::fs::create_dir_all(&folder).map_err(io(&folder))?;
                let mut samples = Vec::with_capacity(self.images_per_class);
                for image in 0..self.images_per_class {
                    let path = format!("{}/{class}/{:03}.jpg", family.name(), image + 1);
                    let file = dir.join(&path);
                    let jpeg = self
                        .photograph(&product, number, image)
                        .map_err(|e| SampleError::Encode { path: file.clone(), reason: e.to_string() })?;
                    std::fs::write(&file, jpeg).map_err(io(&file))?;
                    samples.push(Sample {
                        path: path.into(),
                        class: Some(class.clone()),
                        super_class: Some(family.name().to_owned()),
                        split: None,
                    });
                    progress(done.fetch_add(1, Ordering::Relaxed) + 1, total);
                }
                Ok(samples)
            })
            .collect::<Result<Vec<_>, SampleError>>()?;
        let mut samples: Vec<Sample> = samples.into_iter().flatten().collect();
        samples.sort_by(|a, b| a.path.cmp(&b.path));
        let mut table = String::from("path,class,super_class\n");
        for sample in &samples {
            let text = |value: &Option<String>| value.clone().unwrap_or_default();
            table.push_str(&format!(
                "{},{},{}\n",
                sample.key(),
                text(&sample.class),
                text(&sample.super_class)
            ));
        }
        let file = dir.join(TABLE_NAME);
        std::fs::write(&file, table).map_err(io(&file))?;
        Ok(Dataset::new(dir, "products", samples))
    }

    fn validate(&self) -> Result<(), SampleError> {
        let settings = [
            ("classes", self.classes as u64, 1..=100_000, "from 1 to 100000"),
            ("images_per_class", self.images_per_class as u64, 1..=1000, "from 1 to 1000"),
            ("size", u64::from(self.size), 16..=1024, "from 16 to 1024"),
        ];
        for (name, value, range, wanted) in settings {
            if !range.contains(&value) {
                return Err(SampleError::Setting { name, value, wanted });
            }
        }
        Ok(())
    }

    fn product(&self, number: usize) -> (Family, Product) {
        let family = Family::ALL[number % Family::ALL.len()];
        let mesh = family.mesh(&mut seeded([self.seed, 10, number as u64, 0]));
        let covers = texture::cover(
            &mut seeded([self.seed, 11, number as u64, 0]),
            family.label_chance(),
            family.label_height(),
        );
        let low = mesh.vertices.iter().map(|v| v.position[1]).fold(f32::INFINITY, f32::min);
        let down = mesh.vertices.iter().filter(|v| v.position[1] < low + 0.15);
        let reach = down.map(|v| v.position[0].abs().max(v.position[2].abs())).fold(0.1, f32::max);
        (family, Product { mesh, covers, foot: (low, reach) })
    }

    fn photograph(
        &self,
        product: &Product,
        number: usize,
        image: usize,
    ) -> Result<Vec<u8>, image::ImageError> {
        photo::take(product, self.size as usize, &mut seeded([self.seed, 12, number as u64, image as u64]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::DatasetConfig;
    use crate::transform::{Limits, decode_file};
    use sha2::{Digest, Sha256};

    fn small() -> SampleCatalogue {
        SampleCatalogue { classes: 13, images_per_class: 2, size: 32, seed: 7 }
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("sample");
        let written = small().write(&folder, &|done, total| assert!(done <= total && total == 26)).unwrap();
        let read = Dataset::open(&DatasetConfig::new(&folder)).unwrap();
        assert_eq!(read, written);
        assert_eq!((read.len(), read.classes().len()), (26, 13));
        assert_eq!(read.samples[0].key(), "bag/bag-001/001.jpg");
        for sample in &read.samples {
            let picture = decode_file(&read.full_path(sample), &Limits::default()).unwrap();
            assert_eq!(picture.dimensions(), (32, 32));
            let (low, high) = picture.as_raw().iter().fold((255, 0), |(l, h), &v| (v.min(l), v.max(h)));
            assert!(high - low > 30, "{} is blank", sample.key());
        }
        let again = small().write(&folder, &|_, _| {}).unwrap_err();
        assert!(matches!(&again, SampleError::NotEmpty { path } if *path == folder), "{again}");
    }

    #[test]
    fn larger_catalogues_contain_smaller_ones_and_seeds_differ() {
        let bytes = |catalogue: &SampleCatalogue, number: usize, image: usize| {
            catalogue.photograph(&catalogue.product(number).1, number, image).unwrap()
        };
        let one = bytes(&small(), 3, 1);
        assert_eq!(one, bytes(&SampleCatalogue { classes: 500, images_per_class: 9, ..small() }, 3, 1));
        assert_ne!(one, bytes(&SampleCatalogue { seed: 8, ..small() }, 3, 1));
        assert_ne!(one, bytes(&small(), 3, 0));
        assert_ne!(one, bytes(&small(), 15, 1));
    }

    #[test]
    fn the_bytes_are_the_same_everywhere() {
        let catalogue = SampleCatalogue { size: 64, ..SampleCatalogue::default() };
        let mut hash = Sha256::new();
        for number in 0..24 {
            hash.update(catalogue.photograph(&catalogue.product(number).1, number, 0).unwrap());
        }
        let hex: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, "7c1876c1c78e0b31e278dd89c29618cd3d5204733770be25592c24b189fca1d0");
    }

    #[test]
    fn impossible_settings_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = SampleCatalogue { size: 4, ..small() }.write(dir.path(), &|_, _| {}).unwrap_err();
        assert_eq!(error.to_string(), "sample catalogue: size is 4, but must be from 16 to 1024");
        assert!(SampleCatalogue { classes: 0, ..small() }.write(dir.path(), &|_, _| {}).is_err());
        assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none());
    }
}
