//! What the machine can do, and how near the kernels come.

use std::time::{Duration, Instant};

use jali::Kernel;
use jali_ring::sample::{derive_key, stream};
use jali_ring::{Batch, Inputs, Ntt, Poly, Ring, RowStore};
use serde::Serialize;

use crate::cli::text::{say, say_json, table};

/// Measure memory bandwidth and multiplication peak, and every kernel of this machine against them.
///
/// Figures are the best of several runs: other load on the machine only takes away. N = 4096, one prime of 34 bits.
#[derive(clap::Parser)]
#[command(after_help = "Examples:\n  jali bench limits\n  jali bench limits --json")]
pub(in crate::cli) struct LimitsArgs {
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    threads: usize,
    /// Memory in large pages where the system has them, as rows lie in it.
    bus_gb_per_s: PerThreads,
    /// Memory as an allocator gives it.
    bus_small_pages_gb_per_s: PerThreads,
    kernels: Vec<OfKernel>,
}

/// With one thread and with all of them.
#[derive(Serialize)]
struct PerThreads {
    one: f64,
    all: f64,
}

#[derive(Serialize)]
struct OfKernel {
    kernel: &'static str,
    forward_us: f64,
    inverse_us: f64,
    /// Bytes of the matrix per second, one image.
    rows_gb_per_s: PerThreads,
    /// The same as a fraction of the bus.
    rows_of_bus: PerThreads,
    /// Products per nanosecond of one core with everything in registers.
    peak_products_per_ns: f64,
    /// Products per nanosecond of one thread, 16 images.
    batch_products_per_ns: f64,
    batch_of_peak: f64,
}

const DEGREE: usize = 4096;
const TILES: usize = 11;
const ROWS: usize = 256;
const BATCH: usize = 16;
const READ: usize = 256 << 20;
const EACH: Duration = Duration::from_millis(300);

/// Seconds of the fastest of many runs.
fn best(mut f: impl FnMut()) -> f64 {
    let (start, mut best) = (Instant::now(), f64::MAX);
    while start.elapsed() < EACH {
        let one = Instant::now();
        f();
        best = best.min(one.elapsed().as_secs_f64());
    }
    best
}

/// What reading all of it takes, GB/s. The best that any kernel does: the portable one leaves fetching ahead to the processor.
fn bus(pool: &rayon::ThreadPool, memory: &[u8]) -> f64 {
    let seconds = |kernel: Kernel| {
        pool.install(|| {
            best(|| {
                std::hint::black_box(kernel.read(memory));
            })
        })
    };
    memory.len() as f64 / Kernel::available().into_iter().map(seconds).fold(f64::MAX, f64::min) / 1e9
}

fn pool(threads: usize) -> anyhow::Result<rayon::ThreadPool> {
    Ok(rayon::ThreadPoolBuilder::new().num_threads(threads).build()?)
}

pub(super) fn run(args: &LimitsArgs) -> anyhow::Result<()> {
    let threads = rayon::current_num_threads();
    let (one, all) = (pool(1)?, pool(threads)?);
    let bus = |memory: &[u8]| PerThreads { one: bus(&one, memory), all: bus(&all, memory) };
    let bus_small_pages_gb_per_s = bus(&vec![1; READ]);
    // More than any cache holds, as are the rows of a network.
    let ring = Ring::new(DEGREE, &[34])?;
    let row = RowStore::bytes_needed(&ring, &[1], TILES);
    let mut store = RowStore::new(&ring, &vec![1; READ / row], TILES)?;
    let (element, last) = (ring.uniform(&mut stream(&derive_key("jali bench limits", &[]))), store.rows() * TILES);
    (0..last).for_each(|i| store.set(i / TILES, i % TILES, &element));
    let bus_gb_per_s = bus(store.memory());
    drop(store);
    let kernels = Kernel::available().into_iter().map(|k| of_kernel(k, [&one, &all], &bus_gb_per_s));
    let kernels = kernels.collect::<Result<_, _>>()?;
    let report = Report { threads, kernels, bus_gb_per_s, bus_small_pages_gb_per_s };
    if args.json { say_json(&report) } else { print(&report) }
}

