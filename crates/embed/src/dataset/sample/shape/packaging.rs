//! Packaging.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::super::geometry::{Mesh, Part, ring};
use super::within;

pub(super) fn bottle(mesh: &mut Mesh, rng: &mut ChaCha8Rng) {
    let width = within(rng, 0.26, 0.44);
    let shoulder = within(rng, 0.0, 0.55);
    let neck = width * within(rng, 0.28, 0.62);
    let neck_start = shoulder + within(rng, 0.1, 0.4);
    let waist = within(rng, 0.82, 1.0);
    let exponent = if rng.random_bool(0.3) { within(rng, 5.0, 9.0) } else { 2.0 };
    let depth = if rng.random_bool(0.3) { within(rng, 0.5, 0.8) } else { 1.0 };
    let top = neck_start + within(rng, 0.1, 0.3);
    let middle = (shoulder - 1.0) / 2.0;
    let half = (width + neck) / 2.0;
    let profile = [
        (0.0, -1.0),
        (width * 0.94, -1.0),
        (width * 0.94, -1.0),
        (width, -0.94),
        (width * waist, middle),
        (width, shoulder),
        (half * 1.04, shoulder + (neck_start - shoulder) * 0.55),
        (neck, neck_start),
        (neck, top),
    ];
    mesh.turned(&profile, 1.0, depth, exponent, Part::Body);
    let (cap, height) = (neck * within(rng, 1.05, 1.4), within(rng, 0.08, 0.26));
    let cap_top = cap * within(rng, 0.7, 1.0);
    let round = |r: f32, y: f32| (r, top - 0.02 + y);
    let profile = [
        round(0.0, 0.0),
        round(cap, 0.0),
        round(cap, 0.0),
        round(cap_top, height),
        round(cap_top, height),
        round(0.0, height + 0.01),
    ];
    mesh.turned(&profile, 1.0, 1.0, 2.0, Part::Accent);
}

pub(super) fn carton(mesh: &mut Mesh, rng: &mut ChaCha8Rng) {
    let (a, b) = (within(rng, 0.3, 0.7), within(rng, 0.16, 0.5));
    let height = within(rng, 0.45, 1.0);
    match rng.random_range(0..3) {
        0 => mesh.block([0.0; 3], [a, height, b], Part::Body),
        // A drink's carton with a gable.
        1 => {
            let b = b.max(a * 0.7);
            let at = |y: f32, squeeze: f32| ring([0.0, y, 0.0], a, b * squeeze, 14.0);
            let closed = |y: f32| ring([0.0, y, 0.0], 0.0, 0.0, 14.0);
            let gable = height + within(rng, 0.2, 0.4);
            mesh.loft(
                &[
                    closed(-height),
                    at(-height, 1.0),
                    at(-height, 1.0),
                    at(height, 1.0),
                    at(height, 1.0),
                    at(gable, 0.06),
                ],
                Part::Body,
            );
            mesh.block([0.0, gable + 0.08, 0.0], [a, 0.09, 0.03], Part::Accent);
        }
        // A box with a lid.
        _ => {
            let lid = within(rng, 0.08, 0.3);
            mesh.block([0.0; 3], [a, height, b], Part::Body);
            mesh.block([0.0, height - lid, 0.0], [a + 0.03, lid, b + 0.03], Part::Accent);
        }
    }
}

pub(super) fn jar(mesh: &mut Mesh, rng: &mut ChaCha8Rng) {
    let width = within(rng, 0.42, 0.75);
    let belly = within(rng, 0.95, 1.2);
    let neck = within(rng, 0.75, 0.98);
    let height = within(rng, 0.45, 0.85);
    let exponent = if rng.random_bool(0.3) { within(rng, 4.0, 7.0) } else { 2.0 };
    let profile = [
        (0.0, -height),
        (width * 0.92, -height),
        (width * 0.92, -height),
        (width, -height + 0.08),
        (width * belly, 0.0),
        (width, height - 0.1),
        (width * neck, height),
    ];
    mesh.turned(&profile, 1.0, 1.0, exponent, Part::Body);
    let lid = width * neck * within(rng, 1.0, 1.12);
    let top = height + within(rng, 0.08, 0.3);
    let dome = within(rng, 0.0, 0.2);
    let profile = [
        (0.0, height - 0.04),
        (lid, height - 0.04),
        (lid, height - 0.04),
        (lid, top),
        (lid, top),
        (lid * 0.6, top + dome * 0.8),
        (0.0, top + dome),
    ];
    mesh.turned(&profile, 1.0, 1.0, 2.0, Part::Accent);
    if rng.random_bool(0.3) {
        mesh.turned(
            &[
                (0.0, top + dome),
                (0.1, top + dome + 0.06),
                (0.08, top + dome + 0.14),
                (0.0, top + dome + 0.17),
            ],
            1.0,
            1.0,
            2.0,
            Part::Accent,
        );
    }
}
