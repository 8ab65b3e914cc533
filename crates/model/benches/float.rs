//! Networks in the clear, one thread: `cargo bench -p jali-model`. `scripts/bench-peers --only
//! onnxruntime` runs onnxruntime beside it.

use criterion::{Criterion, criterion_group, criterion_main};
use jali_model::{Tensor, float, onnx};

fn networks(c: &mut Criterion) {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../jali/bundled");
    let mut files: Vec<String> = ["vgg3", "mnist"].iter().map(|name| format!("{root}/{name}.onnx")).collect();
    // Others, for maintainers.
    files.extend(std::env::var("JALI_BENCH_MODELS").iter().flat_map(|v| v.split(':')).map(str::to_owned));
    for file in files {
        let Ok(bytes) = std::fs::read(&file) else { continue };
        let Ok(graph) = onnx::import(&bytes) else { continue };
        let shape = graph.input_shape().to_vec();
        let data = (0..shape.iter().product::<usize>()).map(|i| (i % 251) as f32 / 251.0).collect();
        let Ok(x) = Tensor::new("x", shape, data) else { continue };
        let name = file.rsplit('/').next().unwrap_or(&file).to_owned();
        c.bench_function(&format!("float, {name}"), |b| b.iter(|| float::run(&graph, x.clone())));
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(30);
    targets = networks
}
criterion_main!(benches);
