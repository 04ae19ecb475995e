//! Secrets in Azure Key Vault, by Microsoft's own client. Its check that a challenge belongs to the vault stays on.
//!
//! A secret's attributes are honoured: one that is disabled, not valid yet or expired is refused, though Key Vault
//! itself would hand the last two out.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use azure_core::{
    error::ErrorKind,
    http::{RawResponse, RequestContent, Response, headers::RETRY_AFTER},
    time::OffsetDateTime,
};
use azure_security_keyvault_secrets::{
    ResourceExt as _, SecretClient, SecretClientOptions,
    models::{Secret, SecretAttributes, SecretClientGetSecretOptions, SecretProperties, SetSecretParameters},
};
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use http::StatusCode;
use secrecy::SecretString;
use serde::Deserialize;
use zeroize::Zeroize as _;

use super::{
    Facts, Fetch, Fetched, SecretSource, VaultError, Write,
    identity::{self, Line, Login},
    network,
    token::exposed,
};
use crate::{
    clock,
    config::{self, Outbound},
};

/// What is not in the form of Key Vault's answers.
const FOREIGN: &str = "its answer is not one of Key Vault's";

/// How many versions are looked through for the one before the present one.
const MOST_VERSIONS: usize = 1000;

/// A vault that throttles is left alone for what it says, but not for longer than this.
const LONGEST_QUIET: Duration = Duration::from_mins(1);

/// A key vault, with who patgate is to it.
pub(super) struct AzureKeyVault {
    client: SecretClient,
    /// Until then it is not asked: it said that it is asked too often.
    quiet: Mutex<Option<Instant>>,
    /// Whether it has been read from. Until then one read goes ahead: what is refused because it came before the token
    /// makes the client throw away the token of the others.
    met: tokio::sync::Mutex<bool>,
}

impl AzureKeyVault {
    /// Sets the client up; nothing is asked yet.
    ///
    /// # Errors
    /// As a sentence.
    pub(super) fn open(vault: &config::AzureKeyVault, outbound: &Outbound) -> Result<Self, String> {
        let config::AzureKeyVault { host, trust, addresses, identity } = vault;
        let line = Line::new(Some(host), identity, trust, addresses, outbound)?;
        let client_options = line.options(&identity.authority);
        let login = Arc::new(Login::new(identity, line)?);
        let options = SecretClientOptions { client_options, ..SecretClientOptions::default() };
        let client = SecretClient::new(&format!("https://{host}"), login, Some(options))
            .map_err(|_| format!("the client of {host} can't be set up"))?;
        Ok(Self { client, quiet: Mutex::new(None), met: tokio::sync::Mutex::new(false) })
    }

    async fn get(&self, name: &str, version: Option<&str>) -> Result<Secret, VaultError> {
        self.may_ask()?;
        let secret_version = version.map(str::to_owned);
        let options = SecretClientGetSecretOptions { secret_version, ..Default::default() };
        let mut ahead = Some(self.met.lock().await).filter(|met| !**met);
        let answer = self.client.get_secret(name, Some(options)).await.map_err(|error| self.explain(&error));
        if let Some(met) = &mut ahead {
            **met = answer.is_ok();
        }
        drop(ahead);
        model(answer?)
    }

    async fn present(&self, secret: &str) -> Result<Fetched, VaultError> {
        let (name, version) = parts(secret)?;
        fetched(self.get(name, version).await?, now())
    }

    /// The latest version before the one that `secret` means, that may be used.
    async fn previous(&self, secret: &str) -> Result<Fetched, VaultError> {
        let (name, version) = parts(secret)?;
        self.may_ask()?;
        let pages = self.client.list_secret_properties_versions(name, None);
        let pages = pages.map_err(|error| self.explain(&error))?;
        let mut versions: Vec<Version> = Vec::new();
        let mut items = std::pin::pin!(pages);
        while let Some(item) = items.try_next().await.map_err(|error| self.explain(&error))? {
            versions.extend(Version::of(&item));
            if versions.len() >= MOST_VERSIONS {
                break;
            }
        }
        let current = match version {
            Some(version) => version.to_owned(),
            None => self.current(name, &versions).await?,
        };
        let Some(at) = versions.iter().find(|version| version.id == current).map(|version| version.created)
        else {
            return Err(VaultError::Denied("there is no such version of the secret".into()));
        };
        let before =
            versions.iter().filter(|other| other.id != current && other.created <= at && other.usable);
        let Some(before) = before.max_by_key(|version| version.created) else {
            return Err(VaultError::Denied("there is no earlier version that may be used".into()));
        };
        fetched(self.get(name, Some(&before.id)).await?, now())
    }

