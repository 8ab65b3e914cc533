//! Image files as inputs, by the library's own decoders: a browser and the command `jali` make the
//! same numbers of the same file.

use jali_image::decode_image;
use jali_model::Preprocess;
use js_sys::{Object, Reflect};
use wasm_bindgen::prelude::*;

use crate::failure::{Kind, failure};

/// What a network takes.
pub(crate) struct Description<'a> {
    /// Shape of its input.
    pub(crate) shape: &'a [usize],
    /// How images become inputs.
    pub(crate) preprocess: &'a Preprocess,
}

impl Description<'_> {
    /// Decodes an image file.
    pub(crate) fn read(&self, file: &[u8]) -> Result<Vec<f32>, JsValue> {
        let tensor = decode_image(file, self.shape, self.preprocess);
        tensor.map(|tensor| tensor.data).map_err(|e| failure(Kind::Image, format!("the file {e}")))
    }

    /// Channels, height and width.
    pub(crate) fn image_size(self) -> Result<Vec<u32>, JsValue> {
        let size = self.preprocess.image_size(self.shape).map(|size| size.map(|n| n as u32).to_vec());
        size.ok_or_else(|| failure(Kind::Usage, "this network takes no images"))
    }
}

/// What a page says about a layer.
pub(crate) fn layer(name: &str, kind: &str, is_open: Option<bool>) -> JsValue {
    let layer = Object::new();
    // Setting properties of a fresh object cannot fail.
    let _ = Reflect::set(&layer, &"name".into(), &name.into());
    let _ = Reflect::set(&layer, &"kind".into(), &kind.into());
    if let Some(is_open) = is_open {
        let _ = Reflect::set(&layer, &"isOpen".into(), &is_open.into());
    }
    layer.into()
}
