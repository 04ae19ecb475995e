//! An answer's body on its way down, and the one place where an answered request ends.
//!
//! A body that can't be brought to its end is an error here, which makes hyper cut the client's connection: a
//! clone that lacks its last bytes must never look whole.

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;

use super::{
    body::BodyError,
    idle::Idle,
    pool::{Connection, Pool},
    supply::Supply,
    uses::InUse,
};
use crate::audit::Ending;

/// A connection in use, by what, and where it goes afterwards.
pub(super) struct Lease {
    pub(super) connection: Connection,
    pub(super) pool: Rc<Pool>,
    pub(super) in_use: Rc<InUse>,
}

/// Told once how a request ended; dropped where nobody waited for the end.
pub(super) trait Account {
    /// The last word: bytes from and to the client, and how it ended; `None` where the client left.
    fn close(self, bytes_in: u64, bytes_out: u64, ending: Option<Ending>);
}

/// A body under way.
pub(super) struct Flow<A: Account> {
    incoming: Incoming,
    pool: Rc<Pool>,
    /// Holds the connection until the end.
    in_use: Rc<InUse>,
    supply: Rc<Supply>,
    idle: Idle,
    bytes: u64,
    /// Bytes of the request when the answer was found silent.
    asked: u64,
    /// `None` once the end is on record.
    account: Option<A>,
}

impl<A: Account> Flow<A> {
    /// What is to come on a leased connection. Where that is nothing, the account is closed at once.
    pub(super) fn new(
        incoming: Incoming,
        lease: Lease,
        supply: Rc<Supply>,
        idle: Duration,
        account: A,
    ) -> Self {
        let idle = Idle::new(idle);
        let Lease { connection, pool, in_use } = lease;
        in_use.hold(connection);
        let account = Some(account);
        let mut flow = Self { incoming, pool, in_use, supply, idle, bytes: 0, asked: 0, account };
        flow.finish_at_end();
        flow
    }

    /// Whether the account is closed.
    pub(super) fn is_finished(&self) -> bool {
        self.account.is_none()
    }

