//! CIFAR-10 and MNIST: a thousand test images in the program, full test sets from a folder.

use std::path::{Path, PathBuf};

use jali_model::{ModelError, Preprocess, Tensor};

use crate::JaliError;
use crate::files::read_bounded;

/// A data set that the program knows.
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

/// Labelled images as they stand in files: records of a label byte and the pixels.
#[derive(Debug, Clone)]
pub struct Records {
    dataset: Dataset,
    bytes: Vec<u8>,
    path: PathBuf,
}

impl Records {
    /// Returns the number of images.
    pub fn len(&self) -> usize {
        self.bytes.len() / self.record()
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Returns one image with its label.
    ///
    /// # Errors
    /// [`JaliError::Data`] for an index beyond the end or a label that is no class.
    pub fn get(&self, index: usize) -> Result<Sample, JaliError> {
        self.get_as(index, self.dataset.shape().as_slice(), &Preprocess::default())
    }

    /// Returns one image with its label for a network of this input `shape`; `preprocess` says how
    /// pixels become inputs.
    ///
    /// # Errors
    /// [`JaliError::Data`] as for [`Records::get`]; [`JaliError::Model`] if the shape is that of
    /// another image.
    pub fn get_as(&self, index: usize, shape: &[usize], preprocess: &Preprocess) -> Result<Sample, JaliError> {
        let fail = |why| JaliError::Data { path: self.path.clone(), why };
        let size = self.record();
        let at = index.saturating_mul(size);
        let record =
            self.bytes.get(at..at.saturating_add(size)).ok_or_else(|| fail(format!("there is no image {index}")))?;
        let label = usize::from(record[0]);
        if label >= self.dataset.classes().len() {
            return Err(fail(format!("a label is {label}")));
        }
        let [channels, h, w] = self.dataset.shape();
        if preprocess.image_size(shape) != Some([channels, h, w]) {
            let (expected, got) = (format!("{shape:?}"), format!("{:?}", self.dataset.shape()));
            return Err(ModelError::Shape { what: format!("images of {}", self.dataset.name()), expected, got }.into());
        }
        let (planes, places) = (&record[1..], h * w);
        let pixels: Vec<f32> =
            (0..places).flat_map(|at| (0..channels).map(move |c| f32::from(planes[c * places + at]))).collect();
        let data = preprocess.apply(&pixels, [channels, h, w]);
        Ok(Sample { image: Tensor::new("image", shape.to_vec(), data)?, label })
    }

    fn record(&self) -> usize {
        1 + self.dataset.shape().iter().product::<usize>()
    }

    fn all(&self) -> Result<Vec<Sample>, JaliError> {
        (0..self.len()).map(|i| self.get(i)).collect()
    }
}

/// Most bytes of one data file.
const LIMIT: u64 = 1 << 28;

const CIFAR10_CLASSES: [&str; 10] =
    ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];
const MNIST_CLASSES: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];

