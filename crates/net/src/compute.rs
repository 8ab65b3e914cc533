//! Runs work on the computing threads, and makes answers that give their memory back.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use http_body::Frame;
use tokio::time::timeout;

use crate::answers::busy;
use crate::app::App;
use crate::budget::Share;

/// Most bytes of an answer that are handed to a connection at a time.
const CHUNK: usize = 64 << 10;
pub(crate) const BINARY: &str = "application/octet-stream";

/// Counts a request for as long as it waits or is computed.
struct InFlight(Arc<App>);

impl InFlight {
    fn new(app: &Arc<App>) -> Self {
        app.metrics.in_flight.inc();
        Self(app.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.metrics.in_flight.dec();
    }
}

/// Runs large work on the computing threads, a bounded number of pieces at a time, and returns its
/// bytes with `share`, the memory that it was given. Place, turn and memory stay with the work and
/// not with whoever waits for it: when a client goes away, nothing is given back before its work
/// has ended or was found unwanted.
///
/// # Errors
/// The response to send instead: 503 if the queue is full or the wait for a turn too long, 500 if
/// the work panicked.
pub(crate) async fn compute(
    app: &Arc<App>,
    share: Share,
    work: impl FnOnce() -> Vec<u8> + Send + 'static,
) -> Result<(Vec<u8>, Share), Response> {
    let place = app.places.clone().try_acquire_owned().map_err(|_| busy("the queue is full\n"))?;
    let in_flight = InFlight::new(app);
    let Ok(Ok(turn)) = timeout(app.limits.queue_time, app.running.clone().acquire_owned()).await else {
        return Err(busy("waited too long\n"));
    };
    let (sender, receiver) = tokio::sync::oneshot::channel();
    rayon::spawn(move || {
        let _held = (place, turn, in_flight);
        if sender.is_closed() {
            return;
        }
        // A panic here would be a defect of ours; it must cost this request alone.
        if let Ok(bytes) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)) {
            let _ = sender.send((bytes, share));
        }
    });
    let failed = |_| (StatusCode::INTERNAL_SERVER_ERROR, "the computation failed\n").into_response();
    receiver.await.map_err(failed)
}

/// Makes a response of a message. It gives its memory back when it is dropped: after the client has
/// taken it, or with its connection when the time for that is over.
pub(crate) fn answer(message: Vec<u8>, mut share: Share) -> Response {
    share.shrink(message.len());
    let length = message.len();
    let body = Body::new(Answer { left: Bytes::from(message), _share: share });
    let mut response = (([(CONTENT_TYPE, BINARY)]), body).into_response();
    response.headers_mut().insert(CONTENT_LENGTH, length.into());
    response
}

struct Answer {
    left: Bytes,
    _share: Share,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left.is_empty() {
            return Poll::Ready(None);
        }
        let count = self.left.len().min(CHUNK);
        Poll::Ready(Some(Ok(Frame::data(self.left.split_to(count)))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.left.len() as u64)
    }
}
