//! Numbers in memory laid out like those in files: rows padded to whole cache lines, the first line aligned.

use bytemuck::{Pod, Zeroable};
use memmap2::MmapMut;

use crate::codes::huge_pages;
use crate::codes::kernel::LINE;

/// Bytes from which on a matrix lies in memory of large pages.
const LARGE: usize = 4 << 20;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u8; LINE]);

/// A growing matrix whose rows are whole cache lines, zero where nothing was written.
#[derive(Default)]
pub(crate) struct Rows {
    /// Rows while they are few.
    lines: Vec<Line>,
    /// All rows once they are many; only its first `used` bytes are.
    large: Option<MmapMut>,
    used: usize,
    lines_a_row: usize,
}

impl Rows {
    /// No rows yet, of `bytes` each.
    pub(crate) fn new(bytes: usize) -> Self {
        Self { lines_a_row: bytes.div_ceil(LINE), ..Self::default() }
    }

    /// So many rows of zeros.
    pub(crate) fn with_rows(bytes: usize, rows: usize) -> Self {
        let lines_a_row = bytes.div_ceil(LINE);
        let mut all = Self { lines_a_row, ..Self::default() };
        all.reserve(rows);
        all.used = rows * lines_a_row * LINE;
        if all.large.is_none() {
            all.lines.resize(rows * lines_a_row, Line([0; LINE]));
        }
        all
    }

    /// Makes room for so many rows in all.
    pub(crate) fn reserve(&mut self, rows: usize) {
        let bytes = rows * self.lines_a_row * LINE;
        if bytes < LARGE {
            self.lines.reserve((bytes / LINE).saturating_sub(self.lines.len()));
        } else if self.large.as_ref().is_none_or(|large| large.len() < bytes) {
            // Where the system refuses, rows stay in ordinary memory.
            if let Ok(mut large) = huge_pages::allocate(bytes) {
                large[..self.used].copy_from_slice(self.all());
                self.large = Some(large);
                self.lines = Vec::new();
            }
        }
    }

    /// Adds a row that begins with these numbers.
    pub(crate) fn push<T: Pod>(&mut self, row: &[T]) {
        let (start, bytes) = (self.used, self.lines_a_row * LINE);
        let needed = start + bytes;
        if needed >= LARGE && self.large.as_ref().is_none_or(|large| large.len() < needed) {
            self.reserve(2 * needed / bytes.max(1));
        }
        self.used = needed;
        let place = match &mut self.large {
            Some(large) => &mut large[start..needed],
            None => {
                self.lines.resize(needed / LINE, Line([0; LINE]));
                &mut bytemuck::cast_slice_mut(&mut self.lines)[start..needed]
            }
        };
        let row: &[u8] = bytemuck::cast_slice(row);
        place[..row.len()].copy_from_slice(row);
    }

    /// Removes all rows; the memory stays.
    pub(crate) fn clear(&mut self) {
        self.used = 0;
        self.lines.clear();
        // Rows are zero where nothing is written.
        if let Some(large) = &mut self.large {
            large.fill(0);
        }
    }

    /// All rows, one after the other.
    pub(crate) fn all<T: Pod>(&self) -> &[T] {
        match &self.large {
            Some(large) => bytemuck::cast_slice(&large[..self.used]),
            None => bytemuck::cast_slice(&self.lines),
        }
    }

    pub(crate) fn all_mut<T: Pod>(&mut self) -> &mut [T] {
        match &mut self.large {
            Some(large) => bytemuck::cast_slice_mut(&mut large[..self.used]),
            None => bytemuck::cast_slice_mut(&mut self.lines),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_padded_with_zeros_and_aligned() {
        let mut rows = Rows::new(5 * 4);
        rows.push(&[1.0f32; 5]);
        rows.push(&[2.0f32; 5]);
        let all: &[f32] = rows.all();
        assert_eq!(all.len(), 32);
        assert_eq!((all[4], all[5], all[16], all[21]), (1.0, 0.0, 2.0, 0.0));
        assert_eq!(all.as_ptr() as usize % LINE, 0);
    }

    #[test]
    fn growing_into_large_pages_keeps_the_rows() {
        for reserve in [0, 100, 40_000] {
            let mut rows = Rows::new(200);
            rows.reserve(reserve);
            (0..40_000u32).for_each(|i| rows.push(&[i, i + 1]));
            let all: &[u32] = rows.all();
            assert_eq!(all.len(), 40_000 * 64);
            assert!(all.chunks(64).zip(0..).all(|(row, i)| row[..3] == [i, i + 1, 0]));
            rows.all_mut::<u32>()[5] = 9;
            assert_eq!(rows.all::<u32>()[5], 9);
        }
    }
}
