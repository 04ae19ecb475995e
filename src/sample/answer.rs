//! The form of Azure DevOps' answers: their headers, their errors, their ways to ask for a sign-in.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

/// Whom the sample organisation's token belongs to.
pub(super) const MEMBER: &str = "5a2c9f4e-6d1b-4c0a-9e57-1b7d3c8f2a60";
pub(super) const MEMBER_NAME: &str = "Sam Sample";
pub(super) const MEMBER_MAIL: &str = "sam@contoso.example";
/// Azure DevOps' id for nobody in particular.
pub(super) const ANONYMOUS: &str = "aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa";

/// A body that is sent piece by piece.
pub(super) struct Stream(UnsyncBoxBody<Bytes, io::Error>);

impl Stream {
    pub(super) fn new(body: impl Body<Data = Bytes, Error = io::Error> + Send + 'static) -> Self {
        Self(UnsyncBoxBody::new(body))
    }

    pub(super) fn whole(bytes: impl Into<Bytes>) -> Self {
        Self::new(Full::new(bytes.into()).map_err(|never| match never {}))
    }
}

impl Body for Stream {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        Pin::new(&mut self.0).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

/// An answer of a status, a content type and a body.
pub(super) fn answer(status: StatusCode, kind: &'static str, body: Stream) -> Response<Stream> {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

/// A JSON document.
pub(super) fn document(status: StatusCode, value: &Value) -> Response<Stream> {
    answer(status, "application/json; charset=utf-8; api-version=7.1", Stream::whole(value.to_string()))
}

/// An error in the form of Azure DevOps' own.
pub(super) fn error(status: StatusCode, type_key: &str, message: &str) -> Response<Stream> {
    document(
        status,
        &json!({
            "$id": "1", "innerException": null, "message": message,
            "typeName": format!("Microsoft.TeamFoundation.Framework.Server.{type_key}, Microsoft.TeamFoundation.Framework.Server"),
            "typeKey": type_key, "errorCode": 0, "eventId": 3000,
        }),
    )
}

/// A 401 with all that Azure DevOps sends along with one, `X-TFS-ServiceError` percent-encoded.
pub(super) fn unauthorized(organization: &str, message: &str) -> Response<Stream> {
    let mut answer = error(StatusCode::UNAUTHORIZED, "UnauthorizedRequestException", message);
    let headers = answer.headers_mut();
    for challenge in [
        "Bearer authorization_uri=https://login.microsoftonline.com/0f3a5c1e-8a7b-4d2f-9c6e-2b1d4e5f6a70",
        "Basic realm=\"https://tfsprodneu2.visualstudio.com/\"",
        "TFS-Federated",
    ] {
        headers.append(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    }
    headers.insert("x-vss-resourcetenant", HeaderValue::from_static("0f3a5c1e-8a7b-4d2f-9c6e-2b1d4e5f6a70"));
    let encoded = utf8_percent_encode(message, NON_ALPHANUMERIC).to_string();
    put(headers, "x-tfs-serviceerror", &encoded);
    put(headers, "x-vss-authorizationendpoint", &format!("https://vssps.dev.azure.com/{organization}/"));
    answer
}

/// A token that is not known: a page for signing in where nothing forbids it, else a 401.
pub(super) fn unknown(
    method: &Method,
    headers: &HeaderMap,
    organization: &str,
    git: bool,
) -> Response<Stream> {
    let suppressed = headers
        .get("x-tfs-fedauthredirect")
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"suppress"));
    if suppressed || git || ![Method::GET, Method::HEAD, Method::POST].contains(method) {
        let message = format!("TF400813: The user '{ANONYMOUS}' is not authorized to access this resource.");
        unauthorized(organization, &message)
    } else {
        sign_in_page()
    }
}

/// The 203 that looks like success.
pub(super) fn sign_in_page() -> Response<Stream> {
    let page = "<!DOCTYPE html><html><head><title>Azure DevOps Services | Sign In</title></head>\
                <body><h1>Sign in</h1></body></html>";
    answer(StatusCode::NON_AUTHORITATIVE_INFORMATION, "text/html; charset=utf-8", Stream::whole(page))
}

/// The 302 to the page.
pub(super) fn sign_in_redirect() -> Response<Stream> {
    let to = "https://spsprodneu1.vssps.visualstudio.com/_signin?realm=dev.azure.com&reply_to=https%3A%2F%2Fdev.azure.com%2F";
    let page = format!(
        "<html><head><title>Object moved</title></head><body><h2>Object moved to <a href=\"{}\">here</a>.</h2></body></html>",
        to.replace('&', "&amp;")
    );
    let mut answer = answer(StatusCode::FOUND, "text/html; charset=utf-8", Stream::whole(page));
    put(answer.headers_mut(), "location", to);
    answer
}

/// What stands on every answer of Azure DevOps. `member`: whether it knows whom it is talking to, and says
/// so in `X-VSS-UserData`. `number` counts requests, and makes the ids of this one.
pub(super) fn dress(headers: &mut HeaderMap, number: u64, member: bool) {
    for (name, value) in [
        (
            "p3p",
            "CP=\"CAO DSP COR ADMa DEV CONo TELo CUR PSA PSD TAI IVDo OUR SAMi BUS DEM NAV STA UNI COM INT PHY ONL FIN PUR LOC CNT\"",
        ),
        ("strict-transport-security", "max-age=31536000; includeSubDomains"),
        ("x-cache", "CONFIG_NOCACHE"),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "SAMEORIGIN"),
        ("request-context", "appId=cid-v1:4c1b7b1e-0000-4000-8000-5d2f7a9c3e10"),
        ("access-control-expose-headers", "Request-Context"),
        ("x-vss-senderdeploymentid", "13a19993-c6bc-326c-afb4-32c5519f46f0"),
        ("x-tfs-processid", "7f3d2c41-0000-4000-8000-9b8a7c6d5e4f"),
    ] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    let id = format!("{:08x}-5a3e-4000-8000-{number:012x}", 0x0a2d_e705);
    for name in ["activityid", "x-vss-e2eid", "x-tfs-session", "x-msedge-ref"] {
        put(headers, name, &id);
    }
    let session = format!(
        "VstsSession=%7B%22PersistentSessionId%22%3A%22{id}%22%7D; domain=.visualstudio.com; path=/; secure; HttpOnly"
    );
    if let Ok(cookie) = HeaderValue::from_str(&session) {
        headers.append(header::SET_COOKIE, cookie);
    }
    if member {
        put(headers, "x-vss-userdata", &format!("{MEMBER}:{MEMBER_MAIL}"));
    }
}

/// Sets a header whose value was made from text; a value that can't be one is left out.
pub(super) fn put(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(HeaderName::from_static(name), value);
    }
}
