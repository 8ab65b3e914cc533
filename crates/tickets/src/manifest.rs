//! What the owner says of a batch of tickets, signed.

use std::io::{Read, Seek};
use std::path::Path;

use ed25519_dalek::{Signature, Signer, SigningKey, Verifier, VerifyingKey};
use jali_bundle::{Bundle, BundleWriter, Kind, hex};
use serde::{Deserialize, Serialize};

use crate::TicketError;
use crate::durable::{self, Readers};

/// Most bytes of a manifest.
pub(crate) const MAX_MANIFEST: u64 = 1 << 14;
/// Most bytes of a name of a network.
const MAX_NAME: usize = 256;

/// What a batch of tickets is for. Every field is public to owner, server and guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Name of the network, for people.
    pub name: String,
    /// Public id of the sealed network.
    pub model: [u8; 16],
    /// Content hash of the server's sealed network: it covers plan, parameters and weights.
    pub sealed: [u8; 32],
    /// The owner's key, which signs manifests.
    pub owner: [u8; 32],
    /// The server's own key, which signs transcripts.
    pub server: [u8; 32],
    /// The guest's recipient.
    pub guest: String,
    /// Hash of the guest's token for this server.
    pub token: [u8; 32],
    /// Id of the batch, drawn for it.
    pub batch: [u8; 16],
    /// How many tickets; their indices begin with 0.
    pub tickets: u32,
    /// Content hash of the guest's tickets.
    pub wallet: [u8; 32],
    /// How tickets are dealt that are not in the wallet; none if all of them are.
    pub on_demand: Option<OnDemand>,
    /// Bytes of a ticket's shares.
    pub ticket_bytes: u64,
    /// Bits that an inference tells the guest at most.
    pub output_bits: u32,
    /// Bits of the hidden weights, eight for each.
    pub model_bits: u64,
    /// When it was dealt, in seconds since 1970.
    pub dealt: u64,
    /// Until when it is valid, in seconds since 1970.
    pub expires: u64,
}

/// How tickets come to a guest that asks the owner's dealing service for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnDemand {
    /// Hash of what the guest shows the service.
    pub credential: [u8; 32],
    /// Tickets that are dealt at a time, always as many, so that what is fetched says nothing of
    /// what is inferred.
    pub block: u32,
}

/// A manifest with its owner's signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedManifest {
    manifest: Manifest,
    bytes: Vec<u8>,
    signature: [u8; 64],
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

impl Manifest {
    /// Signs it with the owner's key.
    pub(crate) fn sign(self, key: &SigningKey) -> Result<SignedManifest, TicketError> {
        let bytes = postcard::to_stdvec(&self).map_err(|e| TicketError::write(Path::new("manifest"), e))?;
        let signature = key.sign(&message(&bytes)).to_bytes();
        Ok(SignedManifest { manifest: self, bytes, signature })
    }

    /// Whether its time is over.
    pub fn is_expired(&self) -> bool {
        self.is_expired_at(now())
    }

    /// Whether its time is over at a time in seconds since 1970.
    pub fn is_expired_at(&self, now: u64) -> bool {
        now > self.expires
    }

    /// The last day on which it is valid, in UTC.
    pub fn until(&self) -> String {
        date(self.expires)
    }
}

/// What is signed: never the bytes alone, which might mean something elsewhere.
fn message(bytes: &[u8]) -> Vec<u8> {
    [b"jali 1 guests: manifest\0".as_slice(), bytes].concat()
}

