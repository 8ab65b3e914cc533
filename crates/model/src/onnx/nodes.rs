//! Nodes that compute: convolutions, matrix products, normalisation, arithmetic, pools, activations.

use super::constant::kind;
use super::import::{Importer, Operand, Outcome, Reading, Refusal, unknown_operator};
use crate::graph::ValueId;
use crate::op::{Activation, Arithmetic, Constant, Conv, Gemm, Op, Pool};

/// All operators that are read.
pub(super) const OPERATORS: [&str; 61] = [
    "Add",
    "ArgMax",
    "AveragePool",
    "BatchNormalization",
    "Cast",
    "CastLike",
    "Clip",
    "Concat",
    "Ceil",
    "Constant",
    "ConstantOfShape",
    "Conv",
    "DepthToSpace",
    "Div",
    "Dropout",
    "Elu",
    "Equal",
    "Erf",
    "Expand",
    "Flatten",
    "Floor",
    "Gather",
    "Gelu",
    "Gemm",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "LeakyRelu",
    "LogSoftmax",
    "MatMul",
    "MaxPool",
    "Mul",
    "PRelu",
    "Pad",
    "Pow",
    "ReduceMax",
    "ReduceMean",
    "Relu",
    "Reshape",
    "Resize",
    "Shape",
    "Sigmoid",
    "Slice",
    "Softmax",
    "SpaceToDepth",
    "Split",
    "Sqrt",
    "Squeeze",
    "Sub",
    "Sum",
    "Tanh",
    "Transpose",
    "Unsqueeze",
    "Upsample",
    "Where",
    "Neg",
    "Reciprocal",
    "Max",
    "Min",
];

/// Extents along the two axes of a plane, from a file that may have one.
struct Window {
    kernel: [usize; 2],
    stride: [usize; 2],
    dilation: [usize; 2],
    /// Top, left, bottom, right.
    padding: [usize; 4],
}

fn in_training_mode() -> Refusal {
    Refusal {
        reason: "is in training mode".into(),
        remedy: "export the network in evaluation mode (model.eval())".into(),
    }
}

impl Importer<'_, '_> {
    pub(super) fn compute(&mut self, r: &Reading<'_>) -> Result<Outcome, Refusal> {
        let op = r.node.op_type.as_str();
        let activation = match op {
            "Relu" => Some(Activation::Relu),
            "LeakyRelu" => Some(Activation::LeakyRelu { alpha: r.float("alpha", 0.01) }),
            "Sigmoid" => Some(Activation::Sigmoid),
            "HardSigmoid" => Some(Activation::HardSigmoid { alpha: r.float("alpha", 0.2), beta: r.float("beta", 0.5) }),
            "HardSwish" => Some(Activation::HardSwish),
            "Tanh" => Some(Activation::Tanh),
            "Elu" => Some(Activation::Elu { alpha: r.float("alpha", 1.0) }),
            "Gelu" if r.text("approximate", "none") == "tanh" => Some(Activation::GeluTanh),
            "Gelu" => Some(Activation::Gelu),
            "Erf" => Some(Activation::Erf),
            "Clip" => Some(self.clip(r)?),
            "Cast" => match r.int("to", 0) as i32 {
                kind::FLOAT | kind::FLOAT16 | kind::BFLOAT16 | kind::DOUBLE => None,
                kind::BOOL => Some(Activation::NonZero),
                kind::INT32 | kind::INT64 | kind::INT8 | kind::UINT8 => Some(Activation::Truncate),
                other => return Err(format!("casts to type {other}, which is no number").into()),
            },
            _ => None,
        };
        if let Some(activation) = activation {
            let x = self.value(r, 0)?;
            return self.push(r, Op::Activation(activation), vec![x]).map(Outcome::Value);
        }
        let value = match op {
            "Dropout"
                if self.constant_input(r, 2).and_then(|c| c.floats()).is_some_and(|f| f.iter().any(|&v| v != 0.0)) =>
            {
                return Err(in_training_mode());
            }
            "Identity" | "Dropout" | "Cast" | "CastLike" => self.value(r, 0)?,
            "Conv" => self.conv(r)?,
            "Gemm" => self.gemm(r)?,
            "MatMul" => self.matmul(r)?,
            "BatchNormalization" => self.batch_norm(r)?,
            "MaxPool" | "AveragePool" | "GlobalAveragePool" | "GlobalMaxPool" => self.pool(r)?,
            "Add" | "Sub" | "Mul" | "Div" | "PRelu" => self.arithmetic(r)?,
            "Sum" => self.sum(r)?,
            "Neg" => {
                let x = self.value(r, 0)?;
                let constant = Constant { shape: vec![], data: vec![-1.0] };
                self.push(r, Op::WithConstant { op: Arithmetic::Mul, constant, constant_first: false }, vec![x])?
            }
            "Pow" => {
                let x = self.value(r, 0)?;
                let exponent = self.scalar(r, 1, "", 0.0)?;
                if ![1.0, 2.0, 3.0, 4.0].contains(&exponent) {
                    let reason = format!("raises to the power {exponent}");
                    return Err(Refusal { reason, remedy: "only powers of 1 to 4 are supported".into() });
                }
                let times = |importer: &mut Self, y| importer.push(r, Op::Arithmetic(Arithmetic::Mul), vec![y, x]);
                (1..exponent as u32).try_fold(x, |y, _| times(self, y))?
            }
            "Sqrt" | "Reciprocal" | "Max" | "Min" | "Equal" | "Expand" | "Where" | "Ceil" | "Floor"
            | "ConstantOfShape" => {
                return Err(Refusal { reason: "is only computed from constants".into(), ..unknown_operator(r) });
            }
            _ => return self.moved(r),
        };
        Ok(Outcome::Value(value))
    }

