//! Keeps track of what every connection is doing and for how long it may: no client holds a place,
//! or bytes, by waiting.
//!
//! A connection has a place until it ends. When all places are taken, a connection that only waits
//! loses its place to the newcomer. Those of which no request was allowed yet lose theirs first,
//! and among equals the one that has waited longest. When all connections are at work, there are a
//! few more places for health checks; any other request there is told to come back.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::{future, pin::Pin};

use axum::body::{Body, Bytes};
use http_body::{Frame, SizeHint};
use tokio::sync::Notify;
use tokio::time::{Duration, Instant, sleep_until};

/// Places beyond the limit, for health checks.
const RESERVE: usize = 8;

/// The things that a connection can be doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    /// It shakes hands, sends a request's head, or asks for nothing.
    Waiting,
    /// Its request is being read, queued or computed; each of these has a limit of its own.
    Asking,
    /// Its client is taking an answer.
    Taking,
}

/// Times for which a connection may be in a state.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// To ask for something.
    pub(crate) waiting: Duration,
    /// To take an answer.
    pub(crate) taking: Duration,
}

#[derive(Debug)]
struct State {
    doing: Doing,
    since: Instant,
    /// Whether one of its requests was allowed.
    known: bool,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    number: u64,
    begun: Instant,
    /// Whether it has one of the places for health checks.
    pub(crate) is_reserve: bool,
    shared: Arc<Shared>,
    all: Arc<Connections>,
}

/// What others see of a connection. It has no end of its own: whoever looks at it, with all
/// connections locked, may be the last who does.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
    displaced: AtomicBool,
}

/// All connections.
#[derive(Debug)]
pub(crate) struct Connections {
    places: usize,
    inside: Mutex<Inside>,
    left: Notify,
}

#[derive(Debug, Default)]
struct Inside {
    next: u64,
    connections: BTreeMap<u64, Arc<Shared>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Connections {
    pub(crate) fn new(places: usize) -> Arc<Self> {
        Arc::new(Self { places: places.max(1), inside: Mutex::default(), left: Notify::new() })
    }

    /// Waits for a place and returns a connection that has it.
    pub(crate) async fn enter(self: &Arc<Self>) -> Arc<Connection> {
        loop {
            if let Some(connection) = self.try_enter() {
                return connection;
            }
            self.left.notified().await;
        }
    }

    fn try_enter(self: &Arc<Self>) -> Option<Arc<Connection>> {
        let mut inside = lock(&self.inside);
        let count = inside.connections.len();
        let displaced = if count < self.places { None } else { inside.longest_waiting() };
        let is_reserve = count >= self.places && displaced.is_none();
        if is_reserve && count >= self.places + RESERVE {
            return None;
        }
        if let Some(number) = displaced
            && let Some(connection) = inside.connections.remove(&number)
        {
            connection.displaced.store(true, Ordering::Relaxed);
            connection.changed.notify_one();
        }
        let (now, number) = (Instant::now(), inside.next);
        inside.next += 1;
        let shared = Arc::new(Shared {
            state: Mutex::new(State { doing: Doing::Waiting, since: now, known: false }),
            changed: Notify::new(),
            displaced: AtomicBool::new(false),
        });
        inside.connections.insert(number, shared.clone());
        Some(Arc::new(Connection { number, begun: now, is_reserve, shared, all: self.clone() }))
    }
}

impl Inside {
    /// Returns the number of the connection whose place a newcomer may take, if there is one that
    /// waits: unknown ones first, and among equals the one that has waited longest.
    fn longest_waiting(&self) -> Option<u64> {
        let waiting = self.connections.iter().filter_map(|(&number, connection)| {
            let state = lock(&connection.state);
            (state.doing == Doing::Waiting).then_some((state.known, state.since, number))
        });
        waiting.min().map(|(_, _, number)| number)
    }
}

impl Connection {
    fn set(&self, doing: Doing) {
        let mut state = lock(&self.shared.state);
        (state.doing, state.since) = (doing, Instant::now());
        drop(state);
        self.shared.changed.notify_one();
    }

    /// Notes that a request's head has come.
    pub(crate) fn asks(&self) {
        self.set(Doing::Asking);
    }

