//! Calls to Azure DevOps: each with a durable intent before it and an outcome after.
//!
//! What comes in: an Entra token of a user, or a personal access token to try. What goes out: the user's tokens, a new
//! one, or whose one is. Hosts are two constants; no answer is followed anywhere, and of an answer that is no success
//! nothing is shown but its status and Azure DevOps' own word for the error.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use jiff::Timestamp;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Client, Url};
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::plan::Plan;
use crate::{
    audit::{Ending, Event, Facts},
    clock,
    config::{Outbound, Trust, Upstream},
    vault::{FingerprintKey, Scheme, Token, VaultError, network, trial::Record},
};

mod answer;

use answer::{Held, Made, Page, is_sign_in, parsed, success};

/// The host of the tokens' API.
const TOKENS: &str = "vssps.dev.azure.com";
/// The host that a token is tried on.
const SERVICE: &str = "dev.azure.com";
/// The version of the tokens' API.
const VERSION: &str = "7.1-preview.1";
/// The most tokens of a page.
const PAGE: usize = 100;
/// The most pages; a user with more tokens can't be served.
const PAGES: usize = 50;
/// Whom Azure DevOps takes somebody without a token for.
const ANONYMOUS: &str = "aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa";

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Trouble {
    /// Azure DevOps said no: nothing was done.
    #[error("Azure DevOps refuses {what}: {why}")]
    Refused {
        /// What was asked for.
        what: &'static str,
        /// Its word for the error.
        why: String,
    },
    /// Nothing was done, and it is to be asked again later.
    #[error("Azure DevOps asks for patience")]
    Throttled(Option<Duration>),
    /// Nobody knows whether it was done.
    #[error("{what}: {why}")]
    Unanswered {
        /// What was asked for.
        what: &'static str,
        /// What came in place of an answer.
        why: String,
    },
    /// It could not be recorded, so it was not done.
    #[error("it can't be recorded: {0}")]
    Unrecorded(String),
    /// A vault did not do its part.
    #[error("{0}")]
    Vault(String),
    /// The state can't be kept or read.
    #[error("{0}")]
    State(String),
    /// What was found is not as it has to be.
    #[error("{0}")]
    Found(String),
}

/// A token of the user's, as the list shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) authorization: String,
    pub(super) display_name: String,
    pub(super) since: Timestamp,
    pub(super) until: Timestamp,
}

/// Whose a token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// The user's with this id.
    User(String),
    /// Nobody's: it expired, was revoked, or never was.
    Nobody,
}

/// The way to Azure DevOps.
pub(super) struct AzureDevOps {
    tokens: Client,
    service: Client,
    record: Arc<dyn Record>,
    key: FingerprintKey,
}

/// One call.
struct Call<'a> {
    what: &'static str,
    method: Method,
    host: &'static str,
    path: String,
    query: String,
    body: Option<Value>,
    token: &'a Token,
}

impl AzureDevOps {
    /// With the hosts reached as `[upstream]` and `[outbound]` say.
    ///
    /// # Errors
    /// What the client does not accept, as a sentence.
    pub(super) fn new(
        upstream: &Upstream,
        outbound: &Outbound,
        record: Arc<dyn Record>,
        key: FingerprintKey,
    ) -> Result<Self, String> {
        let client = |host: &str| {
            let address = upstream.addresses.get_key_value(host);
            let trust = Trust { ca: upstream.ca.clone().filter(|_| address.is_some()) };
            let addresses: BTreeMap<Arc<str>, SocketAddr> =
                address.map(|(host, address)| (Arc::clone(host), *address)).into_iter().collect();
            network::client(outbound, &trust, &addresses, None)
        };
        Ok(Self { tokens: client(TOKENS)?, service: client(SERVICE)?, record, key })
    }

    /// Takes a secret for the user's Entra token.
    ///
    /// # Errors
    /// It is none.
    pub(super) fn entra(&self, secret: SecretString) -> Result<Token, Trouble> {
        Token::new(secret, Scheme::Bearer, &self.key)
            .map_err(|why| Trouble::Vault(format!("the Entra token is not usable: {why}")))
    }

