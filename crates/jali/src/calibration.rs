//! The cost model, measured on this machine in about a second and kept for the next time.
//!
//! A network of known shapes with random weights runs through the whole pipeline, once hidden and
//! once open. The factors of [`Work`] are fitted to the times of its layers (non-negative least
//! squares on relative errors).

use std::path::PathBuf;
use std::time::Duration;

use jali_leak::Plan;
use jali_model::{Conv, Gemm, Graph, Op, Pool, QuantConfig, QuantModel, Tensor};
use jali_pack::costs::TERMS;
use jali_pack::{Costs, Link, OperatorCounts, Terms, Work};
use jali_ring::Backend;
use serde::{Deserialize, Serialize};

use crate::files::{Readers, write_aside};
use crate::{JaliError, Sealing};

/// Runs of the probe network.
const RUNS: usize = 31;
/// Runs to see whether an earlier calibration still holds; the median of each layer counts.
const CHECK_RUNS: usize = 5;
/// It does not hold any more if the probe takes longer than it says, or shorter, by this factor.
const DRIFT: f64 = 1.15;
/// Words that are read between two runs, so that no layer finds its matrix in the cache: 64 MiB.
const EVICT: usize = 8 << 20;
/// Version of the file of kept costs: it changes with the backends and the pipeline.
const VERSION: u32 = 8;

/// A calibration as it is kept on disk.
#[derive(Serialize, Deserialize)]
struct Kept {
    version: u32,
    machine: String,
    costs: Costs,
}

/// Returns the cost factors of this machine with this backend and the threads in use. They are
/// those of an earlier calibration if there is one and a quick look finds it still true; else they
/// are measured and kept. A folder that cannot be written only means that the next call measures
/// again.
///
/// # Errors
/// [`JaliError`] if the probe network cannot run.
pub fn of_this_machine(backend: Backend) -> Result<Costs, JaliError> {
    let machine = machine(backend);
    if let Some(costs) = kept(&machine)
        && still_true(&costs, backend)?
    {
        return Ok(costs);
    }
    recalibrate(backend)
}

/// Measures the cost factors and keeps them in place of any that are kept.
///
/// # Errors
/// [`JaliError`] if the probe network cannot run.
pub fn recalibrate(backend: Backend) -> Result<Costs, JaliError> {
    let machine = machine(backend);
    let costs = measure(backend)?;
    if let Some(path) = place(&machine) {
        let text = serde_json::to_string_pretty(&Kept { version: VERSION, machine, costs }).unwrap_or_default();
        if matches!(path.parent().map(std::fs::create_dir_all), Some(Ok(()))) {
            let _ = write_aside(&path, text.as_bytes(), Readers::Umask);
        }
    }
    Ok(costs)
}

/// Returns the factors of an earlier calibration of this machine, or else the built-in ones.
pub fn kept_or_default(backend: Backend) -> Costs {
    kept(&machine(backend)).unwrap_or_default()
}

/// Returns words for what the figures belong to: processor, backend, threads.
fn machine(backend: Backend) -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|l| l.strip_prefix("model name")).unwrap_or("unknown processor");
    let model = model.trim_start_matches([' ', '\t', ':']);
    format!("{model}, {}, {} threads", backend.name(), rayon::current_num_threads())
}

fn place(machine: &str) -> Option<PathBuf> {
    let folder = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let cache = folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")))?;
    let name: String = machine.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    Some(cache.join("jali").join(format!("costs-{name}.json")))
}

fn kept(machine: &str) -> Option<Costs> {
    let kept: Kept = serde_json::from_str(&std::fs::read_to_string(place(machine)?).ok()?).ok()?;
    let work = [kept.costs.hidden, kept.costs.open];
    let sane =
        |w: &Work| [w.client.to_list(), w.server.to_list()].as_flattened().iter().all(|f| f.is_finite() && *f >= 0.0);
    (kept.version == VERSION && kept.machine == machine && work.iter().all(sane)).then_some(kept.costs)
}

