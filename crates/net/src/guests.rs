//! Inferences of guests, over a WebSocket: `GET /v2/models/{model}/guests`.
//!
//! ```text
//! guest:   hello = "JALIGST1" | batch [16] | token [32] | first ticket u32 | tickets u32
//! server:  one byte: 0, all these tickets are used now, or a refusal
//! then for every ticket, both sides at the same time:
//! guest:   nonce [32] | masked input,   a message for each exchange
//! server:                               a message for each exchange,   output | signature [64]
//! ```
//!
//! The server has a fixed schedule: it answers every message with one, takes no ticket twice, and
//! ends the connection at the first message of another form, without a word.
//!
//! | module | what it holds |
//! |---|---|
//! | [`serving`] | the server's side |
//! | [`asking`] | the guest's side |

pub mod asking;
pub mod serving;

pub use asking::GuestConnection;
pub use jali_tickets::greeting::{GuestRefusal, Hello, MAX_TICKETS};
pub use serving::GuestService;
