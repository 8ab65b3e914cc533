//! A network in the clear, to compare with: in `scripts/bench-web` alone.

use jali_model::{Graph, Tensor, float, onnx};
use js_sys::Float32Array;
use wasm_bindgen::prelude::*;

use crate::failure::{Kind, failure};

/// A network with its weights, in the library's float path.
#[wasm_bindgen]
#[derive(Debug)]
pub struct Plain(Graph);

#[wasm_bindgen]
impl Plain {
    /// Reads an ONNX file.
    ///
    /// # Errors
    /// `Error` of the kind `damaged`.
    #[wasm_bindgen(constructor)]
    pub fn open(file: Vec<u8>) -> Result<Self, JsValue> {
        let imported = onnx::import_owned(file, &mut |_| Err("there are no other files here".into()));
        Ok(Self(imported.map_err(|e| failure(Kind::Damaged, e))?.graph))
    }

    /// Runs the network on an input.
    ///
    /// # Errors
    /// `Error` of the kind `image`.
    pub fn run(&self, input: Vec<f32>) -> Result<Float32Array, JsValue> {
        let fail = |e| failure(Kind::Image, e);
        let image = Tensor::new("image", self.0.input_shape().to_vec(), input).map_err(fail)?;
        Ok(Float32Array::from(&float::run(&self.0, image).map_err(fail)?.data[..]))
    }
}
