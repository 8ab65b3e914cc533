//! `jali inspect`: what is inside a bundle, or what will become of a model.

mod said;

use std::io::{Cursor, Read, Seek};
use std::path::{Path, PathBuf};

use jali::bundle::{self, Pin};
use jali::{JaliError, QuantConfig};
use jali_bundle::{Bundle, BundleError, Kind, VERSION, hex};
use jali_leak::Origin;
use jali_operator::OperatorSummary;
use jali_protocol::{KeySummary, ProtocolError, StoredClient};
use jali_tickets::sealed::OWNER;
use serde::Serialize;

use super::options::parse_bits;
use super::text::{progress, say_json};
use super::{Over, PinArgs, conclude, model_report};

/// Say what is inside a bundle, and check it; or what will become of an ONNX model.
///
/// Given a model, it says which nodes the server computes and which the client, with rings, sizes
/// and expected times (everything hidden); for one that is not supported, all nodes that are in the
/// way and what to do about them. Given a folder with both bundles, it also says how many bytes a
/// hidden and an open weight take on the server: the server's bundle alone does not tell how many
/// weights there are.
#[derive(clap::Parser)]
#[command(
    after_help = "Examples:\n  jali inspect sealed\n  jali inspect sealed/server --verify\n  jali inspect sealed/client --passphrase-file secret.txt --json\n  jali inspect net.onnx --plot net.svg\n  jali inspect net.onnx --guest"
)]
pub(super) struct InspectArgs {
    /// A bundle, the folder that `jali seal` wrote, or a model
    #[arg(value_name = "BUNDLE|DIR|MODEL.onnx", required_unless_present = "model_file")]
    given: Option<PathBuf>,
    /// A model, as an option
    #[arg(long = "model", id = "model_file", value_name = "FILE.onnx", conflicts_with = "given")]
    model_file: Option<PathBuf>,
    /// What it takes for guests of a model, who must not have it: gates, tickets, time
    #[arg(long, conflicts_with = "plot")]
    pub(super) guest: bool,
    /// Draw the model's graph, the server's part coloured
    #[arg(long, value_name = "FILE.svg")]
    pub(super) plot: Option<PathBuf>,
    /// Bits of weights and activations of a model
    #[arg(long, value_name = "W,A", default_value = "8,8", value_parser = parse_bits)]
    pub(super) bits: QuantConfig,
    /// Read everything and check every checksum
    #[arg(long)]
    verify: bool,
    /// Passphrase of a locked client's bundle: first line of this file
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pin: PinArgs,
    #[command(flatten)]
    pub(super) over: Over,
}

impl InspectArgs {
    /// What is looked at.
    pub(super) fn path(&self) -> &Path {
        self.given.as_deref().or(self.model_file.as_deref()).unwrap_or(Path::new("."))
    }
}

/// Exit code of bundles that cannot be used, or not together.
const FOREIGN: u8 = 6;

#[derive(Serialize, Default)]
struct Report {
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<ServerReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<ClientReport>,
    /// Files of the guests' mode.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    guests: Vec<GuestFile>,
    /// Whether both belong to the same sealing.
    #[serde(skip_serializing_if = "Option::is_none")]
    match_each_other: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_per_hidden_weight: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_per_open_weight: Option<f64>,
    verified: bool,
}

/// A file of the guests' mode.
#[derive(Serialize)]
struct GuestFile {
    kind: String,
    #[serde(flatten)]
    head: Head,
}

#[derive(Serialize)]
struct Head {
    path: String,
    bytes: u64,
    format_version: u8,
    model_id: String,
    content_hash: String,
    sections: usize,
}

#[derive(Serialize)]
struct ServerReport {
    #[serde(flatten)]
    head: Head,
    operators: Vec<Operator>,
}

#[derive(Serialize)]
struct Operator {
    ring_degree: usize,
    primes_bits: Vec<u32>,
    tiles: usize,
    wanted: usize,
    hidden_rows: usize,
    open_rows: usize,
    hidden_bytes: u64,
    open_bytes: u64,
}

