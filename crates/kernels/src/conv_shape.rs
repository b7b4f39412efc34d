//! The geometry of a convolution, checked once, on construction.

use rayon::prelude::*;

use crate::KernelError;

/// How a window moves over an image; the same along both axes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Conv2dConfig {
    /// Pixels from one window to the next.
    pub stride: usize,
    /// Zeros put around the image on each side.
    pub padding: usize,
    /// Pixels from one tap of the window to the next.
    pub dilation: usize,
    /// Number of independent groups that the channels are divided into; as many as input channels is a depthwise
    /// convolution.
    pub groups: usize,
}

impl Default for Conv2dConfig {
    /// Stride 1, no padding, no dilation, one group.
    fn default() -> Self {
        Self { stride: 1, padding: 0, dilation: 1, groups: 1 }
    }
}

/// All numbers of one convolution; only made by [`ConvShape::new`], so that the sizes always fit one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ConvShape {
    pub(crate) n: usize,
    pub(crate) in_c: usize,
    pub(crate) in_h: usize,
    pub(crate) in_w: usize,
    pub(crate) out_c: usize,
    pub(crate) out_h: usize,
    pub(crate) out_w: usize,
    pub(crate) k_h: usize,
    pub(crate) k_w: usize,
    pub(crate) cfg: Conv2dConfig,
}

impl ConvShape {
    /// The geometry of convolving an input of shape (n, c, h, w) with a weight of shape (out, c / groups, kh, kw).
    pub(crate) fn new(x: &[usize], weight: &[usize], cfg: Conv2dConfig) -> Result<Self, KernelError> {
        const OP: &str = "conv2d";
        let &[n, in_c, in_h, in_w] = x else {
            return Err(KernelError::Rank { op: OP, what: "the input", got: x.to_vec(), expected: 4 });
        };
        let &[out_c, weight_channels, k_h, k_w] = weight else {
            return Err(KernelError::Rank { op: OP, what: "the weight", got: weight.to_vec(), expected: 4 });
        };
        let named = [
            (cfg.stride, "stride"),
            (cfg.dilation, "dilation"),
            (cfg.groups, "groups"),
            (out_c, "the number of output channels"),
            (weight_channels, "the number of input channels"),
            (k_h, "the kernel's height"),
            (k_w, "the kernel's width"),
        ];
        if let Some(&(_, what)) = named.iter().find(|(value, _)| *value == 0) {
            return Err(KernelError::Zero { op: OP, what });
        }
        if weight_channels.checked_mul(cfg.groups) != Some(in_c) || out_c % cfg.groups != 0 {
            return Err(KernelError::Channels {
                in_channels: in_c,
                out_channels: out_c,
                weight_channels,
                groups: cfg.groups,
            });
        }
        let out_side = |side: usize, kernel: usize| {
            let window = cfg.dilation.checked_mul(kernel - 1)?.checked_add(1)?;
            let room = cfg.padding.checked_mul(2)?.checked_add(side)?.checked_sub(window)?;
            Some(room / cfg.stride + 1)
        };
        let (Some(out_h), Some(out_w)) = (out_side(in_h, k_h), out_side(in_w, k_w)) else {
            let covered = |kernel: usize| cfg.dilation.saturating_mul(kernel - 1).saturating_add(1);
            return Err(KernelError::WindowTooLarge {
                op: OP,
                window: (covered(k_h), covered(k_w)),
                input: (in_h, in_w),
                padding: cfg.padding,
            });
        };
        Ok(Self { n, in_c, in_h, in_w, out_c, out_h, out_w, k_h, k_w, cfg })
    }

    /// Input channels of one group.
    pub(crate) fn in_c_group(&self) -> usize {
        self.in_c / self.cfg.groups
    }

    /// Output channels of one group.
    pub(crate) fn out_c_group(&self) -> usize {
        self.out_c / self.cfg.groups
    }

    /// Pixels of one input plane.
    pub(crate) fn in_plane(&self) -> usize {
        self.in_h * self.in_w
    }

    /// Pixels of one output plane.
    pub(crate) fn out_plane(&self) -> usize {
        self.out_h * self.out_w
    }

    /// Multiplications that make one output value: taps of the window times input channels of a group.
    pub(crate) fn taps(&self) -> usize {
        self.in_c_group() * self.k_h * self.k_w
    }

    /// One input channel a group.
    pub(crate) fn is_depthwise(&self) -> bool {
        self.in_c_group() == 1 && self.cfg.groups > 1
    }

    /// The input itself is the matrix that the weight multiplies.
    pub(crate) fn is_pointwise(&self) -> bool {
        self.k_h == 1 && self.k_w == 1 && self.cfg.stride == 1 && self.cfg.padding == 0
    }

