//! Reads functions of every single value, and arithmetic of two values.

use super::constant::kind;
use super::importer::Importer;
use super::reading::{Operand, Reading};
use super::refusal::Refusal;
use crate::graph::ValueId;
use crate::op::{Activation, Arithmetic, Constant, Op};

/// ONNX operators that are read here.
pub(super) const OPERATORS: [&str; 54] = [
    "Abs",
    "Add",
    "Cast",
    "CastLike",
    "Ceil",
    "Celu",
    "Clip",
    "Div",
    "Dropout",
    "Elu",
    "Erf",
    "Exp",
    "Floor",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "LeakyRelu",
    "Log",
    "Max",
    "Mean",
    "Min",
    "Mish",
    "Mul",
    "Neg",
    "PRelu",
    "Pow",
    "Reciprocal",
    "Relu",
    "Round",
    "Selu",
    "Sigmoid",
    "Sign",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Sub",
    "Sum",
    "Swish",
    "Tanh",
    "ThresholdedRelu",
    "Where",
    "Not",
    "Equal",
    "Less",
    "Greater",
    "LessOrEqual",
    "GreaterOrEqual",
    "And",
    "Or",
    "Xor",
    "Sin",
    "Cos",
    "Atan",
];

impl Importer<'_, '_> {
    pub(super) fn activation(&mut self, r: &Reading<'_>) -> Result<ValueId, Refusal> {
        if let Some(activation) = self.function(r)? {
            let x = self.value(r, 0)?;
            return self.push(r, Op::Activation(activation), vec![x]);
        }
        match r.node.op_type.as_str() {
            "Dropout"
                if self.constant_input(r, 2).and_then(|c| c.floats()).is_some_and(|f| f.iter().any(|&v| v != 0.0)) =>
            {
                Err(Refusal::in_training_mode())
            }
            "Add" | "Sub" | "Mul" | "Div" | "PRelu" | "Pow" => self.arithmetic(r),
            "Sum" | "Mean" | "Max" | "Min" => self.all_of(r),
            "Neg" => {
                let x = self.value(r, 0)?;
                self.scaled(r, x, -1.0)
            }
            // x times Sigmoid(alpha * x).
            "Swish" => {
                let x = self.value(r, 0)?;
                let scaled = self.scaled(r, x, r.float("alpha", 1.0))?;
                let gate = self.push(r, Op::Activation(Activation::Sigmoid), vec![scaled])?;
                self.push(r, Op::Arithmetic(Arithmetic::Mul), vec![x, gate])
            }
            "Where" => self.choose(r),
            "Equal" | "Less" | "LessOrEqual" | "Greater" | "GreaterOrEqual" | "And" | "Or" | "Xor" => self.compare(r),
            // Truth values are 0 and 1.
            "Not" => {
                let x = self.value(r, 0)?;
                self.with_number(r, Arithmetic::Equal, x, 0.0)
            }
            _ => self.value(r, 0),
        }
    }

    /// Returns the function of every value that a node computes, or `None` if it computes something
    /// else.
    fn function(&self, r: &Reading<'_>) -> Result<Option<Activation>, Refusal> {
        Ok(Some(match r.node.op_type.as_str() {
            "Relu" => Activation::Relu,
            "LeakyRelu" => Activation::LeakyRelu { alpha: r.float("alpha", 0.01) },
            "Sigmoid" => Activation::Sigmoid,
            "HardSigmoid" => Activation::HardSigmoid { alpha: r.float("alpha", 0.2), beta: r.float("beta", 0.5) },
            "HardSwish" => Activation::HardSwish,
            "Tanh" => Activation::Tanh,
            "Elu" => Activation::Elu { alpha: r.float("alpha", 1.0) },
            "Celu" => match r.float("alpha", 1.0) {
                alpha if alpha > 0.0 => Activation::Celu { alpha },
                alpha => return Err(format!("has the width {alpha}, it must be above 0").into()),
            },
            "Selu" => Activation::Selu { alpha: r.float("alpha", 1.673_263_2), gamma: r.float("gamma", 1.050_701) },
            "Gelu" if r.text("approximate", "none") == "tanh" => Activation::GeluTanh,
            "Gelu" => Activation::Gelu,
            "Erf" => Activation::Erf,
            "Abs" => Activation::Abs,
            "Sqrt" => Activation::Sqrt,
            "Exp" => Activation::Exp,
            "Log" => Activation::Log,
            "Reciprocal" => Activation::Reciprocal,
            "Floor" => Activation::Floor,
            "Ceil" => Activation::Ceil,
            "Round" => Activation::Round,
            "Sign" => Activation::Sign,
            "Sin" => Activation::Sin,
            "Cos" => Activation::Cos,
            "Atan" => Activation::Atan,
            "Softplus" => Activation::Softplus,
            "Softsign" => Activation::Softsign,
            "Mish" => Activation::Mish,
            "ThresholdedRelu" => Activation::Thresholded { alpha: r.float("alpha", 1.0) },
            "Clip" => {
                let (low, high) = (self.scalar(r, 1, "min", f32::MIN)?, self.scalar(r, 2, "max", f32::MAX)?);
                Activation::Clip { low: low.max(f32::MIN), high: high.min(f32::MAX) }
            }
            "Pow" => match self.constant_input(r, 1).and_then(|c| c.floats()).as_deref() {
                Some(&[exponent]) if exponent.is_finite() => Activation::Pow { exponent },
                _ => return Ok(None),
            },
            "Cast" => match r.int("to", 0) as i32 {
                kind::FLOAT | kind::FLOAT16 | kind::BFLOAT16 | kind::DOUBLE => return Ok(None),
                kind::BOOL => Activation::NonZero,
                kind::INT32 | kind::INT64 | kind::INT8 | kind::UINT8 => Activation::Truncate,
                other => return Err(format!("casts to type {other}, which is no number").into()),
            },
            _ => return Ok(None),
        }))
    }