    /// Notes that a request was allowed.
    pub(crate) fn is_known(&self) {
        lock(&self.shared.state).known = true;
    }

    /// Returns how long the connection has been open.
    pub(crate) fn age(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Wraps an answer's body: until it is dropped, the connection counts as taking it.
    pub(crate) fn takes(self: &Arc<Self>, body: Body) -> Body {
        self.set(Doing::Taking);
        Body::new(Taken { body, connection: self.clone() })
    }

    /// Returns, with the reason, when the connection must end: it has waited or taken an answer for
    /// too long, or another one takes its place. The caller then drops the connection's bytes. This
    /// works without a look at the connection itself, which may be silent.
    pub(crate) async fn overdue(&self, times: Times) -> &'static str {
        loop {
            if self.shared.displaced.load(Ordering::Relaxed) {
                return "another connection needed its place";
            }
            let (doing, since) = {
                let state = lock(&self.shared.state);
                (state.doing, state.since)
            };
            let (limit, why) = match doing {
                Doing::Waiting => (Some(times.waiting), "it asked for nothing"),
                Doing::Taking => (Some(times.taking), "it did not take its answer"),
                Doing::Asking => (None, ""),
            };
            let end = async {
                match limit {
                    Some(limit) => sleep_until(since + limit).await,
                    None => future::pending().await,
                }
            };
            tokio::select! {
                () = end => return why,
                () = self.shared.changed.notified() => {}
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        lock(&self.all.inside).connections.remove(&self.number);
        self.all.left.notify_one();
    }
}

/// A body that notes on its connection when it has been taken or dropped.
struct Taken {
    body: Body,
    connection: Arc<Connection>,
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.connection.set(Doing::Waiting);
    }
}

impl http_body::Body for Taken {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: Times = Times { waiting: Duration::from_millis(50), taking: Duration::from_millis(100) };

    #[tokio::test]
    async fn strangers_lose_their_places_first_and_health_checks_find_one() {
        let all = Connections::new(3);
        let stranger = all.try_enter().unwrap();
        let known = all.try_enter().unwrap();
        let busy = all.try_enter().unwrap();
        known.is_known();
        busy.asks();
        let second = all.try_enter().unwrap();
        assert!(stranger.shared.displaced.load(Ordering::Relaxed) && !second.is_reserve);
        second.asks();
        let third = all.try_enter().unwrap();
        assert!(known.shared.displaced.load(Ordering::Relaxed) && !third.is_reserve);
        third.asks();
        // All are at work: what comes now gets a place for health checks, and only so many do.
        let reserve: Vec<_> = (0..RESERVE).map(|_| all.try_enter().unwrap()).inspect(|c| c.asks()).collect();
        assert!(reserve.iter().all(|c| c.is_reserve));
        assert!(all.try_enter().is_none());
        drop(busy);
        assert!(all.try_enter().is_some());
    }

    #[tokio::test]
    async fn every_state_but_our_own_work_ends_by_itself() {
        let all = Connections::new(3);
        let connection = all.try_enter().unwrap();
        assert_eq!(connection.overdue(TIMES).await, "it asked for nothing");
        connection.asks();
        assert!(tokio::time::timeout(4 * TIMES.taking, connection.overdue(TIMES)).await.is_err());
        let body = connection.takes(Body::from("x"));
        assert_eq!(connection.overdue(TIMES).await, "it did not take its answer");
        drop(body);
        assert_eq!(connection.overdue(TIMES).await, "it asked for nothing");
    }

    /// Connections come and go on several threads while others look for a place.
    #[test]
    fn nobody_waits_for_a_connection_that_ends() {
        let (all, (done, ended)) = (Connections::new(2), std::sync::mpsc::channel());
        for _ in 0..4 {
            let (all, done) = (all.clone(), done.clone());
            std::thread::spawn(move || {
                (0..20_000).for_each(|_| drop(all.try_enter()));
                done.send(()).unwrap();
            });
        }
        for _ in 0..4 {
            ended.recv_timeout(Duration::from_secs(60)).expect("a thread waits for ever");
        }
    }
}
