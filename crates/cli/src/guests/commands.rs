//! `jali guest`, `jali tickets`, `jali judge`: keys, wallets and transcripts.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use jali::JaliError;
use jali::guests::{Backend, Fetching, fetch};
use jali_bundle::hex;
use jali_net::ClientConfig;
use jali_tickets::manifest::date;
use jali_tickets::{Auditor, GuestIdentity, Transcript, Verdict, Wallet, WalletInfo};
use serde::Serialize;

use super::Unlock;
use crate::exit::Exit;
use crate::options::parse_hex;
use crate::text::{bytes, note, progress, say, say_json};

/// Exit code when a server lied.
const LIED: u8 = 4;

#[derive(Subcommand)]
pub(crate) enum GuestCommand {
    /// Make the key to which owners lock your tickets, and print what to tell them
    #[command(
        after_help = "Example:\n  jali guest key --out me.key\n\nTell the owner the recipient that it prints. The file is yours alone; age-keygen makes such files, too."
    )]
    Key {
        /// File for the key, which must not be there yet
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}

pub(crate) fn run(command: &GuestCommand) -> anyhow::Result<()> {
    let GuestCommand::Key { out } = command;
    let identity = GuestIdentity::generate();
    identity.write(out).map_err(JaliError::from)?;
    say(format!("key        {}: keep it, and show it to nobody", out.display()))?;
    say(format!("recipient  {}", identity.recipient()))?;
    Ok(())
}