    /// The version that the name alone means. Those of one second can't be told by their times; the vault can.
    async fn current(&self, name: &str, versions: &[Version]) -> Result<String, VaultError> {
        match self.get(name, None).await.map(|secret| id_of(secret.resource_id().ok())) {
            Ok(Some(id)) => Ok(id),
            // A present version that is disabled has one before it all the same.
            Ok(None) | Err(VaultError::Denied(_)) => {
                let latest = versions.iter().max_by_key(|version| version.created);
                let none = || VaultError::Denied("the secret has no version".into());
                latest.map(|version| version.id.clone()).ok_or_else(none)
            }
            Err(error) => Err(error),
        }
    }

    async fn set(&self, secret: &str, value: &SecretString) -> Result<Option<Arc<str>>, VaultError> {
        let (name, None) = parts(secret)? else {
            return Err(VaultError::Denied(
                "the secret is named with a version, and versions never change".into(),
            ));
        };
        self.may_ask()?;
        let parameters =
            SetSecretParameters { value: Some(exposed(value).to_owned()), ..SetSecretParameters::default() };
        let content: azure_core::Result<RequestContent<SetSecretParameters>> = parameters.try_into();
        let content = content.map_err(|_| VaultError::Unusable("it can't be sent".into()))?;
        let answer = self.client.set_secret(name, content, None).await;
        let secret = model(answer.map_err(|error| self.explain(&error))?)?;
        Ok(id_of(secret.resource_id().ok()).map(Arc::from))
    }

    fn may_ask(&self) -> Result<(), VaultError> {
        let quiet = *self.quiet.lock().unwrap_or_else(PoisonError::into_inner);
        match quiet.map(|until| until.saturating_duration_since(clock::now())) {
            Some(left) if !left.is_zero() => Err(throttled(left)),
            _ => Ok(()),
        }
    }

    /// An error in our words. What the vault said is not shown but for the codes that it documents.
    fn explain(&self, error: &azure_core::Error) -> VaultError {
        if let Some(known) = identity::cause(error) {
            return known;
        }
        let ErrorKind::HttpResponse { status, raw_response, .. } = error.kind() else {
            return VaultError::Unavailable(misunderstood(error).into());
        };
        let status = StatusCode::from_u16(u16::from(*status)).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if status == StatusCode::TOO_MANY_REQUESTS {
            let wait = raw_response.as_deref().and_then(retry_after).unwrap_or(Duration::from_secs(1));
            *self.quiet.lock().unwrap_or_else(PoisonError::into_inner) = Some(clock::now() + wait);
            return throttled(wait);
        }
        let code = raw_response.as_deref().and_then(code);
        refusal(status, code.as_deref())
    }
}

impl SecretSource for AzureKeyVault {
    fn fetch<'a>(&'a self, secret: &'a str) -> Fetch<'a> {
        Box::pin(self.present(secret))
    }

    fn fetch_previous<'a>(&'a self, secret: &'a str) -> Fetch<'a> {
        Box::pin(self.previous(secret))
    }

    fn write<'a>(&'a self, secret: &'a str, value: &'a SecretString) -> Write<'a> {
        Box::pin(self.set(secret, value))
    }
}

/// A version of a secret, as the list has it.
#[derive(Debug)]
struct Version {
    id: String,
    created: OffsetDateTime,
    usable: bool,
}

impl Version {
    fn of(listed: &SecretProperties) -> Option<Self> {
        let id = id_of(listed.resource_id().ok())?;
        let attributes = listed.attributes.as_ref();
        let created = attributes.and_then(|attributes| attributes.created)?;
        Some(Self { id, created, usable: facts(attributes, now()).is_ok() })
    }
}