#[derive(Serialize)]
struct ClientReport {
    #[serde(flatten)]
    head: Head,
    locked: bool,
    input_shape: Vec<usize>,
    weight_bits: u32,
    activation_bits: u32,
    weights_hidden: usize,
    weights_open: usize,
    /// How the plan was made, and what was measured about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    plan: Option<Origin>,
    layers: Vec<Layer>,
}

#[derive(Serialize)]
struct Layer {
    name: String,
    kind: String,
    layout: String,
    ring_degree: usize,
    primes_bits: Vec<u32>,
    plaintext_bits: u32,
    tiles: usize,
    rows: usize,
    hidden_rows: usize,
    weights_hidden: usize,
    weights_open: usize,
}

impl From<OperatorSummary> for Operator {
    fn from(o: OperatorSummary) -> Self {
        let OperatorSummary {
            degree, prime_bits, tiles, wanted, hidden_rows, open_rows, hidden_bytes, open_bytes, ..
        } = o;
        Self {
            ring_degree: degree,
            primes_bits: prime_bits,
            tiles,
            wanted,
            hidden_rows,
            open_rows,
            hidden_bytes,
            open_bytes,
        }
    }
}

impl From<KeySummary> for Layer {
    fn from(l: KeySummary) -> Self {
        Self {
            name: l.name,
            kind: l.kind,
            layout: l.layout,
            ring_degree: l.literal.degree,
            primes_bits: l.literal.prime_bits,
            plaintext_bits: l.literal.plaintext_bits,
            tiles: l.tiles,
            rows: l.rows,
            hidden_rows: l.hidden_rows,
            weights_hidden: l.weights_hidden,
            weights_open: l.weights_open,
        }
    }
}

pub(super) fn run(args: &InspectArgs) -> anyhow::Result<()> {
    if args.model_file.is_some() || args.path().extension().is_some_and(|e| e.eq_ignore_ascii_case("onnx")) {
        return model_report::run(args);
    }
    anyhow::ensure!(!args.guest, "--guest looks at a model: name a file that ends with .onnx");
    anyhow::ensure!(args.plot.is_none(), "--plot draws a model: name a file that ends with .onnx");
    let mut report = Report { verified: args.verify, ..Report::default() };
    let paths = if args.path().is_dir() {
        [bundle::SERVER, bundle::CLIENT, OWNER]
            .iter()
            .map(|name| args.path().join(name))
            .filter(|p| p.exists())
            .collect()
    } else {
        vec![args.path().to_owned()]
    };
    if paths.is_empty() {
        let why = "the folder holds no bundle named \"server\", \"client\" or \"owner\"".into();
        return Err(JaliError::Read { path: args.path().to_owned(), why }.into());
    }
    for path in paths {
        match bundle::kind_of(&path)? {
            Some((Kind::Server, _)) => report.server = Some(inspect_server(&path, args)?),
            Some((Kind::Client | Kind::GuestOwner, locked)) => inspect_secret(&path, locked, args, &mut report)?,
            Some((kind, _)) => {
                report.guests.push(inspect_for_guests(&path, bundle::open(&path, kind)?, kind, args)?);
            }
            None => {
                let source = BundleError::Format { expected: VERSION, got: "it starts with other bytes".into() };
                return Err(JaliError::Bundle { path, fault: ProtocolError::from(source) }.into());
            }
        }
    }
    if let (Some(server), Some(client)) = (&report.server, &report.client) {
        let sum = |f: &dyn Fn(&Operator) -> u64| server.operators.iter().map(f).sum::<u64>() as f64;
        report.match_each_other = Some(server.head.model_id == client.head.model_id);
        let per = |bytes: f64, weights: usize| (weights > 0).then(|| bytes / weights as f64);
        if report.match_each_other == Some(true) {
            report.bytes_per_hidden_weight = per(sum(&|o| o.hidden_bytes), client.weights_hidden);
            report.bytes_per_open_weight = per(sum(&|o| o.open_bytes), client.weights_open);
        }
    }
    let printed = if args.json { say_json(&report) } else { said::print(&report) };
    conclude(printed, (report.match_each_other == Some(false)).then_some(FOREIGN))
}

