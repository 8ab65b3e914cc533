//! Reads certificates and keys from files, within bounds, and says what is wrong with a file.

use std::io::Read;
use std::path::Path;

use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::NetError;

/// Most bytes of a file of certificates; a system's whole store has about 250 KB.
const MAX_FILE: u64 = 4 << 20;

/// Reads a PEM file's text.
///
/// # Errors
/// [`NetError::File`] if it cannot be read, is too large, or is in binary form (DER).
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, NetError> {
    let fail = |why: String| NetError::File { path: path.into(), why };
    let mut bytes = vec![];
    let file = std::fs::File::open(path).map_err(|e| fail(e.to_string()))?;
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|e| fail(e.to_string()))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(fail(format!("has more than {MAX_FILE} bytes; it should hold certificates or a key in PEM form")));
    }
    // The first byte of every certificate and key in binary form: a sequence.
    if bytes.first() == Some(&0x30) && !bytes.windows(5).any(|w| w == b"-----") {
        return Err(fail(
            "is in binary form (DER): `openssl x509 -inform der -in FILE -out cert.pem` makes a PEM certificate of it, \
             `openssl pkey -inform der -in FILE -out key.pem` a PEM key"
                .into(),
        ));
    }
    Ok(bytes)
}

/// Reads a certificate chain from a PEM file.
///
/// # Errors
/// [`NetError::File`] with what is wrong.
pub(crate) fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, NetError> {
    let fail = |why: String| NetError::File { path: path.into(), why };
    let pem = read(path)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match chain {
        Ok(chain) if chain.is_empty() && holds(&pem, "PRIVATE KEY") => {
            Err(fail("holds a private key and no certificate: are certificate and key exchanged?".into()))
        }
        Ok(chain) if chain.is_empty() => Err(fail("holds no certificate in PEM form".into())),
        Ok(chain) => Ok(chain),
        Err(e) => Err(fail(format!("no certificate can be read: {e}"))),
    }
}

/// Reads a private key from a PEM file.
///
/// # Errors
/// [`NetError::File`] with what is wrong.
pub(crate) fn key(path: &Path) -> Result<PrivateKeyDer<'static>, NetError> {
    let fail = |why: &str| NetError::File { path: path.into(), why: why.into() };
    let pem = zeroize::Zeroizing::new(read(path)?);
    if holds(&pem, "ENCRYPTED PRIVATE KEY") || holds(&pem, "Proc-Type: 4,ENCRYPTED") {
        return Err(fail(
            "the key is locked with a passphrase, which a server that starts by itself cannot ask for: `openssl pkey -in \
             FILE -out key.pem` unlocks it; keep the result readable by the server alone (chmod 600)",
        ));
    }
    PrivateKeyDer::from_pem_slice(&pem).map_err(|e| match holds(&pem, "CERTIFICATE") {
        true => fail("holds a certificate and no private key: are certificate and key exchanged?"),
        false => fail(&format!("no private key can be read: {e}")),
    })
}

fn holds(pem: &[u8], words: &str) -> bool {
    pem.windows(words.len()).any(|w| w == words.as_bytes())
}
