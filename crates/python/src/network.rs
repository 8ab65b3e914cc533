//! Networks, and plans of what may be open.

use std::path::PathBuf;
use std::sync::Arc;

use age::secrecy::SecretString;
use jali::files::{Readers, write_aside};
use jali::guests::GuestSealing;
use jali::image_file::{is_image, read_image};
use jali::inspection::Inspection;
use jali::model_file::{parse_preprocess, read_model_file, read_plan, read_preprocess};
use jali::parts::leak::{listed_layers, random_rows};
use jali::parts::model::fixed::{FixedConfig, Outputs as FixedOutputs};
use jali::parts::model::float;
use jali::parts::model::onnx::Imported;
use jali::parts::protocol::{Blueprint, ProtocolError};
use jali::{
    Backend, Graph, JaliError, Link, Model, Origin, Preprocess, QuantConfig, QuantModel, Sealing, Tensor, calibration,
};
use numpy::IntoPyArray;
use pyo3::prelude::*;

use crate::arrays::{Floats, Images, Labels, stacked};
use crate::errors::{bad_input, error, raise};
use crate::outputs::Outputs;
use crate::running::{self, Caller};
use crate::sealed::Sealed;

/// A trained network.
#[pyclass(frozen, module = "jali._jali")]
pub(crate) struct Network {
    path: PathBuf,
    imported: Arc<Imported>,
    preprocess: Preprocess,
    outputs: Outputs,
}

impl Network {
    fn graph(&self) -> &Graph {
        &self.imported.graph
    }

    fn tensors(&self, py: Python<'_>, images: &Images<'_>) -> PyResult<Vec<Tensor>> {
        images.tensors(py, self.graph().input_shape(), &self.preprocess)
    }

    fn model(&self) -> Model {
        Model::new(self.path.clone(), self.graph().clone(), self.preprocess.clone())
    }
}

/// A link between client and server.
fn link_of(py: Python<'_>, link: Option<&str>) -> PyResult<Link> {
    let parse = |text: &str| text.parse::<Link>().map_err(|e| bad_input(py, e.to_string()));
    link.map_or(Ok(Link::LOOPBACK), parse)
}

#[pymethods]
impl Network {
    /// Reads an ONNX file. `preprocess` is JSON; without it, the file beside the model counts.
    #[staticmethod]
    #[pyo3(signature = (path, preprocess=None))]
    fn open(py: Python<'_>, path: PathBuf, preprocess: Option<String>) -> PyResult<Self> {
        let given = preprocess.map(|text| parse_preprocess(text.as_bytes()));
        let given = given.transpose().map_err(|e| {
            let fields = "input_scale, mean, std, layout, channels and resize";
            bad_input(py, format!("preprocess: {e}; its fields are {fields}"))
        })?;
        let from = path.clone();
        let read = move |_: &Caller| {
            let imported = read_model_file(&from)?;
            let beside = || Ok::<_, JaliError>(read_preprocess(&from)?.map(|(_, found)| found).unwrap_or_default());
            let preprocess = given.map_or_else(beside, Ok)?;
            preprocess.check(imported.graph.input_shape())?;
            Ok((imported, preprocess))
        };
        let (imported, preprocess) = running::run(py, read)?;
        let outputs = Outputs::of(&imported.graph, false);
        Ok(Self { path, imported: Arc::new(imported), preprocess, outputs })
    }

    /// A network that comes with the library.
    #[staticmethod]
    fn sample(py: Python<'_>, name: &str) -> PyResult<Self> {
        let graph = sample(py, name)?.graph().map_err(|e| raise(py, e))?;
        let outputs = Outputs::of(&graph, false);
        let imported =
            Imported { input: "input".into(), outputs: vec!["output".into()], opset: 17, warnings: vec![], graph };
        Ok(Self { path: name.into(), imported: Arc::new(imported), preprocess: Preprocess::default(), outputs })
    }

    #[getter]
    fn name(&self) -> String {
        self.path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
    }

    #[getter]
    fn input_shape(&self) -> Vec<usize> {
        self.graph().input_shape().to_vec()
    }

    #[getter]
    fn output_shapes(&self) -> Vec<Vec<usize>> {
        self.outputs.shapes().to_vec()
    }

    #[getter]
    fn classes(&self) -> Option<usize> {
        self.outputs.count()
    }

    #[getter]
    fn weights(&self) -> usize {
        self.graph().weights()
    }

    #[getter]
    fn layers(&self) -> Vec<String> {
        self.graph().linear_nodes().map(|(node, _)| self.graph().nodes()[node].name.clone()).collect()
    }