    /// A single number from an input or, in older operator sets, an attribute.
    fn scalar(&self, r: &Reading<'_>, i: usize, attribute: &str, default: f32) -> Result<f32, Refusal> {
        if r.attribute(attribute).is_some() || r.input(i).is_none() {
            return Ok(r.float(attribute, default));
        }
        let floats = self.constant_input(r, i).and_then(|c| c.floats());
        match floats.as_deref() {
            Some([one]) if !one.is_nan() => Ok(*one),
            _ => Err(format!("its input {i} must be a constant number").into()),
        }
    }

    pub(super) fn fill(&self, r: &Reading<'_>) -> Result<f32, Refusal> {
        self.scalar(r, 2, "value", 0.0)
    }

    fn clip(&self, r: &Reading<'_>) -> Result<Activation, Refusal> {
        let (low, high) = (self.scalar(r, 1, "min", f32::MIN)?, self.scalar(r, 2, "max", f32::MAX)?);
        Ok(Activation::Clip { low: low.max(f32::MIN), high: high.min(f32::MAX) })
    }

    /// A value as planes: `[channels, length]` gets a width of 1. Also the number of spatial dimensions.
    fn planes(&mut self, r: &Reading<'_>, x: ValueId) -> Result<(ValueId, usize), Refusal> {
        match *self.graph.shape(x) {
            [_, _, _] => Ok((x, 2)),
            [channels, length] => Ok((self.shaped(r, x, vec![channels, length, 1])?, 1)),
            ref other => {
                Err(format!("needs an input [channels, height, width] or [channels, length], got {other:?}").into())
            }
        }
    }

    /// The result of an operation on planes in the dimensions of its input.
    fn unplaned(&mut self, r: &Reading<'_>, y: ValueId, spatial: usize) -> Result<ValueId, Refusal> {
        let shape = self.graph.shape(y)[..=spatial].to_vec();
        self.shaped(r, y, shape)
    }

    /// `n` numbers that are not negative, the second of one axis being `missing`.
    fn extents(
        r: &Reading<'_>,
        name: &str,
        n: usize,
        default: [usize; 2],
        missing: usize,
    ) -> Result<[usize; 2], Refusal> {
        let Some(list) = r.list(name) else { return Ok(default) };
        let sizes: Option<Vec<usize>> = list.iter().map(|&v| usize::try_from(v).ok()).collect();
        match sizes.as_deref() {
            Some(&[a]) if n == 1 => Ok([a, missing]),
            Some(&[a, b]) if n == 2 => Ok([a, b]),
            _ => Err(format!("its attribute {name} must be {n} numbers, got {list:?}").into()),
        }
    }

    fn window(&self, r: &Reading<'_>, x: ValueId, n: usize, kernel: [usize; 2]) -> Result<Window, Refusal> {
        let kernel = Self::extents(r, "kernel_shape", n, kernel, 1)?;
        let stride = Self::extents(r, "strides", n, [1, 1], 1)?;
        let dilation = Self::extents(r, "dilations", n, [1, 1], 1)?;
        let padding = self.padding(r, x, n, (kernel, stride, dilation))?;
        Ok(Window { kernel, stride, dilation, padding })
    }

