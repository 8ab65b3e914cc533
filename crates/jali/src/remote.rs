//! A client whose server is another process: the client's bundle and a connection.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jali_model::Tensor;
use jali_net::{Client, NetError, model_name};
use jali_protocol::{ClientModel, StoredClient};

use crate::JaliError;
use crate::bundle::{Readers, write_aside};
use crate::image_file::read_bounded;
use crate::session::{BatchRun, Carried, Request, drive};

/// Longest pause between two tries.
const MAX_PAUSE: Duration = Duration::from_secs(8);
/// First pause between two tries; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Time that a try needs to make sense.
const SHORTEST_TRY: Duration = Duration::from_millis(200);
/// Time that a server may take to be there at all.
const FIRST_PATIENCE: Duration = Duration::from_secs(3);
/// Largest file of kept hints, in bytes.
const MAX_HINTS: u64 = 1 << 32;

/// A sealed network that another process serves.
pub struct Remote {
    client: ClientModel,
    transport: Client,
    /// Time for one batch, tries and pauses included.
    deadline: Duration,
    counter: u64,
    retries: usize,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Remote(withheld)")
    }
}

/// Where hints of a client's bundle are kept: beside it.
pub fn hints_file(bundle: &Path) -> PathBuf {
    let mut name = bundle.as_os_str().to_owned();
    name.push(".hints");
    name.into()
}

impl Remote {
    /// Gets the hints, from the file `keep` if it has the right ones and else from the server, and checks them. Hints are public:
    /// whoever alters the file is noticed by the check.
    ///
    /// # Errors
    /// [`JaliError::Net`] if the server cannot be reached or holds another model, [`JaliError::Protocol`] if its hints are wrong.
    pub fn connect(
        mut stored: StoredClient,
        transport: Client,
        keep: Option<&Path>,
        deadline: Duration,
    ) -> Result<Self, JaliError> {
        let start = Instant::now();
        let name = model_name(stored.id());
        let mut kept = keep.and_then(|path| split(&read_bounded(path, MAX_HINTS).ok()?)).unwrap_or_default();
        kept.resize(stored.layers(), vec![]);
        let (mut fetched, mut retries) = (false, 0);
        for (layer, message) in kept.iter_mut().enumerate() {
            if !stored.needs_hints(layer) || !message.is_empty() && stored.accept_hints(layer, message).is_ok() {
                continue;
            }
            *message = loop {
                match transport.hints(&name, layer, stored.hints_len(layer)) {
                    Ok(message) => break message,
                    Err(e) => {
                        // A server that is not there at the start is more likely a mistake than a restart.
                        let patience = match e {
                            NetError::Unreachable { .. } => deadline.min(FIRST_PATIENCE),
                            _ => deadline,
                        };
                        pause(&e, retries, patience.saturating_sub(start.elapsed())).ok_or(e)?;
                        retries += 1;
                    }
                }
            };
            stored.accept_hints(layer, message)?;
            fetched = true;
        }
        if let Some(path) = keep.filter(|_| fetched) {
            // A folder that cannot be written only means that the next start asks the server again.
            let _ = write_aside(path, &join(&kept), Readers::Umask);
        }
        Ok(Self { client: stored.finish()?, transport, deadline, counter: 0, retries })
    }

    /// The network without its weights.
    pub fn outline(&self) -> &jali_model::Outline {
        self.client.outline()
    }

    /// Requests that had to be sent again so far.
    pub fn retries(&self) -> usize {
        self.retries
    }

    /// Classifies a batch of images together. A request that is lost, or that finds the server busy, is sent again with fresh
    /// secrets until the deadline.
    ///
    /// # Errors
    /// [`JaliError::Net`] for what other tries cannot help, [`JaliError::Protocol`] in particular if the ciphertext check
    /// rejects an answer: then the server is not what it should be, and nothing is tried again.
    pub fn infer_batch(&mut self, images: Vec<Tensor>) -> Result<BatchRun, JaliError> {
        let (start, name) = (Instant::now(), model_name(self.client.id()));
        let (transport, deadline, retries) = (&self.transport, self.deadline, &mut self.retries);
        let mut tries = 0;
        let mut last = usize::MAX;
        let counter = self.counter;
        self.counter += 1;
        drive(&self.client, images, counter, vec![], |Request { layer, bytes, most }| {
            if layer != last {
                (last, tries) = (layer, 0);
            }
            // A server that is silent must not use up the time for another try.
            let left = deadline.saturating_sub(start.elapsed());
            let patience = left.min((deadline / 3).max(SHORTEST_TRY));
            match transport.apply(&name, layer, bytes, most, patience) {
                Ok(answer) => Ok(Carried::Answer(answer)),
                Err(e) => {
                    pause(&e, tries, deadline.saturating_sub(start.elapsed())).ok_or(e)?;
                    tries += 1;
                    *retries += 1;
                    Ok(Carried::Lost)
                }
            }
        })
    }
}

/// Waits before another try, or says that there is none: the failure is final, or the time is over.
fn pause(error: &NetError, tries: usize, left: Duration) -> Option<()> {
    let asked = error.retry_after()?;
    let backoff = FIRST_PAUSE.saturating_mul(1 << tries.min(10)).min(MAX_PAUSE);
    // What is left is used: shorter pauses at the end rather than an early end.
    let wait = asked.max(backoff).min(left.checked_sub(SHORTEST_TRY)?);
    std::thread::sleep(wait);
    Some(())
}

/// Messages with their lengths before them.
fn join(messages: &[Vec<u8>]) -> Vec<u8> {
    messages.iter().flat_map(|m| [&(m.len() as u64).to_le_bytes()[..], m].concat()).collect()
}

/// The inverse; `None` if the lengths do not fit.
fn split(mut bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut out = vec![];
    while !bytes.is_empty() {
        let (length, rest) = bytes.split_first_chunk()?;
        let (message, rest) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
        out.push(message.to_vec());
        bytes = rest;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_joined_and_split() {
        let messages = vec![vec![1, 2, 3], vec![], vec![9]];
        let bytes = join(&messages);
        assert_eq!(split(&bytes), Some(messages));
        assert!(split(&bytes[..bytes.len() - 1]).is_none() && split(&[1, 2]).is_none());
        assert!(split(&u64::MAX.to_le_bytes()).is_none());
    }

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