/// A name, and a version if there is one. Nothing else becomes a part of a URL.
fn parts(secret: &str) -> Result<(&str, Option<&str>), VaultError> {
    let (name, version) =
        secret.split_once('/').map_or((secret, None), |(name, version)| (name, Some(version)));
    let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let good = |text: &str| (1..=127).contains(&text.len()) && plain(text);
    if !good(name) || !version.is_none_or(good) {
        return Err(VaultError::Denied(
            "there is no secret of such a name: letters, digits and - make one".into(),
        ));
    }
    Ok((name, version))
}

fn model(answer: Response<Secret>) -> Result<Secret, VaultError> {
    let body = Bytes::from(answer.into_body());
    let secret = serde_json::from_slice(&body).map_err(|_| VaultError::Unavailable(FOREIGN.into()));
    // The library's own copy of the answer.
    if let Ok(mut body) = body.try_into_mut() {
        body.as_mut().zeroize();
    }
    secret
}

fn misunderstood(error: &azure_core::Error) -> &'static str {
    match error.kind() {
        // The library's check of the challenge.
        ErrorKind::Other => {
            "its challenge asks for a token for another service, which patgate does not give away"
        }
        _ => FOREIGN,
    }
}

fn fetched(mut secret: Secret, now: jiff::Timestamp) -> Result<Fetched, VaultError> {
    let value = secret.value.take().map(SecretString::from);
    let facts = facts(secret.attributes.as_ref(), now)?;
    let version = id_of(secret.resource_id().ok()).map(Arc::from);
    let value = value.ok_or(VaultError::Unavailable(FOREIGN.into()))?;
    Ok(Fetched { value, version, facts })
}

/// The version's id, where it is one.
fn id_of(resource: Option<azure_security_keyvault_secrets::ResourceId>) -> Option<String> {
    let version = resource?.version?;
    let good = (1..=64).contains(&version.len()) && version.bytes().all(|byte| byte.is_ascii_alphanumeric());
    good.then_some(version)
}

/// What the attributes say, or why the secret may not be used.
fn facts(attributes: Option<&SecretAttributes>, now: jiff::Timestamp) -> Result<Facts, VaultError> {
    let Some(attributes) = attributes else { return Ok(Facts::default()) };
    let moment = |time: Option<OffsetDateTime>| {
        time.and_then(|time| jiff::Timestamp::from_second(time.unix_timestamp()).ok())
    };
    let (not_before, expires) = (moment(attributes.not_before), moment(attributes.expires));
    if attributes.enabled == Some(false) {
        return Err(VaultError::Denied("the secret is disabled".into()));
    }
    if let Some(from) = not_before.filter(|from| *from > now) {
        return Err(VaultError::Denied(format!("the secret is not valid before {from}").into()));
    }
    if let Some(until) = expires.filter(|until| *until <= now) {
        return Err(VaultError::Denied(format!("the secret expired on {until}").into()));
    }
    Ok(Facts { not_before, expires })
}

fn now() -> jiff::Timestamp {
    jiff::Timestamp::try_from(clock::wall()).unwrap_or(jiff::Timestamp::MAX)
}

fn throttled(wait: Duration) -> VaultError {
    let seconds = wait.as_secs().max(1);
    VaultError::Unavailable(
        format!("it is asked too often (429), and again in {seconds} s at the earliest").into(),
    )
}

fn retry_after(response: &RawResponse) -> Option<Duration> {
    let seconds = response.headers().get_optional_str(&RETRY_AFTER)?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_QUIET))
}

/// The innermost code of Key Vault's error, which says most.
fn code(response: &RawResponse) -> Option<String> {
    #[derive(Deserialize)]
    struct Answer {
        error: Inner,
    }
    #[derive(Deserialize)]
    struct Inner {
        code: Option<String>,
        innererror: Option<Box<Inner>>,
    }
    let answer: Answer = serde_json::from_slice(response.body().as_ref()).ok()?;
    let mut inner = answer.error;
    // serde_json itself ends a nesting without end.
    while let Some(deeper) = inner.innererror {
        inner = Inner { code: deeper.code.or(inner.code), innererror: deeper.innererror };
    }
    inner.code.filter(|code| {
        (1..=64).contains(&code.len()) && code.bytes().all(|byte| byte.is_ascii_alphanumeric())
    })
}

