//! The paper's Tables 5 and 6: its method in our ring, and the same layers by Jali.

use std::time::{Duration, Instant};

use jali::{Backend, Costs, QuantConfig, QuantModel, Sealing, Tensor, calibration};
use jali_model::{Conv, Gemm, Graph, Op};
use jali_ring::sample::{derive_key, stream};
use jali_textbook::textbook::Textbook;
use serde::Serialize;

use crate::text::{median, ms, progress, say, say_json, table};
use crate::{Common, Leak};

/// Measure what hiding weights costs by the paper's method, and by Jali, for the layers of its
/// Tables 5 and 6.
///
/// The paper's method: BGV in our ring with our backends (N = 8192, two data primes and a special
/// one, 44 bits each), one value per ciphertext, relinearisation and rescaling after every product.
/// Its times are those of one product on one thread, multiplied with the number of products. Jali's
/// times are measured on whole layers, both sides, all threads.
#[derive(clap::Parser)]
#[command(after_help = "Examples:\n  jali bench paper\n  jali bench paper --json")]
pub(crate) struct PaperArgs {
    #[command(flatten)]
    common: Common,
}

#[derive(Serialize)]
struct Report {
    backend: &'static str,
    threads: usize,
    /// One thread, medians, in microseconds.
    plain_us: f64,
    plain_rescaled_us: f64,
    relinearised_us: f64,
    relinearised_rescaled_us: f64,
    layers: Vec<Layer>,
}

#[derive(Serialize)]
struct Layer {
    table: u8,
    layer: &'static str,
    products: u64,
    points: Vec<Point>,
}

/// One fraction of encrypted weights.
#[derive(Serialize)]
struct Point {
    encrypted: f64,
    /// As the paper prints it; absent where its table is unreadable.
    paper_factor: Option<f64>,
    /// Its method here.
    textbook_factor: f64,
    textbook_s: f64,
    jali_factor: f64,
    jali_ms: f64,
    /// What sealing really hid: all but whole rows.
    jali_hidden: f64,
}

const FC_SMALL: [f64; 11] = [1.0, 1.3, 1.55, 1.7, 1.9, 2.15, 2.3, 2.5, 2.7, 2.95, 3.11];
/// Not a number where the paper's cell is unreadable.
const FC_LARGE: [f64; 11] = [1.0, f64::NAN, f64::NAN, f64::NAN, 2.2, 2.5, 2.9, f64::NAN, 3.252, 3.7, 4.1];
const CONV: [f64; 11] = [1.0, 4.5, 8.0, 11.7, 15.0, 18.15, 22.3, 25.5, 29.7, 32.55, 36.11];

/// Median of some runs, in seconds.
fn time<T>(mut f: impl FnMut() -> T) -> f64 {
    let runs = (0..25).map(|_| {
        let start = Instant::now();
        std::hint::black_box(f());
        start.elapsed()
    });
    median(runs).as_secs_f64()
}

/// Seconds of one product: plain, plain and rescaled, ciphertext and relinearised, and rescaled as
/// well. An addition to the sum is part of each.
fn products(backend: Backend) -> anyhow::Result<[f64; 4]> {
    let scheme = Textbook::new(8192, 2, 44, 65_537, backend)?;
    let mut rng = stream(&derive_key("jali bench paper", &[]));
    let keys = scheme.keys(&mut rng);
    let (x, w) = (scheme.encrypt(&keys, &[17], &mut rng), scheme.encrypt(&keys, &[-5], &mut rng));
    let plain = scheme.plain(&[-5]);
    let mut sum = x.clone();
    let mut rescaled = scheme.rescale(&x)?;
    let a = time(|| scheme.add_assign(&mut sum, &scheme.multiply_plain(&x, &plain)));
    let b = time(|| scheme.rescale(&scheme.multiply_plain(&x, &plain)).map(|c| scheme.add_assign(&mut rescaled, &c)));
    let c = time(|| scheme.add_assign(&mut sum, &scheme.multiply(&keys, &x, &w)));
    let d = time(|| scheme.rescale(&scheme.multiply(&keys, &x, &w)).map(|c| scheme.add_assign(&mut rescaled, &c)));
    Ok([a, b, c, d])
}

fn numbers(count: usize) -> Vec<f32> {
    (0..count).map(|i| (i * 7919 % 1009) as f32 / 1009.0 - 0.5).collect()
}

fn single(input: Vec<usize>, op: Op) -> anyhow::Result<(QuantModel, Tensor)> {
    let image = Tensor::new("input", input.clone(), numbers(input.iter().product()))?;
    let mut graph = Graph::new(input)?;
    graph.push("layer".into(), op, vec![0])?;
    Ok((QuantModel::calibrate(graph, QuantConfig::default(), std::slice::from_ref(&image), None)?, image))
}

fn gemm(inputs: usize, outputs: usize) -> anyhow::Result<(QuantModel, Tensor)> {
    let op = Op::Gemm(Gemm { weight: numbers(inputs * outputs), bias: vec![0.0; outputs], inputs, outputs });
    single(vec![inputs], op)
}

