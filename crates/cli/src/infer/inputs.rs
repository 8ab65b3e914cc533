//! The images that `jali infer` classifies.

use std::path::{Path, PathBuf};

use jali::image_file::{is_image, read_image};
use jali::{Dataset, JaliError, Sample, Tensor};
use jali_model::Preprocess;

use super::InferArgs;
use crate::pixels::{Found, find_images, warn_of_range};
use crate::text::note;

/// An image to classify.
pub(super) struct Input {
    pub(super) name: String,
    pub(super) image: Result<Tensor, JaliError>,
    /// Its class, if it is known.
    pub(super) class: Option<usize>,
}

/// All images.
#[derive(Default)]
pub(super) struct Inputs {
    pub(super) images: Vec<Input>,
    /// Files in folders that are no images.
    pub(super) skipped: usize,
}

impl Inputs {
    /// Those that the arguments name, for a model with this input.
    pub(super) fn read(args: &InferArgs, shape: &[usize], preprocess: &Preprocess) -> anyhow::Result<Self> {
        match args.samples {
            Some(samples) => Self::samples(samples.into(), args.count.into(), shape, preprocess),
            None => Self::files(args, shape, preprocess),
        }
    }

    fn samples(dataset: Dataset, count: usize, shape: &[usize], preprocess: &Preprocess) -> anyhow::Result<Self> {
        if preprocess.image_size(shape) != Some(dataset.shape()) {
            anyhow::bail!(
                "--samples {}: the images have the shape {:?}, the model needs {shape:?}",
                dataset.name(),
                dataset.shape()
            );
        }
        let records = dataset.bundled_records();
        let input = |i: usize| -> anyhow::Result<Input> {
            let Sample { image, label } = records.get_as(i, shape, preprocess)?;
            Ok(Input { name: format!("{} {i}", dataset.name()), image: Ok(image), class: Some(label) })
        };
        let images = (0..count.min(records.len())).map(input).collect::<anyhow::Result<_>>()?;
        Ok(Self { images, skipped: 0 })
    }

    fn files(args: &InferArgs, shape: &[usize], preprocess: &Preprocess) -> anyhow::Result<Self> {
        let mut paths: Vec<PathBuf> = vec![];
        let (mut skipped, mut folders) = (0, 0);
        for path in &args.images {
            if path.is_dir() {
                let found = find_images(path, args.recursive)?;
                let Found { images, others, subfolders } = found;
                paths.extend(images);
                skipped += others;
                folders += subfolders;
            } else {
                paths.push(path.clone());
            }
        }
        if skipped > 0 {
            note(format!("note: {skipped} file(s) in folders are no images and were left out"))?;
        }
        if folders > 0 {
            note(format!("note: {folders} subfolder(s) were not looked into; --recursive does"))?;
        }
        if paths.is_empty() {
            anyhow::bail!("the folders hold no image (PNG, JPEG or .npy)");
        }
        let input = |path: PathBuf| Input {
            name: path.display().to_string(),
            image: read_image(&path, shape, preprocess),
            class: None,
        };
        let images: Vec<Input> = paths.into_iter().map(input).collect();
        for input in &images {
            // Arrays may have any range, pixels only theirs.
            if let Ok(image) = &input.image
                && is_array(Path::new(&input.name))
            {
                warn_of_range(&input.name, std::slice::from_ref(image), preprocess)?;
            }
        }
        Ok(Self { images, skipped })
    }

    /// Those that could be read.
    pub(super) fn good(&self) -> Vec<Tensor> {
        self.images.iter().filter_map(|i| i.image.as_ref().ok().cloned()).collect()
    }
}

/// Whether a file holds an array and not pixels.
fn is_array(path: &Path) -> bool {
    is_image(path).is_ok_and(|kind| kind == Some(jali::image_file::Kind::Array))
}
