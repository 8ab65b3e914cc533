//! Bundles as files: written aside, synced and renamed, so that a crash or a full disk leaves the
//! old ones whole.

use std::fs::File;
use std::io::{BufReader, BufWriter, Cursor, Read, Seek, Write};
use std::path::{Path, PathBuf};

use age::secrecy::SecretString;
use jali_bundle::{Bundle, BundleError, Kind, hex};
use jali_leak::Origin;
use jali_mask::SealEntropy;
use jali_operator::OperatorError;
use jali_protocol::{ClientModel, OperatorReport, Owner, ProtocolError, SealedTo, Server, StoredClient};
use jali_ring::Backend;
use jali_tickets::passphrase::{PassphraseFault, is_locked, lock, unlock};
use tempfile::NamedTempFile;
use zeroize::Zeroizing;

use crate::JaliError;
use crate::files::{read_bounded, without_mark};

/// Name of the server's bundle in a folder.
pub const SERVER: &str = "server";
/// Name of the client's bundle in a folder.
pub const CLIENT: &str = "client";
/// Largest client's bundle, in bytes.
const MAX_CLIENT: u64 = 1 << 32;
/// Largest passphrase file, in bytes.
const MAX_PASSPHRASE: u64 = 1 << 16;

/// A bundle that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Path of the file.
    pub path: PathBuf,
    /// Its length in bytes.
    pub bytes: u64,
    /// Hash of its whole content (before locking).
    pub content_hash: [u8; 32],
}

/// The files of a sealed network, and what sealing did.
#[derive(Debug)]
pub struct SealedFiles {
    /// The server's bundle.
    pub server: Written,
    /// The client's bundle, which is secret.
    pub client: Written,
    /// Public id of the sealed model.
    pub id: [u8; 16],
    /// What sealing did, operator by operator.
    pub report: Vec<OperatorReport>,
}

/// Seals a network into two bundles in `folder`, which is made if it is missing. Rows go to the
/// file as they are sealed. `origin` goes into the client's bundle, which is locked if there is a
/// passphrase; `progress` is called with the number of layers that are done.
pub(crate) fn seal(
    owner: &Owner<'_>,
    entropy: &SealEntropy,
    origin: Option<Origin>,
    folder: &Path,
    passphrase: Option<&SecretString>,
    progress: impl FnMut(usize),
) -> Result<SealedFiles, JaliError> {
    let files = Aside::new(folder)?;
    let sink = BufWriter::new(files.server.as_file());
    let sealed = owner.seal_to(entropy, sink, progress);
    let SealedTo { mut client, server_hash, report, .. } = sealed.map_err(|e| files.failed(e))?;
    if let Some(origin) = origin {
        client.set_origin(origin);
    }
    let id = client.id();
    let client_hash = files.write_client(passphrase, |sink| Ok(client.write(sink)?.1))?;
    let (server, client) = files.place(server_hash, client_hash)?;
    Ok(SealedFiles { server, client, id, report })
}

/// Writes both bundles of a network that was sealed already into `folder`, from the bytes of the
/// `server`'s bundle, the `client` and the `report` of the sealing. The client's is locked if there
/// is a passphrase.
pub(crate) fn write(
    mut server: impl Read + Seek,
    client: &ClientModel,
    report: &[OperatorReport],
    folder: &Path,
    passphrase: Option<&SecretString>,
) -> Result<SealedFiles, JaliError> {
    let files = Aside::new(folder)?;
    let fail = |e: std::io::Error| JaliError::Write { path: folder.join(SERVER), why: e.to_string() };
    std::io::copy(&mut server, &mut files.server.as_file()).map_err(fail)?;
    let server_hash = Bundle::open(server, Kind::Server).map_err(|e| files.failed(e.into()))?.content_hash();
    let client_hash = files.write_client(passphrase, |sink| Ok(client.write(sink)?.1))?;
    let (server, written) = files.place(server_hash, client_hash)?;
    Ok(SealedFiles { server, client: written, id: client.id(), report: report.to_vec() })
}

/// Turns a failure of the file that a sealing goes into, at `path`, into [`JaliError::Write`].
pub(crate) fn sealing_failed(e: ProtocolError, path: impl Fn() -> PathBuf) -> JaliError {
    match e {
        ProtocolError::Operator(OperatorError::Bundle(BundleError::Io(why)))
        | ProtocolError::Bundle(BundleError::Io(why)) => JaliError::Write { path: path(), why },
        other => other.into(),
    }
}

/// Two files beside those that they will replace.
struct Aside {
    folder: PathBuf,
    server: NamedTempFile,
    client: NamedTempFile,
}

