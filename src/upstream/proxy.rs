//! The way out through a company's proxy: `CONNECT`, then TLS from end to end.

use std::time::Duration;

use http::uri::Authority;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::fault::Fault;

/// For the proxy's answer: it may itself have to reach Azure DevOps first.
const DEADLINE: Duration = Duration::from_secs(10);

/// The longest head of an answer to `CONNECT`, in bytes.
const HEAD: usize = 8 * 1024;

/// Asks a proxy, over a connection to it, for a tunnel to `host`. No credential is sent to it.
///
/// # Errors
/// `upstream-unreachable`, with what the proxy answered.
pub(super) async fn tunnel(
    mut stream: TcpStream,
    proxy: &Authority,
    host: &str,
    port: u16,
) -> Result<TcpStream, Fault> {
    let asked = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n");
    let head = timeout(DEADLINE, async {
        stream.write_all(asked.as_bytes()).await?;
        read_head(&mut stream).await
    });
    match head.await {
        Ok(Ok(head)) => verdict(&head, proxy, host).map(|()| stream),
        Ok(Err(error)) => {
            Err(Fault::unreachable(format!("the proxy {proxy} broke off when asked for {host}: {error}")))
        }
        Err(_) => Err(Fault::unreachable(format!(
            "the proxy {proxy} gave no answer for {host} within {} s",
            DEADLINE.as_secs()
        ))),
    }
}

/// Reads up to and including the empty line. Byte by byte would be slow, so pieces are peeked at first: whatever
/// follows the head belongs to TLS and stays in the socket.
async fn read_head(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut head = Vec::new();
    let mut piece = [0; 1024];
    while head.len() < HEAD {
        let seen = stream.peek(&mut piece).await?;
        if seen == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let before = head.len();
        head.extend(piece.iter().take(seen));
        let end = find_end(&head);
        let taken = end.map_or(seen, |end| end.saturating_sub(before));
        head.truncate(before + taken);
        if let Some(part) = piece.get_mut(..taken) {
            stream.read_exact(part).await?;
        }
        if end.is_some() {
            return Ok(head);
        }
    }
    Err(std::io::Error::other(format!("its answer's head is longer than {HEAD} bytes")))
}

/// Where the head ends: behind the first empty line.
fn find_end(head: &[u8]) -> Option<usize> {
    head.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

/// Any 2xx opens the tunnel (RFC 9110, section 9.3.6); anything else is an answer of the proxy's own.
fn verdict(head: &[u8], proxy: &Authority, host: &str) -> Result<(), Fault> {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let mut words = line.splitn(3, ' ');
    let version = words.next().unwrap_or_default();
    let status = words.next().unwrap_or_default();
    let known = version == "HTTP/1.1" || version == "HTTP/1.0";
    if known && status.len() == 3 && status.starts_with('2') && status.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(());
    }
    let shown: String = line.chars().filter(|c| !c.is_control()).take(80).collect();
    Err(Fault::unreachable(format!("the proxy {proxy} does not let {host} through: \"{shown}\"")))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// A proxy that gives one answer; yields what it was asked.
    async fn asked(answer: &'static [u8]) -> (Result<Vec<u8>, Fault>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let proxy = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let asked = read_head(&mut stream).await.unwrap();
            stream.write_all(answer).await.unwrap();
            asked
        };
        let client = async {
            let stream = TcpStream::connect(address).await.unwrap();
            let mut through =
                tunnel(stream, &"proxy.corp:8080".parse().unwrap(), "dev.azure.com", 443).await?;
            let mut rest = Vec::new();
            through.read_to_end(&mut rest).await.unwrap();
            Ok(rest)
        };
        tokio::join!(client, proxy)
    }

    #[tokio::test]
    async fn a_tunnel_starts_behind_the_proxys_head() {
        let (rest, asked) = asked(b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n\x16\x03").await;
        assert_eq!(rest.unwrap(), b"\x16\x03");
        assert_eq!(asked, b"CONNECT dev.azure.com:443 HTTP/1.1\r\nHost: dev.azure.com:443\r\n\r\n");
    }

    #[tokio::test]
    async fn a_refusal_of_the_proxy_is_told_in_its_own_words() {
        let (rest, _) = asked(b"HTTP/1.1 403 Forbidden\r\n\r\nno").await;
        let fault = rest.unwrap_err();
        assert!(fault.detail.ends_with("\"HTTP/1.1 403 Forbidden\""), "{fault:?}");
    }

    #[tokio::test]
    async fn what_is_no_answer_opens_no_tunnel() {
        for answer in [&b""[..], b"HTTP/1.1 200 OK\r\n", b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 2xx OK\r\n\r\n"] {
            assert!(asked(answer).await.0.is_err(), "{answer:?}");
        }
        let endless: &'static [u8] = Box::leak(vec![b'a'; 2 * HEAD].into_boxed_slice());
        assert!(asked(endless).await.0.is_err());
    }
}
