//! What `jali infer` has classified so far.

use std::path::Path;
use std::time::Duration;

use jali::files::{Readers, write_aside};
use jali::image_file::npy_bytes;
use jali::{JaliError, Tensor};

use super::InferArgs;
use super::classes::Classes;
use super::inputs::Input;
use super::opened::With;
use super::report::{How, Outcome, guesses};
use crate::exit::{DIFFERENT, exit_code};
use crate::text::ms;

/// What has been classified so far.
#[derive(Default)]
pub(super) struct Progress {
    pub(super) images: Vec<Outcome>,
    pub(super) failure: Option<u8>,
    pub(super) times: Vec<Duration>,
    /// What ended the run.
    last: Option<JaliError>,
}

impl Progress {
    fn fail(&mut self, code: u8) {
        self.failure = graver(self.failure, code);
    }

    /// Classifies one batch. Only images that could be read are sent; after a failure nothing is.
    pub(super) fn batch(
        &mut self,
        args: &InferArgs,
        batch: &[Input],
        with: Option<&mut With>,
        classes: &Classes,
    ) -> Result<Vec<Outcome>, JaliError> {
        let good: Vec<Tensor> = batch.iter().filter_map(|i| i.image.as_ref().ok().cloned()).collect();
        let ended_before = self.last.is_some();
        let is_guest = matches!(with, Some(With::Guest { .. }));
        let class_alone = with.as_deref().is_some_and(With::gives_class_alone);
        let result = with.filter(|_| !good.is_empty() && !ended_before).map(|with| with.run(&good));
        let (mut done, mut each) = (vec![], Duration::ZERO);
        match result {
            Some(Ok(run)) => {
                each = run.latency / good.len() as u32;
                self.times.extend(good.iter().map(|_| each));
                done = run.outputs.into_iter().zip(run.exact).collect();
            }
            Some(Err(e)) => self.last = Some(e),
            None => {}
        }
        let (mut done, mut outcomes) = (done.into_iter(), vec![]);
        for input in batch {
            let number = self.images.len() + outcomes.len();
            let result = if input.image.is_ok() { done.next() } else { None };
            let outcome = match (&input.image, result, &self.last) {
                (Err(e), ..) => self.failed(Outcome::failed(&input.name, e.to_string(), exit_code(e))),
                (Ok(_), Some((outputs, exact)), _) => {
                    if exact == Some(false) {
                        self.fail(DIFFERENT);
                    }
                    let kept = args.outputs.as_deref().map(|folder| keep(folder, number, &input.name, &outputs));
                    let kept = kept.transpose()?.unwrap_or_default();
                    let mut top = guesses(classes, &outputs);
                    if class_alone {
                        top.truncate(1);
                        top.iter_mut().for_each(|guess| guess.probability = None);
                    }
                    let how = How { latency_ms: ms(each), exact, is_guest };
                    Outcome::classified(input, top, kept, how)
                }
                (Ok(_), None, Some(e)) => {
                    let (why, code) = (e.to_string(), exit_code(e));
                    self.failed(match ended_before {
                        true => Outcome::untried(&input.name, &why, code),
                        false => Outcome::failed(&input.name, why, code),
                    })
                }
                (Ok(_), None, None) => continue,
            };
            outcomes.push(outcome);
        }
        Ok(outcomes)
    }

    fn failed(&mut self, outcome: Outcome) -> Outcome {
        outcome.exit_code.into_iter().for_each(|code| self.fail(code));
        outcome
    }
}

/// Of two failures the one to exit with: wrong or rejected results before anything else, then the
/// first.
fn graver(first: Option<u8>, new: u8) -> Option<u8> {
    const RESULTS: [u8; 2] = [4, DIFFERENT];
    match first {
        Some(code) if RESULTS.contains(&code) || !RESULTS.contains(&new) => Some(code),
        _ => Some(new),
    }
}

/// Writes an image's outputs. The number in front keeps images of the same name apart.
fn keep(folder: &Path, index: usize, name: &str, outputs: &[Tensor]) -> Result<Vec<String>, JaliError> {
    let stem = Path::new(name).file_stem().unwrap_or_default().to_string_lossy().replace(' ', "-");
    let keep = |(k, output): (usize, &Tensor)| {
        let path = folder.join(format!("{index:05}-{stem}.{k}.npy"));
        write_aside(&path, &npy_bytes(output), Readers::Owner)?;
        Ok(path.display().to_string())
    };
    outputs.iter().enumerate().map(keep).collect()
}
