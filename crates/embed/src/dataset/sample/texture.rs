//! What products are covered with: palettes, patterns and labels.

use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

/// Red, green, blue from 0 to 1.
pub(super) type Colour = [f32; 3];

const SIDE: usize = 192;

/// Colours that go together; products of all families share them. Body, pattern, label or accent, inside.
const PALETTES: [[u32; 4]; 14] = [
    [0xf2ead8, 0xb5442f, 0x2f4858, 0xfff9ee],
    [0x2f4858, 0xf2c14e, 0xf7f3e8, 0x1d2b36],
    [0x7a9e7e, 0xf4f1de, 0xd9583b, 0xe9efe5],
    [0xd9583b, 0xf7dba7, 0x33302e, 0xfaf0dc],
    [0xe8e4dc, 0x3d3a38, 0xc9a24b, 0xcfc9be],
    [0x3b6ea5, 0xf4f6f8, 0xe4572e, 0xdce7f0],
    [0xf4b6c2, 0x8a2f52, 0xfdf6f0, 0xfbe3e8],
    [0x4b3b32, 0xd7b98e, 0xf3ead7, 0x2e241e],
    [0x1f1f24, 0xd6d6d6, 0xc8102e, 0x4a4a52],
    [0xf2c14e, 0x26547c, 0xef476f, 0xfff3d0],
    [0x8fb8de, 0x1d3557, 0xf1faee, 0xe6f0f8],
    [0x6a4c93, 0xe0d4f0, 0xffca3a, 0xf3ecfa],
    [0xb8b3a8, 0x6f7d5c, 0x3f3a34, 0xe6e2d8],
    [0xa63d40, 0x90a959, 0xe9d6b0, 0x5b2324],
];

fn colour(hex: u32) -> Colour {
    [16, 8, 0].map(|shift| (hex >> shift & 0xff) as f32 / 255.0)
}

pub(super) fn mix(a: Colour, b: Colour, t: f32) -> Colour {
    std::array::from_fn(|c| a[c] + (b[c] - a[c]) * t)
}

