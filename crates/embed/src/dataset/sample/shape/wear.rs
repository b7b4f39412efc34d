//! Clothing and bags.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::super::geometry::{AROUND, Mesh, Part, Vec3, ring};
use super::{arc, within};

pub(super) fn bag(mesh: &mut Mesh, rng: &mut ChaCha8Rng) {
    let (bottom, top) = (within(rng, 0.5, 0.85), within(rng, 0.4, 0.8));
    let (depth, height) = (within(rng, 0.16, 0.36), within(rng, 0.38, 0.7));
    let exponent = within(rng, 3.0, 8.0);
    let at = |y: f32, a: f32, b: f32| ring([0.0, y, 0.0], a, b, exponent);
    let middle = (bottom + top) / 2.0 * within(rng, 0.98, 1.12);
    let mouth = depth * within(rng, 0.25, 0.9);
    mesh.loft(
        &[
            at(-height, 0.0, 0.0),
            at(-height, bottom * 0.95, depth * 0.9),
            at(-height, bottom * 0.95, depth * 0.9),
            at(-height + 0.08, bottom, depth),
            at(0.0, middle, (depth + mouth) / 2.0),
            at(height, top, mouth),
        ],
        Part::Body,
    );
    mesh.loft(&[at(height, top, mouth), at(height - 0.05, 0.0, 0.0)], Part::Inside);
    let thick = within(rng, 0.025, 0.055);
    let (span, rise) = (top * within(rng, 0.4, 0.75), within(rng, 0.35, 0.8));
    let handles: &[f32] = if rng.random_bool(0.6) { &[-1.0, 1.0] } else { &[0.0] };
    for side in handles {
        let span = if *side == 0.0 { top * 0.95 } else { span };
        mesh.tube(
            &arc(
                [0.0, height - 0.04, side * mouth * 0.9],
                [span, 0.0, 0.0],
                [0.0, rise, 0.0],
                0.0,
                1.0,
                thick,
            ),
            Part::Accent,
        );
    }
    if rng.random_bool(0.4) {
        let flap = height * within(rng, 0.3, 0.8);
        mesh.block(
            [0.0, height - flap / 2.0, (depth + mouth) / 2.0 * 0.95],
            [top * 0.75, flap / 2.0, 0.05],
            Part::Accent,
        );
    }
}

pub(super) fn hat(mesh: &mut Mesh, rng: &mut ChaCha8Rng) {
    let crown = within(rng, 0.36, 0.52);
    let height = within(rng, 0.35, 0.85);
    let taper = within(rng, 0.7, 1.05);
    let round = rng.random_bool(0.5);
    let mut profile = vec![(crown, 0.0), (crown * (1.0 + taper) / 2.0, height * 0.5)];
    if round {
        profile.extend([
            (crown * taper * 0.9, height * 0.78),
            (crown * taper * 0.6, height * 0.95),
            (0.0, height),
        ]);
    } else {
        profile.extend([(crown * taper, height * 0.97), (crown * taper, height * 0.97), (0.0, height)]);
    }
    mesh.turned(&profile, 1.0, 1.1, 2.0, Part::Body);
    let band = within(rng, 0.06, 0.2);
    mesh.turned(
        &[
            (crown * 1.03, 0.0),
            (crown * 1.03 * (1.0 - (1.0 - taper) * band / height), band),
            (crown * 0.9, band),
        ],
        1.0,
        1.1,
        2.0,
        Part::Inside,
    );
    let brim = within(rng, 0.3, 0.55);
    let droop = within(rng, -0.18, 0.12);
    if rng.random_bool(0.35) {
        // A cap's peak, to the front only.
        let peak = |t: f32, y: f32| {
            ring([0.0, y, crown * 0.55 + brim * 0.5 * t], crown * 0.9, crown * 0.5 + brim * 0.75 * t, 2.4)
        };
        mesh.loft(
            &[peak(0.1, 0.04), peak(1.0, droop - 0.04), peak(1.0, droop - 0.04), peak(0.1, -0.02)],
            Part::Accent,
        );
    } else {
        let edge = crown + brim;
        mesh.turned(
            &[
                (crown * 0.98, 0.01),
                (crown + brim * 0.5, 0.02 + droop * 0.3),
                (edge, droop),
                (edge, droop),
                (edge, droop - 0.03),
                (crown, -0.04),
            ],
            1.0,
            1.1,
            2.0,
            Part::Accent,
        );
    }
}

