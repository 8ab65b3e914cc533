//! Fuzzing without libfuzzer: changes the corpus at random for some seconds. Finds less than
//! coverage can, and runs anywhere. With the second argument `corpus` it writes the first corpus
//! instead.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cap::Cap;
use jali_fuzz::{TARGETS, Target, guests, small};
use jali_testing::Random;

/// Ends the process where more is asked for than the limit.
#[global_allocator]
static MEMORY: Cap<std::alloc::System> = Cap::new(std::alloc::System, usize::MAX);
/// Bytes that an input may take beyond what is there before it.
const LIMIT: usize = 256 << 20;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name)
}

/// Sections with their lengths, as the `*_sections` targets cut them.
fn joined(parts: &[&[u8]]) -> Vec<u8> {
    parts.iter().flat_map(|p| [&(p.len() as u16).to_le_bytes()[..], p].concat()).collect()
}

fn sections_of(bytes: &[u8], kind: jali_bundle::Kind) -> Vec<Vec<u8>> {
    let mut bundle = jali_bundle::Bundle::open(std::io::Cursor::new(bytes), kind).unwrap();
    std::iter::from_fn(|| (!bundle.is_at_end()).then(|| bundle.next(u64::MAX).unwrap())).collect()
}

fn write_corpus() {
    let s = small();
    let server = sections_of(&s.server_bytes, jali_bundle::Kind::Server);
    let client = sections_of(&s.client_bytes, jali_bundle::Kind::Client);
    let refs = |v: &[Vec<u8>]| joined(&v.iter().map(|v| &v[..]).collect::<Vec<_>>());
    let onnx = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/jali/bundled/mnist.onnx")).unwrap();
    for (i, model) in onnx_cases().into_iter().enumerate().filter(|(i, m)| i % 10 == 0 && m.len() < 1000) {
        std::fs::create_dir_all(folder("onnx_model")).unwrap();
        std::fs::write(folder("onnx_model").join(format!("case-{i}")), model).unwrap();
    }
    let preprocess = br#"{"input_scale": 1, "mean": [0.5], "std": [0.25], "resize": "stretch"}"#;
    let photo =
        std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/images/cifar10/00-cat.png")).unwrap();
    let array = jali::image_file::npy_bytes(&jali_model::Tensor::new("x", vec![5], vec![0.5; 5]).unwrap());
    for (target, name, bytes) in [
        ("container", "server", s.server_bytes.clone()),
        ("container", "client", s.client_bytes.clone()),
        ("server_sections", "one", refs(&server)),
        ("client_sections", "one", refs(&client)),
        ("request", "one", s.request.clone()),
        ("answer", "one", s.server.handle(&s.request)),
        ("answer", "refusal", s.server.handle(b"?")),
        ("hints", "one", s.server.hints(0).unwrap()),
        ("outline", "one", s.outline.clone()),
        (
            "plan",
            "one",
            jali_leak::Plan::open_all(&jali_fuzz::graph()).to_json(&jali_fuzz::graph(), "corpus").unwrap().into_bytes(),
        ),
        ("image", "png", joined(&[preprocess, &photo])),
        ("guest_network", "one", guests::small().network.to_bytes().unwrap()),
        ("guest_network", "mnist", mnist_for_guests()),
        ("guest_block", "one", b"JALIDEAL\0\0\0\0\x04\0\0\0\xc8\0age-encryption.org/v1\n".to_vec()),
        ("guest_files", "one", joined(&[&[5; 100], &[6; 128], &[7; 64]])),
        ("guest_messages", "input", guests::small().messages[0].clone()),
        ("guest_messages", "exchange", guests::small().messages[1].clone()),
        ("guest_messages", "ticket", guests::small().shares.clone()),
        ("image", "npy", joined(&[preprocess, &array])),
        // The beginning of a real model: nodes and names, cut in its first weights.
        ("onnx_model", "mnist-head", onnx[..2000].to_vec()),
    ] {
        std::fs::create_dir_all(folder(target)).unwrap();
        std::fs::write(folder(target).join(name), bytes).unwrap();
    }
}

