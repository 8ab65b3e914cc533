//! Everything that can go wrong in this crate.

/// Errors of making and using plans.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum LeakError {
    /// A fraction outside 0..=1.
    #[error("the fraction of weights to leak must be from 0 to 1, got {got}")]
    Fraction {
        /// The fraction that was given.
        got: f64,
    },
    /// A policy that does not exist.
    #[error("no policy is called \"{got}\"; there are {known}")]
    UnknownPolicy {
        /// The name that was given.
        got: String,
        /// All names.
        known: String,
    },
    /// Layers to hide that the network does not have, or all of them.
    #[error("\"{got}\" leaves nothing open or hides nothing: the network has {layers} linear layers")]
    Layers {
        /// The name that was given.
        got: String,
        /// Linear layers of the network.
        layers: usize,
    },
    /// A layer that the network does not have.
    #[error("the network has no linear layer \"{got}\"; it has {known}")]
    UnknownLayer {
        /// The name that was given.
        got: String,
        /// All names.
        known: String,
    },
    /// A policy without what it orders by.
    #[error("the policy {policy} needs {what}")]
    Needs {
        /// Which policy.
        policy: String,
        /// What is missing.
        what: &'static str,
    },
    /// Text that is not a plan.
    #[error("not a usable plan: {why}")]
    File {
        /// What is wrong.
        why: String,
    },
    /// The plan was made for a network of the same shapes with other weights.
    #[error("the plan is for other weights{name}: the model {expected}, this one is {got}; make a plan for this model")]
    Model {
        /// The plan's name for its network, in brackets; empty if it has none.
        name: String,
        /// Hash in the plan.
        expected: String,
        /// The model's hash.
        got: String,
    },
    /// The plan was made for a network of other shapes.
    #[error("the plan is for {expected}; this network has {got}: make a plan for this one")]
    Network {
        /// The network of the plan.
        expected: String,
        /// This one.
        got: String,
    },
    /// A plan does not fit a network.
    #[error("{what}: the plan has {expected}, the network {got}")]
    Mismatch {
        /// Which count differs.
        what: &'static str,
        /// In the plan.
        expected: usize,
        /// In the network.
        got: usize,
    },
}
