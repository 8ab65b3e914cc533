//! The victim, and labelled images for attackers and for scoring.

use std::path::Path;

use burn::tensor::Device;
use jali::model_file::read_model;
use jali::{Dataset, JaliError, Network, Records, Sample};
use jali_leak::file::model_hash;
use jali_model::{Linear, QuantConfig, QuantModel, Tensor};

use crate::AuditError;
use crate::sensitivity;
use crate::victim::Victim;

/// Bundled scoring images; the others are the attackers'.
pub(super) const BUNDLED_SCORING: usize = 500;

/// Where labelled images for attackers come from.
#[derive(Debug)]
pub enum Pool {
    /// A training set.
    Full(Records),
    /// A few images, for example bundled test images that do not score.
    Bundled(Vec<Sample>),
}

impl Pool {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Full(r) => r.len(),
            Self::Bundled(s) => s.len(),
        }
    }

    pub(super) fn image(&self, i: usize) -> Result<Tensor, AuditError> {
        Ok(match self {
            Self::Full(r) => r.get(i)?.image,
            Self::Bundled(s) => s.get(i).map(|s| s.image.clone()).ok_or_else(|| AuditError::Data {
                what: "the bundled images".into(),
                why: format!("there is no image {i}"),
            })?,
        })
    }
}

/// Whether there are as many of something as are asked for.
pub(super) fn enough(what: &str, asked: usize, there: usize, remedy: &str) -> Result<(), AuditError> {
    let why = format!("{asked} are asked for, there are {there}: {remedy}");
    if asked > there { Err(AuditError::Data { what: what.into(), why }) } else { Ok(()) }
}

/// Images for attackers that [`images_hash`] looks at.
const HASHED: usize = 100;

/// BLAKE3 of the scoring images with their labels, the number of images for attackers, and the
/// first of these.
pub(super) fn images_hash(pool: &Pool, test: &[Sample]) -> Result<String, AuditError> {
    let mut hasher = blake3::Hasher::new_derive_key("jali 1 audit: images");
    let mut add = |image: &Tensor| {
        for value in &image.data {
            hasher.update(&value.to_le_bytes());
        }
    };
    test.iter().for_each(|s| add(&s.image));
    for i in 0..pool.len().min(HASHED) {
        add(&pool.image(i)?);
    }
    for number in test.iter().map(|s| s.label).chain([pool.len()]) {
        hasher.update(&(number as u64).to_le_bytes());
    }
    Ok(hasher.finalize().to_hex().to_string())
}

/// The bundled network that a graph is, if it is one: then bundled images may serve.
pub(super) fn bundled(hash: &str) -> Result<Option<Network>, AuditError> {
    for network in [Network::Mnist, Network::Vgg3] {
        if model_hash(&network.graph()?) == hash {
            return Ok(Some(network));
        }
    }
    Ok(None)
}

/// The data set whose form fits a network's input.
pub fn dataset_for(shape: &[usize]) -> Result<Dataset, AuditError> {
    [Dataset::Cifar10, Dataset::Mnist].into_iter().find(|d| d.shape() == shape).ok_or_else(|| AuditError::Data {
        what: format!("a model with inputs {shape:?}"),
        why: "labelled images are read in the forms of CIFAR-10 (3x32x32, data_batch_*.bin) and MNIST (1x28x28, idx \
              files) only: convert yours to one of them"
            .into(),
    })
}

/// What a network says of its files, before anything is loaded.
pub(super) fn check_labelled(folder: &Path, dataset: Dataset) -> Result<(), AuditError> {
    let needed: &[&str] = match dataset {
        Dataset::Cifar10 => &["data_batch_1.bin", "data_batch_5.bin", "test_batch.bin"],
        Dataset::Mnist => {
            &["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"]
        }
    };
    match needed.iter().find(|name| !folder.join(name).is_file()) {
        None => Ok(()),
        Some(missing) => Err(AuditError::Data {
            what: folder.display().to_string(),
            why: format!(
                "{missing} is missing: a labelled data set in the form of {} consists of {} (scripts/fetch-data gets it); images \
                 without labels cannot score an attacker",
                dataset.name(),
                needed.join(", ")
            ),
        }),
    }
}

