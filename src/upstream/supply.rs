//! A request's body on its way up.
//!
//! Streamed piece by piece, never ended cleanly unless the client ended it cleanly: an error here makes hyper cut
//! the connection, so that Azure DevOps never takes half a push for a whole one.
//!
//! hyper's server sends `100 Continue` when a body is first polled. That happens here and nowhere before, so a
//! client that asked hears it only after the policy allowed its request and the intent is durable.

use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
    vec,
};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;

use super::idle::Idle;

/// A body that was whole within this many bytes can be sent again.
const REPLAYABLE: usize = 64 * 1024;

/// Why a body ended before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Short {
    /// The client broke off, or what it sent is not a body.
    #[error("the client's body broke off")]
    Broken,
    /// The client gave nothing for `[limits] body-idle`.
    #[error("the client's body fell silent")]
    Silent,
}

/// The client's side of a body, shared by the attempt that sends it and by whoever has to know how far it came.
pub(super) struct Supply<B = Incoming> {
    source: RefCell<Option<B>>,
    idle: RefCell<Idle>,
    /// As the client gave it; `None` for a chunked body.
    length: Option<u64>,
    bytes: Cell<u64>,
    /// What came so far, if it may still be replayed. The same memory that was sent, not a copy.
    kept: RefCell<Option<Vec<Bytes>>>,
    whole: Cell<bool>,
    touched: Cell<bool>,
    thirsty: Cell<bool>,
    short: Cell<Option<Short>>,
}

impl<B: http_body::Body<Data = Bytes> + Unpin> Supply<B> {
    /// A body, or none, that has not been read.
    pub(super) fn new(source: Option<B>, length: Option<u64>, idle: Duration) -> Rc<Self> {
        let source = source.filter(|body| !body.is_end_stream());
        let keep = length.is_none_or(|length| length <= REPLAYABLE as u64);
        Rc::new(Self {
            whole: Cell::new(source.is_none()),
            source: RefCell::new(source),
            idle: RefCell::new(Idle::new(idle)),
            length,
            bytes: Cell::new(0),
            kept: RefCell::new(keep.then(Vec::new)),
            touched: Cell::new(false),
            thirsty: Cell::new(false),
            short: Cell::new(None),
        })
    }

    /// Bytes that came from the client.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// Whether all of it came, or there is none.
    pub(super) fn is_whole(&self) -> bool {
        self.whole.get()
    }

    /// Whether nothing of it has been asked for.
    pub(super) fn is_untouched(&self) -> bool {
        !self.touched.get()
    }

    /// Whether it is the client that is being waited for.
    pub(super) fn is_thirsty(&self) -> bool {
        self.thirsty.get()
    }

    /// Why it ended before its end, if it did.
    pub(super) fn short(&self) -> Option<Short> {
        self.short.get()
    }

    /// Whether it can be sent (again) from its start.
    pub(super) fn is_replayable(&self) -> bool {
        self.is_untouched() || (self.is_whole() && self.kept.borrow().is_some())
    }

    /// What is left of it, to be drained once no attempt needs it.
    pub(super) fn rest(&self) -> Option<B> {
        if self.is_whole() || self.short().is_some() { None } else { self.source.borrow_mut().take() }
    }

    fn poll_piece(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Short>>> {
        self.touched.set(true);
        let mut source = self.source.borrow_mut();
        let Some(body) = source.as_mut() else {
            // Taken away to be drained, or never there: the former must not look like an end.
            let ended = if self.is_whole() { None } else { Some(Err(self.fail(Short::Broken))) };
            return Poll::Ready(ended);
        };
        let mut idle = self.idle.borrow_mut();
        loop {
            let frame = match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Ready(frame) => frame,
                Poll::Pending => {
                    self.thirsty.set(true);
                    return idle.poll_silence(cx).map(|()| Some(Err(self.fail(Short::Silent))));
                }
            };
            idle.moved();
            self.thirsty.set(false);
            match frame.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => {
                    self.note(&data);
                    self.whole.set(body.is_end_stream());
                    return Poll::Ready(Some(Ok(data)));
                }
                // Trailers end here: they could hold anything.
                Some(Ok(Err(_))) => {}
                Some(Err(_)) => return Poll::Ready(Some(Err(self.fail(Short::Broken)))),
                None => {
                    self.whole.set(true);
                    return Poll::Ready(None);
                }
            }
        }
    }

    fn fail(&self, short: Short) -> Short {
        self.short.set(Some(short));
        short
    }

    fn note(&self, data: &Bytes) {
        self.bytes.set(self.bytes.get() + data.len() as u64);
        let mut kept = self.kept.borrow_mut();
        if self.bytes.get() > REPLAYABLE as u64 {
            *kept = None;
        } else if let Some(pieces) = kept.as_mut() {
            pieces.push(data.clone());
        }
    }
}

/// What hyper sends: the body of one attempt.
pub(super) enum Up<B = Incoming> {
    /// From the client.
    Live(Rc<Supply<B>>),
    /// From memory.
    Again(vec::IntoIter<Bytes>),
}

