//! A small z-buffer rasteriser.

use super::geometry::{Mesh, Vec3, add, dot, scale, unit};
use super::texture::{Colour, Texture};

/// Colours and depths of a square picture.
pub(super) struct Canvas {
    pub(super) side: usize,
    pub(super) colours: Vec<Colour>,
    depth: Vec<f32>,
}

/// Where the viewer stands.
pub(super) struct Camera {
    /// Turn of the object about its upright axis, radians.
    pub(super) yaw: f32,
    /// How far the viewer looks down, radians.
    pub(super) pitch: f32,
    /// Tilt of the picture, radians.
    pub(super) roll: f32,
    /// Distance to the object's centre, in its radii.
    pub(super) distance: f32,
    /// Radius of the object in the picture, as a fraction of the picture's side.
    pub(super) radius: f32,
    /// Where the object's centre is in the picture, from 0 to 1.
    pub(super) centre: [f32; 2],
}

/// Where the light comes from.
pub(super) struct Light {
    /// Direction to the light, of length 1, seen from the viewer.
    pub(super) direction: Vec3,
    /// Strength of the direct light.
    pub(super) key: f32,
    /// Strength of the light from everywhere.
    pub(super) ambient: f32,
    /// Strength of highlights.
    pub(super) gloss: f32,
}

impl Camera {
    fn turn(&self, v: Vec3) -> Vec3 {
        let (s, c) = (libm::sinf(self.yaw), libm::cosf(self.yaw));
        let v = [c * v[0] + s * v[2], v[1], c * v[2] - s * v[0]];
        let (s, c) = (libm::sinf(self.pitch), libm::cosf(self.pitch));
        let v = [v[0], c * v[1] - s * v[2], s * v[1] + c * v[2]];
        let (s, c) = (libm::sinf(self.roll), libm::cosf(self.roll));
        [c * v[0] - s * v[1], s * v[0] + c * v[1], v[2]]
    }

    /// Place in the picture in pixels (y down), and 1 / depth.
    pub(super) fn project(&self, point: Vec3, side: usize) -> Vec3 {
        let v = self.turn(point);
        let near = 1.0 / (self.distance - v[2]);
        let zoom = self.radius * side as f32 * self.distance * near;
        [self.centre[0] * side as f32 + v[0] * zoom, self.centre[1] * side as f32 - v[1] * zoom, near]
    }
}

impl Canvas {
    pub(super) fn new(side: usize, background: impl Fn(f32, f32) -> Colour) -> Self {
        let place = |i: usize| (i as f32 + 0.5) / side as f32;
        let colours = (0..side * side).map(|i| background(place(i % side), place(i / side))).collect();
        Self { side, colours, depth: vec![0.0; side * side] }
    }

    /// Draws a mesh; `covers` are its parts' textures.
    pub(super) fn draw(&mut self, mesh: &Mesh, covers: &[Texture; 3], camera: &Camera, light: &Light) {
        let placed: Vec<(Vec3, Vec3)> = mesh
            .vertices
            .iter()
            .map(|v| (camera.project(v.position, self.side), camera.turn(v.normal)))
            .collect();
        let half = unit(add(light.direction, [0.0, 0.0, 1.0]));
        for (triangle, part) in &mesh.triangles {
            let corners = triangle.map(|i| placed[i as usize]);
            let uvs = triangle.map(|i| mesh.vertices[i as usize].uv);
            let cover = &covers[*part as usize];
            self.fill(corners.map(|c| c.0), |weights| {
                let blend = |values: [f32; 3]| {
                    values[0] * weights[0] + values[1] * weights[1] + values[2] * weights[2]
                };
                let normal: Vec3 = std::array::from_fn(|k| blend(corners.map(|c| c.1[k])));
                let mut normal = unit(normal);
                if normal[2] < 0.0 {
                    normal = scale(normal, -1.0);
                }
                let colour = cover.at(blend(uvs.map(|c| c[0])), blend(uvs.map(|c| c[1])));
                let key = light.key * dot(normal, light.direction).max(0.0);
                let sky = light.ambient * (0.75 + 0.25 * normal[1]);
                let glint = dot(normal, half).max(0.0);
                let glint = glint * glint;
                let glint = glint * glint;
                let glint = glint * glint;
                let glint = light.gloss * glint * glint;
                colour.map(|c| c * (key + sky) + glint)
            });
        }
    }

