//! What an answer says about the credential.
//!
//! Azure DevOps shows a sign-in page, by status 203 or by a redirect, where others would say 401; and it says 401
//! where a token lacks a scope. Only its own words, or a probe, tell a dead token from one that may not do this.

use std::borrow::Cow;

use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode, Uri,
    header::{CONTENT_TYPE, LOCATION},
};
use percent_encoding::percent_decode;
use serde::Deserialize;

/// Azure DevOps' reason for a refusal, percent-encoded.
pub(super) const SERVICE_ERROR: HeaderName = HeaderName::from_static("x-tfs-serviceerror");

/// The most of a reason that is kept, in characters.
const REASON: usize = 300;

/// Pages for signing in, wherever they are hosted.
const SIGN_IN_HOSTS: [&str; 5] = [
    "login.microsoftonline.com",
    "login.windows.net",
    "login.live.com",
    "app.vssps.visualstudio.com",
    "aex.dev.azure.com",
];

/// The identity of somebody who gave no credential.
const ANONYMOUS: &str = "aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa";

/// What an answer says about the credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing: it is an answer to the request.
    Answer,
    /// It is expired or revoked, in Azure DevOps' words.
    Dead(String),
    /// It may be dead, or may lack a scope: a probe tells.
    Doubtful(String),
    /// A sign-in page in place of an answer: a probe tells as well, but the page is never an answer.
    SignIn(String),
}

impl Verdict {
    /// Reads an answer's head.
    pub(super) fn of(status: StatusCode, headers: &HeaderMap) -> Self {
        let reason = || reason(headers).unwrap_or_else(|| format!("status {status}"));
        match status {
            StatusCode::UNAUTHORIZED => {
                let reason = reason();
                if is_final(&reason) { Self::Dead(reason) } else { Self::Doubtful(reason) }
            }
            StatusCode::NON_AUTHORITATIVE_INFORMATION if is_html(headers) => {
                Self::SignIn("a sign-in page with status 203".to_owned())
            }
            _ if status.is_redirection() && leads_to_sign_in(headers) => {
                Self::SignIn(format!("a redirect ({}) to a sign-in page", status.as_u16()))
            }
            _ => Self::Answer,
        }
    }
}

/// Whether any header holds what `is_secret` knows: as it stands, or as the reason that is recorded, which is
/// decoded first. Asked of the whole value, before anything of it is cut.
pub(super) fn holds(headers: &HeaderMap, is_secret: impl Fn(&[u8]) -> bool) -> bool {
    headers.values().any(|value| {
        let bytes = value.as_bytes();
        is_secret(bytes) || (bytes.contains(&b'%') && is_secret(&Cow::from(percent_decode(bytes))))
    })
}

