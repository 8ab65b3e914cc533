//! Reads linear layers, which the server computes, and nodes that are folded into them.

use super::importer::Importer;
use super::reading::{Operand, Reading};
use super::refusal::Refusal;
use super::window::Window;
use crate::graph::ValueId;
use crate::op::{Arithmetic, Constant, Conv, Gemm, Op};

/// ONNX operators that are read here.
pub(super) const OPERATORS: [&str; 10] = [
    "AveragePool",
    "BatchNormalization",
    "Conv",
    "ConvTranspose",
    "Einsum",
    "Gemm",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "MatMul",
    "MaxPool",
];

/// A constant matrix `[outputs][inputs]`, or several that each take and give some of the features.
pub(super) struct Matrix {
    pub(super) outputs: usize,
    inputs: usize,
    groups: usize,
    weight: Vec<f32>,
}

impl Matrix {
    /// Makes a matrix of the values of a file, which are `groups` matrices of `rows x cols`.
    /// `turned` says that the file has inputs as rows.
    pub(super) fn new((groups, rows, cols): (usize, usize, usize), values: &[f32], turned: bool) -> Self {
        let (outputs, inputs) = if turned { (cols, rows) } else { (rows, cols) };
        let at =
            |g: usize, o: usize, i: usize| (g * rows + if turned { i } else { o }) * cols + if turned { o } else { i };
        let mut weight = Vec::with_capacity(values.len());
        for g in 0..groups {
            for o in 0..outputs {
                weight.extend((0..inputs).map(|i| values[at(g, o, i)]));
            }
        }
        Self { outputs, inputs, groups, weight }
    }
}

