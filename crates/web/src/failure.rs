//! What goes wrong, as JavaScript's `Error` with a `kind` by which a page chooses its words.

use jali_protocol::ProtocolError;
use jali_tickets::passphrase::PassphraseFault;
use jali_tickets::{TicketError, held};
use wasm_bindgen::prelude::*;

/// Kinds of failures: the values of `error.kind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A file that is damaged, or another one than it should be.
    Damaged,
    /// A key or passphrase that is missing or another one.
    Locked,
    /// No ticket is left.
    UsedUp,
    /// The tickets' time is over.
    Expired,
    /// The server refuses.
    Refused,
    /// The server's answer is not what it has to be.
    WrongAnswer,
    /// Bytes that are no image for this network.
    Image,
    /// The call makes no sense now.
    Usage,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Damaged => "damaged",
            Self::Locked => "locked",
            Self::UsedUp => "used-up",
            Self::Expired => "expired",
            Self::Refused => "refused",
            Self::WrongAnswer => "wrong-answer",
            Self::Image => "image",
            Self::Usage => "usage",
        }
    }
}

/// An `Error` with its kind.
pub(crate) fn failure(kind: Kind, message: impl std::fmt::Display) -> JsValue {
    let error = js_sys::Error::new(&message.to_string());
    // Setting a property of a fresh object cannot fail.
    let _ = js_sys::Reflect::set(&error, &"kind".into(), &kind.name().into());
    error.into()
}

pub(crate) fn of_protocol(error: ProtocolError) -> JsValue {
    let kind = match &error {
        ProtocolError::Rejected { refusal: Some(_), .. } => Kind::Refused,
        ProtocolError::Rejected { .. } | ProtocolError::Hints { .. } => Kind::WrongAnswer,
        _ => Kind::Damaged,
    };
    failure(kind, error)
}

/// A passphrase and a bundle that do not fit together.
pub(crate) fn of_passphrase(fault: &PassphraseFault) -> JsValue {
    let words = match fault {
        PassphraseFault::Missing => "the bundle is locked: it needs its passphrase".into(),
        PassphraseFault::NotLocked => {
            "the bundle is not locked, and a passphrase was given: somebody may have put another file there".into()
        }
        PassphraseFault::Wrong(why) => format!("the bundle cannot be unlocked: {why}"),
    };
    failure(Kind::Locked, words)
}

pub(crate) fn of_tickets(error: TicketError) -> JsValue {
    let kind = match &error {
        TicketError::Key { .. } | TicketError::Passphrase { .. } => Kind::Locked,
        TicketError::UsedUp { .. } => Kind::UsedUp,
        TicketError::Expired { .. } => Kind::Expired,
        TicketError::Dealing { .. } => Kind::Usage,
        _ => Kind::Damaged,
    };
    // Where the library speaks of the command's options, a page has other words.
    match &error {
        TicketError::Key { path, .. } if path.ends_with(held::KEY) => {
            failure(kind, "the wallet is locked for another guest's key, or its file \"key\" is damaged")
        }
        _ => failure(kind, error),
    }
}
