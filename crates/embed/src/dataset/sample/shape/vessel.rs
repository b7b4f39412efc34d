//! Vessels for drinks and flowers.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::super::geometry::{Mesh, Part};
use super::{arc, within};

pub(super) fn mug(mesh: &mut Mesh, rng: &mut ChaCha8Rng) {
    let (bottom, top) = (within(rng, 0.36, 0.62), within(rng, 0.5, 0.66));
    let bulge = within(rng, 0.92, 1.12);
    let height = within(rng, 0.4, 0.75);
    let middle = (bottom + top) / 2.0 * bulge;
    let wall = 0.05;
    let profile = [
        (0.0, -height),
        (bottom * 0.92, -height),
        (bottom * 0.92, -height),
        (bottom, -height + 0.05),
        (middle, 0.0),
        (top, height),
        (top, height),
        (top - wall, height),
    ];
    mesh.turned(&profile, 1.0, 1.0, 2.0, Part::Body);
    let inside =
        [(top - wall, height), (middle - wall, 0.0), (bottom - wall, -height + 0.1), (0.0, -height + 0.1)];
    mesh.turned(&inside, 1.0, 1.0, 2.0, Part::Inside);
    let reach = within(rng, 0.24, 0.42);
    let tall = height * within(rng, 0.45, 0.75);
    let thick = within(rng, 0.05, 0.1);
    let centre = [middle * 0.93, within(rng, -0.1, 0.12), 0.0];
    let mut handle = arc(centre, [reach, 0.0, 0.0], [0.0, tall, 0.0], -0.5, 0.5, thick);
    // A corner instead of a curve.
    if rng.random_bool(0.35) {
        handle = [
            (0.0, tall),
            (reach, tall * 0.95),
            (reach, tall * 0.5),
            (reach * 0.8, -tall * 0.5),
            (0.0, -tall),
        ]
        .map(|(x, y)| ([centre[0] + x, centre[1] + y, 0.0], thick))
        .to_vec();
    }
    let part = if rng.random_bool(0.5) { Part::Accent } else { Part::Inside };
    mesh.tube(&handle, part);
}

pub(super) fn teapot(mesh: &mut Mesh, rng: &mut ChaCha8Rng) {
    let (wide, tall) = (within(rng, 0.5, 0.66), within(rng, 0.36, 0.6));
    let sharp = within(rng, 1.6, 3.2);
    let at = |t: f32| {
        let r = libm::powf(1.0 - libm::powf(t.abs(), sharp), 1.0 / sharp);
        (wide * r.max(0.32), tall * t)
    };
    let mut profile = vec![(0.0, -tall)];
    profile.extend((0..=10).map(|i| at(i as f32 / 5.0 - 1.0)));
    mesh.turned(&profile, 1.0, 1.0, 2.0, Part::Body);
    let lid = wide * within(rng, 0.36, 0.5);
    let knob = within(rng, 0.06, 0.12);
    let top = tall + within(rng, 0.06, 0.16);
    mesh.turned(
        &[(lid, tall * 0.97), (lid, tall * 0.97), (lid * 0.8, top), (0.03, top + 0.03)],
        1.0,
        1.0,
        2.0,
        Part::Accent,
    );
    mesh.turned(
        &[(0.03, top), (knob, top + knob), (knob * 0.7, top + 1.7 * knob), (0.0, top + 2.0 * knob)],
        1.0,
        1.0,
        2.0,
        Part::Accent,
    );
    let (reach, rise) = (wide + within(rng, 0.25, 0.5), tall * within(rng, 0.5, 1.1));
    let spout = [
        ([wide * 0.8, -tall * 0.35, 0.0], 0.15),
        ([(wide + reach) * 0.53, -tall * 0.1, 0.0], 0.11),
        ([reach, rise, 0.0], 0.06),
    ];
    mesh.tube(&spout, Part::Body);
    let thick = within(rng, 0.04, 0.08);
    let handle = if rng.random_bool(0.6) {
        arc(
            [-wide * 0.9, 0.02, 0.0],
            [within(rng, 0.3, 0.45), 0.0, 0.0],
            [0.0, tall * 0.75, 0.0],
            0.5,
            1.5,
            thick,
        )
    } else {
        arc(
            [0.0, tall * 0.5, 0.0],
            [wide * 0.9, 0.0, 0.0],
            [0.0, within(rng, 0.6, 0.9), 0.0],
            0.0,
            1.0,
            thick,
        )
    };
    mesh.tube(&handle, Part::Accent);
}

pub(super) fn vase(mesh: &mut Mesh, rng: &mut ChaCha8Rng) {
    let foot = within(rng, 0.18, 0.42);
    let belly = within(rng, 0.35, 0.68);
    let belly_at = within(rng, -0.55, 0.45);
    let neck = within(rng, 0.12, 0.34);
    let lip = neck * within(rng, 1.0, 1.9);
    let neck_at = belly_at + (1.0 - belly_at) * within(rng, 0.55, 0.8);
    let knots = [(foot, -1.0), (belly, belly_at), (neck, neck_at), (lip, 1.0)];
    let smooth = |y: f32| {
        let i = knots.windows(2).position(|k| y <= k[1].1).unwrap_or(2);
        let ((r0, y0), (r1, y1)) = (knots[i], knots[i + 1]);
        let t = ((y - y0) / (y1 - y0)).clamp(0.0, 1.0);
        r0 + (r1 - r0) * t * t * (3.0 - 2.0 * t)
    };
    let mut profile = vec![(0.0, -1.0), (foot, -1.0)];
    profile.extend((0..=16).map(|i| i as f32 / 8.0 - 1.0).map(|y| (smooth(y), y)));
    let exponent = if rng.random_bool(0.2) { 5.0 } else { 2.0 };
    mesh.turned(&profile, 1.0, 1.0, exponent, Part::Body);
    mesh.turned(
        &[(lip, 1.0), (lip - 0.04, 1.0), (neck - 0.04, neck_at), (0.0, neck_at - 0.2)],
        1.0,
        1.0,
        exponent,
        Part::Inside,
    );
    if rng.random_bool(0.3) {
        for side in [-1.0, 1.0] {
            let x = side * (neck + belly) / 2.0;
            let tall = (neck_at - belly_at) * 0.5;
            let middle = (neck_at + belly_at) / 2.0;
            mesh.tube(
                &arc([x * 0.9, middle, 0.0], [side * 0.25, 0.0, 0.0], [0.0, tall, 0.0], -0.5, 0.5, 0.045),
                Part::Accent,
            );
        }
    }
}