/// Measures the cost factors and keeps nothing.
///
/// # Errors
/// [`JaliError`] if the probe network cannot run.
pub fn measure(backend: Backend) -> Result<Costs, JaliError> {
    let hidden = fit(&probe_layers(true, RUNS, backend)?);
    let open = fit(&probe_layers(false, RUNS, backend)?);
    Ok(Costs { hidden, open, link: Link::LOOPBACK })
}

/// Makes a network in whose layers tiles, rows, products, wanted coefficients and values vary
/// independently.
fn probe() -> Result<Graph, JaliError> {
    let mut g = Graph::new(vec![3, 24, 24])?;
    let conv = |filters: usize, channels: usize, k: usize| {
        let weight = numbers(filters * channels * k * k);
        let (bias, kernel, padding) = (vec![0.0; filters], [k, k], [k / 2; 4]);
        Op::Conv(Conv { weight, bias, filters, channels, kernel, stride: [1, 1], padding, dilation: [1, 1], groups: 1 })
    };
    let gemm = |inputs, outputs| {
        Op::Gemm(Gemm { weight: numbers(inputs * outputs), bias: vec![0.0; outputs], inputs, outputs })
    };
    let pool =
        Pool { kernel: [2, 2], stride: [2, 2], dilation: [1, 1], padding: [0; 4], count_padding: false, ceil: false };
    let ops = [
        conv(64, 3, 3),
        Op::RELU,
        conv(4, 64, 3),
        Op::RELU,
        conv(48, 4, 1),
        Op::RELU,
        conv(48, 48, 3),
        Op::MaxPool(pool.clone()),
        conv(64, 48, 3),
        Op::RELU,
        conv(16, 64, 5),
        Op::MaxPool(pool),
        Op::Flatten,
        gemm(16 * 36, 256),
        Op::RELU,
        gemm(256, 10),
    ];
    let mut last = 0;
    for (i, op) in ops.into_iter().enumerate() {
        last = g.push(format!("probe {i}"), op, vec![last])?;
    }
    Ok(g)
}

fn numbers(count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 7919 % 1009) as f32 / 1009.0 - 0.5) / 8.0).collect()
}

/// One layer of the probe: its counts, and nanoseconds of client and server.
struct Sample {
    counts: OperatorCounts,
    client: Nanoseconds,
    server: Nanoseconds,
}

/// Nanoseconds that some runs took.
struct Nanoseconds {
    median: f64,
    /// The time within which a quarter of them ended: neighbours on a shared machine disturb it
    /// less.
    quartile: f64,
}

impl Nanoseconds {
    fn of(times: &mut [Duration]) -> Self {
        times.sort();
        let at = |index: usize| times.get(index).map_or(0.0, |t| t.as_secs_f64() * 1e9);
        Self { median: at(times.len() / 2), quartile: at(times.len() / 4) }
    }
}

/// Runs the probe, all hidden or all open, and returns its layers, each with the times of `runs`
/// runs.
fn probe_layers(hidden: bool, runs: usize, backend: Backend) -> Result<Vec<Sample>, JaliError> {
    let image = Tensor::new("probe", vec![3, 24, 24], numbers(3 * 24 * 24))?;
    let model = QuantModel::calibrate(probe()?, QuantConfig::default(), std::slice::from_ref(&image), None)?;
    let plan = if hidden { Plan::hide_all(model.graph()) } else { Plan::open_all(model.graph()) };
    let sealed = Sealing::of(&model).plan(&plan).seal()?;
    let counts: Vec<OperatorCounts> = sealed.report().iter().map(|operator| operator.counts).collect();
    let mut client = sealed.in_process_on(backend)?;
    let evict: Vec<u64> = (0..EVICT as u64).collect();
    let mut times = vec![(vec![], vec![]); counts.len()];
    for _ in 0..runs {
        for ((client, server), operator) in times.iter_mut().zip(client.infer(&image)?.operators) {
            client.push(operator.client);
            server.push(operator.server);
        }
        std::hint::black_box(evict.iter().sum::<u64>());
    }
    let sample = |((mut client, mut server), counts): ((Vec<_>, Vec<_>), OperatorCounts)| Sample {
        counts,
        client: Nanoseconds::of(&mut client),
        server: Nanoseconds::of(&mut server),
    };
    Ok(times.into_iter().zip(counts).map(sample).collect())
}

