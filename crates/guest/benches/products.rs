//! Products of the guests' mode on every vector unit of this machine: `cargo bench -p jali-guest`.
//! Elements are products of a weight and a value. JSON lands under `target/criterion`.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use jali_guest::Backend;
use jali_guest::linear::Matrix;
use jali_model::{Conv, Gemm, Linear};

fn words(n: usize) -> Vec<u32> {
    (0..n as u32).map(|i| i.wrapping_mul(0x9e37_79b9).rotate_left(11).wrapping_mul(0x85eb_ca6b)).collect()
}

/// The convolutions of vgg3: input channels, filters, height and width.
const LAYERS: [[usize; 3]; 6] = [[3, 32, 32], [32, 32, 32], [32, 64, 16], [64, 64, 16], [64, 128, 8], [128, 128, 8]];

fn convolutions(c: &mut Criterion) {
    let mut group = c.benchmark_group("convolutions of vgg3, one thread");
    for backend in Backend::all() {
        let layers: Vec<_> = LAYERS
            .iter()
            .map(|&[channels, filters, size]| {
                let conv = Conv {
                    weight: vec![],
                    bias: vec![],
                    filters,
                    channels,
                    kernel: [3, 3],
                    stride: [1, 1],
                    padding: [1; 4],
                    dilation: [1, 1],
                    groups: 1,
                };
                let weights = words(filters * channels * 9);
                let (input, output) = ([channels, size, size], [filters, size, size]);
                let matrix = Matrix::new(Linear::Conv(&conv), &input, &output, &weights, 28);
                (matrix, words(channels * size * size), words(filters * size * size))
            })
            .collect();
        let products: usize = LAYERS.iter().map(|[channels, filters, size]| channels * filters * 9 * size * size).sum();
        group.throughput(Throughput::Elements(products as u64));
        group.bench_function(BenchmarkId::from_parameter(backend.name()), |b| {
            let mut layers = layers.clone();
            b.iter(|| {
                for (matrix, x, y) in &mut layers {
                    matrix.add_product(backend, black_box(x), y);
                }
            });
        });
    }
    group.finish();
}

/// A fully connected layer that no cache holds, for one session and for eight at a time.
fn dense(c: &mut Criterion) {
    let (inputs, outputs) = (9216, 4096);
    let gemm = Gemm { weight: vec![], bias: vec![], inputs, outputs };
    let alone = Matrix::new(Linear::Gemm(&gemm), &[inputs], &[outputs], &words(inputs * outputs), 28);
    let shared = alone.clone().shared();
    let (x, backend) = (words(inputs), Backend::best());
    let mut group = c.benchmark_group("fully connected, 9216 to 4096");
    group.sample_size(20);
    for sessions in [1, 2, 8] {
        group.throughput(Throughput::Elements((sessions * inputs * outputs) as u64));
        for (name, matrix) in [("alone", &alone), ("shared", &shared)] {
            group.bench_function(BenchmarkId::new(name, format!("{sessions} sessions")), |b| {
                b.iter(|| {
                    std::thread::scope(|scope| {
                        for _ in 0..sessions {
                            scope.spawn(|| {
                                let mut y = vec![0; outputs];
                                matrix.add_product(backend, &x, &mut y);
                                black_box(y)
                            });
                        }
                    });
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, convolutions, dense);
criterion_main!(benches);
