//! The parameters of a layer, batch norm folded in, and their packed forms.

use std::sync::OnceLock;

use candle_core::Tensor;
use rayon::prelude::*;

use super::builder::{ConvLayer, numbers};
use super::memory::Lines;
use super::shared::Shared;
use super::winograd;
use crate::Activation;
use crate::conv_shape::ConvShape;
use crate::int_tile::{Pair, channel_codes};
use crate::simd::LANES;
use crate::{Conv2dConfig, KernelError};

type Result<T> = std::result::Result<T, candle_core::Error>;

/// Sixteen values on one cache line.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line(pub(super) [f32; LANES]);

/// Blocks of sixteen that hold `channels`.
pub(super) fn blocks(channels: usize) -> usize {
    channels.div_ceil(LANES)
}

/// A convolution's folded weights.
#[derive(Debug)]
pub(super) struct Conv {
    pub(super) in_c: usize,
    pub(super) out_c: usize,
    pub(super) k_h: usize,
    pub(super) k_w: usize,
    pub(super) cfg: Conv2dConfig,
    pub(super) activation: Activation,
    /// (out, in / groups, kh, kw), batch norm folded in.
    weight: Vec<f32>,
    /// One line per block of output channels, zeros beyond the last channel.
    pub(super) bias: Vec<Line>,
    in_first: Vec<usize>,
    in_count: usize,
    direct: OnceLock<Lines>,
    winograd: OnceLock<Lines>,
    integer: OnceLock<IntWeights>,
    winograd_integer: OnceLock<IntWeights>,
}

/// Weights as 16-bit codes.
#[derive(Debug)]
pub(super) struct IntWeights {
    /// [out block][in block][tap][pair of in lanes], of Winograd's [frequency][out block][pair of in channels]
    pub(super) pairs: Vec<Pair>,
    /// From codes back to weights, one line per block of output channels (in each frequency).
    pub(super) scales: Vec<Line>,
}

impl IntWeights {
    /// Codes of weights in the order of the f32 tile: `sums` lines for each block of output channels.
    fn new(lines: &[Line], sums: usize) -> Self {
        let mut pairs = vec![Pair([0; 2 * LANES]); lines.len() / 2];
        let mut scales = vec![Line([0.0; LANES]); lines.len() / sums];
        let blocks = pairs.par_chunks_mut(sums / 2).zip(&mut scales).zip(lines.par_chunks(sums));
        blocks.for_each(|((pairs, scales), lines)| {
            for (lane, scale) in scales.0.iter_mut().enumerate() {
                let weights: Vec<f32> = lines.iter().map(|line| line.0[lane]).collect();
                let (codes, to_weight) = channel_codes(&weights);
                *scale = to_weight;
                for (pair, codes) in pairs.iter_mut().zip(codes.chunks_exact(2)) {
                    pair.0[2 * lane..][..2].copy_from_slice(codes);
                }
            }
        });
        Self { pairs, scales }
    }
}

