//! A trained network from a file, on its way to integers.

use std::path::{Path, PathBuf};

use jali_model::{Graph, Preprocess, QuantConfig, QuantModel, Tensor};

use crate::JaliError;
use crate::model_file::{read_model, read_preprocess};

/// A trained network in float, and how images become its inputs.
#[derive(Debug, Clone)]
pub struct Model {
    path: PathBuf,
    graph: Graph,
    preprocess: Preprocess,
}

impl Model {
    /// Reads an ONNX file, and `NAME.preprocess.json` or `preprocess.json` beside it if there is
    /// one.
    ///
    /// ```no_run
    /// use jali::{Model, Sealing};
    /// # fn main() -> Result<(), jali::JaliError> {
    /// let model = Model::open("net.onnx")?;
    /// let typical = [model.image("photos/1.png")?, model.image("photos/2.png")?];
    /// let model = model.calibrate(&typical)?;
    /// let mut client = Sealing::of(&model).seal()?.in_process()?;
    /// println!("{}", client.infer(&typical[0])?.output().argmax());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`JaliError::Read`], [`JaliError::TooLarge`], [`JaliError::ModelFile`],
    /// [`JaliError::Preprocess`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, JaliError> {
        let path = path.as_ref();
        let preprocess = read_preprocess(path)?.map(|(_, preprocess)| preprocess).unwrap_or_default();
        Ok(Self::new(path.into(), read_model(path)?, preprocess))
    }

    /// Makes a model of a network that was read; errors name `path`.
    pub fn new(path: PathBuf, graph: Graph, preprocess: Preprocess) -> Self {
        Self { path, graph, preprocess }
    }

    /// Sets how images become inputs.
    pub fn preprocess(mut self, preprocess: Preprocess) -> Self {
        self.preprocess = preprocess;
        self
    }

    /// Returns the network itself.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Reads an image file (PNG, JPEG, `.npy`) as the network's input.
    ///
    /// # Errors
    /// [`JaliError::Read`], [`JaliError::Image`].
    #[cfg(feature = "images")]
    pub fn image(&self, path: impl AsRef<Path>) -> Result<Tensor, JaliError> {
        crate::image_file::read_image(path.as_ref(), self.graph.input_shape(), &self.preprocess)
    }

    /// Quantises to 8 bits with the ranges that typical images give.
    ///
    /// # Errors
    /// [`JaliError::ModelFile`] for images of another shape, none at all, or a network whose values
    /// are not finite.
    pub fn calibrate(self, images: &[Tensor]) -> Result<QuantModel, JaliError> {
        self.calibrate_on(QuantConfig::default(), images.len(), |i| Ok(images[i].clone()))
    }

    /// Quantises with the ranges that `count` typical images give. `image` is called with the index
    /// of each more than once.
    ///
    /// # Errors
    /// [`JaliError`] as for [`Model::calibrate`], or what `image` returns.
    pub fn calibrate_on(
        self,
        config: QuantConfig,
        count: usize,
        image: impl Fn(usize) -> Result<Tensor, JaliError>,
    ) -> Result<QuantModel, JaliError> {
        let Self { path, graph, preprocess } = self;
        let range = preprocess.input_range(graph.input_shape());
        let model = QuantModel::calibrate_on(graph, config, count, image, Some(range));
        let model = model.and_then(|model| Ok(model.with_preprocess(preprocess)?));
        model.map_err(|e| match e {
            JaliError::Model(fault) => JaliError::ModelFile { path, fault },
            other => other,
        })
    }
}
