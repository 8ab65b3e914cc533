//! The paths of the server. A request is checked in this order: token, model and operator, size,
//! memory, a place in the queue. Only then is it computed.

#![allow(clippy::result_large_err)] // Refusals are answers like others; they are made once and handed on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http_body_util::BodyExt;
use jali_bundle::hex;
use jali_protocol::Server;
use jali_protocol::message::{Refusal, decode_refusal, operator_of};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::answers::{busy, counted, json_response, refused};
use crate::auth::Tokens;
use crate::budget::{Budget, Share};
use crate::compute::{answer, compute};
use crate::dealing::{self, DealingService};
use crate::guests::{self, GuestService};
use crate::metrics::Metrics;
use crate::model_name;
use crate::pages::Pages;

/// Bounds of one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Most requests that are computed at a time.
    pub max_concurrent: usize,
    /// Most requests that wait for their turn beside these.
    pub max_queue: usize,
    /// Most bytes of one body.
    pub max_body: usize,
    /// Most bytes that all requests take together: bodies, work and answers.
    pub max_memory: usize,
    /// Most connections that are open.
    pub max_connections: usize,
    /// Most guests that are served at a time.
    pub max_guests: usize,
    /// Time for a request's head, and for a TLS handshake.
    pub head_time: Duration,
    /// Time for a request's body.
    pub body_time: Duration,
    /// Time in the queue.
    pub queue_time: Duration,
    /// Time for a client to take an answer, and time for it to ask for something.
    pub answer_time: Duration,
    /// Time for running requests when the server stops.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_concurrent: std::thread::available_parallelism().map_or(2, usize::from).max(2),
            max_queue: 64,
            max_body: 64 << 20,
            max_memory: 1 << 30,
            max_connections: 1024,
            max_guests: 64,
            head_time: Duration::from_secs(10),
            body_time: Duration::from_secs(30),
            queue_time: Duration::from_secs(30),
            answer_time: Duration::from_secs(60),
            grace: Duration::from_secs(30),
        }
    }
}

/// The state that all requests share.
pub(crate) struct App {
    models: RwLock<Vec<Arc<Server>>>,
    guest_services: RwLock<Vec<Arc<GuestService>>>,
    dealing: RwLock<Option<Arc<DealingService>>>,
    /// Places for guests.
    pub(crate) guests: Arc<Semaphore>,
    tokens: RwLock<Option<Tokens>>,
    pub(crate) limits: Limits,
    pub(crate) pages: Pages,
    budget: Budget,
    /// Places for requests that wait or run.
    pub(crate) places: Arc<Semaphore>,
    pub(crate) running: Arc<Semaphore>,
    pub(crate) stopping: AtomicBool,
    pub(crate) metrics: Metrics,
}

impl App {
    pub(crate) fn new(limits: Limits, tokens: Option<Tokens>, pages: Pages) -> Self {
        Self {
            models: RwLock::default(),
            guest_services: RwLock::default(),
            dealing: RwLock::default(),
            guests: Arc::new(Semaphore::new(limits.max_guests.min(1 << 20))),
            tokens: RwLock::new(tokens),
            budget: Budget::new(limits.max_memory),
            places: Arc::new(Semaphore::new(limits.max_concurrent.saturating_add(limits.max_queue).min(1 << 20))),
            running: Arc::new(Semaphore::new(limits.max_concurrent.clamp(1, 1 << 20))),
            limits,
            pages,
            stopping: AtomicBool::new(false),
            metrics: Metrics::default(),
        }
    }

    /// Serves these models from now on; requests under way finish with the old ones.
    pub(crate) fn set_models(&self, models: Vec<Arc<Server>>) {
        self.metrics.models.set(models.len() as i64);
        self.metrics.model_bytes.set(models.iter().map(|m| m.model().memory() as i64).sum());
        *self.models.write().unwrap_or_else(PoisonError::into_inner) = models;
    }

    /// Serves guests of these networks from now on; inferences under way finish with the old ones.
    pub(crate) fn set_guest_services(&self, services: Vec<Arc<GuestService>>) {
        *self.guest_services.write().unwrap_or_else(PoisonError::into_inner) = services;
    }

    /// Deals tickets from now on.
    pub(crate) fn set_dealing(&self, service: Arc<DealingService>) {
        *self.dealing.write().unwrap_or_else(PoisonError::into_inner) = Some(service);
    }

