//! Dealing on demand: `POST /v2/batches/{batch}/tickets` answers with a block of tickets.
//!
//! The owner runs this, never the server: it has the weights, and it sees which batch asks when,
//! and nothing of an image. Guests show the credential that is locked in their wallet. What is sent
//! is described in [`jali_tickets::on_demand`]. Nothing of it is kept.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use jali_bundle::{hex, unhex};
use jali_tickets::{Credential, Dealer, Stock, TicketError};
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, mpsc};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::NetError;
use crate::answers::{busy, counted};
use crate::app::App;
use crate::client::{Client, ClientConfig};
use crate::compute::BINARY;

/// Parts of a block that wait to be sent.
const AHEAD: usize = 2;
/// Longest time for a block.
const BLOCK_TIME: Duration = Duration::from_secs(3600);

/// The batches that an owner deals from.
#[derive(Debug)]
pub struct DealingService {
    dealer: Arc<Dealer>,
    batches: Vec<Arc<DealtBatch>>,
    per_minute: u32,
}

/// A batch, and when its guest may ask again.
#[derive(Debug)]
struct DealtBatch {
    stock: Stock,
    /// Held while a block is sent.
    turn: Arc<tokio::sync::Mutex<()>>,
    not_before: Mutex<Option<Instant>>,
}

impl DealingService {
    /// Batches of one network, each of which gets so many tickets a minute at most.
    pub fn new(dealer: Dealer, stocks: Vec<Stock>, per_minute: u32) -> Self {
        let batch = |stock| Arc::new(DealtBatch { stock, turn: Arc::default(), not_before: Mutex::default() });
        let batches = stocks.into_iter().map(batch).collect();
        Self { dealer: Arc::new(dealer), batches, per_minute: per_minute.max(1) }
    }

    /// The batch of a request. Whether there is no such batch or the credential is another one is
    /// not said.
    fn batch(&self, name: &str, headers: &HeaderMap) -> Option<&Arc<DealtBatch>> {
        let credential = credential(headers)?;
        self.batches.iter().find(|b| hex(&b.stock.manifest().batch) == name && b.stock.accepts(&credential))
    }
}

/// The credential that a request shows.
fn credential(headers: &HeaderMap) -> Option<Credential> {
    let digits = headers.get(AUTHORIZATION)?.as_bytes().strip_prefix(b"Bearer ")?;
    unhex(digits).map(Credential::from_bytes)
}

/// What a block needs until it is sent.
struct Sending {
    _turn: OwnedMutexGuard<()>,
    _place: OwnedSemaphorePermit,
}

/// Answers `POST /v2/batches/{batch}/tickets`.
pub(crate) async fn tickets(State(app): State<Arc<App>>, Path(batch): Path<String>, headers: HeaderMap) -> Response {
    let response = block(&app, &batch, &headers).await.unwrap_or_else(|refusal| *refusal);
    counted(&app, "tickets", response)
}

async fn block(app: &Arc<App>, name: &str, headers: &HeaderMap) -> Result<Response, Box<Response>> {
    let denied = || (StatusCode::UNAUTHORIZED, "no such batch is dealt here, or not to you\n").into_response();
    let service = app.dealing().ok_or_else(denied)?;
    let batch = service.batch(name, headers).ok_or_else(denied)?.clone();
    if app.is_stopping() {
        return Err(busy("stopping\n").into());
    }
    let turn = batch.turn.clone().try_lock_owned().map_err(|_| later(Duration::from_secs(1)))?;
    if let Some(wait) = batch.wait() {
        return Err(later(wait).into());
    }
    let place = timeout(app.limits.queue_time, app.running.clone().acquire_owned()).await;
    let place = place.ok().and_then(Result::ok).ok_or_else(|| busy("too much is under way\n"))?;
    let claiming = batch.clone();
    let claimed = spawn_blocking(move || claiming.stock.claim()).await;
    let claimed = claimed.unwrap_or_else(|_| Err(TicketError::Broken { why: "a thread ended".into() }));
    let claimed = claimed.map_err(|e| refused(&e))?;
    let count = claimed.end - claimed.start;
    batch.asked(Duration::from_secs(60) * count / service.per_minute);
    app.metrics.tickets_dealt.inc_by(count.into());
    tracing::info!(batch = name, tickets = count, left = batch.stock.left(), "dealt");
    let (sender, mut receiver) = mpsc::channel::<Result<Bytes, std::io::Error>>(AHEAD);
    let sending = Sending { _turn: turn, _place: place };
    spawn_blocking(move || {
        let gone = || TicketError::Broken { why: "the guest is gone".into() };
        let send = |part: Vec<u8>| sender.blocking_send(Ok(part.into())).map_err(|_| gone());
        if let Err(e) = batch.stock.deal(&service.dealer, claimed, send) {
            tracing::warn!(error = %e, "a block of tickets is lost");
            // The body must not look as if it were whole.
            let _ = sender.blocking_send(Err(std::io::Error::other(e.to_string())));
        }
        drop(sending);
    });
    let parts = futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx));
    Ok(([(CONTENT_TYPE, BINARY)], Body::from_stream(parts)).into_response())
}

impl DealtBatch {
    /// How long the guest has to wait.
    fn wait(&self) -> Option<Duration> {
        let not_before = *self.not_before.lock().unwrap_or_else(PoisonError::into_inner);
        not_before?.checked_duration_since(Instant::now()).filter(|wait| !wait.is_zero())
    }

    /// Notes that the guest gets nothing more for a time.
    fn asked(&self, pause: Duration) {
        *self.not_before.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + pause);
    }
}

fn later(wait: Duration) -> Response {
    let seconds = wait.as_secs_f64().ceil().to_string();
    (StatusCode::TOO_MANY_REQUESTS, [(RETRY_AFTER, seconds)], "this batch gets no more tickets yet\n").into_response()
}

fn refused(e: &TicketError) -> Response {
    match e {
        TicketError::UsedUp { .. } => {
            (StatusCode::GONE, "all tickets of this batch are dealt: ask the owner for another batch\n").into_response()
        }
        TicketError::Expired { .. } => {
            (StatusCode::GONE, "the time of this batch is over: ask the owner for another one\n").into_response()
        }
        e => {
            tracing::error!(error = %e, "cannot deal");
            (StatusCode::INTERNAL_SERVER_ERROR, "it cannot deal now: look at its log\n").into_response()
        }
    }
}

/// Asks an owner's dealing service for a block of tickets of at most `most` bytes.
///
/// # Errors
/// [`NetError`]; [`NetError::Busy`] if the batch gets no more tickets yet.
pub fn fetch(
    config: &ClientConfig,
    batch: &[u8; 16],
    credential: &Credential,
    most: u64,
) -> Result<impl std::io::Read + use<>, NetError> {
    let config = ClientConfig { token: Some(hex(credential.bytes())), ..config.clone() };
    let client = Client::new(&config)?;
    let answer = client.stream(&format!("/v2/batches/{}/tickets", hex(batch)), most, BLOCK_TIME);
    answer.map_err(|e| match e {
        NetError::Denied { url } => NetError::Status {
            url,
            status: 401,
            text: "it does not deal this batch, or not to this wallet: ask the owner".into(),
        },
        e => e,
    })
}
