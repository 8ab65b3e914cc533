//! A network sealed for guests, as files.
//!
//! ```text
//! owner:   "network"
//!          "keys" = mask seed [32] | owner's signing key [32] | server's public key [32]
//!                   | server's content hash [32]
//!          "layer S"* = weights i32*, biases i64*
//!          the whole file may be locked with a passphrase
//! server:  "network"
//!          "keys" = owner's public key [32] | server's signing key [32]
//!          "layer S"* = W~ u32*
//! ```
//!
//! The mask seed and the server's file together are the model. A server's file is confidential, and
//! made for one server.

use std::fs::File;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use age::secrecy::SecretString;
use ed25519_dalek::SigningKey;
use jali_bundle::{Bundle, BundleWriter, Kind};
use jali_guest::{Circuit, Original, ServerModel, Setup, StreamKey, Tables};
use jali_model::Preprocess;
use jali_model::fixed::{FixedLinear, FixedNetwork, FixedOp};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::TicketError;
use crate::durable::{self, Readers};
use crate::keys::random;
use crate::passphrase;

/// Name of the owner's file in a folder.
pub const OWNER: &str = "owner";
/// Name of the server's file in a folder.
pub const SERVER: &str = "server";
/// Most bytes of what describes a network.
pub(crate) const MAX_NETWORK: u64 = 1 << 28;
/// Most bytes of an owner's file.
const MAX_OWNER: u64 = 1 << 34;

/// A network without its weights, and what people and images need to know of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Description {
    /// Its name.
    pub name: String,
    /// The network; its layers have no weights.
    pub network: FixedNetwork,
    /// Which rows are hidden, and which tables are dealt.
    pub setup: Setup,
    /// How images become its inputs.
    pub preprocess: Preprocess,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    name: String,
    network: Vec<u8>,
    rows: Vec<Vec<bool>>,
    has_direct_tables: bool,
    preprocess: Preprocess,
}

impl Description {
    pub(crate) fn to_bytes(&self, path: &Path) -> Result<Vec<u8>, TicketError> {
        let network = self.network.to_bytes().map_err(|fault| TicketError::Network { path: path.into(), fault })?;
        let (name, preprocess) = (self.name.clone(), self.preprocess.clone());
        let (rows, has_direct_tables) = (self.setup.rows().to_vec(), self.setup.tables() == Tables::Direct);
        let stored = Stored { name, network, rows, has_direct_tables, preprocess };
        postcard::to_stdvec(&stored).map_err(|e| TicketError::write(path, e))
    }

    pub(crate) fn from_bytes(path: &Path, bytes: &[u8]) -> Result<Self, TicketError> {
        let damaged = || TicketError::part(path, "the network");
        let (stored, rest): (Stored, _) = postcard::take_from_bytes(bytes).map_err(|_| damaged())?;
        if !rest.is_empty() || stored.name.len() > 256 || stored.name.contains(char::is_control) {
            return Err(damaged());
        }
        let fail = |fault| TicketError::Network { path: path.into(), fault };
        let network = FixedNetwork::from_bytes(&stored.network).map_err(fail)?;
        let tables = if stored.has_direct_tables { Tables::Direct } else { Tables::Small };
        let setup = Setup::from_stored(&network, stored.rows, tables)?;
        stored.preprocess.check(network.head.input_shape()).map_err(fail)?;
        Ok(Self { name: stored.name, network, setup, preprocess: stored.preprocess })
    }
}

/// What sealing wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The server's file.
    pub server: PathBuf,
    /// The owner's file, which is secret.
    pub owner: PathBuf,
    /// Public id of the sealed network.
    pub id: [u8; 16],
    /// The owner's public key, by which guests know tickets.
    pub owner_key: [u8; 32],
    /// Content hash of the server's file.
    pub server_hash: [u8; 32],
    /// Bytes of the server's file.
    pub server_bytes: u64,
}