    pub(crate) fn dealing(&self) -> Option<Arc<DealingService>> {
        self.dealing.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn guest_services(&self) -> Vec<Arc<GuestService>> {
        self.guest_services.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn guest_service(&self, name: &str) -> Option<Arc<GuestService>> {
        self.guest_services().into_iter().find(|service| service.name() == name)
    }

    pub(crate) fn set_tokens(&self, tokens: Option<Tokens>) {
        *self.tokens.write().unwrap_or_else(PoisonError::into_inner) = tokens;
    }

    pub(crate) fn models(&self) -> Vec<Arc<Server>> {
        self.models.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn has_nothing(&self) -> bool {
        self.models().is_empty() && self.guest_services().is_empty() && self.dealing().is_none()
    }

    fn model(&self, name: &str) -> Option<Arc<Server>> {
        self.models().into_iter().find(|m| model_name(m.model().id()) == name)
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    pub(crate) fn allow(&self, headers: &HeaderMap) -> Result<(), Response> {
        match &*self.tokens.read().unwrap_or_else(PoisonError::into_inner) {
            Some(tokens) if !tokens.accept(headers.get(AUTHORIZATION).map(|v| v.as_bytes())) => {
                Err((StatusCode::UNAUTHORIZED, [("www-authenticate", "Bearer")], "a bearer token is needed\n")
                    .into_response())
            }
            _ => Ok(()),
        }
    }
}

pub(crate) fn router(app: Arc<App>) -> Router {
    let api = Router::new()
        .route("/v2", get(about))
        .route("/v2/health/live", get(|State(app): State<Arc<App>>| async move { counted(&app, "health", live()) }))
        .route("/v2/health/ready", get(ready))
        .route("/v2/models/{model}", get(metadata))
        .route("/v2/models/{model}/ready", get(model_ready))
        .route("/v2/models/{model}/operators/{index}", post(operator))
        .route("/v2/models/{model}/operators/{index}/hints", get(hints))
        .route("/v2/models/{model}/guests", get(guests::serving::guests))
        .route("/v2/batches/{batch}/tickets", post(dealing::tickets))
        .route("/metrics", get(metrics))
        .with_state(app.clone());
    let api = app.pages.allow(api);
    match app.pages.router(app.clone()) {
        Some(pages) => api.fallback_service(pages),
        None => api.fallback(move || async move {
            counted(&app, "other", (StatusCode::NOT_FOUND, "no such path\n").into_response())
        }),
    }
}

fn live() -> Response {
    "live\n".into_response()
}

async fn about(State(app): State<Arc<App>>) -> Response {
    let extensions: &[&str] = if app.dealing().is_some() { &["tickets"] } else { &["operators", "guests"] };
    let about = json!({ "name": "jali", "version": env!("CARGO_PKG_VERSION"), "extensions": extensions });
    counted(&app, "other", json_response(&about))
}

async fn ready(State(app): State<Arc<App>>) -> Response {
    let response = match app.is_stopping() || app.has_nothing() {
        true => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n").into_response(),
        false => "ready\n".into_response(),
    };
    counted(&app, "health", response)
}

async fn model_ready(State(app): State<Arc<App>>, Path(model): Path<String>, headers: HeaderMap) -> Response {
    let response = match app.allow(&headers) {
        Err(denied) => denied,
        Ok(()) if app.model(&model).is_some() => "ready\n".into_response(),
        Ok(()) => refused(StatusCode::NOT_FOUND, Refusal::UnknownModel),
    };
    counted(&app, "metadata", response)
}

async fn metadata(State(app): State<Arc<App>>, Path(name): Path<String>, headers: HeaderMap) -> Response {
    let response = match (app.allow(&headers), app.model(&name)) {
        (Err(denied), _) => denied,
        (_, None) => refused(StatusCode::NOT_FOUND, Refusal::UnknownModel),
        (_, Some(model)) => {
            let operators: Vec<_> = model
                .model()
                .operators()
                .iter()
                .map(|o| {
                    let wanted = o.form().wanted().count();
                    json!({ "ring_degree": o.ring().degree(), "tiles": o.tiles(), "rows": o.rows(),
                            "hidden_rows": o.hidden_rows(), "wanted": wanted })
                })
                .collect();
            let hash = hex(&model.model().content_hash());
            json_response(&json!({ "name": name, "versions": ["1"], "platform": "jali",
                                   "content_hash": hash, "operators": operators }))
        }
    };
    counted(&app, "metadata", response)
}

async fn metrics(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let response = match app.allow(&headers) {
        Err(denied) => denied,
        Ok(()) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(CONTENT_TYPE, kind)], app.metrics.text()).into_response()
        }
    };
    counted(&app, "metrics", response)
}

async fn hints(
    State(app): State<Arc<App>>,
    Path((name, index)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let response = match app.allow(&headers) {
        Err(denied) => denied,
        Ok(()) => hints_of(&app, &name, &index).await.unwrap_or_else(|refusal| refusal),
    };
    counted(&app, "hints", response)
}

/// Returns the model and the index of the operator that a path names, or the refusal to answer
/// with.
fn find(app: &App, name: &str, index: &str) -> Result<(Arc<Server>, usize), Response> {
    let unknown = |refusal| refused(StatusCode::NOT_FOUND, refusal);
    if app.models().is_empty() {
        return Err(busy("the models are being read\n"));
    }
    let model = app.model(name).ok_or_else(|| unknown(Refusal::UnknownModel))?;
    let digits = index.bytes().all(|b| b.is_ascii_digit());
    let index = index.parse().ok().filter(|_| digits).filter(|&i| i < model.model().operators().len());
    Ok((model, index.ok_or_else(|| unknown(Refusal::UnknownOperator))?))
}

async fn hints_of(app: &Arc<App>, name: &str, index: &str) -> Result<Response, Response> {
    let (model, index) = find(app, name, index)?;
    let work = model.hint_bytes(index).unwrap_or(0);
    if work > app.limits.max_memory {
        let why = "the server's --max-memory is too small for this model\n";
        return Err((StatusCode::INSUFFICIENT_STORAGE, why).into_response());
    }
    let share = app.budget.take(work).ok_or_else(|| busy("too much is under way\n"))?;
    let (message, share) = compute(app, share, move || model.hints(index).unwrap_or_default()).await?;
    Ok(answer(message, share))
}

async fn operator(
    State(app): State<Arc<App>>,
    Path((name, index)): Path<(String, String)>,
    request: Request,
) -> Response {
    let (begun, length) = (Instant::now(), request.headers().get(CONTENT_LENGTH).cloned());
    let response = apply(&app, &name, &index, request).await.unwrap_or_else(|refusal| refusal);
    tracing::info!(
        // The names in the path may be any text.
        model = name.chars().take(32).collect::<String>(),
        operator = index.chars().take(8).collect::<String>(),
        status = response.status().as_u16(),
        bytes = length.and_then(|l| l.to_str().ok()?.parse::<u64>().ok()),
        ms = begun.elapsed().as_secs_f64() * 1e3,
        "request"
    );
    counted(&app, "operators", response)
}

async fn apply(app: &Arc<App>, name: &str, index: &str, request: Request) -> Result<Response, Response> {
    app.allow(request.headers())?;
    let (model, index) = find(app, name, index)?;
    if app.is_stopping() {
        return Err(busy("stopping\n"));
    }
    let (body, mut share) = read_body(app, request).await?;
    let begun = Instant::now();
    app.metrics.bytes_in.inc_by(body.len() as u64);
    // The operator in the path, whose memory is counted, must be the one in the request, which is
    // computed.
    if operator_of(&body) != Some(index) {
        return Err(refused(StatusCode::BAD_REQUEST, Refusal::Malformed));
    }
    let images = model.images(index, body.len()).unwrap_or(0);
    let work = model.work_bytes(index, body.len()).unwrap_or(usize::MAX).saturating_sub(body.len());
    if work > app.limits.max_memory {
        return Err(refused(StatusCode::PAYLOAD_TOO_LARGE, Refusal::TooLarge));
    }
    share.join(app.budget.take(work).ok_or_else(|| busy("too much is under way\n"))?);
    let (message, share) = compute(app, share, move || model.handle(&body)).await?;
    app.metrics.seconds.observe(begun.elapsed().as_secs_f64());
    if let Some(refusal) = decode_refusal(&message) {
        let status = match refusal {
            Refusal::UnknownModel | Refusal::UnknownOperator => StatusCode::NOT_FOUND,
            Refusal::Malformed => StatusCode::BAD_REQUEST,
            Refusal::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        };
        return Err(refused(status, refusal));
    }
    app.metrics.bytes_out.inc_by(message.len() as u64);
    app.metrics.images.inc_by(images as u64);
    Ok(answer(message, share))
}

/// Reads the body of a request and returns it with the memory that it takes, or the response to
/// send instead. Memory is taken as bytes come, so that promising much and sending little does not
/// shut others out.
async fn read_body(app: &App, request: Request) -> Result<(Vec<u8>, Share), Response> {
    let too_large = || refused(StatusCode::PAYLOAD_TOO_LARGE, Refusal::TooLarge);
    let length = request.headers().get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    if length.is_some_and(|n| n > app.limits.max_body) {
        // The body is read and dropped, within the usual time: a client that still sends would not
        // see the answer.
        let mut body = request.into_body();
        let forget = async { while let Some(Ok(_)) = body.frame().await {} };
        let _ = timeout(app.limits.body_time, forget).await;
        return Err(too_large());
    }
    let none = || busy("too much is under way\n");
    let mut share = app.budget.take(0).ok_or_else(none)?;
    let mut body = request.into_body();
    let mut bytes = Vec::new();
    let read = async {
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else {
                return Err((StatusCode::BAD_REQUEST, "the body broke off\n").into_response());
            };
            let Ok(data) = frame.into_data() else { continue };
            if bytes.len() + data.len() > app.limits.max_body {
                return Err(too_large());
            }
            // Twice the bytes: a buffer that grows has its old content beside the new.
            share.join(app.budget.take(2 * data.len()).ok_or_else(none)?);
            bytes.extend_from_slice(&data);
        }
        Ok(())
    };
    match timeout(app.limits.body_time, read).await {
        Ok(result) => result?,
        Err(_) => return Err((StatusCode::REQUEST_TIMEOUT, "the body took too long\n").into_response()),
    }
    if length.is_some_and(|n| n != bytes.len()) {
        return Err(refused(StatusCode::BAD_REQUEST, Refusal::Malformed));
    }
    bytes.shrink_to_fit();
    share.shrink(bytes.len());
    Ok((bytes, share))
}
