//! What Azure DevOps answers, read.

use std::time::Duration;

use http::StatusCode;
use jiff::Timestamp;
use secrecy::SecretString;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use zeroize::Zeroizing;

use super::{Listed, Trouble};

/// Whether an answer asks for a sign-in: a 203 is one too.
pub(super) fn is_sign_in(status: StatusCode) -> bool {
    status.is_redirection()
        || matches!(
            status,
            StatusCode::NON_AUTHORITATIVE_INFORMATION | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN
        )
}

/// The body of a success.
pub(super) fn success(
    what: &'static str,
    status: StatusCode,
    patience: Option<Duration>,
    body: Zeroizing<Vec<u8>>,
) -> Result<Zeroizing<Vec<u8>>, Trouble> {
    if status.is_success() {
        return Ok(body);
    }
    if status == StatusCode::TOO_MANY_REQUESTS {
        return Err(Trouble::Throttled(patience));
    }
    if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT {
        return Err(Trouble::Unanswered { what, why: format!("it answered {status}") });
    }
    let word = serde_json::from_slice::<Error>(&body).ok().and_then(|error| word(&error.type_key));
    let why =
        word.map_or_else(|| format!("it answered {status}"), |word| format!("it answered {status}, {word}"));
    Err(Trouble::Refused { what, why })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Error {
    type_key: String,
}

/// A word of Azure DevOps' for an error; anything else is not shown.
fn word(text: &str) -> Option<String> {
    let plain = !text.is_empty() && text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    plain.then(|| text.to_owned())
}

pub(super) fn parsed<'a, T: Deserialize<'a>>(what: &'static str, body: &'a [u8]) -> Result<T, Trouble> {
    serde_json::from_slice(body)
        .map_err(|_| Trouble::Unanswered { what, why: "the answer is not what it should be".into() })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Page {
    #[serde(default)]
    pub(super) continuation_token: Option<String>,
    pub(super) pat_tokens: Vec<Pat>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Made {
    #[serde(default)]
    pub(super) pat_token: Option<Pat>,
    #[serde(default)]
    pat_token_error: Value,
}

impl Made {
    /// The error, if there is one.
    pub(super) fn error(&self) -> Option<String> {
        match &self.pat_token_error {
            Value::Null => None,
            Value::String(error) if error.eq_ignore_ascii_case("none") => None,
            Value::String(error) => Some(word(error).unwrap_or_else(|| "an error".into())),
            Value::Number(number) if number.as_i64() == Some(0) => None,
            _ => Some("an error".into()),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Pat {
    #[serde(default)]
    pub(super) authorization_id: String,
    #[serde(default)]
    display_name: String,
    #[serde(default)]
    valid_from: String,
    #[serde(default)]
    valid_to: String,
    #[serde(default)]
    pub(super) token: Option<Held>,
}

impl From<Pat> for Listed {
    fn from(pat: Pat) -> Self {
        Self {
            authorization: pat.authorization_id,
            display_name: pat.display_name,
            since: pat.valid_from.parse().unwrap_or(Timestamp::UNIX_EPOCH),
            until: pat.valid_to.parse().unwrap_or(Timestamp::MAX),
        }
    }
}

/// A value in an answer.
pub(super) struct Held(pub(super) SecretString);

impl<'de> Deserialize<'de> for Held {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|value| Self(value.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(status: u16, body: &str) -> Result<Zeroizing<Vec<u8>>, Trouble> {
        let status = StatusCode::from_u16(status).unwrap();
        success("x", status, Some(Duration::from_secs(3)), Zeroizing::new(body.as_bytes().to_vec()))
    }

    #[test]
    fn what_was_not_done_is_told_from_what_may_have_been() {
        let unanswered = |status| matches!(verdict(status, "canary"), Err(Trouble::Unanswered { .. }));
        assert!([500, 502, 503, 408].into_iter().all(unanswered));
        assert_eq!(verdict(429, ""), Err(Trouble::Throttled(Some(Duration::from_secs(3)))));
        for (body, why) in [
            (
                r#"{"typeKey":"VssPropertyValidationException"}"#,
                "it answered 400 Bad Request, VssPropertyValidationException",
            ),
            (r#"{"typeKey":"a canary, in words"}"#, "it answered 400 Bad Request"),
            ("canary", "it answered 400 Bad Request"),
        ] {
            assert_eq!(verdict(400, body), Err(Trouble::Refused { what: "x", why: why.into() }));
        }
        assert!(verdict(200, "").is_ok() && verdict(204, "").is_ok());
        for (status, sign_in) in
            [(203, true), (302, true), (401, true), (403, true), (200, false), (404, false)]
        {
            assert_eq!(is_sign_in(StatusCode::from_u16(status).unwrap()), sign_in, "{status}");
        }
    }

    #[test]
    fn an_error_in_a_success_is_an_error() {
        for (error, expected) in [
            (r#""none""#, None),
            ("null", None),
            ("0", None),
            (r#""invalidScope""#, Some("invalidScope")),
            (r#""a canary, in words""#, Some("an error")),
            ("3", Some("an error")),
        ] {
            let made: Made =
                parsed("x", format!(r#"{{"patToken":null,"patTokenError":{error}}}"#).as_bytes()).unwrap();
            assert_eq!(made.error().as_deref(), expected, "{error}");
        }
    }
}
