//! Requests to a server, over connections that are kept.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::rustls;
use tokio_rustls::rustls::pki_types::UnixTime;
use ureq::http::Response;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body, Proxy};

use crate::target::Target;
use crate::{NetError, operator_path};

/// Most bytes of a response that is no operator's answer: metadata, refusals, pages of some other
/// server.
const MAX_TEXT: u64 = 64 << 10;
/// Characters of a foreign answer that an error shows.
const SHOWN: usize = 200;
/// Longest wait that a server may ask for.
const MAX_WAIT: Duration = Duration::from_secs(30);

/// How to reach a server.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// `https://host:port`, or `http://` on this machine.
    pub url: String,
    /// Certificate authorities to trust instead of the public ones, PEM.
    pub ca_cert: Option<PathBuf>,
    /// Bearer token to send.
    pub token: Option<String>,
    /// Longest time for one request.
    pub timeout: Duration,
    /// Allows plain HTTP to another machine, without a token.
    pub insecure: bool,
}

/// A server and connections to it.
pub struct Client {
    agent: Agent,
    url: String,
    authorization: Option<String>,
    timeout: Duration,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client<{}>", self.url)
    }
}

impl Client {
    /// Makes a client of a server. Nothing is sent yet.
    ///
    /// # Errors
    /// [`NetError::Url`] for a URL that cannot be used, which one with plain HTTP to another
    /// machine is unless [`ClientConfig::insecure`] allows it; [`NetError::File`] for the
    /// authorities' file.
    pub fn new(config: &ClientConfig) -> Result<Self, NetError> {
        let Target { url, is_local, is_tls, .. } = Target::of(config)?;
        let mut tls = TlsConfig::builder();
        if let Some(path) = &config.ca_cert {
            tls = tls.root_certs(RootCerts::Specific(Arc::new(authorities(path)?)));
        }
        // A proxy sees nothing but TLS, or it is not used: not for plain HTTP, not for this
        // machine.
        let proxy = if is_local || !is_tls { None } else { Proxy::try_from_env() };
        let agent = Agent::config_builder()
            .timeout_global(Some(config.timeout))
            .timeout_connect(Some(config.timeout.min(Duration::from_secs(10))))
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(proxy)
            .user_agent(concat!("jali/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls.build())
            .build()
            .new_agent();
        let authorization = config.token.as_ref().map(|token| format!("Bearer {token}"));
        Ok(Self { agent, url, authorization, timeout: config.timeout })
    }

    /// Sends the bytes of a `request` for an `operator` of the `model` of this name, and returns
    /// the answer, or a refusal in the protocol's own form. The answer may take `time` and have
    /// `most` bytes.
    ///
    /// # Errors
    /// [`NetError`]; [`NetError::retry_after`] tells whether another attempt may help.
    pub fn apply(
        &self,
        model: &str,
        operator: usize,
        request: &[u8],
        most: usize,
        time: Duration,
    ) -> Result<Vec<u8>, NetError> {
        let call = self.agent.post(format!("{}{}", self.url, operator_path(model, operator)));
        let mut call = call.config().timeout_global(Some(time.min(self.timeout))).build();
        if let Some(value) = &self.authorization {
            call = call.header("authorization", value);
        }
        self.read(call.content_type("application/octet-stream").send(request), most as u64, true)
    }

    /// Fetches the hints of an operator, which may have `most` bytes.
    ///
    /// # Errors
    /// [`NetError`] as for [`Client::apply`].
    pub fn hints(&self, model: &str, operator: usize, most: usize) -> Result<Vec<u8>, NetError> {
        self.get_bounded(&format!("{}/hints", operator_path(model, operator)), most as u64)
    }

    /// Fetches what the server has at a path, at most 64 KiB.
    ///
    /// # Errors
    /// [`NetError`] as for [`Client::apply`].
    pub fn get(&self, path: &str) -> Result<Vec<u8>, NetError> {
        self.get_bounded(path, MAX_TEXT)
    }

    /// Asks for something at a path by `POST` without a body, and returns a reader of the answer,
    /// which may take `time` and have `most` bytes.
    ///
    /// # Errors
    /// [`NetError`] as for [`Client::apply`].
    pub(crate) fn stream(&self, path: &str, most: u64, time: Duration) -> Result<impl std::io::Read + use<>, NetError> {
        let call = self.agent.post(format!("{}{path}", self.url));
        let mut call = call.config().timeout_global(Some(time)).timeout_recv_response(Some(self.timeout)).build();
        if let Some(value) = &self.authorization {
            call = call.header("authorization", value);
        }
        let response = call.send_empty();
        match response {
            Ok(response) if response.status() == 200 => {
                Ok(response.into_body().into_with_config().limit(most).reader())
            }
            other => {
                let url = self.url.clone();
                self.read(other, MAX_TEXT, false)?;
                Err(NetError::Foreign { url, why: "it answered something else".into() })
            }
        }
    }

    fn get_bounded(&self, path: &str, most: u64) -> Result<Vec<u8>, NetError> {
        let mut call = self.agent.get(format!("{}{path}", self.url));
        if let Some(value) = &self.authorization {
            call = call.header("authorization", value);
        }
        self.read(call.call(), most, false)
    }

    fn failed(&self, error: ureq::Error) -> NetError {
        let url = self.url.clone();
        if let Some(why) = untrusted(&error) {
            return NetError::Untrusted { url, why };
        }
        match error {
            ureq::Error::HostNotFound => NetError::Url { url, why: "no such host".into() },
            ureq::Error::Timeout(_) => NetError::Unreachable { url, why: "it did not answer in time".into() },
            ureq::Error::BodyExceedsLimit(most) => NetError::Foreign {
                url,
                why: format!("its answer has more than the {most} bytes that it may have here"),
            },
            ureq::Error::Protocol(e) => {
                let tls = if self.url.starts_with("http://") {
                    " (if it speaks TLS, the URL begins with https://)"
                } else {
                    ""
                };
                NetError::Foreign { url, why: format!("its answer is not HTTP: {e}{tls}") }
            }
            other => NetError::Unreachable { url, why: other.to_string() },
        }
    }

    /// Reads an answer of at most `most` bytes. With `refusals`, a refusal in the protocol's own
    /// form counts as an answer.
    fn read(
        &self,
        response: Result<Response<Body>, ureq::Error>,
        most: u64,
        refusals: bool,
    ) -> Result<Vec<u8>, NetError> {
        let url = self.url.clone();
        let mut response = response.map_err(|e| self.failed(e))?;
        let status = response.status().as_u16();
        let header = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok());
        let seconds =
            header("retry-after").and_then(|v| v.parse().ok()).map_or(Duration::from_secs(1), Duration::from_secs);
        let kind = header("content-type").unwrap_or_default();
        let (binary, plain) = (kind == "application/octet-stream", kind.starts_with("text/plain"));
        let reason = response.status().canonical_reason().unwrap_or_default();
        // Where only the status matters, the body is not read.
        match status {
            401 => return Err(NetError::Denied { url }),
            413 => return Err(NetError::TooLarge { url }),
            429 | 503 => return Err(NetError::Busy { url, retry_after: seconds.min(MAX_WAIT) }),
            _ => {}
        }
        let limit = if status == 200 { most } else { MAX_TEXT };
        let body = response.body_mut().with_config().limit(limit).read_to_vec().map_err(|e| self.failed(e));
        match status {
            200 => body,
            400 | 404 if refusals && binary => body,
            _ => {
                let text = match jali_protocol::message::decode_refusal(body.as_deref().unwrap_or(&[])) {
                    Some(refusal) => refusal.to_string(),
                    None if plain => printable(&body.unwrap_or_default()),
                    // A page that somebody on the way made for people.
                    None => reason.to_owned(),
                };
                Err(NetError::Status { url, status, text })
            }
        }
    }
}

/// Returns why a TLS handshake failed for good and what helps, or `None` if another attempt may
/// succeed.
fn untrusted(error: &ureq::Error) -> Option<String> {
    match error {
        ureq::Error::Rustls(e) => Some(tls_fault(e)),
        ureq::Error::Tls(e) => Some((*e).to_owned()),
        ureq::Error::Io(e) => untrusted_io(e),
        _ => None,
    }
}

/// Returns why a stream's TLS handshake failed for good and what helps, if it did.
pub(crate) fn untrusted_io(e: &std::io::Error) -> Option<String> {
    let e = e.get_ref()?.downcast_ref::<rustls::Error>()?;
    (!matches!(e, rustls::Error::HandshakeNotComplete)).then(|| tls_fault(e))
}

/// Returns a sentence for the way in which a handshake failed, with its remedy.
fn tls_fault(error: &rustls::Error) -> String {
    use rustls::CertificateError as C;
    let days = |from: UnixTime, to: UnixTime| from.as_secs().abs_diff(to.as_secs()).div_ceil(86_400);
    let rustls::Error::InvalidCertificate(fault) = error else {
        return match error {
            rustls::Error::InvalidMessage(_) => {
                "it does not speak TLS on this port: the URL begins with http://, or the port is another one".into()
            }
            other => format!("the TLS handshake failed: {other}"),
        };
    };
    match fault {
        C::ExpiredContext { time, not_after } => format!(
            "its certificate expired {} day(s) ago: renew it, and look at this machine's clock",
            days(*time, *not_after)
        ),
        C::Expired => "its certificate has expired: renew it, and look at this machine's clock".into(),
        C::NotValidYetContext { time, not_before } => format!(
            "its certificate is valid only in {} day(s): look at the clocks of this machine and of the one that made it",
            days(*time, *not_before)
        ),
        C::NotValidYet => "its certificate is not valid yet: look at this machine's clock".into(),
        C::NotValidForNameContext { presented, .. } => format!(
            "its certificate is for {}, not for this host: use that name in the URL, or make a certificate with this one",
            names(presented)
        ),
        C::NotValidForName => {
            "its certificate is for another host: use that name in the URL, or make a certificate with this one".into()
        }
        C::UnknownIssuer => {
            "nobody whom this machine trusts has signed its certificate: --ca-cert FILE names who has".into()
        }
        C::BadSignature => {
            "its certificate names an authority that this machine trusts, and was signed by another one of that name: \
             --ca-cert FILE names who has signed it"
                .into()
        }
        C::InvalidPurpose | C::InvalidPurposeContext { .. } => {
            "its certificate was not made for servers: make one with extendedKeyUsage=serverAuth".into()
        }
        C::Other(other) if format!("{other:?}").contains("CaUsedAsEndEntity") => {
            "its certificate is that of an authority (CA:TRUE): make one for the server itself, with \
             basicConstraints=CA:FALSE, signed by that authority"
                .into()
        }
        other => format!("its certificate cannot be used: {other}"),
    }
}

/// Returns the names of a certificate in words.
fn names(presented: &[String]) -> String {
    let clean = |name: &String| printable(name.as_bytes());
    match presented {
        [] => "no name at all".into(),
        names => names.iter().take(4).map(clean).collect::<Vec<_>>().join(", "),
    }
}

fn printable(bytes: &[u8]) -> String {
    let clean = |c: char| if c.is_control() || c == char::REPLACEMENT_CHARACTER { ' ' } else { c };
    let text: String = String::from_utf8_lossy(bytes).chars().take(SHOWN).map(clean).collect();
    text.trim().to_owned()
}

pub(crate) fn authorities(path: &Path) -> Result<Vec<Certificate<'static>>, NetError> {
    let fail = |why: String| NetError::File { path: path.into(), why };
    let pem = crate::pem::read(path)?;
    let mut found = vec![];
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(certificate) = item.map_err(|e| fail(format!("is not PEM: {e}")))? {
            found.push(certificate);
        }
    }
    if found.is_empty() { Err(fail("holds no certificate in PEM form".into())) } else { Ok(found) }
}
