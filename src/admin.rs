//! The second listener: health for supervisors, numbers for Prometheus. Beside it, in files of their own, the Unix
//! socket that operators change things through: [`socket`], `operators`, `credentials`.
//!
//! What comes in: `GET` of `/healthz`, `/readyz` or `/metrics`, on the control thread. What goes
//! out: text. It only reads, must never show a secret, and never do work on a request's way. A
//! page in somebody's browser can't read it by pointing its own name at loopback (DNS rebinding):
//! `Host` must be a loopback name or the listener's address.

use std::{collections::VecDeque, convert::Infallible, net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header, uri::Authority};
use http_body_util::Full;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::{
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};

use crate::vault::Health;

pub(crate) mod credentials;
pub(crate) mod operators;
pub mod socket;

/// Connections at a time. One more ends the oldest, so that whoever holds them all, sending nothing, does not
/// keep a supervisor's question from being answered.
const CONNECTIONS: usize = 64;
/// For one connection from its start to its end. Each carries one request.
const WHOLE: Duration = Duration::from_secs(10);
/// For the head of the request.
const HEAD: Duration = Duration::from_secs(5);
/// After an `accept` that failed (no file descriptors left), before the next.
const PAUSE: Duration = Duration::from_millis(100);

/// What the process has to say of itself. Called on the control thread; must not block.
pub trait Shown: Send + Sync {
    /// Whether this instance can serve some request with its record.
    fn readiness(&self) -> Readiness;
    /// All numbers, as `OpenMetrics` text ([`crate::metrics::Metrics::encode`]).
    fn metrics(&self) -> String;
}

/// The answer of `/readyz`. It has no place for a secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// The status: 200, or 503.
    pub ready: bool,
    /// Why it is not ready (`stopping`, `audit-unavailable`); empty if it is.
    pub reasons: Vec<&'static str>,
    /// What does not work as it should: no reason to leave a balancer.
    pub degraded: Vec<Degraded>,
}

/// A credential that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Degraded {
    /// Its name.
    pub credential: Arc<str>,
    /// `expiring`, `expired`, `stale`, `rejected`, `unreachable`, `missing` or `disabled`.
    pub state: &'static str,
    /// Since when, as RFC 3339 has it.
    pub since: String,
    /// When it expires, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
}

impl Readiness {
    /// From the reasons against it and the states of all credentials
    /// ([`crate::vault::Vaults::health`]): `valid` and `unused` are as they should be.
    #[must_use]
    pub fn new(reasons: Vec<&'static str>, health: Vec<Health>) -> Self {
        let degraded = health
            .into_iter()
            .filter(|health| !health.state.is_sound())
            .map(|Health { credential, state, since, expires, .. }| Degraded {
                credential,
                state: state.as_str(),
                since: format!("{since:.0}"),
                expires: expires.map(|expires| format!("{expires:.0}")),
            })
            .collect();
        Self { ready: reasons.is_empty(), reasons, degraded }
    }
}

/// Answers on `listener` until the future is dropped, and its connections with it.
pub async fn serve(listener: TcpListener, shown: Arc<dyn Shown>) {
    let own = listener.local_addr().map(|address| address.ip()).ok();
    let mut connections = JoinSet::new();
    let mut open: VecDeque<AbortHandle> = VecDeque::with_capacity(CONNECTIONS);
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                open.retain(|one| !one.is_finished());
                if open.len() >= CONNECTIONS
                    && let Some(oldest) = open.pop_front()
                {
                    oldest.abort();
                }
                open.push_back(connections.spawn(connection(stream, own, Arc::clone(&shown))));
            }
            Err(error) => {
                tracing::warn!(%error, "the admin listener can't accept");
                sleep(PAUSE).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn connection(stream: TcpStream, own: Option<IpAddr>, shown: Arc<dyn Shown>) {
    let service = service_fn(|request: Request<_>| {
        let answer = respond(&request, own, &*shown);
        async { Ok::<_, Infallible>(answer) }
    });
    let mut http = http1::Builder::new();
    http.keep_alive(false).max_buf_size(16 * 1024).max_headers(64);
    http.timer(TokioTimer::new()).header_read_timeout(HEAD);
    // A client that breaks the protocol, or is too slow, is simply let go.
    let _ = timeout(WHOLE, http.serve_connection(TokioIo::new(stream), service)).await;
}

/// One answer. Generic over the body, which is never read.
fn respond<B>(request: &Request<B>, own: Option<IpAddr>, shown: &dyn Shown) -> Response<Full<Bytes>> {
    let text = "text/plain; charset=utf-8";
    if request.uri().authority().is_some() || !is_ours(request.headers(), own) {
        let sentence = "patgate: the admin listener answers to its own address and to localhost only\n";
        return response(StatusCode::MISDIRECTED_REQUEST, text, sentence.into());
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut answer =
            response(StatusCode::METHOD_NOT_ALLOWED, text, "patgate: this listener only reads\n".into());
        answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return answer;
    }
    match request.uri().path() {
        "/healthz" => response(StatusCode::OK, text, "ok\n".into()),
        "/readyz" => {
            let readiness = shown.readiness();
            let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            let body = serde_json::to_string(&readiness).unwrap_or_default() + "\n";
            response(status, "application/json", body)
        }
        "/metrics" => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            response(StatusCode::OK, kind, shown.metrics())
        }
        _ => {
            let sentence = "patgate: there are /healthz, /readyz and /metrics\n";
            response(StatusCode::NOT_FOUND, text, sentence.into())
        }
    }
}

