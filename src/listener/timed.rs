//! A connection that does not wait for ever.
//!
//! hyper has one timer, for the head, and it also runs while a kept-alive connection is idle; it
//! has none for writing. So the deadlines are kept here, where every read and write passes:
//! *keep-alive* until the first byte of a head, *head* until it is whole, *write* for a client
//! that does not take what it asked for. Bodies have theirs in [`crate::upstream`].
//!
//! Over HTTP/2 a client need not stall the transport to hold an answer: it gives the stream no window. Nobody
//! asks the answer's body for more then, so each tells here when it is the client that is waited for.

use std::{
    cell::{Cell, RefCell},
    future::Future as _,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::time::Sleep;

use crate::{clock, config::Limits};

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doing {
    /// Nothing was read since the last answer.
    Idle,
    /// A head has begun.
    Head,
    /// At least one request is with the pipeline.
    Busy,
}

/// A client's connection, for whoever has to end it in the middle of an answer that the client does not take.
#[derive(Clone, Debug, Default)]
pub struct Lifeline(Rc<Cell<bool>>);

impl Lifeline {
    /// The connection ends when its task is woken next.
    pub(crate) fn cut(&self) {
        self.0.set(true);
    }

    fn held<T>(&self, pending: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if self.0.get() { Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into())) } else { pending }
    }
}

/// What a connection is doing, since when; shared by its transport and its requests.
#[derive(Debug)]
pub(crate) struct Phase {
    doing: Cell<Doing>,
    since: Cell<Instant>,
    requests: Cell<usize>,
    /// Answers of a multiplexed connection that wait for the client to take them, and since when.
    untaken: RefCell<Vec<(u64, Instant)>>,
    turns: Cell<u64>,
    fresh: Cell<bool>,
    multiplexed: bool,
    lifeline: Lifeline,
    keep_alive: Duration,
    head: Duration,
    write: Duration,
}

impl Phase {
    pub(crate) fn new(limits: &Limits, multiplexed: bool) -> Rc<Self> {
        Rc::new(Self {
            doing: Cell::new(Doing::Idle),
            since: Cell::new(clock::now()),
            requests: Cell::new(0),
            untaken: RefCell::default(),
            turns: Cell::new(0),
            fresh: Cell::new(true),
            multiplexed,
            lifeline: Lifeline::default(),
            keep_alive: limits.keep_alive,
            head: limits.head,
            write: limits.write_idle,
        })
    }

    pub(crate) fn doing(&self) -> Doing {
        self.doing.get()
    }

    /// Whether a request is to be expected that nobody was told not to send: the connection is new,
    /// or a head has begun.
    pub(crate) fn owes_a_request(&self) -> bool {
        self.fresh.get() || self.doing.get() == Doing::Head
    }

    /// Whether several requests share the connection at once (HTTP/2).
    pub(crate) fn is_multiplexed(&self) -> bool {
        self.multiplexed
    }

    /// The connection, for the request that has it alone; over HTTP/2 a line to nothing.
    pub(crate) fn lifeline(&self) -> Lifeline {
        if self.multiplexed { Lifeline::default() } else { self.lifeline.clone() }
    }

    /// A request begins; it ends when the turn is dropped.
    pub(crate) fn begin(self: &Rc<Self>) -> Turn {
        self.requests.set(self.requests.get() + 1);
        self.fresh.set(false);
        self.doing.set(Doing::Busy);
        let number = self.turns.get();
        self.turns.set(number + 1);
        Turn { phase: Rc::clone(self), number }
    }

    fn bytes_came(&self) {
        if self.doing.get() == Doing::Idle && !self.multiplexed {
            self.doing.set(Doing::Head);
            self.since.set(clock::now());
        }
    }

    fn read_deadline(&self) -> Option<Instant> {
        match self.doing.get() {
            Doing::Idle => Some(self.since.get() + self.keep_alive),
            Doing::Head => Some(self.since.get() + self.head),
            // Looked at again and again, for an answer may become the client's to take at any time.
            Doing::Busy if self.multiplexed => {
                let oldest = self.untaken.borrow().iter().map(|(_, since)| *since).min();
                Some(oldest.unwrap_or_else(clock::now) + self.write)
            }
            Doing::Busy => None,
        }
    }
}

/// A request under way on a connection.
#[derive(Debug)]
pub(crate) struct Turn {
    phase: Rc<Phase>,
    number: u64,
}

impl Turn {
    /// There is something for the client to take: from now on it is the client that is waited for.
    pub(crate) fn offer(&self) {
        if self.phase.multiplexed {
            let mut untaken = self.phase.untaken.borrow_mut();
            untaken.retain(|(number, _)| *number != self.number);
            untaken.push((self.number, clock::now()));
        }
    }