    /// Appends a product of a value and a number.
    pub(super) fn scaled(&mut self, r: &Reading<'_>, x: ValueId, factor: f32) -> Result<ValueId, Refusal> {
        if factor == 1.0 {
            return Ok(x);
        }
        self.with_number(r, Arithmetic::Mul, x, factor)
    }

    /// Appends an operation on a value and a number.
    pub(super) fn with_number(
        &mut self,
        r: &Reading<'_>,
        op: Arithmetic,
        x: ValueId,
        number: f32,
    ) -> Result<ValueId, Refusal> {
        let constant = Constant { shape: vec![], data: vec![number] };
        self.push(r, Op::WithConstant { op, constant, constant_first: false }, vec![x])
    }

    /// Appends an operation on a value and a constant of the shape that a file gives it.
    pub(super) fn with_constant(
        &mut self,
        r: &Reading<'_>,
        (op, constant_first): (Arithmetic, bool),
        x: ValueId,
        (dims, data): (&[usize], Vec<f32>),
    ) -> Result<ValueId, Refusal> {
        let (x, shape) = self.beside(r, x, dims)?;
        let y = self.push(r, Op::WithConstant { op, constant: Constant { shape, data }, constant_first }, vec![x])?;
        self.settled(r, y)
    }

    /// Appends an operation on two computed values.
    pub(super) fn both(&mut self, r: &Reading<'_>, op: Arithmetic, a: ValueId, b: ValueId) -> Result<ValueId, Refusal> {
        let (a, b) = self.together(r, a, b)?;
        let y = self.push(r, Op::Arithmetic(op), vec![a, b])?;
        self.settled(r, y)
    }

    fn arithmetic(&mut self, r: &Reading<'_>) -> Result<ValueId, Refusal> {
        let op = match r.node.op_type.as_str() {
            "Add" => Arithmetic::Add,
            "Sub" => Arithmetic::Sub,
            "Mul" => Arithmetic::Mul,
            "Div" => Arithmetic::Div,
            "Pow" => Arithmetic::Pow,
            _ => Arithmetic::PRelu,
        };
        let (x, constant_first) = match (self.operand(r, 0)?, self.operand(r, 1)?) {
            (Operand::Value(a), Operand::Value(b)) => return self.both(r, op, a, b),
            (Operand::Value(x), Operand::Constant(_)) => (x, false),
            (Operand::Constant(_), Operand::Value(x)) => (x, true),
            _ => return Err("computes with constants of different shapes".into()),
        };
        let (dims, data) = self.weights(r, usize::from(!constant_first))?.ok_or("has no second operand")?;
        let own = self.graph.shape(x).to_vec();
        // A slope per channel, written without the dimensions behind it.
        let dims = if op == Arithmetic::PRelu
            && crate::shape_inference::broadcast(&self.dims(x), &dims).is_err()
            && own.first() == Some(&data.len())
        {
            let mut shape = vec![1; own.len()];
            shape[0] = data.len();
            shape
        } else {
            dims
        };
        if self.single_use(r) && !self.is_bare(x) {
            let shape = if dims.len() == own.len() + 1 && dims[0] == 1 { &dims[1..] } else { &dims[..] };
            if self.fold_constant(x, op, constant_first, (shape, &data)) {
                return Ok(x);
            }
        }
        self.with_constant(r, (op, constant_first), x, (&dims, data))
    }

