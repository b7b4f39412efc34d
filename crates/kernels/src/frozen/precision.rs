//! The number format of a frozen network's products.

use std::str::FromStr;

use crate::{Isa, KernelError, int_tile};

/// What the convolutions of a frozen network multiply. Maps between layers are f32 either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Precision {
    /// Floating point of 32 bits.
    #[default]
    F32,
    /// Integer codes of at most 16 bits with sums of 32 bits, where that is faster than f32; see
    /// [`FrozenNet`](super::FrozenNet).
    Int16,
}

impl Precision {
    /// All there are.
    pub const ALL: [Self; 2] = [Self::F32, Self::Int16];

    /// Bytes of a weight.
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Int16 => 2,
        }
    }

    /// The instructions it is computed with where `best` are the processor's best: 16-bit codes have a path of their own
    /// for AVX-512 only with VNNI.
    pub fn isa(self, best: Isa) -> Isa {
        match self {
            Self::F32 => best,
            Self::Int16 => int_tile::path(best),
        }
    }
}

impl FromStr for Precision {
    type Err = KernelError;

    fn from_str(name: &str) -> Result<Self, KernelError> {
        match name {
            "f32" => Ok(Self::F32),
            "int16" => Ok(Self::Int16),
            other => Err(KernelError::UnknownPrecision(other.to_owned())),
        }
    }
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Int16 => "int16",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_others_refused_with_the_known_ones() {
        for precision in Precision::ALL {
            assert_eq!(precision.to_string().parse::<Precision>().unwrap(), precision);
        }
        let error = "int4".parse::<Precision>().unwrap_err().to_string();
        assert!(error.contains("int4") && error.contains("f32") && error.contains("int16"), "{error}");
    }
}
