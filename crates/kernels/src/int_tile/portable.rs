//! The integer register tile in plain Rust.

use super::{IntTile, LANES, scales};

/// # Safety
/// As for [`super::pack`] with `P` pixels.
pub(super) unsafe fn pack<const P: usize>(
    input: *const f32,
    entries: &[u32],
    pixels: &[u32; P],
    to: *mut i16,
) -> [f32; P] {
    let sixteen = |entry: u32, pixel: u32| {
        // SAFETY: the caller answers for sixteen values here.
        unsafe { input.add(entry as usize + pixel as usize).cast::<[f32; LANES]>().read_unaligned() }
    };
    let mut to_values = [0.0; P];
    for (p, &pixel) in pixels.iter().enumerate() {
        let values = || entries.iter().map(|&entry| sixteen(entry, pixel));
        let greatest = values().flatten().fold(0f32, |m, v| m.max(v.abs()));
        let (to_code, to_value) = scales(greatest);
        to_values[p] = to_value;
        for (i, values) in values().enumerate() {
            let codes = values.map(|v| (v * to_code).round_ties_even() as i16);
            // SAFETY: the caller answers for the room.
            unsafe { to.add((i * P + p) * LANES).cast::<[i16; LANES]>().write_unaligned(codes) };
        }
    }
    to_values
}

/// # Safety
/// As for [`super::run`] with `P` pixels.
pub(super) unsafe fn tile<const P: usize>(t: &IntTile) {
    // SAFETY: the tile's pointers are good for what is read and written here.
    unsafe {
        let mut sums = [[0i32; LANES]; P];
        for pair in 0..t.pairs {
            let weights = &(*t.weights.add(pair)).0;
            for (p, sums) in sums.iter_mut().enumerate() {
                let x = t.packed.add((pair / 8 * P + p) * LANES + pair % 8 * 2);
                let (a, b) = (i32::from(*x), i32::from(*x.add(1)));
                for (lane, sum) in sums.iter_mut().enumerate() {
                    let product = a * i32::from(weights[2 * lane]) + b * i32::from(weights[2 * lane + 1]);
                    *sum = sum.wrapping_add(product);
                }
            }
        }
        for (p, sums) in sums.iter().enumerate() {
            for (lane, &sum) in sums.iter().enumerate() {
                let scale = *t.channel_scale.add(lane) * *t.scales.add(p);
                let mut v = sum as f32 * scale + *t.bias.add(lane);
                if !t.residual.is_null() {
                    v += *t.residual.add(*t.residual_offsets.add(p) as usize + lane);
                }
                *t.out.add(*t.out_offsets.add(p) as usize + lane) = v.max(t.low).min(t.high);
            }
        }
    }
}
