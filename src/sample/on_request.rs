//! One answer of a wanted kind: `…/_apis/sample/…`.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header, request::Parts};
use http_body_util::BodyExt;
use percent_encoding::percent_decode_str;
use serde_json::json;

use super::{
    answer::{self, MEMBER, Stream, put},
    behaviour::{self, Break, Broken},
    identity::hex,
    seen::Seen,
    server::Garbled,
    site::Received,
};

const OCTETS: &str = "application/octet-stream";

/// Answers as the path and the query ask for.
pub(super) async fn answer(
    what: &str,
    organization: &str,
    head: &Parts,
    body: Received,
    seen: &Seen,
) -> Response<Stream> {
    let query = head.uri.query().unwrap_or_default();
    let number = |name| parameter(query, name).and_then(|value| value.parse::<u64>().ok());
    let chunked = parameter(query, "chunked").is_some();
    match what {
        "echo" => echo(query, head, seen),
        "body" => answer::answer(StatusCode::OK, OCTETS, Stream::new(body)),
        "sink" => sink(body, seen).await,
        "early" => early(),
        "status" => status(number("code").unwrap_or(200)),
        "location" => {
            let mut answer = status(number("code").unwrap_or(302));
            put(answer.headers_mut(), "location", &parameter(query, "to").unwrap_or_default());
            answer
        }
        "rate" => {
            let mut answer = status(number("code").unwrap_or(200));
            let left = number("left").unwrap_or_default().to_string();
            put(answer.headers_mut(), "x-ratelimit-limit", "200");
            put(answer.headers_mut(), "x-ratelimit-remaining", &left);
            answer
        }
        "huge" => sized(number("bytes").unwrap_or(1 << 20), chunked),
        "trickle" => {
            let (bytes, pause) = (number("bytes").unwrap_or(16), number("pause-ms").unwrap_or(100));
            let body = behaviour::trickle(bytes, Duration::from_millis(pause));
            answer::answer(StatusCode::OK, OCTETS, body)
        }
        "slow" => {
            tokio::time::sleep(Duration::from_secs(number("seconds").unwrap_or(1))).await;
            status(200)
        }
        "cut" | "hang" => {
            let how = if what == "cut" { Break::Cut } else { Break::Hang };
            let after = number("after").unwrap_or(1_024);
            let whole = after.saturating_add(1 << 20);
            sized(whole, chunked).map(|body| Stream::new(Broken::new(body, after, how)))
        }
        "silent" => std::future::pending().await,
        "garbage" => {
            let mut answer = status(200);
            answer.extensions_mut().insert(Garbled);
            answer
        }
        "sign-in" if parameter(query, "redirect").is_some() => answer::sign_in_redirect(),
        "sign-in" => answer::sign_in_page(),
        "under-scoped" => under_scoped(organization),
        _ => answer::error(StatusCode::NOT_FOUND, "HttpException", "There is no such answer on request."),
    }
}

/// The 401 of a token that is known and lacks a scope: it names its user.
pub(super) fn under_scoped(organization: &str) -> Response<Stream> {
    let message = format!("TF400813: The user '{MEMBER}' is not authorized to access this resource.");
    answer::unauthorized(organization, &message)
}

fn echo(query: &str, head: &Parts, seen: &Seen) -> Response<Stream> {
    let wanted = parameter(query, "credential").unwrap_or_default();
    let in_body = wanted == "body";
    let headers: Vec<_> =
        seen.headers.iter().filter(|(name, _)| in_body || name != "authorization").collect();
    let mut document = json!({ "method": seen.method, "target": seen.target, "headers": headers });
    if wanted == "sha256"
        && let Some(credential) = head.headers.get(header::AUTHORIZATION)
        && let Some(document) = document.as_object_mut()
    {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, credential.as_bytes());
        document.insert("authorization-sha256".to_owned(), hex(digest.as_ref()).into());
    }
    let mut answer = answer::document(StatusCode::OK, &document);
    if wanted == "header"
        && let Some(credential) = head.headers.get(header::AUTHORIZATION)
    {
        answer.headers_mut().insert("x-sample-authorization", credential.clone());
    }
    if wanted == "token"
        && let Some(token) = token(&head.headers)
    {
        *answer.body_mut() = Stream::whole(token);
    }
    answer
}

/// The raw token, as no service should ever show it.
fn token(headers: &HeaderMap) -> Option<Vec<u8>> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes().strip_prefix(b"Basic ")?;
    STANDARD.decode(value).ok()?.splitn(2, |&byte| byte == b':').nth(1).map(<[u8]>::to_vec)
}

async fn sink(mut body: Received, seen: &Seen) -> Response<Stream> {
    let mut digest = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => digest.update(frame.data_ref().map_or(&[][..], Bytes::as_ref)),
            Err(_) => return answer::error(StatusCode::BAD_REQUEST, "HttpException", "The body broke off."),
        }
    }
    let sha256 = hex(digest.finish().as_ref());
    answer::document(StatusCode::OK, &json!({ "bytes": seen.body_bytes(), "sha256": sha256 }))
}

fn early() -> Response<Stream> {
    let mut answer = answer::error(StatusCode::PAYLOAD_TOO_LARGE, "HttpException", "Too large, unread.");
    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    answer
}

fn status(code: u64) -> Response<Stream> {
    let code = u16::try_from(code).ok().and_then(|code| StatusCode::from_u16(code).ok());
    let code = code.filter(|code| !code.is_informational()).unwrap_or(StatusCode::OK);
    if code == StatusCode::NO_CONTENT || code == StatusCode::NOT_MODIFIED {
        let mut answer = Response::new(Stream::whole(Bytes::new()));
        *answer.status_mut() = code;
        return answer;
    }
    answer::document(code, &json!({ "status": code.as_u16() }))
}

fn sized(bytes: u64, chunked: bool) -> Response<Stream> {
    let mut answer = answer::answer(StatusCode::OK, OCTETS, behaviour::generated(bytes));
    if !chunked {
        answer.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(bytes));
    }
    answer
}

/// The first value of a parameter, decoded.
fn parameter(query: &str, name: &str) -> Option<String> {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| percent_decode_str(value).decode_utf8_lossy().into_owned())
}
