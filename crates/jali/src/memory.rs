//! Checks that sealing and running a network fit into memory: that is known from its shape, before
//! minutes of work.

use jali_model::{Graph, Op};
use jali_protocol::OperatorForecast;

use crate::JaliError;

/// Bytes that the program takes without any network: code, threads, tables.
const BASE: usize = 14 << 20;
/// Most sealed bytes that stay in memory until the server has been made of them. More go through a
/// file, so that there is only one form of a large model at a time.
pub(crate) const IN_MEMORY: usize = 64 << 20;

/// Bytes that a network takes before anything of it is sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct OfModel {
    /// Weights as floats and as integers, and a plan's permission for each.
    held: usize,
    /// Values and windows of one image while it is run in the clear.
    running: usize,
    /// The most that it takes while its file is read, or while it is calibrated.
    before: usize,
}

impl OfModel {
    fn new(graph: &Graph) -> Self {
        let weights = graph.weights();
        let running = running(graph);
        let input: usize = graph.input_shape().iter().product();
        // Constants as floats beside the file's bytes, then beside the network's own copy, and a
        // copy of the largest.
        let largest = graph.linear_nodes().map(|(_, l)| l.weights().len()).max().unwrap_or(0);
        let reading = 8 * weights + 4 * largest;
        let calibrating = 4 * weights + 4 * input + running + graph.nodes().len() * (1 << 14);
        // While it is quantised, the integers of the layer at hand are there twice.
        let quantising = 8 * weights + 4 * largest + graph.nodes().len() * (1 << 14);
        Self { held: 10 * weights, running, before: reading.max(calibrating).max(quantising) }
    }
}

/// Returns the most bytes that one image takes in the clear: the values that are needed at the same
/// time, and the windows of a convolution laid out.
fn running(graph: &Graph) -> usize {
    let size = |value: usize| 4 * graph.shape(value).iter().product::<usize>();
    let mut last = vec![0; graph.nodes().len() + 1];
    for (i, node) in graph.nodes().iter().enumerate() {
        node.inputs.iter().for_each(|&v| last[v] = i);
    }
    graph.outputs().iter().for_each(|&v| last[v] = usize::MAX);
    let (mut live, mut most) = (size(0), 0);
    for (i, node) in graph.nodes().iter().enumerate() {
        live += size(i + 1);
        let windows = match &node.op {
            Op::Conv(c) => 4 * c.channels * c.kernel[0] * c.kernel[1] * node.shape.iter().skip(1).product::<usize>(),
            _ => 0,
        };
        most = most.max(live + windows);
        let mut gone: Vec<usize> = node.inputs.iter().copied().filter(|&v| last[v] == i).collect();
        gone.dedup();
        gone.iter().for_each(|&v| live -= size(v));
    }
    most
}

/// Memory that a network under a plan takes, in bytes of the whole process at its worst moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// To seal it into files.
    pub sealing: usize,
    /// To seal it and run both sides in one process.
    pub process: usize,
}

impl Needs {
    /// Computes the needs of a network whose operators under a plan are `operators`.
    pub fn of(graph: &Graph, operators: &[OperatorForecast]) -> Self {
        let model = OfModel::new(graph);
        let sum = |f: fn(&OperatorForecast) -> usize| operators.iter().map(f).sum::<usize>();
        // Operators are sealed one after the other. In memory are the keys of those that are done,
        // the vectors of the one at hand, and its rows or its own key.
        let worst = |kept: fn(&OperatorForecast) -> usize| {
            let mut done = 0;
            let each = operators.iter().map(|l| {
                let now = done + l.vector_memory + l.row_memory.max(in_pages(kept(l)));
                done += in_pages(kept(l));
                now
            });
            each.max().unwrap_or(0).max(operators.iter().map(|l| in_pages(kept(l))).sum())
        };
        let rings = sum(|l| l.ring_memory);
        // Weights as integers take the place of what was read: the allocator leaves gaps there.
        let sealing = model.held + model.held / 20 + rings + worst(|l| l.key_memory);
        let sealed = sum(|l| l.bytes);
        let in_memory = if sealed <= IN_MEMORY { 2 * sealed } else { 0 };
        let client = sum(|l| half_in_pages(l.client_memory));
        let sealing_here = model.held + rings + worst(|l| l.client_memory) + in_memory;
        let loading = model.held + 2 * rings + client + in_memory / 2 + sum(|l| half_in_pages(l.server_memory));
        let running = loading - in_memory / 2 + model.running + batch(operators);
        let total = |most: usize| with_overhead(BASE + most.max(model.before));
        Self { sealing: total(sealing), process: total(sealing_here.max(loading).max(running)) }
    }
}

