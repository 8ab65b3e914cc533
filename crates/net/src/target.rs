//! Which server a URL names, and whether it may be reached that way.

use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::rustls::{self, RootCertStore};
use ureq::http::Uri;

use crate::NetError;
use crate::client::{ClientConfig, authorities};

/// Longest time to connect.
const CONNECT: Duration = Duration::from_secs(10);

/// A server that a URL names.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// The URL without a slash at its end.
    pub(crate) url: String,
    /// Its host, without brackets.
    pub(crate) host: String,
    /// Host and port as the URL has them.
    pub(crate) authority: String,
    /// Its port.
    pub(crate) port: u16,
    /// Whether it is this machine.
    pub(crate) is_local: bool,
    /// Whether TLS is spoken.
    pub(crate) is_tls: bool,
}

impl Target {
    /// Of a configuration.
    ///
    /// # Errors
    /// [`NetError::Url`] for a URL that cannot be used, which one with plain HTTP to another
    /// machine is unless [`ClientConfig::insecure`] allows it.
    pub(crate) fn of(config: &ClientConfig) -> Result<Self, NetError> {
        let url = config.url.trim_end_matches('/').to_owned();
        let fail = |why: &str| NetError::Url { url: config.url.clone(), why: why.into() };
        let parsed: Uri = url.parse().map_err(|_| fail("is not a URL, for example https://host:8433"))?;
        let host = parsed.host().ok_or_else(|| fail("names no host"))?.trim_matches(['[', ']']).to_owned();
        let is_local = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
        let is_tls = match parsed.scheme_str() {
            Some("https") => true,
            Some("http") if is_local => false,
            Some("http") if config.token.is_some() => {
                return Err(fail("the token would cross the network in the clear: use https"));
            }
            Some("http") if config.insecure => false,
            Some("http") => {
                return Err(fail(
                    "leads to another machine without TLS, where anybody on the way sees who asks what and when and can \
                     replace answers (which is noticed): use https, or --insecure",
                ));
            }
            _ => return Err(fail("starts neither with https:// nor with http://")),
        };
        if parsed.path() != "/" && !parsed.path().is_empty() {
            return Err(fail("has a path: give only scheme, host and port"));
        }
        let port = parsed.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let authority = parsed.authority().map(|a| a.as_str().to_owned()).unwrap_or_default();
        Ok(Self { url, host, authority, port, is_local, is_tls })
    }

    /// Connects, without TLS yet.
    ///
    /// # Errors
    /// [`NetError::Url`] for a host that nobody knows; [`NetError::Unreachable`].
    pub(crate) fn connect(&self, config: &ClientConfig) -> Result<TcpStream, NetError> {
        let unreachable = |e: std::io::Error| NetError::Unreachable { url: self.url.clone(), why: e.to_string() };
        let unknown = |_| NetError::Url { url: self.url.clone(), why: "no such host".into() };
        let addresses = (self.host.as_str(), self.port).to_socket_addrs().map_err(unknown)?;
        let mut failure = std::io::Error::other("it has no address");
        for address in addresses {
            match TcpStream::connect_timeout(&address, config.timeout.min(CONNECT)) {
                Ok(stream) => {
                    stream.set_nodelay(true).map_err(unreachable)?;
                    stream.set_read_timeout(Some(config.timeout)).map_err(unreachable)?;
                    stream.set_write_timeout(Some(config.timeout)).map_err(unreachable)?;
                    return Ok(stream);
                }
                Err(e) => failure = e,
            }
        }
        Err(unreachable(failure))
    }

    /// How TLS is spoken: with the authorities of the configuration, or the public ones.
    ///
    /// # Errors
    /// [`NetError::File`] for the authorities' file.
    pub(crate) fn tls(&self, config: &ClientConfig) -> Result<rustls::ClientConfig, NetError> {
        let mut roots = RootCertStore::empty();
        match &config.ca_cert {
            Some(path) => {
                let fail = |e: rustls::Error| NetError::File { path: path.clone(), why: e.to_string() };
                for certificate in authorities(path)? {
                    roots.add(certificate.der().to_vec().into()).map_err(fail)?;
                }
            }
            None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        }
        let builder = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions();
        let builder = builder.map_err(|e| NetError::Start(e.to_string()))?;
        Ok(builder.with_root_certificates(roots).with_no_client_auth())
    }
}
impl ClientConfig {
    /// Checks the URL, without a connection.
    ///
    /// # Errors
    /// [`NetError::Url`] for one that can never be used.
    pub fn check(&self) -> Result<(), NetError> {
        Target::of(self).map(drop)
    }
}
