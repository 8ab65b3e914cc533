//! Sealing a network: into memory, to be used here, or into files, to be given away.

use std::io::{BufReader, BufWriter, Cursor, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use age::secrecy::SecretString;
use jali_leak::{Origin, Plan};
use jali_mask::SealEntropy;
use jali_model::QuantModel;
use jali_pack::Costs;
use jali_protocol::{Blueprint, ClientModel, OperatorReport, Owner, ProtocolError, SealedTo, Server};
use jali_ring::Backend;

use crate::bundle::{self, SealedFiles};
use crate::client::Client;
use crate::transport::InProcess;
use crate::{JaliError, memory};

/// A network that is about to be sealed, and how. Everything is hidden unless a plan says
/// otherwise.
///
/// ```
/// use jali::{Network, Sealing};
/// # fn main() -> Result<(), jali::JaliError> {
/// let model = Network::Mnist.quantised(Default::default())?;
/// let sealed = Sealing::of(&model).seal()?;
/// assert!(sealed.report().iter().all(|operator| operator.weights_hidden == operator.weights));
/// # Ok(())
/// # }
/// ```
pub struct Sealing<'a> {
    model: &'a QuantModel,
    plan: Plan,
    origin: Option<Origin>,
    costs: Costs,
    passphrase: Option<&'a SecretString>,
    progress: Box<dyn FnMut(usize) + 'a>,
}

impl std::fmt::Debug for Sealing<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealing").field("costs", &self.costs).finish_non_exhaustive()
    }
}

impl<'a> Sealing<'a> {
    /// Seals this network with every weight hidden.
    pub fn of(model: &'a QuantModel) -> Self {
        let plan = Plan::hide_all(model.graph());
        let progress = Box::new(|_| {});
        Self { model, plan, origin: None, costs: Costs::default(), passphrase: None, progress }
    }

    /// Leaves open what the plan allows, as far as whole rows go.
    pub fn plan(mut self, plan: &Plan) -> Self {
        self.plan = plan.clone();
        self
    }

    /// Leaves open this fraction of the weights (0 to 1), in whole rows that a seed draws at
    /// random, and hides the others. Rows are those of the costs given so far.
    ///
    /// # Errors
    /// [`JaliError::Protocol`] for a fraction outside 0 to 1, or a network that cannot be sealed.
    pub fn leak(mut self, fraction: f64, seed: u64) -> Result<Self, JaliError> {
        let rows = Blueprint::rows_of_all(self.model, &self.costs)?;
        self.plan = jali_leak::random_rows(self.model.graph(), &rows, fraction, seed).map_err(ProtocolError::from)?;
        Ok(self)
    }

    /// Says where the plan comes from: that goes into the client's bundle.
    pub fn origin(mut self, origin: Option<Origin>) -> Self {
        self.origin = origin;
        self
    }

    /// Chooses rings and layouts by these costs: see [`crate::calibration`]. They decide about
    /// speed and traffic, never about security.
    pub fn costs(mut self, costs: Costs) -> Self {
        self.costs = costs;
        self
    }

    /// Locks the client's bundle with a passphrase when it is saved.
    pub fn passphrase(mut self, passphrase: Option<&'a SecretString>) -> Self {
        self.passphrase = passphrase;
        self
    }

    /// Calls `progress` with the number of layers that are sealed, after each of them.
    pub fn progress(mut self, progress: impl FnMut(usize) + 'a) -> Self {
        self.progress = Box::new(progress);
        self
    }

    /// Seals with randomness from the operating system, to be used in this process or saved.
    ///
    /// # Errors
    /// [`JaliError::Memory`] before anything is sealed; [`JaliError::Protocol`];
    /// [`JaliError::Write`] for a large network whose rows go through a file without a name.
    pub fn seal(self) -> Result<Sealed, JaliError> {
        let Self { model, plan, origin, costs, passphrase, mut progress } = self;
        let operators = jali_protocol::forecast(model, &plan, &costs)?;
        memory::check(memory::Needs::of(model.graph(), &operators).process)?;
        let entropy = SealEntropy::from_os().map_err(ProtocolError::from)?;
        let owner = Owner { model, plan: &plan, costs: &costs };
        // Nothing in it is secret, and nothing is left behind: it has no name.
        let (server, mut client, report) = match operators.iter().map(|o| o.bytes).sum::<usize>() <= memory::IN_MEMORY {
            true => {
                let SealedTo { sink, client, report, .. } = owner.seal_into(&entropy, vec![], &mut progress)?;
                (ServerBundle::Memory(sink), client, report)
            }
            false => {
                let fail = |why: String| JaliError::Write { path: std::env::temp_dir(), why };
                let file = tempfile::tempfile().map_err(|e| fail(e.to_string()))?;
                let sealed = owner.seal_into(&entropy, BufWriter::new(file), &mut progress);
                let SealedTo { sink, client, report, .. } =
                    sealed.map_err(|e| bundle::sealing_failed(e, std::env::temp_dir))?;
                (ServerBundle::File(sink.into_inner().map_err(|e| fail(e.to_string()))?), client, report)
            }
        };
        if let Some(origin) = origin {
            client.set_origin(origin);
        }
        Ok(Sealed { server, client, report, passphrase: passphrase.cloned() })
    }

