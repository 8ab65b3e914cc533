//! Plans: one permission for each weight.

use std::ops::Range;

use jali_model::Graph;

use crate::LeakError;

/// For every linear layer, in order, whether each weight may be open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    layers: Vec<Vec<bool>>,
}

impl Plan {
    /// Makes a plan by which nothing may be open.
    pub fn hide_all(graph: &Graph) -> Self {
        Self { layers: graph.linear_nodes().map(|(_, l)| vec![false; l.weights().len()]).collect() }
    }

    /// Makes a plan by which everything may be open.
    pub fn open_all(graph: &Graph) -> Self {
        Self { layers: graph.linear_nodes().map(|(_, l)| vec![true; l.weights().len()]).collect() }
    }

    /// Permits a range of weights of one layer.
    pub(crate) fn open(&mut self, layer: usize, weights: Range<usize>) {
        self.layers[layer][weights].fill(true);
    }

    /// Returns the number of weights of every layer.
    pub(crate) fn counts(&self) -> Vec<usize> {
        self.layers.iter().map(Vec::len).collect()
    }

    /// Returns the ranges `[start, end)` of a layer's weights that may be open, rising and not
    /// touching.
    pub fn open_ranges(&self, layer: usize) -> Vec<[usize; 2]> {
        let mut ranges: Vec<[usize; 2]> = vec![];
        for (w, _) in self.layers[layer].iter().enumerate().filter(|(_, open)| **open) {
            match ranges.last_mut() {
                Some([_, end]) if *end == w => *end = w + 1,
                _ => ranges.push([w, w + 1]),
            }
        }
        ranges
    }

    /// Checks that the plan was made for a network of this shape.
    ///
    /// # Errors
    /// [`LeakError::Mismatch`] if the numbers of linear layers or of their weights differ.
    pub fn validate(&self, graph: &Graph) -> Result<(), LeakError> {
        let counts: Vec<usize> = graph.linear_nodes().map(|(_, l)| l.weights().len()).collect();
        let mismatch = |what, expected, got| Err(LeakError::Mismatch { what, expected, got });
        if counts.len() != self.layers.len() {
            return mismatch("linear layers", self.layers.len(), counts.len());
        }
        match self.layers.iter().zip(&counts).find(|(l, n)| l.len() != **n) {
            Some((l, &n)) => mismatch("weights of a layer", l.len(), n),
            None => Ok(()),
        }
    }

    /// Returns for each weight of a layer whether it may be open.
    pub fn permissions(&self, layer: usize) -> &[bool] {
        &self.layers[layer]
    }

    /// Returns whether all weights of a range of a layer may be open.
    pub fn may_open(&self, layer: usize, weights: Range<usize>) -> bool {
        self.layers[layer][weights].iter().all(|&open| open)
    }

    /// Returns whether the whole layer may be open.
    pub fn may_open_layer(&self, layer: usize) -> bool {
        self.may_open(layer, 0..self.layers[layer].len())
    }

    /// Counts, for every layer, the weights that may be open in the other plan and not in this one,
    /// and those that may be open in this one and not in the other.
    ///
    /// # Errors
    /// [`LeakError::Mismatch`] for plans of networks of different shapes.
    pub fn changes_to(&self, other: &Self) -> Result<Vec<[usize; 2]>, LeakError> {
        let (expected, got) = (self.counts(), other.counts());
        if expected != got {
            let (expected, got) = (expected.iter().sum(), got.iter().sum());
            return Err(LeakError::Mismatch { what: "weights of the network", expected, got });
        }
        let count = |a: &[bool], b: &[bool]| a.iter().zip(b).filter(|(a, b)| !**a && **b).count();
        Ok(self.layers.iter().zip(&other.layers).map(|(a, b)| [count(a, b), count(b, a)]).collect())
    }

    /// Returns the fraction of all weights that may be open, from 0 to 1.
    pub fn fraction_permitted(&self) -> f64 {
        let open = self.layers.iter().flatten().filter(|&&o| o).count();
        open as f64 / self.layers.iter().map(Vec::len).sum::<usize>() as f64
    }
}
