//! Taking a photograph of a product: surroundings, light, viewpoint, what stands in the way, and a poor camera.

use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, ImageError};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::Product;
use super::geometry::unit;
use super::render::{Camera, Canvas, Light};
use super::texture::{Colour, mix, step};

/// Pixels are drawn at twice the size and averaged.
const OVERSAMPLING: usize = 2;

fn within(rng: &mut ChaCha8Rng, low: f32, high: f32) -> f32 {
    low + (high - low) * rng.random::<f32>()
}

/// A photograph of `size × size` pixels as a JPEG file.
pub(super) fn take(product: &Product, size: usize, rng: &mut ChaCha8Rng) -> Result<Vec<u8>, ImageError> {
    let camera = Camera {
        yaw: within(rng, -0.65, 0.65),
        pitch: within(rng, 0.06, 0.48),
        roll: within(rng, -0.1, 0.1),
        distance: within(rng, 3.2, 7.0),
        radius: within(rng, 0.35, 0.48),
        centre: [within(rng, 0.45, 0.55), within(rng, 0.46, 0.56)],
    };
    let light = Light {
        direction: unit([within(rng, -0.9, 0.9), within(rng, 0.1, 0.9), within(rng, 0.5, 1.0)]),
        key: within(rng, 0.35, 0.75),
        ambient: within(rng, 0.35, 0.6),
        gloss: if rng.random_bool(0.5) { within(rng, 0.1, 0.5) } else { 0.0 },
    };
    let mut canvas = Canvas::new(size * OVERSAMPLING, |_, _| [0.0; 3]);
    surroundings(&mut canvas, &camera, rng);
    shadow(&mut canvas, product, &camera, &light, within(rng, 0.15, 0.6));
    canvas.draw(&product.mesh, &product.covers, &camera, &light);
    if rng.random_bool(0.2) {
        in_the_way(&mut canvas, rng);
    }
    let mut picture = shrink(&canvas);
    for _ in 0..[0, 0, 0, 1, 1, 2][rng.random_range(0..6)] {
        picture = soften(&picture, size);
    }
    let bytes = expose(&picture, size, rng);
    let mut file = Vec::new();
    let quality = rng.random_range(40..=92);
    let side = size as u32;
    JpegEncoder::new_with_quality(&mut file, quality).encode(&bytes, side, side, ExtendedColorType::Rgb8)?;
    Ok(file)
}

fn any_colour(rng: &mut ChaCha8Rng) -> Colour {
    let grey = within(rng, 0.1, 0.95);
    let strength = within(rng, 0.0, 0.16);
    std::array::from_fn(|_| (grey + within(rng, -strength, strength)).clamp(0.0, 1.0))
}

/// Wall and floor, or plain paper, or a crowded shelf.
fn surroundings(canvas: &mut Canvas, camera: &Camera, rng: &mut ChaCha8Rng) {
    let side = canvas.side;
    let kind = [0, 0, 0, 1, 1, 2, 2][rng.random_range(0..7)];
    let (wall, floor) = match kind {
        0 => ([within(rng, 0.85, 1.0); 3], [within(rng, 0.8, 0.97); 3]),
        _ => (any_colour(rng), any_colour(rng)),
    };
    let horizon = camera.centre[1] + within(rng, -0.35, 0.3);
    let slope = within(rng, -0.12, 0.12);
    let soft = if kind == 0 { 0.4 } else { within(rng, 0.005, 0.1) };
    let (stripes, across, strength) = (within(rng, 4.0, 22.0), rng.random_bool(0.5), within(rng, 0.0, 0.08));
    let grain: Vec<f32> = (0..1024).map(|_| rng.random::<f32>() - 0.5).collect();
    let grainy = within(rng, 0.0, 0.06);
    for (i, pixel) in canvas.colours.iter_mut().enumerate() {
        let (x, y) = ((i % side) as f32 / side as f32, (i / side) as f32 / side as f32);
        let below = step(horizon - soft, horizon + soft, y + slope * (x - 0.5));
        let way = if across { x + y * 0.15 } else { y + x * 0.08 } * stripes;
        let board = if way.floor() as i32 % 2 == 0 { strength } else { -strength };
        let speck = grainy * grain[(i / 3 % side * 31 + i / side / 3 * 57) % 1024];
        let amount = if kind == 0 { 0.0 } else { board * below + speck };
        *pixel = mix(wall, floor, below).map(|c| (c + amount).clamp(0.0, 1.0));
    }
    if kind >= 2 {
        for _ in 0..rng.random_range(3..=9) {
            let soft = within(rng, 0.01, 0.2);
            blot(
                canvas,
                any_colour(rng),
                [within(rng, -0.1, 1.1), within(rng, -0.1, 1.1)],
                soft,
                within(rng, 0.06, 0.3),
                rng,
            );
        }
    }
}

