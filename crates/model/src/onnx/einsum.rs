//! Reads sums of products over labelled dimensions, one operand of which is constant.

use super::importer::Importer;
use super::linear::Matrix;
use super::reading::Reading;
use super::refusal::Refusal;
use crate::graph::ValueId;
use crate::op::{Op, ReduceKind};
use crate::shape_inference::{strides, walk};

/// The labels of the operands and of the result.
struct Equation {
    x: Vec<char>,
    w: Vec<char>,
    out: Vec<char>,
}

impl Equation {
    fn read(text: &str, weights_first: bool) -> Result<Self, Refusal> {
        let unread = || Refusal::from(format!("has the equation \"{text}\", which is not read"));
        let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        let (inputs, out) = match text.split_once("->") {
            Some((inputs, out)) => (inputs, Some(out)),
            None => (text.as_str(), None),
        };
        let (a, b) = inputs.split_once(',').ok_or_else(unread)?;
        let labels = |t: &str| -> Result<Vec<char>, Refusal> {
            let labels: Vec<char> = t.chars().collect();
            let distinct: std::collections::BTreeSet<_> = labels.iter().collect();
            let fine = labels.iter().all(char::is_ascii_alphabetic) && distinct.len() == labels.len();
            if fine { Ok(labels) } else { Err(unread()) }
        };
        let (a, b) = (labels(a)?, labels(b)?);
        let out = match out {
            Some(out) => labels(out)?,
            // What stands in one operand only, in the order of the alphabet.
            None => {
                let once = a.iter().filter(|c| !b.contains(c)).chain(b.iter().filter(|c| !a.contains(c)));
                let mut once: Vec<char> = once.copied().collect();
                once.sort_unstable();
                once
            }
        };
        if out.iter().any(|c| !a.contains(c) && !b.contains(c)) {
            return Err(unread());
        }
        Ok(if weights_first { Self { x: b, w: a, out } } else { Self { x: a, w: b, out } })
    }
}

impl Importer<'_, '_> {
    pub(super) fn einsum(&mut self, r: &Reading<'_>) -> Result<ValueId, Refusal> {
        if r.node.input.len() != 2 {
            return Err("has another number of operands than two".into());
        }
        let weights_first = self.weights_first(r)?;
        let x = self.value(r, usize::from(weights_first))?;
        let (w_dims, w) = self.weights(r, usize::from(!weights_first))?.ok_or("has no constant operand")?;
        let eq = Equation::read(&r.text("equation", ""), weights_first)?;
        let x_dims = self.dims(x);
        if eq.x.len() != x_dims.len() || eq.w.len() != w_dims.len() {
            return Err("has an equation that does not fit its operands".into());
        }
        // What stands in the image alone and not in the result is added up first.
        let alone: Vec<i64> = (0..eq.x.len())
            .filter(|&i| !eq.w.contains(&eq.x[i]) && !eq.out.contains(&eq.x[i]))
            .map(|i| i as i64)
            .collect();
        let x = self.whole(r, x)?;
        let x = if alone.is_empty() { x } else { self.reduced(r, x, ReduceKind::Sum, &alone, false)? };
        let x = self.whole(r, x)?;
        let x_labels: Vec<char> = eq.x.iter().copied().filter(|c| eq.w.contains(c) || eq.out.contains(c)).collect();
        let extent = |c: &char| {
            let of_x = eq.x.iter().position(|l| l == c).map(|i| x_dims[i]);
            of_x.or_else(|| eq.w.iter().position(|l| l == c).map(|i| w_dims[i])).unwrap_or(1)
        };
        let pick =
            |keep: &dyn Fn(&char) -> bool, from: &[char]| from.iter().copied().filter(|c| keep(c)).collect::<Vec<_>>();
        let both = pick(&|c| eq.w.contains(c) && eq.out.contains(c), &x_labels);
        let summed = pick(&|c| eq.w.contains(c) && !eq.out.contains(c), &x_labels);
        let of_x = pick(&|c| !eq.w.contains(c), &x_labels);
        let of_w = pick(&|c| !eq.x.contains(c) && eq.out.contains(c), &eq.w);
        if eq.w.iter().any(|c| !eq.x.contains(c) && !eq.out.contains(c)) {
            return Err("adds up a dimension of its constant alone".into());
        }
        let size = |labels: &[char]| labels.iter().map(extent).product::<usize>();
        // The image as [both, of x, summed], the constant as [both, summed, of w].
        let places = |labels: &[char], order: &[char]| -> Vec<usize> {
            order.iter().filter_map(|c| labels.iter().position(|l| l == c)).collect()
        };
        let order = places(&x_labels, &[&both[..], &of_x, &summed].concat());
        let turned = self.push(r, Op::Transpose(order), vec![x])?;
        let lists = self.reshaped(r, turned, &[size(&both), size(&of_x), size(&summed)])?;
        let order = places(&eq.w, &[&both[..], &summed, &of_w].concat());
        let own = strides(&w_dims);
        let dims: Vec<usize> = order.iter().map(|&d| w_dims[d]).collect();
        if eq.w.iter().enumerate().any(|(i, c)| extent(c) != w_dims[i]) {
            return Err("has operands whose extents differ".into());
        }
        let weight: Vec<f32> = walk(&dims, &order.iter().map(|&d| own[d]).collect::<Vec<_>>()).map(|i| w[i]).collect();
        let matrix = Matrix::new((size(&both), size(&summed), size(&of_w)), &weight, true);
        let bias = vec![0.0; matrix.outputs * size(&both)];
        let y = self.product(r, lists, matrix, bias, false)?;
        let labels = [&both[..], &of_x, &of_w].concat();
        let y = self.reshaped(r, y, &labels.iter().map(extent).collect::<Vec<_>>())?;
        let y = self.whole(r, y)?;
        let y = self.push(r, Op::Transpose(places(&labels, &eq.out)), vec![y])?;
        self.settled(r, y)
    }
}
