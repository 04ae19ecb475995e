//! One connection, from the handshake to its end.

use std::{
    convert::Infallible, future::Future, io, net::SocketAddr, pin::Pin, rc::Rc, sync::Arc, time::Duration,
};

use http::Response;
use hyper::server::conn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpStream, sync::watch, task::spawn_local};
use tokio_rustls::TlsAcceptor;
use tower::Service;

use super::{
    Arrived, Gatehouse, Life, Peer,
    requests::Requests,
    timed::{Doing, Phase, Timed},
};
use crate::{config::Listen, limits::ConnectionShare, refusal::Refusal, upstream::Body};

/// How long a connection that is new when draining begins may take to send its request.
const LAST_REQUEST: Duration = Duration::from_secs(1);

/// The largest head of a request, in bytes.
const HEAD: usize = 32 * 1024;

/// The most of a body that is read at once over HTTP/1, in bytes. A connection that sent less never holds so much.
const BUFFER: usize = 128 * 1024;

/// Serves one connection to its end.
pub(super) async fn run<P>(
    stream: TcpStream,
    address: SocketAddr,
    listen: Arc<Listen>,
    index: usize,
    house: Rc<Gatehouse<P>>,
    _share: ConnectionShare,
) where
    P: Service<Arrived, Response = Response<Body>, Error = Infallible> + Clone + 'static,
    P::Future: 'static,
{
    // Fails on a connection that is gone already, which the next read tells.
    let _ = stream.set_nodelay(true);
    let limits = house.snapshot.load().config.limits.clone();
    let Some(tls) = &listen.tls else {
        let peer = Peer { address };
        let phase = Phase::new(&limits, false);
        let io = Timed::new(TokioIo::new(stream), Rc::clone(&phase));
        return http1(io, Requests { peer, index, house, phase }).await;
    };
    // Boxed: large, and gone once the connection is idle.
    let handshake = Box::pin(TlsAcceptor::from(Arc::clone(&tls.server)).accept(stream));
    let stream = match tokio::time::timeout(limits.handshake, handshake).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            return house.lane.connection(address, Refusal::TlsFailed, &error.to_string());
        }
        Err(_) => {
            return house.lane.connection(address, Refusal::TlsFailed, "the handshake took too long");
        }
    };
    let (_, session) = stream.get_ref();
    let http2 = listen.http2 && session.alpn_protocol() == Some(b"h2");
    let peer = Peer { address };
    let phase = Phase::new(&limits, http2);
    let io = Timed::new(TokioIo::new(stream), Rc::clone(&phase));
    let requests = Requests { peer, index, house, phase };
    if http2 { self::http2(io, requests).await } else { http1(io, requests).await }
}

/// What follows is small however large hyper's connection is: idle ones are many.
fn http1<P, T>(io: Timed<T>, requests: Requests<P>) -> impl Future<Output = ()>
where
    P: Service<Arrived, Response = Response<Body>, Error = Infallible> + Clone + 'static,
    P::Future: 'static,
    T: hyper::rt::Read + hyper::rt::Write + Unpin + 'static,
{
    let (address, house, phase) =
        (requests.peer.address, Rc::clone(&requests.house), Rc::clone(&requests.phase));
    let mut builder = conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(None).max_headers(64);
    builder.max_header_size(HEAD).max_buf_size(BUFFER);
    let connection = Box::pin(builder.serve_connection(io, requests));
    async move {
        let life = house.life.clone();
        let ended = drive(connection, life, conn::http1::Connection::graceful_shutdown, &phase).await;
        match ended {
            Err(error) if phase.doing() == Doing::Head && is_timeout(&error) => {
                house.lane.connection(address, Refusal::HeadTimeout, "");
            }
            Err(error) if error.is_parse() => {
                house.lane.connection(address, Refusal::HeadMalformed, &error.to_string());
            }
            // The client left, or stopped taking its answer: its request's own record says so.
            Err(_) | Ok(()) => {}
        }
    }
}

fn http2<P, T>(io: Timed<T>, requests: Requests<P>) -> impl Future<Output = ()>
where
    P: Service<Arrived, Response = Response<Body>, Error = Infallible> + Clone + 'static,
    P::Future: 'static,
    T: hyper::rt::Read + hyper::rt::Write + Unpin + 'static,
{
    let (address, house, phase) =
        (requests.peer.address, Rc::clone(&requests.house), Rc::clone(&requests.phase));
    let mut builder = conn::http2::Builder::new(Local);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(32)
        .max_header_list_size(8 * 1024)
        .initial_stream_window_size(64 * 1024)
        .initial_connection_window_size(1024 * 1024)
        .max_send_buf_size(64 * 1024)
        .max_pending_accept_reset_streams(16)
        .max_local_error_reset_streams(64)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20));
    let connection = Box::pin(builder.serve_connection(io, requests));
    async move {
        let life = house.life.clone();
        let ended = drive(connection, life, conn::http2::Connection::graceful_shutdown, &phase).await;
        if let Err(error) = ended
            && let Some(broken) =
                std::error::Error::source(&error).and_then(|source| source.downcast_ref::<h2::Error>())
            && broken.is_library()
        {
            house.lane.connection(address, Refusal::HeadMalformed, &broken.to_string());
        }
    }
}

/// Runs a connection to its end; when draining begins, lets it finish what it is doing.
async fn drive<C: Future>(
    mut connection: Pin<Box<C>>,
    mut life: watch::Receiver<Life>,
    close: impl Fn(Pin<&mut C>),
    phase: &Phase,
) -> C::Output {
    tokio::select! {
        biased;
        ended = &mut connection => return ended,
        // An error means that the sender is gone: patgate is over.
        _ = life.wait_for(|life| *life >= Life::Draining) => {}
    }
    if phase.owes_a_request() {
        // hyper would close it unread. Boxed: few connections come here, and all would hold the timer.
        let last = Box::pin(tokio::time::timeout(LAST_REQUEST, connection.as_mut()));
        if let Ok(ended) = last.await {
            return ended;
        }
    }
    close(connection.as_mut());
    connection.await
}

fn is_timeout(error: &hyper::Error) -> bool {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::TimedOut) {
            return true;
        }
        source = error.source();
    }
    false
}

/// hyper's executor on a thread of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Local;

impl<F: Future + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, future: F) {
        spawn_local(async move {
            future.await;
        });
    }
}