    /// Every token of the user's that counts.
    pub(super) async fn list(&self, plan: &Plan, entra: &Token) -> Result<Vec<Listed>, Trouble> {
        let what = "the list of tokens";
        let (mut all, mut from) = (Vec::new(), String::new());
        for _ in 0..PAGES {
            let mut query = format!("displayFilterOption=active&$top={PAGE}");
            if !from.is_empty() {
                let from = utf8_percent_encode(&from, NON_ALPHANUMERIC);
                query = format!("{query}&continuationToken={from}");
            }
            let answer = self.pats(plan, entra, what, Method::GET, query, None).await?;
            let page: Page = parsed(what, &answer)?;
            all.extend(page.pat_tokens.into_iter().map(Listed::from));
            match page.continuation_token {
                Some(next) if !next.is_empty() => from = next,
                _ => return Ok(all),
            }
        }
        Err(Trouble::Found(format!("the user has more than {} tokens", PAGE * PAGES)))
    }

    /// Makes a token.
    pub(super) async fn create(
        &self,
        plan: &Plan,
        entra: &Token,
        rotation: &str,
        until: Timestamp,
    ) -> Result<(Listed, SecretString), Trouble> {
        let what = "a new token";
        let asked = json!({
            "displayName": plan.display_name(rotation), "scope": plan.scope,
            "validTo": until.to_string(), "allOrgs": false,
        });
        let answer = self.pats(plan, entra, what, Method::POST, String::new(), Some(asked)).await?;
        let made: Made = parsed(what, &answer)?;
        if let Some(why) = made.error() {
            return Err(Trouble::Refused { what, why });
        }
        let unusable = || Trouble::Unanswered { what, why: "the answer holds none".into() };
        let mut token = made.pat_token.ok_or_else(unusable)?;
        let Held(value) = token.token.take().ok_or_else(unusable)?;
        if token.authorization_id.is_empty() {
            return Err(unusable());
        }
        Ok((Listed::from(token), value))
    }

    /// Revokes a token. One that is not there is revoked.
    pub(super) async fn revoke(
        &self,
        plan: &Plan,
        entra: &Token,
        authorization: &str,
    ) -> Result<(), Trouble> {
        let id = utf8_percent_encode(authorization, NON_ALPHANUMERIC);
        let query = format!("authorizationId={id}");
        self.pats(plan, entra, "to revoke a token", Method::DELETE, query, None).await.map(drop)
    }

    /// Asks whose a token is.
    pub(super) async fn whose(&self, plan: &Plan, value: &SecretString) -> Result<Whose, Trouble> {
        let what = "whose a token is";
        let token = Token::new(value.clone(), Scheme::Basic, &self.key)
            .map_err(|why| Trouble::Vault(format!("the secret is not usable: {why}")))?;
        let call = Call {
            what,
            method: Method::GET,
            host: SERVICE,
            path: format!("/{}/_apis/connectionData", plan.organization),
            query: "api-version=7.1-preview".into(),
            body: None,
            token: &token,
        };
        let (status, _, body) = self.call(plan, call).await?;
        if is_sign_in(status) {
            return Ok(Whose::Nobody);
        }
        let body = success(what, status, None, body)?;
        let data: Value = parsed(what, &body)?;
        match data.pointer("/authenticatedUser/id").and_then(Value::as_str) {
            Some(ANONYMOUS) => Ok(Whose::Nobody),
            Some(id) => Ok(Whose::User(id.to_owned())),
            None => Err(Trouble::Unanswered { what, why: "the answer does not say".into() }),
        }
    }

