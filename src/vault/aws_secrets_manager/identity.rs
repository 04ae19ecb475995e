//! As whom patgate reads: credentials of AWS, from where the SDK looks for them, and a role taken on with them.
//!
//! Unlike the SDK's own chain this one says of each place what it found there, and asks the Security Token Service
//! at the configured endpoint.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use aws_config::{
    ecs::EcsCredentialsProvider,
    environment::EnvironmentVariableCredentialsProvider,
    imds::{self, credentials::ImdsCredentialsProvider},
    profile::ProfileFileCredentialsProvider,
    provider_config::ProviderConfig,
};
use aws_credential_types::{
    Credentials,
    provider::{self, ProvideCredentials, SharedCredentialsProvider, error::CredentialsError, future},
};
use aws_sdk_secretsmanager::config::{BehaviorVersion, IdentityCache, Region, timeout::TimeoutConfig};
use aws_sdk_sts::{Client, Config};
use tokio::io::AsyncReadExt as _;
use zeroize::Zeroizing;

use super::{
    Way,
    failure::{self, Told},
    retries,
};
use crate::{config, vault::VaultError};

/// What `CloudTrail` shows as the name of a role's session.
const SESSION: &str = "patgate";

/// For one place where credentials may be, and for a role with all before it: shorter than the usual `deadline`, so
/// that it can be said who was silent.
const PLACE: Duration = Duration::from_secs(3);
const ROLE: Duration = Duration::from_secs(4);

/// Who gives credentials to such a vault.
pub(super) fn of(vault: &config::AwsSecretsManager, way: &Way) -> SharedCredentialsProvider {
    let found = SharedCredentialsProvider::new(Chain::new(vault, way));
    let Some(role) = &vault.assume_role else { return found };
    SharedCredentialsProvider::new(Role {
        sts: sts(vault, way, Some(found)),
        arn: Arc::clone(role),
        external_id: vault.external_id.clone(),
    })
}

fn sts(vault: &config::AwsSecretsManager, way: &Way, identity: Option<SharedCredentialsProvider>) -> Client {
    let mut config = Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new(vault.region.to_string()))
        .endpoint_url(&*way.sts)
        .http_client(way.client.clone())
        .identity_cache(IdentityCache::no_cache())
        .retry_config(retries())
        .timeout_config(TimeoutConfig::disabled());
    config.set_credentials_provider(identity);
    Client::from_conf(config.build())
}

/// The places where credentials may be, in order.
#[derive(Debug)]
struct Chain(Vec<(&'static str, SharedCredentialsProvider)>);

impl Chain {
    fn new(vault: &config::AwsSecretsManager, way: &Way) -> Self {
        let common = ProviderConfig::default()
            .with_region(Some(Region::new(vault.region.to_string())))
            .with_http_client(way.client.clone())
            .with_retry_config(retries());
        let mut profile = ProfileFileCredentialsProvider::builder().configure(&common);
        if let Some(name) = &vault.profile {
            profile = profile.profile_name(&**name);
            return Self(vec![("profile", SharedCredentialsProvider::new(profile.build()))]);
        }
        // Elsewhere than on EC2 nobody answers there, and to ask again would take all the time there is.
        let instance = imds::Client::builder().configure(&common).max_attempts(1).build();
        let instance = ImdsCredentialsProvider::builder().configure(&common).imds_client(instance).build();
        Self(vec![
            ("environment", SharedCredentialsProvider::new(EnvironmentVariableCredentialsProvider::new())),
            ("profile", SharedCredentialsProvider::new(profile.build())),
            ("web identity", SharedCredentialsProvider::new(WebIdentity { sts: sts(vault, way, None) })),
            (
                "container",
                SharedCredentialsProvider::new(EcsCredentialsProvider::builder().configure(&common).build()),
            ),
            ("instance", SharedCredentialsProvider::new(instance)),
        ])
    }

    async fn first(&self) -> provider::Result {
        let mut said = Vec::with_capacity(self.0.len());
        for (place, provider) in &self.0 {
            let error = match tokio::time::timeout(PLACE, provider.provide_credentials()).await {
                Ok(Ok(credentials)) => return Ok(credentials),
                Ok(Err(error)) => error,
                Err(_) => CredentialsError::provider_error(Told("it took too long".into())),
            };
            let why = failure::told(&error).unwrap_or_else(|| failure::innermost(&error));
            let why = format!("{place}: {why}");
            // A place that is set up and fails is not passed over: the next might be somebody else.
            if !matches!(error, CredentialsError::CredentialsNotLoaded(_)) {
                return Err(none(&why));
            }
            said.push(why);
        }
        Err(none(&said.join("; ")))
    }
}

fn none(said: &str) -> CredentialsError {
    CredentialsError::provider_error(Told(format!("patgate has no credentials of AWS ({said})")))
}

impl ProvideCredentials for Chain {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.first())
    }
}

