//! Operations that a node can compute.

use serde::{Deserialize, Serialize};

pub use crate::linear::{Conv, Gemm, Linear};

/// A pooling window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// Height and width.
    pub kernel: [usize; 2],
    /// Vertical and horizontal.
    pub stride: [usize; 2],
    /// Vertical and horizontal distance of neighbours in the window.
    pub dilation: [usize; 2],
    /// Top, left, bottom, right.
    pub padding: [usize; 4],
    /// Averages divide by the whole window, padding included.
    pub count_padding: bool,
    /// Output size rounded up instead of down.
    pub ceil: bool,
}

/// A function of every single value.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Activation {
    /// `max(x, 0)`.
    Relu,
    /// `min(max(x, low), high)`; Relu6 is one.
    Clip {
        /// Smallest result.
        low: f32,
        /// Largest result.
        high: f32,
    },
    /// `x` or, if negative, `alpha*x`.
    LeakyRelu {
        /// Slope below zero.
        alpha: f32,
    },
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// `alpha*x + beta`, cut to 0 and 1.
    HardSigmoid {
        /// Slope.
        alpha: f32,
        /// Value at zero.
        beta: f32,
    },
    /// `x * HardSigmoid(1/6, 1/2)`.
    HardSwish,
    /// Hyperbolic tangent.
    Tanh,
    /// `x` or, if negative, `alpha*(exp(x) - 1)`.
    Elu {
        /// Limit far below zero, negated.
        alpha: f32,
    },
    /// `x/2 * (1 + erf(x / sqrt(2)))`.
    Gelu,
    /// Gelu with a hyperbolic tangent in place of the error function.
    GeluTanh,
    /// The error function.
    Erf,
    /// Cut to an integer, towards zero.
    Truncate,
    /// 1 for anything but 0.
    NonZero,
    /// Absolute value.
    Abs,
    /// Square root.
    Sqrt,
    /// Exponential.
    Exp,
    /// Natural logarithm.
    Log,
    /// `1 / x`.
    Reciprocal,
    /// A power.
    Pow {
        /// The exponent.
        exponent: f32,
    },
    /// The largest integer that is not larger.
    Floor,
    /// The smallest integer that is not smaller.
    Ceil,
    /// The nearest integer, halves to the even one.
    Round,
    /// -1, 0 or 1.
    Sign,
    /// Sine.
    Sin,
    /// Cosine.
    Cos,
    /// Arc tangent.
    Atan,
    /// `ln(1 + exp(x))`.
    Softplus,
    /// `x / (1 + |x|)`.
    Softsign,
    /// `x * tanh(Softplus(x))`.
    Mish,
    /// `gamma * x` or, if not positive, `gamma * alpha * (exp(x) - 1)`.
    Selu {
        /// Limit far below zero, negated and without `gamma`.
        alpha: f32,
        /// Slope above zero.
        gamma: f32,
    },
    /// `x` or, if not positive, `alpha * (exp(x / alpha) - 1)`.
    Celu {
        /// Limit far below zero, negated.
        alpha: f32,
    },
    /// `x` if it is above `alpha`, else 0.
    Thresholded {
        /// The threshold.
        alpha: f32,
    },
}

/// An operation on two values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Arithmetic {
    /// Sum.
    Add,
    /// First minus second.
    Sub,
    /// Product.
    Mul,
    /// First divided by second.
    Div,
    /// The first or, if it is negative, its product with the second: PRelu with the slope second.
    PRelu,
    /// The larger one.
    Max,
    /// The smaller one.
    Min,
    /// The first to the power of the second.
    Pow,
    /// 1 where the first is less, else 0.
    Less,
    /// 1 where the first is not more, else 0.
    LessOrEqual,
    /// 1 where they are equal, else 0.
    Equal,
}

/// Constant values of a node on the client; they broadcast as ONNX says (aligned at the last
/// dimension).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Constant {
    /// Extent of every dimension, no batch.
    pub shape: Vec<usize>,
    /// Row-major.
    pub data: Vec<f32>,
}

