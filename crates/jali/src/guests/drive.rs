//! Carrying an inference's messages between the two parties.

use std::time::{Duration, Instant};

use jali_guest::{
    Backend, GuestError, GuestModel, GuestSession, GuestStart, GuestTicket, Output, Served, ServerSession, Turn,
};

use crate::JaliError;

/// A way to the other party, message by message, in order.
pub trait Line {
    /// Sends a message.
    ///
    /// # Errors
    /// [`JaliError::Transport`] or [`JaliError::Net`] if the other party is gone.
    fn send(&mut self, message: Vec<u8>) -> Result<(), JaliError>;

    /// Waits for the other party's next message.
    ///
    /// # Errors
    /// [`JaliError::Transport`] or [`JaliError::Net`] if the other party is gone.
    fn receive(&mut self) -> Result<Vec<u8>, JaliError>;
}

/// What a party ended with, and what it took.
#[derive(Debug)]
pub struct Run<D> {
    /// The end.
    pub done: D,
    /// By step of the circuit: time that this party computed, waiting left out.
    pub computing: Vec<Duration>,
    /// Bytes of the messages that this party sent.
    pub bytes_sent: usize,
    /// Bytes of the messages that it received.
    pub bytes_received: usize,
    /// Messages that it received.
    pub messages: usize,
}

/// Times and bytes under way.
#[derive(Debug, Default)]
struct Meter {
    computing: Vec<Duration>,
    bytes_sent: usize,
    bytes_received: usize,
    messages: usize,
}

impl Meter {
    fn computed(&mut self, step: usize, since: Instant) {
        self.computing.resize(self.computing.len().max(step + 1), Duration::ZERO);
        self.computing[step] += since.elapsed();
    }

    fn send(&mut self, line: &mut impl Line, message: Vec<u8>) -> Result<(), JaliError> {
        self.bytes_sent += message.len();
        line.send(message)
    }

    fn receive(&mut self, line: &mut impl Line) -> Result<Vec<u8>, JaliError> {
        let message = line.receive()?;
        self.bytes_received += message.len();
        self.messages += 1;
        Ok(message)
    }

    /// Sends what a turn gives, and returns the session that goes on, or the end. `begun` says at
    /// which step the turn began, and when.
    fn turn<S, D>(
        &mut self,
        line: &mut impl Line,
        turn: Turn<S, D>,
        step: impl Fn(&S) -> usize,
        begun: (usize, Instant),
    ) -> Result<Result<S, D>, JaliError> {
        let at = match &turn {
            Turn::Goes { session, .. } | Turn::Waits(session) => step(session),
            Turn::Done(_) => begun.0,
        };
        self.computed(at, begun.1);
        Ok(match turn {
            Turn::Goes { message, session } => {
                self.send(line, message)?;
                Ok(session)
            }
            Turn::Waits(session) => Ok(session),
            Turn::Done(end) => Err(end),
        })
    }

    fn end<D>(self, done: D) -> Run<D> {
        let Self { computing, bytes_sent, bytes_received, messages } = self;
        Run { done, computing, bytes_sent, bytes_received, messages }
    }
}

/// Serves one inference over a line.
///
/// # Errors
/// [`JaliError::Guest`] for a message of another form; the line's errors.
pub fn serve(session: ServerSession<'_>, line: &mut impl Line) -> Result<Run<Served>, JaliError> {
    let mut meter = Meter::default();
    let mut served = exchanges(session, &mut meter, line, ServerSession::step, |s, m| s.receive(m))?;
    meter.send(line, std::mem::take(&mut served.message))?;
    Ok(meter.end(served))
}

/// Carries messages until a session has ended; returns its end.
fn exchanges<S, D>(
    mut session: S,
    meter: &mut Meter,
    line: &mut impl Line,
    step: impl Fn(&S) -> usize,
    receive: impl Fn(S, &[u8]) -> Result<Turn<S, D>, GuestError>,
) -> Result<D, JaliError> {
    loop {
        let message = meter.receive(line)?;
        let begun = (step(&session), Instant::now());
        match meter.turn(line, receive(session, &message)?, &step, begun)? {
            Ok(next) => session = next,
            Err(end) => return Ok(end),
        }
    }
}

/// An inference of a guest that has computed what comes before its first message.
#[derive(Debug)]
pub struct Begun<'m> {
    message: Vec<u8>,
    start: GuestStart<'m>,
    meter: Meter,
}

/// Begins an inference: computes what is open, and masks it, before anybody is connected to. With
/// `traced`, what a comparison needs is kept.
///
/// # Errors
/// [`JaliError::Guest`] for another network's ticket, which is used up in any case.
pub fn begin<'m>(
    model: &'m GuestModel,
    backend: Backend,
    ticket: GuestTicket,
    input: &[i32],
    traced: bool,
) -> Result<Begun<'m>, JaliError> {
    let mut meter = Meter::default();
    let start = Instant::now();
    let (message, mut begun) = GuestSession::begin(model, backend, ticket, input)?;
    meter.computed(begun.step(), start);
    if traced {
        begun = begun.traced();
    }
    Ok(Begun { message, start: begun, meter })
}

/// Infers over a line: the guest's side.
///
/// # Errors
/// [`JaliError::Guest`] for another network's ticket or a message of another form; the line's
/// errors.
pub fn infer(begun: Begun<'_>, line: &mut impl Line) -> Result<Run<Output>, JaliError> {
    let Begun { message, start, mut meter } = begun;
    meter.send(line, message)?;
    let (last, since) = (start.step(), Instant::now());
    let output = match meter.turn(line, start.run()?, GuestSession::step, (last, since))? {
        Ok(session) => exchanges(session, &mut meter, line, GuestSession::step, |s, m| s.receive(m))?,
        Err(output) => output,
    };
    Ok(meter.end(output))
}