    /// Explicit or automatic padding: top, left, bottom, right.
    fn padding(
        &self,
        r: &Reading<'_>,
        x: ValueId,
        n: usize,
        (kernel, stride, dilation): ([usize; 2], [usize; 2], [usize; 2]),
    ) -> Result<[usize; 4], Refusal> {
        let lower = match r.text("auto_pad", "NOTSET").as_str() {
            "NOTSET" | "" => {
                let Some(list) = r.list("pads") else { return Ok([0; 4]) };
                let sizes: Option<Vec<usize>> = list.iter().map(|&v| usize::try_from(v).ok()).collect();
                return match sizes.as_deref() {
                    Some(&[a, b]) if n == 1 => Ok([a, 0, b, 0]),
                    Some(&[a, b, c, d]) if n == 2 => Ok([a, b, c, d]),
                    _ => Err(format!("its attribute pads must be {} numbers from 0 on, got {list:?}", 2 * n).into()),
                };
            }
            "VALID" => return Ok([0; 4]),
            "SAME_UPPER" => false,
            "SAME_LOWER" => true,
            other => return Err(format!("its auto_pad \"{other}\" is unknown").into()),
        };
        let shape = self.graph.shape(x);
        let total = |axis: usize| {
            let (size, stride) = (shape[axis + 1], stride[axis].max(1));
            let reach = kernel[axis].saturating_sub(1).saturating_mul(dilation[axis]).saturating_add(1);
            (size.div_ceil(stride) - 1).saturating_mul(stride).saturating_add(reach).saturating_sub(size)
        };
        let split = |total: usize| if lower { (total.div_ceil(2), total / 2) } else { (total / 2, total.div_ceil(2)) };
        let ((top, bottom), (left, right)) = (split(total(0)), split(total(1)));
        Ok([top, left, bottom, right])
    }

    fn conv(&mut self, r: &Reading<'_>) -> Result<ValueId, Refusal> {
        let x = self.value(r, 0)?;
        let (dims, weight) = self.weights(r, 1)?.ok_or("has no weights")?;
        let (x, n) = self.planes(r, x)?;
        let (filters, channels, kernel) = match (&dims[..], n) {
            (&[filters, channels, k], 1) => (filters, channels, [k, 1]),
            (&[filters, channels, kh, kw], 2) => (filters, channels, [kh, kw]),
            _ => return Err(format!("its weights {dims:?} do not fit an input of {n} spatial dimensions").into()),
        };
        let Window { kernel: given, stride, dilation, padding } = self.window(r, x, n, kernel)?;
        if given != kernel {
            return Err(format!("its kernel_shape {given:?} differs from its weights {dims:?}").into());
        }
        let groups = usize::try_from(r.int("group", 1)).map_err(|_| "its group is negative")?;
        let bias = self.weights(r, 2)?.map_or_else(|| vec![0.0; filters], |(_, b)| b);
        let conv = Conv { weight, bias, filters, channels, kernel, stride, padding, dilation, groups };
        let y = self.push(r, Op::Conv(conv), vec![x])?;
        self.unplaned(r, y, n)
    }

    fn gemm(&mut self, r: &Reading<'_>) -> Result<ValueId, Refusal> {
        let x = self.value(r, 0)?;
        let (dims, weight) = self.weights(r, 1)?.ok_or("has no weights")?;
        let [rows, cols] = dims[..] else { return Err(format!("its weights must be a matrix, got {dims:?}").into()) };
        if r.int("transA", 0) != 0 {
            return Err("transposes its input (transA)".into());
        }
        let (alpha, beta) = (r.float("alpha", 1.0), r.float("beta", 1.0));
        let given = r.int("transB", 0) != 0;
        let (outputs, inputs) = if given { (rows, cols) } else { (cols, rows) };
        let at = |o: usize, i: usize| if given { weight[o * cols + i] } else { weight[i * cols + o] };
        let weight = (0..outputs).flat_map(|o| (0..inputs).map(move |i| alpha * at(o, i))).collect();
        let bias = match self.weights(r, 2)? {
            None => vec![0.0; outputs],
            Some((_, b)) if b.len() == 1 => vec![beta * b[0]; outputs],
            Some((_, b)) if b.len() == outputs => b.iter().map(|b| beta * b).collect(),
            Some((dims, _)) => return Err(format!("its bias {dims:?} does not fit {outputs} outputs").into()),
        };
        self.push(r, Op::Gemm(Gemm { weight, bias, inputs, outputs }), vec![x])
    }