impl Conv {
    pub(super) fn new(in_c: usize, layer: &ConvLayer<'_>) -> Result<Self> {
        // An image as large as the window checks everything that does not depend on the image's size.
        let dims = layer.weight.dims();
        let side = |k: usize| layer.cfg.dilation.saturating_mul(k).max(1);
        let (h, w) = if dims.len() == 4 { (side(dims[2]), side(dims[3])) } else { (1, 1) };
        let shape = ConvShape::new(&[1, in_c, h, w], dims, layer.cfg)?;
        let per_channel = |what: &'static str, t: &Tensor| {
            let values = numbers(t)?;
            if values.len() == shape.out_c {
                return Ok(values);
            }
            let (got, expected) = (values.len(), shape.out_c);
            Err(candle_core::Error::from(KernelError::PerChannel { op: "frozen conv", what, got, expected }))
        };
        let mut weight = numbers(layer.weight)?;
        let mut bias = match layer.bias {
            Some(bias) => per_channel("the bias", bias)?,
            None => vec![0.0; shape.out_c],
        };
        if let Some(norm) = layer.norm {
            let (gamma, beta) = (per_channel("gamma", norm.gamma)?, per_channel("beta", norm.beta)?);
            let (mean, variance) =
                (per_channel("the mean", norm.mean)?, per_channel("the variance", norm.variance)?);
            for (o, weights) in weight.chunks_mut(shape.taps()).enumerate() {
                let scale = f64::from(gamma[o]) / (f64::from(variance[o]) + norm.eps).sqrt();
                weights.iter_mut().for_each(|w| *w = (f64::from(*w) * scale) as f32);
                bias[o] = ((f64::from(bias[o]) - f64::from(mean[o])) * scale + f64::from(beta[o])) as f32;
            }
        }
        Ok(Self { activation: layer.activation, bias: to_lines(&bias), ..Self::plain(&shape, weight) })
    }

    /// A bare convolution with this weight (out, in / groups, kh, kw).
    pub(super) fn plain(s: &ConvShape, weight: Vec<f32>) -> Self {
        let (in_first, in_count) = input_blocks(s);
        Self {
            in_c: s.in_c,
            out_c: s.out_c,
            k_h: s.k_h,
            k_w: s.k_w,
            cfg: s.cfg,
            activation: Activation::None,
            weight,
            bias: vec![Line([0.0; LANES]); blocks(s.out_c)],
            in_first,
            in_count,
            direct: OnceLock::new(),
            winograd: OnceLock::new(),
            integer: OnceLock::new(),
            winograd_integer: OnceLock::new(),
        }
    }

    /// One input and one output channel a group.
    pub(super) fn is_depthwise(&self) -> bool {
        self.cfg.groups == self.in_c && self.out_c == self.in_c && self.cfg.groups > 1
    }

    pub(super) fn taps(&self) -> usize {
        self.k_h * self.k_w
    }

    /// Weight of output channel `o` for channel `i` of the whole input; zero across groups.
    /// Number of weights.
    pub(super) fn weights(&self) -> usize {
        self.weight.len()
    }

    fn weight_at(&self, o: usize, i: usize, tap: usize) -> f32 {
        let (in_g, out_g) = (self.in_c / self.cfg.groups, self.out_c / self.cfg.groups);
        if i >= self.in_c || o >= self.out_c || i / in_g != o / out_g {
            return 0.0;
        }
        self.weight[(o * in_g + i % in_g) * self.taps() + tap]
    }

    /// The first input block that a block of output channels reads; each reads [`Conv::in_count`] blocks.
    pub(super) fn in_first(&self, out_block: usize) -> usize {
        self.in_first[out_block]
    }

    /// How many input blocks a block of output channels reads: all, unless there are groups.
    pub(super) fn in_count(&self) -> usize {
        self.in_count
    }

    /// Weights for the register tile on a blocked input: [out block][in block][tap][in lane], a line each.
    pub(super) fn packed_blocked(&self) -> &[Line] {
        once::<Lines>(&self.direct, || self.pack_blocked())
    }

    fn pack_blocked(&self) -> Lines {
        self.pack(self.blocked_sums(), |ob, at| {
            let (ib, tap, lane) = (at / (self.taps() * LANES), at / LANES % self.taps(), at % LANES);
            let i = (self.in_first[ob] + ib) * LANES + lane;
            std::array::from_fn(|o| self.weight_at(ob * LANES + o, i, tap))
        })
    }

    /// Summands of an output channel on a blocked input.
    fn blocked_sums(&self) -> usize {
        self.in_count * self.taps() * LANES
    }

    /// Weights for the register tile on a planar input: [out block][in channel][tap], a line each.
    pub(super) fn packed_planar(&self) -> &[Line] {
        once::<Lines>(&self.direct, || {
            self.pack(self.in_c * self.taps(), |ob, at| {
                let (i, tap) = (at / self.taps(), at % self.taps());
                std::array::from_fn(|o| self.weight_at(ob * LANES + o, i, tap))
            })
        })
    }

    /// Weights for the integer tile, of a layer without groups.
    pub(super) fn packed_integer(&self) -> &IntWeights {
        once(&self.integer, || IntWeights::new(&self.pack_blocked(), self.blocked_sums()))
    }

    /// Transformed weights of a 3×3 layer without groups for the integer tile.
    pub(super) fn packed_winograd_integer(&self) -> &IntWeights {
        once(&self.winograd_integer, || IntWeights::new(&self.pack_winograd(None), blocks(self.in_c) * LANES))
    }

    /// Weights of a depthwise layer: [block][tap], a line each.
    pub(super) fn packed_depthwise(&self) -> &[Line] {
        once::<Lines>(&self.direct, || {
            self.pack(self.taps(), |block, tap| {
                std::array::from_fn(|lane| self.weight_at(block * LANES + lane, block * LANES + lane, tap))
            })
        })
    }

    /// `lines` lines for every block of output channels, each from its block and place.
    fn pack(&self, lines: usize, line: impl Fn(usize, usize) -> [f32; LANES] + Sync) -> Lines {
        let mut packed = Lines::zeroed(blocks(self.out_c) * lines);
        packed.par_chunks_mut(lines).enumerate().for_each(|(block, packed)| {
            packed.iter_mut().enumerate().for_each(|(at, to)| to.0 = line(block, at));
        });
        packed
    }

    /// Transformed weights of a 3×3 layer without groups: [frequency][out block][in channel of blocks], a line each.
    pub(super) fn packed_winograd(&self) -> &[Line] {
        once::<Lines>(&self.winograd, || self.pack_winograd(None))
    }

    /// Packs the transformed weights into `room`, if that is large enough.
    pub(super) fn pack_winograd_into(&mut self, room: Option<Lines>) {
        self.winograd = OnceLock::from(self.pack_winograd(room));
    }

    /// The packed weights' memory, to be used again.
    pub(super) fn into_winograd_room(self) -> Option<Lines> {
        self.winograd.into_inner()
    }

    fn pack_winograd(&self, room: Option<Lines>) -> Lines {
        let inputs = blocks(self.in_c) * LANES;
        let frequency = blocks(self.out_c) * inputs;
        let mut lines = Lines::at_least(winograd::FREQUENCIES * frequency, room);
        let to = Shared::new(lines.as_mut_ptr().cast());
        (0..blocks(self.out_c)).into_par_iter().for_each(|block| {
            for i in 0..inputs {
                let mut window = [[0f32; LANES]; 9];
                for lane in 0..LANES {
                    let o = block * LANES + lane;
                    if o < self.out_c && i < self.in_c {
                        let from = &self.weight[(o * self.in_c + i) * 9..][..9];
                        window.iter_mut().zip(from).for_each(|(tap, &value)| tap[lane] = value);
                    }
                }
                for (f, values) in winograd::transform_weights(&window).iter().enumerate() {
                    let at = (f * frequency + block * inputs + i) * LANES;
                    // SAFETY: every block of output channels has lines of its own in each frequency.
                    unsafe { to.at(at).copy_from_nonoverlapping(values.as_ptr(), LANES) };
                }
            }
        });
        lines
    }
}

