//! Accepts connections and turns bytes into [`Arrived`].

use std::{net::SocketAddr, sync::Arc, time::Instant};

use hyper::body::Incoming;

use crate::{app::Snapshot, audit::Entry, config::Listen};

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
