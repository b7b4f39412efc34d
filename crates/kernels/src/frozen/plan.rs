//! A network laid out for one batch and image size: layouts, algorithms, and buffers that later layers use again.

use candle_core::Result;

use super::builder::{Kind, Node};
use super::depthwise::Depthwise;
use super::direct::{Direct, direct_cycles};
use super::integer::Integer;
use super::layer::{Conv, blocks};
use super::map::Map;
use super::memory::Lines;
use super::precision::Precision;
use super::shared::Shared;
use super::team::Team;
use super::winograd::Winograd;
use super::{input, pool};
use crate::KernelError;
use crate::conv_shape::ConvShape;
use crate::max_pool::PoolShape;
use crate::product::{View, product};
use crate::simd::{Isa, LANES};

/// Planar input is kept for images of few channels, where blocks of sixteen would be mostly padding.
const PLANAR_CHANNELS: usize = 8;

/// How one convolution is computed.
enum Algorithm {
    Direct(Direct),
    Integer(Integer),
    Winograd(Winograd),
    Depthwise(Depthwise),
}

/// What a node needs at run time.
enum Step {
    Input,
    Conv(Box<Algorithm>),
    MaxPool(PoolShape),
    Vector,
}

/// Where a node's result lives.
#[derive(Clone, Copy)]
enum Home {
    Map { map: Map, slot: usize },
    Vector { length: usize },
}

/// See the module's description.
pub(super) struct Plan {
    isa: Isa,
    n: usize,
    steps: Vec<Step>,
    homes: Vec<Home>,
    /// Lines of each map buffer.
    slots: Vec<usize>,
    /// Lines of scratch memory.
    scratch: usize,
}

/// The memory of one run. Borders of maps are zero from the start and never written.
pub(super) struct Arena {
    slots: Vec<Lines>,
    scratch: Lines,
    vectors: Vec<Vec<f32>>,
}

impl Plan {
    pub(super) fn new(
        isa: Isa,
        precision: Precision,
        nodes: &[Node],
        kinds: &[Kind],
        (n, h, w): (usize, usize, usize),
    ) -> Result<Self> {
        let mut maps = sizes(nodes, kinds, h, w)?;
        let fast: Vec<bool> = nodes
            .iter()
            .enumerate()
            .map(|(i, node)| prefers_winograd(node, precision, &maps, i, n))
            .collect();
        maps[0] = maps[0].map(|m| Map { planar: reads_planar(nodes, m.channels), ..m });
        for (node, &fast) in nodes.iter().zip(&fast) {
            if let (Node::Conv { input, layer, .. }, false) = (node, fast) {
                maps[*input] = maps[*input].map(|m| Map { border: m.border.max(layer.cfg.padding), ..m });
            }
        }
        for (map, node) in maps.iter().zip(nodes) {
            if map.is_some_and(|m| m.image().and_then(|i| i.checked_mul(n)).is_none()) {
                let what = if matches!(node, Node::Input) { "the input" } else { "a layer's result" };
                return Err(KernelError::TooLarge { what, n, h, w }.into());
            }
        }
        let (homes, slots) = place(nodes, kinds, &maps, n);
        let map = |index: usize| maps[index].ok_or(KernelError::WrongKind { needed: "a map, not a vector" });
        let mut steps = Vec::new();
        let mut scratch = 0;
        for (index, node) in nodes.iter().enumerate() {
            steps.push(match node {
                Node::Input => Step::Input,
                Node::Conv { input, residual, layer } => {
                    let (input, output) = (map(*input)?, map(index)?);
                    let residual = residual.map(map).transpose()?;
                    Step::Conv(Box::new(if layer.is_depthwise() {
                        Algorithm::Depthwise(Depthwise::new(isa, layer, n, input, output, residual))
                    } else if fast[index] {
                        let winograd = Winograd::new((isa, precision), layer, n, input, output, residual);
                        let (length, count) = winograd.scratch(layer);
                        scratch = scratch.max(length * count / LANES);
                        Algorithm::Winograd(winograd)
                    } else if precision == Precision::Int16 && Integer::suits(layer, input) {
                        let integer = Integer::new(isa, layer, n, input, output, residual);
                        scratch = scratch.max(integer.scratch().div_ceil(LANES));
                        Algorithm::Integer(integer)
                    } else {
                        Algorithm::Direct(Direct::new(isa, layer, n, input, output, residual))
                    }))
                }
                Node::MaxPool { input, cfg } => {
                    let input = map(*input)?;
                    Step::MaxPool(PoolShape::new(input.height, input.width, *cfg)?)
                }
                Node::GlobalAvgPool { .. } | Node::Linear { .. } => Step::Vector,
            });
        }
        Ok(Self { isa, n, steps, homes, slots, scratch })
    }

