//! The npm package's PNGs to the canonical CIFAR-10 binary format.

use std::path::Path;

use anyhow::{Context, ensure};

/// Reads `data_batch_1..5.png`, `test_batch.png` (1024 x 10 000 pixels, one image a row) and the
/// two label files (their spelling) from `package` and writes the `.bin` files to `out`.
pub(crate) fn convert(package: &Path, out: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(out)?;
    let labels = |name: &str| -> anyhow::Result<Vec<u8>> {
        let path = package.join(name);
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        serde_json::from_str(&text).with_context(|| path.display().to_string())
    };
    let (train, test) = (labels("train_lables.json")?, labels("test_lables.json")?);
    ensure!(train.len() == 50_000 && test.len() == 10_000, "unexpected number of labels");
    for batch in 0..6 {
        let (name, labels) = match batch {
            5 => ("test_batch".to_string(), &test[..]),
            i => (format!("data_batch_{}", i + 1), &train[i * 10_000..(i + 1) * 10_000]),
        };
        let path = package.join(format!("{name}.png"));
        let pixels = image::open(&path).with_context(|| path.display().to_string())?.into_rgb8();
        ensure!(pixels.dimensions() == (1024, 10_000), "{}: unexpected size", path.display());
        let mut bytes = Vec::with_capacity(10_000 * 3073);
        for (image, &label) in pixels.as_raw().chunks_exact(3072).zip(labels) {
            bytes.push(label);
            (0..3).for_each(|channel| bytes.extend(image.iter().skip(channel).step_by(3)));
        }
        std::fs::write(out.join(format!("{name}.bin")), bytes)?;
        println!("{name}.bin");
    }
    Ok(())
}
