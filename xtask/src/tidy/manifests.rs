//! Which crate uses which.

use std::path::Path;

use anyhow::Context;

/// Every crate of ours with the crates of ours that it uses, development aside: no more and no
/// less.
const USES: [(&str, &[&str]); 19] = [
    ("jali-testing", &[]),
    ("jali-ring", &[]),
    ("jali-textbook", &["jali-ring"]),
    ("jali-mask", &["jali-ring"]),
    ("jali-bundle", &["jali-ring"]),
    ("jali-operator", &["jali-ring", "jali-mask", "jali-bundle"]),
    ("jali-model", &[]),
    ("jali-image", &["jali-model"]),
    ("jali-pack", &["jali-ring", "jali-model"]),
    ("jali-leak", &["jali-model"]),
    ("jali-guest", &["jali-model", "jali-leak"]),
    ("jali-tickets", &["jali-bundle", "jali-model", "jali-guest"]),
    (
        "jali-protocol",
        &["jali-ring", "jali-mask", "jali-bundle", "jali-operator", "jali-model", "jali-pack", "jali-leak"],
    ),
    ("jali-net", &["jali-bundle", "jali-guest", "jali-protocol", "jali-tickets"]),
    (
        "jali",
        &[
            "jali-net",
            "jali-ring",
            "jali-mask",
            "jali-bundle",
            "jali-operator",
            "jali-model",
            "jali-pack",
            "jali-leak",
            "jali-guest",
            "jali-image",
            "jali-protocol",
            "jali-tickets",
        ],
    ),
    (
        "jali-cli",
        &[
            "jali",
            "jali-textbook",
            "jali-net",
            "jali-ring",
            "jali-bundle",
            "jali-operator",
            "jali-model",
            "jali-leak",
            "jali-guest",
            "jali-protocol",
            "jali-tickets",
        ],
    ),
    (
        "jali-web",
        &["jali-bundle", "jali-guest", "jali-image", "jali-mask", "jali-model", "jali-protocol", "jali-tickets"],
    ),
    ("jali-python", &["jali", "jali-cli"]),
    // Never the other way round: servers link no training framework.
    ("jali-audit", &["jali", "jali-model", "jali-leak", "jali-protocol"]),
];

pub(super) fn check(path: &Path, faults: &mut Vec<String>) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let toml: toml::Table = text.parse().with_context(|| path.display().to_string())?;
    let table = |name: &str| toml.get(name).and_then(|t| t.as_table()).cloned().unwrap_or_default();
    let name = table("package").get("name").and_then(|n| n.as_str()).unwrap_or_default().to_string();
    let Some((_, uses)) = USES.iter().find(|(n, _)| *n == name) else {
        faults.push(format!("{name}: give it a place in ARCHITECTURE.md and in xtask's table"));
        return Ok(());
    };
    for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
        for (dependency, spec) in &table(section) {
            let itself = *dependency == name && section == "dev-dependencies";
            // Tests may look below what the crate itself uses.
            let below = section == "dev-dependencies" && (name == "jali-cli" || dependency == "jali-testing");
            if dependency.starts_with("jali") && !uses.contains(&dependency.as_str()) && !itself && !below {
                faults.push(format!("{name} must not use {dependency}"));
            }
            if section != "dev-dependencies" && spec.to_string().contains("test-doors") {
                faults.push(format!("{name}: the feature test-doors belongs to dev-dependencies alone"));
            }
        }
    }
    let own = table("dependencies");
    for missing in uses.iter().filter(|used| !own.contains_key(**used)) {
        faults.push(format!("{name} does not use {missing}: take it out of xtask's table and of ARCHITECTURE.md"));
    }
    if toml.get("lints").is_none() {
        faults.push(format!("{name} does not inherit the workspace's lints"));
    }
    Ok(())
}