/// Azure DevOps' reason, decoded, on one line and cut to a length.
fn reason(headers: &HeaderMap) -> Option<String> {
    let text = percent_decode(headers.get(SERVICE_ERROR)?.as_bytes()).decode_utf8_lossy();
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(REASON).collect();
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// `Access Denied: The Personal Access Token used has expired.`, and its kin: the whole of it, for other reasons
/// quote names that a client chose, and any client could have a token condemned that way.
fn is_final(reason: &str) -> bool {
    let reason = reason.to_ascii_lowercase();
    let reason = reason.strip_prefix("access denied: ").unwrap_or(&reason).trim_end_matches('.');
    let ended = ["expired", "been revoked", "been disabled"];
    ["the personal access token used has ", "the personal access token has "]
        .iter()
        .filter_map(|start| reason.strip_prefix(start))
        .any(|end| ended.contains(&end))
}

fn is_html(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    kind.get(..9).is_some_and(|start| start.eq_ignore_ascii_case(b"text/html"))
}

fn leads_to_sign_in(headers: &HeaderMap) -> bool {
    let Some(to) = headers.get(LOCATION).and_then(|to| Uri::try_from(to.as_bytes()).ok()) else {
        return false;
    };
    let host = to.host().unwrap_or_default();
    SIGN_IN_HOSTS.iter().any(|known| known.eq_ignore_ascii_case(host))
        || to.path().split('/').any(|segment| segment.eq_ignore_ascii_case("_signin"))
}

/// What the answer to a probe (`GET /{organization}/_apis/connectionData`) says: `Some(true)` where it names
/// somebody, so that the credential is alive; `Some(false)` where it is not recognised; `None` where it says
/// neither, as when Azure DevOps is overloaded. `body` may begin with a byte order mark.
pub(super) fn of_probe(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Option<bool> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct ConnectionData {
        authenticated_user: User,
    }
    #[derive(Deserialize)]
    struct User {
        id: String,
    }
    if Verdict::of(status, headers) != Verdict::Answer {
        return Some(false);
    }
    if status != StatusCode::OK {
        return None;
    }
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let user = serde_json::from_slice::<ConnectionData>(body).ok()?.authenticated_user;
    Some(!user.id.is_empty() && !user.id.eq_ignore_ascii_case(ANONYMOUS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
            .collect()
    }

    #[test]
    fn a_sign_in_never_looks_like_success_and_a_refusal_never_like_death() {
        let expired = "Access%20Denied%3A%20The%20Personal%20Access%20Token%20used%20has%20expired.";
        let policy = "The organization%27s security policy prohibits access by global Personal Access Token \
                      (PAT) unless you are on an allowlist.";
        let signin = "https://spsprodneu1.vssps.visualstudio.com/_signin?realm=dev.azure.com&reply_to=x";
        for (status, fields, verdict) in [
            (200, &[("content-type", "text/html")][..], "answer"),
            (200, &[("www-authenticate", "Bearer x")], "answer"),
            (203, &[("content-type", "application/json")], "answer"),
            (203, &[("content-type", "Text/HTML; charset=utf-8")], "sign-in"),
            (302, &[("location", signin)], "sign-in"),
            (303, &[("location", "https://login.microsoftonline.com/common/oauth2")], "sign-in"),
            (302, &[("location", "/contoso/_signin")], "sign-in"),
            (302, &[("location", "https://x.blob.core.windows.net/a?sig=_signin")], "answer"),
            (302, &[], "answer"),
            (401, &[("x-tfs-serviceerror", expired)], "dead"),
            (401, &[("x-tfs-serviceerror", "The Personal Access Token used has been REVOKED.")], "dead"),
            (
                401,
                &[(
                    "x-tfs-serviceerror",
                    "TF401019: there is no repository 'the Personal Access Token used has expired'.",
                )],
                "doubtful",
            ),
            (
                401,
                &[(
                    "x-tfs-serviceerror",
                    "The Personal Access Token used has expired' is no project of yours.",
                )],
                "doubtful",
            ),
            (401, &[("x-tfs-serviceerror", policy)], "doubtful"),
            (401, &[("x-tfs-serviceerror", "TF400813%3A The build has expired.")], "doubtful"),
            (401, &[], "doubtful"),
            (403, &[("x-tfs-serviceerror", expired)], "answer"),
            (404, &[], "answer"),
        ] {
            let found = match Verdict::of(StatusCode::from_u16(status).unwrap(), &headers(fields)) {
                Verdict::Answer => "answer",
                Verdict::Dead(_) => "dead",
                Verdict::Doubtful(_) => "doubtful",
                Verdict::SignIn(_) => "sign-in",
            };
            assert_eq!(found, verdict, "{status} {fields:?}");
        }
    }

    #[test]
    fn a_reason_is_decoded_put_on_one_line_and_cut() {
        let long = format!("a%0d%0ab{}", "x".repeat(1000));
        let found = reason(&headers(&[("x-tfs-serviceerror", &long)])).unwrap();
        assert!(found.starts_with("a  bxx") && found.chars().count() == REASON, "{found}");
        assert_eq!(reason(&headers(&[("x-tfs-serviceerror", "%20")])), None);
    }

    #[test]
    fn a_probe_proves_a_credential_by_a_name_alone_and_trouble_proves_nothing() {
        let user = |id: &str| format!(r#"{{"authenticatedUser":{{"id":"{id}","x":1}},"y":[]}}"#);
        let somebody = user("fb80544b-0000-4000-8000-000000000000");
        for (status, body, alive) in [
            (200, somebody.clone(), Some(true)),
            (200, format!("\u{feff}{somebody}"), Some(true)),
            (200, user(ANONYMOUS), Some(false)),
            (200, user(""), Some(false)),
            (200, "<html>".to_owned(), None),
            (203, "<html>".to_owned(), Some(false)),
            (401, somebody.clone(), Some(false)),
            (403, somebody.clone(), None),
            (429, somebody.clone(), None),
            (503, somebody, None),
        ] {
            let headers = headers(&[("content-type", "text/html")]);
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(of_probe(status, &headers, body.as_bytes()), alive, "{status} {body}");
        }
    }
}
