//! What a few bytes of a hostile bundle can make a process allocate. A process of its own, whose
//! allocator counts.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::alloc::System;
use std::io::Cursor;

use cap::Cap;
use jali::Backend;
use jali_bundle::{BundleWriter, Kind};
use jali_model::{Conv, Graph, Op, QuantConfig, QuantModel};
use jali_operator::ServerModel;
use jali_protocol::StoredClient;

#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, usize::MAX);

/// The most that a decoder may take beyond what was there: a few times the file, and a little.
fn within<T>(bytes: usize, decode: impl FnOnce() -> T) -> T {
    let room = 4 * bytes + (8 << 20);
    // Whatever asks for more ends the process, and the test.
    MEMORY.set_limit(MEMORY.allocated() + room).unwrap();
    let result = decode();
    MEMORY.set_limit(usize::MAX).unwrap();
    result
}

/// An outline of one convolution along a line whose kernel has so many taps.
fn long_kernel(taps: usize, stride: usize) -> Vec<u8> {
    let mut graph = Graph::new(vec![1, taps, 1]).unwrap();
    let conv = Conv {
        weight: vec![1.0; taps],
        bias: vec![0.0],
        filters: 1,
        channels: 1,
        kernel: [taps, 1],
        stride: [stride, 1],
        padding: [0; 4],
        dilation: [1, 1],
        groups: 1,
    };
    graph.push("conv".into(), Op::Conv(conv), vec![0]).unwrap();
    let model = QuantModel::uncalibrated(graph, QuantConfig::default()).unwrap();
    model.outline().unwrap().to_bytes().unwrap()
}

/// A client's bundle of a few hundred bytes.
fn client(outline: &[u8], choice: [u32; 4]) -> Vec<u8> {
    let mut out = BundleWriter::new(vec![], Kind::Client, [1; 16]).unwrap();
    out.section("network", outline).unwrap();
    // One operator at node 0, degree 2048, one prime of 47 bits, no open rows of their own, a
    // modulus of 45 bits.
    let mut operators = [1u32, 0].map(u32::to_le_bytes).concat();
    operators.extend(choice.map(u32::to_le_bytes).concat());
    operators.extend(2048u32.to_le_bytes());
    operators.extend([1, 47, 1, 45]);
    out.section("operators", &operators).unwrap();
    out.section("key 0", &[0; 40]).unwrap();
    out.finish().unwrap().0
}

#[test]
fn decoders_pay_before_they_allocate() {
    // A client's bundle: taps of a kernel that its key does not pay for.
    for (taps, stride) in [(1 << 24, 1), (1 << 24, 1 << 24), (1 << 20, 3)] {
        let outline = long_kernel(taps, stride);
        for tile in [1, 512, 2048] {
            let bundle = client(&outline, [tile, 1, 1, 1]);
            assert!(bundle.len() < 2000);
            let read = within(bundle.len(), || StoredClient::read(Cursor::new(&bundle)).map(|_| ()));
            let why = read.unwrap_err().to_string();
            assert!(why.contains("long enough for the layer") || why.contains("coefficients"), "{why}");
        }
    }
    // A server's bundle: many operators, each of which wants every coefficient of a large ring.
    let mut operators = 4096u32.to_le_bytes().to_vec();
    for _ in 0..4096 {
        operators.extend(32768u32.to_le_bytes());
        operators.extend([1, 47, 1]);
        // Tiles, blocks, rows; wanted: start, then (count, stride) three times.
        operators.extend([1u32, 1, 1, 0, 1, 1, 1, 1, 32768, 1].map(u32::to_le_bytes).concat());
        operators.extend([0; 32]);
        operators.push(0);
    }
    let mut out = BundleWriter::new(vec![], Kind::Server, [1; 16]).unwrap();
    out.section("operators", &operators).unwrap();
    let bundle = out.finish().unwrap().0;
    let backend = Backend::fastest();
    let load = within(bundle.len(), || ServerModel::load(&bundle, backend, 1 << 20).map(|_| ()));
    let why = load.unwrap_err().to_string();
    assert!(why.contains("memory"), "{why}");
}