impl Dataset {
    /// Returns the data set's name, `cifar10` or `mnist`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Cifar10 => "cifar10",
            Self::Mnist => "mnist",
        }
    }

    /// Returns the names of the classes.
    pub fn classes(&self) -> &'static [&'static str] {
        match self {
            Self::Cifar10 => &CIFAR10_CLASSES,
            Self::Mnist => &MNIST_CLASSES,
        }
    }

    /// Returns the shape of an image, `[channels, height, width]`.
    pub fn shape(&self) -> [usize; 3] {
        match self {
            Self::Cifar10 => [3, 32, 32],
            Self::Mnist => [1, 28, 28],
        }
    }

    /// Returns the first 1 000 test images.
    ///
    /// # Errors
    /// Never in practice: the bytes are part of the program.
    pub fn bundled_test(&self) -> Result<Vec<Sample>, JaliError> {
        self.bundled_records().all()
    }

    /// Returns the data set that a folder holds, as `scripts/fetch-data` writes it, or `None` if it
    /// holds none.
    pub fn of_folder(folder: &Path) -> Option<Self> {
        let has = |file: &str| folder.join(file).is_file();
        match (has("test_batch.bin"), has("t10k-images-idx3-ubyte")) {
            (true, _) => Some(Self::Cifar10),
            (_, true) => Some(Self::Mnist),
            _ => None,
        }
    }

    /// Reads the full test set from a folder, as bytes.
    ///
    /// # Errors
    /// [`JaliError::Read`], [`JaliError::TooLarge`], [`JaliError::Data`].
    pub fn full_test_records(&self, folder: &Path) -> Result<Records, JaliError> {
        match self {
            Self::Cifar10 => self.cifar_file(&folder.join("test_batch.bin")),
            Self::Mnist => self.idx_files(folder, "t10k"),
        }
    }

    /// Returns the first 1 000 test images, as bytes.
    pub fn bundled_records(&self) -> Records {
        let bytes: &[u8] = match self {
            Self::Cifar10 => include_bytes!("../bundled/cifar10-test-1000.bin"),
            Self::Mnist => include_bytes!("../bundled/mnist-test-1000.bin"),
        };
        Records { dataset: *self, bytes: bytes.into(), path: self.name().into() }
    }

    /// Returns the first 100 training images, as bytes.
    pub fn calibration_records(&self) -> Records {
        let bytes: &[u8] = match self {
            Self::Cifar10 => include_bytes!("../bundled/cifar10-calibration-100.bin"),
            Self::Mnist => include_bytes!("../bundled/mnist-calibration-100.bin"),
        };
        Records { dataset: *self, bytes: bytes.into(), path: self.name().into() }
    }

    /// Returns the first 100 training images, for calibration.
    ///
    /// # Errors
    /// Never in practice: these bytes, too, are part of the program.
    pub fn bundled_calibration(&self) -> Result<Vec<Tensor>, JaliError> {
        Ok(self.calibration_records().all()?.into_iter().map(|s| s.image).collect())
    }

    /// Reads the full test set from the folder that `scripts/fetch-data` fills (`test_batch.bin`,
    /// or the idx files).
    ///
    /// # Errors
    /// [`JaliError::Read`], [`JaliError::Data`].
    pub fn full_test(&self, folder: &Path) -> Result<Vec<Sample>, JaliError> {
        self.full_test_records(folder)?.all()
    }

    /// Reads the full training set from the same folder, as bytes: pictures are made only of the
    /// records that are asked for.
    ///
    /// # Errors
    /// [`JaliError::Read`], [`JaliError::Data`].
    pub fn full_train(&self, folder: &Path) -> Result<Records, JaliError> {
        match self {
            Self::Cifar10 => {
                let mut all = Records { dataset: *self, bytes: vec![], path: folder.into() };
                for i in 1..=5 {
                    all.bytes.append(&mut self.cifar_file(&folder.join(format!("data_batch_{i}.bin")))?.bytes);
                }
                Ok(all)
            }
            Self::Mnist => self.idx_files(folder, "train"),
        }
    }

    fn cifar_file(&self, path: &Path) -> Result<Records, JaliError> {
        let bytes = read_bounded(path, LIMIT)?;
        if bytes.is_empty() || !bytes.len().is_multiple_of(3073) {
            let why = format!("{} bytes are not whole records of 3073 bytes", bytes.len());
            return Err(JaliError::Data { path: path.into(), why });
        }
        Ok(Records { dataset: *self, bytes, path: path.into() })
    }

    fn idx_files(&self, folder: &Path, name: &str) -> Result<Records, JaliError> {
        let path = |what: &str| folder.join(format!("{name}-{what}-ubyte"));
        let (images, labels) = (path("images-idx3"), path("labels-idx1"));
        let (x, y) = (read_bounded(&images, LIMIT)?, read_bounded(&labels, LIMIT)?);
        // idx: magic, then one big-endian count per dimension.
        let word = |b: &[u8], i: usize| b.get(i * 4..i * 4 + 4).map(|w| u32::from_be_bytes([w[0], w[1], w[2], w[3]]));
        let header = [word(&x, 0), word(&x, 2), word(&x, 3), word(&y, 0)];
        let count = word(&x, 1).filter(|&n| word(&y, 1) == Some(n) && n > 0).map(|n| n as usize);
        let good = count.filter(|&n| x.len() == 16 + n * 784 && y.len() == 8 + n);
        let (Some(_), [Some(0x803), Some(28), Some(28), Some(0x801)]) = (good, header) else {
            return Err(JaliError::Data { path: images, why: "not the idx files of 28x28 images with labels".into() });
        };
        let bytes = x[16..].chunks_exact(784).zip(&y[8..]).flat_map(|(x, &y)| [&[y], x].concat()).collect();
        Ok(Records { dataset: *self, bytes, path: labels })
    }
}
