//! Furniture.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::super::geometry::{Mesh, Part};
use super::within;

pub(super) fn chair(mesh: &mut Mesh, rng: &mut ChaCha8Rng) {
    let (half, deep) = (within(rng, 0.34, 0.5), within(rng, 0.34, 0.46));
    let seat = within(rng, -0.3, 0.05);
    let thick = within(rng, 0.04, 0.12);
    if rng.random_bool(0.2) {
        mesh.turned(
            &[
                (0.0, seat - thick),
                (half, seat - thick),
                (half, seat - thick),
                (half, seat + thick),
                (half, seat + thick),
                (0.0, seat + thick),
            ],
            1.0,
            1.0,
            2.0,
            Part::Body,
        );
    } else {
        mesh.block([0.0, seat, 0.0], [half, thick, deep], Part::Body);
    }
    let leg = within(rng, 0.03, 0.06);
    let splay = within(rng, 0.0, 0.16);
    if rng.random_bool(0.25) {
        // One column on a disc.
        mesh.tube(&[([0.0, -1.0, 0.0], leg * 1.3), ([0.0, seat, 0.0], leg * 1.3)], Part::Accent);
        mesh.turned(&[(half * 0.9, -1.0), (half * 0.9, -0.95), (0.0, -0.93)], 1.0, 1.0, 2.0, Part::Accent);
    } else {
        for (x, z) in [(-1.0, -1.0), (1.0, -1.0), (-1.0, 1.0), (1.0, 1.0)] {
            let top = [x * (half - 0.06), seat, z * (deep - 0.06)];
            let foot = [x * (half - 0.06 + splay), -1.0, z * (deep - 0.06 + splay)];
            mesh.tube(&[(foot, leg * 0.8), (top, leg)], Part::Accent);
        }
    }
    let back = within(rng, 0.45, 1.0);
    let start = mesh.vertices.len();
    match rng.random_range(0..4) {
        0 => mesh.block([0.0, seat + back / 2.0, -deep + 0.04], [half, back / 2.0, 0.05], Part::Body),
        // Slats between posts.
        1 => {
            for x in [-1.0, 1.0] {
                let x = x * (half - 0.04);
                mesh.tube(&[([x, seat, -deep], 0.04), ([x, seat + back, -deep], 0.04)], Part::Accent);
            }
            let slats = rng.random_range(2..5);
            for k in 0..slats {
                let y = seat + back * (k as f32 + 0.8) / slats as f32;
                mesh.block([0.0, y, -deep], [half, 0.05, 0.03], Part::Body);
            }
        }
        // Upright bars under a rail.
        2 => {
            for k in -2..=2 {
                let x = k as f32 * (half - 0.05) / 2.0;
                mesh.tube(&[([x, seat, -deep], 0.028), ([x, seat + back, -deep], 0.028)], Part::Accent);
            }
            mesh.block([0.0, seat + back, -deep], [half, 0.07, 0.04], Part::Body);
        }
        _ => {}
    }
    mesh.tilt(start, -within(rng, 0.0, 0.25), [0.0, seat, -deep]);
    if rng.random_bool(0.3) {
        for x in [-1.0, 1.0] {
            let x = x * (half + 0.02);
            let y = seat + 0.32;
            mesh.tube(
                &[([x, seat, deep * 0.6], 0.035), ([x, y, deep * 0.6], 0.035), ([x, y, -deep], 0.035)],
                Part::Accent,
            );
        }
    }
}

