//! Outputs of a network, and the classes that they name.

use jali::parts::model::Graph;
use jali::{Reading, Tensor};
use numpy::IntoPyArray;
use pyo3::prelude::*;

use crate::arrays::{Floats, Labels, stacked};
use crate::errors::bad_input;

/// How outputs are read.
#[derive(Debug, Clone)]
pub(crate) struct Outputs {
    /// Shapes of all outputs.
    shapes: Vec<Vec<usize>>,
    names: Vec<String>,
    /// The output that names classes, how, and how many there are.
    classes: Option<(usize, Reading, Option<usize>)>,
    /// Whether a class comes alone, and not how likely it is.
    class_alone: bool,
}

impl Outputs {
    pub(crate) fn of(graph: &Graph, class_alone: bool) -> Self {
        let at = Reading::output(graph, None);
        let reading = at.map(|at| (at, Reading::of_output(graph, at)));
        let classes = reading.filter(|(_, reading)| *reading != Reading::Other);
        Self {
            shapes: graph.outputs().iter().map(|&id| graph.shape(id).to_vec()).collect(),
            names: graph.output_names().to_vec(),
            classes: classes.map(|(at, reading)| (at, reading, reading.classes(graph, at))),
            class_alone,
        }
    }

    pub(crate) fn shapes(&self) -> &[Vec<usize>] {
        &self.shapes
    }

    /// Number of classes, if there are any.
    pub(crate) fn count(&self) -> Option<usize> {
        self.classes.and_then(|(.., count)| count)
    }

    fn read<'o>(&self, py: Python<'_>, images: &'o [Vec<Tensor>]) -> PyResult<(Reading, Vec<&'o Tensor>)> {
        let Some((at, reading, _)) = self.classes else {
            return Err(bad_input(
                py,
                format!("none of the outputs ({}) names classes: outputs() gives them all", self.names.join(", ")),
            ));
        };
        Ok((reading, images.iter().filter_map(|outputs| outputs.get(at)).collect()))
    }

    /// All outputs, each (n, ...).
    pub(crate) fn all<'py>(&self, py: Python<'py>, mut images: Vec<Vec<Tensor>>) -> PyResult<Vec<Floats<'py>>> {
        let one = |(at, shape): (usize, &Vec<usize>)| {
            let tensors: Vec<Tensor> = images
                .iter_mut()
                .filter_map(|outputs| outputs.get_mut(at))
                .map(|t| Tensor { shape: std::mem::take(&mut t.shape), data: std::mem::take(&mut t.data) })
                .collect();
            stacked(py, &tensors, shape)
        };
        self.shapes.iter().enumerate().map(one).collect()
    }

    /// Classes, (n,).
    pub(crate) fn labels<'py>(&self, py: Python<'py>, images: &[Vec<Tensor>]) -> PyResult<Labels<'py>> {
        let (reading, outputs) = self.read(py, images)?;
        let class = |output: &Tensor| reading.class(output).map_or(-1, |class| class as i64);
        Ok(outputs.into_iter().map(class).collect::<Vec<i64>>().into_pyarray(py))
    }

    /// Fails, before anything is computed, if there are no probabilities.
    pub(crate) fn check_probabilities(&self, py: Python<'_>) -> PyResult<()> {
        let (reading, _) = self.read(py, &[])?;
        match self.class_alone || reading == Reading::Class {
            true => Err(bad_input(py, "this network gives the class alone, and not how likely it is: use predict")),
            false => Ok(()),
        }
    }

    /// Probabilities, (n, classes).
    pub(crate) fn probabilities<'py>(&self, py: Python<'py>, images: &[Vec<Tensor>]) -> PyResult<Floats<'py>> {
        self.check_probabilities(py)?;
        let (reading, outputs) = self.read(py, images)?;
        let row = |output: &Tensor| reading.probabilities(output).unwrap_or_default();
        let rows: Vec<Vec<f32>> = outputs.into_iter().map(row).collect();
        let classes = self.count().unwrap_or(0);
        let array = rows.concat().into_pyarray(py);
        numpy::PyArrayMethods::reshape(&array, vec![rows.len(), classes])
    }
}
