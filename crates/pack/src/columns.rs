//! Columns of a linear layer: the input channels of a convolution, the inputs of a fully connected layer.
//!
//! A layer's outputs are sums over its inputs, so a layer can be cut into parts that each take some of the inputs and compute all outputs; their
//! outputs are added up. No input is sent twice: that is what open columns have over open rows, which meet the same inputs as hidden ones.

use std::borrow::Cow;

use jali_model::{Conv, Gemm, Linear};

use crate::PackError;

/// Which columns of a layer a part takes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Columns {
    /// All of them.
    #[default]
    All,
    /// These, rising; of `of` in all.
    Some {
        /// Number of the layer's columns.
        of: usize,
        /// Those of the part, at least one.
        chosen: Vec<u32>,
    },
}

/// A linear layer with some of its columns, as shapes.
#[derive(Debug, Clone, PartialEq)]
pub enum Part<'a> {
    /// The layer itself.
    Whole(Linear<'a>),
    /// A convolution of fewer channels.
    Conv(Box<Conv>),
    /// A fully connected layer of fewer inputs.
    Gemm(Box<Gemm>),
}

impl Part<'_> {
    /// As a layer; a part has no weights of its own.
    pub fn linear(&self) -> Linear<'_> {
        match self {
            Self::Whole(linear) => *linear,
            Self::Conv(conv) => Linear::Conv(conv),
            Self::Gemm(gemm) => Linear::Gemm(gemm),
        }
    }
}

impl Columns {
    /// The columns of a layer for which `take` says so.
    ///
    /// # Errors
    /// [`PackError::Choice`] if these are none.
    pub fn those(linear: Linear<'_>, take: impl Fn(usize) -> bool) -> Result<Self, PackError> {
        let of = linear.columns();
        let chosen: Vec<u32> = (0..of).filter(|&c| take(c)).map(|c| c as u32).collect();
        match chosen.len() {
            0 => Err(PackError::Choice { what: "columns of a part", expected: of, got: 0 }),
            _ => Ok(Self::Some { of, chosen }),
        }
    }

    /// The part of the layer, if the columns are of it.
    ///
    /// # Errors
    /// [`PackError::Choice`].
    pub fn part<'a>(&self, linear: Linear<'a>) -> Result<Part<'a>, PackError> {
        let Self::Some { of, chosen } = self else { return Ok(Part::Whole(linear)) };
        let count = linear.columns();
        let fits = *of == count && !chosen.is_empty() && chosen.is_sorted_by(|a, b| a < b);
        if !fits || chosen.last().is_some_and(|&last| last as usize >= count) {
            return Err(PackError::Choice { what: "columns of the layer", expected: count, got: *of });
        }
        let none = Vec::new;
        Ok(match linear {
            Linear::Conv(c) => Part::Conv(Box::new(Conv {
                weight: none(),
                bias: none(),
                filters: c.filters,
                channels: chosen.len(),
                kernel: c.kernel,
                stride: c.stride,
                padding: c.padding,
                dilation: c.dilation,
                groups: 1,
            })),
            Linear::Gemm(g) => {
                Part::Gemm(Box::new(Gemm { inputs: chosen.len(), outputs: g.outputs, weight: none(), bias: none() }))
            }
        })
    }

    /// The shape of the part's input.
    pub fn shape(&self, input: &[usize]) -> Vec<usize> {
        let mut shape = input.to_vec();
        if let (Self::Some { chosen, .. }, Some(first)) = (self, shape.first_mut()) {
            *first = chosen.len();
        }
        shape
    }

    /// The part's inputs among the layer's, `[column][position]`.
    pub fn inputs<'x, T: Copy>(&self, x: &'x [T]) -> Cow<'x, [T]> {
        self.gather(x, 1)
    }

    /// The part's weights (or what stands for each of them) among the layer's, `[output][column][tap]`.
    pub fn weights<'x, T: Copy>(&self, weights: &'x [T], outputs: usize) -> Cow<'x, [T]> {
        self.gather(weights, outputs)
    }

    /// Of each of `lists` equal lists the runs of the chosen columns.
    fn gather<'x, T: Copy>(&self, values: &'x [T], lists: usize) -> Cow<'x, [T]> {
        let Self::Some { of, chosen } = self else { return Cow::Borrowed(values) };
        let list = values.len() / lists.max(1);
        let run = list / (*of).max(1);
        let mut out = Vec::with_capacity(lists * run * chosen.len());
        for list in values.chunks_exact(list.max(1)) {
            chosen.iter().for_each(|&c| out.extend_from_slice(&list[c as usize * run..][..run]));
        }
        Cow::Owned(out)
    }

    /// Which columns these are, for people: nothing if all.
    pub fn describe(&self) -> String {
        match self {
            Self::All => String::new(),
            Self::Some { of, chosen } => format!("{} of {of} columns: ", chosen.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conv(channels: usize, groups: usize) -> Conv {
        Conv {
            weight: vec![],
            bias: vec![],
            filters: 2,
            channels,
            kernel: [1, 2],
            stride: [1, 1],
            padding: [0; 4],
            dilation: [1, 1],
            groups,
        }
    }

    #[test]
    fn parts_take_their_columns_inputs_and_weights() {
        let conv = conv(3, 1);
        let columns = Columns::those(Linear::Conv(&conv), |c| c != 1).unwrap();
        let part = columns.part(Linear::Conv(&conv)).unwrap();
        assert_eq!((part.linear().fan_in(), part.linear().outputs()), (4, 2));
        assert_eq!(columns.shape(&[3, 4, 5]), [2, 4, 5]);
        assert_eq!(*columns.inputs(&[10, 11, 20, 21, 30, 31]), [10, 11, 30, 31]);
        let weights: Vec<i32> = (0..12).collect();
        assert_eq!(*columns.weights(&weights, 2), [0, 1, 4, 5, 6, 7, 10, 11]);
        assert_eq!(columns.describe(), "2 of 3 columns: ");
        let all = Columns::All;
        assert_eq!((&*all.weights(&weights, 2), all.describe().as_str()), (&weights[..], ""));
        let gemm = Gemm { weight: vec![], bias: vec![], inputs: 4, outputs: 3 };
        let columns = Columns::those(Linear::Gemm(&gemm), |c| c == 2).unwrap();
        assert_eq!(columns.part(Linear::Gemm(&gemm)).unwrap().linear().fan_in(), 1);
        assert_eq!(*columns.weights(&weights, 3), [2, 6, 10]);
    }

    #[test]
    fn columns_of_another_layer_are_refused() {
        let (three, grouped) = (conv(3, 1), conv(3, 2));
        assert!(Columns::those(Linear::Conv(&three), |_| false).is_err());
        assert!(Columns::those(Linear::Conv(&grouped), |_| true).is_err());
        for (of, chosen) in [(4, vec![0]), (3, vec![]), (3, vec![3]), (3, vec![1, 1]), (3, vec![2, 1])] {
            assert!(Columns::Some { of, chosen }.part(Linear::Conv(&three)).is_err());
        }
    }
}
