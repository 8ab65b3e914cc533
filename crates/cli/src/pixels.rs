//! How images become a model's inputs, and images from folders.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use jali::image_file::{is_image, read_image};
use jali::model_file::{read_model_file, read_preprocess};
use jali::{JaliError, Model, QuantConfig, QuantModel, Tensor};
use jali_model::{Colours, Graph, ImageLayout, Preprocess, Resize};

use super::text::note;

/// Most images of a calibration folder that are used.
const MAX_CALIBRATION: usize = 200;
/// How far beyond the range of pixels an array may reach before it is worth a word, as a part of
/// the range.
const TOLERANCE: f32 = 0.02;

/// How images become inputs: (pixel * input_scale - mean) / std, pixels from 0 to 255.
#[derive(Args)]
#[command(next_help_heading = "How images become inputs (also from preprocess.json beside the model)")]
pub(super) struct Pixels {
    /// Factor of every pixel, a number or 1/N [default: 1/255]
    #[arg(long, value_name = "F", value_parser = parse_scale)]
    input_scale: Option<f32>,
    /// Subtracted from every channel, after the scale [default: 0]
    #[arg(long, value_name = "R,G,B", value_delimiter = ',', allow_hyphen_values = true)]
    mean: Option<Vec<f32>>,
    /// What every channel is divided by, after that [default: 1]
    #[arg(long, value_name = "R,G,B", value_delimiter = ',')]
    std: Option<Vec<f32>>,
    /// Order of the dimensions of the model's input [default: nchw, or nhwc where the input has its
    /// channels last]
    #[arg(long, value_enum)]
    layout: Option<LayoutName>,
    /// Order of the colours [default: rgb]
    #[arg(long, value_enum)]
    channels: Option<ColoursName>,
    /// What to do with images of another size [default: none]
    #[arg(long, value_enum)]
    resize: Option<ResizeName>,
}

#[derive(Clone, Copy, ValueEnum)]
enum LayoutName {
    /// Channels, height, width
    Nchw,
    /// Height, width, channels
    Nhwc,
}

#[derive(Clone, Copy, ValueEnum)]
enum ColoursName {
    /// Red first
    Rgb,
    /// Blue first
    Bgr,
}

#[derive(Clone, Copy, ValueEnum)]
enum ResizeName {
    /// Refuse them
    None,
    /// Stretch them to the model's size
    Stretch,
    /// Scale the shorter side to 8/7 of the model's and cut out the centre
    Crop,
}

fn parse_scale(text: &str) -> Result<f32, String> {
    let form = || format!("\"{text}\" is no number above 0, and not of the form 1/255");
    let value = match text.split_once('/') {
        Some((a, b)) => {
            let part = |t: &str| t.trim().parse::<f32>().map_err(|_| form());
            part(a)? / part(b)?
        }
        None => text.trim().parse().map_err(|_| form())?,
    };
    if value.is_finite() && value > 0.0 { Ok(value) } else { Err(form()) }
}

impl Pixels {
    /// What the options and the file beside the model say, options first.
    pub(super) fn of_model(&self, model: &Path, shape: &[usize]) -> anyhow::Result<Preprocess> {
        let mut p = match read_preprocess(model)? {
            Some((path, p)) => {
                note(format!("note: images become inputs as {} says", path.display()))?;
                p
            }
            // Channels last, as Keras has them.
            None if matches!(shape, &[h, w, 1 | 3] if h > 3 && w > 3) && self.layout.is_none() => {
                note("note: the model's input has its channels last (--layout nhwc)")?;
                Preprocess { layout: ImageLayout::Nhwc, ..Preprocess::default() }
            }
            None => Preprocess::default(),
        };
        p.input_scale = self.input_scale.unwrap_or(p.input_scale);
        p.mean = self.mean.clone().unwrap_or(p.mean);
        p.std = self.std.clone().unwrap_or(p.std);
        p.layout = self.layout.map_or(p.layout, |l| match l {
            LayoutName::Nchw => ImageLayout::Nchw,
            LayoutName::Nhwc => ImageLayout::Nhwc,
        });
        p.channels = self.channels.map_or(p.channels, |c| match c {
            ColoursName::Rgb => Colours::Rgb,
            ColoursName::Bgr => Colours::Bgr,
        });
        p.resize = self.resize.map_or(p.resize, |r| match r {
            ResizeName::None => Resize::None,
            ResizeName::Stretch => Resize::Stretch,
            ResizeName::Crop => Resize::Crop,
        });
        p.check(shape).map_err(JaliError::from)?;
        Ok(p)
    }
}

/// Reads a model, and says what there is to say about its file.
pub(super) fn read_model_aloud(path: &Path) -> anyhow::Result<Graph> {
    let imported = read_model_file(path)?;
    imported.warnings.iter().try_for_each(|w| note(format!("warning: {}: {w}", path.display())))?;
    Ok(imported.graph)
}

/// The model of a file in integers, with what it says of its images.
pub(super) fn calibrate_file(
    path: &Path,
    graph: Graph,
    bits: QuantConfig,
    images: &Calibration,
    preprocess: &Preprocess,
) -> Result<QuantModel, JaliError> {
    let shape = graph.input_shape().to_vec();
    let model = Model::new(path.into(), graph, preprocess.clone());
    let model = model.calibrate_on(bits, images.len(), |i| images.get(i, &shape, preprocess))?;
    if let Some(first) = model.first_activations().filter(|f| f.are_unlike_training()) {
        // A note that cannot be written is no reason not to go on.
        let _ = note(format!(
            "warning: {}: the first activations of these images are unlike those of its training images (mean {:.1} spreads off, spread {:.2} times); are --mean, --std and --input-scale right?",
            path.display(),
            first.shift,
            first.spread
        ));
    }
    Ok(model)
}