/// Say what a wallet is for, and how many of its tickets are left.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  jali tickets batch/wallet\n  jali tickets batch/wallet --key me.key\n  jali tickets batch/wallet --key me.key --fetch https://owner:8434 --count 100\n\nFetch tickets ahead, not when there is an image: the owner sees when you ask."
)]
pub(crate) struct TicketsArgs {
    /// The wallet
    #[arg(value_name = "WALLET")]
    wallet: PathBuf,
    /// The guest's key: only with it can be told how many are left
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Fetch tickets from the owner's dealing service first: https://host:port, or http:// on this
    /// machine
    #[arg(long, value_name = "URL", requires = "key")]
    fetch: Option<String>,
    /// How many to fetch; they come in blocks [default: one block]
    #[arg(long, value_name = "N", default_value_t = 1, requires = "fetch", hide_default_value = true, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    count: u32,
    /// Certificate authorities to trust instead of the public ones, PEM
    #[arg(long, value_name = "FILE", requires = "fetch")]
    ca_cert: Option<PathBuf>,
    /// The owner's key, as `jali seal --for guests` prints it: tickets of others are refused
    #[arg(long, value_name = "HEX", value_parser = parse_hex::<32>)]
    owner: Option<[u8; 32]>,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct TicketsReport {
    model: String,
    model_id: String,
    batch: String,
    owner_key: String,
    guest: String,
    tickets: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    left: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fetched: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fetchable: Option<u32>,
    on_demand: bool,
    dealt: String,
    valid_until: String,
    expired: bool,
    ticket_bytes: u64,
    output_bits: u32,
    model_bits: u64,
}

/// Fetches tickets and returns how many came.
fn fetched(args: &TicketsArgs, url: &str) -> Result<u32, JaliError> {
    let none = || JaliError::Transport(std::io::Error::other("--key is missing"));
    let identity = GuestIdentity::read(args.key.as_deref().ok_or_else(none)?)?;
    let mut wallet = Wallet::open(&args.wallet, &identity, args.owner.as_ref())?;
    let config = ClientConfig {
        url: url.into(),
        ca_cert: args.ca_cert.clone(),
        token: None,
        timeout: Duration::from_secs(60),
        insecure: false,
    };
    let bar = progress(args.count as usize, "fetching");
    let mut kept = 0;
    let came = fetch(&mut wallet, &identity, &config, args.count, |fetching| match fetching {
        Fetching::Came(came) => {
            kept = came;
            bar.set_message("fetching");
            bar.set_position(came.into());
        }
        Fetching::Waits(wait) => bar.set_message(format!("next block in {} s", wait.as_secs_f64().ceil())),
    });
    bar.finish_and_clear();
    if came.is_err() && kept > 0 {
        let _ = note(format!("{kept} tickets came before this, and are in the wallet"));
    }
    came
}

pub(crate) fn tickets(args: &TicketsArgs) -> anyhow::Result<()> {
    let fetched = args.fetch.as_deref().map(|url| fetched(args, url)).transpose()?;
    let info = WalletInfo::read(&args.wallet, args.owner.as_ref()).map_err(JaliError::from)?;
    let left =
        args.key.as_deref().map(|key| info.left(&GuestIdentity::read(key)?)).transpose().map_err(JaliError::from)?;
    let m = info.manifest();
    let report = TicketsReport {
        model: m.name.clone(),
        model_id: hex(&m.model),
        batch: hex(&m.batch),
        owner_key: hex(&m.owner),
        guest: m.guest.clone(),
        tickets: m.tickets,
        left: left.map(|left| left.here),
        fetched,
        fetchable: left.map(|left| left.fetchable),
        on_demand: m.on_demand.is_some(),
        dealt: date(m.dealt),
        valid_until: m.until(),
        expired: m.is_expired(),
        ticket_bytes: m.ticket_bytes,
        output_bits: m.output_bits,
        model_bits: m.model_bits,
    };
    if args.json {
        return say_json(&report);
    }
    say(format!("model     {} ({})", report.model, report.model_id))?;
    if let Some(fetched) = report.fetched {
        say(format!("fetched   {fetched} tickets"))?;
    }
    say(match report.left {
        Some(left) if report.on_demand => format!(
            "tickets   {left} here, {} more can be fetched; the owner agreed on {}",
            report.fetchable.unwrap_or(0),
            report.tickets
        ),
        Some(left) => format!("tickets   {left} of {} left", report.tickets),
        None if report.on_demand => {
            format!("tickets   {} agreed on {}; --key FILE tells how many are here", report.tickets, report.dealt)
        }
        None => format!("tickets   {} dealt on {}; --key FILE tells how many are left", report.tickets, report.dealt),
    })?;
    let over = if report.expired { ", which is over" } else { "" };
    say(format!("valid     until {}{over}", report.valid_until))?;
    say(format!("each      {}, {} bits of output", bytes(report.ticket_bytes as usize), report.output_bits))?;
    say(format!("owner     {}", report.owner_key))?;
    say(format!("guest     {}", report.guest))?;
    Ok(())
}

/// Judge a transcript that a guest hands in: did the server send what it had to?
///
/// The owner computes each message of the server again. It answers only for a transcript that the
/// server has signed, and says one bit.
#[derive(Args)]
#[command(
    after_help = "Example:\n  jali judge transcript --owner sealed/owner --batch batch/server\n\nExit codes: 0 the server was honest, 4 it lied, 6 nobody can tell (damaged, another batch, or not signed by the server)."
)]
pub(crate) struct JudgeArgs {
    /// What `jali infer --transcript` wrote
    #[arg(value_name = "TRANSCRIPT")]
    transcript: PathBuf,
    /// The owner's file, or a folder that holds one named "owner"
    #[arg(long, value_name = "OWNER")]
    owner: PathBuf,
    #[command(flatten)]
    unlock: Unlock,
    /// The owner's copy of the server's part of the batch, or a folder that holds it as "server"
    #[arg(long, value_name = "BATCH")]
    batch: PathBuf,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Judged {
    honest: bool,
}

pub(crate) fn judge(args: &JudgeArgs) -> anyhow::Result<()> {
    let owner = args.unlock.owner(&args.owner)?;
    let judged = || {
        let transcript = Transcript::read(&args.transcript, &owner.public_key())?;
        Auditor::new(owner, &args.batch, Backend::best())?.judge(&args.transcript, &transcript)
    };
    let honest = judged().map_err(JaliError::from)? == Verdict::Honest;
    match args.json {
        true => say_json(&Judged { honest })?,
        false => say(match honest {
            true => "the server was honest: every message is the one that it had to send",
            false => "THE SERVER LIED: it signed a message that it had not to send",
        })?,
    }
    if honest { Ok(()) } else { Err(Exit(LIED).into()) }
}
