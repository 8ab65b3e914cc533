//! `jali serve`: the untrusted server.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use jali::JaliError;
use jali::serving::{Loaded, load};
use jali_net::server::Limits;
use jali_net::{Config, PageOrigin, Pages, Running, Signal, TlsFiles, Tokens, wait_for_signals};

/// Serve sealed networks over HTTP.
///
/// The server holds no key: it sees masked inputs and multiplies. Requests are independent of each
/// other, so several servers with the same bundles can stand behind any balancer. SIGHUP reads all
/// files again without dropping a request, SIGTERM finishes what runs and ends.
#[derive(clap::Parser)]
#[command(
    after_help = "Examples:\n  jali serve sealed/server\n  jali serve sealed/server --tickets batch/server\n  jali serve sealed/server --pages web/dist\n  jali serve a/server b/server --listen 0.0.0.0:8433 --tls-cert cert.pem --tls-key key.pem --token-file tokens.txt\n\nPaths: /v2/health/live, /v2/health/ready, /v2/models/MODEL, /v2/models/MODEL/operators/INDEX, /metrics; MODEL is the id\nthat `jali seal` and `jali inspect` show."
)]
pub(super) struct ServeArgs {
    /// Server's bundles, or folders that hold one named "server"
    #[arg(required = true, value_name = "BUNDLE")]
    bundles: Vec<PathBuf>,
    /// This server's parts of batches of tickets, or folders of them, for networks that were sealed
    /// for guests
    #[arg(long, value_name = "BATCH", num_args = 1..)]
    tickets: Vec<PathBuf>,
    /// Guests served at a time
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    max_guests: u16,
    /// Address and port; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8433")]
    listen: SocketAddr,
    /// Certificate chain for HTTPS, PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Accept only requests with a bearer token from this file (one per line)
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Allow plain HTTP on an address that other machines reach
    #[arg(long)]
    insecure: bool,
    /// Serve the files of this folder beside the networks, its index.html as the page, to
    /// everybody: scripts/build-web makes web/dist, Jali's own
    #[arg(long, value_name = "DIR")]
    pages: Option<PathBuf>,
    /// Let pages of another origin call this server, such as https://clinic.example (may be given
    /// several times) [default: none]
    #[arg(long = "allow-origin", value_name = "ORIGIN")]
    allow_origins: Vec<PageOrigin>,
    /// Requests computed at a time [default: number of cores, at least 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    max_concurrent: Option<u16>,
    /// Requests that wait beyond these; more get 503 with Retry-After
    #[arg(long, value_name = "N", default_value_t = 64)]
    max_queue: u16,
    /// Largest request in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 64 << 20, value_parser = clap::value_parser!(u64).range(1..=4 << 30))]
    max_body: u64,
    /// Bytes of memory that all requests may take together, besides the models
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 30, value_parser = clap::value_parser!(u64).range(1 << 20..=1 << 40))]
    max_memory: u64,
    /// Open connections
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..))]
    max_connections: u32,
    /// Longest time for a client to take an answer, and to ask for something, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u16).range(1..))]
    answer_time: u16,
    /// Threads that compute; these may move between cores [default: one bound to each core]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// How to log
    #[arg(long, value_enum, default_value = "text")]
    log: LogForm,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogForm {
    /// Lines for people
    Text,
    /// One JSON object per line
    Json,
    /// Nothing
    None,
}

pub(super) fn run(args: &ServeArgs) -> anyhow::Result<()> {
    log(args.log);
    let backend = super::start_threads(args.threads)?;
    let defaults = Limits::default();
    let limits = Limits {
        max_concurrent: args.max_concurrent.map_or(defaults.max_concurrent, usize::from),
        max_queue: args.max_queue.into(),
        max_body: usize::try_from(args.max_body)?,
        max_memory: usize::try_from(args.max_memory)?,
        max_connections: args.max_connections as usize,
        max_guests: args.max_guests.into(),
        answer_time: std::time::Duration::from_secs(args.answer_time.into()),
        ..defaults
    };
    let tls = args.tls_cert.clone().zip(args.tls_key.clone());
    let config = Config {
        listen: args.listen,
        tls: tls.map(|(certificate, key)| TlsFiles { certificate, key }),
        tokens: args.token_file.as_deref().map(Tokens::read).transpose().map_err(JaliError::from)?,
        insecure: args.insecure,
        limits,
        pages: Pages { folder: args.pages.clone(), origins: args.allow_origins.clone() },
    };
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    // Certificates and port first: a mistake there is told before gigabytes are read.
    let running = Running::start(config).map_err(JaliError::from).context(remedy(args))?;
    let Loaded { keyed, guests } = load(&args.bundles, &args.tickets, backend, &Loaded::default())?;
    if args.token_file.is_none() && !keyed.is_empty() {
        // Guests have tokens of their own.
        tracing::warn!("no --token-file: whoever reaches the port may ask");
    }
    running.serve_guests(guests);
    running.serve(keyed);
    // A line of its own, so that scripts learn the port.
    super::text::say(format!("serving on {scheme}://{}", running.addr()))?;
    wait_for_signals(|signal| match signal {
        Signal::Stop => true,
        Signal::Reload => {
            let reload = || -> anyhow::Result<()> {
                let tokens = args.token_file.as_deref().map(Tokens::read).transpose()?;
                let old = Loaded { keyed: running.models(), guests: running.guest_services() };
                let Loaded { keyed, guests } = load(&args.bundles, &args.tickets, backend, &old)?;
                running.reload(keyed, tokens)?;
                running.serve_guests(guests);
                Ok(())
            };
            match reload() {
                Ok(()) => tracing::info!("reloaded"),
                Err(e) => tracing::error!(error = format!("{e:#}"), "nothing reloaded, serving goes on as it was"),
            }
            false
        }
    })
    .map_err(JaliError::from)?;
    tracing::info!("stopping: requests under way are finished");
    running.stop();
    Ok(())
}

fn remedy(args: &ServeArgs) -> &'static str {
    if args.listen.ip().is_loopback() || args.tls_cert.is_some() {
        "the server cannot start"
    } else {
        "the server does not start (--tls-cert FILE --tls-key FILE, or --insecure)"
    }
}

/// Lines go to standard error. No event holds a tile's content: requests are logged by path,
/// status, length and time.
pub(crate) fn log(form: LogForm) {
    let builder = tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(tracing::Level::INFO);
    // A second initialisation, in tests, is no error.
    let _ = match form {
        LogForm::Text => builder.with_ansi(false).with_target(false).try_init(),
        LogForm::Json => builder.json().try_init(),
        LogForm::None => Ok(()),
    };
}