/// Reads a model's quantised form: a bundled one as the command quantises it, another calibrated on
/// training images.
pub(super) fn quantise(
    path: &Path,
    pool: Option<&Records>,
) -> Result<(QuantModel, String, Option<Network>), AuditError> {
    let graph = read_model(path)?;
    crate::network::check(&graph)?;
    let hash = model_hash(&graph);
    let network = bundled(&hash)?;
    let config = QuantConfig::default();
    let model = match (network, pool) {
        (Some(network), _) => network.quantised(config)?,
        (None, Some(pool)) => {
            let images =
                (0..pool.len().min(100)).map(|i| Ok(pool.get(i)?.image)).collect::<Result<Vec<_>, JaliError>>()?;
            QuantModel::calibrate(graph, config, &images, Some((0.0, 1.0)))?
        }
        (None, None) => return Err(needs_data(path)),
    };
    Ok((model, hash, network))
}

/// The quantised model with its hash, the attackers' images and the scoring images.
pub(super) fn victim_and_data(
    path: &Path,
    data: Option<&Path>,
    scoring: usize,
) -> Result<(QuantModel, String, Pool, Vec<Sample>), AuditError> {
    let shape = read_model(path)?.input_shape().to_vec();
    let dataset = dataset_for(&shape)?;
    let full = match data {
        Some(data) => {
            check_labelled(data, dataset)?;
            Some((dataset.full_train(data)?, dataset.full_test(data)?))
        }
        None => None,
    };
    let (model, hash, network) = quantise(path, full.as_ref().map(|f| &f.0))?;
    Ok(match (full, network) {
        (Some((train, test)), _) => (model, hash, Pool::Full(train), test),
        (None, Some(network)) => {
            let mut test = network.dataset().bundled_test()?;
            let rest = test.split_off(scoring.min(test.len()));
            (model, hash, Pool::Bundled(rest), test)
        }
        (None, None) => return Err(needs_data(path)),
    })
}

fn needs_data(path: &Path) -> AuditError {
    let why = "this is none of the bundled networks: give --data DIR with labelled images".into();
    AuditError::Data { what: path.display().to_string(), why }
}

/// Sensitivity of every weight of a model on the first images that attackers could have.
///
/// # Errors
/// [`AuditError`] for files and data that do not fit.
pub fn sensitivities(path: &Path, data: Option<&Path>, device: Device) -> Result<Vec<Vec<f32>>, AuditError> {
    let (model, _, pool, _) = victim_and_data(path, data, BUNDLED_SCORING)?;
    let images = (0..pool.len().min(sensitivity::IMAGES)).map(|i| pool.image(i)).collect::<Result<Vec<_>, _>>()?;
    sensitivity::scores(&Victim::new(model)?, &images, &device)
}

/// Weights of a public model, for the layers whose shape is the victim's.
pub(super) fn public_weights(victim: &Victim, path: &Path) -> Result<Vec<Option<Vec<f32>>>, AuditError> {
    let graph = read_model(path)?;
    let (theirs, ours): (Vec<_>, Vec<_>) = (graph.linear_nodes().collect(), victim.graph().linear_nodes().collect());
    if theirs.len() != ours.len() {
        return Err(AuditError::Data {
            what: path.display().to_string(),
            why: format!(
                "the public model has {} linear layers, the victim {}: it must have the same architecture (the last layer may differ)",
                theirs.len(),
                ours.len()
            ),
        });
    }
    let fit = |((_, theirs), (_, ours)): (&(usize, Linear<'_>), &(usize, Linear<'_>))| {
        let same =
            theirs.kind() == ours.kind() && theirs.outputs() == ours.outputs() && theirs.fan_in() == ours.fan_in();
        same.then(|| theirs.weights().to_vec())
    };
    let layers: Vec<Option<Vec<f32>>> = theirs.iter().zip(&ours).map(fit).collect();
    if layers.iter().all(Option::is_none) {
        let why = "no layer of the public model has the shape of the victim's".into();
        return Err(AuditError::Data { what: path.display().to_string(), why });
    }
    Ok(layers)
}