/// Returns the bytes of requests, answers and products for one image, of the operator that has most
/// of them.
fn batch(operators: &[OperatorForecast]) -> usize {
    let of = |l: &OperatorForecast| {
        let element = 8 * l.counts.degree * l.counts.limbs;
        3 * (l.counts.bytes_up() + l.counts.bytes_down()) + 3 * l.counts.strips * l.counts.tiles * element
    };
    operators.iter().map(of).max().unwrap_or(0)
}

/// Returns bytes as the system gives them: in whole large pages if they fill one.
fn in_pages(bytes: usize) -> usize {
    const LARGE: usize = 2 << 20;
    if bytes < LARGE { bytes } else { bytes.next_multiple_of(LARGE) }
}

/// Returns the bytes of one of many parts: the system gives about half of them the last large page
/// whole.
fn half_in_pages(bytes: usize) -> usize {
    bytes.midpoint(in_pages(bytes))
}

/// Adds what the allocator keeps, and smaller things: `docs/performance.md` compares with what
/// networks took.
fn with_overhead(bytes: usize) -> usize {
    bytes.saturating_add(bytes / 16)
}

/// Refuses to begin work that cannot end.
///
/// # Errors
/// [`JaliError::Memory`] if this machine has less than `needed` bytes for this process.
pub fn check(needed: usize) -> Result<(), JaliError> {
    let needed = needed as u64;
    // What the process has already is not to be had again.
    let (held, free) = (resident().unwrap_or(0), available());
    match free {
        Some(free) if needed.saturating_sub(held) > free => {
            Err(JaliError::Memory { needed, available: free.saturating_add(held) })
        }
        _ => Ok(()),
    }
}

/// Returns the bytes that this process has in memory now, where the system tells.
fn resident() -> Option<u64> {
    field(&std::fs::read_to_string("/proc/self/status").ok()?, "VmRSS:")
}

/// Returns the bytes that this process can still have, swap included, where the system tells. They
/// are the machine's, or those of the process's control groups (containers, services) or of its
/// limit of address space where these allow less.
pub fn available() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let machine = field(&text, "MemAvailable:")?.saturating_add(field(&text, "SwapFree:").unwrap_or(0));
    [Some(machine), groups(), address_space()].into_iter().flatten().min()
}

fn field(text: &str, name: &str) -> Option<u64> {
    let kilobytes: u64 =
        text.lines().find_map(|l| l.strip_prefix(name))?.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

/// Returns the bytes that the limit of address space (`ulimit -v`) leaves. Memory that is mapped
/// and never touched counts there, too.
fn address_space() -> Option<u64> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let limit = limits.lines().find_map(|l| l.strip_prefix("Max address space"))?.split_whitespace().next()?;
    let limit: u64 = limit.parse().ok()?;
    let used = field(&std::fs::read_to_string("/proc/self/status").ok()?, "VmSize:")?;
    Some(limit.saturating_sub(used))
}

/// Returns the bytes that the control groups of this process have left, its own and those around
/// it, versions 1 and 2.
fn groups() -> Option<u64> {
    let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let of = |line: &str| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        match controllers {
            "" => least("/sys/fs/cgroup", path, &VERSION_2),
            list if list.split(',').any(|c| c == "memory") => least("/sys/fs/cgroup/memory", path, &VERSION_1),
            _ => None,
        }
    };
    own.lines().filter_map(of).min()
}