    pub(super) fn arena(&self) -> Arena {
        let vector = |home: &Home| match home {
            Home::Vector { length } => vec![0.0; self.n * length],
            Home::Map { .. } => Vec::new(),
        };
        Arena {
            slots: self.slots.iter().map(|&s| Lines::zeroed(s)).collect(),
            scratch: Lines::zeroed(self.scratch),
            vectors: self.homes.iter().map(vector).collect(),
        }
    }

    /// Computes one node; `pixels` is the whole input, NCHW.
    pub(super) fn step(
        &self,
        team: &Team<'_, '_>,
        index: usize,
        node: &Node,
        pixels: &[f32],
        arena: &mut Arena,
    ) {
        match (node, &self.steps[index]) {
            (Node::Input, _) => {
                let (y, map) = self.buffer(arena, index);
                // SAFETY: the slot holds `n` images of the map, and nobody else has the arena.
                unsafe { input::load(team, pixels, self.n, y, map) };
            }
            (Node::Conv { input, residual, layer }, Step::Conv(algorithm)) => {
                let (x, _) = self.buffer(arena, *input);
                let residual = residual.map_or(Shared::null(), |r| self.buffer(arena, r).0);
                let (y, _) = self.buffer(arena, index);
                let scratch = Shared::new(arena.scratch.as_mut_ptr().cast());
                // SAFETY: the slots were sized for `n` images of the maps that the algorithm was made for; `place`
                // gives the result a slot other than the input's; nobody else has the arena.
                unsafe {
                    match &**algorithm {
                        Algorithm::Direct(direct) => direct.run(team, layer, x, y, residual),
                        Algorithm::Integer(integer) => integer.run(team, layer, (x, y, residual), scratch),
                        Algorithm::Winograd(winograd) => winograd.run(team, layer, (x, y, residual), scratch),
                        Algorithm::Depthwise(depthwise) => depthwise.run(team, layer, x, y, residual),
                    }
                }
            }
            (Node::MaxPool { input, .. }, Step::MaxPool(shape)) => {
                let (from, to) = (self.buffer(arena, *input), self.buffer(arena, index));
                // SAFETY: as for the convolutions.
                unsafe { pool::max_pool(team, self.isa, shape, self.n, from, to) };
            }
            (Node::GlobalAvgPool { input }, _) => {
                let from = self.buffer(arena, *input);
                // SAFETY: as for the convolutions.
                unsafe { pool::global_avg_pool(team, self.isa, from, &mut arena.vectors[index]) };
            }
            (Node::Linear { input, layer }, _) => {
                let x = std::mem::take(&mut arena.vectors[*input]);
                let y = &mut arena.vectors[index];
                y.chunks_mut(layer.outputs).for_each(|row| row.copy_from_slice(&layer.bias));
                let weight = View::row_major(layer.outputs, layer.inputs).transposed();
                let (xv, yv) =
                    (View::row_major(self.n, layer.inputs), View::row_major(self.n, layer.outputs));
                product((y, yv), (&x, xv), (&layer.weight, weight), true, true);
                arena.vectors[*input] = x;
            }
            (Node::Conv { .. } | Node::MaxPool { .. }, _) => {
                unreachable!("steps are made from the same nodes")
            }
        }
    }

