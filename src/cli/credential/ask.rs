//! One question to a running patgate.

use std::{io, path::Path, time::Duration};

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::UnixStream, time::timeout};

/// For the whole of it. patgate itself gives up before.
const PATIENCE: Duration = Duration::from_secs(100);
/// The largest answer, in bytes.
const ANSWER: usize = 64 << 20;

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Unasked {
    /// Nobody listens there.
    Absent,
    /// The file system says no.
    Forbidden,
    /// Anything else, as a sentence.
    Failed(String),
}

/// Asks, and gives the status and what was said.
pub(super) fn ask(
    socket: &Path,
    method: &Method,
    path: &str,
    body: &Value,
) -> Result<(StatusCode, Value), Unasked> {
    let failed = |error: io::Error| Unasked::Failed(error.to_string());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    runtime.block_on(async {
        let asked = timeout(PATIENCE, exchange(socket, method, path, body)).await;
        asked.unwrap_or_else(|_| Err(Unasked::Failed(format!("no answer within {} s", PATIENCE.as_secs()))))
    })
}

async fn exchange(
    socket: &Path,
    method: &Method,
    path: &str,
    body: &Value,
) -> Result<(StatusCode, Value), Unasked> {
    let stream = UnixStream::connect(socket).await.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Unasked::Absent,
        io::ErrorKind::PermissionDenied => Unasked::Forbidden,
        _ => Unasked::Failed(error.to_string()),
    })?;
    let broken = |error: &dyn std::fmt::Display| Unasked::Failed(format!("the answer broke off: {error}"));
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
    tokio::spawn(connection);
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let request: Request<Full<Bytes>> = Request::builder()
        .method(method)
        .uri(format!("/v1/{path}"))
        .header(header::HOST, "patgate")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::from(body))
        .map_err(|error| Unasked::Failed(error.to_string()))?;
    let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
    let (head, body) = response.into_parts();
    let body = Limited::new(body, ANSWER).collect().await.map_err(|error| broken(&error))?.to_bytes();
    Ok((head.status, serde_json::from_slice(&body).unwrap_or(Value::Null)))
}
