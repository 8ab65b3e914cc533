//! Whether what is going to happen fits into memory: known from a network's shape, before minutes of work.

use jali_leak::Plan;
use jali_model::QuantModel;
use jali_pack::Costs;
use jali_protocol::{LayerForecast, forecast};

use crate::JaliError;

/// What the allocator and smaller things add: ResNet-18, MobileNetV2 and DenseNet-121 took 1.2 to 1.4 times the sum of the
/// parts counted here.
fn with_overhead(bytes: usize) -> usize {
    bytes.saturating_add(bytes / 10 * 3)
}

/// Bytes at the worst moment of sealing into files: the layers, encoded, and the client's part.
pub fn of_sealing(layers: &[LayerForecast]) -> usize {
    with_overhead(layers.iter().map(|l| l.bytes + l.client_memory).sum())
}

/// Bytes at the worst moment when owner, server and client are one process: it holds the layers, encoded, then the server's
/// matrices; and the client's part.
pub fn of_process(layers: &[LayerForecast]) -> usize {
    let sum = |f: fn(&LayerForecast) -> usize| layers.iter().map(f).sum::<usize>();
    with_overhead(sum(|l| l.bytes).max(sum(|l| l.server_memory)) + sum(|l| l.client_memory))
}

/// Refuses to begin what cannot end.
///
/// # Errors
/// [`JaliError::Memory`] if this machine has less than `need` says; as [`forecast()`].
pub fn check(
    model: &QuantModel,
    plan: &Plan,
    costs: &Costs,
    need: fn(&[LayerForecast]) -> usize,
) -> Result<(), JaliError> {
    let needed = need(&forecast(model, plan, costs)?);
    match available() {
        Some(available) if (needed as u64) > available => Err(JaliError::Memory { needed: needed as u64, available }),
        _ => Ok(()),
    }
}

/// Bytes that this process can still have, swap included, where the system tells: of the machine, or of its control group
/// where that allows less (containers, services).
pub fn available() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let machine = field(&text, "MemAvailable:")?.saturating_add(field(&text, "SwapFree:").unwrap_or(0));
    Some(group().map_or(machine, |group| group.min(machine)))
}

fn field(text: &str, name: &str) -> Option<u64> {
    let kilobytes: u64 =
        text.lines().find_map(|l| l.strip_prefix(name))?.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

/// What the control group (version 2) has left, if it has a limit. Pages of files count as used, though they give way:
/// they are taken off.
fn group() -> Option<u64> {
    let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = own.lines().find_map(|l| l.strip_prefix("0::/"))?;
    let read = |name: &str| std::fs::read_to_string(format!("/sys/fs/cgroup/{path}/{name}")).ok();
    let limit: u64 = read("memory.max")?.trim().parse().ok()?;
    let used: u64 = read("memory.current")?.trim().parse().ok()?;
    let files = read("memory.stat")?.lines().find_map(|l| l.strip_prefix("inactive_file ")?.trim().parse().ok());
    Some(limit.saturating_sub(used.saturating_sub(files.unwrap_or(0))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Network;

    #[test]
    fn what_does_not_fit_is_refused_with_figures() {
        let model = Network::Mnist.quantised(Default::default()).unwrap();
        let (plan, costs) = (Plan::hide_all(model.graph()), Costs::default());
        let layers = forecast(&model, &plan, &costs).unwrap();
        assert!(of_sealing(&layers) < of_process(&layers));
        check(&model, &plan, &costs, of_process).unwrap();
        // Where the system does not tell, nothing is refused.
        if available().is_none() {
            return;
        }
        let error = check(&model, &plan, &costs, |_| usize::MAX).unwrap_err();
        assert!(matches!(error, JaliError::Memory { needed, .. } if needed == usize::MAX as u64), "{error}");
    }

    #[test]
    fn lines_of_meminfo_are_read() {
        let text = "MemTotal:       24619248 kB\nMemAvailable:      17 kB\nSwapFree: ?\n";
        assert_eq!(field(text, "MemAvailable:"), Some(17 * 1024));
        assert_eq!(field(text, "SwapFree:"), None);
        assert_eq!(field(text, "Nothing:"), None);
    }
}