    /// The result of a vector node.
    pub(super) fn vector<'a>(&self, index: usize, arena: &'a Arena) -> &'a [f32] {
        &arena.vectors[index]
    }

    /// The buffer and layout of a map node.
    fn buffer(&self, arena: &mut Arena, index: usize) -> (Shared, Map) {
        match self.homes[index] {
            Home::Map { map, slot } => (Shared::new(arena.slots[slot].as_mut_ptr().cast()), map),
            Home::Vector { .. } => unreachable!("the builder checked which values are maps"),
        }
    }

    /// A copy of the buffer of a map node, and its layout.
    #[cfg(test)]
    pub(super) fn map_values(&self, index: usize, arena: &Arena) -> (Vec<f32>, Map) {
        match self.homes[index] {
            Home::Map { map, slot } => (arena.slots[slot].iter().flat_map(|l| l.0).collect(), map),
            Home::Vector { .. } => panic!("a vector"),
        }
    }

    /// Lines of memory that a run needs.
    #[cfg(test)]
    pub(super) fn lines(&self) -> usize {
        self.slots.iter().sum::<usize>() + self.scratch
    }

    /// The algorithm of a node, in words.
    pub(super) fn describe(&self, index: usize) -> &'static str {
        match &self.steps[index] {
            Step::Input => "load",
            Step::Conv(algorithm) => match **algorithm {
                Algorithm::Direct(_) => "direct",
                Algorithm::Integer(_) => "int16",
                Algorithm::Winograd(ref winograd) => match winograd.precision() {
                    Precision::F32 => "winograd",
                    Precision::Int16 => "winograd16",
                },
                Algorithm::Depthwise(_) => "depthwise",
            },
            Step::MaxPool(_) => "max-pool",
            Step::Vector => "vector",
        }
    }

    /// Height and width of a map node.
    pub(super) fn size(&self, index: usize) -> (usize, usize) {
        match self.homes[index] {
            Home::Map { map, .. } => (map.height, map.width),
            Home::Vector { .. } => (1, 1),
        }
    }
}

/// The sizes of all maps, without borders as yet.
pub(super) fn sizes(nodes: &[Node], kinds: &[Kind], h: usize, w: usize) -> Result<Vec<Option<Map>>> {
    let mut maps: Vec<Option<Map>> = Vec::new();
    for (node, kind) in nodes.iter().zip(kinds) {
        let size = |index: usize| maps[index].map_or((0, 0), |m| (m.height, m.width));
        let sides = match node {
            Node::Input => (h, w),
            Node::Conv { input, residual, layer } => {
                let (h, w) = size(*input);
                let weight = [layer.out_c, layer.in_c / layer.cfg.groups, layer.k_h, layer.k_w];
                let shape = ConvShape::new(&[1, layer.in_c, h, w], &weight, layer.cfg)?;
                let out = (shape.out_h, shape.out_w);
                if let Some(added) = residual.map(size).filter(|added| *added != out) {
                    return Err(KernelError::ResidualSize { residual: added, result: out }.into());
                }
                out
            }
            Node::MaxPool { input, cfg } => {
                let (h, w) = size(*input);
                let shape = PoolShape::new(h, w, *cfg)?;
                (shape.out_h, shape.out_w)
            }
            Node::GlobalAvgPool { .. } | Node::Linear { .. } => (0, 0),
        };
        maps.push(match *kind {
            Kind::Map(channels) => {
                Some(Map { channels, height: sides.0, width: sides.1, border: 0, planar: false })
            }
            Kind::Vector(_) => None,
        });
    }
    Ok(maps)
}

/// Whether every reader of the input is a convolution that can take it as planes.
fn reads_planar(nodes: &[Node], channels: usize) -> bool {
    channels <= PLANAR_CHANNELS
        && nodes.iter().all(|node| match node {
            Node::Conv { input: 0, layer, residual } => layer.cfg.groups == 1 && *residual != Some(0),
            other => other.inputs().all(|i| i != 0),
        })
}

