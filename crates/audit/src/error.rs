//! Everything that can go wrong in the audit.

use std::path::PathBuf;

use jali::JaliError;
use jali_leak::LeakError;
use jali_model::ModelError;
use jali_protocol::ProtocolError;

/// Errors of the audit.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuditError {
    /// From files, data sets and bundled networks.
    #[error(transparent)]
    Jali(#[from] JaliError),
    /// From the network.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// From plans and policies.
    #[error(transparent)]
    Leak(#[from] LeakError),
    /// From the choice of rings and layouts.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// An attacker that does not exist.
    #[error("no attacker is called \"{got}\"; there are {known} (or 1 to 11)")]
    UnknownAttacker {
        /// What was given.
        got: String,
        /// All names.
        known: String,
    },
    /// A cell that is not part of the run.
    #[error("the run has no cell \"{got}\"; `jali-audit cells --list` names them")]
    UnknownCell {
        /// What was given.
        got: String,
    },
    /// The attacker that starts from a public model has none.
    #[error("the attacker \"public\" needs --public-model FILE.onnx of `jali-audit run`, without --attacker")]
    NoPublicModel,
    /// An attacker that only a command can be has none.
    #[error("the attackers \"own\" and \"command\" need --attacker 'COMMAND' (docs/auditing.md)")]
    NoCommand,
    /// Images that the audit cannot get labels or attackers' budgets from.
    #[error("{what}: {why}")]
    Data {
        /// Which data.
        what: String,
        /// What is wrong and what to do.
        why: String,
    },
    /// A folder that holds another run.
    #[error("{path} holds a run with {what} {expected}, this one has {got}: choose another --out, or remove it", path = path.display())]
    OtherRun {
        /// The folder.
        path: PathBuf,
        /// What differs.
        what: &'static str,
        /// In the folder.
        expected: String,
        /// Now.
        got: String,
    },
    /// Runs that cannot be joined.
    #[error("{first} and {second} are about different things and cannot be joined: {what} is {expected} in the first, {got} in the second", first = first.display(), second = second.display())]
    Apart {
        /// One of them.
        first: PathBuf,
        /// The other.
        second: PathBuf,
        /// What differs.
        what: &'static str,
        /// In the first.
        expected: String,
        /// In the second.
        got: String,
    },
    /// A file of a run that cannot be used.
    #[error("{path}: {why}", path = path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What is wrong and what to do.
        why: String,
    },
    /// A request that cannot be met.
    #[error("{what}")]
    Usage {
        /// What and why.
        what: String,
    },
}