fn fit(samples: &[Sample]) -> Work {
    Work {
        client: fit_side(samples, |s| (s.counts.client(), &s.client)),
        server: fit_side(samples, |s| (s.counts.server(), &s.server)),
    }
}

/// Fits the nanoseconds per unit of one side's terms.
fn fit_side<T: Terms>(samples: &[Sample], side: fn(&Sample) -> (T, &Nanoseconds)) -> T {
    // The quiet runs give the proportions of the terms, all runs give their size.
    let quiet: Vec<_> = samples.iter().map(side).map(|(units, times)| (units.to_list(), times.quartile)).collect();
    let sum = |of: fn(&Nanoseconds) -> f64| samples.iter().map(|s| of(side(s).1)).sum::<f64>();
    let scale = sum(|t| t.median) / sum(|t| t.quartile);
    T::from_list(least_squares(&quiet).map(|term| term * scale))
}

/// Returns whether the machine is still as fast as these costs say, the link left out: a shared
/// machine may not be.
///
/// # Errors
/// [`JaliError`] if the probe network cannot run.
pub fn still_true(costs: &Costs, backend: Backend) -> Result<bool, JaliError> {
    let samples = probe_layers(true, CHECK_RUNS, backend)?;
    let measured: f64 = samples.iter().map(|s| (s.client.median + s.server.median) / 1e6).sum();
    let predicted: f64 = samples.iter().map(|s| costs.over(Link::LOOPBACK).predict(&s.counts, true).total_ms()).sum();
    Ok((measured / predicted).ln().abs() < DRIFT.ln())
}

/// Finds non-negative factors that bring `factors . counts` near the measured values: least squares
/// of relative errors, by coordinate descent. A sample is a list of counts and a value.
fn least_squares(samples: &[([f64; TERMS], f64)]) -> [f64; TERMS] {
    let mut factors = [0.0; TERMS];
    for _ in 0..5000 {
        for k in 0..TERMS {
            let (mut above, mut below) = (0.0, 0.0);
            for (counts, value) in samples {
                let rest: f64 = (0..TERMS).filter(|&j| j != k).map(|j| factors[j] * counts[j]).sum();
                let scaled = counts[k] / value;
                above += scaled * (1.0 - rest / value);
                below += scaled * scaled;
            }
            factors[k] = if below > 0.0 { (above / below).max(0.0) } else { 0.0 };
        }
    }
    factors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_are_found_again() {
        let want = [1e5, 3.0, 0.0, 2.5, 0.7];
        let counts = |i: usize| {
            std::array::from_fn(|k| [1.0, 1e5, 2e5, 3e4, 1e5][k] * (1 + (i + 2).pow(k as u32 + 1) % 101) as f64)
        };
        let samples: Vec<([f64; TERMS], f64)> = (0..20)
            .map(|i| {
                let mut c: [f64; TERMS] = counts(i);
                c[0] = 1.0;
                (c, want.iter().zip(&c).map(|(w, c)| w * c).sum())
            })
            .collect();
        let got = least_squares(&samples);
        assert!(got.iter().zip(&want).all(|(g, w)| (g - w).abs() <= 1e-3 * w.max(1.0)), "{got:?}");
    }

    #[test]
    fn a_calibration_is_positive_and_predicts_its_own_layers() {
        let backend = Backend::fastest();
        let costs = measure(backend).expect("the probe runs");
        for work in [costs.hidden, costs.open] {
            for terms in [work.client.to_list(), work.server.to_list()] {
                assert!(
                    terms.iter().all(|f| f.is_finite() && *f >= 0.0) && terms.iter().sum::<f64>() > 0.0,
                    "{work:?}"
                );
            }
        }
    }
}
