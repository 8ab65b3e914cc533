//! Options about a command that attacks, of `run` and `plan`.

use jali_audit::command::Command;
use jali_audit::command::asking::Told;

/// Attackers of this program without a public model.
const OURS: [&str; 8] = ["zero", "statistics", "best-of", "rescale", "tune-hidden", "tune-all", "distil", "span"];

#[derive(clap::Args)]
pub(super) struct Commanded {
    /// Attack with this command in place of our attackers: a shell runs it in a folder with the
    /// attacker's view, and it writes surrogate.onnx there (docs/auditing.md)
    #[arg(long, value_name = "COMMAND", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    attacker: Option<String>,
    /// Most seconds for one attack of --attacker
    #[arg(long, value_name = "SECONDS", default_value_t = 3600, requires = "attacker", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    attacker_time: u64,
    /// Attack as guests do: with --budgets tickets, what lies before the first hidden layer in the
    /// clear, and values of their own choice in its place. Says what a ticket tells
    #[arg(long, value_name = "WHAT", requires = "attacker", value_parser = ["logits", "top1"])]
    guests: Option<String>,
}

impl Commanded {
    pub(super) fn command(&self) -> Option<Command> {
        self.attacker.clone().map(|line| Command { line, seconds: self.attacker_time })
    }

    pub(super) fn guests(&self) -> Option<Told> {
        self.guests.as_deref().map(|told| if told == "top1" { Told::Top1 } else { Told::Logits })
    }

    /// Attackers as asked for, or the usual ones.
    pub(super) fn attackers(&self, asked: Option<&Vec<String>>) -> Vec<String> {
        let usual: &[&str] = if self.attacker.is_some() { &["command"] } else { &OURS };
        asked.cloned().unwrap_or_else(|| usual.iter().map(ToString::to_string).collect())
    }

    /// Cells at a time: a command may use all cores by itself.
    pub(super) fn jobs(&self, asked: Option<u16>, threads: usize) -> usize {
        asked.map_or(if self.attacker.is_some() { 1 } else { threads }, usize::from)
    }
}