    /// What becomes of it, as JSON.
    #[pyo3(signature = (link=None))]
    fn inspect(&self, py: Python<'_>, link: Option<&str>) -> PyResult<String> {
        let (link, name, imported) = (link_of(py, link)?, self.path.display().to_string(), self.imported.clone());
        let inspect = move |_: &Caller| {
            let costs = calibration::kept_or_default(Backend::fastest()).over(link);
            Inspection::of(name, Imported::clone(&imported), QuantConfig::default(), &costs)
        };
        let inspection = running::run(py, inspect)?;
        serde_json::to_string(&inspection).map_err(|e| error(py, e.to_string()))
    }

    /// The images of files, (n, ...) float32.
    fn read_images<'py>(&self, py: Python<'py>, files: Vec<PathBuf>) -> PyResult<Floats<'py>> {
        let (shape, preprocess) = (self.input_shape(), self.preprocess.clone());
        let read = move |_: &Caller| {
            files.iter().map(|file| read_image(file, &shape, &preprocess)).collect::<Result<Vec<_>, _>>()
        };
        let images = running::run(py, read)?;
        stacked(py, &images, self.graph().input_shape())
    }

    /// Runs it in the clear: all outputs.
    fn run<'py>(&self, py: Python<'py>, images: Images<'py>) -> PyResult<Vec<Floats<'py>>> {
        let done = self.run_clear(py, &images)?;
        self.outputs.all(py, done)
    }

    /// Runs it in the clear: classes, (n,).
    fn predict<'py>(&self, py: Python<'py>, images: Images<'py>) -> PyResult<Labels<'py>> {
        let done = self.run_clear(py, &images)?;
        self.outputs.labels(py, &done)
    }

    /// Quantises and seals it.
    #[pyo3(signature = (images, plan=None, passphrase=None, link=None, progress=None))]
    fn seal(
        &self,
        py: Python<'_>,
        images: Images<'_>,
        plan: Option<&Plan>,
        passphrase: Option<String>,
        link: Option<&str>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Sealed> {
        let (images, link, model) = (self.tensors(py, &images)?, link_of(py, link)?, self.model());
        let (name, progress) = (self.name(), progress.map(Arc::new));
        let origin = |plan: &Plan| Origin { made: plan.made.clone(), network: Some(name.clone()), evidence: None };
        let (plan, origin) = plan.map(|plan| (plan.plan.clone(), origin(plan))).unzip();
        let seal = move |caller: &Caller| {
            let costs = calibration::kept_or_default(Backend::fastest()).over(link);
            let model = model.calibrate(&images)?;
            let passphrase = passphrase.map(SecretString::from);
            let plan = plan.unwrap_or_else(|| jali::Plan::hide_all(model.graph()));
            let sealing = Sealing::of(&model).plan(&plan).origin(origin).costs(costs).passphrase(passphrase.as_ref());
            sealing.progress(|done| caller.tell(progress.as_ref(), done)).seal()
        };
        Ok(Sealed::new(running::run(py, seal)?))
    }

    /// Seals it for guests into a folder; returns the bits of an output, and how many weights are
    /// hidden.
    #[pyo3(signature = (images, folder, plan=None, class_only=false, passphrase=None, link=None))]
    #[allow(clippy::too_many_arguments, reason = "keywords of one Python function")]
    fn seal_for_guests(
        &self,
        py: Python<'_>,
        images: Images<'_>,
        folder: PathBuf,
        plan: Option<&Plan>,
        class_only: bool,
        passphrase: Option<String>,
        link: Option<&str>,
    ) -> PyResult<(usize, usize)> {
        let (images, link, name) = (self.tensors(py, &images)?, link_of(py, link)?, self.name());
        let (imported, preprocess) = (self.imported.clone(), self.preprocess.clone());
        let plan = plan.map_or_else(|| jali::Plan::hide_all(self.graph()), |plan| plan.plan.clone());
        let seal = move |_: &Caller| {
            let outputs = if class_only { FixedOutputs::Largest } else { FixedOutputs::All };
            let config = FixedConfig { outputs, ..FixedConfig::default() };
            let range = Some(preprocess.input_range(imported.graph.input_shape()));
            let passphrase = passphrase.map(SecretString::from);
            let sealing = GuestSealing::of(&imported.graph, &images, range, config)?.over(link);
            let sealing = sealing.passphrase(passphrase.as_ref());
            let bits = sealing.network().output_bits();
            let saved = sealing.save(&plan, &name, &preprocess, &folder)?;
            Ok((bits, saved.weights.iter().map(|hidden| hidden.hidden).sum()))
        };
        running::run(py, seal)
    }

    fn __repr__(&self) -> String {
        format!("Network({:?}, input {:?}, {} weights)", self.name(), self.input_shape(), self.weights())
    }
}

