//! The backends, each on every vector unit of this machine: `cargo bench -p jali-ring`. JSON lands
//! under `target/criterion`.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use jali_ring::sample::{self, derive_key, stream};
use jali_ring::{Backend, Inputs, Ntt, Poly, Ring, RowStore};

const DEGREE: usize = 4096;

fn polys(ring: &Ring, count: usize) -> Vec<Poly<Ntt>> {
    let mut rng = stream(&derive_key("jali bench", &[]));
    (0..count).map(|_| ring.uniform(&mut rng)).collect()
}

fn transforms(c: &mut Criterion) {
    let mut group = c.benchmark_group("transform of 4096 coefficients, one prime");
    for bits in [34, 47] {
        for backend in Backend::available() {
            let Ok(ring) = Ring::with_backend(DEGREE, &[bits], backend) else { continue };
            let p = polys(&ring, 1).remove(0);
            let id = |what: &str| BenchmarkId::new(format!("{what}, {bits} bits"), backend.name());
            let mut values = ring.inverse(p.clone());
            group.bench_function(id("forward"), |b| b.iter(|| ring.forward_in_place(&mut values)));
            let mut values = p;
            group.bench_function(id("inverse"), |b| b.iter(|| ring.inverse_in_place(&mut values)));
        }
    }
    group.finish();
}

fn pointwise(c: &mut Criterion) {
    let mut group = c.benchmark_group("pointwise, 4096 coefficients, one prime");
    for backend in Backend::available() {
        let Ok(ring) = Ring::with_backend(DEGREE, &[34], backend) else { continue };
        let p = polys(&ring, 4);
        let mut acc = p[0].clone();
        group.bench_function(BenchmarkId::new("a - b * c", backend.name()), |b| {
            b.iter(|| ring.mul_sub(&mut acc, &p[1], &p[2]))
        });
        group.bench_function(BenchmarkId::new("a * b + c * d", backend.name()), |b| {
            b.iter(|| ring.sum_of_products(&mut acc, [[&p[0], &p[1]], [&p[2], &p[3]]]));
        });
    }
    group.finish();
}

fn rows(c: &mut Criterion) {
    let mut group = c.benchmark_group("rows: 32 rows of 11 tiles, N = 4096, one prime of 34 bits");
    group.sample_size(20);
    for backend in Backend::available() {
        let Ok(ring) = Ring::with_backend(DEGREE, &[34], backend) else { continue };
        let w = polys(&ring, 11);
        let Ok(mut store) = RowStore::new(&ring, &[ring.limbs(); 32], 11) else { continue };
        (0..32 * 11).for_each(|i| store.set(i / 11, i % 11, &w[i % 11]));
        for images in [1, 16] {
            let Ok(batch) = store.prepare(&ring, Inputs::Elements(&vec![w.iter().collect(); images])) else { continue };
            group.throughput(Throughput::Bytes(store.bytes() as u64));
            let id = BenchmarkId::new(format!("{images} images"), backend.name());
            group.bench_function(id, |b| b.iter(|| store.multiply_all(&ring, std::slice::from_ref(&batch))));
        }
    }
    group.finish();
}

fn sampling(c: &mut Criterion) {
    let mut group = c.benchmark_group("sampling 4096 values");
    let mut rng = stream(&derive_key("jali bench", &[]));
    let Ok(ring) = Ring::new(DEGREE, &[34]) else { return };
    let mut v = vec![0; DEGREE];
    group.bench_function("centred binomial", |b| {
        b.iter(|| sample::centred_binomial(Backend::fastest(), &mut rng, &mut v))
    });
    group.bench_function("ternary", |b| b.iter(|| sample::ternary(Backend::fastest(), &mut rng, &mut v)));
    group.bench_function("uniform, 34 bits", |b| b.iter(|| ring.uniform(&mut rng)));
    group.bench_function("lift", |b| b.iter(|| ring.lift(&v, 1000)));
    group.finish();
}

criterion_group!(benches, transforms, pointwise, rows, sampling);
criterion_main!(benches);
