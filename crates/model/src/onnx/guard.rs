//! Checks a file's bytes before they are decoded. Two bytes can stand for a message that takes a
//! hundred in memory, so messages are counted first.

use crate::ModelError;

/// Most messages in the parts of a file that are decoded: the largest networks have some ten
/// thousand nodes.
const MAX_MESSAGES: usize = 1 << 20;
/// Depth to which messages are counted: model, graph, node, attribute, tensor, entry; three more
/// for every branch within a branch.
const DEPTH: usize = 6 + 3 * MAX_NESTED;
/// Most branches within branches that are read.
const MAX_NESTED: usize = 6;

/// Refuses a file with more messages than any network needs.
pub(super) fn check(bytes: &[u8]) -> Result<(), ModelError> {
    let mut left = MAX_MESSAGES;
    if count(bytes, DEPTH, Field::Model, &mut left) {
        return Ok(());
    }
    Err(ModelError::Onnx(format!("it has more than {MAX_MESSAGES} parts")))
}

/// The kind of message that bytes are, as far as it matters.
#[derive(Clone, Copy)]
enum Field {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    Other,
}

impl Field {
    /// Returns what a field of this message is, or `None` for bytes, texts and numbers.
    fn inner(self, tag: u64) -> Option<Self> {
        match (self, tag) {
            (Self::Model, 7) => Some(Self::Graph),
            (Self::Model, 8) => Some(Self::Other),
            (Self::Graph, 1) => Some(Self::Node),
            (Self::Attribute, 6) => Some(Self::Graph),
            (Self::Graph | Self::Attribute, 5) => Some(Self::Tensor),
            (Self::Graph, 11..=13) | (Self::Tensor, 13) | (Self::Other, _) => Some(Self::Other),
            (Self::Node, 5) => Some(Self::Attribute),
            _ => None,
        }
    }

    /// Returns whether a field is a text of a list, each of which takes a place in memory.
    fn listed(self, tag: u64) -> bool {
        matches!((self, tag), (Self::Node, 1 | 2))
    }
}

/// Counts `left` down for every message and listed text, and returns `false` if there are too many.
/// Damaged bytes are left to the decoder.
fn count(mut bytes: &[u8], depth: usize, field: Field, left: &mut usize) -> bool {
    while let Some(key) = varint(&mut bytes) {
        let skip = match key & 7 {
            0 => varint(&mut bytes).map(|_| 0),
            1 => Some(8),
            5 => Some(4),
            2 => varint(&mut bytes),
            _ => None,
        };
        let Some(part) = skip.and_then(|n| bytes.get(..usize::try_from(n).ok()?)) else { return true };
        bytes = &bytes[part.len()..];
        let inner = field.inner(key >> 3).filter(|_| key & 7 == 2 && depth > 0);
        if inner.is_some() || field.listed(key >> 3) {
            let Some(rest) = left.checked_sub(1) else { return false };
            *left = rest;
        }
        if inner.is_some_and(|inner| !count(part, depth - 1, inner, left)) {
            return false;
        }
    }
    true
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for i in 0..10 {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f).checked_shl(7 * i)?;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}
