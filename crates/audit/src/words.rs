//! Plans and figures in words that need no glossary.

use jali_leak::{Order, Policy, Unit};

use crate::grid::percent;

/// Names a plan by what it hides or opens: `last 3 layers hidden`. `exposure` is the part of each
/// layer's weights that it permits open, `leaked` the fraction that was asked for.
pub fn plan(policy: &str, leaked: f64, exposure: &[f64]) -> String {
    let (open, hidden) = (percent(leaked), percent(1.0 - leaked));
    match (policy, policy.parse::<Policy>()) {
        ("nothing", _) => "everything hidden".into(),
        ("everything", _) => "everything open".into(),
        (_, Ok(policy)) => ordered(policy, &open, &hidden, exposure),
        _ => format!("the plan ({open} % open)"),
    }
}

fn ordered(policy: Policy, open: &str, hidden: &str, exposure: &[f64]) -> String {
    let unit = match policy.unit() {
        Unit::Weights => "weights",
        Unit::Kernels => "kernels",
        Unit::Rows => "rows",
        Unit::Layers => return layers(policy.order(), open, exposure),
    };
    match policy.order() {
        Order::Random => format!("random {unit}, {open} % open"),
        Order::Magnitude => format!("largest {hidden} % of the {unit} hidden"),
        Order::Sensitive => format!("most sensitive {hidden} % of the {unit} hidden"),
        Order::Cost => format!("the {unit} that save most, {open} % open"),
        Order::First => format!("first {unit} hidden, {open} % open"),
        Order::Last => format!("last {unit} hidden, {open} % open"),
    }
}

/// Names what plans of one policy have in common: `last layers hidden`.
pub fn family(policy: &str) -> String {
    match (policy, policy.parse::<Policy>()) {
        ("nothing", _) => "everything hidden".into(),
        ("everything", _) => "everything open".into(),
        (_, Ok(policy)) => policy.describe().trim_start_matches("the ").into(),
        _ => "the plan".into(),
    }
}

/// Counts the layers where whole ones are hidden.
fn layers(order: Order, open: &str, exposure: &[f64]) -> String {
    let end = if order == Order::First { "first" } else { "last" };
    let count = exposure.iter().filter(|part| **part == 0.0).count();
    match count {
        _ if exposure.is_empty() || exposure.iter().any(|part| *part > 0.0 && *part < 1.0) => {
            format!("{end} layers hidden, {open} % open")
        }
        1 => format!("{end} layer hidden"),
        count => format!("{end} {count} layers hidden"),
    }
}

/// A part of one in hundredths: points of accuracy, per cent.
pub fn points(part: f64) -> String {
    format!("{:.1}", 100.0 * part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_have_names_that_need_no_glossary() {
        for (policy, leaked, exposure, says) in [
            ("nothing", 0.0, &[0.0, 0.0][..], "everything hidden"),
            ("last-layers", 0.119, &[1.0, 0.0, 0.0, 0.0], "last 3 layers hidden"),
            ("last-layers", 0.9, &[1.0, 1.0, 0.0], "last layer hidden"),
            ("last-layers", 0.5, &[1.0, 0.5, 0.0], "last layers hidden, 50 % open"),
            ("first-layers", 0.5, &[0.0, 0.0, 1.0], "first 2 layers hidden"),
            ("random-rows", 0.8, &[0.8, 0.8], "random rows, 80 % open"),
            ("magnitude-weights", 0.99, &[0.99], "largest 1 % of the weights hidden"),
            ("plan", 0.62, &[0.62], "the plan (62 % open)"),
        ] {
            assert_eq!(plan(policy, leaked, exposure), says);
        }
    }
}
