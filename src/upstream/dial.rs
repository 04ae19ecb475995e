//! TCP to the first of some addresses that answers.

use std::{future::Future, io, net::SocketAddr, pin::pin, time::Duration};

use futures_util::{
    StreamExt,
    future::{Either, select},
    stream::FuturesUnordered,
};
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};

use super::fault::Fault;

/// For TCP, all addresses together.
const CONNECT: Duration = Duration::from_secs(10);

/// An address that has not answered after this gets company by the next (RFC 8305, section 5).
const STAGGER: Duration = Duration::from_millis(250);

/// Connects to the first of some addresses that answers; `name` is for messages.
///
/// # Errors
/// `upstream-unreachable`
pub(super) async fn dial(addresses: Vec<SocketAddr>, name: &str) -> Result<TcpStream, Fault> {
    let stream = match timeout(CONNECT, race(addresses, TcpStream::connect)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(Fault::unreachable(format!("{name} can't be connected to: {error}"))),
        Err(_) => {
            return Err(Fault::unreachable(format!(
                "{name} could not be connected to within {} s",
                CONNECT.as_secs()
            )));
        }
    };
    stream.set_nodelay(true).map_err(|error| Fault::unreachable(format!("{name}: {error}")))?;
    Ok(stream)
}

/// Tries addresses in turn; one that fails is followed at once by the next, one that is silent after a while.
async fn race<T, F: Future<Output = io::Result<T>>>(
    addresses: Vec<SocketAddr>,
    connect: impl Fn(SocketAddr) -> F,
) -> io::Result<T> {
    let mut waiting = addresses.into_iter();
    let mut under_way = FuturesUnordered::new();
    let mut failure = io::Error::other("there is no address");
    loop {
        let more = waiting.next();
        let last = more.is_none();
        if let Some(address) = more {
            let attempt = connect(address);
            under_way.push(async move {
                attempt.await.map_err(|error| io::Error::new(error.kind(), format!("{address}: {error}")))
            });
        }
        let patience = pin!(async {
            if last {
                std::future::pending::<()>().await;
            }
            sleep(STAGGER).await;
        });
        match select(under_way.next(), patience).await {
            Either::Left((Some(Ok(stream)), _)) => return Ok(stream),
            Either::Left((Some(Err(error)), _)) => failure = error,
            Either::Left((None, _)) if last => return Err(failure),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn address(n: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, n], 443))
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_address_does_not_hold_up_the_next() {
        let tried = RefCell::new(Vec::new());
        let won = race(vec![address(1), address(2), address(3)], |to| {
            tried.borrow_mut().push(to);
            async move {
                if to == address(1) {
                    std::future::pending::<()>().await;
                }
                if to == address(2) { Err(io::ErrorKind::ConnectionRefused.into()) } else { Ok(to) }
            }
        });
        assert_eq!(won.await.unwrap(), address(3));
        assert_eq!(*tried.borrow(), [address(1), address(2), address(3)]);
    }

    #[tokio::test(start_paused = true)]
    async fn where_none_answers_the_last_failure_is_told() {
        let refused = |_| async { Err::<(), _>(io::Error::from(io::ErrorKind::ConnectionRefused)) };
        let error = race(vec![address(1), address(2)], refused).await.unwrap_err();
        assert!(error.to_string().starts_with("192.0.2.2:443: "), "{error}");
        assert!(race(Vec::new(), refused).await.is_err());
    }
}
