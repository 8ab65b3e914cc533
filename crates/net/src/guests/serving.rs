//! The server's side of a guest's connection.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use jali_guest::{Backend, ServerSession, Turn};
use jali_tickets::transcript::Digest;
use jali_tickets::{Batch, Claim, ServerFile};
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::{GuestRefusal, Hello};
use crate::answers::{busy, counted};
use crate::app::App;
use crate::model_name;
use jali_tickets::greeting::NONCE;

/// A network sealed for guests, with the batches of tickets that this server has.
#[derive(Debug)]
pub struct GuestService {
    /// What it computes with.
    pub file: Arc<ServerFile>,
    /// Its tickets.
    pub batches: Vec<Arc<Batch>>,
    /// The vector unit.
    pub backend: Backend,
    /// Whether every step takes about a millisecond at most.
    has_small_steps: bool,
}

/// Products and gates of a part of a circuit that take about a millisecond.
const SMALL: usize = 20_000_000;
/// Bytes that are read at once.
const READ_AHEAD: usize = 1 << 16;
/// Products that take as long as a gate.
const GATE: usize = 400;

impl GuestService {
    /// A network and its batches.
    pub fn new(file: Arc<ServerFile>, batches: Vec<Arc<Batch>>, backend: Backend) -> Self {
        let work = |part: jali_guest::Part| part.counts.products + GATE * (part.counts.clamps + part.counts.maxima);
        let has_small_steps = file.model.circuit().parts().into_iter().map(work).all(|work| work <= SMALL);
        Self { file, batches, backend, has_small_steps }
    }

    /// The network's name in paths.
    pub fn name(&self) -> String {
        model_name(self.file.id)
    }

    /// The batch of a hello, if its token belongs to it. Which of both is wrong is not said.
    fn batch(&self, hello: &Hello) -> Option<&Arc<Batch>> {
        let batch = self.batches.iter().find(|b| b.manifest().batch == hello.batch)?;
        hello.token.is_of(&batch.manifest().token).then_some(batch)
    }

    /// Most bytes of a guest's message.
    fn longest_message(&self) -> usize {
        self.file.model.circuit().counts().bytes_up + NONCE
    }
}

/// Why an inference ended early. Nobody is told: all failures look alike from outside.
enum End {
    /// The guest is gone, or too slow.
    Gone,
    /// Something came that no guest sends.
    Malformed,
}

/// A connection, taken apart so that it is read while it is written to: two sides that send much at
/// the same time would otherwise wait for each other.
struct Peer<'a> {
    sink: SplitSink<WebSocket, Message>,
    stream: SplitStream<WebSocket>,
    app: &'a App,
}

/// Waits for a guest's next message.
async fn next(stream: &mut SplitStream<WebSocket>, app: &App) -> Result<Vec<u8>, End> {
    loop {
        match timeout(app.limits.answer_time, stream.next()).await {
            Ok(Some(Ok(Message::Binary(bytes)))) => {
                app.metrics.bytes_in.inc_by(bytes.len() as u64);
                return Ok(bytes.into());
            }
            Ok(Some(Ok(Message::Ping(_) | Message::Pong(_)))) => {}
            Ok(Some(Ok(Message::Text(_)))) => return Err(End::Malformed),
            Ok(Some(Ok(Message::Close(_)) | Err(_)) | None) | Err(_) => return Err(End::Gone),
        }
    }
}

impl Peer<'_> {
    async fn receive(&mut self) -> Result<Vec<u8>, End> {
        next(&mut self.stream, self.app).await
    }

    async fn send(&mut self, message: Vec<u8>) -> Result<(), End> {
        self.app.metrics.bytes_out.inc_by(message.len() as u64);
        let sent = timeout(self.app.limits.answer_time, self.sink.send(Message::Binary(message.into())));
        sent.await.ok().and_then(Result::ok).ok_or(End::Gone)
    }

    /// Sends a message and waits for the next one, at the same time.
    async fn exchange(&mut self, message: Vec<u8>) -> Result<Vec<u8>, End> {
        let app = self.app;
        app.metrics.bytes_out.inc_by(message.len() as u64);
        let sent = timeout(app.limits.answer_time, self.sink.send(Message::Binary(message.into())));
        let (sent, received) = tokio::join!(sent, next(&mut self.stream, app));
        sent.ok().and_then(Result::ok).ok_or(End::Gone)?;
        received
    }
}

