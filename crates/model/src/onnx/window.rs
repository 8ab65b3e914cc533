//! Reads windows that slide over planes: their extents in a file, and pools.

use super::importer::Importer;
use super::reading::Reading;
use super::refusal::Refusal;
use crate::graph::ValueId;
use crate::op::{Op, Pool};

/// Extents along the two axes of a plane, from a file that may have one.
pub(super) struct Window {
    pub(super) kernel: [usize; 2],
    pub(super) stride: [usize; 2],
    pub(super) dilation: [usize; 2],
    /// Top, left, bottom, right.
    pub(super) padding: [usize; 4],
}

impl Importer<'_, '_> {
    /// Returns a value that the file sees as an image, with a batch dimension in front, which is
    /// left out here.
    pub(super) fn image(&mut self, r: &Reading<'_>, x: ValueId) -> Result<ValueId, Refusal> {
        let x = self.settled(r, x)?;
        if self.is_bare(x) {
            let dims = self.dims(x);
            return Err(Refusal::new(
                format!("needs images, its input is {dims:?}: the batch dimension was moved or joined before it"),
                "export with a batch of 1, and keep the batch dimension in front",
            ));
        }
        Ok(x)
    }

    /// Returns a value as planes, where `[channels, length]` gets a width of 1, and the number of
    /// its spatial dimensions.
    pub(super) fn planes(&mut self, r: &Reading<'_>, x: ValueId) -> Result<(ValueId, usize), Refusal> {
        let x = self.image(r, x)?;
        match *self.graph.shape(x) {
            [_, _, _] => Ok((x, 2)),
            [channels, length] => Ok((self.shaped(r, x, vec![channels, length, 1])?, 1)),
            ref other => {
                Err(format!("needs an input [channels, height, width] or [channels, length], got {other:?}").into())
            }
        }
    }

    /// Gives the result of an operation on planes the `spatial` dimensions of its input.
    pub(super) fn unplaned(&mut self, r: &Reading<'_>, y: ValueId, spatial: usize) -> Result<ValueId, Refusal> {
        let shape = self.graph.shape(y)[..=spatial].to_vec();
        self.shaped(r, y, shape)
    }

    /// Reads `n` numbers that are not negative, the second of one axis being `missing`.
    pub(super) fn extents(
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

    pub(super) fn window(&self, r: &Reading<'_>, x: ValueId, n: usize, kernel: [usize; 2]) -> Result<Window, Refusal> {
        let kernel = Self::extents(r, "kernel_shape", n, kernel, 1)?;
        let stride = Self::extents(r, "strides", n, [1, 1], 1)?;
        let dilation = Self::extents(r, "dilations", n, [1, 1], 1)?;
        let padding = self.padding(r, x, n, (kernel, stride, dilation))?;
        Ok(Window { kernel, stride, dilation, padding })
    }

    /// Returns explicit or automatic padding: top, left, bottom, right.
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

    pub(super) fn pool(&mut self, r: &Reading<'_>) -> Result<ValueId, Refusal> {
        let x = self.value(r, 0)?;
        let x = self.image(r, x)?;
        if let &[c, d, h, w] = self.graph.shape(x) {
            return self.pool_of_volume(r, x, [c, d, h, w]);
        }
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

    /// Appends a pool over volumes whose window is flat: along the first axis alone, or along the
    /// other two.
    fn pool_of_volume(&mut self, r: &Reading<'_>, x: ValueId, [c, d, h, w]: [usize; 4]) -> Result<ValueId, Refusal> {
        let max = r.node.op_type == "MaxPool";
        let of = |name: &str, default: i64| r.list(name).map_or_else(|| vec![default; 3], <[i64]>::to_vec);
        let (kernel, stride, dilation) = (of("kernel_shape", 0), of("strides", 1), of("dilations", 1));
        let pads = r.list("pads").map_or_else(|| vec![0; 6], <[i64]>::to_vec);
        let sizes = [&kernel, &stride, &dilation].map(|v| v.len() == 3 && v.iter().all(|&v| (1..1 << 20).contains(&v)));
        if sizes != [true; 3] || pads.len() != 6 || pads.iter().any(|p| !(0..1 << 20).contains(p)) {
            return Err("is a pool over volumes whose window is not read".into());
        }
        let flat = |axis: usize| (kernel[axis], stride[axis], pads[axis], pads[axis + 3]) == (1, 1, 0, 0);
        let at = |v: &[i64], axis: usize| v[axis] as usize;
        let pool = |axes: [Option<usize>; 2]| {
            let two = |v: &[i64]| axes.map(|a| a.map_or(1, |a| at(v, a)));
            let pad = |offset: usize| axes.map(|a| a.map_or(0, |a| at(&pads, a + offset)));
            let ([top, left], [bottom, right]) = (pad(0), pad(3));
            Pool {
                kernel: two(&kernel),
                stride: two(&stride),
                dilation: two(&dilation),
                padding: [top, left, bottom, right],
                count_padding: r.int("count_include_pad", 0) != 0,
                ceil: r.int("ceil_mode", 0) != 0,
            }
        };
        let (planes, pool) = if flat(1) && flat(2) {
            ([c, d, h * w], pool([Some(0), None]))
        } else if flat(0) {
            ([c * d, h, w], pool([Some(1), Some(2)]))
        } else {
            return Err("is a pool over volumes".into());
        };
        let x = self.shaped(r, x, planes.to_vec())?;
        let y = self.push(r, if max { Op::MaxPool(pool) } else { Op::AveragePool(pool) }, vec![x])?;
        let &[_, rows, columns] = self.graph.shape(y) else { return Err("is a pool over volumes".into()) };
        let shape = if flat(1) && flat(2) { vec![c, rows, h, w] } else { vec![c, d, rows, columns] };
        self.shaped(r, y, shape)
    }
}
