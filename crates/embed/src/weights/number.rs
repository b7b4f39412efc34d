//! The types of numbers in weight files.

use candle_core::{Device, Tensor};
use half::{bf16, f16};
use safetensors::Dtype;

/// A type of numbers that tensors are read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Number {
    F64,
    F32,
    F16,
    Bf16,
    F8E4M3,
    F8E5M2,
    I64,
    I32,
    I16,
    I8,
    U64,
    U32,
    U16,
    U8,
    Bool,
}

impl Number {
    /// The type that safetensors calls `dtype`, if it is read.
    pub(super) fn of_safetensors(dtype: Dtype) -> Option<Self> {
        Some(match dtype {
            Dtype::F64 => Self::F64,
            Dtype::F32 => Self::F32,
            Dtype::F16 => Self::F16,
            Dtype::BF16 => Self::Bf16,
            Dtype::F8_E4M3 => Self::F8E4M3,
            Dtype::F8_E5M2 => Self::F8E5M2,
            Dtype::I64 => Self::I64,
            Dtype::I32 => Self::I32,
            Dtype::I16 => Self::I16,
            Dtype::I8 => Self::I8,
            Dtype::U64 => Self::U64,
            Dtype::U32 => Self::U32,
            Dtype::U16 => Self::U16,
            Dtype::U8 => Self::U8,
            Dtype::BOOL => Self::Bool,
            _ => return None,
        })
    }

    /// The type of PyTorch's storage class, such as `FloatStorage`, or of its `dtype`, such as `float8_e4m3fn`.
    pub(super) fn of_pytorch(name: &str) -> Option<Self> {
        Some(match name {
            "DoubleStorage" | "float64" => Self::F64,
            "FloatStorage" | "float32" => Self::F32,
            "HalfStorage" | "float16" => Self::F16,
            "BFloat16Storage" | "bfloat16" => Self::Bf16,
            "float8_e4m3fn" => Self::F8E4M3,
            "float8_e5m2" => Self::F8E5M2,
            "LongStorage" | "int64" => Self::I64,
            "IntStorage" | "int32" => Self::I32,
            "ShortStorage" | "int16" => Self::I16,
            "CharStorage" | "int8" => Self::I8,
            "uint64" => Self::U64,
            "uint32" => Self::U32,
            "uint16" => Self::U16,
            "ByteStorage" | "uint8" => Self::U8,
            "BoolStorage" | "bool" => Self::Bool,
            _ => return None,
        })
    }

