//! What a guest and its server say to each other before and around an inference, as bytes.

use crate::error::TicketError;
use crate::keys::Token;

/// First bytes of a hello.
const MAGIC: [u8; 8] = *b"JALIGST1";
/// Bytes of a nonce, in front of the masked input.
pub const NONCE: usize = 32;
/// Bytes of a signature, behind the output.
pub const SIGNATURE: usize = 64;
/// Most tickets that a connection takes.
pub const MAX_TICKETS: u32 = 1024;

/// What a guest begins with.
pub struct Hello {
    /// Id of the batch.
    pub batch: [u8; 16],
    /// The guest's token for this server.
    pub token: Token,
    /// Index of the first ticket.
    pub first: u32,
    /// How many tickets, from 1 to [`MAX_TICKETS`].
    pub tickets: u32,
}

impl std::fmt::Debug for Hello {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hello").field("first", &self.first).field("tickets", &self.tickets).finish_non_exhaustive()
    }
}

impl Hello {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let (first, tickets) = (self.first.to_le_bytes(), self.tickets.to_le_bytes());
        [MAGIC.as_slice(), &self.batch, self.token.bytes(), &first, &tickets].concat()
    }

    /// Of bytes, if they are one.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (batch, rest) = bytes.strip_prefix(&MAGIC)?.split_first_chunk()?;
        let (token, rest) = rest.split_first_chunk()?;
        let (first, rest) = rest.split_first_chunk()?;
        let tickets = u32::from_le_bytes(rest.try_into().ok()?);
        let is_some = (1..=MAX_TICKETS).contains(&tickets);
        is_some.then(|| Self {
            batch: *batch,
            token: Token::from_bytes(*token),
            first: u32::from_le_bytes(*first),
            tickets,
        })
    }
}

/// Why a server takes no tickets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestRefusal {
    /// No such batch, or not this token: which of them is not said.
    Unknown,
    /// A ticket is used already.
    Used,
    /// The batch has fewer tickets.
    TooMany,
    /// The tickets' time is over.
    Expired,
    /// The server stops, or has too many guests.
    Busy,
    /// The server cannot write down which tickets are used.
    Failed,
}

const REFUSALS: [(GuestRefusal, u8, &str); 6] = [
    (
        GuestRefusal::Unknown,
        1,
        "it has no such batch of tickets, or another token belongs to it: give the server its part of the batch (jali serve --tickets)",
    ),
    (
        GuestRefusal::Used,
        2,
        "a ticket was used before: each serves once; if the wallet was restored from a copy, ask the owner for another batch",
    ),
    (GuestRefusal::TooMany, 3, "the batch has not so many tickets left"),
    (GuestRefusal::Expired, 4, "the tickets' time is over: ask the owner for new ones"),
    (GuestRefusal::Busy, 5, "it has as many guests as it takes, or is stopping: try again"),
    (GuestRefusal::Failed, 6, "it cannot write down which tickets are used: look at its log"),
];

impl GuestRefusal {
    /// The byte that says so.
    pub fn byte(self) -> u8 {
        REFUSALS.iter().find(|(refusal, ..)| *refusal == self).map_or(6, |(_, byte, _)| *byte)
    }

    /// Of a byte, if it is a refusal.
    pub fn of(byte: u8) -> Option<Self> {
        REFUSALS.iter().find(|(_, b, _)| *b == byte).map(|(refusal, ..)| *refusal)
    }

    /// What a guest is told of an error.
    pub fn of_error(error: &TicketError) -> Self {
        match error {
            TicketError::Replayed { .. } => Self::Used,
            TicketError::UsedUp { .. } => Self::TooMany,
            TicketError::Expired { .. } => Self::Expired,
            _ => Self::Failed,
        }
    }
}

impl std::fmt::Display for GuestRefusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(REFUSALS.iter().find(|(refusal, ..)| refusal == self).map_or("", |(.., text)| text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hellos_come_back_and_others_do_not() {
        let hello = Hello { batch: [3; 16], token: Token::from_bytes([4; 32]), first: 5, tickets: 6 };
        let bytes = hello.encode();
        assert_eq!(bytes.len(), 64);
        let back = Hello::decode(&bytes).unwrap();
        assert_eq!((back.batch, *back.token.bytes(), back.first, back.tickets), ([3; 16], [4; 32], 5, 6));
        for bad in [&bytes[..63], &[bytes.clone(), vec![0]].concat(), &[0; 64], &[]] {
            assert!(Hello::decode(bad).is_none());
        }
        for tickets in [0, MAX_TICKETS + 1] {
            assert!(
                Hello::decode(&Hello { batch: [0; 16], token: Token::from_bytes([0; 32]), first: 0, tickets }.encode())
                    .is_none()
            );
        }
    }

    #[test]
    fn refusals_come_back() {
        for (refusal, byte, text) in REFUSALS {
            assert_eq!(
                (GuestRefusal::of(byte), refusal.byte(), refusal.to_string()),
                (Some(refusal), byte, text.into())
            );
        }
        assert_eq!(GuestRefusal::of(0), None);
    }
}
