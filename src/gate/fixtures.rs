//! Raw requests, as bytes, through hyper and the gate: `tests/fixtures/requests/{verdict}--{what}.http`.
//!
//! The verdict is a refusal's code, or `accepted`. `head-malformed` is also what hyper itself refuses.

use std::{convert::Infallible, path::Path};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{read, tests::listen};

/// What stands in the name of the header that carries the gate's verdict.
const VERDICT: &str = "x-verdict";

async fn judge(request: Request<Incoming>) -> Result<Response<Empty<Bytes>>, Infallible> {
    let (head, _) = request.into_parts();
    let verdict = read(&head, &listen()).map_or_else(|(why, _)| why.code(), |_| "accepted");
    let response = Response::builder().header(VERDICT, verdict).header("connection", "close");
    Ok(response.body(Empty::new()).unwrap())
}

/// The verdict on the first request of these bytes.
async fn verdict(bytes: &[u8]) -> String {
    let (mut client, server) = tokio::io::duplex(64 * 1024);
    let connection = http1::Builder::new().serve_connection(TokioIo::new(server), service_fn(judge));
    let mut answer = Vec::new();
    let exchange = async {
        client.write_all(bytes).await.unwrap();
        client.read_to_end(&mut answer).await.unwrap();
    };
    let both = async { tokio::join!(connection, exchange) };
    let _ = tokio::time::timeout(std::time::Duration::from_secs(5), both)
        .await
        .expect("hyper is waiting for more");
    let answer = String::from_utf8(answer).unwrap();
    let said = answer.lines().find_map(|line| line.strip_prefix(VERDICT)?.strip_prefix(": "));
    said.unwrap_or("head-malformed").to_owned()
}

#[tokio::test]
async fn every_raw_request_gets_the_verdict_in_its_name() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/requests");
    let mut wrong = Vec::new();
    let mut count = 0;
    for entry in folder.read_dir().unwrap() {
        let path = entry.unwrap().path();
        if path.extension() != Some("http".as_ref()) {
            continue;
        }
        let name = path.file_stem().unwrap().to_str().unwrap();
        let (expected, _) = name.split_once("--").unwrap();
        let read = verdict(&std::fs::read(&path).unwrap()).await;
        if read != expected {
            wrong.push(format!("{name}: {read}"));
        }
        count += 1;
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(count > 60, "only {count} fixtures were found");
}
