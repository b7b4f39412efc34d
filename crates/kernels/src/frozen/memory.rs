//! Large buffers on huge pages: feature maps and weights are walked with strides of many pages, and the processor's
//! page table cache is small.

use std::ops::{Deref, DerefMut};

use memmap2::MmapMut;

use super::layer::Line;
use crate::simd::LANES;

/// Buffers from this size on ask for huge pages.
const HUGE: usize = 1 << 20;

/// A buffer of lines, zero at first.
#[derive(Debug)]
pub(super) enum Lines {
    /// Anonymous memory of the operating system, and the number of lines used of it.
    Mapped(MmapMut, usize),
    /// From the allocator.
    Owned(Vec<Line>),
}

impl Lines {
    pub(super) fn zeroed(len: usize) -> Self {
        let bytes = len * size_of::<Line>();
        if bytes >= HUGE
            && let Ok(map) = MmapMut::map_anon(bytes)
        {
            // A wish only: where the system does not know huge pages, small ones do as well.
            #[cfg(target_os = "linux")]
            let _ = map.advise(memmap2::Advice::HugePage);
            return Self::Mapped(map, len);
        }
        Self::Owned(vec![Line([0.0; LANES]); len])
    }

    /// `len` lines or more with anything in them: `room`, if it has as many.
    pub(super) fn at_least(len: usize, room: Option<Self>) -> Self {
        room.filter(|room| room.len() >= len).unwrap_or_else(|| Self::zeroed(len))
    }
}

impl Deref for Lines {
    type Target = [Line];

    fn deref(&self) -> &[Line] {
        match self {
            // SAFETY: the mapping has room for `len` lines, starts on a page, and any bytes are good numbers.
            Self::Mapped(map, len) => unsafe { std::slice::from_raw_parts(map.as_ptr().cast(), *len) },
            Self::Owned(lines) => lines,
        }
    }
}

impl DerefMut for Lines {
    fn deref_mut(&mut self) -> &mut [Line] {
        match self {
            // SAFETY: as above, and the borrow is exclusive.
            Self::Mapped(map, len) => unsafe {
                std::slice::from_raw_parts_mut(map.as_mut_ptr().cast(), *len)
            },
            Self::Owned(lines) => lines,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_and_large_buffers_start_at_zero_and_keep_what_is_written() {
        for len in [0, 1, 1000, 40_000] {
            let mut lines = Lines::zeroed(len);
            assert_eq!(lines.len(), len);
            assert!(lines.iter().all(|l| l.0 == [0.0; LANES]));
            lines.iter_mut().enumerate().for_each(|(i, l)| l.0[i % LANES] = i as f32);
            assert!(lines.iter().enumerate().all(|(i, l)| l.0[i % LANES] == i as f32));
            assert_eq!(lines.as_ptr() as usize % 64, 0);
            let (at, again) = (lines.as_ptr(), Lines::at_least(len / 2, Some(lines)));
            assert_eq!((again.as_ptr(), again.len()), (at, len));
            assert_eq!(Lines::at_least(len + 1, Some(again)).len(), len + 1);
        }
    }
}
