//! The answers nobody wants: late, endless, broken, or none at all.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream;
use http_body::{Body, Frame, SizeHint};
use http_body_util::StreamBody;

use super::answer::Stream;

/// How a sample organisation behaves towards every request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Behaviour {
    /// As Azure DevOps does on a good day.
    #[default]
    Sound,
    /// Says of every token that it has expired: 401, and why in `X-TFS-ServiceError`.
    Expired,
    /// Says of every token that it is revoked: 401, and why in `X-TFS-ServiceError`.
    Revoked,
    /// Knows every good token, and says that it may do nothing but ask whose it is: 401 with the user's id.
    UnderScoped,
    /// Answers 203 with the page for signing in, whatever the request says.
    SignInPage,
    /// Answers 302 to the page for signing in, whatever the request says.
    SignInRedirect,
    /// The organisation is stopped: 503.
    Stopped,
    /// Waits before the head of an answer.
    Late(Duration),
    /// Takes a request and never answers.
    Silent,
    /// Answers with bytes that are not HTTP, and closes.
    Garbage,
    /// Breaks the connection after so many bytes of the answer's body.
    Cut {
        /// Bytes of the body that are still sent.
        after: u64,
    },
    /// Falls silent after so many bytes of the answer's body.
    Hang {
        /// Bytes of the body that are still sent.
        after: u64,
    },
}

/// How a body breaks.
#[derive(Clone, Copy, Debug)]
pub(super) enum Break {
    Cut,
    Hang,
}

/// A body that does not come to its end.
pub(super) struct Broken {
    body: Stream,
    left: u64,
    how: Break,
    sent: bool,
}

impl Broken {
    pub(super) fn new(body: Stream, after: u64, how: Break) -> Self {
        Self { body, left: after, how, sent: false }
    }
}

impl Body for Broken {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.left == 0 {
            return match self.how {
                // hyper writes what it has while it waits, and throws it away on an error.
                Break::Cut if !self.sent => {
                    self.sent = true;
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                Break::Cut => Poll::Ready(Some(Err(io::ErrorKind::ConnectionReset.into()))),
                // Nobody wakes it: the other end's deadline is what is to be seen.
                Break::Hang => Poll::Pending,
            };
        }
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        let Poll::Ready(Some(Ok(frame))) = polled else { return polled };
        let Ok(mut data) = frame.into_data() else { return Poll::Ready(None) };
        data.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.left -= data.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// So many bytes, made as they are asked for.
pub(super) fn generated(bytes: u64) -> Stream {
    static PIECE: [u8; 65_536] = [b'p'; 65_536];
    Stream::new(StreamBody::new(stream::unfold(bytes, |left| async move {
        let take = left.min(PIECE.len() as u64);
        let piece = PIECE.get(..usize::try_from(take).ok()?).filter(|piece| !piece.is_empty())?;
        Some((Ok(Frame::data(Bytes::from_static(piece))), left - take))
    })))
}

/// One byte at a time, with a pause before each.
pub(super) fn trickle(bytes: u64, pause: Duration) -> Stream {
    Stream::new(StreamBody::new(stream::unfold(bytes, move |left| async move {
        if left == 0 {
            return None;
        }
        tokio::time::sleep(pause).await;
        Some((Ok(Frame::data(Bytes::from_static(b"."))), left - 1))
    })))
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_breaks_where_it_is_told_to() {
        let mut cut = Broken::new(generated(200_000), 70_000, Break::Cut);
        let mut read = 0;
        let ended = loop {
            match cut.frame().await {
                Some(Ok(frame)) => read += frame.into_data().unwrap().len(),
                other => break other,
            }
        };
        assert_eq!(read, 70_000);
        assert!(ended.is_some_and(|end| end.is_err()));

        let mut hang = Broken::new(generated(200_000), 10, Break::Hang);
        assert_eq!(hang.frame().await.unwrap().unwrap().into_data().unwrap().len(), 10);
        let more = tokio::time::timeout(Duration::from_hours(1), hang.frame()).await;
        assert!(more.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_generated_body_has_the_bytes_it_was_asked_for() {
        for bytes in [0, 1, 65_536, 65_537, 200_000] {
            let whole = generated(bytes).collect().await.unwrap().to_bytes();
            assert_eq!(whole.len() as u64, bytes);
        }
        assert_eq!(trickle(3, Duration::from_secs(9)).collect().await.unwrap().to_bytes(), "...");
    }
}
