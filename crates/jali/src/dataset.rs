//! CIFAR-10 and MNIST: a thousand test images in the program, full test sets from a folder.

use std::path::Path;

use jali_model::Tensor;

use crate::JaliError;
use crate::image_file::read_bounded;

/// Which data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dataset {
    /// 32x32 colour photographs of ten kinds of things.
    Cifar10,
    /// 28x28 handwritten digits.
    Mnist,
}

/// An image with its label. Pixels are divided by 255.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// `[channels, height, width]`.
    pub image: Tensor,
    /// Index of the right class.
    pub label: usize,
}

const CIFAR10_CLASSES: [&str; 10] =
    ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];
const MNIST_CLASSES: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];

impl Dataset {
    /// `cifar10` or `mnist`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Cifar10 => "cifar10",
            Self::Mnist => "mnist",
        }
    }

    /// Names of the classes.
    pub fn classes(&self) -> &'static [&'static str] {
        match self {
            Self::Cifar10 => &CIFAR10_CLASSES,
            Self::Mnist => &MNIST_CLASSES,
        }
    }

    /// `[channels, height, width]`.
    pub fn shape(&self) -> [usize; 3] {
        match self {
            Self::Cifar10 => [3, 32, 32],
            Self::Mnist => [1, 28, 28],
        }
    }

    /// The first 1 000 test images.
    ///
    /// # Errors
    /// Never in practice: the bytes are part of the program.
    pub fn bundled_test(&self) -> Result<Vec<Sample>, JaliError> {
        self.records(match self {
            Self::Cifar10 => include_bytes!("../../../assets/cifar10-test-1000.bin"),
            Self::Mnist => include_bytes!("../../../assets/mnist-test-1000.bin"),
        })
    }

    /// The first 100 training images, for calibration.
    ///
    /// # Errors
    /// As [`Dataset::bundled_test`].
    pub fn bundled_calibration(&self) -> Result<Vec<Tensor>, JaliError> {
        let records = self.records(match self {
            Self::Cifar10 => include_bytes!("../../../assets/cifar10-calibration-100.bin"),
            Self::Mnist => include_bytes!("../../../assets/mnist-calibration-100.bin"),
        })?;
        Ok(records.into_iter().map(|s| s.image).collect())
    }

    /// The full test set from the folder that `scripts/fetch-data` fills (`test_batch.bin`, or the idx files).
    ///
    /// # Errors
    /// [`JaliError::Read`], [`JaliError::Data`].
    pub fn full_test(&self, folder: &Path) -> Result<Vec<Sample>, JaliError> {
        const LIMIT: u64 = 1 << 28;
        match self {
            Self::Cifar10 => {
                let path = folder.join("test_batch.bin");
                let bytes = read_bounded(&path, LIMIT)?;
                if bytes.is_empty() || !bytes.len().is_multiple_of(3073) {
                    let why = format!("{} bytes are not whole records of 3073 bytes", bytes.len());
                    return Err(JaliError::Data { path, why });
                }
                self.records(&bytes).map_err(|e| JaliError::Data { path, why: e.to_string() })
            }
            Self::Mnist => {
                let (images, labels) = (folder.join("t10k-images-idx3-ubyte"), folder.join("t10k-labels-idx1-ubyte"));
                let (x, y) = (read_bounded(&images, LIMIT)?, read_bounded(&labels, LIMIT)?);
                // idx: magic, then one big-endian count per dimension.
                let word =
                    |b: &[u8], i: usize| b.get(i * 4..i * 4 + 4).map(|w| u32::from_be_bytes([w[0], w[1], w[2], w[3]]));
                let header = [word(&x, 0), word(&x, 2), word(&x, 3), word(&y, 0)];
                let count = word(&x, 1).filter(|&n| word(&y, 1) == Some(n) && n > 0).map(|n| n as usize);
                let good = count.filter(|&n| x.len() == 16 + n * 784 && y.len() == 8 + n);
                let (Some(_), [Some(0x803), Some(28), Some(28), Some(0x801)]) = (good, header) else {
                    return Err(JaliError::Data {
                        path: images,
                        why: "not the idx files of 28x28 images with labels".into(),
                    });
                };
                let records: Vec<u8> =
                    x[16..].chunks_exact(784).zip(&y[8..]).flat_map(|(x, &y)| [&[y], x].concat()).collect();
                self.records(&records).map_err(|e| JaliError::Data { path: labels, why: e.to_string() })
            }
        }
    }

    /// Records of a label byte and the pixels, channel by channel.
    fn records(&self, bytes: &[u8]) -> Result<Vec<Sample>, JaliError> {
        let pixels: usize = self.shape().iter().product();
        let record = |r: &[u8]| {
            let label = usize::from(r[0]);
            if label >= self.classes().len() {
                return Err(JaliError::Data { path: self.name().into(), why: format!("a label is {label}") });
            }
            let data = r[1..].iter().map(|&v| f32::from(v) / 255.0).collect();
            Ok(Sample { image: Tensor::new("image", self.shape().to_vec(), data)?, label })
        };
        bytes.chunks_exact(1 + pixels).map(record).collect()
    }
}
