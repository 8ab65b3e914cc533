//! A network and images of your own: an ONNX file, typical images to calibrate on, an image to
//! classify.
//!
//! ```sh
//! cargo run --release -p jali --example own_model -- net.onnx typical/ photo.png
//! ```
//! Without arguments it takes the bundled digits, which the repository has. A file
//! `net.preprocess.json` beside the model says how pixels become inputs
//! (`docs/bring-your-model.md`).
#![allow(clippy::print_stdout)]

use std::path::{Path, PathBuf};

use jali::{JaliError, Model, Reading, Sealing};

fn main() -> Result<(), JaliError> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let digits = here.join("../../assets/images/mnist");
    let mut args = std::env::args().skip(1).map(PathBuf::from);
    let path = args.next().unwrap_or_else(|| here.join("bundled/mnist.onnx"));
    let typical = args.next().unwrap_or_else(|| digits.clone());
    let photo = args.next().unwrap_or_else(|| digits.join("00-7.png"));

    let model = Model::open(path)?;
    let photo = model.image(photo)?;
    let mut images = vec![];
    let folder = std::fs::read_dir(&typical);
    for entry in folder.map_err(|e| JaliError::Read { path: typical.clone(), why: e.to_string() })?.flatten() {
        match model.image(entry.path()) {
            Ok(image) => images.push(image),
            Err(why) => println!("left out: {why}"),
        }
    }
    println!("calibrating on {} images of {}", images.len(), typical.display());
    let model = model.calibrate(&images)?;

    let mut client = Sealing::of(&model).seal()?.in_process()?;
    let answer = client.infer(&photo)?;
    let reading = Reading::of(model.graph());
    match reading.class(answer.output()) {
        Some(class) => println!("class {class}"),
        None => println!("outputs {:?}", answer.output().shape),
    }
    Ok(())
}