impl<B: http_body::Body<Data = Bytes> + Unpin> Up<B> {
    /// The body from its start: from memory where it has been read already. Ask [`Supply::is_replayable`] first.
    pub(super) fn new(supply: &Rc<Supply<B>>) -> Self {
        match &*supply.kept.borrow() {
            Some(pieces) if supply.is_whole() => Self::Again(pieces.clone().into_iter()),
            _ => Self::Live(Rc::clone(supply)),
        }
    }

    /// Its length in bytes, if that is known.
    pub(super) fn length(&self) -> Option<u64> {
        match self {
            Self::Live(supply) if supply.is_untouched() => supply.length,
            Self::Live(_) => None,
            Self::Again(pieces) => Some(pieces.as_slice().iter().map(|piece| piece.len() as u64).sum()),
        }
    }
}

impl<B: http_body::Body<Data = Bytes> + Unpin> http_body::Body for Up<B> {
    type Data = Bytes;
    type Error = Short;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Short>>> {
        match self.get_mut() {
            Self::Live(supply) => supply.poll_piece(cx).map(|piece| piece.map(|data| data.map(Frame::data))),
            Self::Again(pieces) => Poll::Ready(pieces.next().map(|piece| Ok(Frame::data(piece)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Live(supply) => supply.is_whole(),
            Self::Again(pieces) => pieces.as_slice().is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.length().map(SizeHint::with_exact).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::upstream::rig;

    const IDLE: Duration = Duration::from_mins(2);

    #[test]
    fn a_body_of_64_kib_can_be_sent_again_and_no_larger_one() {
        rig::run(async {
            for (size, replayable) in [(0, true), (1, true), (REPLAYABLE, true), (REPLAYABLE + 1, false)] {
                for chunked in [false, true] {
                    let text = "x".repeat(size);
                    let (head, sent, length) = if chunked {
                        let head = "transfer-encoding: chunked".to_owned();
                        (head, format!("{size:x}\r\n{text}\r\n0\r\n\r\n"), None)
                    } else {
                        (format!("content-length: {size}"), text.clone(), Some(size as u64))
                    };
                    if chunked && size == 0 {
                        continue;
                    }
                    let (body, _client) = rig::client(&head, &sent).await;
                    let supply = Supply::new(Some(body), length, IDLE);
                    assert!(supply.is_replayable(), "untouched");
                    assert_eq!(Up::new(&supply).length(), if size == 0 { Some(0) } else { length });
                    assert_eq!(rig::collect(Up::new(&supply)).await, text.as_bytes());
                    assert_eq!((supply.bytes(), supply.is_whole()), (size as u64, true));
                    assert_eq!(supply.is_replayable(), replayable, "{size}");
                    if replayable {
                        assert_eq!(Up::new(&supply).length(), Some(size as u64));
                        assert_eq!(rig::collect(Up::new(&supply)).await, text.as_bytes());
                        assert_eq!(supply.bytes(), size as u64, "counted once");
                    }
                }
            }
        });
    }

    #[test]
    fn a_body_half_read_is_neither_replayed_nor_ended() {
        rig::run(async {
            let (body, _client) = rig::client("content-length: 4", "ha").await;
            let supply = Supply::new(Some(body), Some(4), IDLE);
            let mut up = Up::new(&supply);
            assert_eq!(up.frame().await.unwrap().unwrap().into_data().unwrap(), "ha");
            assert!(!supply.is_replayable());
            assert!(supply.rest().is_some(), "the rest is to be drained");
            assert_eq!(up.frame().await.unwrap().unwrap_err(), Short::Broken);
        });
    }

    #[test]
    fn trailers_of_a_client_go_nowhere() {
        rig::run(async {
            let sent = "2\r\nok\r\n0\r\nauthorization: x\r\n\r\n";
            let (body, _client) = rig::client("transfer-encoding: chunked", sent).await;
            let all = Up::new(&Supply::new(Some(body), None, IDLE)).collect().await.unwrap();
            assert!(all.trailers().is_none());
            assert_eq!(all.to_bytes(), "ok");
        });
    }

    #[test]
    fn a_client_that_falls_silent_is_not_waited_for_forever() {
        rig::run(async {
            let (body, mut client) = rig::client("content-length: 4", "ha").await;
            tokio::time::pause();
            let supply = Supply::new(Some(body), Some(4), IDLE);
            let begun = tokio::time::Instant::now();
            let error = Up::new(&supply).collect().await.unwrap_err();
            assert_eq!((error, supply.short()), (Short::Silent, Some(Short::Silent)));
            assert_eq!(begun.elapsed().as_secs(), IDLE.as_secs());
            client.write_all(b"lf").await.unwrap();
        });
    }

    #[test]
    fn a_client_hears_100_continue_only_when_its_body_is_asked_for() {
        rig::run(async {
            let head = "content-length: 2\r\nexpect: 100-continue";
            let (body, mut client) = rig::client(head, "").await;
            let supply = Supply::new(Some(body), Some(2), IDLE);
            let up = tokio::task::spawn_local(Up::new(&supply).collect());
            assert!(rig::read_until(&mut client, "\r\n\r\n").await.starts_with("HTTP/1.1 100 "));
            client.write_all(b"ok").await.unwrap();
            assert_eq!(up.await.unwrap().unwrap().to_bytes(), "ok");
        });
    }
}
