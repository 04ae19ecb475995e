//! The body of every answer: patgate's own words, or a stream from Azure DevOps with its record.

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;

use super::{
    flow::{Account, Flow, Lease},
    supply::Supply,
};
use crate::{
    audit::{Ending, Entry},
    limits::Shares,
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
    /// An operator took the credential away.
    #[error("the answer was cut by an operator")]
    Cut,
}

/// The body of every answer: patgate's own words, or a stream from Azure DevOps.
pub struct Body(Kind);

enum Kind {
    Full(Full<Bytes>),
    Stream(Box<Flow<Outcome>>),
}

impl Body {
    /// No bytes.
    #[must_use]
    pub fn empty() -> Self {
        Self(Kind::Full(Full::default()))
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

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Full::new(bytes).into()
    }
}

impl From<Full<Bytes>> for Body {
    fn from(full: Full<Bytes>) -> Self {
        Self(Kind::Full(full))
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
            Kind::Full(full) => Pin::new(full)
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(|never| match never {}))),
            Kind::Stream(flow) => flow.poll_piece(cx).map(|piece| piece.map(|data| data.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Full(full) => full.is_end_stream(),
            Kind::Stream(flow) => flow.is_finished(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Full(full) => full.size_hint(),
            Kind::Stream(flow) => flow.size_hint(),
        }
    }
}

/// The record, and the share that is given back with it.
pub(super) struct Outcome {
    pub(super) entry: Entry,
    pub(super) share: Shares,
}

impl Account for Outcome {
    fn close(self, bytes_in: u64, bytes_out: u64, ending: Option<Ending>) {
        let Self { mut entry, share } = self;
        let facts = entry.facts_mut();
        facts.bytes_in = bytes_in;
        facts.bytes_out = bytes_out;
        match ending {
            Some(ending) => entry.end(ending),
            // Its own drop writes that the client left.
            None => drop(entry),
        }
        drop(share);
    }
}
