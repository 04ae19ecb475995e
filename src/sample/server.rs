//! Accepts connections and speaks TLS and HTTP/1.1.

use std::{
    convert::Infallible,
    io,
    net::TcpListener,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::{Semaphore, watch},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use super::site::Site;

/// Open connections, at most; more wait in the listener's queue.
const CONNECTIONS: usize = 4_096;
/// For a TLS handshake, and for the head of a request once it has begun.
const PATIENCE: Duration = Duration::from_secs(30);

/// Serves until `stop` says so. The runtime ends with it, and all that runs on it.
pub(super) fn run(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    site: Arc<Site>,
    stop: watch::Receiver<bool>,
) {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            if let Err(error) = runtime.block_on(accept(listener, tls, site, stop)) {
                tracing::error!(%error, "the sample organisation can't listen");
            }
            runtime.shutdown_background();
        }
        Err(error) => tracing::error!(%error, "the sample organisation has no runtime"),
    }
}

async fn accept(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    site: Arc<Site>,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let acceptor = TlsAcceptor::from(tls);
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
            accepted = async {
                let share = Arc::clone(&room).acquire_owned().await;
                (listener.accept().await, share)
            } => accepted,
        };
        match accepted {
            (Ok((stream, _)), share) => {
                let (acceptor, site) = (acceptor.clone(), Arc::clone(&site));
                tokio::spawn(async move {
                    connection(stream, acceptor, site).await;
                    drop(share);
                });
            }
            (Err(error), _) => {
                // Out of descriptors, most likely: connections that end give some back.
                tracing::warn!(%error, "the sample organisation can't accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor, site: Arc<Site>) {
    let _ = stream.set_nodelay(true);
    let Ok(Ok(stream)) = timeout(PATIENCE, acceptor.accept(stream)).await else { return };
    let garble = Arc::new(AtomicBool::new(false));
    let io = TokioIo::new(Wire { stream, garble: Arc::clone(&garble) });
    let service = service_fn(move |request| {
        let (site, garble) = (Arc::clone(&site), Arc::clone(&garble));
        async move {
            let answer = site.answer(request).await;
            if answer.extensions().get::<Garbled>().is_some() {
                garble.store(true, Ordering::Release);
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .serve_connection(io, service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection to the sample organisation broke");
    }
}

/// Marks an answer that goes out as bytes that are not HTTP.
#[derive(Clone, Copy, Debug)]
pub(super) struct Garbled;

/// A connection whose next answer may be replaced by something else.
struct Wire<S> {
    stream: S,
    garble: Arc<AtomicBool>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if !self.garble.load(Ordering::Acquire) {
            return Pin::new(&mut self.stream).poll_write(cx, buf);
        }
        match Pin::new(&mut self.stream).poll_write(cx, b"\0\x01\x02 this is not HTTP\r\n\r\n") {
            Poll::Ready(Ok(_)) => Poll::Ready(Ok(buf.len())),
            other => other,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