/// A sink that may lock what goes through it.
type Sink<'a> = Box<dyn Write + 'a>;

impl Aside {
    fn new(folder: &Path) -> Result<Self, JaliError> {
        let fail = |e: std::io::Error| JaliError::Write { path: folder.into(), why: e.to_string() };
        std::fs::create_dir_all(folder).map_err(fail)?;
        remove_stale(folder);
        let prefix = format!("{SEALING}{}-", std::process::id());
        let aside = || NamedTempFile::with_prefix_in(&prefix, folder).map_err(fail);
        Ok(Self { folder: folder.into(), server: aside()?, client: aside()? })
    }

    /// Turns a failure of the server's file into [`JaliError::Write`].
    fn failed(&self, e: ProtocolError) -> JaliError {
        sealing_failed(e, || self.folder.join(SERVER))
    }

    /// Writes the client's bundle, locked if there is a passphrase, and returns what `write` does.
    fn write_client<T>(
        &self,
        passphrase: Option<&SecretString>,
        write: impl FnOnce(Sink<'_>) -> Result<T, ProtocolError>,
    ) -> Result<T, JaliError> {
        let fail = |e: &dyn std::fmt::Display| JaliError::Write { path: self.folder.join(CLIENT), why: e.to_string() };
        let sink = BufWriter::new(self.client.as_file());
        lock(sink, passphrase, |e| fail(&e), |sink| write(Box::new(sink)).map_err(|e| fail(&e)))
    }

    /// Gives both files their names, once they are whole and on the disk. The two renames are not
    /// one: a crash between them leaves bundles of two sealings, which shows at the first request
    /// (the server holds another model).
    fn place(self, server_hash: [u8; 32], client_hash: [u8; 32]) -> Result<(Written, Written), JaliError> {
        let folder = &self.folder;
        let fail = |path: &Path, e: &dyn std::fmt::Display| JaliError::Write { path: path.into(), why: e.to_string() };
        let (server, client) = (folder.join(SERVER), folder.join(CLIENT));
        readable_by_all(self.server.as_file()).map_err(|e| fail(&server, &e))?;
        for (file, path) in [(&self.server, &server), (&self.client, &client)] {
            file.as_file().sync_all().map_err(|e| fail(path, &e))?;
        }
        let place = |file: NamedTempFile, path: PathBuf, content_hash| -> Result<Written, JaliError> {
            let file = file.persist(&path).map_err(|e| fail(&path, &e.error))?;
            let bytes = file.metadata().map_err(|e| fail(&path, &e))?.len();
            Ok(Written { path, bytes, content_hash })
        };
        let written = (place(self.server, server, server_hash)?, place(self.client, client, client_hash)?);
        // The names, too, have to reach the disk.
        File::open(folder).and_then(|f| f.sync_all()).map_err(|e| fail(folder, &e))?;
        Ok(written)
    }
}

#[cfg(unix)]
fn readable_by_all(file: &File) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn readable_by_all(_: &File) -> std::io::Result<()> {
    Ok(())
}

/// Reads a passphrase, the first line of a file.
///
/// # Errors
/// [`JaliError::Read`], [`JaliError::Passphrase`] if the line is empty.
pub fn read_passphrase(path: &Path) -> Result<SecretString, JaliError> {
    let bytes = Zeroizing::new(read_bounded(path, MAX_PASSPHRASE)?);
    let line = std::str::from_utf8(without_mark(&bytes)).ok().and_then(|text| text.lines().next()).unwrap_or("");
    if line.is_empty() {
        return Err(JaliError::Passphrase { path: path.into(), why: "its first line is empty or not text".into() });
    }
    Ok(SecretString::from(line.to_owned()))
}

/// Returns the kind of bundle that a file's first bytes tell and whether it is locked, or `None` if
/// it is no bundle.
///
/// # Errors
/// [`JaliError::Read`].
pub fn kind_of(path: &Path) -> Result<Option<(Kind, bool)>, JaliError> {
    let fail = |e: std::io::Error| JaliError::Read { path: path.into(), why: e.to_string() };
    let mut head = Vec::new();
    File::open(path).map_err(fail)?.take(64).read_to_end(&mut head).map_err(fail)?;
    if is_locked(&head) {
        return Ok(Some((Kind::Client, true)));
    }
    Ok(Kind::of(&head).map(|kind| (kind, false)))
}

/// Opens a server's bundle, or a client's that is not locked, to look at its sections.
///
/// # Errors
/// [`JaliError::Read`], [`JaliError::Bundle`].
pub fn open(path: &Path, kind: Kind) -> Result<Bundle<BufReader<File>>, JaliError> {
    let file = File::open(path).map_err(|e| JaliError::Read { path: path.into(), why: e.to_string() })?;
    Bundle::open(BufReader::new(file), kind).map_err(|e| JaliError::Bundle { path: path.into(), fault: e.into() })
}

/// Loads a server's bundle. The file is not needed afterwards: it may change or go.
///
/// # Errors
/// [`JaliError::Read`], [`JaliError::Bundle`].
pub fn load_server(path: &Path, backend: Backend, max_memory: usize) -> Result<Server, JaliError> {
    let file = File::open(path).map_err(|e| JaliError::Read { path: path.into(), why: e.to_string() })?;
    Server::read(BufReader::new(file), backend, max_memory)
        .map_err(|e| JaliError::Bundle { path: path.into(), fault: e.into() })
}

/// Reads the content of a client's bundle and unlocks it.
///
/// With a passphrase the file must be locked. Otherwise whoever can write the folder could put a
/// bundle of his own there, whose keys he knows, and serve the model that belongs to it.
///
/// # Errors
/// [`JaliError::Read`], [`JaliError::Passphrase`] for a locked file without the right passphrase,
/// and for a passphrase with a file that is not locked.
pub fn client_bytes(path: &Path, passphrase: Option<&SecretString>) -> Result<Zeroizing<Vec<u8>>, JaliError> {
    let bytes = Zeroizing::new(read_bounded(path, MAX_CLIENT)?);
    let why = |fault: PassphraseFault| match fault {
        PassphraseFault::NotLocked => format!("{fault} (--content-hash says which one it must be)"),
        fault => fault.to_string(),
    };
    unlock(bytes, passphrase).map_err(|fault| JaliError::Passphrase { path: path.into(), why: why(fault) })
}

/// Which bundle a file must be: what `jali seal` printed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pin {
    /// The sealed model's public id.
    pub model_id: Option<[u8; 16]>,
    /// Hash of the bundle's whole content.
    pub content_hash: Option<[u8; 32]>,
}