    /// Bytes of one number.
    pub(super) fn width(self) -> usize {
        match self {
            Self::F64 | Self::I64 | Self::U64 => 8,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F16 | Self::Bf16 | Self::I16 | Self::U16 => 2,
            Self::F8E4M3 | Self::F8E5M2 | Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }

    /// The tensor of these little-endian numbers: `f32` from floats, `i64` from integers and truth values.
    pub(super) fn tensor(self, bytes: &[u8], shape: &[usize]) -> candle_core::Result<Tensor> {
        let floats = |values: Vec<f32>| Tensor::from_vec(values, shape, &Device::Cpu);
        let integers = |values: Vec<i64>| Tensor::from_vec(values, shape, &Device::Cpu);
        match self {
            Self::F64 => floats(each(bytes, |b| f64::from_le_bytes(b) as f32)),
            Self::F32 => floats(each(bytes, f32::from_le_bytes)),
            Self::F16 => floats(each(bytes, |b| f16::from_le_bytes(b).to_f32())),
            Self::Bf16 => floats(each(bytes, |b| bf16::from_le_bytes(b).to_f32())),
            Self::F8E4M3 => floats(each(bytes, |[byte]| e4m3(byte))),
            // The upper half of an f16.
            Self::F8E5M2 => floats(each(bytes, |[byte]| f16::from_bits(u16::from(byte) << 8).to_f32())),
            Self::I64 => integers(each(bytes, i64::from_le_bytes)),
            Self::I32 => integers(each(bytes, |b| i32::from_le_bytes(b).into())),
            Self::I16 => integers(each(bytes, |b| i16::from_le_bytes(b).into())),
            Self::I8 => integers(each(bytes, |b| i8::from_le_bytes(b).into())),
            Self::U64 => integers(each(bytes, |b| u64::from_le_bytes(b) as i64)),
            Self::U32 => integers(each(bytes, |b| u32::from_le_bytes(b).into())),
            Self::U16 => integers(each(bytes, |b| u16::from_le_bytes(b).into())),
            Self::U8 | Self::Bool => integers(each(bytes, |[byte]| byte.into())),
        }
    }
}

fn each<const WIDTH: usize, T>(bytes: &[u8], read: impl Fn([u8; WIDTH]) -> T) -> Vec<T> {
    bytes.as_chunks().0.iter().map(|chunk| read(*chunk)).collect()
}

/// Micikevicius et al. 2022 (arXiv 2209.05433): four bits of exponent with bias 7, three of mantissa, no infinity.
fn e4m3(byte: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(byte >> 3 & 15), f32::from(byte & 7));
    let size = match (exponent, byte & 7) {
        (15, 7) => f32::NAN,
        (0, _) => mantissa / 512.0,
        _ => (1.0 + mantissa / 8.0) * 2f32.powi(exponent - 7),
    };
    if byte & 0x80 == 0 { size } else { -size }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_has_its_numbers() {
        let floats = |number: Number, bytes: &[u8]| -> Vec<f32> {
            let shape = [bytes.len() / number.width()];
            number.tensor(bytes, &shape).unwrap().to_vec1().unwrap()
        };
        let integers = |number: Number, bytes: &[u8]| -> Vec<i64> {
            let shape = [bytes.len() / number.width()];
            number.tensor(bytes, &shape).unwrap().to_vec1().unwrap()
        };
        let as_f64: Vec<u8> = [1.5f64, -1e300].iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(floats(Number::F64, &as_f64), [1.5, f32::NEG_INFINITY]);
        assert_eq!(floats(Number::F32, &0.1f32.to_le_bytes()), [0.1]);
        assert_eq!(floats(Number::F16, &[0x00, 0x3c, 0x00, 0xc1]), [1.0, -2.5]);
        assert_eq!(floats(Number::Bf16, &[0x80, 0x3f, 0x20, 0xc0]), [1.0, -2.5]);
        // The table of the paper: smallest subnormal, largest, one.
        assert_eq!(
            floats(Number::F8E4M3, &[0x01, 0x7e, 0x38, 0xb8, 0x80]),
            [0.001_953_125, 448.0, 1.0, -1.0, -0.0]
        );
        assert!(floats(Number::F8E4M3, &[0x7f])[0].is_nan());
        assert_eq!(floats(Number::F8E5M2, &[0x7b, 0x3c, 0x01]), [57_344.0, 1.0, 2f32.powi(-16)]);
        assert_eq!(integers(Number::I8, &[0xff, 2]), [-1, 2]);
        assert_eq!(integers(Number::U8, &[0xff]), [255]);
        assert_eq!(integers(Number::I16, &[0xfe, 0xff]), [-2]);
        assert_eq!(integers(Number::U16, &[0xfe, 0xff]), [65_534]);
        assert_eq!(integers(Number::I32, &[0xfd, 0xff, 0xff, 0xff]), [-3]);
        assert_eq!(integers(Number::U32, &[0, 0, 0, 0x80]), [1 << 31]);
        assert_eq!(integers(Number::I64, &(-4i64).to_le_bytes()), [-4]);
        assert_eq!(integers(Number::Bool, &[0, 1]), [0, 1]);
        assert!(Number::F32.tensor(&2f32.to_le_bytes(), &[]).unwrap().to_scalar::<f32>().unwrap() == 2.0);
        assert_eq!(Number::F32.tensor(&[], &[0, 3]).unwrap().dims(), [0, 3]);
    }

    #[test]
    fn types_are_known_by_their_names() {
        assert_eq!(Number::of_pytorch("HalfStorage"), Some(Number::F16));
        assert_eq!(Number::of_pytorch("ComplexFloatStorage"), None);
        assert_eq!(Number::of_safetensors(Dtype::F8_E5M2), Some(Number::F8E5M2));
        assert_eq!(Number::of_safetensors(Dtype::F4), None);
    }
}
