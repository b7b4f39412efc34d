//! Sixteen lanes of f32, however the processor at hand provides them.
//!
//! Kernels are written once, generic over [`Lanes`], marked `#[inline(always)]`, and entered through a function
//! that carries the `#[target_feature]`s of one [`Isa`]; the [`on_isa`] macro writes those entries.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::Avx512;
pub(crate) use portable::Portable;

/// Channels of one block of the internal layout, and lanes of one vector.
pub(crate) const LANES: usize = 16;

/// Which instructions the kernels use; found out at run time by [`Isa::detect`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Isa {
    /// x86-64 with AVX-512 F: one 512-bit register a vector.
    Avx512,
    /// x86-64 with AVX2 and FMA: two 256-bit registers a vector.
    Avx2,
    /// Whatever the compiler makes of plain Rust for the target's baseline.
    Portable,
}

impl Isa {
    /// The best path that this processor can take.
    pub fn detect() -> Self {
        [Self::Avx512, Self::Avx2].into_iter().find(|isa| isa.available()).unwrap_or(Self::Portable)
    }

    /// Whether this processor can take the path.
    pub fn available(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => is_x86_feature_detected!("avx512f") && Self::Avx2.available(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx512 | Self::Avx2 => false,
            Self::Portable => true,
        }
    }
}

impl std::fmt::Display for Isa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Avx512 => "AVX-512",
            Self::Avx2 => "AVX2 + FMA",
            Self::Portable => "portable",
        })
    }
}

/// Arithmetic on sixteen lanes.
///
/// # Safety
/// Implementations may use instructions that the processor must be known to have; code that names the type
/// must check this first. Pointers given to `load` and `store` must be good for sixteen values; no alignment is asked for.
pub(crate) trait Lanes: Copy {
    /// Sixteen values.
    type V: Copy;
    /// The most pixels a register tile may have so that its sums stay in registers, with two blocks of output
    /// channels at once if `PAIRED`.
    const MAX_PIXELS: usize;
    /// Whether two blocks of output channels share a register tile.
    const PAIRED: bool;

    /// Asks for the line of memory at `from` to come nearer; any address will do.
    #[inline(always)]
    fn prefetch(from: *const f32) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a prefetch never faults, and every x86-64 has it.
        unsafe {
            std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(from.cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = from;
    }
    unsafe fn splat(value: f32) -> Self::V;
    unsafe fn load(from: *const f32) -> Self::V;
    unsafe fn store(to: *mut f32, v: Self::V);
    /// a · b + c
    unsafe fn mul_add(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V;
}

/// Defines `fn $name(isa, args…)` that runs the generic `$kernel::<S, …>` compiled for the given [`Isa`].
///
/// The function is unsafe as the kernel is; that the processor has the instructions is guaranteed by taking the
/// path only where [`Isa::available`] says so, which every constructor of a kernel user checks.
macro_rules! on_isa {
    ($(#[$meta:meta])* unsafe fn $name:ident($($arg:ident: $ty:ty),* $(,)?) = $kernel:ident $(::<$($extra:ident),*>)?;) => {
        $(#[$meta])*
        pub(crate) unsafe fn $name(isa: $crate::simd::Isa, $($arg: $ty),*) {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx2,fma")]
            unsafe fn avx512($($arg: $ty),*) {
                // SAFETY: the caller's obligations are passed on; the features are enabled here.
                unsafe { $kernel::<$crate::simd::Avx512>($($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            unsafe fn avx2($($arg: $ty),*) {
                // SAFETY: as above.
                unsafe { $kernel::<$crate::simd::Avx2>($($arg),*) }
            }
            // SAFETY: `isa` is available on this processor; the caller answers for the rest.
            unsafe {
                match isa {
                    #[cfg(target_arch = "x86_64")]
                    $crate::simd::Isa::Avx512 => avx512($($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    $crate::simd::Isa::Avx2 => avx2($($arg),*),
                    _ => $kernel::<$crate::simd::Portable>($($arg),*),
                }
            }
        }
    };
}
pub(crate) use on_isa;

/// Defines a safe function whose loops the compiler turns into vectors of the processor at hand: its body is compiled for
/// AVX2 besides the target's baseline.
///
/// For passes over memory, which gain nothing from being written in vectors by hand. The results of both are the same
/// bits, since products and sums are not contracted.
macro_rules! vectorized {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            #[allow(clippy::too_many_arguments)]
            fn plain($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2")]
                #[allow(clippy::too_many_arguments)]
                fn avx2($($arg: $ty),*) $(-> $ret)? {
                    plain($($arg),*)
                }
                if is_x86_feature_detected!("avx2") {
                    // SAFETY: the processor has what the function was compiled for.
                    return unsafe { avx2($($arg),*) };
                }
            }
            plain($($arg),*)
        }
    };
}
pub(crate) use vectorized;
