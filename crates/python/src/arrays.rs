//! Arrays of images in, arrays of outputs out.

use jali::image_file::{Values, from_array};
use jali::{Preprocess, Tensor};
use numpy::{IntoPyArray, PyArray1, PyArrayDyn, PyReadonlyArrayDyn, PyUntypedArrayMethods};
use pyo3::prelude::*;

use crate::errors::bad_input;

/// Numbers for Python, (n, ...).
pub(crate) type Floats<'py> = Bound<'py, PyArrayDyn<f32>>;
/// Classes for Python, (n,).
pub(crate) type Labels<'py> = Bound<'py, PyArray1<i64>>;

/// Images: floats are inputs, doubles are pixels from 0 to 255. Both are C-contiguous; the first
/// extent is their number.
#[derive(FromPyObject)]
pub(crate) enum Images<'py> {
    /// Inputs.
    Inputs(PyReadonlyArrayDyn<'py, f32>),
    /// Integers.
    Pixels(PyReadonlyArrayDyn<'py, f64>),
}

impl Images<'_> {
    /// Copies them out of Python's memory.
    pub(crate) fn tensors(&self, py: Python<'_>, shape: &[usize], preprocess: &Preprocess) -> PyResult<Vec<Tensor>> {
        let not_rows = || bad_input(py, "images must be C-contiguous");
        match self {
            Self::Inputs(array) => {
                let values = array.as_slice().map_err(|_| not_rows())?;
                each(py, array.shape(), values, |image, dims| {
                    from_array(dims, Values::Floats(image), shape, preprocess)
                })
            }
            Self::Pixels(array) => {
                let values = array.as_slice().map_err(|_| not_rows())?;
                each(py, array.shape(), values, |image, dims| {
                    from_array(dims, Values::Pixels(image), shape, preprocess)
                })
            }
        }
    }
}

/// One tensor for each image.
fn each<T>(
    py: Python<'_>,
    dims: &[usize],
    values: &[T],
    one: impl Fn(&[T], &[usize]) -> Result<Tensor, jali::image_file::ImageFault>,
) -> PyResult<Vec<Tensor>> {
    let Some((&count, dims)) = dims.split_first() else {
        return Err(bad_input(py, "one number is no image"));
    };
    let size = dims.iter().product::<usize>();
    let image = |i: usize| {
        let image = values.get(i * size..(i + 1) * size).unwrap_or(&[]);
        one(image, dims).map_err(|fault| bad_input(py, format!("image {i} {fault}")))
    };
    (0..count).map(image).collect()
}

/// Stacks tensors of one shape: (n, ...).
pub(crate) fn stacked<'py>(py: Python<'py>, tensors: &[Tensor], shape: &[usize]) -> PyResult<Floats<'py>> {
    let mut data = Vec::with_capacity(tensors.len() * shape.iter().product::<usize>());
    tensors.iter().for_each(|t| data.extend_from_slice(&t.data));
    let dims: Vec<usize> = std::iter::once(tensors.len()).chain(shape.iter().copied()).collect();
    let array = data.into_pyarray(py);
    numpy::PyArrayMethods::reshape(&array, dims)
}
