//! The protocol of the admin socket: HTTP/1.1 with JSON, for operators alone.
//!
//! What comes in: connections of processes of this machine. What goes out: what credentials are like, and changes that
//! are on record before they take effect. Who asks is what the kernel says of the other end (`SO_PEERCRED`), never what
//! the request says.
//!
//! # Adding an operation
//! A line in [`route`]; a function of [`Credentials`] that records before it acts; its row in `docs/operations.md`.

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    net::{UnixListener, UnixStream},
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};

use super::credentials::{Credentials, Declined, Operator};
use crate::clock;

/// Connections of operators at a time. One more ends the oldest.
const CONNECTIONS: usize = 16;
/// Connections of others at a time: they are told that they may not, and no more are answered.
const STRANGERS: usize = 16;
/// For one connection from its start to its end. Each carries one request.
const WHOLE: Duration = Duration::from_secs(90);
/// For the head of a request, for its body, and for a connection of somebody who may not.
const PART: Duration = Duration::from_secs(5);
/// The largest body of a request, in bytes.
const BODY: usize = 16 * 1024;
/// After an `accept` that failed (no file descriptors left), before the next.
const PAUSE: Duration = Duration::from_millis(100);

/// Between two words about strangers, who may come as often as they like.
const QUIET: Duration = Duration::from_secs(10);

/// Answers on `listener` until the future is dropped. `admins`: the uids that may.
pub(crate) async fn serve(listener: UnixListener, admins: Vec<u32>, credentials: Arc<Credentials>) {
    let mut connections = JoinSet::new();
    let mut strangers = JoinSet::new();
    let mut open: VecDeque<AbortHandle> = VecDeque::with_capacity(CONNECTIONS);
    let mut told: Option<Instant> = None;
    loop {
        while connections.try_join_next().is_some() || strangers.try_join_next().is_some() {}
        let (stream, peer) = match listener.accept().await.and_then(|(stream, _)| {
            let peer = stream.peer_cred()?;
            Ok((stream, peer))
        }) {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "the admin socket can't accept");
                sleep(PAUSE).await;
                continue;
            }
        };
        let uid = peer.uid();
        if !admins.contains(&uid) {
            let now = clock::now();
            if told.is_none_or(|at| now.saturating_duration_since(at) >= QUIET) {
                told = Some(now);
                tracing::warn!(uid, "somebody who is none of [admin] admins came to the admin socket");
            }
            if strangers.len() < STRANGERS {
                strangers.spawn(timeout(PART, connection(stream, None)));
            }
            continue;
        }
        open.retain(|one| !one.is_finished());
        if open.len() >= CONNECTIONS
            && let Some(oldest) = open.pop_front()
        {
            oldest.abort();
        }
        let operator = Operator::of(uid);
        open.push_back(connections.spawn(connection(stream, Some((operator, Arc::clone(&credentials))))));
    }
}

/// `who`: `None` for somebody who may not.
async fn connection(stream: UnixStream, who: Option<(Operator, Arc<Credentials>)>) {
    let service = service_fn(|request: Request<Incoming>| {
        let who = who.clone();
        async move {
            let (status, body) = match who {
                None => (StatusCode::FORBIDDEN, json!({ "error": "this user is none of [admin] admins" })),
                Some((operator, credentials)) => answer(request, operator, credentials).await,
            };
            Ok::<_, Infallible>(response(status, &body))
        }
    });
    let mut http = http1::Builder::new();
    http.keep_alive(false).max_buf_size(16 * 1024).max_headers(64);
    http.timer(TokioTimer::new()).header_read_timeout(PART);
    // A client that breaks the protocol, or is too slow, is simply let go.
    let _ = timeout(WHOLE, http.serve_connection(TokioIo::new(stream), service)).await;
}

async fn answer(
    request: Request<Incoming>,
    operator: Operator,
    credentials: Arc<Credentials>,
) -> (StatusCode, Value) {
    let (head, body) = request.into_parts();
    let asked = match Asked::of(&head.method, head.uri.path()) {
        Ok(asked) => asked,
        Err((status, error)) => return (status, json!({ "error": error })),
    };
    let body = match timeout(PART, Limited::new(body, BODY).collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(_)) => {
            return (StatusCode::BAD_REQUEST, json!({ "error": "the body is cut, or over 16 KiB" }));
        }
        Err(_) => return (StatusCode::REQUEST_TIMEOUT, json!({ "error": "the body did not come in time" })),
    };
    // Of its own, so that a change which is begun is ended, whether or not somebody waits for the answer.
    match tokio::spawn(carry_out(asked, body, operator, credentials)).await {
        Ok(Ok(said)) => (StatusCode::OK, said),
        Ok(Err(declined)) => (declined.status(), json!({ "error": declined.to_string() })),
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, json!({ "error": "an internal fault" })),
    }
}

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    List,
    RefreshAll,
    Refresh(String),
    Disable(String),
    Enable(String),
}

