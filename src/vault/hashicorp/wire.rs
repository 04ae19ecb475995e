//! Requests to the vault, and what a refusal of it means.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode, header::CONTENT_TYPE};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Client, Url};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::super::{
    VaultError,
    network::{self, ANSWER},
    token::exposed,
};

const TOKEN: HeaderName = HeaderName::from_static("x-vault-token");
const NAMESPACE: HeaderName = HeaderName::from_static("x-vault-namespace");
/// What listeners with `require_request_header` want; it keeps requests out that others had somebody send.
const REQUESTED: HeaderName = HeaderName::from_static("x-vault-request");

/// The characters that stand for themselves between two slashes. `%` is none of them, so no dot comes back encoded.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The way to one vault.
pub(super) struct Wire {
    client: Client,
    address: Arc<str>,
    namespace: Option<HeaderValue>,
    patience: Duration,
}

/// One request.
pub(super) struct Ask<'a> {
    method: Method,
    path: String,
    token: Option<&'a SecretString>,
    body: Option<Zeroizing<Vec<u8>>>,
}

impl<'a> Ask<'a> {
    /// A read of a path below `v1/`, as it is written plainly.
    pub(super) fn get(path: &str) -> Self {
        Self { method: Method::GET, path: encoded(path), token: None, body: None }
    }

    /// A write; `secret` is the length of the secrets in it, in bytes.
    pub(super) fn post(path: &str, body: &impl Serialize, secret: usize) -> Self {
        Self { method: Method::POST, body: Some(json(body, secret)), ..Self::get(path) }
    }

    /// A change of some fields.
    pub(super) fn patch(path: &str, body: &impl Serialize, secret: usize) -> Self {
        Self { method: Method::PATCH, body: Some(json(body, secret)), ..Self::get(path) }
    }

    /// With a version in the query.
    pub(super) fn version(self, version: u64) -> Self {
        Self { path: format!("{}?version={version}", self.path), ..self }
    }

    /// With a token.
    pub(super) fn with(mut self, token: &'a SecretString) -> Self {
        self.token = Some(token);
        self
    }
}

fn encoded(path: &str) -> String {
    let segments: Vec<_> =
        path.split('/').map(|segment| utf8_percent_encode(segment, SEGMENT).to_string()).collect();
    segments.join("/")
}

/// A buffer that is long enough from the start: one that grows leaves copies behind.
fn json(value: &impl Serialize, secret: usize) -> Zeroizing<Vec<u8>> {
    let mut body = Zeroizing::new(Vec::with_capacity(1024 + 2 * secret));
    // Only a map whose keys are no text, or a failing `Serialize`, could not be written; there is none.
    let _ = serde_json::to_writer(&mut *body, value);
    body
}

/// An answer of whatever status.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    body: Zeroizing<Vec<u8>>,
}

impl Wire {
    /// `patience` is for one request.
    ///
    /// # Errors
    /// A namespace that no header can carry, as a sentence.
    pub(super) fn new(
        client: Client,
        address: Arc<str>,
        namespace: Option<&str>,
        patience: Duration,
    ) -> Result<Self, String> {
        let namespace = namespace
            .map(HeaderValue::from_str)
            .transpose()
            .map_err(|_| "its namespace holds characters that no header can carry".to_owned())?;
        Ok(Self { client, address, namespace, patience })
    }

    /// For one request.
    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    /// Asks, and reads the answer.
    ///
    /// # Errors
    /// No answer, or one too long.
    pub(super) async fn ask(&self, ask: Ask<'_>) -> Result<Answer, VaultError> {
        let url = Url::parse(&format!("{}/v1/{}", self.address, ask.path))
            .map_err(|_| VaultError::Denied("its address and this path make no URL".into()))?;
        let patch = ask.method == Method::PATCH;
        let mut request = self
            .client
            .request(ask.method, url)
            .timeout(self.patience)
            .header(REQUESTED, HeaderValue::from_static("true"));
        if let Some(namespace) = &self.namespace {
            request = request.header(NAMESPACE, namespace);
        }
        if let Some(token) = ask.token {
            request = request.header(TOKEN, header(token)?);
        }
        if let Some(body) = ask.body {
            let kind = if patch { "application/merge-patch+json" } else { "application/json" };
            request =
                request.header(CONTENT_TYPE, HeaderValue::from_static(kind)).body(Bytes::from_owner(body));
        }
        let response = request.send().await.map_err(|error| network::silence(&error))?;
        let status = response.status();
        let body = network::body(response, ANSWER).await?;
        Ok(Answer { status, body })
    }
}

