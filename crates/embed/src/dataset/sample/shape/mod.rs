//! The families of products and their forms.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::geometry::{Mesh, Vec3};

mod furniture;
mod packaging;
mod vessel;
mod wear;

/// What kind of thing a product is: its super class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Bag,
    Bottle,
    Carton,
    Chair,
    Hat,
    Jar,
    Lamp,
    Mug,
    Shoe,
    Sofa,
    Teapot,
    Vase,
}

impl Family {
    pub(super) const ALL: [Self; 12] = [
        Self::Bag,
        Self::Bottle,
        Self::Carton,
        Self::Chair,
        Self::Hat,
        Self::Jar,
        Self::Lamp,
        Self::Mug,
        Self::Shoe,
        Self::Sofa,
        Self::Teapot,
        Self::Vase,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Bag => "bag",
            Self::Bottle => "bottle",
            Self::Carton => "carton",
            Self::Chair => "chair",
            Self::Hat => "hat",
            Self::Jar => "jar",
            Self::Lamp => "lamp",
            Self::Mug => "mug",
            Self::Shoe => "shoe",
            Self::Sofa => "sofa",
            Self::Teapot => "teapot",
            Self::Vase => "vase",
        }
    }

    /// How often products of this family carry a printed label.
    pub(super) fn label_chance(self) -> f32 {
        match self {
            Self::Bottle | Self::Carton | Self::Jar => 1.0,
            Self::Mug | Self::Bag => 0.8,
            Self::Hat | Self::Vase | Self::Teapot => 0.4,
            Self::Chair | Self::Lamp | Self::Shoe | Self::Sofa => 0.0,
        }
    }

    /// Where the middle of a label is on the way from the bottom to the top of the body's surface, 0 to 1.
    pub(super) fn label_height(self) -> f32 {
        match self {
            Self::Bottle => 0.38,
            Self::Bag | Self::Mug => 0.62,
            Self::Hat => 0.3,
            _ => 0.5,
        }
    }

    /// A form of this family, within the unit sphere.
    pub(super) fn mesh(self, rng: &mut ChaCha8Rng) -> Mesh {
        let mut mesh = Mesh::default();
        match self {
            Self::Bag => wear::bag(&mut mesh, rng),
            Self::Bottle => packaging::bottle(&mut mesh, rng),
            Self::Carton => packaging::carton(&mut mesh, rng),
            Self::Chair => furniture::chair(&mut mesh, rng),
            Self::Hat => wear::hat(&mut mesh, rng),
            Self::Jar => packaging::jar(&mut mesh, rng),
            Self::Lamp => furniture::lamp(&mut mesh, rng),
            Self::Mug => vessel::mug(&mut mesh, rng),
            Self::Shoe => wear::shoe(&mut mesh, rng),
            Self::Sofa => furniture::sofa(&mut mesh, rng),
            Self::Teapot => vessel::teapot(&mut mesh, rng),
            Self::Vase => vessel::vase(&mut mesh, rng),
        }
        mesh.normalise();
        mesh
    }
}

fn within(rng: &mut ChaCha8Rng, low: f32, high: f32) -> f32 {
    low + (high - low) * rng.random::<f32>()
}

/// Points on an arc in a plane: from angle `from` to `to` (in half turns), 0 is right and 0.5 is up.
fn arc(centre: Vec3, across: Vec3, up: Vec3, from: f32, to: f32, radius: f32) -> Vec<(Vec3, f32)> {
    let point = |i: usize| {
        let angle = (from + (to - from) * i as f32 / 10.0) * std::f32::consts::PI;
        let (s, c) = (libm::sinf(angle), libm::cosf(angle));
        (std::array::from_fn(|k| centre[k] + across[k] * c + up[k] * s), radius)
    };
    (0..=10).map(point).collect()
}

#[cfg(test)]
mod tests {
    use super::super::geometry::Part;
    use super::*;
    use rand_chacha::rand_core::SeedableRng;

    #[test]
    fn every_form_is_sound() {
        for family in Family::ALL {
            for seed in 0..40 {
                let mesh = family.mesh(&mut ChaCha8Rng::seed_from_u64(seed));
                assert!(mesh.triangles.len() > 100, "{family:?}");
                let sound = |v: &[f32]| v.iter().all(|x| x.is_finite() && x.abs() <= 1.001);
                assert!(
                    mesh.vertices.iter().all(|v| sound(&v.position) && sound(&v.normal)),
                    "{family:?} {seed}"
                );
                let body = mesh.triangles.iter().filter(|t| t.1 == Part::Body).count();
                assert!(body > 20, "{family:?}");
            }
        }
    }
}
