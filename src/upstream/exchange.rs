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

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        time::{Instant, pause},
    };

    use super::*;
    use crate::upstream::rig::{self, HOST, PATIENCE, Rig, Told};

    fn fault(failed: Result<Answer, Failed>) -> Failed {
        failed.err().expect("there was an answer")
    }

    #[test]
    fn a_connection_serves_again_once_its_answer_was_read_to_the_end() {
        rig::run(async {
            let rig = Rig::new().await;
            let (network, connector) = rig.network();
            let host = async {
                let mut stream = rig.accept().await.unwrap();
                for body in ["2\r\nok\r\n0\r\n\r\n", "0\r\nx-trailer: 1\r\n\r\n"] {
                    let answer = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{body}");
                    rig::answer(&mut stream, &answer).await;
                }
                rig::answer(&mut stream, "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nend").await;
                stream
            };
            let client = async {
                for (expected, used) in [("ok", false), ("", true), ("end", true)] {
                    let (request, supply) = rig::get();
                    let connection = network.connection(&connector, HOST, false).await.ok().unwrap();
                    assert_eq!(connection.used, used);
                    let answer = exchange(connection, request, &supply, PATIENCE).await.ok().unwrap();
                    let told = Told::default();
                    let mut flow = rig::flow(&network, &supply, answer, &told);
                    assert_eq!(rig::drain(&mut flow).await.unwrap(), expected.as_bytes());
                }
            };
            tokio::join!(host, client);
        });
    }

    #[test]
    fn a_request_that_met_a_dead_connection_comes_back_whole() {
        rig::run(async {
            let rig = Rig::new().await;
            let (network, connector) = rig.network();
            let opened = network.connection(&connector, HOST, false);
            let (connection, stream) = tokio::join!(opened, rig.accept());
            let mut connection = connection.ok().unwrap();
            connection.used = true;
            drop(stream);
            std::future::poll_fn(|cx| connection.sender.poll_ready(cx).map(|_| ())).await;
            while !connection.sender.is_closed() {
                tokio::task::yield_now().await;
            }
            let (body, _client) = rig::client("content-length: 4", "body").await;
            let (request, supply) = rig::request(Some(body), Some(4));
            let failed = fault(exchange(connection, request, &supply, PATIENCE).await);
            assert!(failed.stale && supply.is_untouched());

            let host = async {
                let mut stream = rig.accept().await.unwrap();
                let head = rig::answer(&mut stream, "HTTP/1.1 204 No Content\r\n\r\n").await;
                (head, rig::read_until(&mut stream, "body").await)
            };
            let client = async {
                let connection = network.connection(&connector, HOST, true).await.ok().unwrap();
                exchange(connection, *failed.unsent.unwrap(), &supply, PATIENCE).await.ok().unwrap()
            };
            let ((head, _), answer) = tokio::join!(host, client);
            assert!(head.contains("content-length: 4\r\n"), "{head}");
            assert_eq!(answer.response.status(), StatusCode::NO_CONTENT);
        });
    }

    #[test]
    fn a_connection_that_dies_under_a_request_is_told_from_a_garbled_answer() {
        rig::run(async {
            for (answer, used, stale) in [
                ("", true, true),
                ("", false, false),
                ("HTTP/1.1 200 OK\r\ncontent-le", false, false),
                ("SSH-2.0-x\r\n\r\n", true, false),
                (
                    "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
                    true,
                    false,
                ),
            ] {
                let rig = Rig::new().await;
                let (network, connector) = rig.network();
                let host = async {
                    let mut stream = rig.accept().await.unwrap();
                    rig::answer(&mut stream, answer).await;
                };
                let client = async {
                    let mut connection = network.connection(&connector, HOST, false).await.ok().unwrap();
                    connection.used = used;
                    let (request, supply) = rig::get();
                    fault(exchange(connection, request, &supply, PATIENCE).await)
                };
                let (failed, ()) = tokio::join!(client, host);
                assert_eq!(failed.fault.why, Refusal::UpstreamGarbled, "{answer}");
                assert_eq!(failed.stale, stale, "{answer}");
                assert!(failed.unsent.is_none(), "{answer}");
            }
        });
    }

    #[test]
    fn a_silent_host_is_given_up_after_the_limit_and_cut_off() {
        rig::run(async {
            let rig = Rig::new().await;
            let (network, connector) = rig.network();
            let opened = network.connection(&connector, HOST, false);
            let (connection, stream) = tokio::join!(opened, rig.accept());
            let mut stream = stream.unwrap();
            pause();
            let begun = Instant::now();
            let (request, supply) = rig::get();
            let failed = fault(exchange(connection.ok().unwrap(), request, &supply, PATIENCE).await);
            assert_eq!(failed.fault.why, Refusal::UpstreamTimeout);
            assert_eq!(begun.elapsed().as_secs(), PATIENCE.as_secs());
            let mut rest = Vec::new();
            // Cut without a farewell, which TLS calls an error.
            assert!(stream.read_to_end(&mut rest).await.is_err());
        });
    }

    #[test]
    fn a_body_that_breaks_off_never_ends_cleanly_upstream() {
        rig::run(async {
            for (head, begun, length) in [
                ("content-length: 10", "half", Some(10)),
                ("transfer-encoding: chunked", "4\r\nhalf\r\n", None),
                ("transfer-encoding: chunked", "4\r\nhalf\r\nzz\r\n", None),
            ] {
                let rig = Rig::new().await;
                let (network, connector) = rig.network();
                let (body, client) = rig::client(head, begun).await;
                let (request, supply) = rig::request(Some(body), length);
                let host = async {
                    let mut stream = rig.accept().await.unwrap();
                    let begun = rig::read_until(&mut stream, "half").await;
                    drop(client);
                    let mut rest = Vec::new();
                    let ended = stream.read_to_end(&mut rest).await;
                    (begun, rest, ended)
                };
                let client = async {
                    let connection = network.connection(&connector, HOST, false).await.ok().unwrap();
                    fault(exchange(connection, request, &supply, PATIENCE).await)
                };
                let ((_, rest, ended), failed) = tokio::join!(host, client);
                assert_eq!(failed.fault.why, Refusal::BodyIncomplete, "{head}");
                assert!(!failed.stale);
                assert!(ended.is_err() && (rest.is_empty() || rest == b"\r\n"), "{head}: {rest:?}");
            }
        });
    }

    #[test]
    fn patience_counts_from_the_last_piece_of_the_body() {
        rig::run(async {
            let rig = Rig::new().await;
            let (network, connector) = rig.network();
            let (body, mut client) = rig::client("content-length: 3", "a").await;
            let (request, supply) = rig::request(Some(body), Some(3));
            let opened = network.connection(&connector, HOST, false);
            let (connection, stream) = tokio::join!(opened, rig.accept());
            let stream = stream.unwrap();
            pause();
            let begun = Instant::now();
            let slow = async {
                for piece in [b"b", b"c"] {
                    tokio::time::sleep(std::time::Duration::from_secs(100)).await;
                    client.write_all(piece).await.unwrap();
                }
            };
            let attempt = exchange(connection.ok().unwrap(), request, &supply, PATIENCE);
            let (failed, ()) = tokio::join!(attempt, slow);
            assert_eq!(fault(failed).fault.why, Refusal::UpstreamTimeout);
            assert!(begun.elapsed().as_secs() >= 200 + PATIENCE.as_secs() - 20, "{:?}", begun.elapsed());
            drop(stream);
        });
    }
}
