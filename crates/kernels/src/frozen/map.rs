//! Where the pixels of an internal feature map lie.

use super::layer::blocks;
use crate::simd::LANES;

/// The layout of one image of a feature map.
///
/// Blocked: [channel block][row][pixel][16 channels]; planar: [channel][row][pixel]. Either has `border` rows and
/// columns of zeros on each side, so that convolutions need not ask where an image ends. Channels that fill up the
/// last block are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Map {
    pub(super) channels: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) border: usize,
    pub(super) planar: bool,
}

impl Map {
    /// Values of one pixel that lie together.
    pub(super) fn pixel(&self) -> usize {
        if self.planar { 1 } else { LANES }
    }

    /// Values of a row, borders included.
    pub(super) fn row(&self) -> usize {
        (self.width + 2 * self.border) * self.pixel()
    }

    /// Values of a plane (of one channel or one block of channels).
    pub(super) fn plane(&self) -> usize {
        (self.height + 2 * self.border) * self.row()
    }

    /// Number of planes.
    pub(super) fn planes(&self) -> usize {
        if self.planar { self.channels } else { blocks(self.channels) }
    }

    /// Values of one image, or `None` if they are more than the 32-bit offsets of the kernels can reach.
    pub(super) fn image(&self) -> Option<usize> {
        let sides = |s: usize| s.checked_add(self.border.checked_mul(2)?);
        let plane = sides(self.height)?.checked_mul(sides(self.width)?)?.checked_mul(self.pixel())?;
        let image = plane.checked_mul(self.planes())?;
        (image <= u32::MAX as usize / 2).then_some(image)
    }

    /// Where in a plane the pixel in row `y` and column `x` lies.
    pub(super) fn offset(&self, y: usize, x: usize) -> usize {
        (self.border + y) * self.row() + (self.border + x) * self.pixel()
    }

    /// The offsets of all pixels of a plane in reading order.
    pub(super) fn offsets(&self) -> Vec<u32> {
        let row = |y| (0..self.width).map(move |x| self.offset(y, x) as u32);
        (0..self.height).flat_map(row).collect()
    }
}