/// The cell's value, made by `make` if there is none yet, at worst by several threads at once.
///
/// Packing shares its work among threads. One that waits for the others takes up whatever there is to do meanwhile, also
/// another run that needs the same cell; behind a lock it would wait for itself.
fn once<T>(cell: &OnceLock<T>, make: impl FnOnce() -> T) -> &T {
    match cell.get() {
        Some(value) => value,
        None => {
            let made = make();
            cell.get_or_init(|| made)
        }
    }
}

/// For each block of output channels the first block of input channels that its groups reach, and the greatest
/// number of blocks that any of them needs.
fn input_blocks(shape: &ConvShape) -> (Vec<usize>, usize) {
    let range = |block: usize| {
        let first_group = block * LANES / shape.out_c_group();
        let last_group = (block * LANES + LANES - 1).min(shape.out_c - 1) / shape.out_c_group();
        (first_group * shape.in_c_group() / LANES, blocks((last_group + 1) * shape.in_c_group()))
    };
    let ranges: Vec<_> = (0..blocks(shape.out_c)).map(range).collect();
    let count = ranges.iter().map(|(start, end)| end - start).max().unwrap_or(0);
    (ranges.iter().map(|(start, _)| (*start).min(blocks(shape.in_c) - count)).collect(), count)
}

/// A fully connected layer.
#[derive(Debug)]
pub(super) struct Linear {
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    /// (out, in)
    pub(super) weight: Vec<f32>,
    pub(super) bias: Vec<f32>,
}

impl Linear {
    pub(super) fn new(inputs: usize, weight: &Tensor, bias: Option<&Tensor>) -> Result<Self> {
        const OP: &str = "frozen linear";
        let &[outputs, got] = weight.dims() else {
            let got = weight.dims().to_vec();
            return Err(KernelError::Rank { op: OP, what: "the weight", got, expected: 2 }.into());
        };
        if got != inputs {
            return Err(KernelError::PerChannel {
                op: OP,
                what: "a row of the weight",
                got,
                expected: inputs,
            }
            .into());
        }
        let bias = bias.map(numbers).transpose()?.unwrap_or_else(|| vec![0.0; outputs]);
        if bias.len() != outputs {
            let got = bias.len();
            return Err(KernelError::PerChannel { op: OP, what: "the bias", got, expected: outputs }.into());
        }
        Ok(Self { inputs, outputs, weight: numbers(weight)?, bias })
    }
}

fn to_lines(values: &[f32]) -> Vec<Line> {
    let line = |chunk: &[f32]| {
        let mut line = [0.0; LANES];
        line[..chunk.len()].copy_from_slice(chunk);
        Line(line)
    };
    values.chunks(LANES).map(line).collect()
}