impl Asked {
    fn of(method: &Method, path: &str) -> Result<Self, (StatusCode, &'static str)> {
        let missing = (
            StatusCode::NOT_FOUND,
            "there are GET /v1/credentials, POST /v1/refresh and POST /v1/credentials/NAME/refresh, …/disable, …/enable",
        );
        let mut segments = path.strip_prefix("/v1/").ok_or(missing)?.split('/');
        let (first, name, operation) = (segments.next(), segments.next(), segments.next());
        if segments.next().is_some() {
            return Err(missing);
        }
        let named = |name: &str| {
            let name = percent_decode_str(name).decode_utf8().map(String::from);
            name.map_err(|_| (StatusCode::BAD_REQUEST, "the credential's name is not UTF-8"))
        };
        let (right, asked) = match (first, name, operation) {
            (Some("credentials"), None, None) => (Method::GET, Self::List),
            (Some("refresh"), None, None) => (Method::POST, Self::RefreshAll),
            (Some("credentials"), Some(name), Some("refresh")) => (Method::POST, Self::Refresh(named(name)?)),
            (Some("credentials"), Some(name), Some("disable")) => (Method::POST, Self::Disable(named(name)?)),
            (Some("credentials"), Some(name), Some("enable")) => (Method::POST, Self::Enable(named(name)?)),
            _ => return Err(missing),
        };
        if *method == right {
            Ok(asked)
        } else {
            Err((StatusCode::METHOD_NOT_ALLOWED, "this method is not for this path"))
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Disable {
    reason: String,
    #[serde(default)]
    cut: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Enable {
    reason: String,
}

async fn carry_out(
    asked: Asked,
    body: Bytes,
    operator: Operator,
    credentials: Arc<Credentials>,
) -> Result<Value, Declined> {
    let wrong =
        |error: serde_json::Error| Declined::Wrong(format!("the body is not as it should be: {error}"));
    match asked {
        Asked::List => Ok(credentials.list()),
        Asked::RefreshAll => credentials.refresh_all(&operator).await,
        Asked::Refresh(name) => credentials.refresh(&operator, &name).await,
        Asked::Disable(name) => {
            let Disable { reason, cut } = serde_json::from_slice(&body).map_err(wrong)?;
            credentials.disable(&operator, &name, &reason, cut).await
        }
        Asked::Enable(name) => {
            let Enable { reason } = serde_json::from_slice(&body).map_err(wrong)?;
            credentials.enable(&operator, &name, &reason).await
        }
    }
}

fn response(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(format!("{body}\n")));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_asks_for_one_thing() {
        let (get, post) = (Method::GET, Method::POST);
        for (method, path, expected) in [
            (&get, "/v1/credentials", Ok(Asked::List)),
            (&post, "/v1/refresh", Ok(Asked::RefreshAll)),
            (&post, "/v1/credentials/web/refresh", Ok(Asked::Refresh("web".into()))),
            (&post, "/v1/credentials/web%20read%2Fa/disable", Ok(Asked::Disable("web read/a".into()))),
            (&post, "/v1/credentials/r%C3%A9/enable", Ok(Asked::Enable("ré".into()))),
            (&post, "/v1/credentials", Err(405)),
            (&get, "/v1/credentials/web/disable", Err(405)),
            (&get, "/v1/refresh", Err(405)),
            (&post, "/v1/credentials/web", Err(404)),
            (&post, "/v1/credentials/web/delete", Err(404)),
            (&post, "/v1/credentials/web/disable/x", Err(404)),
            (&post, "/v1/credentials/%ff/disable", Err(400)),
            (&get, "/credentials", Err(404)),
            (&get, "/v2/credentials", Err(404)),
            (&get, "/", Err(404)),
        ] {
            let asked = Asked::of(method, path).map_err(|(status, _)| status.as_u16());
            assert_eq!(asked, expected, "{method} {path}");
        }
    }
}
