//! The networks that come with the program.

use jali_model::{Graph, QuantConfig, QuantModel, onnx};

use crate::JaliError;
use crate::dataset::Dataset;

/// A network that comes with the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// Three-block VGG for CIFAR-10, 550 570 parameters.
    Vgg3,
    /// Two convolutions and two fully connected layers for MNIST.
    Mnist,
}

impl Network {
    /// Returns the network's name, `vgg3` or `mnist`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Vgg3 => "vgg3",
            Self::Mnist => "mnist",
        }
    }

    /// Returns the data set that it was trained on.
    pub fn dataset(&self) -> Dataset {
        match self {
            Self::Vgg3 => Dataset::Cifar10,
            Self::Mnist => Dataset::Mnist,
        }
    }

    /// Returns the trained network in float.
    ///
    /// # Errors
    /// Never in practice: the file is part of the program.
    pub fn graph(&self) -> Result<Graph, JaliError> {
        let bytes: &[u8] = match self {
            Self::Vgg3 => include_bytes!("../bundled/vgg3.onnx"),
            Self::Mnist => include_bytes!("../bundled/mnist.onnx"),
        };
        Ok(onnx::import(bytes)?)
    }

    /// Returns the network in integers, calibrated on the bundled training images.
    ///
    /// # Errors
    /// Never in practice: network and images are part of the program.
    pub fn quantised(&self, config: QuantConfig) -> Result<QuantModel, JaliError> {
        let images = self.dataset().bundled_calibration()?;
        Ok(QuantModel::calibrate(self.graph()?, config, &images, Some((0.0, 1.0)))?)
    }
}