fn prefers_winograd(node: &Node, precision: Precision, maps: &[Option<Map>], index: usize, n: usize) -> bool {
    let Node::Conv { layer, .. } = node else { return false };
    let Some(output) = maps[index] else { return false };
    let possible = (layer.k_h, layer.k_w, layer.cfg.stride, layer.cfg.dilation, layer.cfg.groups)
        == (3, 3, 1, 1, 1)
        && layer.in_c >= LANES;
    let threads = rayon::current_num_threads();
    let other = match precision {
        Precision::F32 => direct_cycles(layer, n, output, threads),
        Precision::Int16 => Integer::cycles(layer, n, output, threads),
    };
    possible && Winograd::cycles(layer, precision, n, output, threads) < other
}

/// Gives every value a buffer. Buffers are used again once the last reader has run; a map with a border only after
/// one of the same layout, whose border is zero already. A residual that nobody reads later is overwritten in place.
fn place(nodes: &[Node], kinds: &[Kind], maps: &[Option<Map>], n: usize) -> (Vec<Home>, Vec<usize>) {
    let mut last_use: Vec<usize> = (0..nodes.len()).collect();
    for (index, node) in nodes.iter().enumerate() {
        node.inputs().for_each(|i| last_use[i] = index);
    }
    /// A buffer: lines, layout if it has a border, whether it is free.
    struct Slot {
        lines: usize,
        bordered: Option<Map>,
        free: bool,
    }
    let mut slots: Vec<Slot> = Vec::new();
    let mut homes: Vec<Home> = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        let home = match (maps[index], kinds[index]) {
            (Some(map), _) => {
                let lines = (n * map.plane() * map.planes()).div_ceil(LANES);
                let bordered = (map.border > 0).then_some(map);
                let in_place = match node {
                    Node::Conv { input, residual: Some(r), .. } if r != input && last_use[*r] == index => {
                        match homes[*r] {
                            Home::Map { map: other, slot } if other == map => Some(slot),
                            _ => None,
                        }
                    }
                    _ => None,
                };
                let fits = |slot: &Slot| slot.free && slot.bordered == bordered;
                let reused = in_place.or_else(|| {
                    let candidates = slots.iter().enumerate().filter(|(_, s)| fits(s));
                    // The least buffer that is large enough, else the largest, to be enlarged.
                    candidates
                        .min_by_key(
                            |(_, s)| if s.lines >= lines { (0, s.lines) } else { (1, usize::MAX - s.lines) },
                        )
                        .map(|(i, _)| i)
                });
                let slot = reused.unwrap_or_else(|| {
                    slots.push(Slot { lines, bordered, free: true });
                    slots.len() - 1
                });
                slots[slot].lines = slots[slot].lines.max(lines);
                slots[slot].free = false;
                Home::Map { map, slot }
            }
            (None, Kind::Vector(length) | Kind::Map(length)) => Home::Vector { length },
        };
        homes.push(home);
        let mine = if let Home::Map { slot, .. } = homes[index] { Some(slot) } else { None };
        for value in node.inputs().chain([index]) {
            if let Home::Map { slot, .. } = homes[value]
                && last_use[value] == index
                && (value == index || Some(slot) != mine)
            {
                slots[slot].free = true;
            }
        }
    }
    (homes, slots.into_iter().map(|s| s.lines).collect())
}

/// Multiplications and additions of a convolution over a batch.
pub(super) fn conv_flops(conv: &Conv, n: usize, (h, w): (usize, usize)) -> f64 {
    2.0 * (n * h * w * conv.out_c * (conv.in_c / conv.cfg.groups) * conv.taps()) as f64
}

/// A convolution in words, for measurements.
pub(super) fn conv_name(conv: &Conv) -> String {
    let Conv { in_c, out_c, k_h, k_w, cfg, .. } = conv;
    format!("{k_h}×{k_w}/{} {in_c}→{out_c} ({} blocks)", cfg.stride, blocks(*out_c))
}
