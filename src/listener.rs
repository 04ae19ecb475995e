//! Accepts connections and turns bytes into [`Arrived`].
//!
//! What comes in: a socket of this worker. What goes out: one [`Arrived`] a request, into the
//! pipeline. It must never wait without a deadline, and never keep a connection over a cap.

use std::{
    convert::Infallible,
    future::Future,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    rc::Rc,
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use http::{HeaderValue, Method, Request, Response, header};
use hyper::{body::Incoming, server::conn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::spawn_local,
};
use tokio_rustls::TlsAcceptor;
use tower::Service;

use crate::{
    app::Snapshot,
    audit::{Entry, Lane},
    clock,
    config::Listen,
    limits::{ConnectionShare, Counts, Share},
    metrics::Metrics,
    pipeline,
    refusal::Refusal,
    upstream::Body,
};

pub mod sockets;
mod timed;

use timed::{Doing, Phase, Timed, Turn};

/// How long a connection that is new when draining begins may take to send its request.
const LAST_REQUEST: Duration = Duration::from_secs(1);

/// Whether patgate goes on, and how it ends: each stage includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Life {
    /// New connections are welcome.
    Serving,
    /// Told to stop: not ready any more, but connections are still taken, so that balancers can notice.
    Leaving,
    /// No new connections; requests under way go on.
    Draining,
    /// Over: what is still under way is cut.
    Over,
}

/// The other end of a connection, as the socket tells it.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Canonical: an IPv4-mapped IPv6 address is IPv4 here.
    pub address: SocketAddr,
    /// What TLS told: the protocol's version and cipher suite. `None` for plain HTTP.
    pub tls: Option<Arc<str>>,
}

/// What travels with a request through every step.
#[derive(Debug)]
pub struct Passage {
    /// The record that will be ended, whatever happens.
    pub entry: Entry,
    /// The other end.
    pub peer: Peer,
    /// The listener it came in by.
    pub listen: Arc<Listen>,
    /// The configuration that this request sees from start to end.
    pub snapshot: Arc<Snapshot>,
    /// When its head was read.
    pub started: Instant,
    /// Its place under the cap for all.
    pub share: Option<Share>,
}

/// A request as hyper read it.
#[derive(Debug)]
pub struct Arrived {
    /// Method, target, version, headers.
    pub(crate) head: http::request::Parts,
    /// The body, unread.
    pub(crate) body: Incoming,
    /// What travels along.
    pub(crate) passage: Passage,
}

/// What a worker needs to serve connections; `P` is its pipeline.
#[derive(Debug)]
pub struct Gatehouse<P> {
    /// The configuration now in force.
    pub snapshot: Arc<arc_swap::ArcSwap<Snapshot>>,
    /// The worker's way to the audit.
    pub lane: Rc<Lane>,
    /// The counts of all workers.
    pub counts: Arc<Counts>,
    /// Whether patgate goes on.
    pub life: watch::Receiver<Life>,
    /// Whether the audit can be written, for `/_patgate/ready`.
    pub audit: crate::audit::Audit,
    /// The numbers of all workers.
    pub metrics: Arc<Metrics>,
    /// What happens to a request.
    pub pipeline: P,
}

/// Accepts from one socket until draining begins, and returns when its last connection has ended.
/// `index` is the listener's place in the configuration.
pub async fn serve<P>(socket: TcpListener, shared: bool, index: usize, house: Rc<Gatehouse<P>>)
where
    P: Service<Arrived, Response = Response<Body>, Error = Infallible> + Clone + 'static,
    P::Future: 'static,
{
    // Connections hold a sender's clone; the receiver sees the last one go.
    let (held, mut all_gone) = tokio::sync::mpsc::channel::<Infallible>(1);
    let mut life = house.life.clone();
    {
        let mut draining = pin!(life.wait_for(|life| *life >= Life::Draining));
        loop {
            tokio::select! {
                biased;
                _ = &mut draining => break,
                accepted = socket.accept() => take(accepted, index, &house, &held).await,
            }
        }
    }
    if !shared {
        // Closing a socket of a `SO_REUSEPORT` group resets what waits in its queue.
        while let Some(accepted) = futures_util::FutureExt::now_or_never(socket.accept()) {
            if accepted.is_err() {
                break;
            }
            take(accepted, index, &house, &held).await;
        }
    }
    drop(socket);
    drop(held);
    let mut over = house.life.clone();
    tokio::select! {
        _ = all_gone.recv() => {}
        _ = over.wait_for(|life| *life == Life::Over) => {}
    }
}

