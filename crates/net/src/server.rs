//! Sockets, TLS, limits and the graceful stop.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use jali_protocol::Server;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Sleep, sleep, timeout};
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::NetError;
pub use crate::app::Limits;
use crate::app::{App, router};
use crate::auth::Tokens;

/// Streams of one HTTP/2 connection.
const MAX_STREAMS: u32 = 32;
/// Bytes of a request's head.
const MAX_HEAD: usize = 16 << 10;
/// Pause after a failed accept (out of file descriptors, for example).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// A connection that neither sends nor is sent anything for so long is closed.
const IDLE: Duration = Duration::from_secs(300);

/// A certificate chain and its key, PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The chain, the server's own certificate first.
    pub certificate: PathBuf,
    /// The key.
    pub key: PathBuf,
}

/// How to serve.
#[derive(Debug, Clone)]
pub struct Config {
    /// Address; port 0 takes a free one.
    pub listen: SocketAddr,
    /// For HTTPS.
    pub tls: Option<TlsFiles>,
    /// Who may ask; everybody if there are none.
    pub tokens: Option<Tokens>,
    /// Allows plain HTTP on an address that other machines reach.
    pub insecure: bool,
    /// Bounds.
    pub limits: Limits,
}

/// A server under way.
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
    /// Starts to serve on threads of its own.
    ///
    /// # Errors
    /// [`NetError::Insecure`], [`NetError::Listen`], [`NetError::File`] for TLS files, [`NetError::Start`].
    pub fn start(config: Config, models: Vec<Arc<Server>>) -> Result<Self, NetError> {
        let Config { listen, tls, tokens, insecure, limits } = config;
        if tls.is_none() && !listen.ip().is_loopback() && !insecure {
            return Err(NetError::Insecure { addr: listen });
        }
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
        let app = Arc::new(App::new(limits, tokens));
        app.set_models(models);
        let (stop, stopped) = watch::channel(false);
        let (receiver, tls) = tls.map(|(files, sender, receiver)| (receiver, (files, sender))).unzip();
        let accepting = accept(socket, app.clone(), receiver, stopped);
        let thread = std::thread::Builder::new()
            .name("jali-serve".into())
            .spawn(move || {
                runtime.block_on(accepting);
                // What is left had its time.
                runtime.shutdown_background();
            })
            .map_err(start)?;
        Ok(Self { addr, app, stop, tls, thread: Some(thread) })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The models that it serves.
    pub fn models(&self) -> Vec<Arc<Server>> {
        self.app.models()
    }

    /// Serves other models to holders of these tokens from now on, and reads the TLS files again. Requests under way finish with what they began with.
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

    /// Finishes what runs, refuses what comes, and returns when all is done or the time for it is over.
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
    let chain = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| fail(&files.certificate, format!("no certificate can be read: {e}")))?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|e| fail(&files.key, format!("no private key can be read: {e}")))?;
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|b| b.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|e| fail(&files.certificate, format!("certificate and key cannot be used together: {e}")))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn accept(
    socket: std::net::TcpListener,
    app: Arc<App>,
    tls: Option<watch::Receiver<TlsAcceptor>>,
    mut stopped: watch::Receiver<bool>,
) {
    let Ok(listener) = TcpListener::from_std(socket) else { return };
    let places = Arc::new(Semaphore::new(app.limits.max_connections.clamp(1, 1 << 20)));
    let graceful = GracefulShutdown::new();
    loop {
        // A connection beyond the limit waits in the system's queue until another one ends.
        let place = tokio::select! {
            place = places.clone().acquire_owned() => place,
            _ = stopped.changed() => break,
        };
        let Ok(place) = place else { break };
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
        let _ = stream.set_nodelay(true);
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(app.limits.answer_time));
        stream.set_read_timeout(Some(IDLE));
        let (app, watcher) = (app.clone(), graceful.watcher());
        let acceptor = tls.as_ref().map(|tls| tls.borrow().clone());
        tokio::spawn(async move {
            let stream = Box::pin(stream);
            match acceptor {
                None => connection(stream, app, watcher, place).await,
                Some(acceptor) => match timeout(app.limits.head_time, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => connection(stream, app, watcher, place).await,
                    Ok(Err(e)) => tracing::debug!(error = %e, "TLS handshake failed"),
                    Err(_) => tracing::debug!("TLS handshake took too long"),
                },
            }
        });
    }
    drop(listener);
    if timeout(app.limits.grace, graceful.shutdown()).await.is_err() {
        tracing::warn!("some connections did not finish in time");
    }
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    app: Arc<App>,
    watcher: hyper_util::server::graceful::Watcher,
    place: OwnedSemaphorePermit,
) {
    app.metrics.connections.inc();
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(app.limits.head_time).max_buf_size(MAX_HEAD);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEAD as u32)
        .keep_alive_interval(Some(app.limits.answer_time))
        .keep_alive_timeout(app.limits.head_time);
    let stream = Greeting::new(stream, app.limits.head_time);
    let service = TowerToHyperService::new(router(app.clone()));
    let served = watcher.watch(builder.serve_connection(TokioIo::new(stream), service).into_owned()).await;
    if let Err(e) = served {
        tracing::debug!(error = %e, "connection ended");
    }
    app.metrics.connections.dec();
    drop(place);
}

/// A stream that must say within a time whether it speaks HTTP/1 or HTTP/2: hyper's own limits begin after that.
struct Greeting<S> {
    inner: S,
    deadline: Option<Pin<Box<Sleep>>>,
    /// Its first two bytes, as far as they are there, and how many bytes came.
    start: [u8; 2],
    count: usize,
}

/// Bytes by which HTTP/2 is told: its preface.
const PREFACE: usize = 24;

impl<S> Greeting<S> {
    fn new(inner: S, time: Duration) -> Self {
        Self { inner, deadline: Some(Box::pin(sleep(time))), start: [0; 2], count: 0 }
    }

    /// Whether it is known what the stream speaks: HTTP/2 begins with `PR`, no method of HTTP/1 does.
    fn is_known(&self) -> bool {
        self.count >= PREFACE || self.count >= 2 && self.start != *b"PR"
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Greeting<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        let this = &mut *self;
        let Some(deadline) = &mut this.deadline else { return polled };
        if polled.is_pending() {
            return match deadline.as_mut().poll(cx) {
                Poll::Ready(()) => Poll::Ready(Err(std::io::ErrorKind::TimedOut.into())),
                Poll::Pending => Poll::Pending,
            };
        }
        for &byte in &buf.filled()[before..] {
            if let Some(place) = this.start.get_mut(this.count) {
                *place = byte;
            }
            this.count += 1;
        }
        if this.is_known() {
            this.deadline = None;
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Greeting<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// What the operator of the server wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Look at the files again (SIGHUP).
    Reload,
    /// End (SIGTERM or SIGINT).
    Stop,
}

/// Waits for signals and hands each to `handle`, until it says that this was enough.
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