    /// The convolution that makes the gradient to the input out of that to the result, if it is one: the windows move by a
    /// pixel and are not padded further than they reach.
    pub(crate) fn mirrored(&self) -> Option<Self> {
        let Conv2dConfig { stride, padding, dilation, groups } = self.cfg;
        let padding = |kernel: usize| (dilation * (kernel - 1)).checked_sub(padding);
        let (down, across) = (padding(self.k_h)?, padding(self.k_w)?);
        (stride == 1 && groups == 1 && down == across).then_some(Self {
            in_c: self.out_c,
            in_h: self.out_h,
            in_w: self.out_w,
            out_c: self.in_c,
            out_h: self.in_h,
            out_w: self.in_w,
            cfg: Conv2dConfig { padding: down, ..self.cfg },
            ..*self
        })
    }

    /// The weight of [`ConvShape::mirrored`]: channels exchanged, windows turned round.
    pub(crate) fn mirrored_weight(&self, w: &[f32]) -> Vec<f32> {
        let (window, taps) = (self.k_h * self.k_w, self.taps());
        let mut mirrored = vec![0f32; w.len()];
        mirrored.par_chunks_mut(self.out_c * window).enumerate().for_each(|(i, to)| {
            for (o, to) in to.chunks_mut(window).enumerate() {
                let from = &w[o * taps + i * window..][..window];
                to.iter_mut().zip(from.iter().rev()).for_each(|(to, from)| *to = *from);
            }
        });
        mirrored
    }

    pub(crate) fn x_len(&self) -> usize {
        self.n * self.in_c * self.in_plane()
    }

    pub(crate) fn y_len(&self) -> usize {
        self.n * self.out_c * self.out_plane()
    }

    pub(crate) fn w_len(&self) -> usize {
        self.out_c * self.taps()
    }

    /// For the tap at `offset` pixels into the window: the first output position whose tap lies inside a side of
    /// `side` pixels, and the one after the last.
    pub(crate) fn valid_outputs(&self, offset: usize, side: usize, out: usize) -> (usize, usize) {
        let (stride, padding) = (self.cfg.stride, self.cfg.padding);
        let first = padding.saturating_sub(offset).div_ceil(stride);
        let last = (side + padding).saturating_sub(offset).div_ceil(stride);
        let last = last.min(out);
        (first.min(last), last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_sides_follow_the_usual_formula() {
        let cfg = Conv2dConfig { stride: 2, padding: 3, ..Default::default() };
        let s = ConvShape::new(&[8, 3, 224, 223], &[64, 3, 7, 7], cfg).unwrap();
        assert_eq!((s.out_h, s.out_w), (112, 112));
        let cfg = Conv2dConfig { dilation: 2, ..Default::default() };
        let s = ConvShape::new(&[1, 1, 5, 9], &[1, 1, 3, 3], cfg).unwrap();
        assert_eq!((s.out_h, s.out_w), (1, 5));
    }

    #[test]
    fn valid_outputs_are_exactly_the_taps_inside() {
        for stride in 1..4 {
            for padding in 0..5 {
                for dilation in 1..3 {
                    for side in 1..8 {
                        let cfg = Conv2dConfig { stride, padding, dilation, groups: 1 };
                        let Ok(s) = ConvShape::new(&[1, 1, side, side], &[1, 1, 3, 3], cfg) else { continue };
                        for tap in 0..3 {
                            let (first, last) = s.valid_outputs(tap * dilation, side, s.out_h);
                            for o in 0..s.out_h {
                                let at = (o * stride + tap * dilation) as isize - padding as isize;
                                let inside = at >= 0 && at < side as isize;
                                assert_eq!(inside, o >= first && o < last, "{s:?} tap {tap} output {o}");
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn bad_geometry_is_named() {
        let ok = Conv2dConfig::default();
        let bad = |x: &[usize], w: &[usize], cfg| ConvShape::new(x, w, cfg).unwrap_err();
        assert!(matches!(bad(&[1, 2, 3], &[1, 2, 1, 1], ok), KernelError::Rank { what: "the input", .. }));
        assert!(matches!(bad(&[1, 2, 3, 3], &[1, 2, 1], ok), KernelError::Rank { what: "the weight", .. }));
        let zero = Conv2dConfig { stride: 0, ..ok };
        assert!(matches!(bad(&[1, 2, 3, 3], &[1, 2, 1, 1], zero), KernelError::Zero { what: "stride", .. }));
        assert!(matches!(bad(&[1, 3, 3, 3], &[1, 2, 1, 1], ok), KernelError::Channels { .. }));
        let odd_groups = Conv2dConfig { groups: 2, ..ok };
        assert!(matches!(bad(&[1, 4, 3, 3], &[3, 2, 1, 1], odd_groups), KernelError::Channels { .. }));
        assert!(matches!(
            bad(&[1, 2, 3, 3], &[1, 2, 4, 1], ok),
            KernelError::WindowTooLarge { window: (4, 1), .. }
        ));
        let huge = Conv2dConfig { dilation: usize::MAX, ..ok };
        assert!(matches!(bad(&[1, 2, 3, 3], &[1, 2, 3, 3], huge), KernelError::WindowTooLarge { .. }));
    }
}