impl Pin {
    /// Checks that a bundle with this id and hash is the one.
    ///
    /// # Errors
    /// [`JaliError::OtherBundle`], which names `path`, if it is not.
    pub fn check(&self, path: &Path, id: [u8; 16], hash: [u8; 32]) -> Result<(), JaliError> {
        let other = |what, expected: &[u8], got: &[u8]| JaliError::OtherBundle {
            path: path.into(),
            what,
            expected: hex(expected),
            got: hex(got),
        };
        match (self.model_id, self.content_hash) {
            (Some(expected), _) if expected != id => Err(other("model id", &expected, &id)),
            (_, Some(expected)) if expected != hash => Err(other("content hash", &expected, &hash)),
            _ => Ok(()),
        }
    }
}

/// Reads a client's bundle; it still needs hints.
///
/// # Errors
/// [`JaliError`] as for [`client_bytes`] and [`Pin::check`], [`JaliError::Bundle`] for damaged or
/// foreign bytes.
pub fn load_client(path: &Path, passphrase: Option<&SecretString>, pin: &Pin) -> Result<StoredClient, JaliError> {
    let bytes = client_bytes(path, passphrase)?;
    let stored = read_client(path, Cursor::new(&bytes[..]))?;
    pin.check(path, stored.id(), stored.content_hash())?;
    Ok(stored)
}

fn read_client(path: &Path, source: impl Read + Seek) -> Result<StoredClient, JaliError> {
    StoredClient::read(source).map_err(|fault| JaliError::Bundle { path: path.into(), fault })
}

/// Beginning of the names of files that are being sealed or written.
const SEALING: &str = ".sealing-";
/// Age from which such a file belongs to a process that is gone: sealing takes minutes.
const STALE: std::time::Duration = std::time::Duration::from_secs(24 * 3600);

/// Removes what a sealing left in a folder when it was killed: unfinished files whose process no
/// longer runs, or that are a day old.
fn remove_stale(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(rest) = name.to_str().and_then(|n| n.strip_prefix(SEALING)) else { continue };
        let process = rest.split('-').next().and_then(|digits| digits.parse::<u32>().ok());
        let old = entry.metadata().and_then(|m| m.modified()).is_ok_and(|t| t.elapsed().is_ok_and(|age| age > STALE));
        if old || process.is_some_and(is_gone) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Returns whether no process of this number runs, where the system tells.
fn is_gone(process: u32) -> bool {
    let processes = Path::new("/proc");
    processes.join("self").exists() && !processes.join(process.to_string()).exists()
}

/// Returns the bundle that a path means: the file itself, or the one called `name` in a folder.
pub fn of_path(path: &Path, name: &str) -> PathBuf {
    if path.is_dir() { path.join(name) } else { path.to_owned() }
}