fn conv() -> anyhow::Result<(QuantModel, Tensor)> {
    let (weight, bias) = (numbers(32 * 32 * 9), vec![0.0; 32]);
    let (kernel, padding) = ([3, 3], [1; 4]);
    let (filters, channels, stride, dilation) = (32, 32, [1, 1], [1, 1]);
    let op = Op::Conv(Conv { weight, bias, filters, channels, kernel, stride, padding, dilation, groups: 1 });
    single(vec![32, 32, 32], op)
}

/// Milliseconds of a whole layer by Jali with a fraction encrypted, and the fraction that sealing
/// really hid.
fn jali(
    (model, input): &(QuantModel, Tensor),
    encrypted: f64,
    costs: &Costs,
    backend: Backend,
) -> anyhow::Result<(f64, f64)> {
    let plan = Leak { leak: 1.0 - encrypted, seed: 0, plan: None }.plan(model, costs)?;
    let sealed = Sealing::of(model).plan(&plan).costs(*costs).seal()?;
    let hidden = crate::local::hidden_fraction(sealed.report());
    let mut client = sealed.in_process_on(backend)?;
    let mut latencies: Vec<Duration> = vec![];
    for _ in 0..12 {
        let run = client.infer_traced(input)?;
        anyhow::ensure!(run.is_exact(model, input)?, "encrypted and plaintext results differ");
        latencies.push(run.answer.latency);
    }
    Ok((ms(median(latencies)), hidden))
}

pub(super) fn run(args: &PaperArgs) -> anyhow::Result<()> {
    let backend = args.common.start()?;
    let costs = calibration::of_this_machine(backend)?;
    let [plain, plain_rescaled, relinearised, relinearised_rescaled] = products(backend)?;
    let rescaled = (plain_rescaled, relinearised_rescaled);
    let layers = [
        (5, "FC 128 -> 10", 1280u64, gemm(128, 10)?, FC_SMALL, rescaled),
        (5, "FC 2048 -> 128", 2048 * 128, gemm(2048, 128)?, FC_LARGE, rescaled),
        (6, "conv 3x3, 32 -> 32 on 32x32", 32 * 32 * 9 * 1024, conv()?, CONV, (plain, relinearised)),
    ];
    let bar = progress(33, "layers");
    let mut measured = vec![];
    for (table, layer, products, network, paper, (open, hidden)) in layers {
        let mut points = vec![];
        let mut base = 0.0;
        for (tenth, paper) in paper.into_iter().enumerate() {
            let encrypted = tenth as f64 / 10.0;
            let (jali_ms, jali_hidden) = jali(&network, encrypted, &costs, backend)?;
            if tenth == 0 {
                base = jali_ms;
            }
            let each = encrypted * hidden + (1.0 - encrypted) * open;
            points.push(Point {
                encrypted,
                paper_factor: Some(paper).filter(|p| p.is_finite()),
                textbook_factor: each / open,
                textbook_s: each * products as f64,
                jali_factor: jali_ms / base,
                jali_ms,
                jali_hidden,
            });
            bar.inc(1);
        }
        measured.push(Layer { table, layer, products, points });
    }
    bar.finish_and_clear();
    let report = Report {
        backend: backend.name(),
        threads: rayon::current_num_threads(),
        plain_us: plain * 1e6,
        plain_rescaled_us: plain_rescaled * 1e6,
        relinearised_us: relinearised * 1e6,
        relinearised_rescaled_us: relinearised_rescaled * 1e6,
        layers: measured,
    };
    if args.common.json { say_json(&report) } else { print(&report) }
}

fn print(r: &Report) -> anyhow::Result<()> {
    say("One product by the paper's method, one thread, one addition included:")?;
    say(format!(
        "  ciphertext x plaintext                   {:7.0} us, with rescaling {:7.0} us",
        r.plain_us, r.plain_rescaled_us
    ))?;
    say(format!(
        "  ciphertext x ciphertext, relinearised    {:7.0} us, with rescaling {:7.0} us\n",
        r.relinearised_us, r.relinearised_rescaled_us
    ))?;
    for layer in &r.layers {
        say(format!("Table {}: {}, {} products", layer.table, layer.layer, layer.products))?;
        let header = ["encrypted", "paper", "its method here", "seconds", "Jali", "ms", "really hidden"];
        let rows = layer.points.iter().map(|p| {
            vec![
                format!("{:.1}", p.encrypted),
                p.paper_factor.map_or("-".into(), |f| format!("{f:.2}")),
                format!("{:.2}", p.textbook_factor),
                format!("{:.1}", p.textbook_s),
                format!("{:.2}", p.jali_factor),
                format!("{:.2}", p.jali_ms),
                format!("{:.0} %", 100.0 * p.jali_hidden),
            ]
        });
        say(format!("{}\n", table(&header, 1, rows)))?;
    }
    say(format!(
        "Factors are over everything in the clear. Seconds: one product's time x products, one thread. Jali: measured, both \
         sides, {} thread(s), backend {}.",
        r.threads, r.backend
    ))?;
    Ok(())
}
