//! The three transforms of F(4×4, 3×3): of weights, of pieces of input, and of sums back into pieces of the result.

use crate::simd::{LANES, Lanes, on_isa, vectorized};

/// Side of a piece of the result.
pub(in crate::frozen) const OUT: usize = 4;
/// Side of the piece of input under it.
const IN: usize = 6;
/// Values of a transformed piece.
pub(in crate::frozen) const FREQUENCIES: usize = IN * IN;

vectorized! {
    /// The transformed weights G g Gᵀ of sixteen output channels and one input channel: [tap][output channel] to
    /// [frequency][output channel].
    pub(in crate::frozen) fn transform_weights(g: &[[f32; LANES]; 9]) -> [[f32; LANES]; FREQUENCIES] {
        let mut half = [[[0f32; LANES]; 3]; IN];
        for j in 0..3 {
            for lane in 0..LANES {
                let t = weight_line([g[j][lane], g[3 + j][lane], g[6 + j][lane]]);
                for i in 0..IN {
                    half[i][j][lane] = t[i];
                }
            }
        }
        let mut all = [[0f32; LANES]; FREQUENCIES];
        for i in 0..IN {
            for lane in 0..LANES {
                let t = weight_line([half[i][0][lane], half[i][1][lane], half[i][2][lane]]);
                for j in 0..IN {
                    all[i * IN + j][lane] = t[j];
                }
            }
        }
        all
    }
}

/// G times three values.
#[inline(always)]
fn weight_line(g: [f32; 3]) -> [f32; IN] {
    let (even, far) = ((g[0] + g[2]) / 6.0, g[0] / 24.0 + g[2] / 6.0);
    [g[0] / 4.0, -even - g[1] / 6.0, g[1] / 6.0 - even, far + g[1] / 12.0, far - g[1] / 12.0, g[2]]
}

on_isa! {
    /// Bᵀ d B of the 6×6 piece of a plane that starts at (y0, x0), which may lie partly outside the plane, where
    /// there are zeros. `plane` points to the first pixel inside the border.
    unsafe fn transform_input(
        plane: *const f32, row: usize, start: (isize, isize), extent: (isize, isize), to: *mut f32, frequency: usize,
    ) = transform_input_lanes;
}

#[inline(always)]
unsafe fn transform_input_lanes<S: Lanes>(
    plane: *const f32,
    row: usize,
    (y0, x0): (isize, isize),
    (height, width): (isize, isize),
    to: *mut f32,
    frequency: usize,
) {
    let inside = y0 >= 0 && x0 >= 0 && y0 + IN as isize <= height && x0 + IN as isize <= width;
    // SAFETY: pixels are read only where they are inside the plane; the caller answers for `to`.
    unsafe {
        let from = plane.wrapping_offset(y0 * row as isize + x0 * LANES as isize);
        let mut half = [[S::splat(0.0); IN]; IN];
        for column in 0..IN {
            let mut d = [S::splat(0.0); IN];
            for (line, d) in d.iter_mut().enumerate() {
                let (y, x) = (y0 + line as isize, x0 + column as isize);
                if inside || (y >= 0 && y < height && x >= 0 && x < width) {
                    *d = S::load(from.wrapping_add(line * row + column * LANES));
                }
            }
            let t = input_line::<S>(d);
            for (half, t) in half.iter_mut().zip(t) {
                half[column] = t;
            }
        }
        for (line, half) in half.into_iter().enumerate() {
            for (column, v) in input_line::<S>(half).into_iter().enumerate() {
                S::store(to.add((line * IN + column) * frequency), v);
            }
        }
    }
}

/// Bᵀ times six values.
#[inline(always)]
unsafe fn input_line<S: Lanes>(d: [S::V; IN]) -> [S::V; IN] {
    // SAFETY: arithmetic only; the caller vouches for the instructions.
    unsafe {
        let (two, four, five) = (S::splat(2.0), S::splat(4.0), S::splat(-5.0));
        let minus_four = S::splat(-4.0);
        let even = S::mul_add(minus_four, d[2], d[4]);
        let odd = S::mul_add(minus_four, d[1], d[3]);
        let far_even = S::sub(d[4], d[2]);
        let far_odd = S::mul(two, S::sub(d[3], d[1]));
        [
            S::mul_add(four, d[0], S::mul_add(five, d[2], d[4])),
            S::add(even, odd),
            S::sub(even, odd),
            S::add(far_even, far_odd),
            S::sub(far_even, far_odd),
            S::mul_add(four, d[1], S::mul_add(five, d[3], d[5])),
        ]
    }
}