/// An ellipse or a rectangle, turned, with soft edges.
fn blot(canvas: &mut Canvas, colour: Colour, centre: [f32; 2], soft: f32, reach: f32, rng: &mut ChaCha8Rng) {
    let side = canvas.side;
    let angle = within(rng, 0.0, std::f32::consts::PI);
    let (s, c) = (libm::sinf(angle), libm::cosf(angle));
    let (a, b) = (reach, reach * within(rng, 0.25, 1.0));
    let round = rng.random_bool(0.5);
    let shade = within(rng, -0.25, 0.25);
    let bound = |k: usize, sign: f32| {
        ((centre[k] + sign * reach * 1.6) * side as f32).clamp(0.0, side as f32) as usize
    };
    for y in bound(1, -1.0)..bound(1, 1.0) {
        for x in bound(0, -1.0)..bound(0, 1.0) {
            let (dx, dy) = (x as f32 / side as f32 - centre[0], y as f32 / side as f32 - centre[1]);
            let (u, v) = ((c * dx + s * dy) / a, (c * dy - s * dx) / b);
            let edge = if round { (u * u + v * v).sqrt() } else { u.abs().max(v.abs()) };
            let cover = 1.0 - step(1.0 - soft, 1.0, edge);
            if cover > 0.0 {
                let pixel = &mut canvas.colours[y * side + x];
                *pixel = mix(*pixel, colour.map(|c| (c + shade * u).clamp(0.0, 1.0)), cover);
            }
        }
    }
}

/// The dark patch under a thing that stands on something.
fn shadow(canvas: &mut Canvas, product: &Product, camera: &Camera, light: &Light, strength: f32) {
    let side = canvas.side;
    let (low, reach) = product.foot;
    let away = [-light.direction[0] * 0.3, -light.direction[2] * 0.12];
    let point = |x: f32, z: f32| camera.project([x + away[0], low, z + away[1]], side);
    let [cx, cy, _] = point(0.0, 0.0);
    let wide = (point(reach, 0.0)[0] - cx).abs().max((point(0.0, reach)[0] - cx).abs()) * 1.15;
    let tall =
        ((point(reach, 0.0)[1] - cy).abs().max((point(0.0, reach)[1] - cy).abs()) * 1.1).max(wide * 0.1);
    for (i, pixel) in canvas.colours.iter_mut().enumerate() {
        let (dx, dy) = (((i % side) as f32 - cx) / wide, ((i / side) as f32 - cy) / tall);
        let dark = strength * (1.0 - step(0.45, 1.15, (dx * dx + dy * dy).sqrt()));
        *pixel = pixel.map(|c| c * (1.0 - dark));
    }
}

/// A price tag, a finger, or a neighbour at the picture's edge.
fn in_the_way(canvas: &mut Canvas, rng: &mut ChaCha8Rng) {
    let angle = within(rng, 0.0, 2.0 * std::f32::consts::PI);
    let reach = within(rng, 0.1, 0.24);
    let far = within(rng, 0.3, 0.52);
    let centre = [0.5 + far * libm::cosf(angle), 0.5 + far * libm::sinf(angle)];
    let colour = if rng.random_bool(0.3) { [0.86, 0.66, 0.54] } else { any_colour(rng) };
    blot(canvas, colour, centre, 0.05, reach, rng);
}

fn shrink(canvas: &Canvas) -> Vec<Colour> {
    let size = canvas.side / OVERSAMPLING;
    let pixel = |i: usize| {
        let (x, y) = (i % size * OVERSAMPLING, i / size * OVERSAMPLING);
        let at = y * canvas.side + x;
        let four = [at, at + 1, at + canvas.side, at + canvas.side + 1].map(|k| canvas.colours[k]);
        std::array::from_fn(|c| (four[0][c] + four[1][c] + four[2][c] + four[3][c]) * 0.25)
    };
    (0..size * size).map(pixel).collect()
}

/// Three pixels weighed 1, 2, 1, in both directions.
fn soften(picture: &[Colour], size: usize) -> Vec<Colour> {
    let pass = |picture: &[Colour], next: usize, place: &dyn Fn(usize) -> usize| -> Vec<Colour> {
        let at = |i: usize| {
            let here = place(i);
            let before = if here > 0 { i - next } else { i };
            let after = if here + 1 < size { i + next } else { i };
            std::array::from_fn(|c| (picture[before][c] + 2.0 * picture[i][c] + picture[after][c]) * 0.25)
        };
        (0..size * size).map(at).collect()
    };
    let across = pass(picture, 1, &|i| i % size);
    pass(&across, size, &|i| i / size)
}

/// Exposure, white balance, uneven light, dark corners, noise.
fn expose(picture: &[Colour], size: usize, rng: &mut ChaCha8Rng) -> Vec<u8> {
    let gain = within(rng, 0.78, 1.2);
    let cast: Colour = std::array::from_fn(|_| within(rng, 0.92, 1.08));
    let lift = within(rng, -0.04, 0.06);
    let saturation = within(rng, 0.8, 1.1);
    let slope = [within(rng, -0.2, 0.2), within(rng, -0.2, 0.2)];
    let corners = within(rng, 0.0, 0.4);
    let noise = if rng.random_bool(0.6) { within(rng, 0.0, 0.035) } else { 0.0 };
    let mut bytes = Vec::with_capacity(picture.len() * 3);
    for (i, pixel) in picture.iter().enumerate() {
        let (x, y) = ((i % size) as f32 / size as f32 - 0.5, (i / size) as f32 / size as f32 - 0.5);
        let light = gain * (1.0 + slope[0] * x + slope[1] * y) * (1.0 - corners * (x * x + y * y));
        let grey = (pixel[0] + pixel[1] + pixel[2]) / 3.0;
        // The sum of four bytes is nearly normal, with deviation 148.
        let random = rng.random::<[u8; 4]>().map(f32::from).iter().sum::<f32>() - 510.0;
        for c in 0..3 {
            let value =
                (grey + (pixel[c] - grey) * saturation) * light * cast[c] + lift + noise * random / 148.0;
            bytes.push((value.clamp(0.0, 1.0) * 255.0 + 0.5) as u8);
        }
    }
    bytes
}