/// Answers `GET /v2/models/{model}/guests`.
pub(crate) async fn guests(
    State(app): State<Arc<App>>,
    Path(model): Path<String>,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Response {
    let response = match app.guest_service(&model) {
        _ if !app.pages.may_connect(&headers) => {
            (StatusCode::FORBIDDEN, "pages of this origin may not ask: see --allow-origin\n").into_response()
        }
        None => (StatusCode::NOT_FOUND, "no network for guests has this id here\n").into_response(),
        Some(_) if app.is_stopping() => busy("stopping\n"),
        Some(service) => match app.guests.clone().try_acquire_owned() {
            Err(_) => busy("as many guests as are allowed are here\n"),
            Ok(place) => {
                let most = service.longest_message();
                let app = app.clone();
                let upgrade = upgrade
                    .max_message_size(most)
                    .max_frame_size(most)
                    .write_buffer_size(0)
                    .read_buffer_size(READ_AHEAD);
                upgrade.on_upgrade(move |socket| async move {
                    let _place = place;
                    // Steps of a millisecond are not worth another thread, on which every message
                    // would have to be woken up. Larger ones must not keep other connections
                    // waiting.
                    if service.has_small_steps {
                        serve(&app, &service, socket).await;
                    } else {
                        let here = Handle::current();
                        let _ = spawn_blocking(move || here.block_on(serve(&app, &service, socket))).await;
                    }
                })
            }
        },
    };
    counted(&app, "guests", response)
}

async fn serve(app: &App, service: &GuestService, socket: WebSocket) {
    let (begun, (sink, stream)) = (Instant::now(), socket.split());
    let mut peer = Peer { sink, stream, app };
    app.metrics.guests.inc();
    let served = serve_peer(app, service, &mut peer).await;
    app.metrics.guests.dec();
    let _ = timeout(app.limits.head_time, peer.sink.close()).await;
    let (inferences, end) = match served {
        Ok(n) => (n, "finished"),
        Err((n, End::Gone)) => (n, "gone"),
        Err((n, End::Malformed)) => (n, "malformed"),
    };
    tracing::info!(model = service.name(), inferences, end, ms = begun.elapsed().as_secs_f64() * 1e3, "guest");
}

/// Serves a guest until its tickets are used; returns how many inferences there were.
async fn serve_peer(app: &App, service: &GuestService, peer: &mut Peer<'_>) -> Result<u32, (u32, End)> {
    // A stranger holds a place no longer than a request's head may take.
    let hello = timeout(app.limits.head_time, peer.receive()).await.unwrap_or(Err(End::Gone));
    let hello = hello.map_err(|end| (0, end))?;
    let hello = Hello::decode(&hello).ok_or((0, End::Malformed))?;
    // Before the first answer, all tickets of this connection are used, on disk.
    let claimed = match service.batch(&hello) {
        None => Err(GuestRefusal::Unknown),
        Some(batch) => claim(batch, &hello).await.map(|claim| (batch, claim)),
    };
    let (batch, mut claim) = match claimed {
        Ok(claimed) => claimed,
        Err(refusal) => {
            app.metrics.tickets_refused.inc();
            if refusal == GuestRefusal::Used {
                app.metrics.replays.inc();
            }
            return peer.send(vec![refusal.byte()]).await.map(|()| 0).map_err(|end| (0, end));
        }
    };
    app.metrics.tickets.inc_by(u64::from(hello.tickets));
    peer.send(vec![0]).await.map_err(|end| (0, end))?;
    for done in 0..hello.tickets {
        if app.is_stopping() {
            return Ok(done);
        }
        inference(service, batch, &mut claim, peer).await.map_err(|end| (done, end))?;
        app.metrics.images.inc();
    }
    Ok(hello.tickets)
}

/// Uses up the tickets of a hello, on a thread that may wait for the disk.
async fn claim(batch: &Arc<Batch>, hello: &Hello) -> Result<Claim, GuestRefusal> {
    let (batch, first, tickets) = (batch.clone(), hello.first, hello.tickets);
    match spawn_blocking(move || batch.claim(first, tickets)).await {
        Ok(Ok(claim)) => Ok(claim),
        Ok(Err(e)) => {
            tracing::warn!(error = %e, "tickets refused");
            Err(GuestRefusal::of_error(&e))
        }
        Err(_) => Err(GuestRefusal::Failed),
    }
}

/// One inference.
async fn inference(service: &GuestService, batch: &Batch, claim: &mut Claim, peer: &mut Peer<'_>) -> Result<(), End> {
    let index = claim.index();
    let first = peer.receive().await?;
    let (nonce, input) = first.split_first_chunk::<NONCE>().ok_or(End::Malformed)?;
    let key = claim.key(nonce).ok_or(End::Malformed)?;
    let mut session = ServerSession::new(&service.file.model, service.backend, key);
    let mut digest = Digest::new();
    let mut message = input.to_vec();
    loop {
        digest.up(&message);
        match session.receive(&message).map_err(|_| End::Malformed)? {
            Turn::Goes { message: out, session: next } => {
                digest.down(&out);
                session = next;
                message = peer.exchange(out).await?;
            }
            Turn::Waits(next) => {
                session = next;
                message = peer.receive().await?;
            }
            Turn::Done(served) => {
                digest.down(&served.message);
                let signature = digest.sign(&service.file, &batch.manifest().batch, index, nonce);
                return peer.send([served.message.as_slice(), &signature].concat()).await;
            }
        }
    }
}
