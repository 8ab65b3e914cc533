//! The server: sockets, TLS, limits and the graceful stop.

use std::convert::Infallible;
use std::future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use axum::http::header::{CONNECTION, HeaderValue};
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use jali_protocol::Server;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls;

use crate::answers::full;
pub use crate::app::Limits;
use crate::app::{App, router};
use crate::auth::Tokens;
use crate::connections::{Connection, Connections, Times};
use crate::dealing::DealingService;
use crate::guests::GuestService;
use crate::pages::Pages;
use crate::{NetError, pem};

/// Most bytes of a request's head.
const MAX_HEAD: usize = 16 << 10;
/// Pause after a failed accept (out of file descriptors, for example).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// A connection that is older ends after its next answer, so that balancers can share clients out
/// anew.
const MAX_AGE: Duration = Duration::from_secs(3600);

/// A certificate chain and its key, PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The chain, the server's own certificate first.
    pub certificate: PathBuf,
    /// The key.
    pub key: PathBuf,
}

/// Settings of a server.
#[derive(Debug, Clone)]
pub struct Config {
    /// Address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Certificate and key for HTTPS; plain HTTP if there are none.
    pub tls: Option<TlsFiles>,
    /// Tokens of those who may ask; everybody may if there are none.
    pub tokens: Option<Tokens>,
    /// Allows plain HTTP on an address that other machines reach.
    pub insecure: bool,
    /// Bounds of the server.
    pub limits: Limits,
    /// What it does for browsers.
    pub pages: Pages,
}

impl Config {
    /// A server for this machine alone: plain HTTP on a free port of loopback, for everybody on it.
    pub fn loopback() -> Self {
        Self {
            listen: ([127, 0, 0, 1], 0).into(),
            tls: None,
            tokens: None,
            insecure: false,
            limits: Limits::default(),
            pages: Pages::default(),
        }
    }
}

/// A running server.
pub struct Running {
    addr: SocketAddr,
    app: Arc<App>,
    stop: watch::Sender<bool>,
    tls: Option<(TlsFiles, watch::Sender<TlsAcceptor>)>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Running<{}>", self.addr)
    }
}

impl Running {
    /// Starts a server on threads of its own. It listens at once, and reports that it is ready once
    /// it has models ([`Running::serve`]).
    ///
    /// # Errors
    /// [`NetError::Insecure`], [`NetError::Listen`], [`NetError::File`] for TLS files,
    /// [`NetError::Start`].
    pub fn start(config: Config) -> Result<Self, NetError> {
        let Config { listen, tls, tokens, insecure, limits, pages } = config;
        if tls.is_none() && !listen.ip().is_loopback() && !insecure {
            return Err(NetError::Insecure { addr: listen });
        }
        pages.check()?;
        let tls = match tls {
            Some(files) => {
                let (sender, receiver) = watch::channel(acceptor(&files)?);
                Some((files, sender, receiver))
            }
            None => None,
        };
        let failed = |e: std::io::Error| NetError::Listen { addr: listen, why: e.to_string() };
        let socket = std::net::TcpListener::bind(listen).map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        let addr = socket.local_addr().map_err(failed)?;
        let start = |e: std::io::Error| NetError::Start(e.to_string());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("jali-net")
            .enable_all()
            .build()
            .map_err(start)?;
        let app = Arc::new(App::new(limits, tokens, pages));
        let (stop, stopped) = watch::channel(false);
        let (receiver, tls) = tls.map(|(files, sender, receiver)| (receiver, (files, sender))).unzip();
        let accepting = accept(socket, app.clone(), receiver, stopped);
        let thread = std::thread::Builder::new()
            .name("jali-serve".into())
            .spawn(move || {
                runtime.block_on(accepting);
                // Tasks that are left had their time.
                runtime.shutdown_background();
            })
            .map_err(start)?;
        Ok(Self { addr, app, stop, tls, thread: Some(thread) })
    }

    /// Returns the address on which it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Serves these models from now on; requests under way finish with the old ones.
    pub fn serve(&self, models: Vec<Arc<Server>>) {
        self.app.set_models(models);
    }

    /// Serves guests of these networks from now on; inferences under way finish with the old ones.
    pub fn serve_guests(&self, services: Vec<Arc<GuestService>>) {
        self.app.set_guest_services(services);
    }

    /// Deals tickets to guests from now on.
    pub fn deal(&self, service: DealingService) {
        self.app.set_dealing(Arc::new(service));
    }

    /// Returns the networks of which it serves guests.
    pub fn guest_services(&self) -> Vec<Arc<GuestService>> {
        self.app.guest_services()
    }

    /// Returns the models that it serves.
    pub fn models(&self) -> Vec<Arc<Server>> {
        self.app.models()
    }

    /// Serves other models to holders of these tokens from now on, and reads the TLS files again.
    /// Requests under way finish with what they began with.
    ///
    /// # Errors
    /// [`NetError::File`] if the TLS files cannot be used; then everything stays as it was.
    pub fn reload(&self, models: Vec<Arc<Server>>, tokens: Option<Tokens>) -> Result<(), NetError> {
        if let Some((files, sender)) = &self.tls {
            sender.send_replace(acceptor(files)?);
        }
        self.app.set_models(models);
        self.app.set_tokens(tokens);
        self.app.metrics.reloads.inc();
        Ok(())
    }

    /// Finishes the requests that run, refuses new ones, and returns when all are done or the time
    /// for it is over.
    pub fn stop(mut self) {
        self.finish();
    }

    fn finish(&mut self) {
        self.app.stopping.store(true, Ordering::Relaxed);
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.finish();
    }
}