/// Takes elements of the input along some axes: slices, padding, enlarging.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Select {
    /// Which operator it was.
    pub kind: SelectKind,
    /// Axis and, for every place of the output along it, the place in the input; `None` stands for
    /// `fill`.
    pub axes: Vec<(usize, Vec<Option<u32>>)>,
    /// Value of places without an input.
    pub fill: f32,
}

/// Operators that only copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SelectKind {
    /// Slice, Split or Gather.
    Slice,
    /// Pad.
    Pad,
    /// Resize or Upsample, nearest.
    Resize,
    /// Tile: everything several times.
    Tile,
    /// Expand: a single element many times.
    Expand,
}

/// Takes weighted sums of the input's elements along some axes: Resize, linear and cubic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Resample {
    /// Axis by axis.
    pub axes: Vec<ResampleAxis>,
}

/// One axis of a [`Resample`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResampleAxis {
    /// Which axis.
    pub axis: usize,
    /// Terms of each sum.
    pub taps: usize,
    /// Elements of the input, `[place of the output][tap]`.
    pub places: Vec<u32>,
    /// Their weights, `[place of the output][tap]`.
    pub weights: Vec<f32>,
}

/// Ways in which the values along some axes become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReduceKind {
    /// Their mean.
    Mean,
    /// Their sum.
    Sum,
    /// The largest.
    Max,
    /// The smallest.
    Min,
    /// Their product.
    Product,
    /// Sum of absolute values.
    L1,
    /// Square root of the sum of squares.
    L2,
    /// Sum of squares.
    SumSquare,
}

/// The operation of a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Op {
    /// Convolution, done by the server.
    Conv(Conv),
    /// Fully connected layer, done by the server.
    Gemm(Gemm),
    /// A function of every single value.
    Activation(Activation),
    /// Largest value of a window.
    MaxPool(Pool),
    /// Mean of a window.
    AveragePool(Pool),
    /// All dimensions to one.
    Flatten,
    /// All values in another shape.
    Reshape(Vec<usize>),
    /// Dimension `i` of the output is dimension `p[i]` of the input.
    Transpose(Vec<usize>),
    /// Two values, which may broadcast.
    Arithmetic(Arithmetic),
    /// A value and a constant.
    WithConstant {
        /// The operation.
        op: Arithmetic,
        /// The constant.
        constant: Constant,
        /// Whether the constant is the first operand.
        constant_first: bool,
    },
    /// The second where the first is not 0, else the third. Those that are constants stand here,
    /// the others are inputs in this order.
    Choose(Box<[Option<Constant>; 3]>),
    /// Values one after the other along an axis.
    Concat(usize),
    /// Some elements.
    Select(Select),
    /// Exponentials divided by their sum along an axis; or the logarithm of that.
    Softmax {
        /// Axis.
        axis: usize,
        /// Whether it is the logarithm.
        log: bool,
    },
    /// Weighted sums along some axes.
    Resample(Resample),
    /// One value for all along some axes.
    Reduce {
        /// Which.
        kind: ReduceKind,
        /// Axes, rising.
        axes: Vec<usize>,
        /// Whether they stay with extent 1.
        keep: bool,
    },
    /// Index of the largest value along an axis.
    ArgMax {
        /// Axis.
        axis: usize,
        /// Whether it stays with extent 1.
        keep: bool,
        /// The last of several instead of the first.
        last: bool,
    },
}