async fn take<P>(
    accepted: io::Result<(TcpStream, SocketAddr)>,
    index: usize,
    house: &Rc<Gatehouse<P>>,
    held: &tokio::sync::mpsc::Sender<Infallible>,
) where
    P: Service<Arrived, Response = Response<Body>, Error = Infallible> + Clone + 'static,
    P::Future: 'static,
{
    let (stream, address) = match accepted {
        Ok(accepted) => accepted,
        Err(error) => {
            // Most often too many open files: others must end first, and looping would starve them.
            tracing::warn!(%error, "a connection could not be accepted");
            tokio::time::sleep(Duration::from_millis(50)).await;
            return;
        }
    };
    let address = SocketAddr::new(address.ip().to_canonical(), address.port());
    let snapshot = house.snapshot.load();
    let Some(share) = house.counts.connect(address.ip(), &snapshot.config.limits) else {
        house.lane.connection(address, Refusal::TooManyRequests, "too many connections");
        return;
    };
    let Some(listen) = snapshot.config.listeners.get(index).map(Arc::clone) else { return };
    house.metrics.accepted();
    let house = Rc::clone(house);
    let held = held.clone();
    spawn_local(async move {
        connection(stream, address, listen, index, house, share).await;
        drop(held);
    });
}

/// One connection, from the handshake to its end.
async fn connection<P>(
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
        let peer = Peer { address, tls: None };
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
    let peer = Peer { address, tls: Some(describe(session)) };
    let phase = Phase::new(&limits, http2);
    let io = Timed::new(TokioIo::new(stream), Rc::clone(&phase));
    let requests = Requests { peer, index, house, phase };
    if http2 { self::http2(io, requests).await } else { http1(io, requests).await }
}

/// Version and suite, shared by all connections that negotiated the same.
fn describe(session: &rustls::ServerConnection) -> Arc<str> {
    static USUAL: LazyLock<Arc<str>> = LazyLock::new(|| "TLSv1_3 TLS13_AES_256_GCM_SHA384".into());
    match (session.protocol_version(), session.negotiated_cipher_suite()) {
        (Some(rustls::ProtocolVersion::TLSv1_3), Some(suite))
            if suite.suite() == rustls::CipherSuite::TLS13_AES_256_GCM_SHA384 =>
        {
            Arc::clone(&USUAL)
        }
        (version, suite) => {
            let version = version.and_then(|version| version.as_str());
            let suite = suite.and_then(|suite| suite.suite().as_str());
            format!("{} {}", version.unwrap_or("?"), suite.unwrap_or("?")).into()
        }
    }
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
    builder.timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(32 * 1024).max_headers(64);
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

/// The requests of one connection.
struct Requests<P> {
    peer: Peer,
    index: usize,
    house: Rc<Gatehouse<P>>,
    phase: Rc<Phase>,
}

impl<P> hyper::service::Service<Request<Incoming>> for Requests<P>
where
    P: Service<Arrived, Response = Response<Body>, Error = Infallible> + Clone + 'static,
    P::Future: 'static,
{
    type Response = Response<Taken>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Taken>, Infallible>>>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let turn = self.phase.begin();
        let house = &self.house;
        let leaving = *house.life.borrow() != Life::Serving;
        let only_reads = matches!(*request.method(), Method::GET | Method::HEAD);
        if only_reads && request.uri().path() == "/_patgate/ready" {
            let ready = !leaving && house.audit.is_available();
            return Box::pin(std::future::ready(Ok(Taken::of(pipeline::ready(ready), turn))));
        }
        let snapshot = house.snapshot.load_full();
        let Some(listen) = snapshot.config.listeners.get(self.index).map(Arc::clone) else {
            // Listeners do not change in a reload.
            return Box::pin(std::future::ready(Ok(Taken::of(pipeline::internal(), turn))));
        };
        let passage = Passage {
            entry: house.lane.entry(Some(self.peer.address)),
            peer: self.peer.clone(),
            listen,
            snapshot,
            started: clock::now(),
            share: None,
        };
        let (head, body) = request.into_parts();
        let answered = house.pipeline.clone().call(Arrived { head, body, passage });
        let multiplexed = self.phase.is_multiplexed();
        let life = house.life.clone();
        Box::pin(async move {
            let Ok(mut response) = answered.await;
            if *life.borrow() != Life::Serving && !multiplexed {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(Taken::of(response, turn))
        })
    }
}

pin_project_lite::pin_project! {
    /// An answer's body that tells its connection when it has ended.
    pub struct Taken {
        #[pin]
        body: Body,
        turn: Option<Turn>,
    }
}

impl Taken {
    /// An answer, for the client to take.
    fn of(response: Response<Body>, turn: Turn) -> Response<Self> {
        turn.offer();
        response.map(|body| Self { body, turn: Some(turn) })
    }
}

impl http_body::Body for Taken {
    type Data = bytes::Bytes;
    type Error = <Body as http_body::Body>::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Self::Data>, Self::Error>>> {
        let this = self.project();
        let polled = this.body.poll_frame(cx);
        if let Some(turn) = this.turn {
            // Asked for more only once the client took what there was.
            if polled.is_pending() { turn.taken() } else { turn.offer() }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
