//! Requests to a server, over connections that are kept.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ureq::http::{Response, Uri};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body};

use crate::NetError;

/// Most bytes of an answer.
const MAX_ANSWER: u64 = 1 << 32;
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
    /// Sent as bearer token.
    pub token: Option<String>,
    /// Longest time for one request.
    pub timeout: Duration,
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
    /// Nothing is sent yet.
    ///
    /// # Errors
    /// [`NetError::Url`], also for a token that would cross a network in the clear; [`NetError::File`].
    pub fn new(config: &ClientConfig) -> Result<Self, NetError> {
        let url = config.url.trim_end_matches('/').to_owned();
        let fail = |why: &str| NetError::Url { url: config.url.clone(), why: why.into() };
        let parsed: Uri = url.parse().map_err(|_| fail("is not a URL, for example https://host:8433"))?;
        let host = parsed.host().ok_or_else(|| fail("names no host"))?;
        let local = host == "localhost"
            || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
        match parsed.scheme_str() {
            Some("https") => {}
            Some("http") if local || config.token.is_none() => {}
            Some("http") => return Err(fail("the token would cross the network in the clear: use https")),
            _ => return Err(fail("starts neither with https:// nor with http://")),
        }
        if parsed.path() != "/" && !parsed.path().is_empty() {
            return Err(fail("has a path: give only scheme, host and port"));
        }
        let mut tls = TlsConfig::builder();
        if let Some(path) = &config.ca_cert {
            tls = tls.root_certs(RootCerts::Specific(Arc::new(authorities(path)?)));
        }
        let agent = Agent::config_builder()
            .timeout_global(Some(config.timeout))
            .timeout_connect(Some(config.timeout.min(Duration::from_secs(10))))
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(concat!("jali/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls.build())
            .build()
            .new_agent();
        let authorization = config.token.as_ref().map(|token| format!("Bearer {token}"));
        Ok(Self { agent, url, authorization, timeout: config.timeout })
    }

    /// A request's answer, within `time`.
    ///
    /// # Errors
    /// [`NetError`]; whether another try may help is [`NetError::retry_after`].
    pub fn apply(&self, model: &str, operator: usize, request: &[u8], time: Duration) -> Result<Vec<u8>, NetError> {
        let call = self.agent.post(format!("{}/v2/models/{model}/operators/{operator}", self.url));
        let mut call = call.config().timeout_global(Some(time.min(self.timeout))).build();
        if let Some(value) = &self.authorization {
            call = call.header("authorization", value);
        }
        self.read(call.content_type("application/octet-stream").send(request), true)
    }

    /// The hints of an operator.
    ///
    /// # Errors
    /// As [`Client::apply`].
    pub fn hints(&self, model: &str, operator: usize) -> Result<Vec<u8>, NetError> {
        self.get(&format!("/v2/models/{model}/operators/{operator}/hints"))
    }

    /// What the server has at a path.
    ///
    /// # Errors
    /// As [`Client::apply`].
    pub fn get(&self, path: &str) -> Result<Vec<u8>, NetError> {
        let mut call = self.agent.get(format!("{}{path}", self.url));
        if let Some(value) = &self.authorization {
            call = call.header("authorization", value);
        }
        self.read(call.call(), false)
    }

    /// `refusals`: a refusal in the protocol's own form counts as an answer.
    fn read(&self, response: Result<Response<Body>, ureq::Error>, refusals: bool) -> Result<Vec<u8>, NetError> {
        let url = self.url.clone();
        let unreachable = |e: ureq::Error| {
            let (url, why) = (self.url.clone(), e.to_string());
            match trust_failure(&e) {
                true => NetError::Untrusted { url, why },
                false if matches!(e, ureq::Error::HostNotFound) => NetError::Url { url, why: "no such host".into() },
                false if matches!(e, ureq::Error::Timeout(_)) => {
                    NetError::Unreachable { url, why: "it did not answer in time".into() }
                }
                false => NetError::Unreachable { url, why },
            }
        };
        let mut response = response.map_err(unreachable)?;
        let status = response.status().as_u16();
        let header = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok());
        let seconds =
            header("retry-after").and_then(|v| v.parse().ok()).map_or(Duration::from_secs(1), Duration::from_secs);
        let kind = header("content-type").unwrap_or_default();
        let (binary, plain) = (kind == "application/octet-stream", kind.starts_with("text/plain"));
        let reason = response.status().canonical_reason().unwrap_or_default();
        let body = response.body_mut().with_config().limit(MAX_ANSWER).read_to_vec().map_err(unreachable);
        match status {
            200 => body,
            413 => Err(NetError::TooLarge { url }),
            400 | 404 if refusals && binary => body,
            401 => Err(NetError::Denied { url }),
            429 | 503 => Err(NetError::Busy { url, retry_after: seconds.min(MAX_WAIT) }),
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

/// Whether a TLS handshake failed for good: another try would fail in the same way.
fn trust_failure(error: &ureq::Error) -> bool {
    let certificate = |e: &(dyn std::error::Error + Send + Sync + 'static)| {
        e.downcast_ref::<tokio_rustls::rustls::Error>()
            .is_some_and(|e| !matches!(e, tokio_rustls::rustls::Error::HandshakeNotComplete))
    };
    match error {
        ureq::Error::Rustls(_) | ureq::Error::Tls(_) => true,
        ureq::Error::Io(e) => e.get_ref().is_some_and(certificate),
        _ => false,
    }
}

fn printable(bytes: &[u8]) -> String {
    let clean = |c: char| if c.is_control() || c == char::REPLACEMENT_CHARACTER { ' ' } else { c };
    let text: String = String::from_utf8_lossy(bytes).chars().take(SHOWN).map(clean).collect();
    text.trim().to_owned()
}

fn authorities(path: &Path) -> Result<Vec<Certificate<'static>>, NetError> {
    let fail = |why: String| NetError::File { path: path.into(), why };
    let pem = std::fs::read(path).map_err(|e| fail(e.to_string()))?;
    let mut found = vec![];
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(certificate) = item.map_err(|e| fail(format!("is not PEM: {e}")))? {
            found.push(certificate);
        }
    }
    if found.is_empty() { Err(fail("holds no certificate in PEM form".into())) } else { Ok(found) }
}