    /// A product with a constant matrix, on either side. On anything but a list of features it is a 1x1 convolution.
    fn matmul(&mut self, r: &Reading<'_>) -> Result<ValueId, Refusal> {
        let weights_first = matches!(self.operand(r, 0)?, Operand::Constant(_));
        let x = self.value(r, usize::from(weights_first))?;
        let (dims, weight) = self.weights(r, usize::from(!weights_first))?.ok_or("has no weights")?;
        let [rows, cols] = dims[..] else { return Err(format!("its weights must be a matrix, got {dims:?}").into()) };
        let (outputs, inputs) = if weights_first { (rows, cols) } else { (cols, rows) };
        let turned = || (0..outputs).flat_map(|o| (0..inputs).map(move |i| (o, i)));
        let weight: Vec<f32> =
            if weights_first { weight } else { turned().map(|(o, i)| weight[i * cols + o]).collect() };
        let bias = vec![0.0; outputs];
        let shape = self.graph.shape(x).to_vec();
        let product = |positions: usize| format!("multiplies {shape:?} ({positions} positions) with {dims:?}");
        if let (&[_], false) = (&shape[..], weights_first) {
            return self.push(r, Op::Gemm(Gemm { weight, bias, inputs, outputs }), vec![x]);
        }
        let conv = Conv {
            weight,
            bias,
            filters: outputs,
            channels: inputs,
            kernel: [1, 1],
            stride: [1, 1],
            padding: [0; 4],
            dilation: [1, 1],
            groups: 1,
        };
        // Features first, positions behind them.
        let order = |r: &Reading<'_>, this: &mut Self, v: ValueId| {
            this.graph.push(format!("{}/transpose", r.name), Op::Transpose(vec![1, 0]), vec![v])
        };
        if weights_first {
            let &[features, positions] = &shape[..] else { return Err(product(0).into()) };
            let planes = self.shaped(r, x, vec![features, positions, 1])?;
            let y = self.push(r, Op::Conv(conv), vec![planes])?;
            return self.shaped(r, y, vec![outputs, positions]);
        }
        let (&features, before) = shape.split_last().ok_or("has an input without dimensions")?;
        let positions: usize = before.iter().product();
        let rows = self.shaped(r, x, vec![positions, features])?;
        let columns = order(r, self, rows)?;
        let planes = self.shaped(r, columns, vec![features, positions, 1])?;
        let y = self.push(r, Op::Conv(conv), vec![planes])?;
        let columns = self.shaped(r, y, vec![outputs, positions])?;
        let rows = order(r, self, columns)?;
        self.shaped(r, rows, [before, &[outputs]].concat())
    }

    /// `y = g*(x - mean)/sqrt(var + eps) + b` is one scale and shift per channel: folded into the linear node in front if nothing else
    /// reads its output, else done on the client.
    fn batch_norm(&mut self, r: &Reading<'_>) -> Result<ValueId, Refusal> {
        let x = self.value(r, 0)?;
        let part = |i| Ok::<_, Refusal>(self.weights(r, i)?.ok_or("a parameter is missing")?.1);
        let (gamma, beta, mean, var) = (part(1)?, part(2)?, part(3)?, part(4)?);
        if [beta.len(), mean.len(), var.len()] != [gamma.len(); 3] {
            return Err("its parameters differ in length".into());
        }
        if r.int("training_mode", 0) != 0 {
            return Err(in_training_mode());
        }
        let eps = r.float("epsilon", 1e-5);
        let scale: Vec<f32> = gamma.iter().zip(&var).map(|(g, v)| g / (v + eps).sqrt()).collect();
        let shift: Vec<f32> = beta.iter().zip(&mean).zip(&scale).map(|((b, m), s)| b - m * s).collect();
        if scale.iter().chain(&shift).any(|v| !v.is_finite()) {
            return Err("its variances give no finite scale".into());
        }
        if self.single_use(r) && self.graph.fold_scale(x, &scale, &shift) {
            return Ok(x);
        }
        let mut shape = vec![1; self.graph.shape(x).len()];
        match (shape.first_mut(), self.graph.shape(x).first()) {
            (Some(first), Some(&channels)) if channels == scale.len() => *first = channels,
            _ => return Err(format!("has {} channels, its input is {:?}", scale.len(), self.graph.shape(x)).into()),
        }
        let constant = Constant { shape: shape.clone(), data: scale };
        let op = Op::WithConstant { op: Arithmetic::Mul, constant, constant_first: false };
        let scaled = self.graph.push(format!("{}/scale", r.name), op, vec![x])?;
        let constant = Constant { shape, data: shift };
        self.push(r, Op::WithConstant { op: Arithmetic::Add, constant, constant_first: false }, vec![scaled])
    }

    fn arithmetic(&mut self, r: &Reading<'_>) -> Result<ValueId, Refusal> {
        let op = match r.node.op_type.as_str() {
            "Add" => Arithmetic::Add,
            "Sub" => Arithmetic::Sub,
            "Mul" => Arithmetic::Mul,
            "Div" => Arithmetic::Div,
            _ => Arithmetic::PRelu,
        };
        let (x, constant_first) = match (self.operand(r, 0)?, self.operand(r, 1)?) {
            (Operand::Value(a), Operand::Value(b)) => return self.push(r, Op::Arithmetic(op), vec![a, b]),
            (Operand::Value(x), Operand::Constant(_)) => (x, false),
            (Operand::Constant(_), Operand::Value(x)) => (x, true),
            _ => return Err("computes with constants of different shapes".into()),
        };
        let (dims, data) = self.weights(r, usize::from(!constant_first))?.ok_or("has no second operand")?;
        let rank = self.graph.shape(x).len();
        let shape = match self.without_batch(&dims, x) {
            Ok(shape) => shape,
            // A slope per channel, written without the dimensions behind it.
            Err(_) if op == Arithmetic::PRelu && self.graph.shape(x).first() == Some(&data.len()) => {
                let mut shape = vec![1; rank];
                shape[0] = data.len();
                shape
            }
            Err(e) => return Err(e),
        };
        if self.single_use(r) && self.folded(x, op, constant_first, (&shape, &data)) {
            return Ok(x);
        }
        let constant = Constant { shape, data };
        self.push(r, Op::WithConstant { op, constant, constant_first }, vec![x])
    }

    /// Whether the constant went into the linear node in front: one value, or one per channel.
    fn folded(&mut self, x: ValueId, op: Arithmetic, first: bool, (shape, data): (&[usize], &[f32])) -> bool {
        let own = self.graph.shape(x);
        let channels = own[0];
        let per_channel = shape.len() == own.len() && shape[0] == channels && shape[1..].iter().all(|&d| d == 1);
        let spread: Vec<f32> = match data {
            [one] => vec![*one; channels],
            _ if per_channel => data.to_vec(),
            _ => return false,
        };
        let zero = vec![0.0; channels];
        match (op, first) {
            (Arithmetic::Add, _) => self.graph.fold_bias(x, &spread),
            (Arithmetic::Sub, false) => self.graph.fold_bias(x, &spread.iter().map(|v| -v).collect::<Vec<_>>()),
            (Arithmetic::Mul, _) => self.graph.fold_scale(x, &spread, &zero),
            (Arithmetic::Div, false) if spread.iter().all(|v| v.recip().is_finite()) => {
                self.graph.fold_scale(x, &spread.iter().map(|v| v.recip()).collect::<Vec<_>>(), &zero)
            }
            _ => false,
        }
    }

    fn sum(&mut self, r: &Reading<'_>) -> Result<ValueId, Refusal> {
        let mut sum = self.value(r, 0)?;
        for i in 1..r.node.input.len() {
            let other = self.value(r, i)?;
            sum = self.push(r, Op::ADD, vec![sum, other])?;
        }
        Ok(sum)
    }

    fn pool(&mut self, r: &Reading<'_>) -> Result<ValueId, Refusal> {
        let x = self.value(r, 0)?;
        let (x, n) = self.planes(r, x)?;
        let [_, h, w] = *self.graph.shape(x) else { return Err("needs planes".into()) };
        let max = matches!(r.node.op_type.as_str(), "MaxPool" | "GlobalMaxPool");
        let window = if r.node.op_type.starts_with("Global") {
            Window { kernel: [h, w], stride: [1, 1], dilation: [1, 1], padding: [0; 4] }
        } else {
            self.window(r, x, n, [0, 0])?
        };
        if r.node.output.iter().skip(1).any(|o| !o.is_empty()) {
            return Err("has a second output (indices)".into());
        }
        let Window { kernel, stride, dilation, padding } = window;
        let pool = Pool {
            kernel,
            stride,
            dilation,
            padding,
            count_padding: r.int("count_include_pad", 0) != 0,
            ceil: r.int("ceil_mode", 0) != 0,
        };
        let y = self.push(r, if max { Op::MaxPool(pool) } else { Op::AveragePool(pool) }, vec![x])?;
        self.unplaned(r, y, n)
    }
}