fn head<R: Read + Seek>(path: &Path, bytes: u64, bundle: &Bundle<R>) -> Head {
    Head {
        path: path.display().to_string(),
        bytes,
        format_version: VERSION,
        model_id: hex(&bundle.model()),
        content_hash: hex(&bundle.content_hash()),
        sections: bundle.sections().len(),
    }
}

fn verify<R: Read + Seek>(path: &Path, bundle: &mut Bundle<R>) -> Result<(), JaliError> {
    let bar = progress(bundle.sections().len(), "checking");
    let result = bundle.verify(|_| bar.inc(1));
    bar.finish_and_clear();
    result.map_err(|e| JaliError::Bundle { path: path.into(), fault: e.into() })
}

fn length(path: &Path) -> Result<u64, JaliError> {
    Ok(std::fs::metadata(path).map_err(|e| JaliError::Read { path: path.into(), why: e.to_string() })?.len())
}

fn inspect_server(path: &Path, args: &InspectArgs) -> anyhow::Result<ServerReport> {
    let mut opened = bundle::open(path, Kind::Server)?;
    // Of a folder, the content hash is the client's.
    let content_hash = args.pin.content_hash.filter(|_| !args.path().is_dir());
    let pin = Pin { content_hash, ..args.pin.pin() };
    pin.check(path, opened.model(), opened.content_hash())?;
    let head = head(path, length(path)?, &opened);
    let operators =
        OperatorSummary::read_all(&mut opened).map_err(|e| JaliError::Bundle { path: path.into(), fault: e.into() })?;
    if args.verify {
        verify(path, &mut opened)?;
    }
    Ok(ServerReport { head, operators: operators.into_iter().map(Into::into).collect() })
}

fn inspect_for_guests<R: Read + Seek>(
    path: &Path,
    mut opened: Bundle<R>,
    kind: Kind,
    args: &InspectArgs,
) -> anyhow::Result<GuestFile> {
    args.pin.pin().check(path, opened.model(), opened.content_hash())?;
    let head = head(path, length(path)?, &opened);
    if args.verify {
        verify(path, &mut opened)?;
    }
    Ok(GuestFile { kind: kind.to_string(), head })
}

/// Looks at a file that may be locked: a client's bundle, or an owner's file.
fn inspect_secret(path: &Path, locked: bool, args: &InspectArgs, report: &mut Report) -> anyhow::Result<()> {
    let passphrase = args.passphrase_file.as_deref().map(bundle::read_passphrase).transpose()?;
    let bytes = bundle::client_bytes(path, passphrase.as_ref())?;
    if Kind::of(&bytes) == Some(Kind::GuestOwner) {
        let fault = |e: BundleError| JaliError::Bundle { path: path.into(), fault: e.into() };
        let opened = Bundle::open(Cursor::new(&bytes[..]), Kind::GuestOwner).map_err(fault)?;
        report.guests.push(inspect_for_guests(path, opened, Kind::GuestOwner, args)?);
    } else {
        report.client = Some(inspect_client(path, &bytes, locked, args)?);
    }
    Ok(())
}

fn inspect_client(path: &Path, bytes: &[u8], locked: bool, args: &InspectArgs) -> anyhow::Result<ClientReport> {
    let fail = |fault: ProtocolError| JaliError::Bundle { path: path.into(), fault };
    let mut opened = Bundle::open(Cursor::new(bytes), Kind::Client).map_err(|e| fail(e.into()))?;
    args.pin.pin().check(path, opened.model(), opened.content_hash())?;
    let head = head(path, length(path)?, &opened);
    if args.verify {
        verify(path, &mut opened)?;
    }
    let stored = StoredClient::read(Cursor::new(bytes)).map_err(fail)?;
    let layers = stored.summaries();
    let outline = stored.outline();
    Ok(ClientReport {
        head,
        locked,
        input_shape: outline.graph().input_shape().to_vec(),
        weight_bits: outline.config().weight_bits(),
        activation_bits: outline.config().activation_bits(),
        weights_hidden: layers.iter().map(|l| l.weights_hidden).sum(),
        weights_open: layers.iter().map(|l| l.weights_open).sum(),
        plan: stored.origin().cloned(),
        layers: layers.into_iter().map(Into::into).collect(),
    })
}