/// 0 below `low`, 1 above `high`, smooth between.
pub(super) fn step(low: f32, high: f32, x: f32) -> f32 {
    let t = ((x - low) / (high - low)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

/// A square picture that wraps around from left to right.
#[derive(Clone, Debug)]
pub(super) struct Texture {
    side: usize,
    pixels: Vec<Colour>,
}

impl Texture {
    pub(super) fn plain(colour: Colour) -> Self {
        Self { side: 1, pixels: vec![colour] }
    }

    fn paint(mut at: impl FnMut(f32, f32) -> Colour) -> Self {
        let mut pixels = Vec::with_capacity(SIDE * SIDE);
        for y in 0..SIDE {
            for x in 0..SIDE {
                pixels.push(at((x as f32 + 0.5) / SIDE as f32, (y as f32 + 0.5) / SIDE as f32));
            }
        }
        Self { side: SIDE, pixels }
    }

    /// The colour at `u` around and `v` up, interpolated.
    pub(super) fn at(&self, u: f32, v: f32) -> Colour {
        if self.side == 1 {
            return self.pixels[0];
        }
        let side = self.side as f32;
        let (x, y) = ((u - u.floor()) * side - 0.5, v.clamp(0.0, 1.0) * side - 0.5);
        let (fx, fy) = (x - x.floor(), y - y.floor());
        let wrap = |x: f32| (x as i32).rem_euclid(self.side as i32) as usize;
        let stop = |y: f32| (y as i32).clamp(0, self.side as i32 - 1) as usize * self.side;
        let (x0, x1) = (wrap(x.floor()), wrap(x.floor() + 1.0));
        let (y0, y1) = (stop(y.floor()), stop(y.floor() + 1.0));
        let low = mix(self.pixels[y0 + x0], self.pixels[y0 + x1], fx);
        let high = mix(self.pixels[y1 + x0], self.pixels[y1 + x1], fx);
        mix(low, high, fy)
    }
}

/// The covers of a product's parts: body, accent, inside.
pub(super) fn cover(rng: &mut ChaCha8Rng, label_chance: f32, label_at: f32) -> [Texture; 3] {
    let [mut body, mut pattern, mut third, inside] =
        PALETTES[rng.random_range(0..PALETTES.len())].map(colour);
    match rng.random_range(0..4) {
        0 => std::mem::swap(&mut body, &mut pattern),
        1 => std::mem::swap(&mut pattern, &mut third),
        _ => {}
    }
    let accent = if rng.random_bool(0.5) { third } else { pattern };
    let drawing = Pattern::draw(rng);
    let label = (rng.random::<f32>() < label_chance).then(|| Label::draw(rng, label_at));
    let (paper, ink) = if rng.random_bool(0.6) { (inside, third) } else { (third, inside) };
    let texture = Texture::paint(|u, v| {
        let ground = mix(body, pattern, drawing.at(u, v));
        label.as_ref().map_or(ground, |label| label.over(u, v, ground, paper, ink, pattern))
    });
    [texture, Texture::plain(accent), Texture::plain(mix(inside, [0.2; 3], 0.12))]
}

/// How the second colour lies over the first.
struct Pattern {
    kind: u32,
    around: f32,
    up: f32,
    width: f32,
    phase: f32,
    noise: Noise,
}

impl Pattern {
    fn draw(rng: &mut ChaCha8Rng) -> Self {
        Self {
            kind: rng.random_range(0..13),
            around: rng.random_range(4..=13) as f32,
            up: rng.random_range(3..=9) as f32,
            width: rng.random_range(2..=6) as f32 * 0.1,
            phase: rng.random(),
            noise: Noise::draw(rng),
        }
    }

    /// How much of the second colour there is, 0 to 1.
    fn at(&self, u: f32, v: f32) -> f32 {
        let turn = |x: f32| libm::sinf(x * 2.0 * std::f32::consts::PI);
        let saw = |x: f32| (x - x.floor() - 0.5).abs() * 2.0;
        let (a, b) = (u * self.around, v * self.up + self.phase);
        let line = |x: f32| step(self.width - 0.08, self.width + 0.08, saw(x));
        let cell = |x: f32| x - x.floor() - 0.5;
        match self.kind {
            0 => 0.0,
            1 => line(b),
            2 => line(a),
            3 => line(a + b),
            4 => {
                let shift = if b.floor() as i32 % 2 == 0 { 0.0 } else { 0.5 };
                let r = cell(a + shift) * cell(a + shift) + cell(b) * cell(b);
                1.0 - step(self.width * 0.6 - 0.07, self.width * 0.6 + 0.05, r.sqrt())
            }
            5 => step(-0.15, 0.15, turn(a * 0.5 * 2.0) * turn(b)),
            6 => line(b + 0.35 * saw(a)),
            7 => line(b + 0.16 * turn(a)),
            8 => step(0.5, 0.56, self.noise.at(u, v, 7.0, 7.0)),
            9 => 0.7 * self.noise.at(u, v, 3.0, 40.0) * line(b + 0.3 * self.noise.at(u, v, 4.0, 4.0)),
            10 => 0.5 * line(a) + 0.5 * line(b),
            11 => step(0.15, 0.85, v + 0.1 * self.noise.at(u, v, 9.0, 9.0)),
            _ => {
                // Flowers: a circle whose radius swings with the angle.
                let (x, y) = (cell(a * 0.5), cell(b * 0.7));
                let petals = self.width * 10.0;
                let r = 0.3 + 0.12 * turn(libm::atan2f(y, x) / (2.0 * std::f32::consts::PI) * petals.floor());
                let d = (x * x + y * y).sqrt();
                (1.0 - step(r - 0.06, r, d)) * step(0.06, 0.1, d)
            }
        }
    }
}

/// Smooth random values that wrap around.
struct Noise([f32; 256]);

impl Noise {
    fn draw(rng: &mut ChaCha8Rng) -> Self {
        Self(std::array::from_fn(|_| rng.random()))
    }

    fn at(&self, u: f32, v: f32, across: f32, up: f32) -> f32 {
        let (x, y) = (u * across, v * up);
        let knot = |i: f32, j: f32| {
            let i = (i as usize) % (across as usize);
            self.0[(i * 37 + (j as usize) * 101) % 256]
        };
        let (fx, fy) = (step(0.0, 1.0, x - x.floor()), step(0.0, 1.0, y - y.floor()));
        let row = |j: f32| {
            let (a, b) = (knot(x.floor(), j), knot(x.floor() + 1.0, j));
            a + (b - a) * fx
        };
        let (low, high) = (row(y.floor()), row(y.floor() + 1.0));
        low + (high - low) * fy
    }
}

type Stroke = ([f32; 2], [f32; 2]);

/// A printed label with letters of an alphabet of its own and an emblem.
struct Label {
    outline: u32,
    centre: f32,
    half_width: f32,
    half_height: f32,
    strokes: Vec<Stroke>,
    emblem: u32,
    emblem_at: [f32; 2],
    fine_print: Vec<f32>,
    framed: bool,
}

impl Label {
    fn draw(rng: &mut ChaCha8Rng, centre: f32) -> Self {
        let emblem_low = rng.random_bool(0.5);
        let count = rng.random_range(2..=4);
        let mut strokes = Vec::new();
        for letter in 0..count {
            let cell = 1.5 / count as f32;
            let x = -0.75 + cell * letter as f32 + cell * 0.15;
            let y = if emblem_low { 0.1 } else { -0.55 };
            strokes.extend(glyph(rng).into_iter().map(|(p, q)| {
                let place = |p: [f32; 2]| [x + p[0] * cell * 0.7, y + p[1] * 0.5];
                (place(p), place(q))
            }));
        }
        Self {
            outline: rng.random_range(0..4),
            centre,
            half_width: rng.random_range(11..=17) as f32 * 0.01,
            half_height: rng.random_range(11..=19) as f32 * 0.01,
            strokes,
            emblem: rng.random_range(0..7),
            emblem_at: [rng.random_range(-4..=4) as f32 * 0.1, if emblem_low { -0.4 } else { 0.42 }],
            fine_print: (0..rng.random_range(0..4)).map(|_| rng.random_range(2..=7) as f32 * 0.1).collect(),
            framed: rng.random_bool(0.5),
        }
    }

    fn over(&self, u: f32, v: f32, ground: Colour, paper: Colour, ink: Colour, extra: Colour) -> Colour {
        // From the middle of the label, its edges at -1 and 1.
        let (x, y) = ((u - 0.5) / self.half_width, (v - self.centre) / self.half_height);
        let edge = match self.outline {
            0 => x.abs().max(y.abs()),
            1 => (x * x + y * y).sqrt() * 0.9,
            2 => y.abs(),
            _ => x.abs().max(y.abs()).max((x.abs() + y.abs()) * 0.68),
        };
        let inside = 1.0 - step(0.97, 1.03, edge);
        if inside == 0.0 {
            return ground;
        }
        let mut print = 0.0f32;
        if self.framed {
            print = print.max(step(0.84, 0.87, edge) * (1.0 - step(0.91, 0.94, edge)));
        }
        for stroke in &self.strokes {
            print = print.max(1.0 - step(0.05, 0.09, distance([x, y], *stroke)));
        }
        for (i, long) in self.fine_print.iter().enumerate() {
            let row = if self.emblem_at[1] > 0.0 { -0.7 } else { -0.62 } - 0.12 * i as f32;
            print = print.max(1.0 - step(0.03, 0.05, distance([x, y], ([-long, row], [*long, row]))));
        }
        let paper = mix(paper, extra, self.emblem_shape(x - self.emblem_at[0], y - self.emblem_at[1]));
        mix(ground, mix(paper, ink, print.min(1.0)), inside)
    }

    fn emblem_shape(&self, x: f32, y: f32) -> f32 {
        let r = (x * x + y * y).sqrt();
        let angle = || libm::atan2f(y, x);
        let size = match self.emblem {
            0 => r,
            1 => (r - 0.2).abs() * 2.2,
            2 => (x.abs() + y.abs()) * 0.8,
            3 => x.abs().max(y.abs()) * 1.1,
            4 => r * (1.0 + 0.4 * libm::cosf(5.0 * angle())),
            5 => (x.abs() * 1.2 + y * 0.5 + 0.1).max(-y),
            _ => r * (1.0 + 0.5 * libm::cosf(2.0 * angle() + 0.8)),
        };
        1.0 - step(0.27, 0.31, size)
    }
}

/// A letter: some of the sides and diagonals of a box of two cells, x and y from 0 to 1.
fn glyph(rng: &mut ChaCha8Rng) -> Vec<Stroke> {
    const STROKES: [Stroke; 11] = [
        ([0.0, 0.0], [0.0, 0.5]),
        ([0.0, 0.5], [0.0, 1.0]),
        ([1.0, 0.0], [1.0, 0.5]),
        ([1.0, 0.5], [1.0, 1.0]),
        ([0.0, 0.0], [1.0, 0.0]),
        ([0.0, 0.5], [1.0, 0.5]),
        ([0.0, 1.0], [1.0, 1.0]),
        ([0.0, 0.0], [1.0, 0.5]),
        ([0.0, 1.0], [1.0, 0.5]),
        ([0.0, 0.5], [1.0, 1.0]),
        ([0.5, 0.0], [0.5, 1.0]),
    ];
    let count = rng.random_range(3..=5);
    STROKES.choose_multiple(rng, count).copied().collect()
}

fn distance(p: [f32; 2], (a, b): Stroke) -> f32 {
    let along = [b[0] - a[0], b[1] - a[1]];
    let from = [p[0] - a[0], p[1] - a[1]];
    let t = (from[0] * along[0] + from[1] * along[1]) / (along[0] * along[0] + along[1] * along[1]).max(1e-9);
    let t = t.clamp(0.0, 1.0);
    let d = [from[0] - along[0] * t, from[1] - along[1] * t];
    (d[0] * d[0] + d[1] * d[1]).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::rand_core::SeedableRng;

    #[test]
    fn covers_stay_within_the_colours_and_wrap_around() {
        for seed in 0..60 {
            let [body, accent, inside] = cover(&mut ChaCha8Rng::seed_from_u64(seed), 0.5, 0.5);
            for texture in [&body, &accent, &inside] {
                assert!(texture.pixels.iter().flatten().all(|c| (0.0..=1.0).contains(c)), "{seed}");
            }
            assert_eq!(body.at(0.0, 0.3), body.at(1.0, 0.3));
        }
    }

    #[test]
    fn distance_to_a_stroke() {
        let stroke = ([0.0, 0.0], [2.0, 0.0]);
        assert_eq!(distance([1.0, 3.0], stroke), 3.0);
        assert_eq!(distance([5.0, 4.0], stroke), 5.0);
        assert_eq!(distance([3.0, 4.0], ([0.0, 0.0], [0.0, 0.0])), 5.0);
    }
}
