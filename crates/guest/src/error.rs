//! Everything that can go wrong in this crate.

/// Errors of sealing for guests, dealing, and running.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GuestError {
    /// The other party's message has another length, or bits where there are none.
    #[error(
        "the other party's message number {number} is not what this step needs: expected {expected} bytes with zeros behind the last value, got {got} bytes"
    )]
    Message {
        /// Which message of the inference, from 0 on.
        number: usize,
        /// Bytes that it has by the circuit.
        expected: usize,
        /// Bytes that came.
        got: usize,
    },
    /// A ticket ends too early, or holds more than the circuit needs.
    #[error("the ticket does not fit the network: its part for step {step} is missing or damaged")]
    Ticket {
        /// Which step of the circuit.
        step: usize,
    },
    /// An image of another shape.
    #[error("the network takes {expected} numbers, the image has {got}")]
    Input {
        /// Numbers that the network takes.
        expected: usize,
        /// Numbers that came.
        got: usize,
    },
    /// A plan for another network.
    #[error("the plan is not for this network of {expected} layers: make it with this network")]
    Plan {
        /// Layers of the network.
        expected: usize,
    },
    /// Weights, or rows that are said to be hidden, that do not fit the network.
    #[error("the weights of step {step} do not fit the network")]
    Weights {
        /// Which step of the circuit.
        step: usize,
    },
}