fn refusal(status: StatusCode, code: Option<&str>) -> VaultError {
    let shown = match code {
        Some(code) => format!("{} {code}", status.as_u16()),
        None => status.as_u16().to_string(),
    };
    let text = match (status, code) {
        (StatusCode::UNAUTHORIZED, _) => format!("it does not take the identity's token ({shown})"),
        (StatusCode::FORBIDDEN, Some("SecretDisabled")) => "the secret is disabled".to_owned(),
        (StatusCode::FORBIDDEN, Some("ForbiddenByFirewall" | "ForbiddenByConnection")) => {
            format!("the vault's firewall does not let patgate in ({shown})")
        }
        (StatusCode::FORBIDDEN, _) => format!(
            "the identity may not do that ({shown}); to read it needs the role Key Vault Secrets User, to write and \
             to list Key Vault Secrets Officer, or access policies that say as much"
        ),
        (StatusCode::NOT_FOUND, Some("SecretNotFound")) => "there is no such secret (404)".to_owned(),
        (StatusCode::NOT_FOUND, _) => format!("there is no such secret, or no such vault ({shown})"),
        _ => return network::failure(status),
    };
    VaultError::Denied(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Option<OffsetDateTime> {
        OffsetDateTime::from_unix_timestamp(seconds).ok()
    }

    #[test]
    fn attributes_say_whether_a_secret_may_be_used() {
        let now = jiff::Timestamp::from_second(1_000_000).unwrap();
        for (enabled, not_before, expires, verdict) in [
            (None, None, None, Ok(None)),
            (Some(true), at(999_999), at(1_000_001), Ok(Some(1_000_001))),
            (Some(true), at(1_000_000), None, Ok(None)),
            (Some(false), None, None, Err("the secret is disabled")),
            (Some(true), at(1_000_001), None, Err("not valid before 1970-01-12T13:46:41Z")),
            (Some(true), None, at(1_000_000), Err("expired on 1970-01-12T13:46:40Z")),
            (Some(true), at(999_999), at(999_999), Err("expired on 1970-01-12T13:46:39Z")),
        ] {
            let attributes = SecretAttributes { enabled, not_before, expires, ..SecretAttributes::default() };
            match (facts(Some(&attributes), now), verdict) {
                (Ok(facts), Ok(expires)) => {
                    assert_eq!(facts.expires.map(jiff::Timestamp::as_second), expires);
                }
                (Err(VaultError::Denied(why)), Err(words)) => assert!(why.contains(words), "{why}"),
                (got, wanted) => panic!("{got:?} in place of {wanted:?}"),
            }
        }
    }

    #[test]
    fn a_status_is_a_verdict_in_words() {
        for (status, code, denied, words) in [
            (401, Some("Unauthorized"), true, "does not take the identity's token (401 Unauthorized)"),
            (403, Some("ForbiddenByPolicy"), true, "403 ForbiddenByPolicy"),
            (403, Some("ForbiddenByRbac"), true, "Key Vault Secrets User"),
            (403, Some("ForbiddenByFirewall"), true, "firewall"),
            (403, Some("SecretDisabled"), true, "disabled"),
            (403, None, true, "(403)"),
            (404, Some("SecretNotFound"), true, "no such secret (404)"),
            (404, None, true, "no such vault"),
            (500, None, false, "500"),
            (503, Some("Unavailable"), false, "503"),
            (302, None, false, "302"),
        ] {
            let error = refusal(StatusCode::from_u16(status).unwrap(), code);
            assert_eq!(matches!(error, VaultError::Denied(_)), denied, "{error}");
            assert!(error.to_string().contains(words), "{error}");
        }
    }

    #[test]
    fn only_a_name_becomes_a_part_of_a_url() {
        assert_eq!(parts("a-1").unwrap(), ("a-1", None));
        assert_eq!(parts("a-1/0af").unwrap(), ("a-1", Some("0af")));
        for wrong in ["", "/", "a/", "/a", "a/b/c", "..", "a/..", "a?b", "a%2fb", "a b", "ä"] {
            assert!(matches!(parts(wrong), Err(VaultError::Denied(_))), "{wrong}");
        }
    }
}