    /// Seals into two files in a folder, which is made if it is missing: `server` and `client`.
    /// Rows go to the file as they are sealed. The client's file can be read by its owner alone
    /// (mode 0600).
    ///
    /// # Errors
    /// [`JaliError::Memory`] before anything is sealed; [`JaliError::Protocol`];
    /// [`JaliError::Write`]: nothing that was there before is changed unless both could be written
    /// whole.
    pub fn save(self, folder: &Path) -> Result<SealedFiles, JaliError> {
        let Self { model, plan, origin, costs, passphrase, progress } = self;
        let operators = jali_protocol::forecast(model, &plan, &costs)?;
        memory::check(memory::Needs::of(model.graph(), &operators).sealing)?;
        let entropy = SealEntropy::from_os().map_err(ProtocolError::from)?;
        bundle::seal(&Owner { model, plan: &plan, costs: &costs }, &entropy, origin, folder, passphrase, progress)
    }
}

/// A server's bundle that has not been written to a place of its own.
enum ServerBundle {
    Memory(Vec<u8>),
    /// A file without a name.
    File(std::fs::File),
}

impl ServerBundle {
    /// Returns a reader of its bytes from the start.
    fn reader(&mut self) -> std::io::Result<Box<dyn ReadSeek + '_>> {
        Ok(match self {
            Self::Memory(bytes) => Box::new(Cursor::new(bytes)),
            Self::File(file) => {
                file.rewind()?;
                Box::new(BufReader::new(file))
            }
        })
    }
}

pub(crate) trait ReadSeek: Read + Seek {}
impl<T: Read + Seek> ReadSeek for T {}

/// A sealed network: what the server gets and what the client gets.
pub struct Sealed {
    server: ServerBundle,
    client: ClientModel,
    report: Vec<OperatorReport>,
    /// Locks the client's bundle when it is saved.
    passphrase: Option<SecretString>,
}

impl std::fmt::Debug for Sealed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealed(withheld)")
    }
}

// We made the bundle: its size is as large as the owner wants it.
const ANY_SIZE: usize = usize::MAX;

impl Sealed {
    /// Returns what sealing did, operator by operator.
    pub fn report(&self) -> &[OperatorReport] {
        &self.report
    }

    /// Returns the public id of the sealed model, 16 bytes.
    pub fn id(&self) -> [u8; 16] {
        self.client.id()
    }

    /// Returns the length of the server's bundle in bytes.
    ///
    /// # Errors
    /// [`JaliError::Write`] if the file of a large one does not tell.
    pub fn server_bytes(&mut self) -> Result<u64, JaliError> {
        match &mut self.server {
            ServerBundle::Memory(bytes) => Ok(bytes.len() as u64),
            ServerBundle::File(file) => file.seek(SeekFrom::End(0)).map_err(no_temporary_file),
        }
    }

    /// Starts both sides in this process with the fastest backend. They share no state: every word
    /// between them is encoded to bytes and decoded again, and the server is loaded from the sealed
    /// bytes.
    ///
    /// # Errors
    /// [`JaliError`] as for [`Sealed::in_process_on`].
    pub fn in_process(self) -> Result<Client<InProcess>, JaliError> {
        self.in_process_on(Backend::fastest())
    }

    /// Starts both sides in this process with this backend.
    ///
    /// # Errors
    /// [`JaliError::Protocol`] if there is no memory for the server's matrices.
    pub fn in_process_on(mut self, backend: Backend) -> Result<Client<InProcess>, JaliError> {
        let reader = self.server.reader().map_err(no_temporary_file)?;
        let server = Server::read(reader, backend, ANY_SIZE).map_err(ProtocolError::from)?;
        Ok(Client::new(self.client, InProcess::new(Arc::new(server))))
    }

    /// Writes both bundles into a folder, which is made if it is missing; the client's is locked if
    /// there is a passphrase.
    ///
    /// # Errors
    /// [`JaliError::Write`]: nothing that was there before is changed unless both could be written
    /// whole.
    pub fn save(&mut self, folder: &Path) -> Result<SealedFiles, JaliError> {
        let reader = self.server.reader().map_err(no_temporary_file)?;
        bundle::write(reader, &self.client, &self.report, folder, self.passphrase.as_ref())
    }
}

fn no_temporary_file(e: std::io::Error) -> JaliError {
    JaliError::Write { path: std::env::temp_dir(), why: e.to_string() }
}
