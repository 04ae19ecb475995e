//! The form of a refusal for each kind of caller.
//!
//! What each tool shows of an answer was measured: SDKs of Azure DevOps show the `message` of a
//! JSON object in its own shape; git shows a `text/plain` body of an advertisement after
//! `remote:`, an `ERR` packet as `fatal: remote error:`, and of a push only the report.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use serde::Serialize;

use super::push::{self, Push};
use crate::{gate::Wire, refusal::Refusal};

/// The header that names a request in every answer, for support and for the audit.
pub const REQUEST_ID: &str = "x-patgate-request-id";

/// The operator's help is cut to this many characters: it stands inside a line of a report.
const HELP: usize = 400;

/// What is to be said.
#[derive(Clone, Copy, Debug)]
pub struct Said<'a> {
    /// The reason.
    pub why: Refusal,
    /// Who reads it.
    pub wire: Wire,
    /// The `help` of the rule that refused.
    pub help: Option<&'a str>,
    /// The request's id.
    pub id: &'a str,
    /// The method is `HEAD`: there is no body.
    pub head: bool,
}

/// The whole response, but for `Connection`.
#[must_use]
pub fn render(said: &Said<'_>, push: &Push) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(said.body(push))));
    *response.status_mut() = said.status();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(said.content_type()));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(id) = HeaderValue::from_str(said.id) {
        headers.insert(REQUEST_ID, id);
    }
    if let Some(seconds) = retry_after(said.why) {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if said.status() == StatusCode::METHOD_NOT_ALLOWED {
        let methods = "GET, HEAD, OPTIONS, POST, PUT, PATCH, DELETE";
        headers.insert(header::ALLOW, HeaderValue::from_static(methods));
    }
    if said.wire == Wire::Browser {
        let none = "default-src 'none'; frame-ancestors 'none'";
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(none));
    }
    response
}

/// In seconds, for what passes by itself.
fn retry_after(why: Refusal) -> Option<u16> {
    match why {
        Refusal::TooManyRequests => Some(1),
        Refusal::AuditUnavailable | Refusal::VaultUnavailable => Some(5),
        _ => None,
    }
}

impl Said<'_> {
    /// The status on the wire: a `POST` of git reads its refusal from an answer of 200.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self.wire {
            Wire::GitFetch | Wire::GitPush => StatusCode::OK,
            Wire::Api | Wire::GitAdvertisement | Wire::Lfs | Wire::Browser => self.why.status(),
        }
    }

    fn content_type(&self) -> &'static str {
        match self.wire {
            Wire::Api => "application/json; charset=utf-8",
            Wire::GitAdvertisement => "text/plain; charset=utf-8",
            Wire::GitFetch => "application/x-git-upload-pack-result",
            Wire::GitPush => "application/x-git-receive-pack-result",
            Wire::Lfs => "application/vnd.git-lfs+json",
            Wire::Browser => "text/html; charset=utf-8",
        }
    }

    /// The body. `push` matters to a push alone.
    #[must_use]
    pub fn body(&self, push: &Push) -> Vec<u8> {
        if self.head {
            return Vec::new();
        }
        match self.wire {
            Wire::Api => json(&ApiError::new(&self.sentence(), self.why.code(), self.id)),
            Wire::GitAdvertisement => self.text().into_bytes(),
            Wire::GitFetch => {
                let mut out = Vec::new();
                push::line(&mut out, &[b"ERR ", self.text().trim_end().as_bytes()]);
                out
            }
            Wire::GitPush => push::report(push, &self.sentence(), &self.text()),
            Wire::Lfs => json(&LfsError { message: &self.sentence(), request_id: self.id }),
            Wire::Browser => self.page().into_bytes(),
        }
    }

    /// One line: the sentence, and the operator's help in brackets.
    fn sentence(&self) -> Cow<'static, str> {
        let public = self.why.public();
        match self.help.map(one_line) {
            Some(help) if !help.is_empty() => format!("{public} ({help})").into(),
            _ => public.into(),
        }
    }

    /// For a terminal: the sentence, and a line to look the request up by.
    fn text(&self) -> String {
        format!("{}\npatgate: {}, request {}\n", self.sentence(), self.why.code(), self.id)
    }

    fn page(&self) -> String {
        let (status, sentence) = (self.why.status(), self.sentence());
        format!(
            "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>patgate: {code}</title>\n\
             <h1>{status}</h1>\n<p>{sentence}</p>\n<p>{code}, request {id}</p>\n</html>\n",
            code = self.why.code(),
            sentence = escaped(&sentence),
            id = escaped(self.id),
        )
    }
}

/// Azure DevOps' own shape of an error (`WrappedException`), so that its SDKs show the message.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ApiError<'a> {
    #[serde(rename = "$id")]
    id: &'static str,
    inner_exception: Option<()>,
    message: &'a str,
    type_name: &'static str,
    type_key: &'static str,
    error_code: u32,
    event_id: u32,
    patgate: ApiDetail<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ApiDetail<'a> {
    code: &'static str,
    request_id: &'a str,
}

impl<'a> ApiError<'a> {
    fn new(message: &'a str, code: &'static str, request_id: &'a str) -> Self {
        Self {
            id: "1",
            inner_exception: None,
            message,
            type_name: "Patgate.Refusal, patgate",
            type_key: "PatgateRefusal",
            error_code: 0,
            event_id: 3000,
            patgate: ApiDetail { code, request_id },
        }
    }
}