/// `AWS_WEB_IDENTITY_TOKEN_FILE` and `AWS_ROLE_ARN`, as EKS sets them for a service account.
#[derive(Debug)]
struct WebIdentity {
    sts: Client,
}

impl WebIdentity {
    async fn take_on(&self) -> provider::Result {
        let Ok(file) = std::env::var("AWS_WEB_IDENTITY_TOKEN_FILE") else {
            return Err(CredentialsError::not_loaded("AWS_WEB_IDENTITY_TOKEN_FILE is not set"));
        };
        let role = std::env::var("AWS_ROLE_ARN")
            .map_err(|_| CredentialsError::not_loaded("AWS_ROLE_ARN is not set"))?;
        let session = std::env::var("AWS_ROLE_SESSION_NAME").unwrap_or_else(|_| SESSION.into());
        let token = token(Path::new(&file)).await.map_err(CredentialsError::provider_error)?;
        let asked = self
            .sts
            .assume_role_with_web_identity()
            .role_arn(role)
            .role_session_name(session)
            .web_identity_token(token.trim());
        let answer = asked.send().await.map_err(|error| refused(failure::of(&error)))?;
        credentials(answer.credentials, "WebIdentityToken")
    }
}

/// It is read anew each time: it is replaced while it is in use.
async fn token(file: &Path) -> Result<Zeroizing<String>, Told> {
    const LONGEST: u64 = 64 * 1024;
    let wrong = |why: String| Told(format!("{} can't be read ({why})", file.display()));
    let opened = tokio::fs::File::open(file).await.map_err(|error| wrong(error.kind().to_string()))?;
    let mut token = Zeroizing::new(String::with_capacity(8 * 1024));
    let read = opened.take(LONGEST).read_to_string(&mut token).await;
    read.map_err(|error| wrong(error.kind().to_string()))?;
    Ok(token)
}

impl ProvideCredentials for WebIdentity {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.take_on())
    }
}

/// `assume-role`.
#[derive(Debug)]
struct Role {
    sts: Client,
    arn: Arc<str>,
    external_id: Option<Arc<str>>,
}

impl Role {
    async fn take_on(&self) -> provider::Result {
        let asked = self
            .sts
            .assume_role()
            .role_arn(&*self.arn)
            .role_session_name(SESSION)
            .set_external_id(self.external_id.as_deref().map(str::to_owned));
        let silent = |_| CredentialsError::provider_error(Told("STS: it took too long".into()));
        let answer = tokio::time::timeout(ROLE, asked.send()).await.map_err(silent)?;
        let answer = answer.map_err(|error| refused(failure::of(&error)))?;
        credentials(answer.credentials, "AssumeRole")
    }
}

impl ProvideCredentials for Role {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.take_on())
    }
}

fn refused(error: VaultError) -> CredentialsError {
    let (VaultError::Unavailable(why) | VaultError::Denied(why) | VaultError::Unusable(why)) = error;
    // What stood in the way of asking at all is a whole sentence already.
    let text =
        if why.starts_with("patgate has no credentials") { why.to_string() } else { format!("STS: {why}") };
    CredentialsError::provider_error(Told(text))
}

fn credentials(given: Option<aws_sdk_sts::types::Credentials>, from: &'static str) -> provider::Result {
    let given = given.ok_or_else(|| CredentialsError::provider_error(Told("STS gave none".into())))?;
    let until = SystemTime::try_from(given.expiration)
        .map_err(|_| CredentialsError::provider_error(Told("STS gave them no expiry".into())))?;
    let session = Some(given.session_token);
    Ok(Credentials::new(given.access_key_id, given.secret_access_key, session, Some(until), from))
}