/// Names of a control group's files.
struct Files {
    limit: &'static str,
    used: &'static str,
    /// Line of `memory.stat` for pages of files that were not used lately.
    inactive: &'static str,
}

const VERSION_2: Files = Files { limit: "memory.max", used: "memory.current", inactive: "inactive_file " };
const VERSION_1: Files =
    Files { limit: "memory.limit_in_bytes", used: "memory.usage_in_bytes", inactive: "total_inactive_file " };

/// Returns the fewest bytes that a group or one of those around it has left. Inside a container the
/// path may be one of the machine's: then the root of what is mounted is the container's own.
fn least(root: &str, path: &str, files: &Files) -> Option<u64> {
    let mut folder = std::path::PathBuf::from(format!("{root}{path}"));
    let mut least = None;
    loop {
        let left = left(&folder, files);
        least = [least, left].into_iter().flatten().min();
        if folder.as_os_str() == root || !folder.pop() {
            return least;
        }
    }
}

/// Returns the bytes that one group has left. Pages of files count as used there, though they give
/// way: they are taken off.
fn left(folder: &std::path::Path, files: &Files) -> Option<u64> {
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).ok();
    let limit: u64 = read(files.limit)?.trim().parse().ok()?;
    let used: u64 = read(files.used)?.trim().parse().ok()?;
    let inactive = read("memory.stat")?.lines().find_map(|l| l.strip_prefix(files.inactive)?.trim().parse().ok());
    Some(limit.saturating_sub(used.saturating_sub(inactive.unwrap_or(0))))
}

#[cfg(test)]
mod tests {
    use jali_protocol::forecast;

    use super::*;
    use crate::{Costs, Network, Plan};

    #[test]
    fn what_does_not_fit_is_refused_with_figures() {
        let model = Network::Mnist.quantised(Default::default()).unwrap();
        let (plan, costs) = (Plan::hide_all(model.graph()), Costs::default());
        let needs = Needs::of(model.graph(), &forecast(&model, &plan, &costs).unwrap());
        assert!(needs.sealing < needs.process);
        check(needs.process).unwrap();
        // Where the system does not tell, nothing is refused.
        if available().is_none() {
            return;
        }
        let error = check(usize::MAX).unwrap_err();
        assert!(matches!(error, JaliError::Memory { needed, .. } if needed == usize::MAX as u64), "{error}");
    }

    #[test]
    fn lines_of_meminfo_are_read() {
        let text = "MemTotal:       24619248 kB\nMemAvailable:      17 kB\nSwapFree: ?\n";
        assert_eq!(field(text, "MemAvailable:"), Some(17 * 1024));
        assert_eq!(field(text, "SwapFree:"), None);
        assert_eq!(field(text, "Nothing:"), None);
    }

    #[test]
    fn the_narrowest_of_all_groups_counts() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("a/b");
        std::fs::create_dir_all(&inner).unwrap();
        let write = |at: &std::path::Path, name: &str, text: &str| std::fs::write(at.join(name), text).unwrap();
        for (at, limit) in [(inner.as_path(), "max"), (&root.path().join("a"), "1000"), (root.path(), "5000")] {
            write(at, "memory.max", limit);
            write(at, "memory.current", "400");
            write(at, "memory.stat", "anon 1\ninactive_file 100\n");
        }
        let of = |path: &str, files| least(&root.path().display().to_string(), path, files);
        assert_eq!(of("/a/b", &VERSION_2), Some(700), "its own has no limit, the one around it has");
        assert_eq!(of("/elsewhere", &VERSION_2), Some(4700), "a path of the machine, seen from a container");
        for (name, text) in [
            ("memory.limit_in_bytes", "900"),
            ("memory.usage_in_bytes", "300"),
            ("memory.stat", "total_inactive_file 50\n"),
        ] {
            write(&inner, name, text);
        }
        assert_eq!(of("/a/b", &VERSION_1), Some(650));
    }
}