impl Importer<'_, '_> {
    pub(super) fn linear(&mut self, r: &Reading<'_>) -> Result<ValueId, Refusal> {
        match r.node.op_type.as_str() {
            "Conv" => self.conv(r),
            "ConvTranspose" => self.conv_transpose(r),
            "Gemm" => self.gemm(r),
            "MatMul" => self.matmul(r),
            "Einsum" => self.einsum(r),
            "BatchNormalization" => self.batch_norm(r),
            _ => self.pool(r),
        }
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

    /// Appends `alpha * A * B + beta * C`, one of `A` and `B` constant.
    fn gemm(&mut self, r: &Reading<'_>) -> Result<ValueId, Refusal> {
        let weights_first = self.weights_first(r)?;
        let (dims, weight) = self.weights(r, usize::from(!weights_first))?.ok_or("has no weights")?;
        let &[rows, cols] = &dims[..] else { return Err(format!("its weights must be a matrix, got {dims:?}").into()) };
        let (of_x, of_w) = if weights_first { ("transB", "transA") } else { ("transA", "transB") };
        let weight: Vec<f32> = weight.iter().map(|w| r.float("alpha", 1.0) * w).collect();
        // A constant on the right has its inputs as rows, one on the left as columns, unless it is
        // transposed.
        let turned = (r.int(of_w, 0) != 0) == weights_first;
        let matrix = Matrix::new((1, rows, cols), &weight, turned);
        let mut x = self.value(r, usize::from(weights_first))?;
        if r.int(of_x, 0) != 0 {
            x = self.whole(r, x)?;
            x = self.push(r, Op::Transpose(vec![1, 0]), vec![x])?;
        }
        let (beta, outputs) = (r.float("beta", 1.0), matrix.outputs);
        let (dims, bias) = match self.weights(r, 2)? {
            None => return self.product(r, x, matrix, vec![0.0; outputs], weights_first),
            Some((dims, b)) => (dims, b.iter().map(|b| beta * b).collect::<Vec<f32>>()),
        };
        // One number, or one for each output, goes into the layer itself.
        match bias[..] {
            [one] => self.product(r, x, matrix, vec![one; outputs], weights_first),
            _ if !weights_first && bias.len() == outputs && dims.last() == Some(&outputs) => {
                self.product(r, x, matrix, bias, weights_first)
            }
            _ => {
                let y = self.product(r, x, matrix, vec![0.0; outputs], weights_first)?;
                self.with_constant(r, (Arithmetic::Add, false), y, (&dims, bias))
            }
        }
    }

    /// Returns whether the constant is the first operand of a product. Refuses a product of two
    /// computed values.
    pub(super) fn weights_first(&self, r: &Reading<'_>) -> Result<bool, Refusal> {
        match (self.operand(r, 0)?, self.operand(r, 1)?) {
            (Operand::Value(_), Operand::Value(_)) => Err(Refusal::of_two_computed()),
            (first, _) => Ok(matches!(first, Operand::Constant(_))),
        }
    }

    /// Appends a product with a constant on either side: a matrix, a vector, or one matrix for each
    /// of some dimensions in front.
    fn matmul(&mut self, r: &Reading<'_>) -> Result<ValueId, Refusal> {
        let weights_first = self.weights_first(r)?;
        let x = self.value(r, usize::from(weights_first))?;
        let (dims, weight) = self.weights(r, usize::from(!weights_first))?.ok_or("has no weights")?;
        // A vector is a matrix of one row or column, which the result does not have.
        let is_vector = dims.len() == 1;
        let full = match (&dims[..], weights_first) {
            (&[n], true) => vec![1, n],
            (&[n], false) => vec![n, 1],
            (other, _) => other.to_vec(),
        };
        let Some((before, &[rows, cols])) = full.split_last_chunk::<2>() else {
            return Err("has a single number as a matrix".into());
        };
        let before: Vec<usize> = before.iter().copied().skip_while(|&d| d == 1).collect();
        let groups: usize = before.iter().product();
        if groups > 1 {
            let of_x = self.dims(x);
            let own = of_x.len().checked_sub(2).map(|n| &of_x[..n]).unwrap_or_default();
            if !own.ends_with(&before) {
                return Err(format!(
                    "multiplies {of_x:?} with {groups} matrices {dims:?}, one for each of other positions"
                )
                .into());
            }
        }
        let matrix = Matrix::new((groups, rows, cols), &weight, !weights_first);
        let bias = vec![0.0; matrix.outputs * groups];
        let y = self.product(r, x, matrix, bias, weights_first)?;
        if !is_vector {
            return Ok(y);
        }
        let mut dims = self.dims(y);
        dims.remove(if weights_first { dims.len() - 2 } else { dims.len() - 1 });
        self.reshaped(r, y, &dims)
    }

    /// Appends a product of a value and a matrix. A list of features goes to a fully connected
    /// layer. Everything else goes to a 1x1 convolution, whose channels are the features and whose
    /// positions are all other dimensions.
    pub(super) fn product(
        &mut self,
        r: &Reading<'_>,
        x: ValueId,
        matrix: Matrix,
        bias: Vec<f32>,
        weights_first: bool,
    ) -> Result<ValueId, Refusal> {
        let Matrix { outputs, inputs, groups, weight } = matrix;
        if groups == 1 && !weights_first && self.graph.shape(x) == [inputs] && !self.is_bare(x) {
            return self.push(r, Op::Gemm(Gemm { weight, bias, inputs, outputs }), vec![x]);
        }
        let mut dims = self.dims(x);
        if dims.len() == 1 {
            dims.insert(usize::from(weights_first), 1);
            let (at, one) = (usize::from(weights_first), dims.clone());
            let x = self.reshaped(r, x, &one)?;
            let y = self.product(r, x, Matrix { outputs, inputs, groups, weight }, bias, weights_first)?;
            let mut shape = self.dims(y);
            shape.remove(at);
            return self.reshaped(r, y, &shape);
        }
        let x = self.whole(r, x)?;
        // [before, groups, rows, columns]: the features are the rows or the columns.
        let rank = dims.len();
        let (rows, columns) = (dims[rank - 2], dims[rank - 1]);
        let others: usize = dims[..rank - 2].iter().product();
        let features = if weights_first { rows } else { columns };
        if features != inputs || !others.is_multiple_of(groups.max(1)) {
            return Err(format!("multiplies {dims:?} with a matrix of {inputs} inputs and {outputs} outputs").into());
        }
        let (before, positions) = (others / groups, if weights_first { columns } else { rows });
        let four = self.reshaped(r, x, &[before, groups, rows, columns])?;
        let four = self.whole(r, four)?;
        let to_planes = if weights_first { vec![1, 2, 0, 3] } else { vec![1, 3, 0, 2] };
        let turned = self.push(r, Op::Transpose(to_planes), vec![four])?;
        let planes = self.shaped(r, turned, vec![groups * inputs, before * positions, 1])?;
        let conv = Conv {
            weight,
            bias,
            filters: groups * outputs,
            channels: inputs,
            kernel: [1, 1],
            stride: [1, 1],
            padding: [0; 4],
            dilation: [1, 1],
            groups,
        };
        let y = self.push(r, Op::Conv(conv), vec![planes])?;
        let four = self.reshaped(r, y, &[groups, outputs, before, positions])?;
        let four = self.whole(r, four)?;
        let back = if weights_first { vec![2, 0, 1, 3] } else { vec![2, 0, 3, 1] };
        let turned = self.push(r, Op::Transpose(back), vec![four])?;
        dims[if weights_first { rank - 2 } else { rank - 1 }] = outputs;
        self.reshaped(r, turned, &dims)
    }

    /// Appends or folds `y = g*(x - mean)/sqrt(var + eps) + b`, which is one scale and shift per
    /// channel: it goes into the linear node in front if nothing else reads that one's output, else
    /// the client computes it.
    pub(super) fn batch_norm(&mut self, r: &Reading<'_>) -> Result<ValueId, Refusal> {
        let x = self.value(r, 0)?;
        let x = if self.is_constant { x } else { self.image(r, x)? };
        let part = |i| Ok::<_, Refusal>(self.weights(r, i)?.ok_or("a parameter is missing")?.1);
        let (gamma, beta, mean, var) = (part(1)?, part(2)?, part(3)?, part(4)?);
        if [beta.len(), mean.len(), var.len()] != [gamma.len(); 3] {
            return Err("its parameters differ in length".into());
        }
        let eps = r.float("epsilon", 1e-5);
        if r.int("training_mode", 0) != 0 {
            return self.batch_norm_of_constant(r, x, (gamma, beta), eps);
        }
        let scale: Vec<f32> = gamma.iter().zip(&var).map(|(g, v)| g / (v + eps).sqrt()).collect();
        let shift: Vec<f32> = beta.iter().zip(&mean).zip(&scale).map(|((b, m), s)| b - m * s).collect();
        if scale.iter().chain(&shift).any(|v| !v.is_finite()) {
            return Err("its variances give no finite scale".into());
        }
        if self.single_use(r) && self.fold_into(x, &scale, &shift) {
            // Parameters that no training has touched say nothing about images.
            if mean.iter().any(|&m| m != 0.0) || var.iter().any(|&v| v != 1.0) {
                self.graph.set_trained(x, &gamma, &beta);
            }
            return Ok(x);
        }
        let x = self.image(r, x)?;
        let mut shape = vec![1; self.graph.shape(x).len()];
        match (shape.first_mut(), self.graph.shape(x).first()) {
            (Some(first), Some(&channels)) if channels == scale.len() => *first = channels,
            _ => return Err(format!("has {} channels, its input is {:?}", scale.len(), self.graph.shape(x)).into()),
        }
        self.scale_and_shift(r, x, (shape, scale, shift))
    }

    /// Appends a batch normalisation of a constant in training mode: exporters write the
    /// standardisation of weights so.
    fn batch_norm_of_constant(
        &mut self,
        r: &Reading<'_>,
        x: ValueId,
        (gamma, beta): (Vec<f32>, Vec<f32>),
        eps: f32,
    ) -> Result<ValueId, Refusal> {
        let dims = self.dims(x);
        if !self.is_constant || dims.len() < 2 {
            return Err(Refusal::in_training_mode());
        }
        let axes: Vec<i64> = (0..dims.len() as i64).filter(|&a| a != 1).collect();
        let y = self.standardised(r, x, &axes, eps)?;
        let mut shape = vec![1; dims.len()];
        shape[1] = gamma.len();
        let y = self.with_constant(r, (Arithmetic::Mul, false), y, (&shape, gamma))?;
        self.with_constant(r, (Arithmetic::Add, false), y, (&shape, beta))
    }

    /// Appends `x * scale + shift`, both constants of one shape.
    pub(super) fn scale_and_shift(
        &mut self,
        r: &Reading<'_>,
        x: ValueId,
        (shape, scale, shift): (Vec<usize>, Vec<f32>, Vec<f32>),
    ) -> Result<ValueId, Refusal> {
        let constant = Constant { shape: shape.clone(), data: scale };
        let op = Op::WithConstant { op: Arithmetic::Mul, constant, constant_first: false };
        let scaled = self.push(r, op, vec![x])?;
        let constant = Constant { shape, data: shift };
        self.push(r, Op::WithConstant { op: Arithmetic::Add, constant, constant_first: false }, vec![scaled])
    }
}
