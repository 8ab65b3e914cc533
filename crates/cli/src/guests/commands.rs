//! `jali guest`, `jali deal`, `jali tickets`, `jali judge`: what owners and guests do with tickets.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use jali::JaliError;
use jali::guests::Backend;
use jali_bundle::hex;
use jali_tickets::manifest::date;
use jali_tickets::{Auditor, Dealer, GuestIdentity, OwnerFile, Terms, Transcript, Verdict, WalletInfo};
use serde::Serialize;

use crate::exit::Exit;
use crate::options::parse_hex;
use crate::text::{bytes, progress, say, say_json};

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

/// Deal tickets to a guest: each is one inference.
///
/// Every call draws a new batch. Its tickets bound what the guest, however it cheats, can learn of
/// the model: their number times the bits of an output.
#[derive(Args)]
#[command(
    after_help = "Example:\n  jali deal sealed/owner --to age1... --tickets 100 --out batch\n\nWrites DIR/server (give it to the server, keep a copy to judge transcripts) and DIR/wallet (give it to the guest, then erase it:\nwhoever has it and the server's part can read the guest's images)."
)]
pub(crate) struct DealArgs {
    /// The owner's file, or a folder that holds one named "owner"
    #[arg(value_name = "OWNER")]
    owner: PathBuf,
    /// The guest's recipient, as `jali guest key` prints it
    #[arg(long, value_name = "RECIPIENT")]
    to: String,
    /// How many tickets
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    tickets: u32,
    /// For how many days they are valid
    #[arg(long, value_name = "N", default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    days: u32,
    /// Folder for the batch
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
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
    let owner = OwnerFile::read(&args.owner).map_err(JaliError::from)?;
    let terms = Terms { guest: args.to.clone(), tickets: args.tickets, days: args.days };
    let bar = progress(args.tickets as usize, "dealing");
    let dealer = Dealer::new(&owner, Backend::best());
    let dealt = dealer.deal(&args.out, &terms, |done| bar.set_position(done.into())).map_err(JaliError::from)?;
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
    say(format!(
        "dealt     {} tickets of {}, valid until {}, batch {}",
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
    Ok(())
}

/// Say what a wallet is for, and how many of its tickets are left.
#[derive(Args)]
#[command(after_help = "Examples:\n  jali tickets batch/wallet\n  jali tickets batch/wallet --key me.key")]
pub(crate) struct TicketsArgs {
    /// The wallet, or the server's part of a batch
    #[arg(value_name = "WALLET")]
    wallet: PathBuf,
    /// The guest's key: only with it can be told how many are left
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
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
    dealt: String,
    valid_until: String,
    expired: bool,
    ticket_bytes: u64,
    output_bits: u32,
    model_bits: u64,
}

pub(crate) fn tickets(args: &TicketsArgs) -> anyhow::Result<()> {
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
        left,
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
    say(match report.left {
        Some(left) => format!("tickets   {left} of {} left", report.tickets),
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
    after_help = "Example:\n  jali judge transcript --owner sealed/owner --batch batch/server\n\nExit codes: 0 the server was honest, 4 it lied, 1 nobody can tell (damaged, or not signed by the server)."
)]
pub(crate) struct JudgeArgs {
    /// What `jali infer --transcript` wrote
    #[arg(value_name = "TRANSCRIPT")]
    transcript: PathBuf,
    /// The owner's file, or a folder that holds one named "owner"
    #[arg(long, value_name = "OWNER")]
    owner: PathBuf,
    /// The owner's copy of the server's part of the batch
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
    let judged = || {
        let owner = OwnerFile::read(&args.owner)?;
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