fn of_kernel(kernel: Kernel, [one, all]: [&rayon::ThreadPool; 2], bus: &PerThreads) -> anyhow::Result<OfKernel> {
    let ring = Ring::with_kernel(DEGREE, &[34], kernel)?;
    let mut rng = stream(&derive_key("jali bench limits", &[]));
    let tiles: Vec<Poly<Ntt>> = (0..TILES).map(|_| ring.uniform(&mut rng)).collect();
    let mut values = tiles[0].clone();
    let forward_us = best(|| ring.forward_in_place(&mut values)) * 1e6;
    let inverse_us = best(|| ring.inverse_in_place(&mut values)) * 1e6;

    let mut store = RowStore::new(&ring, &[ring.limbs(); ROWS], TILES)?;
    (0..ROWS * TILES).for_each(|i| store.set(i / TILES, i % TILES, &tiles[i % TILES]));
    let time = |pool: &rayon::ThreadPool, images: usize| -> anyhow::Result<f64> {
        // At most 8 images together, as the server does.
        let together = images.min(8);
        let batches: Vec<Batch> = (0..images / together)
            .map(|_| store.prepare(&ring, Inputs::Elements(&vec![tiles.iter().collect(); together])))
            .collect::<Result<_, _>>()?;
        store.multiply_all(&ring, &batches)?;
        Ok(pool.install(|| best(|| drop(store.multiply_all(&ring, &batches)))))
    };
    let gb = |seconds: f64| store.bytes() as f64 / seconds / 1e9;
    let rows = PerThreads { one: gb(time(one, 1)?), all: gb(time(all, 1)?) };
    let products = (ROWS * TILES * DEGREE * BATCH) as f64;
    let batch_products_per_ns = products / time(one, BATCH)? / 1e9;
    let (count, _) = kernel.multiply_in_cache()?;
    let peak = count as f64 / 1e9 / best(|| drop(std::hint::black_box(kernel.multiply_in_cache())));
    Ok(OfKernel {
        kernel: kernel.name(),
        forward_us,
        inverse_us,
        rows_of_bus: PerThreads { one: rows.one / bus.one, all: rows.all / bus.all },
        rows_gb_per_s: rows,
        peak_products_per_ns: peak,
        batch_products_per_ns,
        batch_of_peak: batch_products_per_ns / peak,
    })
}

fn print(r: &Report) -> anyhow::Result<()> {
    let (bus, small) = (&r.bus_gb_per_s, &r.bus_small_pages_gb_per_s);
    say(format!("memory bus  {:.1} GB/s with one thread, {:.1} with {}", bus.one, bus.all, r.threads))?;
    say(format!("            {:.1} and {:.1} from memory in pages of the usual size", small.one, small.all))?;
    say(
        "rows        256 rows of 11 tiles, N = 4096, one 34-bit prime; one image against the bus, 16 images against the peak\n",
    )?;
    let header = [
        "kernel",
        "forward us",
        "inverse us",
        "rows GB/s",
        "of bus",
        "all threads",
        "of bus",
        "peak products/ns",
        "batch of 16",
        "of peak",
    ];
    let percent = |v: f64| format!("{:.0} %", 100.0 * v);
    let rows = r.kernels.iter().map(|k| {
        vec![
            k.kernel.into(),
            format!("{:.1}", k.forward_us),
            format!("{:.1}", k.inverse_us),
            format!("{:.1}", k.rows_gb_per_s.one),
            percent(k.rows_of_bus.one),
            format!("{:.1}", k.rows_gb_per_s.all),
            percent(k.rows_of_bus.all),
            format!("{:.2}", k.peak_products_per_ns),
            format!("{:.2}", k.batch_products_per_ns),
            percent(k.batch_of_peak),
        ]
    });
    Ok(say(table(&header, 1, rows))?)
}