/// Seals a network into two files in `folder`, which is made if it is missing. The owner's file is
/// locked if there is a passphrase.
///
/// # Errors
/// [`TicketError::Write`], also if an owner's file is there already; [`TicketError::Random`].
pub fn write_sealed(
    folder: &Path,
    name: &str,
    original: &Original,
    preprocess: &Preprocess,
    passphrase: Option<&SecretString>,
) -> Result<Written, TicketError> {
    std::fs::create_dir_all(folder).map_err(|e| TicketError::write(folder, e))?;
    let (server, owner, id) = (folder.join(SERVER), folder.join(OWNER), *random::<16>()?);
    if owner.exists() {
        // Tickets that were dealt from it would be for nothing, and nobody could judge any more.
        return Err(TicketError::write(&owner, "an owner's file is there already: name another folder"));
    }
    let (signs_manifests, signs_transcripts) =
        (SigningKey::from_bytes(&*random()?), SigningKey::from_bytes(&*random()?));
    let description = Description {
        name: name.into(),
        network: original.network().clone(),
        setup: original.setup().clone(),
        preprocess: preprocess.clone(),
    };
    let network = description.to_bytes(&owner)?;
    let keys = Zeroizing::new([signs_manifests.verifying_key().to_bytes(), signs_transcripts.to_bytes()].concat());
    let masked = original.masked(&original.circuit());
    let layers = masked.iter().map(|(step, w)| (*step, w.iter().flat_map(|w| w.to_le_bytes()).collect()));
    let parts = Parts { kind: Kind::GuestServer, id, network: &network, keys: &keys };
    let server_hash = write_file(&server, None, &parts, layers)?;
    let (signs, verifies) = (Zeroizing::new(signs_manifests.to_bytes()), signs_transcripts.verifying_key().to_bytes());
    let keys = Zeroizing::new([original.mask().expose().as_slice(), &*signs, &verifies, &server_hash].concat());
    let layers = original.network().steps.iter().enumerate().filter_map(|(step, s)| match &s.op {
        FixedOp::Linear(linear) => {
            let weights = linear.weights.iter().flat_map(|w| w.to_le_bytes());
            Some((step, weights.chain(linear.bias.iter().flat_map(|b| b.to_le_bytes())).collect()))
        }
        _ => None,
    });
    write_file(&owner, passphrase, &Parts { kind: Kind::GuestOwner, keys: &keys, ..parts }, layers)?;
    let server_bytes = std::fs::metadata(&server).map_err(|e| TicketError::read(&server, e))?.len();
    let owner_key = signs_manifests.verifying_key().to_bytes();
    Ok(Written { server, owner, id, owner_key, server_hash, server_bytes })
}

/// What stands in a file before its layers.
struct Parts<'a> {
    kind: Kind,
    id: [u8; 16],
    network: &'a [u8],
    keys: &'a [u8],
}

/// Writes a file that only its owner reads, locked if there is a passphrase; returns its content
/// hash.
fn write_file(
    path: &Path,
    passphrase: Option<&SecretString>,
    parts: &Parts<'_>,
    layers: impl Iterator<Item = (usize, Vec<u8>)>,
) -> Result<[u8; 32], TicketError> {
    let write = |sink: &mut dyn Write| {
        let fail = |e| TicketError::write(path, e);
        let mut out = BundleWriter::new(sink, parts.kind, parts.id).map_err(fail)?;
        out.section("network", parts.network).map_err(fail)?;
        out.section("keys", parts.keys).map_err(fail)?;
        for (step, bytes) in layers {
            out.section(&layer_section(step), &Zeroizing::new(bytes)).map_err(fail)?;
        }
        out.finish().map_err(fail).map(|(_, hash)| hash)
    };
    durable::write_with(path, Readers::Owner, |sink| {
        passphrase::lock(sink, passphrase, |e| TicketError::write(path, e), write)
    })
}

pub(crate) fn layer_section(step: usize) -> String {
    format!("layer {step}")
}

/// Opens a file of this kind.
pub(crate) fn open(path: &Path, kind: Kind) -> Result<Bundle<File>, TicketError> {
    let file = File::open(path).map_err(|e| TicketError::read(path, e))?;
    Bundle::open(file, kind).map_err(|e| TicketError::bundle(path, e))
}

/// The file of a name in a folder, or the file itself.
pub(crate) fn of_path(path: &Path, name: &str) -> PathBuf {
    if path.is_dir() { path.join(name) } else { path.into() }
}

/// Splits keys of 32 bytes each.
pub(crate) fn split_keys<const N: usize>(path: &Path, bytes: &[u8]) -> Result<[Zeroizing<[u8; 32]>; N], TicketError> {
    let damaged = || TicketError::part(path, "the keys");
    if bytes.len() != 32 * N {
        return Err(damaged());
    }
    let mut keys: [Zeroizing<[u8; 32]>; N] = std::array::from_fn(|_| Zeroizing::new([0_u8; 32]));
    keys.iter_mut().zip(bytes.chunks_exact(32)).for_each(|(key, bytes)| key.copy_from_slice(bytes));
    Ok(keys)
}

/// Words that stand in bytes.
pub(crate) fn words(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

/// What a server holds of a network sealed for guests.
pub struct ServerFile {
    /// The network without its weights.
    pub description: Description,
    /// What it computes with.
    pub model: ServerModel,
    /// Public id of the sealed network.
    pub id: [u8; 16],
    /// Content hash of the file.
    pub hash: [u8; 32],
    /// The owner's public key.
    pub owner: [u8; 32],
    /// Signs transcripts.
    pub(crate) signing: SigningKey,
}

impl std::fmt::Debug for ServerFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerFile").field("name", &self.description.name).finish_non_exhaustive()
    }
}

