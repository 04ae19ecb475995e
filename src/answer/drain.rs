//! Reads what is left of a request's body, up to a cap.
//!
//! A client that is still sending when the connection closes loses the answer with it (the reset
//! overtakes what it has not read), so a refusal reads on for a while before it is given.

use std::{pin::Pin, time::Duration};

use bytes::Bytes;
use http_body::Body;
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout, timeout_at};

/// How much of a body is read before the answer is given anyway.
#[derive(Clone, Copy, Debug)]
pub struct Cap {
    /// In bytes.
    pub bytes: u64,
    /// In all, however steadily it comes.
    pub time: Duration,
}

/// For any body but a push.
pub const SMALL: Cap = Cap { bytes: 64 * 1024, time: Duration::from_secs(2) };

/// For a push: git shows which references were refused only if its whole pack was taken first.
pub const PUSH: Cap = Cap { bytes: 256 * 1024 * 1024, time: Duration::from_mins(2) };

/// How far it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// To the end: another request may follow on the connection.
    Whole,
    /// Not to the end: none may.
    Unfinished,
}

/// Reads `body` and forgets it. `idle` is the longest wait for its next piece.
pub async fn drain<B>(body: B, cap: Cap, idle: Duration) -> Drained
where
    B: Body<Data = Bytes> + Unpin,
{
    each(body, cap, idle, |_| {}).await
}

/// Reads `body` and shows each piece of it to `see`. `idle` is the longest wait for the next piece.
pub async fn each<B>(mut body: B, cap: Cap, idle: Duration, mut see: impl FnMut(&[u8])) -> Drained
where
    B: Body<Data = Bytes> + Unpin,
{
    // A length that is over the cap to begin with is known without reading.
    if Pin::new(&mut body).size_hint().lower() > cap.bytes {
        return Drained::Unfinished;
    }
    let mut left = cap.bytes;
    let deadline = Instant::now() + cap.time;
    loop {
        let frame = match timeout_at(deadline, timeout(idle, body.frame())).await {
            Ok(Ok(Some(Ok(frame)))) => frame,
            Ok(Ok(None)) => return Drained::Whole,
            Ok(Ok(Some(Err(_))) | Err(_)) | Err(_) => return Drained::Unfinished,
        };
        let Ok(data) = frame.into_data() else { continue };
        see(&data);
        let Some(rest) = left.checked_sub(data.len() as u64) else { return Drained::Unfinished };
        left = rest;
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::stream;
    use http_body::Frame;
    use http_body_util::{Full, StreamBody};

    use super::*;

    const CAP: Cap = Cap { bytes: 10, time: Duration::from_mins(1) };
    const IDLE: Duration = Duration::from_secs(5);

    fn pieces(pieces: &'static [&'static str]) -> impl Body<Data = Bytes> + Unpin {
        StreamBody::new(stream::iter(
            pieces.iter().map(|piece| Ok::<_, Infallible>(Frame::data(Bytes::from_static(piece.as_bytes())))),
        ))
    }

    #[tokio::test]
    async fn a_body_within_the_cap_is_read_whole() {
        assert_eq!(drain(pieces(&["12345", "67890"]), CAP, IDLE).await, Drained::Whole);
        assert_eq!(drain(pieces(&[]), CAP, IDLE).await, Drained::Whole);
    }

    #[tokio::test]
    async fn a_body_over_the_cap_is_left_unread() {
        assert_eq!(drain(pieces(&["12345", "678901"]), CAP, IDLE).await, Drained::Unfinished);
        let known = Full::new(Bytes::from_static(b"12345678901"));
        let mut seen = 0;
        assert_eq!(each(known, CAP, IDLE, |_| seen += 1).await, Drained::Unfinished);
        assert_eq!(seen, 0, "its length was known");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_falls_silent_is_not_waited_for() {
        let silent = StreamBody::new(stream::pending::<Result<Frame<Bytes>, Infallible>>());
        let begun = Instant::now();
        assert_eq!(drain(silent, CAP, IDLE).await, Drained::Unfinished);
        assert_eq!(begun.elapsed(), IDLE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_trickles_is_not_waited_for_longer_than_the_cap() {
        let trickle = Box::pin(stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_secs(4)).await;
            Some((Ok::<_, Infallible>(Frame::data(Bytes::new())), ()))
        }));
        let begun = Instant::now();
        assert_eq!(drain(StreamBody::new(trickle), CAP, IDLE).await, Drained::Unfinished);
        assert_eq!(begun.elapsed(), CAP.time);
    }
}