#[derive(Serialize)]
struct LfsError<'a> {
    message: &'a str,
    request_id: &'a str,
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

/// Control characters would forge lines of a report, or colours of a terminal.
fn one_line(help: &str) -> String {
    let spaced: String = help.chars().map(|c| if c.is_control() { ' ' } else { c }).take(HELP).collect();
    spaced.trim().to_owned()
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    const WIRES: [Wire; 6] =
        [Wire::Api, Wire::GitAdvertisement, Wire::GitFetch, Wire::GitPush, Wire::Lfs, Wire::Browser];

    fn said(why: Refusal, wire: Wire) -> Said<'static> {
        Said { why, wire, help: Some("ask\n<b>#infra</b>"), id: "0a1b", head: false }
    }

    fn body(said: &Said<'_>) -> String {
        String::from_utf8(said.body(&Push::Unread)).unwrap()
    }

    #[test]
    fn each_kind_of_caller_reads_its_own_form() {
        let sentence = "patgate: no rule allows this request (ask <b>#infra</b>)";
        let text = format!("{sentence}\npatgate: no-rule, request 0a1b\n");
        let page = "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>patgate: no-rule</title>\n\
                    <h1>403 Forbidden</h1>\n<p>patgate: no rule allows this request \
                    (ask &lt;b&gt;#infra&lt;/b&gt;)</p>\n<p>no-rule, request 0a1b</p>\n</html>\n";
        for (wire, status, content_type, expected) in [
            (
                Wire::Api,
                403,
                "application/json; charset=utf-8",
                format!(
                    "{{\"$id\":\"1\",\"innerException\":null,\"message\":\"{sentence}\",\
                     \"typeName\":\"Patgate.Refusal, patgate\",\"typeKey\":\"PatgateRefusal\",\"errorCode\":0,\
                     \"eventId\":3000,\"patgate\":{{\"code\":\"no-rule\",\"requestId\":\"0a1b\"}}}}"
                ),
            ),
            (Wire::GitAdvertisement, 403, "text/plain; charset=utf-8", text.clone()),
            (
                Wire::GitFetch,
                200,
                "application/x-git-upload-pack-result",
                format!("{:04x}ERR {}", text.len() + 7, text.trim_end()),
            ),
            (
                Wire::GitPush,
                200,
                "application/x-git-receive-pack-result",
                format!("{:04x}\u{3}{text}0000", text.len() + 5),
            ),
            (
                Wire::Lfs,
                403,
                "application/vnd.git-lfs+json",
                format!("{{\"message\":\"{sentence}\",\"request_id\":\"0a1b\"}}"),
            ),
            (Wire::Browser, 403, "text/html; charset=utf-8", page.to_owned()),
        ] {
            let said = said(Refusal::NoRule, wire);
            let answer = render(&said, &Push::Unread);
            assert_eq!(answer.status().as_u16(), status, "{wire:?}");
            assert_eq!(answer.headers()[header::CONTENT_TYPE], content_type, "{wire:?}");
            assert_eq!(body(&said), expected, "{wire:?}");
        }
    }

    #[test]
    fn every_refusal_in_every_form_is_named_and_never_asks_for_a_password() {
        for &why in Refusal::ALL {
            for wire in WIRES {
                let said = said(why, wire);
                let answer = render(&said, &Push::Unread);
                assert_eq!(answer.headers()[REQUEST_ID], "0a1b");
                assert_eq!(answer.headers()[header::CACHE_CONTROL], "no-store");
                assert!(!answer.headers().contains_key(header::WWW_AUTHENTICATE));
                assert_ne!(answer.status(), StatusCode::UNAUTHORIZED);
                assert!(body(&said).contains("patgate: "), "{} {wire:?}", why.code());
            }
        }
    }

    #[test]
    fn what_passes_says_when_to_try_again() {
        for &why in Refusal::ALL {
            let answer = render(&said(why, Wire::Api), &Push::Unread);
            let passes =
                matches!(why.status(), StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(answer.headers().contains_key(header::RETRY_AFTER), passes, "{}", why.code());
        }
    }

    #[tokio::test]
    async fn the_answer_to_head_has_no_body() {
        for wire in WIRES {
            let said = Said { head: true, ..said(Refusal::NoRule, wire) };
            let whole = render(&said, &Push::Unread).into_body().collect().await.unwrap();
            assert!(whole.to_bytes().is_empty(), "{wire:?}");
        }
    }

    #[test]
    fn help_stays_one_short_line() {
        for (help, expected) in [
            ("ask #infra", " (ask #infra)"),
            ("a\r\nng refs/heads/x", " (a  ng refs/heads/x)"),
            ("\u{1b}[31mred", " ( [31mred)"),
            ("  \n", ""),
        ] {
            let expected = expected.replace("( [", "([");
            let said = Said { help: Some(help), ..said(Refusal::DeniedByRule, Wire::Api) };
            assert_eq!(said.sentence(), format!("{}{expected}", Refusal::DeniedByRule.public()));
        }
        let long = "x".repeat(10_000);
        let said = Said { help: Some(&long), ..said(Refusal::NoRule, Wire::Api) };
        assert!(said.sentence().len() < 500);
    }
}