impl ServerFile {
    /// Reads a server's file; `path` may be the folder in which it stands.
    ///
    /// # Errors
    /// [`TicketError`] with the section that is damaged or foreign.
    pub fn read(path: &Path) -> Result<Self, TicketError> {
        let path = &of_path(path, SERVER);
        let mut bundle = open(path, Kind::GuestServer)?;
        let fail = |e| TicketError::bundle(path, e);
        let description = Description::from_bytes(path, &bundle.expect("network", MAX_NETWORK).map_err(fail)?)?;
        let [owner, signing] = split_keys(path, &Zeroizing::new(bundle.expect("keys", 64).map_err(fail)?))?;
        let circuit: Circuit = description.setup.circuit(&description.network);
        let mut masked = vec![];
        for step in 0..description.network.steps.len() {
            let Some((rows, fan_in)) = description.network.layer(step).map(FixedLinear::size) else { continue };
            if bundle.peek().is_some_and(|section| section.name == layer_section(step)) {
                masked.push((step, words(&bundle.next(4 * (rows * fan_in) as u64).map_err(fail)?)));
            }
        }
        let model = ServerModel::new(&description.network, circuit, masked)?;
        let (id, hash) = (bundle.model(), bundle.content_hash());
        Ok(Self { description, model, id, hash, owner: *owner, signing: SigningKey::from_bytes(&signing) })
    }

    /// The server's public key.
    pub fn public_key(&self) -> [u8; 32] {
        self.signing.verifying_key().to_bytes()
    }
}

/// What an owner keeps of a network sealed for guests.
pub struct OwnerFile {
    /// Name of the network.
    pub name: String,
    /// The network with its weights.
    pub original: Original,
    /// How images become its inputs.
    pub preprocess: Preprocess,
    /// Public id of the sealed network.
    pub id: [u8; 16],
    /// Content hash of the server's file.
    pub server_hash: [u8; 32],
    /// The server's public key.
    pub server: [u8; 32],
    /// Signs manifests.
    pub(crate) signing: SigningKey,
}

impl std::fmt::Debug for OwnerFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OwnerFile").field("name", &self.name).finish_non_exhaustive()
    }
}

impl OwnerFile {
    /// Reads an owner's file, which the passphrase unlocks if there is one; `path` may be the
    /// folder in which it stands.
    ///
    /// # Errors
    /// [`TicketError`] with the section that is damaged or foreign; [`TicketError::Passphrase`] if
    /// passphrase and file do not fit together.
    pub fn read(path: &Path, passphrase: Option<&SecretString>) -> Result<Self, TicketError> {
        let path = &of_path(path, OWNER);
        let bytes = passphrase::unlock(Zeroizing::new(durable::read(path, MAX_OWNER)?), passphrase)
            .map_err(|fault| TicketError::Passphrase { path: path.into(), fault })?;
        let mut bundle =
            Bundle::open(Cursor::new(&bytes[..]), Kind::GuestOwner).map_err(|e| TicketError::bundle(path, e))?;
        let fail = |e| TicketError::bundle(path, e);
        let Description { name, mut network, setup, preprocess } =
            Description::from_bytes(path, &bundle.expect("network", MAX_NETWORK).map_err(fail)?)?;
        let keys = Zeroizing::new(bundle.expect("keys", 128).map_err(fail)?);
        let [mask, signing, server, server_hash] = split_keys(path, &keys)?;
        for step in 0..network.steps.len() {
            let Some((rows, fan_in)) = network.layer(step).map(FixedLinear::size) else { continue };
            let weights = rows * fan_in;
            let most = 4 * weights as u64 + 8 * rows as u64;
            let bytes = Zeroizing::new(bundle.expect(&layer_section(step), most).map_err(fail)?);
            let (of_weights, of_biases) = bytes.split_at(bytes.len().min(4 * weights));
            if let FixedOp::Linear(linear) = &mut network.steps[step].op {
                linear.weights = words(of_weights).into_iter().map(|w| w as i32).collect();
                let eight = |b: &[u8]| i64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]);
                linear.bias = of_biases.chunks_exact(8).map(eight).collect();
            }
        }
        let original = Original::from_stored(network, setup, StreamKey::from_bytes(*mask))?;
        let (id, signing) = (bundle.model(), SigningKey::from_bytes(&signing));
        Ok(Self { name, original, preprocess, id, server_hash: *server_hash, server: *server, signing })
    }

    /// The owner's public key.
    pub fn public_key(&self) -> [u8; 32] {
        self.signing.verifying_key().to_bytes()
    }
}
