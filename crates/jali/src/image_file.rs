//! Turns PNG, JPEG and .npy files into the tensor that a model needs.

use std::io::Read;
use std::path::Path;

pub use jali_image::{
    ImageFault, ImageKind, Kind, Values, decode_image, floats_of_npy, from_array, npy_bytes, npy_of_integers, png_bytes,
};
use jali_model::{Preprocess, Tensor};

use crate::error::JaliError;
use crate::files::read_bounded;

/// Largest image file that is read, in bytes.
const MAX_FILE: u64 = 1 << 26;

/// Returns the kind of image that a file's first bytes tell, or `None` if it is none that is read.
///
/// # Errors
/// [`JaliError::Read`].
pub fn is_image(path: &Path) -> Result<Option<Kind>, JaliError> {
    let fail = |e: std::io::Error| JaliError::Read { path: path.into(), why: e.to_string() };
    let mut head = Vec::new();
    std::fs::File::open(path).map_err(fail)?.take(8).read_to_end(&mut head).map_err(fail)?;
    Ok(jali_image::kind_of(&head))
}

/// Reads an image for a model with the given input shape. Pixels of PNG and JPEG (and integer
/// arrays) become inputs as `preprocess` says; floating-point arrays are inputs already.
///
/// # Errors
/// [`JaliError::Read`] and [`JaliError::Image`] with what is wrong.
pub fn read_image(path: &Path, shape: &[usize], preprocess: &Preprocess) -> Result<Tensor, JaliError> {
    let bytes = read_bounded(path, MAX_FILE)?;
    decode_image(&bytes, shape, preprocess).map_err(|fault| JaliError::Image { path: path.into(), fault })
}
