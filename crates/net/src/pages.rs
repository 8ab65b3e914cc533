//! Pages for browsers: static files beside the API, and the other origins whose pages may call it.
//!
//! Pages are public: no bearer token is asked for, as a browser has none when it opens a page.
//! Names that begin with a dot are not served. Links in the folder are followed.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderName, HeaderValue, ORIGIN,
    REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use tower_http::cors::CorsLayer;
use tower_http::services::ServeDir;

use crate::NetError;
use crate::answers::counted;
use crate::app::App;

/// Headers of every page. Nothing but the server's own files is loaded or connected to, no other
/// page frames it, and it is asked for anew when it is used again.
const HEADERS: [(HeaderName, &str); 9] = [
    (
        CONTENT_SECURITY_POLICY,
        "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    (REFERRER_POLICY, "no-referrer"),
    (CACHE_CONTROL, "no-cache"),
    (VARY, "accept-encoding"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("permissions-policy"), "camera=(self), microphone=(), geolocation=()"),
];

/// How long a browser may remember that an origin is allowed.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// What a server does for browsers; nothing by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pages {
    /// The folder whose files are served; `index.html` is the page.
    pub folder: Option<PathBuf>,
    /// Other origins whose pages may call the API.
    pub origins: Vec<PageOrigin>,
}

/// Scheme, host and port of a page, as browsers send them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageOrigin(HeaderValue);

impl std::str::FromStr for PageOrigin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fault = || format!("\"{text}\" is no origin: it has the form https://host or https://host:port");
        let uri: Uri = text.parse().map_err(|_| fault())?;
        let plain = match (uri.scheme_str(), uri.authority()) {
            (Some(scheme @ ("http" | "https")), Some(authority)) => format!("{scheme}://{authority}"),
            _ => return Err(fault()),
        };
        // Browsers send it in small letters, without a path, without somebody's name.
        // A port stands there only if it is not the scheme's own.
        let usual = if uri.scheme_str() == Some("https") { 443 } else { 80 };
        let host = uri.host().unwrap_or_default();
        let port = uri.port_u16();
        let as_sent = uri.authority().is_some_and(|a| match port {
            None => a.as_str() == host,
            Some(port) => port != usual && a.as_str() == format!("{host}:{port}"),
        });
        let is_lower = text == text.to_ascii_lowercase();
        let is_plain = plain == text && as_sent && !host.is_empty() && is_lower && !text.contains(['@', '*']);
        let value = HeaderValue::from_str(text).map_err(|_| fault())?;
        is_plain.then_some(Self(value)).ok_or_else(fault)
    }
}

impl Pages {
    /// Checks that there is a page.
    pub(crate) fn check(&self) -> Result<(), NetError> {
        let Some(folder) = &self.folder else { return Ok(()) };
        match folder.join("index.html").is_file() {
            true => Ok(()),
            false => Err(NetError::File {
                path: folder.clone(),
                why: "it holds no index.html: scripts/build-web makes web/dist, or name another folder of pages".into(),
            }),
        }
    }

    /// Lets the pages of the allowed origins call the API.
    pub(crate) fn allow(&self, api: Router) -> Router {
        if self.origins.is_empty() {
            return api;
        }
        let origins: Vec<HeaderValue> = self.origins.iter().map(|origin| origin.0.clone()).collect();
        let cors = CorsLayer::new().allow_origin(origins).allow_methods([Method::GET, Method::POST]);
        api.layer(cors.allow_headers([AUTHORIZATION, CONTENT_TYPE]).max_age(REMEMBERED))
    }

    /// Whether a WebSocket may be opened: browsers let pages of any origin try, and say which it
    /// is.
    pub(crate) fn may_connect(&self, headers: &HeaderMap) -> bool {
        let Some(origin) = headers.get(ORIGIN) else { return true };
        let is_own = || {
            let (scheme, authority) = origin.to_str().ok()?.split_once("://")?;
            let is_page = matches!(scheme, "http" | "https") && !authority.is_empty();
            (is_page && headers.get(HOST)?.to_str().ok()? == authority).then_some(())
        };
        self.origins.iter().any(|allowed| allowed.0 == origin) || is_own().is_some()
    }

    /// The files as a service, if there are any.
    pub(crate) fn router(&self, app: Arc<App>) -> Option<Router> {
        let files = ServeDir::new(self.folder.as_ref()?).precompressed_gzip();
        Some(Router::new().fallback_service(files).layer(from_fn_with_state(app, page)))
    }
}

/// Whether a part of a path begins with a dot, written out or as `%2e`; or may, as a slash in it is
/// written as `%2f`.
fn is_hidden(path: &str) -> bool {
    let path = path.to_ascii_lowercase();
    let has_dot = || path.split(['/', '\\']).any(|part| part.starts_with('.') || part.starts_with("%2e"));
    path.contains("%2f") || path.contains("%5c") || has_dot()
}

/// Answers a request for a file.
async fn page(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let mut response = match is_hidden(request.uri().path()) {
        true => (StatusCode::NOT_FOUND, "no such page\n").into_response(),
        false => next.run(request).await,
    };
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    counted(&app, "pages", response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_those_that_browsers_send() {
        for good in ["https://clinic.example", "http://127.0.0.1:8000", "https://[::1]:1"] {
            assert!(good.parse::<PageOrigin>().is_ok(), "{good}");
        }
        for bad in [
            "*",
            "https://*.example",
            "clinic.example",
            "https://a/b",
            "https://a/",
            "ftp://a",
            "https://A",
            "",
            "https://u@a",
            "null",
            "https://a:443",
            "http://a:80",
            "https://a:",
            "https://a:99999",
            "https://:8000",
        ] {
            assert!(bad.parse::<PageOrigin>().is_err(), "{bad}");
        }
    }

    #[test]
    fn sockets_are_for_own_and_allowed_pages() {
        let pages = Pages { folder: None, origins: vec!["https://clinic.example".parse().unwrap()] };
        let headers = |origin: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_static("server.example:8433"));
            origin.map(|origin| headers.insert(ORIGIN, HeaderValue::from_static(origin)));
            headers
        };
        for good in [None, Some("https://server.example:8433"), Some("https://clinic.example")] {
            assert!(pages.may_connect(&headers(good)), "{good:?}");
        }
        for bad in [
            "https://server.example",
            "https://evil.example",
            "null",
            "https://clinic.example.evil.example",
            "file://",
            "ftp://server.example:8433",
        ] {
            assert!(!pages.may_connect(&headers(Some(bad))), "{bad}");
        }
    }
}