    async fn pats(
        &self,
        plan: &Plan,
        entra: &Token,
        what: &'static str,
        method: Method,
        query: String,
        body: Option<Value>,
    ) -> Result<Zeroizing<Vec<u8>>, Trouble> {
        let query = if query.is_empty() { query } else { format!("{query}&") };
        let call = Call {
            what,
            host: TOKENS,
            path: format!("/{}/_apis/tokens/pats", plan.organization),
            query: format!("{query}api-version={VERSION}"),
            body,
            token: entra,
            method: method.clone(),
        };
        let (status, patience, body) = self.call(plan, call).await?;
        if is_sign_in(status) {
            let why = "it does not accept the Entra token; it has to be a user's, for Azure DevOps".into();
            return Err(Trouble::Refused { what, why });
        }
        if method == Method::DELETE && matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE) {
            return Ok(body);
        }
        success(what, status, patience, body)
    }

    /// Makes a call between its two records: what came back, and how long it is to be waited for.
    async fn call(
        &self,
        plan: &Plan,
        call: Call<'_>,
    ) -> Result<(StatusCode, Option<Duration>, Zeroizing<Vec<u8>>), Trouble> {
        let id = crate::audit::request_id();
        let mut facts = Box::new(Facts {
            method: Some(call.method.clone()),
            host: Some(call.host),
            path: Some(call.path.as_str().into()),
            query: Some(call.query.as_str().into()),
            action: Some("rotate"),
            credential: Some(Arc::clone(&plan.credential)),
            ..Facts::default()
        });
        let intent = Event::Intent { id: id.clone(), purpose: "rotate", facts: facts.clone() };
        self.record.record(intent).await.map_err(Trouble::Unrecorded)?;

        let started = clock::now();
        let what = call.what;
        facts.fingerprint = Some(Arc::clone(call.token.fingerprint()));
        facts.bytes_in = call.body.as_ref().map_or(0, |body| body.to_string().len() as u64);
        let answered = timeout(plan.patience.request, self.send(call)).await;
        let micros = u64::try_from(clock::now().saturating_duration_since(started).as_micros());
        let answered = answered.unwrap_or_else(|_| Err((None, "it took too long".into())));
        let ending = match &answered {
            Ok((status, _, body)) => {
                facts.status = Some(status.as_u16());
                facts.bytes_out = body.len() as u64;
                Ending::Complete
            }
            Err((status, why)) => {
                facts.status = status.map(|status| status.as_u16());
                facts.detail = Some(why.as_str().into());
                Ending::UpstreamGone
            }
        };
        let outcome = Event::Outcome { id, facts, ending, micros: micros.unwrap_or(u64::MAX) };
        if let Err(why) = self.record.record(outcome).await {
            // It is kept, and written when the disk answers again.
            tracing::warn!(credential = %plan.credential, why, "the outcome of a call is not on record yet");
        }
        answered.map_err(|(_, why)| Trouble::Unanswered { what, why })
    }

    async fn send(
        &self,
        call: Call<'_>,
    ) -> Result<(StatusCode, Option<Duration>, Zeroizing<Vec<u8>>), (Option<StatusCode>, String)> {
        let client = if call.host == TOKENS { &self.tokens } else { &self.service };
        let mut url = Url::parse(if call.host == TOKENS {
            "https://vssps.dev.azure.com"
        } else {
            "https://dev.azure.com"
        })
        .map_err(|error| (None, error.to_string()))?;
        url.set_path(&call.path);
        url.set_query(Some(&call.query));
        let mut headers = HeaderMap::new();
        call.token.authorize(&mut headers);
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        // Or a refusal is a page for signing in.
        let name = HeaderName::from_static("x-tfs-fedauthredirect");
        headers.insert(name, HeaderValue::from_static("Suppress"));
        let mut request = client.request(call.method, url);
        if let Some(body) = call.body {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            request = request.body(body.to_string());
        }
        let said = |error: VaultError| match error {
            VaultError::Unavailable(why) | VaultError::Denied(why) | VaultError::Unusable(why) => {
                why.to_string()
            }
        };
        let answer = request.headers(headers).send().await;
        let answer = answer.map_err(|error| (None, said(network::silence(&error))))?;
        let status = answer.status();
        let patience = answer.headers().get(header::RETRY_AFTER);
        let patience = patience.and_then(|value| value.to_str().ok()?.parse().ok()).map(Duration::from_secs);
        let body =
            network::body(answer, network::ANSWER).await.map_err(|error| (Some(status), said(error)))?;
        Ok((status, patience, body))
    }
}