/// Where one piece of the result comes from and goes to.
pub(crate) struct Piece {
    pub(super) sums: *const f32,
    pub(super) frequency: usize,
    pub(super) bias: *const f32,
    pub(super) out: *mut f32,
    pub(super) row: usize,
    pub(super) residual: *const f32,
    pub(super) residual_row: usize,
    pub(super) limits: (f32, f32),
}

on_isa! {
    /// Aᵀ m A of one piece, with bias, residual and limits; only `shape` rows and columns of it are stored.
    unsafe fn transform_output(piece: &Piece, shape: (usize, usize)) = transform_output_lanes;
}

#[inline(always)]
unsafe fn transform_output_lanes<S: Lanes>(p: &Piece, (rows, columns): (usize, usize)) {
    // SAFETY: the caller answers for the pointers; only `rows` × `columns` pixels are touched.
    unsafe {
        let mut half = [[S::splat(0.0); IN]; OUT];
        for column in 0..IN {
            let mut m = [S::splat(0.0); IN];
            for (line, m) in m.iter_mut().enumerate() {
                *m = S::load(p.sums.add((line * IN + column) * p.frequency));
            }
            let t = output_line::<S>(m);
            for (half, t) in half.iter_mut().zip(t) {
                half[column] = t;
            }
        }
        let bias = S::load(p.bias);
        let (low, high) = (S::splat(p.limits.0), S::splat(p.limits.1));
        for (line, half) in half.into_iter().enumerate().take(rows) {
            for (column, v) in output_line::<S>(half).into_iter().enumerate().take(columns) {
                let mut v = S::add(v, bias);
                if !p.residual.is_null() {
                    v = S::add(v, S::load(p.residual.add(line * p.residual_row + column * LANES)));
                }
                v = S::min(high, S::max(low, v));
                S::store(p.out.add(line * p.row + column * LANES), v);
            }
        }
    }
}

/// Aᵀ times six values.
#[inline(always)]
unsafe fn output_line<S: Lanes>(m: [S::V; IN]) -> [S::V; OUT] {
    // SAFETY: arithmetic only; the caller vouches for the instructions.
    unsafe {
        let (sum, difference) = (S::add(m[1], m[2]), S::sub(m[1], m[2]));
        let (far_sum, far_difference) = (S::add(m[3], m[4]), S::sub(m[3], m[4]));
        [
            S::add(m[0], S::add(sum, far_sum)),
            S::mul_add(S::splat(2.0), far_difference, difference),
            S::mul_add(S::splat(4.0), far_sum, sum),
            S::add(m[5], S::mul_add(S::splat(8.0), far_difference, difference)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_transformed_as_the_matrix_says() {
        const G: [[f64; 3]; IN] = [
            [1. / 4., 0., 0.],
            [-1. / 6., -1. / 6., -1. / 6.],
            [-1. / 6., 1. / 6., -1. / 6.],
            [1. / 24., 1. / 12., 1. / 6.],
            [1. / 24., -1. / 12., 1. / 6.],
            [0., 0., 1.],
        ];
        let g: [[f32; LANES]; 9] =
            std::array::from_fn(|tap| std::array::from_fn(|lane| ((tap * 31 + lane * 17) as f32).sin()));
        let transformed = transform_weights(&g);
        for lane in 0..LANES {
            for f in 0..FREQUENCIES {
                let mut sum = 0f64;
                for (k, row) in (0..9).map(|tap| (tap, f64::from(g[tap][lane]))) {
                    sum += G[f / IN][k / 3] * row * G[f % IN][k % 3];
                }
                assert!((f64::from(transformed[f][lane]) - sum).abs() < 1e-6, "{f} {lane}");
            }
        }
    }
}