fn header(token: &SecretString) -> Result<HeaderValue, VaultError> {
    let bytes = Bytes::from_owner(Zeroizing::new(exposed(token).as_bytes().to_vec()));
    let mut value = HeaderValue::from_maybe_shared(bytes).map_err(|_| {
        VaultError::Unusable("its token holds characters that a token of a vault does not have".into())
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// What a refusal says for itself. It is compared with known words, and never shown.
#[derive(Default, Deserialize)]
struct Complaint {
    #[serde(default)]
    errors: Vec<String>,
}

impl Answer {
    /// The body, strictly.
    ///
    /// # Errors
    /// Anything else than what is expected. The parser's own words would quote it.
    pub(super) fn json<'a, T: Deserialize<'a>>(&'a self) -> Result<T, VaultError> {
        serde_json::from_slice(&self.body).map_err(|_| {
            let text = "its answer is not what a vault answers; something else may stand in its place";
            VaultError::Unavailable(text.into())
        })
    }

    /// Whether it complains in these words.
    pub(super) fn says(&self, words: &str) -> bool {
        serde_json::from_slice::<Complaint>(&self.body)
            .unwrap_or_default()
            .errors
            .iter()
            .any(|error| error.contains(words))
    }

    /// Whether the vault itself says so.
    fn is_own(&self) -> bool {
        #[derive(serde::Deserialize)]
        struct Own {
            errors: Option<serde::de::IgnoredAny>,
            data: Option<serde::de::IgnoredAny>,
        }
        serde_json::from_slice::<Own>(&self.body).is_ok_and(|own| own.errors.is_some() || own.data.is_some())
    }

    /// What a status other than success means, of a request for `what`.
    pub(super) fn failure(&self, what: &str) -> VaultError {
        let unavailable = |text: String| VaultError::Unavailable(text.into());
        match self.status {
            StatusCode::SERVICE_UNAVAILABLE if self.says("sealed") => unavailable("it is sealed".into()),
            StatusCode::TOO_MANY_REQUESTS => unavailable("it takes no more requests for now (429)".into()),
            status if status.is_redirection() => unavailable(format!(
                "it sent patgate elsewhere ({}), as a standby does that forwards nothing; name the active server or \
                 the address of all",
                status.as_u16()
            )),
            // It answered, but not with what was asked for.
            status if status.is_success() => {
                unavailable(format!("its answer is empty ({})", status.as_u16()))
            }
            // A standby that has not heard yet of what was written elsewhere.
            StatusCode::PRECONDITION_FAILED => unavailable("it is not up to date yet (412)".into()),
            // A vault answers with `errors` or `data`; a balancer, or a firewall, before it does not.
            status if status.is_client_error() && !self.is_own() => {
                unavailable(format!("something that is no vault answered for it ({})", status.as_u16()))
            }
            StatusCode::BAD_REQUEST | StatusCode::METHOD_NOT_ALLOWED => {
                VaultError::Denied(format!("it does not take {what} ({})", self.status.as_u16()).into())
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                VaultError::Denied(format!("it forbids {what} ({})", self.status.as_u16()).into())
            }
            StatusCode::NOT_FOUND => VaultError::Denied(format!("there is no {what} (404)").into()),
            status => network::failure(status),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_leads_out_of_its_place() {
        for (path, written) in [
            ("secret/data/ado/web", "secret/data/ado/web"),
            ("secret/a b/ü", "secret/a%20b/%C3%BC"),
            ("secret/%2e%2e/sys", "secret/%252e%252e/sys"),
            ("secret/a?x=1#y", "secret/a%3Fx%3D1%23y"),
            ("secret/a@b:c", "secret/a%40b%3Ac"),
        ] {
            assert_eq!(encoded(path), written);
            let url = Url::parse(&format!("https://vault.test:8200/v1/{}", encoded(path))).unwrap();
            assert_eq!(url.path(), format!("/v1/{written}"));
            assert_eq!(url.host_str(), Some("vault.test"));
        }
    }

    fn answer(status: u16, body: &str) -> Answer {
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            body: Zeroizing::new(body.as_bytes().to_vec()),
        }
    }

    #[test]
    fn silence_and_refusals_are_told_apart_and_nothing_is_quoted() {
        for (status, body, available, word) in [
            (503, r#"{"errors":["Vault is sealed"]}"#, false, "sealed"),
            (503, "<html>canary", false, "503"),
            (429, r#"{"errors":["request path \"canary\": rate limit quota exceeded"]}"#, false, "429"),
            (307, "canary", false, "standby"),
            (412, "canary", false, "up to date"),
            (473, "canary", false, "473"),
            (500, "canary", false, "500"),
            (200, "", false, "empty"),
            (400, r#"{"errors":["canary"]}"#, true, "does not take"),
            (403, r#"{"errors":["canary"]}"#, true, "forbids secret/a"),
            (404, r#"{"errors":[]}"#, true, "no secret/a"),
            (404, "default backend - 404 canary", false, "no vault answered"),
            (403, "<html>canary", false, "no vault answered"),
        ] {
            let error = answer(status, body).failure("secret/a");
            assert_eq!(matches!(error, VaultError::Denied(_)), available, "{status}: {error}");
            assert!(error.to_string().contains(word), "{status}: {error}");
            assert!(!error.to_string().contains("canary"), "{status}: {error}");
        }
    }

    #[test]
    fn an_answer_of_another_shape_is_not_quoted() {
        for body in ["canary", "[\"canary\"]", "{\"errors\":\"canary\"}", "", "{\"errors\":[1"] {
            let error = answer(200, body).json::<Complaint>().err();
            assert!(error.is_some_and(|error| !error.to_string().contains("canary")), "{body}");
        }
    }

    #[test]
    fn a_token_with_a_line_end_becomes_no_header() {
        assert!(header(&SecretString::from("s.canary")).unwrap().is_sensitive());
        let error = header(&SecretString::from("s.canary\r\nX-Evil: 1")).unwrap_err();
        assert!(!error.to_string().contains("canary"), "{error}");
    }
}
