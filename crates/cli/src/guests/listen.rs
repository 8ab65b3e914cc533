//! `jali deal --listen`: the owner's dealing service.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use jali::JaliError;
use jali::serving::batch_files;
use jali_net::dealing::DealingService;
use jali_net::server::Limits;
use jali_net::{Config, Running, Signal, TlsFiles, wait_for_signals};
use jali_tickets::{Dealer, Stock};

use crate::serve::{LogForm, log};
use crate::text::say;

/// How tickets are dealt on demand.
#[derive(Args)]
pub(crate) struct Listening {
    /// Deal on demand: listen on this address and port; port 0 takes a free one
    #[arg(long, value_name = "ADDR", requires = "batches")]
    listen: Option<SocketAddr>,
    /// Batches to deal from, which `jali deal --on-demand` has made, or folders of them
    #[arg(value_name = "BATCH", requires = "listen", conflicts_with = "to")]
    batches: Vec<PathBuf>,
    /// Most tickets a minute for a batch
    #[arg(long, value_name = "N", default_value_t = 1000, requires = "listen", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: u32,
    /// Longest time for a guest to take a block of tickets, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600, requires = "listen", value_parser = clap::value_parser!(u16).range(1..))]
    block_time: u16,
    /// Certificate chain for HTTPS, PEM
    #[arg(long, value_name = "FILE", requires = "tls_key", requires = "listen")]
    tls_cert: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// How to log
    #[arg(long, value_enum, default_value = "text", requires = "listen")]
    log: LogForm,
}

impl Listening {
    /// Deals until it is told to stop.
    pub(super) fn run(&self, dealer: Dealer) -> anyhow::Result<()> {
        let Some(listen) = self.listen else { anyhow::bail!("name a recipient, or an address to listen on") };
        log(self.log);
        let open = |path: &PathBuf| Stock::open(path, dealer.owner()).map_err(JaliError::from);
        let stocks = batch_files(&self.batches)?.iter().map(open).collect::<Result<Vec<_>, _>>()?;
        if stocks.is_empty() {
            anyhow::bail!("there is no batch in these folders: `jali deal --on-demand` makes them");
        }
        for stock in &stocks {
            tracing::info!(guest = stock.manifest().guest, left = stock.left(), "deals");
        }
        let limits = Limits { answer_time: Duration::from_secs(self.block_time.into()), ..Limits::default() };
        let tls = self.tls_cert.clone().zip(self.tls_key.clone());
        let tls = tls.map(|(certificate, key)| TlsFiles { certificate, key });
        let scheme = if tls.is_some() { "https" } else { "http" };
        // Credentials and links to tickets go over this: there is no --insecure.
        let config = Config { listen, tls, limits, ..Config::loopback() };
        let running = Running::start(config)
            .map_err(JaliError::from)
            .context("nothing is dealt (--tls-cert FILE --tls-key FILE)")?;
        running.deal(DealingService::new(dealer, stocks, self.rate));
        // A line of its own, so that scripts learn the port.
        say(format!("dealing on {scheme}://{}", running.addr()))?;
        wait_for_signals(|signal| signal == Signal::Stop).map_err(JaliError::from)?;
        tracing::info!("stopping: blocks under way are finished");
        running.stop();
        Ok(())
    }
}
