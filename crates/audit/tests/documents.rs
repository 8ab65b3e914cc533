//! What README and docs/auditing.md say of vgg3 is what docs/results holds.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::fmt::Write as _;

use jali_audit::findings::PlanFacts;
use jali_audit::results::Results;
use jali_audit::summary::Row;
use support::root;

fn results(name: &str) -> Results {
    Results::read(&root().join("docs/results/torch").join(name).join("results.json")).unwrap()
}

/// A document has a block of lines, or the test says which it should have.
fn holds(document: &str, block: &str) {
    let text = std::fs::read_to_string(root().join(document)).unwrap();
    assert!(text.contains(block), "{document} should have:\n\n{block}");
}

fn row<'a>(results: &'a Results, plan: &PlanFacts, budget: usize) -> Option<&'a Row> {
    results.summary.iter().find(|r| r.policy == plan.policy && r.leaked == plan.leaked && r.budget == budget)
}

fn whole(part: f64) -> String {
    format!("{:.0}", 100.0 * part)
}

/// Accuracy of the best copy in %, and the interval of what open weights added, in whole points.
fn gain(row: Option<&Row>) -> String {
    let Some(row) = row else { return "not run".into() };
    let accuracy = whole(row.accuracy);
    match row.interval {
        _ if row.policy == "nothing" => accuracy,
        Some([low, high]) => {
            format!("{accuracy} ({:+.0} to {:+.0})", (100.0 * low).floor() + 0.0, (100.0 * high).ceil())
        }
        None => format!("{accuracy} (one seed)"),
    }
}

/// What plans open, what time they take if that is asked for, and what they give away with every
/// budget.
fn table(results: &Results, budget_is: &str, with_time: bool) -> String {
    let budgets: Vec<usize> = results.spec.grid.budgets.iter().copied().filter(|b| *b > 0).collect();
    let hidden = results.plans.iter().find(|p| p.policy == "nothing").unwrap().predicted_ms;
    let mut table = String::from(if with_time { "| plan | open | time |" } else { "| plan | open |" });
    budgets.iter().for_each(|b| write!(table, " {b} {budget_is} |").unwrap());
    table.push_str(if with_time { "\n|---|---|---|" } else { "\n|---|---|" });
    budgets.iter().for_each(|_| table.push_str("---|"));
    for plan in results.plans.iter().filter(|p| p.policy != "everything") {
        write!(table, "\n| {} | {} % |", plan.name(), whole(plan.opened)).unwrap();
        if with_time {
            write!(table, " {} % |", whole(plan.predicted_ms / hidden)).unwrap();
        }
        budgets.iter().for_each(|b| write!(table, " {} |", gain(row(results, plan, *b))).unwrap());
    }
    table + "\n"
}

#[test]
fn the_table_of_vgg3_is_what_was_measured() {
    holds("docs/auditing.md", &table(&results("vgg3"), "images", true));
}

#[test]
fn the_table_of_mnist_is_what_was_measured() {
    holds("docs/auditing.md", &table(&results("mnist"), "images of mnist", true));
}

#[test]
fn the_table_of_guests_is_what_was_measured() {
    holds("docs/auditing.md", &table(&results("vgg3-guests-logits"), "tickets", false));
}

#[test]
fn the_table_of_guests_who_are_told_a_class_is_what_was_measured() {
    holds("docs/auditing.md", &table(&results("vgg3-guests-top1"), "tickets for a class", false));
}

/// Characters of a bar that stand for everything right.
const BAR: f64 = 50.0;

/// The plans of the chart.
const CHART: [&str; 7] = [
    "last layer hidden",
    "last 4 layers hidden",
    "random rows, 80 % open",
    "random rows, 50 % open",
    "largest 1 % of the weights hidden",
    "largest 5 % of the weights hidden",
    "largest 20 % of the weights hidden",
];

#[test]
fn the_chart_in_readme_is_what_was_measured() {
    let results = results("vgg3");
    let mut chart = String::new();
    for name in CHART {
        let plan = results.plans.iter().find(|p| p.name() == name).unwrap();
        let row = row(&results, plan, 500).unwrap();
        let length = |part: f64| (BAR * part).round() as usize;
        let black_box = length(row.black_box);
        let (known, more) = ("█".repeat(black_box), "░".repeat(length(row.accuracy).saturating_sub(black_box)));
        writeln!(chart, "{name:34} ▕{:50}▏ {} %", known + &more, whole(row.accuracy)).unwrap();
    }
    holds("README.md", &chart);
}