    /// The client took it all, and is not waited for.
    pub(crate) fn taken(&self) {
        if self.phase.multiplexed {
            self.phase.untaken.borrow_mut().retain(|(number, _)| *number != self.number);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.taken();
        let left = self.phase.requests.get().saturating_sub(1);
        self.phase.requests.set(left);
        if left == 0 {
            self.phase.doing.set(Doing::Idle);
            self.phase.since.set(clock::now());
        }
    }
}

/// A timer that is moved only when it has to be: later deadlines are noticed when it fires.
#[derive(Debug, Default)]
struct Alarm {
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Alarm {
    /// Ready once `deadline` has passed.
    fn poll(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = tokio::time::Instant::from_std(deadline);
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        loop {
            match sleep.as_mut().poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(()) if sleep.deadline() >= deadline => return Poll::Ready(()),
                Poll::Ready(()) => sleep.as_mut().reset(deadline),
            }
        }
    }
}

/// A transport with deadlines.
#[derive(Debug)]
pub(crate) struct Timed<T> {
    io: T,
    phase: Rc<Phase>,
    reading: Alarm,
    writing: Alarm,
    stalled: Option<Instant>,
}

impl<T> Timed<T> {
    pub(crate) fn new(io: T, phase: Rc<Phase>) -> Self {
        Self { io, phase, reading: Alarm::default(), writing: Alarm::default(), stalled: None }
    }

    fn written<R>(&mut self, outcome: Poll<io::Result<R>>, cx: &mut Context<'_>) -> Poll<io::Result<R>> {
        if outcome.is_ready() {
            self.stalled = None;
            return outcome;
        }
        let since = *self.stalled.get_or_insert_with(clock::now);
        match self.writing.poll(since + self.phase.write, cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => self.phase.lifeline.held(Poll::Pending),
        }
    }
}

impl<T: Read + Unpin> Read for Timed<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        match Pin::new(&mut this.io).poll_read(cx, buf) {
            Poll::Ready(outcome) => {
                this.phase.bytes_came();
                Poll::Ready(outcome)
            }
            Poll::Pending => match this.phase.read_deadline() {
                Some(deadline) => match this.reading.poll(deadline, cx) {
                    Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
                    Poll::Pending => Poll::Pending,
                },
                None => Poll::Pending,
            },
        }
    }
}

impl<T: Write + Unpin> Write for Timed<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.io).poll_write(cx, buf);
        self.written(outcome, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.written(outcome, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.io).poll_flush(cx);
        self.written(outcome, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.io).poll_shutdown(cx);
        self.written(outcome, cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use hyper::rt::ReadBuf;
    use hyper_util::rt::TokioIo;

    use super::*;

    fn phase(multiplexed: bool) -> Rc<Phase> {
        Phase::new(&Limits::default(), multiplexed)
    }

    /// How long a connection is read from although nothing comes; `None`: an hour and longer.
    async fn patience(phase: &Rc<Phase>) -> Option<Duration> {
        let (near, _far) = tokio::io::duplex(64);
        let mut io = Timed::new(TokioIo::new(near), Rc::clone(phase));
        let begun = clock::now();
        let mut buffer = [0; 8];
        let read = poll_fn(|cx| {
            let mut buffer = ReadBuf::new(&mut buffer);
            Pin::new(&mut io).poll_read(cx, buffer.unfilled())
        });
        let error = tokio::time::timeout(Duration::from_hours(1), read).await.ok()?.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        Some(clock::now() - begun)
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_without_a_window_does_not_hold_its_answer_for_ever() {
        let limits = Limits::default();
        let phase = phase(true);
        let one = phase.begin();
        assert_eq!(patience(&phase).await, None, "Azure DevOps is waited for, which has its own deadline");
        one.offer();
        assert_eq!(patience(&phase).await, Some(limits.write_idle));
        one.taken();
        assert_eq!(patience(&phase).await, None);
        one.offer();
        let other = phase.begin();
        tokio::time::sleep(limits.write_idle / 2).await;
        other.offer();
        assert_eq!(patience(&phase).await, Some(limits.write_idle / 2), "the oldest counts");
        drop(one);
        assert_eq!(patience(&phase).await, Some(limits.write_idle / 2), "then the other");
        drop(other);
        assert_eq!(patience(&phase).await, Some(limits.keep_alive));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_says_nothing_is_let_go() {
        for multiplexed in [false, true] {
            assert_eq!(patience(&phase(multiplexed)).await, Some(Limits::default().keep_alive));
        }
        let phase = phase(false);
        phase.bytes_came();
        assert_eq!(patience(&phase).await, Some(Limits::default().head), "a head that has begun");
        let turn = phase.begin();
        assert_eq!(patience(&phase).await, None, "HTTP/1 stalls the transport itself");
        drop(turn);
    }
}