fn response(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Whether the one `Host` is `localhost`, a loopback address or the listener's own.
fn is_ours(headers: &HeaderMap, own: Option<IpAddr>) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let Ok(authority) = Authority::try_from(host.as_bytes()) else { return false };
    if authority.as_str().contains('@') {
        return false;
    }
    let name = authority.host();
    if name.eq_ignore_ascii_case("localhost") {
        return true;
    }
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback() || Some(address) == own)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::vault::State;

    struct Process {
        ready: bool,
    }

    impl Shown for Process {
        fn readiness(&self) -> Readiness {
            let reasons = if self.ready { vec![] } else { vec!["stopping"] };
            let health = |name: &str, state| Health {
                credential: name.into(),
                state,
                since: jiff::Timestamp::UNIX_EPOCH,
                version: None,
                read: None,
                expires: jiff::Timestamp::from_second(1).ok(),
                previous_until: None,
                detail: None,
            };
            Readiness::new(reasons, vec![health("web", State::Rejected), health("docs", State::Valid)])
        }
        fn metrics(&self) -> String {
            "a 1\n# EOF\n".into()
        }
    }

    async fn listening(ready: bool) -> (std::net::SocketAddr, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (address, tokio::spawn(serve(listener, Arc::new(Process { ready }))))
    }

    async fn exchange(address: std::net::SocketAddr, head: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(format!("{head}\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn each_page_says_what_it_is_for() {
        let degraded = "\"degraded\":[{\"credential\":\"web\",\"state\":\"rejected\",\"since\":\"1970-01-01T00:00:00Z\",\
                        \"expires\":\"1970-01-01T00:00:01Z\"}]}\n";
        for (ready, line, status, end) in [
            (true, "GET /healthz", "200 OK", "\r\n\r\nok\n".to_owned()),
            (false, "GET /healthz", "200 OK", "\r\n\r\nok\n".to_owned()),
            (true, "HEAD /healthz", "200 OK", "\r\n\r\n".to_owned()),
            (true, "GET /readyz", "200 OK", format!("{{\"ready\":true,\"reasons\":[],{degraded}")),
            (
                false,
                "GET /readyz",
                "503 Service Unavailable",
                format!("{{\"ready\":false,\"reasons\":[\"stopping\"],{degraded}"),
            ),
            (true, "GET /metrics?x=y", "200 OK", "\r\n\r\na 1\n# EOF\n".to_owned()),
            (true, "GET /", "404 Not Found", "/metrics\n".to_owned()),
            (true, "POST /readyz", "405 Method Not Allowed", "only reads\n".to_owned()),
        ] {
            let (address, server) = listening(ready).await;
            let answer = exchange(address, &format!("{line} HTTP/1.1\r\nHost: localhost")).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{line}: {answer}");
            assert!(answer.ends_with(&end), "{line}: {answer}");
            server.abort();
        }
    }

    #[test]
    fn only_loopback_names_and_the_listeners_address_are_answered() {
        let own: IpAddr = "10.1.2.3".parse().unwrap();
        for (hosts, ours) in [
            (&["localhost"][..], true),
            (&["LOCALHOST:9443"], true),
            (&["127.0.0.1:9443"], true),
            (&["127.8.8.8"], true),
            (&["[::1]:9443"], true),
            (&["10.1.2.3:9443"], true),
            (&["10.1.2.4"], false),
            (&["evil.example"], false),
            (&["localhost.evil.example"], false),
            (&["127.0.0.1.evil.example"], false),
            (&["evil.example@localhost"], false),
            (&["localhost", "evil.example"], false),
            (&["localhost", "localhost"], false),
            (&["[::1"], false),
            (&[""], false),
            (&[], false),
        ] {
            let mut headers = HeaderMap::new();
            for host in hosts {
                headers.append(header::HOST, HeaderValue::from_static(host));
            }
            assert_eq!(is_ours(&headers, Some(own)), ours, "{hosts:?}");
        }
    }

    #[tokio::test]
    async fn a_foreign_host_is_shown_nothing() {
        let (address, _server) = listening(true).await;
        for head in [
            "GET /metrics HTTP/1.1\r\nHost: evil.example",
            "GET http://evil.example/metrics HTTP/1.1\r\nHost: localhost",
            "GET /metrics HTTP/1.0",
        ] {
            let answer = exchange(address, head).await;
            assert!(answer.contains(" 421 "), "{answer}");
            assert!(!answer.contains("# EOF"), "{answer}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_connection_is_let_go() {
        let (address, _server) = listening(true).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        let begun = tokio::time::Instant::now();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(begun.elapsed() <= WHOLE, "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn whoever_holds_every_connection_keeps_nobody_out() {
        let (address, _server) = listening(true).await;
        let mut held = Vec::new();
        for _ in 0..2 * CONNECTIONS {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: loc").await.unwrap();
            held.push(stream);
        }
        let begun = tokio::time::Instant::now();
        let answer = exchange(address, "GET /healthz HTTP/1.1\r\nHost: localhost").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        assert!(begun.elapsed() < HEAD, "{:?}: only once the others were let go", begun.elapsed());
    }
}