pub(super) fn lamp(mesh: &mut Mesh, rng: &mut ChaCha8Rng) {
    let low = within(rng, 0.35, 0.62);
    let high = low * within(rng, 0.35, 1.0);
    let shade = within(rng, -0.05, 0.35);
    let top = shade + within(rng, 0.4, 0.75);
    let exponent = if rng.random_bool(0.25) { 7.0 } else { 2.0 };
    mesh.turned(
        &[(low, shade), (high, top), (high, top), (high - 0.03, top)],
        1.0,
        1.0,
        exponent,
        Part::Body,
    );
    mesh.turned(&[(high - 0.03, top), (low - 0.03, shade)], 1.0, 1.0, exponent, Part::Inside);
    let base = within(rng, 0.2, 0.42);
    match rng.random_range(0..3) {
        0 => {
            mesh.tube(&[([0.0, -0.95, 0.0], 0.035), ([0.0, top - 0.1, 0.0], 0.035)], Part::Accent);
            mesh.turned(
                &[(0.0, -1.0), (base, -1.0), (base, -1.0), (base, -0.93), (base, -0.93), (0.0, -0.91)],
                1.0,
                1.0,
                2.0,
                Part::Accent,
            );
        }
        // A bulbous foot.
        1 => {
            let bulb = [
                (0.0, -1.0),
                (base * 0.7, -1.0),
                (base, -0.75),
                (base * 0.85, -0.5),
                (0.1, shade - 0.15),
                (0.05, top - 0.1),
            ];
            mesh.turned(&bulb, 1.0, 1.0, 2.0, Part::Accent);
        }
        // Three legs.
        _ => {
            for k in 0..3 {
                let angle = (k as f32 / 3.0 + 0.08) * 2.0 * std::f32::consts::PI;
                let foot = [libm::sinf(angle) * base * 1.4, -1.0, libm::cosf(angle) * base * 1.4];
                mesh.tube(&[(foot, 0.035), ([0.0, shade + 0.1, 0.0], 0.035)], Part::Accent);
            }
        }
    }
}

pub(super) fn sofa(mesh: &mut Mesh, rng: &mut ChaCha8Rng) {
    let half = within(rng, 0.6, 1.0);
    let deep = within(rng, 0.34, 0.46);
    let seat = within(rng, 0.14, 0.24);
    let back = within(rng, 0.3, 0.55);
    let arm = within(rng, 0.07, 0.18);
    let arm_height = within(rng, 0.1, 0.4);
    let cushions = rng.random_range(1..4);
    mesh.block([0.0, -0.1, 0.0], [half, 0.12, deep], Part::Body);
    for k in 0..cushions {
        let wide = (half - arm) / cushions as f32;
        let x = -half + arm + wide * (2.0 * k as f32 + 1.0);
        mesh.block([x, 0.02 + seat / 2.0, 0.05], [wide * 0.97, seat / 2.0, deep * 0.92], Part::Body);
    }
    let start = mesh.vertices.len();
    mesh.block([0.0, back, -deep], [half, back, 0.11], Part::Body);
    mesh.tilt(start, -within(rng, 0.0, 0.3), [0.0, 0.0, -deep]);
    let round = rng.random_bool(0.5);
    for side in [-1.0, 1.0] {
        let x = side * (half - arm * 0.2);
        if round {
            mesh.tube(&[([x, arm_height, -deep], arm), ([x, arm_height, deep], arm)], Part::Body);
        }
        mesh.block([x, arm_height / 2.0, 0.0], [arm, arm_height / 2.0 + 0.1, deep], Part::Body);
    }
    let (leg, long) = (within(rng, 0.03, 0.06), within(rng, 0.06, 0.26));
    for (x, z) in [(-0.9, -0.8), (0.9, -0.8), (-0.9, 0.8), (0.9, 0.8)] {
        mesh.tube(
            &[([x * half, -0.2 - long, z * deep], leg * 0.7), ([x * half, -0.15, z * deep], leg)],
            Part::Accent,
        );
    }
    for side in [-1.0, 1.0] {
        if rng.random_bool(0.45) {
            let start = mesh.vertices.len();
            let x = side * (half - arm - 0.2);
            mesh.block([x, seat + 0.22, -deep * 0.45], [0.17, 0.17, 0.06], Part::Inside);
            mesh.tilt(start, -0.35, [x, seat, -deep * 0.4]);
        }
    }
}
