//! Answers that are not an operator's: refusals, and metadata as JSON.

use axum::http::StatusCode;
use axum::http::header::{CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use axum::response::{IntoResponse, Response};
use jali_protocol::message::{Refusal, encode_refusal};

use crate::app::App;
use crate::compute::BINARY;
use crate::metrics::Labels;

/// Counts a response of a path.
pub(crate) fn counted(app: &App, path: &'static str, response: Response) -> Response {
    app.metrics.requests.get_or_create(&Labels { path, status: response.status().as_u16() }).inc();
    response
}

pub(crate) fn json_response(value: &serde_json::Value) -> Response {
    ([(CONTENT_TYPE, "application/json")], format!("{value}\n")).into_response()
}

pub(crate) fn refused(status: StatusCode, refusal: Refusal) -> Response {
    (status, [(CONTENT_TYPE, BINARY)], encode_refusal(refusal)).into_response()
}

/// Makes the response 503 that asks a client to come back in a second, and says why.
pub(crate) fn busy(why: &'static str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "1")], why).into_response()
}

/// Makes the response of a server whose places are all taken by requests; it ends the connection.
pub(crate) fn full() -> Response {
    let mut response = busy("all connections are at work\n");
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}
