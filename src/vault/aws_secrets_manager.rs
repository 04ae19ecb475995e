//! Secrets of AWS Secrets Manager, through the official SDK.
//!
//! What comes in: a secret's name or ARN, perhaps with `#` and a field of its JSON. What goes out: the version that
//! is staged `AWSCURRENT` (asked for by name), or `AWSPREVIOUS`. Reads that come at the same moment go up as one
//! ([`batch`]). It must never reach a host that the configuration does not lead to: whatever environment variables
//! and files of `~/.aws` say, [`transport`] carries no request elsewhere.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use aws_lc_rs::digest::{Context, SHA256};
use aws_sdk_secretsmanager::{
    Client, Config,
    config::{
        BehaviorVersion, IdentityCache, Region, SharedCredentialsProvider, SharedHttpClient,
        retry::RetryConfig, timeout::TimeoutConfig,
    },
};
use futures_util::FutureExt as _;
use secrecy::SecretString;

use super::{Fetch, SecretSource, VaultError, Write, token::exposed};
use crate::config;

mod batch;
mod failure;
mod field;
mod identity;
mod read;
#[cfg(test)]
mod real;
#[cfg(test)]
mod tests;
mod transport;

use batch::Batch;
use field::Wanted;
use transport::Transport;

/// What the version in force is called, and the one before it.
const CURRENT: &str = "AWSCURRENT";
const PREVIOUS: &str = "AWSPREVIOUS";

/// For patgate's own credentials of AWS. The places that have them are given up on sooner, with words.
const IDENTITY: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug)]
pub struct AwsSecretsManager {
    client: Client,
    batch: Batch,
}

impl AwsSecretsManager {
    /// Sets up one region's vault. Nothing is asked yet.
    ///
    /// # Errors
    /// No client can be set up, as a sentence.
    pub fn open(vault: &config::AwsSecretsManager, outbound: &config::Outbound) -> Result<Self, String> {
        let way = Way::new(vault, outbound)?;
        let identity = identity::of(vault, &way);
        Ok(Self::with(vault, &way, identity))
    }

    fn with(vault: &config::AwsSecretsManager, way: &Way, identity: SharedCredentialsProvider) -> Self {
        let config = Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new(vault.region.to_string()))
            .endpoint_url(&*way.secrets)
            .http_client(way.client.clone())
            .credentials_provider(identity)
            .identity_cache(IdentityCache::lazy().load_timeout(IDENTITY).build())
            .retry_config(retries())
            .timeout_config(TimeoutConfig::disabled())
            .build();
        let client = Client::from_conf(config);
        Self { batch: Batch::new(client.clone()), client }
    }

    async fn put(&self, secret: &str, value: &SecretString) -> Result<Option<Arc<str>>, VaultError> {
        let wanted = Wanted::of(secret)?;
        let current = match read::one(&self.client, wanted.name, CURRENT).await {
            Ok(current) => Some(current),
            // A secret that has no value yet; or one that may be written and not read.
            Err(VaultError::Denied(_)) if wanted.field.is_none() => None,
            Err(error) => return Err(error),
        };
        if let Some(current) = &current
            && wanted.is_in(current, exposed(value))
        {
            return Ok(current.version.clone());
        }
        let whole = wanted.replaced(current.as_ref(), exposed(value))?;
        let version = current.as_ref().and_then(|current| current.version.as_deref()).unwrap_or_default();
        let put = self
            .client
            .put_secret_value()
            .secret_id(wanted.name)
            .client_request_token(request_token(wanted.name, version, &whole))
            .secret_string(&**whole);
        let put = put.send().await.map_err(|error| failure::without_words(&error))?;
        Ok(put.version_id().map(Arc::from))
    }
}

/// The same for the same write over the same version, so that one that is sent twice makes one version.
fn request_token(name: &str, version: &str, value: &str) -> String {
    let mut digest = Context::new(&SHA256);
    for part in [name, version, value] {
        digest.update(&part.len().to_be_bytes());
        digest.update(part.as_bytes());
    }
    digest.finish().as_ref().iter().fold(String::with_capacity(64), |mut token, byte| {
        let _ = write!(token, "{byte:02x}");
        token
    })
}

impl SecretSource for AwsSecretsManager {
    fn fetch<'a>(&'a self, secret: &'a str) -> Fetch<'a> {
        Box::pin(async move {
            let wanted = Wanted::of(secret)?;
            wanted.pick(&self.batch.read(wanted.name).await?)
        })
    }

    fn fetch_previous<'a>(&'a self, secret: &'a str) -> Fetch<'a> {
        Box::pin(async move {
            let wanted = Wanted::of(secret)?;
            wanted.pick(&read::one(&self.client, wanted.name, PREVIOUS).await?)
        })
    }

    fn write<'a>(&'a self, secret: &'a str, value: &'a SecretString) -> Write<'a> {
        Box::pin(self.put(secret, value))
    }
}

/// One retry: the cache has a back-off of its own.
fn retries() -> RetryConfig {
    RetryConfig::standard()
        .with_max_attempts(2)
        .with_initial_backoff(Duration::from_millis(100))
        .with_max_backoff(Duration::from_secs(1))
}

/// The way to AWS: what is asked where, and the client that goes nowhere else.
#[derive(Clone, Debug)]
struct Way {
    secrets: Arc<str>,
    sts: Arc<str>,
    client: SharedHttpClient,
}

impl Way {
    fn new(vault: &config::AwsSecretsManager, outbound: &config::Outbound) -> Result<Self, String> {
        let region = &*vault.region;
        let secrets = match &vault.endpoint {
            Some(endpoint) => Arc::clone(endpoint),
            None => standard_secrets(region).ok_or_else(|| format!("no endpoint is known for {region}"))?,
        };
        let sts = match &vault.sts_endpoint {
            Some(endpoint) => Arc::clone(endpoint),
            None => standard_sts(region).ok_or_else(|| format!("no STS endpoint is known for {region}"))?,
        };
        let hosts = vec![Arc::clone(&secrets), Arc::clone(&sts)];
        let client = SharedHttpClient::new(Transport::new(hosts, &vault.trust, outbound)?);
        Ok(Self { secrets, sts, client })
    }
}

/// The region's own endpoint, as the SDK knows it, in whichever partition of AWS it is.
fn standard_secrets(region: &str) -> Option<Arc<str>> {
    use aws_sdk_secretsmanager::config::endpoint::{DefaultResolver, Params, ResolveEndpoint as _};
    let params = Params::builder().region(region).build().ok()?;
    let endpoint = DefaultResolver::new().resolve_endpoint(&params).now_or_never()?.ok()?;
    Some(endpoint.url().trim_end_matches('/').into())
}

fn standard_sts(region: &str) -> Option<Arc<str>> {
    use aws_sdk_sts::config::endpoint::{DefaultResolver, Params, ResolveEndpoint as _};
    let params = Params::builder().region(region).build().ok()?;
    let endpoint = DefaultResolver::new().resolve_endpoint(&params).now_or_never()?.ok()?;
    Some(endpoint.url().trim_end_matches('/').into())
}
