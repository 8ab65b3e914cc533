//! The bundled networks, and models from files.

use std::path::Path;

use jali_leak::{LeakError, PlanFile};
use jali_model::{Graph, QuantConfig, QuantModel, onnx};

use crate::dataset::Dataset;
use crate::error::JaliError;
use crate::image_file::read_bounded;

/// A network that comes with the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// Three-block VGG for CIFAR-10, 550 570 parameters.
    Vgg3,
    /// Two convolutions and two fully connected layers for MNIST.
    Mnist,
}

/// Largest model file that is read, in bytes.
const MAX_MODEL: u64 = 1 << 31;

impl Network {
    /// `vgg3` or `mnist`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Vgg3 => "vgg3",
            Self::Mnist => "mnist",
        }
    }

    /// The data that it was trained on.
    pub fn dataset(&self) -> Dataset {
        match self {
            Self::Vgg3 => Dataset::Cifar10,
            Self::Mnist => Dataset::Mnist,
        }
    }

    /// The trained network in float.
    ///
    /// # Errors
    /// Never in practice: the file is part of the program.
    pub fn graph(&self) -> Result<Graph, JaliError> {
        let bytes: &[u8] = match self {
            Self::Vgg3 => include_bytes!("../../../assets/vgg3.onnx"),
            Self::Mnist => include_bytes!("../../../assets/mnist.onnx"),
        };
        Ok(onnx::import(bytes)?)
    }

    /// The network in integers, calibrated on the bundled training images.
    ///
    /// # Errors
    /// As [`Network::graph`].
    pub fn quantised(&self, config: QuantConfig) -> Result<QuantModel, JaliError> {
        let images = self.dataset().bundled_calibration()?;
        Ok(QuantModel::calibrate(self.graph()?, config, &images, Some(1.0))?)
    }
}

/// Reads an ONNX file.
///
/// # Errors
/// [`JaliError::Read`], [`JaliError::TooLarge`], [`JaliError::ModelFile`].
pub fn read_model(path: &Path) -> Result<Graph, JaliError> {
    let bytes = read_bounded(path, MAX_MODEL)?;
    onnx::import(&bytes).map_err(|fault| JaliError::ModelFile { path: path.into(), fault })
}

/// Largest plan file, in bytes.
const MAX_PLAN: u64 = 1 << 30;

/// Reads a plan for a network.
///
/// # Errors
/// [`JaliError::Read`], [`JaliError::TooLarge`], [`JaliError::PlanFile`].
pub fn read_plan(path: &Path, graph: &Graph) -> Result<PlanFile, JaliError> {
    let fail = |fault| JaliError::PlanFile { path: path.into(), fault };
    let bytes = read_bounded(path, MAX_PLAN)?;
    let text = std::str::from_utf8(&bytes).map_err(|e| fail(LeakError::File { why: e.to_string() }))?;
    PlanFile::from_json(text, graph).map_err(fail)
}