pub(super) fn shoe(mesh: &mut Mesh, rng: &mut ChaCha8Rng) {
    let toe = within(rng, 0.16, 0.3);
    let collar = within(rng, 0.34, 0.75);
    let width = within(rng, 0.26, 0.36);
    let opening = within(rng, -0.35, -0.1);
    let pointed = within(rng, 0.55, 1.0);
    let heel = if rng.random_bool(0.3) { within(rng, 0.12, 0.35) } else { 0.0 };
    let base = |x: f32| heel * (0.35 - x).clamp(0.0, 1.0);
    let height = |x: f32| {
        if x < opening {
            collar
        } else {
            let t = ((x - opening) / (0.72 - opening)).clamp(0.0, 1.0);
            collar + (toe - collar) * t * (2.0 - t)
        }
    };
    let plan = |x: f32| {
        let front = ((x - 0.3) / 0.72).clamp(0.0, 1.0);
        let back = ((-x - 0.6) / 0.42).clamp(0.0, 1.0);
        width
            * (1.0 - 0.25 * ((0.1 - x).abs() * 1.2).min(1.0))
            * (1.0 - libm::powf(front, 1.0 + 2.0 * pointed)).max(0.05).sqrt()
            * (1.0 - back * back).max(0.1).sqrt()
    };
    // Rings stand across the shoe; the middle of the texture is on the side that faces the viewer.
    let across = |x: f32, low: f32, high: f32, half: f32, square: f32| -> Vec<Vec3> {
        let bend = |v: f32| if v < 0.0 { -libm::powf(-v, square) } else { libm::powf(v, square) };
        let point = |i: usize| {
            let angle = (i as f32 / AROUND as f32 * 2.0 - 1.0) * std::f32::consts::PI;
            [
                x,
                (low + high) / 2.0 - (high - low) / 2.0 * bend(libm::sinf(angle)),
                half * bend(libm::cosf(angle)),
            ]
        };
        (0..=AROUND).map(point).collect()
    };
    let xs: Vec<f32> = (0..=18).map(|i| i as f32 / 9.0 - 1.0).collect();
    let closed = |ring: &[Vec3]| {
        let n = ring.len() as f32;
        let centre: Vec3 = std::array::from_fn(|k| ring.iter().map(|p| p[k]).sum::<f32>() / n);
        vec![centre; ring.len()]
    };
    let mut skin = |rings: Vec<Vec<Vec3>>, part: Part| {
        let mut all = vec![closed(&rings[0])];
        let last = closed(&rings[rings.len() - 1]);
        all.extend(rings);
        all.push(last);
        mesh.loft(&all, part);
    };
    skin(
        xs.iter().map(|&x| across(x * 0.98, base(x), base(x) + height(x), plan(x), 0.8)).collect(),
        Part::Body,
    );
    let sole = within(rng, 0.05, 0.14);
    skin(
        xs.iter()
            .map(|&x| across(x, base(x) - sole, base(x) + sole * 0.3, plan(x) * 1.06 + 0.01, 0.3))
            .collect(),
        Part::Accent,
    );
    if heel > 0.1 {
        mesh.block(
            [-0.72, (heel - sole) / 2.0 - sole / 2.0, 0.0],
            [0.2, heel / 2.0 + sole / 2.0, width * 0.7],
            Part::Accent,
        );
    }
    let from = -0.86;
    let top = |x: f32| base(x) + height(x) - 0.02;
    let rings = (0..=6).map(|i| from + (opening + 0.06 - from) * i as f32 / 6.0);
    let rings: Vec<_> = rings.map(|x| across(x, top(x) - 0.1, top(x) + 0.03, plan(x) * 0.66, 0.6)).collect();
    let mut opening_mesh = vec![closed(&rings[0])];
    let last = closed(&rings[rings.len() - 1]);
    opening_mesh.extend(rings);
    opening_mesh.push(last);
    mesh.loft(&opening_mesh, Part::Inside);
    let laces = rng.random_range(0..5);
    for k in 0..laces {
        let x = opening + 0.14 + k as f32 * 0.1;
        let (y, z) = (top(x) + 0.01, plan(x) * 0.4);
        mesh.tube(
            &[([x, y - 0.04, -z], 0.022), ([x + 0.02, y + 0.03, 0.0], 0.022), ([x, y - 0.04, z], 0.022)],
            Part::Accent,
        );
    }
}
