//! Accepts connections and turns bytes into [`Arrived`].
//!
//! What comes in: a socket of this worker. What goes out: one [`Arrived`] a request, into the
//! pipeline. It must never wait without a deadline, and never keep a connection over a cap.

use std::{convert::Infallible, io, net::SocketAddr, pin::pin, rc::Rc, sync::Arc, time::Duration};

use http::Response;
use hyper::body::Incoming;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::spawn_local,
};
use tower::Service;

use crate::{
    app::Snapshot,
    audit::{Entry, Lane},
    config::Listen,
    limits::{Counts, Share},
    metrics::Metrics,
    refusal::Refusal,
    upstream::Body,
};

mod connection;
mod requests;
pub mod sockets;
mod timed;

pub use timed::Lifeline;

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
    /// Its place under the cap for all.
    pub share: Option<Share>,
    /// The client's connection, where this request has it alone.
    pub lifeline: Lifeline,
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
        connection::run(stream, address, listen, index, house, share).await;
        drop(held);
    });
}
