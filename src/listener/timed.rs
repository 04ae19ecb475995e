//! A connection that does not wait for ever.
//!
//! hyper has one timer, for the head, and it also runs while a kept-alive connection is idle; it
//! has none for writing. So the deadlines are kept here, where every read and write passes:
//! *keep-alive* until the first byte of a head, *head* until it is whole, *write* for a client
//! that does not take what it asked for. Bodies have theirs in [`crate::upstream`].

use std::{
    cell::Cell,
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

/// What a connection is doing, since when; shared by its transport and its requests.
#[derive(Debug)]
pub(crate) struct Phase {
    doing: Cell<Doing>,
    since: Cell<Instant>,
    requests: Cell<usize>,
    fresh: Cell<bool>,
    multiplexed: bool,
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
            fresh: Cell::new(true),
            multiplexed,
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

    /// A request begins; it ends when the turn is dropped.
    pub(crate) fn begin(self: &Rc<Self>) -> Turn {
        self.requests.set(self.requests.get() + 1);
        self.fresh.set(false);
        self.doing.set(Doing::Busy);
        Turn(Rc::clone(self))
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
            Doing::Busy => None,
        }
    }
}

/// A request under way on a connection.
#[derive(Debug)]
pub(crate) struct Turn(Rc<Phase>);

impl Drop for Turn {
    fn drop(&mut self) {
        let left = self.0.requests.get().saturating_sub(1);
        self.0.requests.set(left);
        if left == 0 {
            self.0.doing.set(Doing::Idle);
            self.0.since.set(clock::now());
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
            Poll::Pending => Poll::Pending,
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
