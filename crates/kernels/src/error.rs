//! What can be wrong with the arguments of an operation.

/// A shape or parameter that an operation of this crate cannot work with.
///
/// Inside [`candle_core::Error`] it is the message of a wrapped error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// A tensor has another number of dimensions than the operation takes.
    #[error("{op}: {what} has shape {got:?}, but {expected} dimensions are needed")]
    Rank {
        /// The operation.
        op: &'static str,
        /// Which argument.
        what: &'static str,
        /// Its shape.
        got: Vec<usize>,
        /// The number of dimensions it should have.
        expected: usize,
    },
    /// Two tensors that should have one shape.
    #[error("{op}: shapes {left:?} and {right:?} differ")]
    Differ {
        /// The operation.
        op: &'static str,
        /// Shape of the first.
        left: Vec<usize>,
        /// Shape of the second.
        right: Vec<usize>,
    },
    /// Stride, dilation, groups or a kernel side is zero.
    #[error("{op}: {what} must be at least 1")]
    Zero {
        /// The operation.
        op: &'static str,
        /// Which parameter.
        what: &'static str,
    },
    /// The channels of input and weight do not fit the number of groups.
    #[error(
        "conv2d: {in_channels} input channels and a weight of {out_channels} × {weight_channels} channels do not \
         divide into {groups} groups: the weight must have input channels / groups, and groups must divide both"
    )]
    Channels {
        /// Channels of the input.
        in_channels: usize,
        /// First dimension of the weight.
        out_channels: usize,
        /// Second dimension of the weight.
        weight_channels: usize,
        /// The number of groups.
        groups: usize,
    },
    /// A one-dimensional argument does not have one element a channel.
    #[error("{op}: {what} has {got} elements, but there are {expected} channels")]
    PerChannel {
        /// The operation.
        op: &'static str,
        /// Which argument.
        what: &'static str,
        /// Its length.
        got: usize,
        /// The number of channels.
        expected: usize,
    },
    /// The window does not fit into the padded input even once.
    #[error(
        "{op}: a window of {window:?} (dilation included) does not fit an input of {input:?} with padding {padding}"
    )]
    WindowTooLarge {
        /// The operation.
        op: &'static str,
        /// Height and width the window covers.
        window: (usize, usize),
        /// Height and width of the input.
        input: (usize, usize),
        /// The padding on each side.
        padding: usize,
    },
    /// Pooling windows that would lie in the padding only.
    #[error("max_pool2d: padding {padding} must be smaller than the kernel side {kernel}")]
    PoolPadding {
        /// The padding on each side.
        padding: usize,
        /// The kernel side.
        kernel: usize,
    },
    /// Batch statistics of fewer than two values a channel, or no values at all.
    #[error("{op}: an input of shape {got:?} has too few values a channel (at least {least} are needed)")]
    TooFewValues {
        /// The operation.
        op: &'static str,
        /// The shape of the input.
        got: Vec<usize>,
        /// The fewest values a channel that make sense.
        least: usize,
    },
    /// A tensor is not of the number format or on the device that its companions are.
    #[error("{op}: {what} must be a contiguous f32 tensor on the CPU")]
    NotHostF32 {
        /// The operation.
        op: &'static str,
        /// Which argument.
        what: &'static str,
    },
    /// The processor lacks the instructions of a path.
    #[error("this processor cannot take the {0} path")]
    IsaUnavailable(crate::Isa),
    /// No number format of this name.
    #[error("{0:?} is no precision: f32 or int16")]
    UnknownPrecision(String),
    /// A value of another builder.
    #[error("frozen network: the value belongs to another builder")]
    ForeignValue,
    /// A vector where a map is needed or the other way round.
    #[error("frozen network: the layer needs {needed}")]
    WrongKind {
        /// What the layer needs.
        needed: &'static str,
    },
    /// A residual is not as large as what it is added to.
    #[error("frozen network: a residual of {residual:?} pixels cannot be added to a result of {result:?}")]
    ResidualSize {
        /// Height and width of the residual.
        residual: (usize, usize),
        /// Height and width of the result.
        result: (usize, usize),
    },
    /// The number of pixels is not what batch and size say.
    #[error("frozen network: {got} values are not {n} images of {channels} × {h} × {w}")]
    PixelCount {
        /// Values given.
        got: usize,
        /// Images.
        n: usize,
        /// Channels of an image.
        channels: usize,
        /// Height of an image.
        h: usize,
        /// Width of an image.
        w: usize,
    },
    /// Feature maps beyond what the kernels can address.
    #[error("frozen network: {what} is too large for {n} images of {h} × {w}; use smaller images or batches")]
    TooLarge {
        /// Which map.
        what: &'static str,
        /// Images.
        n: usize,
        /// Height of an image.
        h: usize,
        /// Width of an image.
        w: usize,
    },
}

impl From<KernelError> for candle_core::Error {
    fn from(error: KernelError) -> Self {
        Self::wrap(error)
    }
}
