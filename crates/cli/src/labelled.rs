//! What `jali evaluate` measures: a network, and images whose classes are known.

use std::path::{Path, PathBuf};

use anyhow::Context;
use jali::files::read_text;
use jali::guests::GuestSealing;
use jali::image_file::read_image;
use jali::{Dataset, Graph, JaliError, Network, Preprocess, QuantModel, Records, Sample, Tensor};

use jali_model::fixed::{FixedConfig, FixedNetwork};

use super::NetworkName;
use super::evaluate::EvaluateArgs;
use super::pixels::{Calibration, all_of, calibrate_file, calibration_images, read_model_aloud, warn_of_range};
use super::text::note;

/// Labelled images, one at a time.
pub(super) enum Images {
    Records(Records, Vec<usize>, Preprocess),
    Files(Vec<(PathBuf, usize)>, Vec<usize>, Preprocess),
}

impl Images {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Records(r, ..) => r.len(),
            Self::Files(f, ..) => f.len(),
        }
    }

    pub(super) fn preprocess(&self) -> &Preprocess {
        match self {
            Self::Records(.., p) | Self::Files(.., p) => p,
        }
    }

    pub(super) fn get(&self, index: usize) -> Result<Sample, JaliError> {
        self.get_with(index, self.preprocess())
    }

    pub(super) fn get_with(&self, index: usize, p: &Preprocess) -> Result<Sample, JaliError> {
        match self {
            Self::Records(r, shape, _) => r.get_as(index, shape, p),
            Self::Files(f, shape, _) => {
                let (path, label) = &f[index];
                Ok(Sample { image: read_image(path, shape, p)?, label: *label })
            }
        }
    }
}

/// What is measured: names, the quantised network, what it was calibrated on, images.
pub(super) struct Subject {
    pub(super) network: String,
    pub(super) dataset: String,
    pub(super) model: QuantModel,
    pub(super) calibration: String,
    pub(super) images: Images,
    /// For guests, if that is asked for.
    pub(super) fixed: Option<FixedNetwork>,
}

/// The network in fixed point, if that is asked for.
fn fixed(
    args: &EvaluateArgs,
    graph: &Graph,
    images: &[Tensor],
    p: &Preprocess,
) -> Result<Option<FixedNetwork>, JaliError> {
    let range = Some(p.input_range(graph.input_shape()));
    let sealing = || GuestSealing::of(graph, images, range, FixedConfig::default());
    Ok(args.guest.then(sealing).transpose()?.map(|sealing| sealing.network().clone()))
}

impl Subject {
    pub(super) fn of(args: &EvaluateArgs) -> anyhow::Result<Self> {
        match (args.file(), args.network) {
            (Some(path), _) => Self::of_file(args, path),
            (None, name) => {
                let network = Network::from(name.unwrap_or(NetworkName::Vgg3));
                let dataset = network.dataset();
                let records = match &args.data {
                    Some(folder) => dataset.full_test_records(folder)?,
                    None => dataset.bundled_records(),
                };
                let (graph, typical) = (network.graph()?, dataset.bundled_calibration()?);
                Ok(Self {
                    fixed: fixed(args, &graph, &typical, &Preprocess::default())?,
                    network: network.name().into(),
                    dataset: dataset.name().into(),
                    model: network.quantised(args.common.bits)?,
                    calibration: format!("100 training images of {}", dataset.name()),
                    images: Images::Records(records, dataset.shape().to_vec(), Preprocess::default()),
                })
            }
        }
    }

    pub(super) fn of_file(args: &EvaluateArgs, path: &Path) -> anyhow::Result<Self> {
        let graph = read_model_aloud(path)?;
        let shape = graph.input_shape().to_vec();
        let p = args.pixels.of_model(path, &shape)?;
        let folder = args.data.as_deref().context("--data is missing")?;
        let dataset = Dataset::of_folder(folder).filter(|_| args.labels.is_none());
        let (name, images) = match dataset {
            Some(dataset) => {
                let records = dataset.full_test_records(folder)?;
                (dataset.name().to_string(), Images::Records(records, shape.clone(), p.clone()))
            }
            None => {
                let labels = args.labels.as_deref().with_context(|| {
                    format!(
                        "{}: neither a data set of scripts/fetch-data nor is there a --labels file",
                        folder.display()
                    )
                })?;
                (folder.display().to_string(), Images::Files(read_classes(labels, folder)?, shape.clone(), p.clone()))
            }
        };
        let (typical, calibration) = match (&args.calibrate, dataset) {
            (Some(path), _) => (calibration_images(path, &shape, &p)?, path.display().to_string()),
            (None, Some(dataset)) => {
                let records = dataset.calibration_records();
                let images = (0..records.len()).map(|i| Ok(records.get_as(i, &shape, &p)?.image));
                let images = images.collect::<Result<Vec<_>, JaliError>>()?;
                (Calibration::Images(images), format!("100 training images of {name}"))
            }
            (None, None) => {
                note(
                    "note: no --calibrate folder, so the first images that are measured set the quantisation scales too",
                )?;
                let images: Vec<Tensor> =
                    (0..images.len().min(100)).map(|i| Ok(images.get(i)?.image)).collect::<Result<_, JaliError>>()?;
                warn_of_range(&name, &images, &p)?;
                (Calibration::Images(images), "the first measured images".into())
            }
        };
        let for_guests = if args.guest { all_of(&typical, &shape, &p)? } else { vec![] };
        let fixed = fixed(args, &graph, &for_guests, &p)?;
        let model = calibrate_file(path, graph, args.common.bits, &typical, &p)?;
        Ok(Self { fixed, network: path.display().to_string(), dataset: name, model, calibration, images })
    }
}

/// Most bytes of a file of labels.
const MAX_LABELS: u64 = 1 << 26;

/// Image files and their classes.
fn read_classes(path: &Path, folder: &Path) -> anyhow::Result<Vec<(PathBuf, usize)>> {
    let text = read_text(path, MAX_LABELS)?;
    let mut files = vec![];
    for (i, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
        let parts = line.rsplit_once([',', ' ', '\t']).map(|(name, class)| (name.trim(), class.trim().parse()));
        match parts {
            Some((name, Ok(class))) => files.push((folder.join(name), class)),
            // A first line that names the columns.
            _ if i == 0 && files.is_empty() && line.contains(',') => {}
            _ => anyhow::bail!(
                "{}: line {} is \"{line}\", it must be of the form IMAGE CLASS with a number for the class",
                path.display(),
                i + 1
            ),
        }
    }
    anyhow::ensure!(!files.is_empty(), "{}: it names no image", path.display());
    let mut classes = std::collections::HashMap::new();
    for (file, class) in &files {
        if let Some(other) = classes.insert(file, class).filter(|other| *other != class) {
            anyhow::bail!("{}: {} has the classes {other} and {class}", path.display(), file.display());
        }
    }
    Ok(files)
}
