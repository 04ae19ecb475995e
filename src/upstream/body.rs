//! An answer's body on its way down, and the one place where an answered request ends.
//!
//! A body that can't be brought to its end is an error here, which makes hyper cut the client's connection: a
//! clone that lacks its last bytes must never look whole.

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;

use super::{
    idle::Idle,
    pool::{Connection, Pool},
    supply::Supply,
};
use crate::{
    audit::{Ending, Entry},
    limits::Share,
};

/// Why an answer broke off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Azure DevOps went away before the end.
    #[error("the answer of Azure DevOps broke off")]
    BrokenOff,
    /// Nothing came for `[limits] body-idle`.
    #[error("the answer of Azure DevOps fell silent")]
    Silent,
}

/// The body of every answer: patgate's own words, or a stream from Azure DevOps.
pub struct Body(Kind);

enum Kind {
    Full(Option<Bytes>),
    Stream(Box<Flow<Outcome>>),
}

impl Body {
    /// No bytes.
    #[must_use]
    pub fn empty() -> Self {
        Self(Kind::Full(None))
    }

    /// These bytes.
    #[must_use]
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        Self(Kind::Full(Some(bytes.into()).filter(|bytes| !bytes.is_empty())))
    }

    /// What Azure DevOps sends. Where there is nothing to come, the request has ended.
    pub(super) fn stream(
        incoming: Incoming,
        lease: Lease,
        supply: Rc<Supply>,
        idle: Duration,
        outcome: Outcome,
    ) -> Self {
        let flow = Flow::new(incoming, lease, supply, idle, outcome);
        if flow.is_finished() { Self::empty() } else { Self(Kind::Stream(Box::new(flow))) }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.get_mut().0 {
            Kind::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Kind::Stream(flow) => flow.poll_piece(cx).map(|piece| piece.map(|data| data.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Full(bytes) => bytes.is_none(),
            Kind::Stream(flow) => flow.is_finished(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Kind::Stream(flow) => http_body::Body::size_hint(&flow.incoming),
        }
    }
}

/// A connection in use, and where it goes afterwards.
pub(super) struct Lease {
    pub(super) connection: Connection,
    pub(super) pool: Rc<Pool>,
}

/// Told once how a request ended; dropped where nobody waited for the end.
pub(super) trait Account {
    /// The last word: bytes from and to the client, and how it ended; `None` where the client left.
    fn close(self, bytes_in: u64, bytes_out: u64, ending: Option<Ending>);
}

/// The record, and the share that is given back with it.
pub(super) struct Outcome {
    pub(super) entry: Entry,
    pub(super) share: Share,
}

impl Account for Outcome {
    fn close(mut self, bytes_in: u64, bytes_out: u64, ending: Option<Ending>) {
        let facts = self.entry.facts_mut();
        facts.bytes_in = bytes_in;
        facts.bytes_out = bytes_out;
        if let Some(ending) = ending {
            self.entry.end(ending);
        }
    }
}

/// A body under way.
pub(super) struct Flow<A: Account> {
    incoming: Incoming,
    lease: Option<Lease>,
    supply: Rc<Supply>,
    idle: Idle,
    bytes: u64,
    /// `None` once the end is on record.
    account: Option<A>,
}

impl<A: Account> Flow<A> {
    pub(super) fn new(
        incoming: Incoming,
        lease: Lease,
        supply: Rc<Supply>,
        idle: Duration,
        account: A,
    ) -> Self {
        let idle = Idle::new(idle);
        let mut flow =
            Self { incoming, lease: Some(lease), supply, idle, bytes: 0, account: Some(account) };
        flow.finish_at_end();
        flow
    }

    pub(super) fn is_finished(&self) -> bool {
        self.account.is_none()
    }

    pub(super) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        loop {
            if self.is_finished() {
                return Poll::Ready(None);
            }
            let frame = match http_body::Body::poll_frame(Pin::new(&mut self.incoming), cx) {
                Poll::Ready(frame) => frame,
                Poll::Pending => {
                    return self.idle.poll_silence(cx).map(|()| Some(Err(self.fail(BodyError::Silent))));
                }
            };
            self.idle.moved();
            match frame.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => {
                    self.bytes += data.len() as u64;
                    self.finish_at_end();
                    return Poll::Ready(Some(Ok(data)));
                }
                // Trailers end here, as on the way up.
                Some(Ok(Err(_))) => {}
                Some(Err(_)) => return Poll::Ready(Some(Err(self.fail(BodyError::BrokenOff)))),
                None => self.finish(),
            }
        }
    }

    fn finish_at_end(&mut self) {
        if http_body::Body::is_end_stream(&self.incoming) {
            self.finish();
        }
    }

    /// The end, clean. The connection is good for another request only if this one was sent whole.
    fn finish(&mut self) {
        if let Some(lease) = self.lease.take()
            && self.supply.is_whole()
        {
            lease.pool.give_back(lease.connection);
        }
        self.close(Some(Ending::Complete));
    }

    /// An end that is none. Where the request's own body broke off first, that is why.
    fn fail(&mut self, error: BodyError) -> BodyError {
        self.lease = None;
        let client = self.supply.short().is_some();
        self.close(Some(if client { Ending::ClientGone } else { Ending::UpstreamGone }));
        error
    }

    fn close(&mut self, ending: Option<Ending>) {
        if let Some(account) = self.account.take() {
            account.close(self.supply.bytes(), self.bytes, ending);
        }
    }
}

impl<A: Account> Drop for Flow<A> {
    fn drop(&mut self) {
        self.close(None);
    }
}
