//! What the machine can do, and how near the backends come.

use std::time::{Duration, Instant};

use jali::Backend;
use jali_ring::sample::{derive_key, stream};
use jali_ring::{Batch, Inputs, Ntt, Poly, Ring, RowStore};
use serde::Serialize;

use crate::text::{say, say_json, table};

/// Measure memory bandwidth and multiplication peak, and every backend of this machine against
/// them.
///
/// Figures are the best of several runs: other load on the machine only takes away. N = 4096, one
/// prime of 34 bits.
#[derive(clap::Parser)]
#[command(after_help = "Examples:\n  jali bench limits\n  jali bench limits --json")]
pub(crate) struct LimitsArgs {
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    threads: usize,
    /// Memory in large pages where the system has them, as rows lie in it: the best that was seen
    /// beside any backend.
    bus_gb_per_s: PerThreads,
    /// Memory as an allocator gives it.
    bus_small_pages_gb_per_s: PerThreads,
    backends: Vec<OfBackend>,
}

/// With one thread and with all of them.
#[derive(Serialize)]
struct PerThreads {
    one: f64,
    all: f64,
}

#[derive(Serialize)]
struct OfBackend {
    backend: &'static str,
    forward_us: f64,
    inverse_us: f64,
    /// Bytes of the matrix per second, one image.
    rows_gb_per_s: PerThreads,
    /// The same as a fraction of what reading these bytes in turn with it gave.
    rows_of_bus: PerThreads,
    /// Products per nanosecond of one core with everything in registers.
    peak_products_per_ns: f64,
    /// Products per nanosecond of one thread, 16 images.
    batch_products_per_ns: f64,
    batch_of_peak: f64,
}

const DEGREE: usize = 4096;
const TILES: usize = 11;
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

/// GB/s at which memory is read, and at which `work` goes through the same memory. In turn, as what
/// a shared machine gives changes within seconds; the best of each.
fn beside_the_bus(pool: &rayon::ThreadPool, memory: &[u8], work: impl Fn() + Sync) -> (f64, f64) {
    let (start, mut bus, mut mine) = (Instant::now(), f64::MAX, f64::MAX);
    let once = |f: &(dyn Fn() + Sync)| {
        let one = Instant::now();
        pool.install(f);
        one.elapsed().as_secs_f64()
    };
    // The fastest backend reads, whichever computes: the portable one leaves fetching ahead to the
    // processor.
    let read = || {
        let _ = std::hint::black_box(Backend::fastest().read(memory));
    };
    while start.elapsed() < 4 * EACH {
        bus = bus.min(once(&read));
        mine = mine.min(once(&work));
    }
    let gb = |seconds: f64| memory.len() as f64 / seconds / 1e9;
    (gb(bus), gb(mine))
}

fn pool(threads: usize) -> anyhow::Result<rayon::ThreadPool> {
    Ok(rayon::ThreadPoolBuilder::new().num_threads(threads).build()?)
}

pub(super) fn run(args: &LimitsArgs) -> anyhow::Result<()> {
    let threads = rayon::current_num_threads();
    let (one, all) = (pool(1)?, pool(threads)?);
    let small = vec![1; READ];
    let bus = |pool| beside_the_bus(pool, &small, || ()).0;
    let bus_small_pages_gb_per_s = PerThreads { one: bus(&one), all: bus(&all) };
    drop(small);
    let of_backends = Backend::available().into_iter().map(|k| of_backend(k, [&one, &all]));
    let (backends, buses): (Vec<_>, Vec<_>) = of_backends.collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
    let most = |of: fn(&PerThreads) -> f64| buses.iter().map(of).fold(0.0, f64::max);
    let bus_gb_per_s = PerThreads { one: most(|bus| bus.one), all: most(|bus| bus.all) };
    let report = Report { threads, backends, bus_gb_per_s, bus_small_pages_gb_per_s };
    if args.json { say_json(&report) } else { print(&report) }
}

/// One backend's figures, and what the bus gave beside its rows.
fn of_backend(backend: Backend, [one, all]: [&rayon::ThreadPool; 2]) -> anyhow::Result<(OfBackend, PerThreads)> {
    let ring = Ring::with_backend(DEGREE, &[34], backend)?;
    let mut rng = stream(&derive_key("jali bench limits", &[]));
    let tiles: Vec<Poly<Ntt>> = (0..TILES).map(|_| ring.uniform(&mut rng)).collect();
    let mut values = tiles[0].clone();
    let forward_us = best(|| ring.forward_in_place(&mut values)) * 1e6;
    let inverse_us = best(|| ring.inverse_in_place(&mut values)) * 1e6;

    // More than any cache holds.
    let rows = READ / RowStore::bytes_needed(&ring, &[1], TILES);
    let mut store = RowStore::new(&ring, &vec![1; rows], TILES)?;
    (0..rows * TILES).for_each(|i| store.set(i / TILES, i % TILES, &tiles[i % TILES]));
    // At most 8 images together, as the server does.
    let prepare = |images| store.prepare(&ring, Inputs::Elements(&vec![tiles.iter().collect(); images]));
    let single = [prepare(1)?];
    store.multiply_all(&ring, &single)?;
    let multiply = || drop(store.multiply_all(&ring, &single));
    let (bus_one, rows_one) = beside_the_bus(one, store.memory(), multiply);
    let (bus_all, rows_all) = beside_the_bus(all, store.memory(), multiply);
    let batch: Vec<Batch> = (0..BATCH / 8).map(|_| prepare(8)).collect::<Result<_, _>>()?;
    let seconds = one.install(|| best(|| drop(store.multiply_all(&ring, &batch))));
    let batch_products_per_ns = (rows * TILES * DEGREE * BATCH) as f64 / seconds / 1e9;
    let (count, _) = backend.multiply_in_cache()?;
    let peak = count as f64 / 1e9 / best(|| drop(std::hint::black_box(backend.multiply_in_cache())));
    let figures = OfBackend {
        backend: backend.name(),
        forward_us,
        inverse_us,
        rows_gb_per_s: PerThreads { one: rows_one, all: rows_all },
        rows_of_bus: PerThreads { one: rows_one / bus_one, all: rows_all / bus_all },
        peak_products_per_ns: peak,
        batch_products_per_ns,
        batch_of_peak: batch_products_per_ns / peak,
    };
    Ok((figures, PerThreads { one: bus_one, all: bus_all }))
}

fn print(r: &Report) -> anyhow::Result<()> {
    let (bus, small) = (&r.bus_gb_per_s, &r.bus_small_pages_gb_per_s);
    say(format!("memory bus  {:.1} GB/s with one thread, {:.1} with {}", bus.one, bus.all, r.threads))?;
    say(format!("            {:.1} and {:.1} from memory in pages of the usual size", small.one, small.all))?;
    say(
        "rows        256 MiB of rows of 11 tiles, N = 4096, one 34-bit prime; one image in turn with reading them, 16 images against the peak\n",
    )?;
    let header = [
        "backend",
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
    let rows = r.backends.iter().map(|k| {
        vec![
            k.backend.into(),
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