fn acceptor(files: &TlsFiles) -> Result<TlsAcceptor, NetError> {
    let fail = |path: &PathBuf, why: String| NetError::File { path: path.clone(), why };
    let (chain, key) = (pem::chain(&files.certificate)?, pem::key(&files.key)?);
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|b| b.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|e| {
            fail(&files.certificate, format!("it cannot be used with the key of {}: {e}", files.key.display()))
        })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn accept(
    socket: std::net::TcpListener,
    app: Arc<App>,
    tls: Option<watch::Receiver<TlsAcceptor>>,
    mut stopped: watch::Receiver<bool>,
) {
    let Ok(listener) = TcpListener::from_std(socket) else { return };
    let connections = Connections::new(app.limits.max_connections.min(1 << 20));
    // Every connection holds a sender; when none is left, all have ended.
    let (alive, mut all_ended) = mpsc::channel::<()>(1);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.changed() => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(e) => {
                tracing::warn!(error = %e, "accept failed");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // A connection that can take no other's place waits until one ends.
        let connection = tokio::select! {
            connection = connections.enter() => connection,
            _ = stopped.changed() => break,
        };
        let _ = stream.set_nodelay(true);
        let (app, alive, stopped) = (app.clone(), alive.clone(), stopped.clone());
        let acceptor = tls.as_ref().map(|tls| tls.borrow().clone());
        tokio::spawn(async move {
            app.metrics.connections.inc();
            let times = Times { waiting: app.limits.answer_time, taking: app.limits.answer_time };
            let served = async {
                match acceptor {
                    None => serve(stream, &app, &connection, stopped).await,
                    Some(acceptor) => match timeout(app.limits.head_time, acceptor.accept(stream)).await {
                        Ok(Ok(stream)) => serve(stream, &app, &connection, stopped).await,
                        Ok(Err(e)) => tracing::debug!(error = %e, "TLS handshake failed"),
                        Err(_) => tracing::debug!("TLS handshake took too long"),
                    },
                }
            };
            // When either of them ends, the stream, answers and their memory are dropped.
            tokio::select! {
                () = served => {}
                why = connection.overdue(times) => tracing::debug!(why, "connection closed"),
            }
            app.metrics.connections.dec();
            drop(alive);
        });
    }
    drop((listener, alive));
    let ended = async {
        let _ = all_ended.recv().await;
        // Guests have their places until they end.
        let _ = app.guests.acquire_many(app.limits.max_guests.min(1 << 20) as u32).await;
    };
    if timeout(app.limits.grace, ended).await.is_err() {
        tracing::warn!("some connections did not finish in time");
    }
}

/// Serves HTTP/1.1 on a stream until it ends. HTTP/2 is not spoken: streams that their client never
/// reads would hold memory beside the connection's own state, and no client of ours has use for
/// them.
async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    app: &Arc<App>,
    connection: &Arc<Connection>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(app.limits.head_time).max_buf_size(MAX_HEAD);
    let service = Watched {
        inner: TowerToHyperService::new(router(app.clone())),
        app: app.clone(),
        connection: connection.clone(),
    };
    let mut served = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service).with_upgrades());
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = until_stopped(&mut stopped) => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(e) = ended {
        tracing::debug!(error = %e, "connection ended");
    }
}

/// Waits until the server stops.
async fn until_stopped(stopped: &mut watch::Receiver<bool>) {
    // What it gives must not be held over an await.
    let _ = stopped.wait_for(|stopped| *stopped).await.map(drop);
}

/// The paths as a service for one connection, which notes what the connection is doing.
struct Watched {
    inner: TowerToHyperService<Router>,
    app: Arc<App>,
    connection: Arc<Connection>,
}

impl hyper::service::Service<Request<Incoming>> for Watched {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.connection.asks();
        let connection = self.connection.clone();
        let is_health = request.uri().path().starts_with("/v2/health/");
        if connection.is_reserve && !is_health {
            let response = full();
            return Box::pin(future::ready(Ok(response.map(|body| connection.takes(body)))));
        }
        let is_allowed = !is_health && self.app.allow(request.headers()).is_ok();
        let inner = self.inner.call(request);
        Box::pin(async move {
            let mut response = inner.await?;
            if is_allowed && response.status().is_success() {
                connection.is_known();
            }
            if connection.is_reserve || connection.age() > MAX_AGE {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(response.map(|body| connection.takes(body)))
        })
    }
}

/// A wish of the person who runs the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Read the files again (SIGHUP).
    Reload,
    /// Stop the server (SIGTERM or SIGINT).
    Stop,
}

/// Waits for signals and hands each to `handle`, until that returns `true`.
///
/// # Errors
/// [`NetError::Start`] if signals cannot be received.
pub fn wait_for_signals(mut handle: impl FnMut(Signal) -> bool) -> Result<(), NetError> {
    let start = |e: std::io::Error| NetError::Start(e.to_string());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(start)?;
    runtime.block_on(async {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            let (mut hup, mut term) =
                (signal(SignalKind::hangup()).map_err(start)?, signal(SignalKind::terminate()).map_err(start)?);
            loop {
                let signal = tokio::select! {
                    _ = hup.recv() => Signal::Reload,
                    _ = term.recv() => Signal::Stop,
                    _ = tokio::signal::ctrl_c() => Signal::Stop,
                };
                if handle(signal) {
                    return Ok(());
                }
            }
        }
        #[cfg(not(unix))]
        {
            tokio::signal::ctrl_c().await.map_err(start)?;
            handle(Signal::Stop);
            Ok(())
        }
    })
}
