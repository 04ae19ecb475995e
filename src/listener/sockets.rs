//! Listening sockets: one a worker and address, or those that a supervisor hands over.

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

use listenfd::ListenFd;
use socket2::{Domain, Protocol, Socket, Type};

/// The length of the queue of connections that wait to be accepted.
const BACKLOG: i32 = 4096;

/// Why an address could not be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else listens there.
    #[error("{0} is taken by another process; stop that one, or choose another `address` under [[listen]]")]
    Taken(SocketAddr),
    /// Anything else.
    #[error("{0} can't be listened on: {1}")]
    Io(SocketAddr, #[source] io::Error),
    /// The supervisor passed sockets for other addresses than the configuration names.
    #[error("the supervisor passed a socket for {0}, which no [[listen]] names")]
    Unexpected(SocketAddr),
}

/// The sockets that a supervisor passed (`LISTEN_FDS`, see `sd_listen_fds(3)`).
#[derive(Debug, Default)]
pub struct Inherited(Vec<TcpListener>);

impl Inherited {
    /// Takes them from the environment. To be called once.
    ///
    /// # Errors
    /// When what was passed is not a listening TCP socket.
    pub fn take() -> io::Result<Self> {
        let mut passed = ListenFd::from_env();
        let mut sockets = Vec::new();
        for index in 0..passed.len() {
            sockets.extend(passed.take_tcp_listener(index)?);
        }
        Ok(Self(sockets))
    }

    /// Whether there are any: then another patgate may still be serving its last requests.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// One address with a socket for each worker.
#[derive(Debug)]
pub struct Bound {
    /// The address as the system gave it (a port of 0 has become a real one).
    pub address: SocketAddr,
    /// One a worker.
    pub sockets: Vec<TcpListener>,
    /// Whether other processes may accept from the same queue.
    pub shared: bool,
}

/// Opens every address, each for `workers` threads.
///
/// # Errors
/// See [`BindError`]; nothing stays bound then.
pub fn bind(addresses: &[SocketAddr], workers: usize, inherited: Inherited) -> Result<Vec<Bound>, BindError> {
    let mut passed = inherited.0;
    let mut bound = Vec::with_capacity(addresses.len());
    for &address in addresses {
        let position = passed.iter().position(|socket| socket.local_addr().is_ok_and(|at| at == address));
        bound.push(match position {
            Some(position) => share(address, passed.swap_remove(position), workers),
            None => open(address, workers),
        }?);
    }
    match passed.first().map(TcpListener::local_addr) {
        Some(Ok(address)) => Err(BindError::Unexpected(address)),
        _ => Ok(bound),
    }
}

/// Opens the admin address. In a hand-over (`overlap`) it may still be the old process's: then
/// there is none, and a warning.
///
/// # Errors
/// See [`BindError`].
pub fn bind_admin(address: SocketAddr, overlap: bool) -> Result<Option<TcpListener>, BindError> {
    match listen(address, false) {
        Err(BindError::Taken(_)) if overlap => {
            tracing::warn!(%address, "the admin address is still the old process's; going on without");
            Ok(None)
        }
        opened => opened.map(Some),
    }
}

fn share(address: SocketAddr, socket: TcpListener, workers: usize) -> Result<Bound, BindError> {
    let fail = |error| BindError::Io(address, error);
    socket.set_nonblocking(true).map_err(fail)?;
    let mut sockets = Vec::with_capacity(workers);
    for _ in 1..workers {
        sockets.push(socket.try_clone().map_err(fail)?);
    }
    sockets.push(socket);
    Ok(Bound { address, sockets, shared: true })
}

fn open(address: SocketAddr, workers: usize) -> Result<Bound, BindError> {
    // `SO_REUSEPORT` would let two patgates share a port without a word: look first without it.
    let first = listen(address, false)?;
    let address = first.local_addr().map_err(|error| BindError::Io(address, error))?;
    drop(first);
    let sockets = (0..workers).map(|_| listen(address, true)).collect::<Result<_, _>>()?;
    Ok(Bound { address, sockets, shared: false })
}

fn listen(address: SocketAddr, reuse_port: bool) -> Result<TcpListener, BindError> {
    let attempt = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(reuse_port)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    attempt().map_err(|error: io::Error| match error.kind() {
        io::ErrorKind::AddrInUse => BindError::Taken(address),
        _ => BindError::Io(address, error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_noticed_although_ports_are_shared() {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let first = bind(&[loopback], 2, Inherited::default()).unwrap();
        assert_eq!(first[0].sockets.len(), 2);
        let again = bind(&[first[0].address], 1, Inherited::default());
        assert!(matches!(again, Err(BindError::Taken(at)) if at == first[0].address));
    }

    #[test]
    fn a_passed_socket_is_used_and_a_strange_one_refused() {
        let passed = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = passed.local_addr().unwrap();
        let bound = bind(&[address], 3, Inherited(vec![passed])).unwrap();
        assert!(bound[0].shared);
        assert_eq!(bound[0].sockets.len(), 3);
        let strange = TcpListener::bind("127.0.0.1:0").unwrap();
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        assert!(matches!(bind(&[loopback], 1, Inherited(vec![strange])), Err(BindError::Unexpected(_))));
    }
}
