//! What a server serves: sealed networks and batches of tickets, from files.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use jali_bundle::{BundleError, Kind};
use jali_net::guests::GuestService;
use jali_net::model_name;
use jali_protocol::Server;
use jali_ring::Backend;
use jali_tickets::{Batch, ServerFile};

use crate::{JaliError, bundle, memory};

/// Most bytes that one model may take where the system does not tell what there is.
const MAX_MODEL: u64 = 1 << 40;

/// What is served.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Networks for clients with keys.
    pub keyed: Vec<Arc<Server>>,
    /// Networks for guests.
    pub guests: Vec<Arc<GuestService>>,
}

/// Reads sealed networks and their batches of tickets. `bundles` and `tickets` are files, or
/// folders that hold one named `server`; `tickets` may be folders of batches, too. What has not
/// changed since `old` stays in memory as it is.
///
/// # Errors
/// [`JaliError::Read`], [`JaliError::Bundle`], [`JaliError::Tickets`] with the file;
/// [`JaliError::Serving`] for files that do not go together.
pub fn load(bundles: &[PathBuf], tickets: &[PathBuf], backend: Backend, old: &Loaded) -> Result<Loaded, JaliError> {
    let mut loaded = Loaded::default();
    let mut files = vec![];
    for path in bundles {
        let path = bundle::of_path(path, bundle::SERVER);
        let (begun, kind) = (Instant::now(), bundle::kind_of(&path)?.map(|(kind, _)| kind));
        let (id, memory) = if kind == Some(Kind::GuestServer) {
            let file = load_for_guests(&path, &old.guests)?;
            files.push(file.clone());
            (file.id, file.model.memory())
        } else {
            let model = load_keyed(&path, kind, backend, &old.keyed)?;
            loaded.keyed.push(model.clone());
            (model.model().id(), model.model().memory())
        };
        let ids = loaded.keyed.iter().map(|m| m.model().id()).chain(files.iter().map(|f| f.id));
        if ids.filter(|other| *other == id).count() > 1 {
            return Err(JaliError::Serving { path, why: format!("model {} is named twice", model_name(id)) });
        }
        let ms = begun.elapsed().as_millis() as u64;
        tracing::info!(model = model_name(id), memory, ms, "loaded {}", path.display());
    }
    loaded.guests = with_batches(tickets, files, &old.guests)?;
    Ok(loaded)
}

fn load_keyed(
    path: &Path,
    kind: Option<Kind>,
    backend: Backend,
    old: &[Arc<Server>],
) -> Result<Arc<Server>, JaliError> {
    if let Some(got) = kind.filter(|kind| *kind != Kind::Server) {
        let fault = BundleError::Kind { expected: Kind::Server, got }.into();
        return Err(JaliError::Bundle { path: path.into(), fault });
    }
    let hash = bundle::open(path, Kind::Server)?.content_hash();
    if let Some(same) = old.iter().find(|m| m.model().content_hash() == hash) {
        return Ok(same.clone());
    }
    let there_is = memory::available().unwrap_or(MAX_MODEL);
    Ok(Arc::new(bundle::load_server(path, backend, usize::try_from(there_is).unwrap_or(usize::MAX))?))
}

fn load_for_guests(path: &Path, old: &[Arc<GuestService>]) -> Result<Arc<ServerFile>, JaliError> {
    let hash = bundle::open(path, Kind::GuestServer)?.content_hash();
    match old.iter().find(|service| service.file.hash == hash) {
        Some(same) => Ok(same.file.clone()),
        None => Ok(Arc::new(ServerFile::read(path)?)),
    }
}

/// Returns the files of batches that paths name: a batch, the folder that `jali deal` wrote, or a
/// folder of batches.
///
/// # Errors
/// [`JaliError::Read`].
pub fn batch_files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, JaliError> {
    let mut files = vec![];
    for path in paths {
        let one = bundle::of_path(path, bundle::SERVER);
        if !path.is_dir() || one.exists() {
            files.push(one);
            continue;
        }
        let fail = |e: std::io::Error| JaliError::Read { path: path.clone(), why: e.to_string() };
        for entry in std::fs::read_dir(path).map_err(fail)? {
            let file = bundle::of_path(&entry.map_err(fail)?.path(), bundle::SERVER);
            if file.is_file() && bundle::kind_of(&file)?.is_some_and(|(kind, _)| kind == Kind::Batch) {
                files.push(file);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Gives every network for guests its batches of tickets.
fn with_batches(
    tickets: &[PathBuf],
    files: Vec<Arc<ServerFile>>,
    old: &[Arc<GuestService>],
) -> Result<Vec<Arc<GuestService>>, JaliError> {
    let backend = crate::guests::Backend::best();
    let mut services: Vec<(Arc<ServerFile>, Vec<Arc<Batch>>)> = files.into_iter().map(|file| (file, vec![])).collect();
    for path in batch_files(tickets)? {
        let opened = bundle::open(&path, Kind::Batch)?;
        let (model, hash) = (opened.model(), opened.content_hash());
        let Some((file, batches)) = services.iter_mut().find(|(file, _)| file.id == model) else {
            let why = format!("its tickets are for model {}, which is not served here", model_name(model));
            return Err(JaliError::Serving { path, why: format!("{why}: name that network, too") });
        };
        // A batch that is open stays open: what is used of it is in memory as well as on disk.
        let open = old
            .iter()
            .flat_map(|service| &service.batches)
            .find(|batch| batch.content_hash() == hash && batch.path() == path);
        let batch = match open {
            Some(batch) => batch.clone(),
            None => Arc::new(Batch::open(&path, file)?),
        };
        tracing::info!(model = model_name(model), left = batch.left(), "tickets of {}", path.display());
        batches.push(batch);
    }
    for (file, _) in services.iter().filter(|(_, batches)| batches.is_empty()) {
        tracing::warn!(model = model_name(file.id), "no --tickets: its guests will be refused");
    }
    Ok(services.into_iter().map(|(file, batches)| Arc::new(GuestService::new(file, batches, backend))).collect())
}