/// Images to calibrate on, read one by one.
pub(super) enum Calibration {
    /// Files, each of which was read once.
    Files(Vec<PathBuf>),
    /// Images that are in memory anyway.
    Images(Vec<Tensor>),
}

impl Calibration {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Files(paths) => paths.len(),
            Self::Images(images) => images.len(),
        }
    }

    pub(super) fn get(&self, i: usize, shape: &[usize], p: &Preprocess) -> Result<Tensor, JaliError> {
        match self {
            Self::Files(paths) => read_image(&paths[i], shape, p),
            Self::Images(images) => Ok(images[i].clone()),
        }
    }
}

/// All images of a calibration at once.
pub(super) fn all_of(images: &Calibration, shape: &[usize], p: &Preprocess) -> Result<Vec<Tensor>, JaliError> {
    (0..images.len()).map(|i| images.get(i, shape, p)).collect()
}

/// The smallest and largest value of some images.
#[derive(Clone, Copy)]
struct Extent(f32, f32);

impl Extent {
    const NONE: Self = Self(f32::INFINITY, f32::NEG_INFINITY);

    fn with(self, image: &Tensor) -> Self {
        image.data.iter().fold(self, |Self(a, b), &v| Self(a.min(v), b.max(v)))
    }

    /// Says so where it is not the range that pixels have after preprocessing: arrays of another
    /// scale, most likely.
    fn warn(self, name: &str, shape: &[usize], p: &Preprocess) -> anyhow::Result<()> {
        let (Self(least, most), (low, high)) = (self, p.input_range(shape));
        let slack = TOLERANCE * (high - low);
        if least < low - slack || most > high + slack {
            note(format!(
                "warning: {name}: values from {least:.3} to {most:.3}, but the preprocessing gives {low:.3} to {high:.3}; is --input-scale (or mean, std) right?"
            ))?;
        } else if most - least < 0.05 * (high - low) {
            note(format!(
                "warning: {name}: values from {least:.3} to {most:.3} fill little of the range {low:.3} to {high:.3} that the preprocessing gives; is --input-scale (or mean, std) right?"
            ))?;
        }
        Ok(())
    }
}

/// Says so where images do not have the range that pixels have after preprocessing.
pub(super) fn warn_of_range(name: &str, images: &[Tensor], p: &Preprocess) -> anyhow::Result<()> {
    let Some(first) = images.first() else { return Ok(()) };
    images.iter().fold(Extent::NONE, Extent::with).warn(name, &first.shape, p)
}

/// Images to calibrate on: those of a folder, or one. Each is read once, so that those that cannot
/// be used are told.
pub(super) fn calibration_images(path: &Path, shape: &[usize], p: &Preprocess) -> anyhow::Result<Calibration> {
    let mut extent = Extent::NONE;
    let mut usable = vec![];
    if path.is_dir() {
        let Found { images: paths, others, .. } = find_images(path, false)?;
        let mut unused = 0;
        for path in paths.into_iter().take(MAX_CALIBRATION) {
            match read_image(&path, shape, p) {
                Ok(image) => {
                    extent = extent.with(&image);
                    usable.push(path);
                }
                Err(e) => {
                    unused += 1;
                    note(format!("note: not used for calibration: {e}"))?;
                }
            }
        }
        if usable.is_empty() {
            anyhow::bail!("--calibrate {}: no usable image among {} file(s)", path.display(), unused + others);
        }
    } else {
        extent = extent.with(&read_image(path, shape, p)?);
        usable.push(path.to_owned());
    }
    extent.warn(&path.display().to_string(), shape, p)?;
    Ok(Calibration::Files(usable))
}

/// What is in a folder.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Images, by name.
    pub(super) images: Vec<PathBuf>,
    /// Files that are no images.
    pub(super) others: usize,
    /// Folders that were not looked into.
    pub(super) subfolders: usize,
}

/// Deepest folder that is looked into.
const MAX_DEPTH: usize = 64;

/// The images of a folder, told by their content, and of its folders if that is wanted. Hidden
/// files count as no images.
pub(super) fn find_images(folder: &Path, recursive: bool) -> Result<Found, JaliError> {
    let mut found = Found::default();
    look(folder, if recursive { MAX_DEPTH } else { 0 }, &mut found)?;
    found.images.sort();
    Ok(found)
}

fn look(folder: &Path, deeper: usize, found: &mut Found) -> Result<(), JaliError> {
    let read = |e: std::io::Error| JaliError::Read { path: folder.into(), why: e.to_string() };
    for entry in std::fs::read_dir(folder).map_err(read)? {
        let path = entry.map_err(read)?.path();
        let hidden = path.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.'));
        match (path.is_dir(), hidden) {
            (true, true) => {}
            (true, false) if deeper > 0 => look(&path, deeper - 1, found)?,
            (true, false) => found.subfolders += 1,
            (false, true) => found.others += 1,
            (false, false) => match is_image(&path) {
                // What cannot be opened is told when it is read.
                Ok(Some(_)) | Err(_) => found.images.push(path),
                Ok(None) => found.others += 1,
            },
        }
    }
    Ok(())
}