impl Op {
    /// Returns the linear layer, if it is one.
    pub fn linear(&self) -> Option<Linear<'_>> {
        match self {
            Self::Conv(c) => Some(Linear::Conv(c)),
            Self::Gemm(g) => Some(Linear::Gemm(g)),
            _ => None,
        }
    }

    /// Returns the number of values that it takes; `None` stands for one or more.
    pub fn arity(&self) -> Option<usize> {
        match self {
            Self::Arithmetic(_) => Some(2),
            Self::Choose(constants) => Some(constants.iter().filter(|c| c.is_none()).count()),
            Self::Concat(_) => None,
            _ => Some(1),
        }
    }

    /// Returns the ONNX name of the operation.
    #[expect(clippy::too_many_lines, reason = "a table: one line for each operator")]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Conv(_) => "Conv",
            Self::Gemm(_) => "Gemm",
            Self::Activation(a) => match a {
                Activation::Relu => "Relu",
                Activation::Clip { .. } => "Clip",
                Activation::LeakyRelu { .. } => "LeakyRelu",
                Activation::Sigmoid => "Sigmoid",
                Activation::HardSigmoid { .. } => "HardSigmoid",
                Activation::HardSwish => "HardSwish",
                Activation::Tanh => "Tanh",
                Activation::Elu { .. } => "Elu",
                Activation::Gelu | Activation::GeluTanh => "Gelu",
                Activation::Erf => "Erf",
                Activation::Truncate | Activation::NonZero => "Cast",
                Activation::Abs => "Abs",
                Activation::Sqrt => "Sqrt",
                Activation::Exp => "Exp",
                Activation::Log => "Log",
                Activation::Reciprocal => "Reciprocal",
                Activation::Pow { .. } => "Pow",
                Activation::Floor => "Floor",
                Activation::Ceil => "Ceil",
                Activation::Round => "Round",
                Activation::Sign => "Sign",
                Activation::Sin => "Sin",
                Activation::Cos => "Cos",
                Activation::Atan => "Atan",
                Activation::Softplus => "Softplus",
                Activation::Softsign => "Softsign",
                Activation::Mish => "Mish",
                Activation::Selu { .. } => "Selu",
                Activation::Celu { .. } => "Celu",
                Activation::Thresholded { .. } => "ThresholdedRelu",
            },
            Self::MaxPool(_) => "MaxPool",
            Self::AveragePool(_) => "AveragePool",
            Self::Flatten => "Flatten",
            Self::Reshape(_) => "Reshape",
            Self::Transpose(_) => "Transpose",
            Self::Arithmetic(op) | Self::WithConstant { op, .. } => match op {
                Arithmetic::Add => "Add",
                Arithmetic::Sub => "Sub",
                Arithmetic::Mul => "Mul",
                Arithmetic::Div => "Div",
                Arithmetic::PRelu => "PRelu",
                Arithmetic::Max => "Max",
                Arithmetic::Min => "Min",
                Arithmetic::Pow => "Pow",
                Arithmetic::Less => "Less",
                Arithmetic::LessOrEqual => "LessOrEqual",
                Arithmetic::Equal => "Equal",
            },
            Self::Choose(_) => "Where",
            Self::Concat(_) => "Concat",
            Self::Select(s) => match s.kind {
                SelectKind::Slice => "Slice",
                SelectKind::Pad => "Pad",
                SelectKind::Resize => "Resize",
                SelectKind::Tile => "Tile",
                SelectKind::Expand => "Expand",
            },
            Self::Resample(_) => "Resize",
            Self::Softmax { log: false, .. } => "Softmax",
            Self::Softmax { log: true, .. } => "LogSoftmax",
            Self::Reduce { kind, .. } => match kind {
                ReduceKind::Mean => "ReduceMean",
                ReduceKind::Sum => "ReduceSum",
                ReduceKind::Max => "ReduceMax",
                ReduceKind::Min => "ReduceMin",
                ReduceKind::Product => "ReduceProd",
                ReduceKind::L1 => "ReduceL1",
                ReduceKind::L2 => "ReduceL2",
                ReduceKind::SumSquare => "ReduceSumSquare",
            },
            Self::ArgMax { .. } => "ArgMax",
        }
    }

    /// `max(x, 0)`.
    pub const RELU: Self = Self::Activation(Activation::Relu);
    /// Sum of two values.
    pub const ADD: Self = Self::Arithmetic(Arithmetic::Add);
}
