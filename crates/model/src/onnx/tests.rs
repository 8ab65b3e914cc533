//! The ONNX standard's own operator tests (`scripts/onnx-cases` says how the file was made; Apache-2.0, the ONNX project).

use super::import::import_any;
use crate::{ModelError, Tensor, float};

const CASES: &[u8] = include_bytes!("../../tests/data/onnx-cases.bin");

/// Reads the file of cases; it is our own, so a slip in it may panic.
struct Cases(&'static [u8]);

impl Cases {
    fn take(&mut self, n: usize) -> &'static [u8] {
        let (taken, rest) = self.0.split_at(n);
        self.0 = rest;
        taken
    }

    fn number(&mut self) -> usize {
        u32::from_le_bytes(self.take(4).try_into().unwrap()) as usize
    }

    fn bytes(&mut self) -> &'static [u8] {
        let n = self.number();
        self.take(n)
    }

    fn tensor(&mut self) -> (Vec<usize>, Vec<f32>) {
        let rank = self.take(1)[0];
        let shape: Vec<usize> = (0..rank).map(|_| self.number()).collect();
        let values = self.take(4 * shape.iter().product::<usize>());
        (shape, values.as_chunks::<4>().0.iter().map(|c| f32::from_le_bytes(*c)).collect())
    }
}

/// Reasons for which a case may be refused: it mixes images of a batch, or asks for what is documented as missing.
const REFUSED: [&str; 18] = [
    "batch dimension",
    "has a second output",
    "more dimensions than its input",
    "must be a constant",
    "interpolates",
    "must be computed",
    "[channels, height, width]",
    "training mode",
    "over the batch",
    "aspect ratio",
    "coordinate_transformation_mode",
    "transposes its input",
    "mode \"wrap\"",
    "takes the mean",
    "does not fit 4 outputs",
    "cannot take the shape",
    "must be a matrix",
    "empty or too large",
];

#[test]
fn operators_do_what_the_standard_says() {
    let mut cases = Cases(CASES);
    let (mut right, mut refused) = (vec![], vec![]);
    while !cases.0.is_empty() {
        let name = String::from_utf8_lossy(cases.bytes());
        let model = cases.bytes();
        let (shape, data) = cases.tensor();
        let outputs = cases.take(1)[0];
        let wanted: Vec<_> = (0..outputs).map(|_| cases.tensor()).collect();
        let mut none = |_: &super::External| Err(String::new());
        let graph = match import_any(model, &mut none) {
            Ok(imported) => imported.graph,
            Err(e) => {
                let text = e.to_string();
                assert!(REFUSED.iter().any(|r| text.contains(r)), "{name}: {text}");
                refused.push((name, text));
                continue;
            }
        };
        // Every image of the batch alone.
        let size = data.len() / shape[0];
        for (image, x) in data.chunks_exact(size).enumerate() {
            let x = Tensor::new("x", shape[1..].to_vec(), x.to_vec()).unwrap();
            let got: Result<Vec<Tensor>, ModelError> = float::run_all(&graph, x);
            for (got, (shape, want)) in got.unwrap().iter().zip(&wanted) {
                assert_eq!(got.shape, shape[1..], "{name}");
                let want = &want[image * got.data.len()..][..got.data.len()];
                for (g, w) in got.data.iter().zip(want) {
                    // The standard's own tolerance: some of its values are rounded to four digits.
                    assert!((g - w).abs() <= 1e-3 * w.abs() + 1e-6, "{name}: {g} instead of {w}");
                }
            }
        }
        right.push(name);
    }
    println!("{} cases right, {} refused:", right.len(), refused.len());
    refused.iter().for_each(|(name, why)| println!("  {name}: {why}"));
    assert!(right.len() >= 150, "{}", right.len());
}