    /// What is still to come, in bytes.
    pub(super) fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }

    /// The next piece. After an error or the end there is none.
    pub(super) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        loop {
            if self.is_finished() {
                return Poll::Ready(None);
            }
            if self.in_use.poll_cut(cx).is_ready() {
                return Poll::Ready(Some(Err(self.fail(BodyError::Cut))));
            }
            let frame = match Pin::new(&mut self.incoming).poll_frame(cx) {
                Poll::Ready(frame) => frame,
                Poll::Pending => {
                    ready!(self.idle.poll_silence(cx));
                    if self.is_still_asking() {
                        self.idle.moved();
                        continue;
                    }
                    return Poll::Ready(Some(Err(self.fail(BodyError::Silent))));
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

    /// Whether the request itself has come further since this was asked last: an answer may begin before the end
    /// of a long push, and then wait for it. A client's silence has its own deadline.
    fn is_still_asking(&mut self) -> bool {
        let asked = self.supply.bytes();
        let moved = asked != std::mem::replace(&mut self.asked, asked) || self.supply.is_thirsty();
        moved && !self.supply.is_whole() && self.supply.short().is_none()
    }

    fn finish_at_end(&mut self) {
        if self.incoming.is_end_stream() {
            self.finish();
        }
    }

    /// The end, clean. The connection is good for another request only if this one was sent whole.
    fn finish(&mut self) {
        if let Some(connection) = self.in_use.release()
            && self.supply.is_whole()
        {
            self.pool.give_back(connection);
        }
        self.close(Some(Ending::Complete));
    }

    /// An end that is none. Where the request's own body broke off first, that is why.
    fn fail(&mut self, error: BodyError) -> BodyError {
        drop(self.in_use.release());
        let client = self.supply.short().is_some();
        self.close(Some(if client { Ending::ClientGone } else { Ending::UpstreamGone }));
        error
    }

    fn close(&mut self, ending: Option<Ending>) {
        let ending = if self.in_use.is_cut() {
            ending.filter(Ending::is_complete).or(Some(Ending::Cut))
        } else {
            ending
        };
        if let Some(account) = self.account.take() {
            account.close(self.supply.bytes(), self.bytes, ending);
        }
    }
}

impl<A: Account> Drop for Flow<A> {
    fn drop(&mut self) {
        drop(self.in_use.release());
        self.close(None);
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncWriteExt, time::pause};

    use super::*;
    use crate::upstream::{
        exchange::exchange,
        rig::{self, HOST, Last, PATIENCE, Rig, Told},
    };

    const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";

    #[test]
    fn an_answer_cut_short_is_an_error_and_the_connection_is_not_used_again() {
        rig::run(async {
            for (answer, farewell) in [
                ("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf".to_owned(), true),
                ("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf".to_owned(), false),
                (format!("{CHUNKED}4\r\nhalf\r\n"), true),
                (format!("{CHUNKED}4\r\nhalf\r\n0\r\n"), true),
                (format!("{CHUNKED}4\r\nhalf\r\nxx\r\n"), true),
                ("HTTP/1.1 200 OK\r\n\r\nhalf".to_owned(), false),
            ] {
                let rig = Rig::new().await;
                let (network, connector) = rig.network();
                let host = async {
                    let mut stream = rig.accept().await.unwrap();
                    rig::answer(&mut stream, &answer).await;
                    if farewell {
                        stream.shutdown().await.unwrap();
                    }
                };
                let told = Told::default();
                let client = async {
                    let connection = network.connection(&connector, HOST, false).await.ok().unwrap();
                    let (request, supply) = rig::get();
                    let answer = exchange(connection, request, &supply, PATIENCE).await.ok().unwrap();
                    rig::drain(&mut rig::flow(&network, &supply, answer, &told)).await
                };
                let (read, ()) = tokio::join!(client, host);
                assert_eq!(read, Err(BodyError::BrokenOff), "{answer}");
                assert_eq!(told.all(), [Last(0, 4, Some(Ending::UpstreamGone))], "{answer}");
                assert_eq!(network.pool.len(), 0, "{answer}");
            }
        });
    }

    /// The flow of one answer, with the host's end of its connection.
    async fn begun(
        answer: &str,
        told: &Told,
    ) -> (Flow<Told>, tokio_rustls::server::TlsStream<tokio::net::TcpStream>, Rc<Pool>) {
        let rig = Rig::new().await;
        let (network, connector) = rig.network();
        let host = async {
            let mut stream = rig.accept().await.unwrap();
            rig::answer(&mut stream, answer).await;
            stream
        };
        let client = async {
            let connection = network.connection(&connector, HOST, false).await.ok().unwrap();
            let (request, supply) = rig::get();
            let answer = exchange(connection, request, &supply, PATIENCE).await.ok().unwrap();
            rig::flow(&network, &supply, answer, told)
        };
        let (flow, stream) = tokio::join!(client, host);
        (flow, stream, network.pool)
    }

    #[test]
    fn an_answer_that_falls_silent_is_cut_after_the_limit() {
        rig::run(async {
            let told = Told::default();
            let (mut flow, _stream, _) = begun(&format!("{CHUNKED}4\r\nhalf\r\n"), &told).await;
            pause();
            let begun = tokio::time::Instant::now();
            assert_eq!(rig::drain(&mut flow).await, Err(BodyError::Silent));
            assert_eq!(begun.elapsed().as_secs(), 120);
            assert_eq!(told.all(), [Last(0, 4, Some(Ending::UpstreamGone))]);
        });
    }

    #[test]
    fn an_answer_without_a_body_ends_at_once() {
        rig::run(async {
            for answer in [
                "HTTP/1.1 204 No Content\r\n\r\n",
                "HTTP/1.1 304 Not Modified\r\netag: x\r\n\r\n",
                "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            ] {
                let told = Told::default();
                let (flow, _stream, pool) = begun(answer, &told).await;
                assert!(flow.is_finished());
                assert_eq!(told.all(), [Last(0, 0, Some(Ending::Complete))], "{answer}");
                assert_eq!(pool.len(), 1);
            }
        });
    }

    #[test]
    fn trailers_do_not_reach_the_client() {
        rig::run(async {
            let told = Told::default();
            let answer = format!("{CHUNKED}2\r\nok\r\n0\r\nset-cookie: a=b\r\n\r\n");
            let (mut flow, _stream, pool) = begun(&answer, &told).await;
            assert_eq!(rig::drain(&mut flow).await.unwrap(), b"ok");
            assert_eq!(told.all(), [Last(0, 2, Some(Ending::Complete))]);
            assert_eq!(pool.len(), 1);
        });
    }

    #[test]
    fn a_client_that_leaves_is_told_once_and_cuts_the_connection() {
        rig::run(async {
            let told = Told::default();
            let (flow, mut stream, pool) = begun(&format!("{CHUNKED}4\r\nhalf\r\n"), &told).await;
            drop(flow);
            assert_eq!(told.all(), [Last(0, 0, None)]);
            assert_eq!(pool.len(), 0);
            let read = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut Vec::new()).await;
            assert!(read.is_err(), "the connection was not cut");
        });
    }

    #[test]
    fn an_answer_that_is_cut_is_an_error_at_once_and_so_is_one_that_nobody_reads() {
        rig::run(async {
            for read in [true, false] {
                let rig = Rig::new().await;
                let (network, connector) = rig.network();
                let (sender, cuts) = tokio::sync::watch::channel(std::collections::BTreeMap::new());
                let in_use = crate::upstream::uses::Uses::watched(cuts).begin(&"web".into());
                let host = async {
                    let mut stream = rig.accept().await.unwrap();
                    rig::answer(&mut stream, &format!("{CHUNKED}4\r\nhalf\r\n")).await;
                    stream
                };
                let told = Told::default();
                let client = async {
                    let connection = network.connection(&connector, HOST, false).await.ok().unwrap();
                    let (request, supply) = rig::get();
                    let answer = exchange(connection, request, &supply, PATIENCE).await.ok().unwrap();
                    rig::flow_of(&network, &supply, answer, &told, in_use)
                };
                let (mut flow, mut stream) = tokio::join!(client, host);
                let cut = async {
                    tokio::task::yield_now().await;
                    sender.send_modify(|cuts| {
                        cuts.insert("web".into(), 1);
                    });
                };
                if read {
                    let (drained, ()) = tokio::join!(rig::drain(&mut flow), cut);
                    assert_eq!(drained, Err(BodyError::Cut));
                } else {
                    cut.await;
                }
                let ended = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut Vec::new()).await;
                assert!(ended.is_err(), "the connection to the host was not cut");
                drop(flow);
                let [Last(0, _, Some(Ending::Cut))] = told.all()[..] else { panic!("{:?}", told.all()) };
                assert_eq!(network.pool.len(), 0);
            }
        });
    }

    #[test]
    fn an_early_answer_is_delivered_and_the_half_sent_request_cut() {
        rig::run(async {
            let rig = Rig::new().await;
            let (network, connector) = rig.network();
            let (body, _client) = rig::client("transfer-encoding: chunked", "4\r\nhalf\r\n").await;
            let (request, supply) = rig::request(Some(body), None);
            let told = Told::default();
            let host = async {
                let mut stream = rig.accept().await.unwrap();
                let answer = "HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno";
                rig::answer(&mut stream, answer).await;
                let mut rest = Vec::new();
                (tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut rest).await.is_err(), rest)
            };
            let client = async {
                let connection = network.connection(&connector, HOST, false).await.ok().unwrap();
                let answer = exchange(connection, request, &supply, PATIENCE).await.ok().unwrap();
                assert_eq!(answer.response.status().as_u16(), 413);
                rig::drain(&mut rig::flow(&network, &supply, answer, &told)).await
            };
            let ((cut, rest), read) = tokio::join!(host, client);
            assert_eq!(read.unwrap(), b"no");
            assert!(cut && !String::from_utf8_lossy(&rest).contains("0\r\n\r\n"), "{rest:?}");
            assert_eq!(told.all(), [Last(4, 2, Some(Ending::Complete))]);
            assert_eq!(network.pool.len(), 0);
        });
    }

    #[test]
    fn an_answer_that_waits_for_a_long_request_is_not_silent() {
        rig::run(async {
            let rig = Rig::new().await;
            let (network, connector) = rig.network();
            let (body, mut client) = rig::client("content-length: 4", "a").await;
            let (request, supply) = rig::request(Some(body), Some(4));
            let told = Told::default();
            let opened = network.connection(&connector, HOST, false);
            let (connection, stream) = tokio::join!(opened, rig.accept());
            let (connection, mut stream) = (connection.ok().unwrap(), stream.unwrap());
            let early = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n";
            let (answer, _) = tokio::join!(
                exchange(connection, request, &supply, PATIENCE),
                rig::answer(&mut stream, early),
            );
            let mut flow = rig::flow(&network, &supply, answer.ok().unwrap(), &told);
            pause();
            let slow = async {
                for piece in [b"b", b"c", b"d"] {
                    tokio::time::sleep(Duration::from_secs(100)).await;
                    client.write_all(piece).await.unwrap();
                }
                rig::read_until(&mut stream, "d").await;
                stream.write_all(b"ok").await.unwrap();
            };
            let (read, ()) = tokio::join!(rig::drain(&mut flow), slow);
            assert_eq!(read.unwrap(), b"ok");
            assert_eq!(told.all(), [Last(4, 2, Some(Ending::Complete))]);
        });
    }
}
