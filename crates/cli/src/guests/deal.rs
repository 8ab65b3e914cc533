//! `jali deal`: tickets, now or on demand.

use std::path::PathBuf;

use clap::Args;
use jali::JaliError;
use jali::guests::Backend;
use jali_bundle::hex;
use jali_tickets::{Dealer, Terms};
use serde::Serialize;

use super::Unlock;
use super::listen::Listening;
use crate::text::{bytes, progress, say, say_json};

/// Deal tickets to a guest: each is one inference.
///
/// Every call draws a new batch. Its tickets bound what the guest, however it cheats, can learn of
/// the model: their number times the bits of an output.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  jali deal sealed/owner --to age1... --tickets 100 --out batch\n  jali deal sealed/owner --to age1... --tickets 5000 --on-demand --out batch\n  jali deal sealed/owner --passphrase-file secret.txt --to age1... --tickets 100 --out batch\n  jali deal sealed/owner --listen 0.0.0.0:8434 --tls-cert cert.pem --tls-key key.pem batch\n\nWrites DIR/server (give it to the server, keep a copy to judge transcripts) and DIR/wallet (give it to the guest, then erase it:\nwhoever has it and the server's part can read the guest's images). With --on-demand the wallet holds no tickets: --listen\ndeals them, in blocks, when the guest runs `jali tickets WALLET --key FILE --fetch URL`. Run that on a machine of your own, never\nat the server: it has the weights. It keeps nothing of what it deals, and never sees an image."
)]
#[command(group(clap::ArgGroup::new("how").required(true).args(["to", "listen"])))]
pub(crate) struct DealArgs {
    /// The owner's file, or a folder that holds one named "owner"
    #[arg(value_name = "OWNER")]
    owner: PathBuf,
    #[command(flatten)]
    unlock: Unlock,
    /// The guest's recipient, as `jali guest key` prints it
    #[arg(long, value_name = "RECIPIENT", requires = "tickets", requires = "out")]
    to: Option<String>,
    /// How many tickets
    #[arg(long, value_name = "N", requires = "to", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    tickets: Option<u32>,
    /// For how many days they are valid
    #[arg(long, value_name = "N", default_value_t = 90, requires = "to", value_parser = clap::value_parser!(u32).range(1..=36_500))]
    days: u32,
    /// Folder for the batch
    #[arg(long, value_name = "DIR", requires = "to")]
    out: Option<PathBuf>,
    /// Deal the guest's halves when the guest asks --listen for them, not now
    #[arg(long, requires = "to")]
    on_demand: bool,
    /// Print one JSON object instead of text
    #[arg(long, requires = "to")]
    json: bool,
    #[command(flatten)]
    listening: Listening,
}

#[derive(Serialize)]
struct DealReport {
    model: String,
    model_id: String,
    batch: String,
    tickets: u32,
    valid_until: String,
    output_bits: u64,
    model_bits: u64,
    server: String,
    server_bytes: u64,
    wallet: String,
    wallet_bytes: u64,
}

pub(crate) fn deal(args: &DealArgs) -> anyhow::Result<()> {
    let owner = args.unlock.owner(&args.owner)?;
    let dealer = Dealer::new(owner, Backend::best());
    let (Some(to), Some(tickets), Some(out)) = (&args.to, args.tickets, &args.out) else {
        return args.listening.run(dealer);
    };
    let terms = Terms { guest: to.clone(), tickets, days: args.days, on_demand: args.on_demand };
    let bar = progress(tickets as usize, "dealing");
    let dealt = dealer.deal(out, &terms, |done| bar.set_position(done.into())).map_err(JaliError::from)?;
    bar.finish_and_clear();
    let m = &dealt.manifest;
    let output_bits = u64::from(m.output_bits) * u64::from(m.tickets);
    let report = DealReport {
        model: m.name.clone(),
        model_id: hex(&m.model),
        batch: hex(&m.batch),
        tickets: m.tickets,
        valid_until: m.until(),
        output_bits,
        model_bits: m.model_bits,
        server: dealt.server.display().to_string(),
        server_bytes: dealt.server_bytes,
        wallet: dealt.wallet.display().to_string(),
        wallet_bytes: dealt.wallet_bytes,
    };
    if args.json {
        return say_json(&report);
    }
    let dealt_or_not = if args.on_demand { "agreed  " } else { "dealt   " };
    say(format!(
        "{dealt_or_not}  {} tickets of {}, valid until {}, batch {}",
        m.tickets, m.name, report.valid_until, report.batch
    ))?;
    say(format!(
        "learn     {output_bits} bits at most, {} a ticket; the hidden weights have {} ({:.2} %)",
        m.output_bits,
        m.model_bits,
        100.0 * output_bits as f64 / m.model_bits.max(1) as f64
    ))?;
    say(format!(
        "server    {} ({}): give it to the server, keep a copy",
        report.server,
        bytes(report.server_bytes as usize)
    ))?;
    say(format!(
        "wallet    {} ({}): give it to the guest, then erase it here",
        report.wallet,
        bytes(report.wallet_bytes as usize)
    ))?;
    if args.on_demand {
        say(format!("next      jali deal {} --listen ADDRESS {}", args.owner.display(), out.display()))?;
    }
    Ok(())
}
