//! Counters for Prometheus of numbers, times and sizes, never of content.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// A path's pattern and the status of the answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Labels {
    /// `operators`, `hints`, `guests`, `tickets`, `metadata`, `health`, `metrics`, `other`.
    pub path: &'static str,
    /// The HTTP status.
    pub status: u16,
}

/// All counters.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Requests by path and status.
    pub requests: Family<Labels, Counter>,
    /// Seconds from the last byte of a request for an operator to its answer, waiting included.
    pub seconds: Histogram,
    /// Images of requests for operators.
    pub images: Counter,
    /// Bytes of the bodies of these requests.
    pub bytes_in: Counter,
    /// Bytes of the answers.
    pub bytes_out: Counter,
    /// Connections that are open.
    pub connections: Gauge,
    /// Requests that wait for a place or are computed.
    pub in_flight: Gauge,
    /// Models served.
    pub models: Gauge,
    /// Bytes of memory that their matrices take.
    pub model_bytes: Gauge,
    /// Successful reloads.
    pub reloads: Counter,
    /// Guests that are connected.
    pub guests: Gauge,
    /// Tickets that guests have used up.
    pub tickets: Counter,
    /// Tickets that were dealt on demand.
    pub tickets_dealt: Counter,
    /// Guests whose tickets were refused.
    pub tickets_refused: Counter,
    /// Those of them whose tickets were used before.
    pub replays: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("jali");
        let seconds = Histogram::new(exponential_buckets(0.000_5, 2.0, 16));
        let m = Self {
            requests: Family::default(),
            images: Counter::default(),
            bytes_in: Counter::default(),
            bytes_out: Counter::default(),
            connections: Gauge::default(),
            in_flight: Gauge::default(),
            models: Gauge::default(),
            model_bytes: Gauge::default(),
            reloads: Counter::default(),
            guests: Gauge::default(),
            tickets: Counter::default(),
            tickets_dealt: Counter::default(),
            tickets_refused: Counter::default(),
            replays: Counter::default(),
            seconds,
            registry: Registry::default(),
        };
        registry.register("requests", "Requests by path and status", m.requests.clone());
        registry.register("operator_seconds", "Seconds from a request's last byte to its answer", m.seconds.clone());
        registry.register("images", "Images of requests for operators", m.images.clone());
        registry.register("received_bytes", "Bytes of bodies of requests for operators", m.bytes_in.clone());
        registry.register("sent_bytes", "Bytes of answers of operators", m.bytes_out.clone());
        registry.register("connections", "Open connections", m.connections.clone());
        registry.register("in_flight", "Requests for operators that wait or are computed", m.in_flight.clone());
        registry.register("models", "Models served", m.models.clone());
        registry.register("model_bytes", "Bytes of memory of all matrices", m.model_bytes.clone());
        registry.register("reloads", "Successful reloads", m.reloads.clone());
        registry.register("guests", "Guests that are connected", m.guests.clone());
        registry.register("tickets", "Tickets that guests have used up", m.tickets.clone());
        registry.register("tickets_dealt", "Tickets that were dealt on demand", m.tickets_dealt.clone());
        registry.register("tickets_refused", "Guests whose tickets were refused", m.tickets_refused.clone());
        registry.register("replays", "Guests whose tickets were used before", m.replays.clone());
        Self { registry, ..m }
    }
}

impl Metrics {
    /// Returns all counters in OpenMetrics' text form.
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut out, &self.registry);
        out
    }
}
