//! Each way in which TLS fails has its own sentence, and says what helps.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::process::Command;
use std::time::Duration;

use jali_net::{Client, ClientConfig};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use support::{Served, mnist};

/// An authority, and certificates that it signs.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test authority");
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn signs(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
        let mut params = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }
}

fn ask(url: &str, ca: Option<&std::path::Path>) -> String {
    let config = ClientConfig {
        url: url.into(),
        ca_cert: ca.map(Into::into),
        token: None,
        timeout: Duration::from_secs(20),
        insecure: false,
    };
    Client::new(&config).and_then(|c| c.get("/v2")).map(|_| "fine".to_string()).unwrap_or_else(|e| e.to_string())
}

#[test]
fn every_certificate_that_fails_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let shown = |name: &str| path(name).display().to_string();
    let authority = Authority::new();
    std::fs::write(path("ca.pem"), authority.0.pem()).unwrap();
    let here = ["localhost", "127.0.0.1"];
    let certificates = [
        ("fine", "fine", authority.signs(&here, |_| {})),
        (
            "expired",
            "expired",
            authority.signs(&here, |p| {
                (p.not_before, p.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
            }),
        ),
        (
            "early",
            "valid only in",
            authority.signs(&here, |p| {
                (p.not_before, p.not_after) = (date_time_ymd(2090, 1, 1), date_time_ymd(2091, 1, 1));
            }),
        ),
        ("other host", "is for", authority.signs(&["example.org"], |_| {})),
        (
            "authority",
            "that of an authority",
            authority.signs(&here, |p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
        ),
        ("stranger", "--ca-cert", Authority::new().signs(&here, |_| {})),
    ];
    for (name, says, (certificate, key)) in certificates {
        std::fs::write(path("cert.pem"), certificate).unwrap();
        std::fs::write(path("key.pem"), key).unwrap();
        let tls = ["--tls-cert", &shown("cert.pem"), "--tls-key", &shown("key.pem")];
        let served = Served::start(&mnist().server(), &tls);
        let why = ask(&served.url, Some(&path("ca.pem")));
        assert!(why.contains(says), "{name}: {why}");
        // The other protocol on the same port.
        if name == "fine" {
            let why = ask(&served.url.replace("https", "http"), None);
            assert!(why.contains("https"), "http to https: {why}");
        }
    }
    let plain = Served::start(&mnist().server(), &[]);
    let why = ask(&plain.url.replace("http", "https"), Some(&path("ca.pem")));
    assert!(why.contains("does not speak TLS"), "https to http: {why}");
}

#[test]
fn every_file_that_cannot_be_used_says_why_before_anything_is_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let shown = |name: &str| path(name).display().to_string();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let other = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    std::fs::write(path("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(path("cert.der"), made.cert.der()).unwrap();
    std::fs::write(path("key.pem"), made.signing_key.serialize_pem()).unwrap();
    std::fs::write(path("key.der"), made.signing_key.serialized_der()).unwrap();
    std::fs::write(path("other.pem"), other.signing_key.serialize_pem()).unwrap();
    let locked = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n";
    std::fs::write(path("locked.pem"), locked).unwrap();
    // The bundle is not there: certificates and keys are looked at first.
    let serve = |certificate: &str, key: &str| {
        let out = Command::new(assert_cmd::cargo::cargo_bin!("jali"))
            .args(["serve", &shown("missing"), "--listen", "127.0.0.1:0", "--log", "none"])
            .args(["--tls-cert", &shown(certificate), "--tls-key", &shown(key)])
            .output()
            .unwrap();
        String::from_utf8_lossy(&out.stderr).into_owned()
    };
    for (certificate, key, says) in [
        ("cert.der", "key.pem", "openssl x509 -inform der"),
        ("cert.pem", "key.der", "openssl pkey -inform der"),
        ("cert.pem", "locked.pem", "locked with a passphrase"),
        ("key.pem", "key.pem", "exchanged"),
        ("cert.pem", "cert.pem", "exchanged"),
        ("cert.pem", "other.pem", "cannot be used with the key"),
        ("none.pem", "key.pem", "none.pem"),
        ("cert.pem", "key.pem", "missing"),
    ] {
        let err = serve(certificate, key);
        assert!(err.contains(says), "{certificate}, {key}: {err}");
    }
}
