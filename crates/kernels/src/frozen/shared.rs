//! A buffer that several tasks write at once, each its own part.

/// The address of a buffer, to be sent to other threads.
///
/// Tasks turn it back into a pointer; that they write disjoint parts and stay inside is each task's to prove.
#[derive(Clone, Copy)]
pub(super) struct Shared(*mut f32);

// SAFETY: the address alone is harmless; every dereference has its own justification where it happens.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    pub(super) fn new(start: *mut f32) -> Self {
        Self(start)
    }

    /// No buffer.
    pub(super) fn null() -> Self {
        Self(std::ptr::null_mut())
    }

    pub(super) fn get(self) -> *mut f32 {
        self.0
    }

    /// `by` values further; null stays null.
    pub(super) fn at(self, by: usize) -> *mut f32 {
        if self.0.is_null() { self.0 } else { self.0.wrapping_add(by) }
    }
}