/// A network with pools, without its weights.
fn mnist_for_guests() -> Vec<u8> {
    let network = jali::Network::Mnist;
    let (graph, typical) = (network.graph().unwrap(), network.dataset().bundled_calibration().unwrap());
    let sealing = jali::guests::GuestSealing::of(&graph, &typical, Some((0.0, 1.0)), Default::default()).unwrap();
    sealing.network().to_bytes().unwrap()
}

/// Whole small models: those of the ONNX standard's own cases (`crates/model/src/onnx/tests.rs`
/// reads all of the file).
fn onnx_cases() -> Vec<Vec<u8>> {
    struct Cases(Vec<u8>, usize);
    impl Cases {
        fn take(&mut self, n: usize) -> &[u8] {
            self.1 += n;
            &self.0[self.1 - n..self.1]
        }
        fn number(&mut self) -> usize {
            u32::from_le_bytes(self.take(4).try_into().unwrap()) as usize
        }
        fn bytes(&mut self) -> Vec<u8> {
            let n = self.number();
            self.take(n).to_vec()
        }
        fn skip_tensor(&mut self) {
            let rank = self.take(1)[0];
            let elements: usize = (0..rank).map(|_| self.number()).product();
            self.take(4 * elements);
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/model/tests/data/onnx-cases.bin");
    let mut cases = Cases(std::fs::read(path).unwrap(), 0);
    let mut models = vec![];
    while cases.1 < cases.0.len() {
        let _name = cases.bytes();
        models.push(cases.bytes());
        cases.skip_tensor();
        let outputs = cases.take(1)[0];
        (0..outputs).for_each(|_| cases.skip_tensor());
    }
    models
}

fn run((name, run): Target, time: Duration) {
    small();
    let body = |input: &[u8]| {
        MEMORY.set_limit(MEMORY.allocated() + LIMIT).unwrap();
        run(input);
        MEMORY.set_limit(usize::MAX).unwrap();
    };
    let mut corpus: Vec<Vec<u8>> = vec![vec![]];
    for entry in std::fs::read_dir(folder(name)).into_iter().flatten().flatten() {
        corpus.push(std::fs::read(entry.path()).unwrap());
    }
    if name == "onnx_model" {
        corpus.extend(onnx_cases());
    }
    corpus.iter().for_each(|input| body(input));
    let (begun, mut random, mut runs) = (Instant::now(), Random(0x9e37_79b9_7f4a_7c15), 0u64);
    while begun.elapsed() < time {
        let mut input = corpus[random.below(corpus.len())].clone();
        for _ in 0..=random.below(4) {
            let (at, len) = (random.below(input.len().max(1)), input.len());
            match random.below(6) {
                0 if len > 0 => input[at] ^= 1 << random.below(8),
                1 if len > 0 => input[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
                2 => input.truncate(at),
                3 => input.insert(at.min(len), random.draw() as u8),
                4 if len >= at + 4 => {
                    input[at..at + 4].copy_from_slice(&(random.draw() as u32 >> random.below(32)).to_le_bytes())
                }
                _ => input.extend((0..random.below(20)).map(|_| random.draw() as u8)),
            }
        }
        body(&input);
        runs += 1;
    }
    println!("{name}: {runs} runs in {:.0} s, nothing found", begun.elapsed().as_secs_f64());
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|a| a == "corpus") {
        return write_corpus();
    }
    let (Some(which), Some(seconds)) = (args.first(), args.get(1).and_then(|s| s.parse().ok())) else {
        println!("usage: stable TARGET|all SECONDS, or: stable corpus");
        std::process::exit(2);
    };
    let chosen = TARGETS.into_iter().filter(|(name, _)| which == "all" || which == name);
    let before = chosen.clone().count();
    chosen.for_each(|target| run(target, Duration::from_secs(seconds)));
    if before == 0 {
        println!("no target {which}: {}", TARGETS.map(|t| t.0).join(", "));
        std::process::exit(2);
    }
}