    /// Folds a constant of one number, or one per channel, into the linear node in front; returns
    /// whether that was possible.
    fn fold_constant(&mut self, x: ValueId, op: Arithmetic, first: bool, (shape, data): (&[usize], &[f32])) -> bool {
        let own = self.graph.shape(x);
        let Some(&channels) = own.first() else { return false };
        let per_channel = shape.len() == own.len() && shape[0] == channels && shape[1..].iter().all(|&d| d == 1);
        let spread: Vec<f32> = match data {
            [one] => vec![*one; channels],
            _ if per_channel => data.to_vec(),
            _ => return false,
        };
        let (zero, one) = (vec![0.0; channels], vec![1.0; channels]);
        match (op, first) {
            (Arithmetic::Add, _) => self.fold_into(x, &one, &spread),
            (Arithmetic::Sub, false) => self.fold_into(x, &one, &spread.iter().map(|v| -v).collect::<Vec<_>>()),
            (Arithmetic::Mul, _) => self.fold_into(x, &spread, &zero),
            (Arithmetic::Div, false) if spread.iter().all(|v| v.recip().is_finite()) => {
                self.fold_into(x, &spread.iter().map(|v| v.recip()).collect::<Vec<_>>(), &zero)
            }
            _ => false,
        }
    }

    /// Scales and shifts the channels of a value in the linear node that computes it. Returns
    /// `false` if none does.
    pub(super) fn fold_into(&mut self, x: ValueId, scale: &[f32], shift: &[f32]) -> bool {
        let (node, times) = self.spread.get(&x).copied().unwrap_or((x, 1));
        let spread = |v: &[f32]| v.iter().flat_map(|&v| std::iter::repeat_n(v, times)).collect::<Vec<_>>();
        self.graph.fold_scale(node, &spread(scale), &spread(shift))
    }

    /// Appends the sum, mean, largest or smallest of any number of operands.
    fn all_of(&mut self, r: &Reading<'_>) -> Result<ValueId, Refusal> {
        let op = match r.node.op_type.as_str() {
            "Max" => Arithmetic::Max,
            "Min" => Arithmetic::Min,
            _ => Arithmetic::Add,
        };
        let count = r.node.input.len();
        let first = (0..count).find_map(|i| self.value(r, i).ok().map(|v| (i, v)));
        let (at, mut all) = first.ok_or("has no input that is computed")?;
        for i in (0..count).filter(|&i| i != at) {
            all = match self.operand(r, i)? {
                Operand::Value(v) => self.both(r, op, all, v)?,
                Operand::Constant(_) => {
                    let (dims, data) = self.weights(r, i)?.ok_or("has an input that is missing")?;
                    self.with_constant(r, (op, false), all, (&dims, data))?
                }
            };
        }
        if r.node.op_type == "Mean" { self.scaled(r, all, 1.0 / count as f32) } else { Ok(all) }
    }

    /// Appends a comparison, which gives 0 or 1, or an operation on truth values: the product
    /// stands for `And`, the larger one for `Or`.
    fn compare(&mut self, r: &Reading<'_>) -> Result<ValueId, Refusal> {
        let (op, turned, negated) = match r.node.op_type.as_str() {
            "Less" => (Arithmetic::Less, false, false),
            "LessOrEqual" => (Arithmetic::LessOrEqual, false, false),
            "Greater" => (Arithmetic::Less, true, false),
            "GreaterOrEqual" => (Arithmetic::LessOrEqual, true, false),
            "And" => (Arithmetic::Mul, false, false),
            "Or" => (Arithmetic::Max, false, false),
            "Xor" => (Arithmetic::Equal, false, true),
            _ => (Arithmetic::Equal, false, false),
        };
        let (first, second) = if turned { (1, 0) } else { (0, 1) };
        let y = match (self.operand(r, first)?, self.operand(r, second)?) {
            (Operand::Value(a), Operand::Value(b)) => self.both(r, op, a, b)?,
            (Operand::Value(x), _) => {
                let (dims, data) = self.weights(r, second)?.ok_or("has no second operand")?;
                self.with_constant(r, (op, false), x, (&dims, data))?
            }
            (_, Operand::Value(x)) => {
                let (dims, data) = self.weights(r, first)?.ok_or("has no second operand")?;
                self.with_constant(r, (op, true), x, (&dims, data))?
            }
            _ => return Err("compares constants of unknown types".into()),
        };
        if negated { self.with_number(r, Arithmetic::Equal, y, 0.0) } else { Ok(y) }
    }

    /// Appends a choice of one value or another by a third; some of them may be constant.
    fn choose(&mut self, r: &Reading<'_>) -> Result<ValueId, Refusal> {
        let mut values = vec![];
        for i in 0..3 {
            if let Operand::Value(v) = self.operand(r, i)? {
                values.push(v);
            }
        }
        // All with the dimensions that the file gives them: constants may have more of them than
        // values.
        let whole: Vec<ValueId> = values.into_iter().map(|v| self.whole(r, v)).collect::<Result<_, _>>()?;
        let mut constants = [None, None, None];
        for (i, slot) in constants.iter_mut().enumerate() {
            if let Some(c) = self.constant_input(r, i) {
                let data = c.floats().ok_or("has a constant of an unknown type")?;
                *slot = Some(Constant { shape: c.dims.clone(), data });
            }
        }
        let y = self.push(r, Op::Choose(Box::new(constants)), whole)?;
        self.settled(r, y)
    }
}