impl Network {
    fn run_clear(&self, py: Python<'_>, images: &Images<'_>) -> PyResult<Vec<Vec<Tensor>>> {
        let (images, imported) = (self.tensors(py, images)?, self.imported.clone());
        let run = move |_: &Caller| {
            let one = |image| float::run_all(&imported.graph, image).map_err(JaliError::from);
            images.into_iter().map(one).collect::<Result<Vec<_>, _>>()
        };
        running::run(py, run)
    }
}

/// What may be open of a network.
#[pyclass(frozen, module = "jali._jali")]
pub(crate) struct Plan {
    plan: jali::Plan,
    made: String,
    imported: Arc<Imported>,
}

#[pymethods]
impl Plan {
    /// Nothing may be open.
    #[staticmethod]
    fn hide_all(network: &Network) -> Self {
        Self::new(jali::Plan::hide_all(network.graph()), "everything hidden".into(), network)
    }

    /// Everything may be open.
    #[staticmethod]
    fn open_all(network: &Network) -> Self {
        Self::new(jali::Plan::open_all(network.graph()), "everything open".into(), network)
    }

    /// Random rows that hold this fraction of the weights may be open.
    #[staticmethod]
    fn random_rows(py: Python<'_>, network: &Network, fraction: f64, seed: u64) -> PyResult<Self> {
        let imported = network.imported.clone();
        let draw = move |_: &Caller| {
            let model = QuantModel::uncalibrated(imported.graph.clone(), QuantConfig::default())?;
            let rows = Blueprint::rows_of_all(&model, &calibration::kept_or_default(Backend::fastest()))?;
            Ok(random_rows(model.graph(), &rows, fraction, seed).map_err(ProtocolError::from)?)
        };
        let plan = running::run(py, draw)?;
        Ok(Self::new(plan, format!("random-rows, fraction {fraction}, seed {seed}"), network))
    }

    /// The layers of these names may be open.
    #[staticmethod]
    fn open_layers(py: Python<'_>, network: &Network, names: Vec<String>) -> PyResult<Self> {
        let plan = listed_layers(network.graph(), &names).map_err(|e| raise(py, ProtocolError::from(e)))?;
        Ok(Self::new(plan, format!("layers {}", names.join(", ")), network))
    }

    /// Reads a plan of this network from a file.
    #[staticmethod]
    fn load(py: Python<'_>, path: PathBuf, network: &Network) -> PyResult<Self> {
        let file = read_plan(&path, network.graph()).map_err(|e| raise(py, e))?;
        Ok(Self::new(file.plan, file.origin.made, network))
    }

    /// Writes it into a file.
    fn save(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        let text = self.plan.to_json(&self.imported.graph, &self.made);
        let text = text.map_err(|e| raise(py, ProtocolError::from(e)))?;
        write_aside(&path, text.as_bytes(), Readers::Owner).map_err(|e| raise(py, e))
    }

    /// Fraction of the weights that may be open.
    #[getter]
    fn fraction_open(&self) -> f64 {
        self.plan.fraction_permitted()
    }

    fn __repr__(&self) -> String {
        format!("Plan({}: {:.1} % may be open)", self.made, 100.0 * self.fraction_open())
    }
}

impl Plan {
    fn new(plan: jali::Plan, made: String, network: &Network) -> Self {
        Self { plan, made, imported: network.imported.clone() }
    }
}

fn sample(py: Python<'_>, name: &str) -> PyResult<jali::Network> {
    let all = [jali::Network::Vgg3, jali::Network::Mnist];
    let found = all.into_iter().find(|network| network.name() == name);
    found.ok_or_else(|| bad_input(py, format!("{name:?} is no sample: there are \"vgg3\" and \"mnist\"")))
}

/// Returns test images of a network that comes with the library, and their classes.
#[pyfunction]
pub(crate) fn sample_images<'py>(py: Python<'py>, name: &str, count: usize) -> PyResult<(Floats<'py>, Labels<'py>)> {
    let samples = sample(py, name)?.dataset().bundled_test().map_err(|e| raise(py, e))?;
    let (images, labels): (Vec<_>, Vec<_>) =
        samples.into_iter().take(count).map(|sample| (sample.image, sample.label as i64)).unzip();
    let Some(shape) = images.first().map(|image: &Tensor| image.shape.clone()) else {
        return Err(bad_input(py, "count must be 1 or more"));
    };
    Ok((stacked(py, &images, &shape)?, labels.into_pyarray(py)))
}

/// Returns those of some files that are images, by their content.
#[pyfunction]
pub(crate) fn images_among(py: Python<'_>, files: Vec<PathBuf>) -> PyResult<Vec<PathBuf>> {
    let is = |file: &PathBuf| is_image(file).map(|kind| kind.is_some()).map_err(|e| raise(py, e));
    let mut found = vec![];
    for file in files {
        if is(&file)? {
            found.push(file);
        }
    }
    Ok(found)
}
