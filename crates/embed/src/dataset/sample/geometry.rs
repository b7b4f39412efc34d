//! Triangle meshes built from lofted rings.

/// A point or direction: x to the right, y up, z towards the viewer.
pub(super) type Vec3 = [f32; 3];

pub(super) fn add(a: Vec3, b: Vec3) -> Vec3 {
    [a[0] + b[0], a[1] + b[1], a[2] + b[2]]
}

pub(super) fn sub(a: Vec3, b: Vec3) -> Vec3 {
    [a[0] - b[0], a[1] - b[1], a[2] - b[2]]
}

pub(super) fn scale(a: Vec3, s: f32) -> Vec3 {
    [a[0] * s, a[1] * s, a[2] * s]
}

pub(super) fn dot(a: Vec3, b: Vec3) -> f32 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

pub(super) fn cross(a: Vec3, b: Vec3) -> Vec3 {
    [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
}

pub(super) fn length(a: Vec3) -> f32 {
    dot(a, a).sqrt()
}

pub(super) fn unit(a: Vec3) -> Vec3 {
    scale(a, 1.0 / length(a).max(1e-9))
}

/// What a triangle is made of; the position in the product's list of materials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Patterned and labelled.
    Body = 0,
    /// Handles, caps, legs.
    Accent = 1,
    /// Insides and openings.
    Inside = 2,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Vertex {
    pub(super) position: Vec3,
    pub(super) normal: Vec3,
    pub(super) uv: [f32; 2],
}

#[derive(Clone, Debug, Default)]
pub(super) struct Mesh {
    pub(super) vertices: Vec<Vertex>,
    pub(super) triangles: Vec<([u32; 3], Part)>,
}

/// Columns of a ring of the body, and of thin parts.
pub(super) const AROUND: usize = 28;
const AROUND_THIN: usize = 8;

/// A horizontal ring: an ellipse with half axes `a` and `b` for exponent 2, a rectangle with round corners for larger
/// ones. It starts at the back, so that the middle of the texture faces the viewer.
pub(super) fn ring(centre: Vec3, a: f32, b: f32, exponent: f32) -> Vec<Vec3> {
    let bend = |v: f32| if v < 0.0 { -libm::powf(-v, 2.0 / exponent) } else { libm::powf(v, 2.0 / exponent) };
    let point = |i: usize| {
        let angle = (i as f32 / AROUND as f32 * 2.0 - 1.0) * std::f32::consts::PI;
        add(centre, [a * bend(libm::sinf(angle)), 0.0, b * bend(libm::cosf(angle))])
    };
    (0..=AROUND).map(point).collect()
}

impl Mesh {
    /// A skin over rings with equally many points, first to last. The same ring twice in a row makes an edge sharp.
    pub(super) fn loft(&mut self, rings: &[Vec<Vec3>], part: Part) {
        let columns = rings.first().map_or(0, Vec::len);
        if columns < 3 || rings.len() < 2 {
            return;
        }
        let start = self.vertices.len();
        let (us, vs) = (around(rings), along(rings));
        for (ring, &v) in rings.iter().zip(&vs) {
            for (&position, &u) in ring.iter().zip(&us) {
                self.vertices.push(Vertex { position, normal: [0.0; 3], uv: [u, v] });
            }
        }
        for row in 0..rings.len() - 1 {
            for column in 0..columns - 1 {
                let a = (start + row * columns + column) as u32;
                let (b, c, d) = (a + 1, a + columns as u32, a + columns as u32 + 1);
                for triangle in [[a, b, d], [a, d, c]] {
                    self.triangles.push((triangle, part));
                    let [p, q, r] = triangle.map(|i| self.vertices[i as usize].position);
                    let normal = cross(sub(q, p), sub(r, p));
                    for i in triangle {
                        let vertex = &mut self.vertices[i as usize];
                        vertex.normal = add(vertex.normal, normal);
                    }
                }
            }
        }
        // The first and the last column are one seam.
        for row in 0..rings.len() {
            let (first, last) = (start + row * columns, start + (row + 1) * columns - 1);
            let normal = add(self.vertices[first].normal, self.vertices[last].normal);
            self.vertices[first].normal = normal;
            self.vertices[last].normal = normal;
        }
        for vertex in &mut self.vertices[start..] {
            vertex.normal = unit(vertex.normal);
        }
    }

    /// A body with horizontal rings: `(radius, height)` from bottom to top; `a` and `b` scale the radius to both sides.
    pub(super) fn turned(&mut self, profile: &[(f32, f32)], a: f32, b: f32, exponent: f32, part: Part) {
        let rings: Vec<_> =
            profile.iter().map(|&(r, y)| ring([0.0, y, 0.0], a * r, b * r, exponent)).collect();
        self.loft(&rings, part);
    }

    /// A box with slightly round edges.
    pub(super) fn block(&mut self, centre: Vec3, half: Vec3, part: Part) {
        let bevel = 0.12 * half[0].min(half[1]).min(half[2]);
        let at = |shrink: f32, y: f32| {
            ring(add(centre, [0.0, y, 0.0]), (half[0] - shrink).max(0.0), (half[2] - shrink).max(0.0), 14.0)
        };
        let (h, flat) = (half[1], half[0].max(half[2]));
        let rings = [
            at(flat, -h),
            at(bevel, -h),
            at(bevel, -h),
            at(0.0, bevel - h),
            at(0.0, h - bevel),
            at(bevel, h),
            at(bevel, h),
            at(flat, h),
        ];
        self.loft(&rings, part);
    }

    /// A round bar along a path, `radius` thick at each point, closed at both ends.
    pub(super) fn tube(&mut self, path: &[(Vec3, f32)], part: Part) {
        if path.len() < 2 {
            return;
        }
        let mut rings = Vec::with_capacity(path.len() + 2);
        let direction = |i: usize| {
            let (from, to) = (i.saturating_sub(1), (i + 1).min(path.len() - 1));
            unit(sub(path[to].0, path[from].0))
        };
        let first = direction(0);
        let mut side =
            unit(cross(first, if first[1].abs() < 0.9 { [0.0, 1.0, 0.0] } else { [1.0, 0.0, 0.0] }));
        for (i, &(centre, radius)) in path.iter().enumerate() {
            let forward = direction(i);
            side = unit(sub(side, scale(forward, dot(side, forward))));
            let other = cross(forward, side);
            let point = |j: usize| {
                let angle = j as f32 / AROUND_THIN as f32 * 2.0 * std::f32::consts::PI;
                let offset = add(scale(side, libm::cosf(angle)), scale(other, libm::sinf(angle)));
                add(centre, scale(offset, radius))
            };
            rings.push((0..=AROUND_THIN).map(point).collect::<Vec<_>>());
        }
        let end = |ring: &Vec<Vec3>, centre: Vec3| vec![centre; ring.len()];
        rings.insert(0, end(&rings[0], path[0].0));
        rings.push(end(&rings[0], path[path.len() - 1].0));
        self.loft(&rings, part);
    }

    /// Turns the vertices from `start` on about the x axis through `pivot`.
    pub(super) fn tilt(&mut self, start: usize, angle: f32, pivot: Vec3) {
        let turn = |v: Vec3| {
            let (s, c) = (libm::sinf(angle), libm::cosf(angle));
            [v[0], c * v[1] - s * v[2], s * v[1] + c * v[2]]
        };
        for vertex in &mut self.vertices[start..] {
            vertex.position = add(turn(sub(vertex.position, pivot)), pivot);
            vertex.normal = turn(vertex.normal);
        }
    }

    /// Moves and scales everything into the sphere of radius 1 about the origin.
    pub(super) fn normalise(&mut self) {
        let mut low = [f32::INFINITY; 3];
        let mut high = [f32::NEG_INFINITY; 3];
        for vertex in &self.vertices {
            for axis in 0..3 {
                low[axis] = low[axis].min(vertex.position[axis]);
                high[axis] = high[axis].max(vertex.position[axis]);
            }
        }
        let centre = scale(add(low, high), 0.5);
        let radius = self.vertices.iter().map(|v| length(sub(v.position, centre))).fold(1e-9, f32::max);
        for vertex in &mut self.vertices {
            vertex.position = scale(sub(vertex.position, centre), 1.0 / radius);
        }
    }
}

/// Texture coordinate of each column: the way along the widest ring.
fn around(rings: &[Vec<Vec3>]) -> Vec<f32> {
    let way = |ring: &Vec<Vec3>| {
        let mut sum = 0.0;
        let mut ways = vec![0.0];
        ways.extend(ring.windows(2).map(|p| {
            sum += length(sub(p[1], p[0]));
            sum
        }));
        ways
    };
    let widest =
        rings.iter().map(way).max_by(|a, b| a[a.len() - 1].total_cmp(&b[b.len() - 1])).unwrap_or_default();
    let total = widest.last().copied().unwrap_or(1.0).max(1e-9);
    widest.into_iter().map(|w| w / total).collect()
}

/// Texture coordinate of each ring: the way from the first, on average of all columns.
fn along(rings: &[Vec<Vec3>]) -> Vec<f32> {
    let mut sum = 0.0;
    let mut ways = vec![0.0];
    for pair in rings.windows(2) {
        sum += pair[0].iter().zip(&pair[1]).map(|(a, b)| length(sub(*b, *a))).sum::<f32>();
        ways.push(sum);
    }
    ways.into_iter().map(|w| w / sum.max(1e-9)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normals_point_outward_and_have_length_one() {
        let mut mesh = Mesh::default();
        mesh.turned(
            &[(0.0, -1.0), (1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (1.0, 1.0), (0.0, 1.0)],
            1.0,
            1.0,
            2.0,
            Part::Body,
        );
        for vertex in &mesh.vertices {
            assert!((length(vertex.normal) - 1.0).abs() < 1e-3);
            assert!(dot(vertex.normal, vertex.position) > 0.0, "{vertex:?}");
        }
        let front =
            mesh.vertices.iter().find(|v| (v.uv[0] - 0.5).abs() < 1e-3 && v.position[2] > 0.9).unwrap();
        assert!(front.position[0].abs() < 1e-3);
    }

    #[test]
    fn normalised_meshes_fill_the_unit_sphere() {
        let mut mesh = Mesh::default();
        mesh.block([3.0, 1.0, 0.0], [2.0, 0.5, 1.0], Part::Accent);
        mesh.tube(&[([0.0; 3], 0.1), ([0.0, 4.0, 0.0], 0.2)], Part::Inside);
        mesh.normalise();
        let far = mesh.vertices.iter().map(|v| length(v.position)).fold(0.0, f32::max);
        assert!((far - 1.0).abs() < 1e-4);
    }
}
