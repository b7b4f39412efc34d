//! The sums of a register tile on AVX2 where pixels lie any distance apart, as on the planes of an image.
//!
//! Twelve registers of sums, two of weights and two of pixels leave none over. Compilers keep some of the sums in
//! memory where the number of neighbouring values is not known beforehand; written in this order the work fits.

use std::arch::asm;
use std::arch::x86_64::*;

use crate::tile::Tile;

/// Pixels of the tile; fewer are filled up with the first.
const PIXELS: usize = 6;

/// Multiplies the `$i`-th value of a pixel with the weights of sixteen channels.
macro_rules! pixel {
    ($i:literal, $from:literal, $x:literal, $low:literal, $high:literal) => {
        concat!(
            "vbroadcastss ",
            $x,
            ", dword ptr [{",
            $from,
            "} + 4 * {at:r} + 4 * ",
            $i,
            "]\n",
            "vfmadd231ps ",
            $low,
            ", ymm12, ",
            $x,
            "\n",
            "vfmadd231ps ",
            $high,
            ", ymm13, ",
            $x,
            "\n",
        )
    };
}

/// Multiplies the `$i`-th value of all pixels.
macro_rules! summand {
    ($i:literal) => {
        concat!(
            "vmovups ymm12, ymmword ptr [{weights} + 64 * ",
            $i,
            "]\n",
            "vmovups ymm13, ymmword ptr [{weights} + 64 * ",
            $i,
            " + 32]\n",
            pixel!($i, "a", "ymm14", "ymm0", "ymm1"),
            pixel!($i, "b", "ymm15", "ymm2", "ymm3"),
            pixel!($i, "c", "ymm14", "ymm4", "ymm5"),
            pixel!($i, "d", "ymm15", "ymm6", "ymm7"),
            pixel!($i, "e", "ymm14", "ymm8", "ymm9"),
            pixel!($i, "f", "ymm15", "ymm10", "ymm11"),
        )
    };
}

/// The sums of one block of sixteen output channels for `P` pixels, bias included.
///
/// # Safety
/// The tile's pointers must be good for what [`Tile`] says, the processor have AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
pub(crate) unsafe fn sums<const P: usize>(t: &Tile) -> [[__m256; 2]; P] {
    const { assert!(P > 0 && P <= PIXELS) };
    // SAFETY: the bias has sixteen values.
    let bias = unsafe { [_mm256_loadu_ps(t.bias), _mm256_loadu_ps(t.bias.add(8))] };
    let mut sums = [bias; PIXELS];
    if t.entry_count > 0 && t.run > 0 {
        let from: [*const f32; PIXELS] =
            std::array::from_fn(|p| t.input.wrapping_add(if p < P { p * t.pixel_stride } else { 0 }));
        let [[s0, s1], [s2, s3], [s4, s5], [s6, s7], [s8, s9], [s10, s11]] = &mut sums;
        // SAFETY: the input is good at each entry, run and pixel, the weights for the sums of entries and runs.
        unsafe {
            asm!(
                // At each entry: first four neighbours at a time, then one.
                "2:",
                "mov {at:e}, dword ptr [{entries}]",
                "add {entries}, 4",
                "mov {left:e}, {run:e}",
                "sub {left:e}, 4",
                "jb 4f",
                "3:",
                summand!(0), summand!(1), summand!(2), summand!(3),
                "add {weights}, 256",
                "add {at:r}, 4",
                "sub {left:e}, 4",
                "jae 3b",
                "4:",
                "add {left:e}, 4",
                "jz 6f",
                "5:",
                summand!(0),
                "add {weights}, 64",
                "add {at:r}, 1",
                "sub {left:e}, 1",
                "jnz 5b",
                "6:",
                "sub {count}, 1",
                "jnz 2b",
                entries = inout(reg) t.entries => _, count = inout(reg) t.entry_count => _,
                weights = inout(reg) t.weights => _, run = in(reg) t.run,
                at = out(reg) _, left = out(reg) _,
                a = in(reg) from[0], b = in(reg) from[1], c = in(reg) from[2],
                d = in(reg) from[3], e = in(reg) from[4], f = in(reg) from[5],
                inout("ymm0") *s0, inout("ymm1") *s1, inout("ymm2") *s2, inout("ymm3") *s3,
                inout("ymm4") *s4, inout("ymm5") *s5, inout("ymm6") *s6, inout("ymm7") *s7,
                inout("ymm8") *s8, inout("ymm9") *s9, inout("ymm10") *s10, inout("ymm11") *s11,
                out("ymm12") _, out("ymm13") _, out("ymm14") _, out("ymm15") _,
                options(nostack, readonly),
            );
        }
    }
    std::array::from_fn(|p| sums[p])
}