    /// Visits the pixels of a triangle that are nearer than what is there, with the weights of its corners.
    fn fill(&mut self, [a, b, c]: [Vec3; 3], shade: impl Fn(Vec3) -> Colour) {
        let area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]);
        if area.abs() < 1e-6 {
            return;
        }
        let last = self.side as f32 - 1.0;
        let low = |k: usize| (a[k].min(b[k]).min(c[k]) - 0.5).ceil().clamp(0.0, last) as usize;
        let high = |k: usize| (a[k].max(b[k]).max(c[k]) - 0.5).floor().clamp(0.0, last) as usize;
        for y in low(1)..=high(1) {
            for x in low(0)..=high(0) {
                let (px, py) = (x as f32 + 0.5, y as f32 + 0.5);
                let wa = ((b[0] - px) * (c[1] - py) - (b[1] - py) * (c[0] - px)) / area;
                let wb = ((c[0] - px) * (a[1] - py) - (c[1] - py) * (a[0] - px)) / area;
                let wc = 1.0 - wa - wb;
                if wa < 0.0 || wb < 0.0 || wc < 0.0 {
                    continue;
                }
                // 1 / depth is linear in the picture; what lies on the surface is linear once divided by it.
                let near = [wa * a[2], wb * b[2], wc * c[2]];
                let nearness = near[0] + near[1] + near[2];
                let at = y * self.side + x;
                if nearness > self.depth[at] {
                    self.depth[at] = nearness;
                    self.colours[at] = shade(near.map(|n| n / nearness));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::geometry::Part;
    use super::*;

    fn camera() -> Camera {
        Camera { yaw: 0.3, pitch: 0.2, roll: 0.1, distance: 5.0, radius: 0.4, centre: [0.5, 0.5] }
    }

    fn light() -> Light {
        Light { direction: [0.0, 0.0, 1.0], key: 0.0, ambient: 1.0, gloss: 0.0 }
    }

    #[test]
    fn nearer_surfaces_hide_farther_ones_in_any_order() {
        let covers = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]].map(Texture::plain);
        let draw = |first: Part, second: Part| {
            let mut mesh = Mesh::default();
            for part in [first, second] {
                let z = if part == Part::Body { 0.5 } else { -0.5 };
                mesh.block([0.0, 0.0, z], [0.4, 0.4, 0.1], part);
            }
            let mut canvas = Canvas::new(64, |_, _| [0.0; 3]);
            canvas.draw(&mesh, &covers, &Camera { yaw: 0.0, pitch: 0.0, roll: 0.0, ..camera() }, &light());
            canvas.colours
        };
        let picture = draw(Part::Body, Part::Accent);
        assert_eq!(picture, draw(Part::Accent, Part::Body));
        assert!(picture[32 * 64 + 32][0] > 0.5);
        assert_eq!(picture[32 * 64 + 32][1], 0.0);
        assert_eq!(picture[0], [0.0; 3]);
    }

    #[test]
    fn a_closed_body_has_no_holes() {
        let mut mesh = Mesh::default();
        mesh.turned(&[(0.0, -0.6), (0.6, -0.6), (0.6, 0.6), (0.0, 0.6)], 1.0, 1.0, 2.0, Part::Body);
        let covers = [[1.0; 3], [1.0; 3], [1.0; 3]].map(Texture::plain);
        let mut canvas = Canvas::new(96, |_, _| [0.0; 3]);
        canvas.draw(&mesh, &covers, &camera(), &light());
        for row in canvas.colours.chunks(96) {
            let drawn: Vec<usize> = (0..96).filter(|&x| row[x][0] > 0.0).collect();
            if let (Some(first), Some(last)) = (drawn.first(), drawn.last()) {
                assert_eq!(last - first + 1, drawn.len());
            }
        }
    }
}
