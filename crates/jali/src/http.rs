//! A server in another process, over HTTP.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jali_net::auth::read_token;
use jali_net::{ClientConfig, NetError, model_name};

use crate::JaliError;
use crate::transport::{Delivery, Request, Transport};

/// Longest pause between two attempts.
const MAX_PAUSE: Duration = Duration::from_secs(8);
/// First pause between two attempts; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Shortest time in which an attempt makes sense.
const SHORTEST_TRY: Duration = Duration::from_millis(200);
/// Time for which a server that cannot be reached at the start is asked again.
const FIRST_PATIENCE: Duration = Duration::from_secs(3);
/// Time for a batch unless told otherwise.
const DEADLINE: Duration = Duration::from_secs(60);

/// The way to a server over HTTP or HTTPS. A request that is lost, or that finds the server busy,
/// is made anew with fresh secrets until the deadline.
///
/// ```no_run
/// use jali::{Client, Http, Network};
/// # fn main() -> Result<(), jali::JaliError> {
/// let http = Http::new("https://host:8433").token_file("token.txt")?;
/// let mut client = Client::open("sealed/client")?.connect(http)?;
/// let samples = Network::Vgg3.dataset().bundled_test()?;
/// println!("{:?}", client.infer(&samples[0].image)?.output().argmax());
/// # Ok(())
/// # }
/// ```
pub struct Http {
    config: ClientConfig,
    /// Connections, and the model's name in paths, once it is open.
    client: Option<(jali_net::Client, String)>,
    /// When the time until the deadline began.
    begun: Instant,
    /// The operator that was asked for last, and how often without success.
    tries: (usize, usize),
    retries: usize,
}

impl std::fmt::Debug for Http {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Http<{}>", self.config.url)
    }
}

impl Http {
    /// Makes a way to `https://host:port`, or to `http://` on this machine. Nothing is sent before
    /// a client connects.
    pub fn new(url: &str) -> Self {
        let config = ClientConfig { url: url.into(), ca_cert: None, token: None, timeout: DEADLINE, insecure: false };
        Self { config, client: None, begun: Instant::now(), tries: (0, 0), retries: 0 }
    }

    /// Sends the bearer token in the first line of a file with every request.
    ///
    /// # Errors
    /// [`JaliError::Net`] if there is none.
    pub fn token_file(mut self, path: impl AsRef<Path>) -> Result<Self, JaliError> {
        self.config.token = Some(read_token(path.as_ref())?);
        Ok(self)
    }

    /// Trusts the authorities in a PEM file instead of the public ones.
    pub fn ca_cert(mut self, path: Option<PathBuf>) -> Self {
        self.config.ca_cert = path;
        self
    }

    /// Sets the time for one batch, attempts and pauses included; 60 s unless it is set.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.config.timeout = deadline;
        self
    }

    /// Allows plain HTTP to another machine, without a token.
    pub fn insecure(mut self, insecure: bool) -> Self {
        self.config.insecure = insecure;
        self
    }

    /// Returns the time until the deadline.
    fn left(&self) -> Duration {
        self.config.timeout.saturating_sub(self.begun.elapsed())
    }

    fn opened(&self) -> Result<&(jali_net::Client, String), JaliError> {
        let why = || std::io::Error::other("no client was connected over this transport");
        self.client.as_ref().ok_or_else(|| JaliError::Transport(why()))
    }
}

impl Transport for Http {
    fn open(&mut self, model: [u8; 16]) -> Result<(), JaliError> {
        self.client = Some((jali_net::Client::new(&self.config)?, model_name(model)));
        self.begun = Instant::now();
        Ok(())
    }

    fn hints(&mut self, operator: usize, most: usize) -> Result<Vec<u8>, JaliError> {
        loop {
            let (client, name) = self.opened()?;
            let error = match client.hints(name, operator, most) {
                Ok(message) => return Ok(message),
                Err(error) => error,
            };
            // A server that is not there at the start is more likely a mistake than a restart.
            let patience = match error {
                NetError::Unreachable { .. } => self.config.timeout.min(FIRST_PATIENCE),
                _ => self.config.timeout,
            };
            pause(&error, self.retries, patience.saturating_sub(self.begun.elapsed())).ok_or(error)?;
            self.retries += 1;
        }
    }

    fn begin(&mut self) {
        (self.begun, self.tries) = (Instant::now(), (usize::MAX, 0));
    }

    fn send(&mut self, request: Request<'_>) -> Result<Delivery, JaliError> {
        let Request { operator, bytes, most } = request;
        if operator != self.tries.0 {
            self.tries = (operator, 0);
        }
        // A server that is silent must not use up the time for another attempt.
        let patience = self.left().min((self.config.timeout / 3).max(SHORTEST_TRY));
        let (client, name) = self.opened()?;
        match client.apply(name, operator, bytes, most, patience) {
            Ok(answer) => Ok(Delivery::Answer(answer)),
            Err(error) => {
                pause(&error, self.tries.1, self.left()).ok_or(error)?;
                self.tries.1 += 1;
                self.retries += 1;
                Ok(Delivery::Lost)
            }
        }
    }

    fn retries(&self) -> usize {
        self.retries
    }
}

/// Waits before another attempt, or returns `None` if there is none: the failure is final, or the
/// time is over. `tries` is the number of attempts before, `left` the time until the deadline.
fn pause(error: &NetError, tries: usize, left: Duration) -> Option<()> {
    let asked = error.retry_after()?;
    let backoff = FIRST_PAUSE.saturating_mul(1 << tries.min(10)).min(MAX_PAUSE);
    // All time is used: pauses become shorter at the end rather than the end come early.
    let wait = asked.max(backoff).min(left.checked_sub(SHORTEST_TRY)?);
    std::thread::sleep(wait);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn final_failures_and_spent_time_end_the_tries() {
        let busy = NetError::Busy { url: "u".into(), retry_after: Duration::from_millis(1) };
        assert!(pause(&busy, 0, Duration::from_secs(1)).is_some());
        assert!(pause(&busy, 0, Duration::from_millis(50)).is_none());
        let later = NetError::Busy { url: "u".into(), retry_after: Duration::from_secs(30) };
        assert!(pause(&later, 9, Duration::from_millis(250)).is_some(), "the time that is left is used");
        assert!(pause(&NetError::Denied { url: "u".into() }, 0, Duration::from_secs(9)).is_none());
    }
}