/// A day in UTC, `YYYY-MM-DD`, of seconds since 1970.
pub fn date(seconds: u64) -> String {
    // Hinnant, "chrono-compatible low-level date algorithms": days to a civil date.
    let z = (seconds / 86_400) as i64 + 719_468;
    let era = z / 146_097;
    let of_era = z - era * 146_097;
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

impl SignedManifest {
    /// The manifest.
    pub fn get(&self) -> &Manifest {
        &self.manifest
    }

    /// Bytes and signature, as files and messages have them.
    pub fn parts(&self) -> (&[u8], &[u8; 64]) {
        (&self.bytes, &self.signature)
    }

    /// Reads and checks bytes and signature, from the file at `path`.
    ///
    /// # Errors
    /// [`TicketError::Part`] for other bytes; [`TicketError::Signature`] unless the owner that the
    /// manifest names has signed it; [`TicketError::Other`] if that is not `owner`.
    pub fn from_parts(
        path: &Path,
        bytes: Vec<u8>,
        signature: &[u8],
        owner: Option<&[u8; 32]>,
    ) -> Result<Self, TicketError> {
        let damaged = || TicketError::part(path, "the manifest");
        let (manifest, rest): (Manifest, _) = postcard::take_from_bytes(&bytes).map_err(|_| damaged())?;
        let is_plain = |text: &str| text.len() <= MAX_NAME && !text.contains(char::is_control);
        if !rest.is_empty() || !is_plain(&manifest.name) || !is_plain(&manifest.guest) {
            return Err(damaged());
        }
        let signature: [u8; 64] = signature.try_into().map_err(|_| damaged())?;
        let foreign = || TicketError::Signature { path: path.into(), whose: "the model's owner" };
        if let Some(owner) = owner {
            same(path, "owner's key", owner, &manifest.owner)?;
        }
        let key = VerifyingKey::from_bytes(&manifest.owner).map_err(|_| foreign())?;
        key.verify(&message(&bytes), &Signature::from_bytes(&signature)).map_err(|_| foreign())?;
        Ok(Self { manifest, bytes, signature })
    }

    /// Writes it as a file.
    ///
    /// # Errors
    /// [`TicketError::Write`].
    pub fn write(&self, path: &Path) -> Result<(), TicketError> {
        durable::write_with(path, Readers::Umask, |sink| {
            let fail = |e| TicketError::write(path, e);
            let mut out = BundleWriter::new(sink, Kind::Manifest, self.manifest.model).map_err(fail)?;
            out.section("manifest", &self.bytes).map_err(fail)?;
            out.section("signature", &self.signature).map_err(fail)?;
            out.finish().map_err(fail).map(|_| ())
        })
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`TicketError`] as for [`SignedManifest::from_parts`], and for a file that cannot be read.
    pub fn read(path: &Path, owner: Option<&[u8; 32]>) -> Result<Self, TicketError> {
        let file = std::fs::File::open(path).map_err(|e| TicketError::read(path, e))?;
        Self::from_file(path, file, owner)
    }

    /// Reads the content of the file at `path`.
    ///
    /// # Errors
    /// As [`SignedManifest::read`].
    pub(crate) fn from_file(
        path: &Path,
        source: impl Read + Seek,
        owner: Option<&[u8; 32]>,
    ) -> Result<Self, TicketError> {
        let fail = |e| TicketError::bundle(path, e);
        let mut bundle = Bundle::open(source, Kind::Manifest).map_err(fail)?;
        let bytes = bundle.expect("manifest", MAX_MANIFEST).map_err(fail)?;
        let signature = bundle.expect("signature", 64).map_err(fail)?;
        Self::from_parts(path, bytes, &signature, owner)
    }
}

/// An error if two things that should be equal are not.
pub(crate) fn same(path: &Path, what: &'static str, expected: &[u8], got: &[u8]) -> Result<(), TicketError> {
    match expected == got {
        true => Ok(()),
        false => Err(TicketError::Other { path: path.into(), what, expected: hex(expected), got: hex(got) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(by: u8, named: u8) -> SignedManifest {
        let key = |byte| SigningKey::from_bytes(&[byte; 32]);
        let manifest = Manifest {
            name: "net".into(),
            model: [1; 16],
            sealed: [2; 32],
            owner: key(named).verifying_key().to_bytes(),
            server: [3; 32],
            guest: "age1".into(),
            token: [4; 32],
            batch: [5; 16],
            tickets: 10,
            wallet: [6; 32],
            on_demand: Some(OnDemand { credential: [7; 32], block: 8 }),
            ticket_bytes: 7,
            output_bits: 8,
            model_bits: 9,
            dealt: 10,
            expires: 11,
        };
        manifest.sign(&key(by)).unwrap()
    }

    fn read(bytes: &[u8], signature: &[u8]) -> Result<SignedManifest, TicketError> {
        SignedManifest::from_parts(Path::new("manifest"), bytes.to_vec(), signature, None)
    }

    /// Behind right checksums too: every byte is signed, by the owner whom it names.
    #[test]
    fn only_the_owners_words_count() {
        let good = signed(1, 1);
        let (bytes, signature) = good.parts();
        assert_eq!(read(bytes, signature).unwrap(), good);
        for at in 0..bytes.len() {
            let mut bad = bytes.to_vec();
            bad[at] ^= 1;
            assert!(read(&bad, signature).is_err(), "byte {at}");
        }
        for at in 0..signature.len() {
            let mut bad = signature.to_vec();
            bad[at] ^= 1;
            assert!(read(bytes, &bad).is_err(), "byte {at} of the signature");
        }
        let foreign = signed(2, 1);
        let (bytes, signature) = foreign.parts();
        assert!(matches!(read(bytes, signature), Err(TicketError::Signature { .. })));
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        for (seconds, day) in [(0, "1970-01-01"), (951_782_400, "2000-02-29"), (1_795_824_000, "2026-11-28")] {
            assert_eq!(date(seconds), day);
        }
    }
}
