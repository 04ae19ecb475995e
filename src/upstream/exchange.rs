//! One attempt: a request's head and body on a connection, until the head of the answer.

use std::{pin::pin, rc::Rc, time::Duration};

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::time::timeout;

use super::{
    fault::Fault,
    pool::Connection,
    supply::{Short, Supply, Up},
};
use crate::refusal::Refusal;

/// An answer's head, with its body still to come on the connection.
pub(super) struct Answer {
    pub(super) response: Response<Incoming>,
    pub(super) connection: Connection,
}

/// An attempt without an answer. Its connection is closed.
pub(super) struct Failed {
    pub(super) fault: Fault,
    /// The request, where certainly no byte of it was sent: sending it again is the same attempt.
    pub(super) unsent: Option<Box<Request<Up>>>,
    /// Whether the connection was found dead although it had served before, with nothing of an answer read.
    pub(super) stale: bool,
}

/// Sends a request and waits for the head of its answer, for at most `patience` after the last piece of the body
/// was taken. An answer may come while the body is still being sent; it then goes on being sent meanwhile.
///
/// # Errors
/// `upstream-timeout`, `upstream-garbled`, `upstream-unreachable`, `body-incomplete`
pub(super) async fn exchange(
    mut connection: Connection,
    request: Request<Up>,
    supply: &Rc<Supply>,
    patience: Duration,
) -> Result<Answer, Failed> {
    let reused = connection.used;
    let mut answer = pin!(connection.sender.try_send_request(request));
    let mut seen = supply.bytes();
    let result = loop {
        match timeout(patience, answer.as_mut()).await {
            Ok(result) => break result,
            // The body's own deadline ends a client's silence; progress is no silence at all.
            Err(_) if supply.is_thirsty() => {}
            Err(_) if supply.bytes() != seen => seen = supply.bytes(),
            Err(_) => {
                return Err(Failed::by(
                    Refusal::UpstreamTimeout,
                    format!("no answer began within {} s", patience.as_secs()),
                ));
            }
        }
    };
    match result {
        Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
            Err(Failed::by(Refusal::UpstreamGarbled, "it answered 101, which nobody asked for"))
        }
        Ok(response) => Ok(Answer { response, connection }),
        Err(mut error) => {
            let unsent = error.take_message().map(Box::new);
            let error = error.into_error();
            Err(match (supply.short(), &unsent) {
                (Some(short), _) => Failed::short(short),
                (None, Some(_)) => Failed {
                    fault: Fault::unreachable(format!("the connection closed before the request: {error}")),
                    unsent,
                    stale: reused,
                },
                (None, None) => Failed {
                    fault: Fault::new(Refusal::UpstreamGarbled, cause(&error)),
                    unsent: None,
                    stale: reused && !error.is_parse(),
                },
            })
        }
    }
}

impl Failed {
    fn by(why: Refusal, detail: impl Into<std::borrow::Cow<'static, str>>) -> Self {
        Self { fault: Fault::new(why, detail), unsent: None, stale: false }
    }

    fn short(short: Short) -> Self {
        Self::by(Refusal::BodyIncomplete, short.to_string())
    }
}

/// hyper's words, and those below them.
fn cause(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("the answer can't be read: {error}: {source}"),
        None => format!("the answer can't be read: {error}"),
    }
}
