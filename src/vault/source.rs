//! What every vault is to the rest: something that gives a secret by its name, or says why not.

use std::{future::Future, pin::Pin, sync::Arc};

use secrecy::SecretString;

use super::{
    FingerprintKey, Scheme, Stamping, Token, aws_secrets_manager, azure_key_vault, command, entra,
    environment, file, hashicorp, sealed,
};
use crate::config::{self, CredentialSource};

/// What a vault gave.
pub struct Fetched {
    /// The secret.
    pub value: SecretString,
    /// What the vault calls this version of it, if it has versions; else a keyed fingerprint takes its place.
    pub version: Option<Arc<str>>,
    /// What the vault says of it.
    pub facts: Facts,
}

impl Fetched {
    /// A secret of which nothing more is known.
    #[must_use]
    pub fn new(value: SecretString) -> Self {
        Self { value, version: None, facts: Facts::default() }
    }
}

/// What a vault, or a token itself, says of a secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// From when it may be used.
    pub not_before: Option<jiff::Timestamp>,
    /// Until when it may be used.
    pub expires: Option<jiff::Timestamp>,
}

/// Why a vault gave nothing.
#[derive(Clone, Debug, thiserror::Error)]
pub enum VaultError {
    /// Silence, throttling, failure: it never ends a good value before `stale-for`.
    #[error("the vault did not answer: {0}")]
    Unavailable(Arc<str>),
    /// "Forbidden", "disabled", "not found": an answer, and it ends the value.
    #[error("the vault refused: {0}")]
    Denied(Arc<str>),
    /// What it gave is no token (empty, white space inside, not ASCII, too long).
    #[error("the secret is not usable: {0}")]
    Unusable(Arc<str>),
}

/// A boxed future, so that the trait has objects. Reads of vaults are rare.
pub type Fetch<'a> = Pin<Box<dyn Future<Output = Result<Fetched, VaultError>> + Send + 'a>>;

/// A boxed future: the write of a secret, and what the vault calls the version that it made.
pub type Write<'a> = Pin<Box<dyn Future<Output = Result<Option<Arc<str>>, VaultError>> + Send + 'a>>;

/// Where secrets live. Called on the control thread alone, under the vault's deadline.
pub trait SecretSource: Send + Sync {
    /// Reads one secret by the name that `[credential.x] secret` gives.
    fn fetch<'a>(&'a self, secret: &'a str) -> Fetch<'a>;

    /// Reads the version before the present one.
    fn fetch_previous<'a>(&'a self, _: &'a str) -> Fetch<'a> {
        Box::pin(async { Err(VaultError::Denied("this type of vault keeps no earlier versions".into())) })
    }

    /// Writes a new version.
    fn write<'a>(&'a self, _: &'a str, _: &'a SecretString) -> Write<'a> {
        Box::pin(async { Err(VaultError::Denied("patgate does not write to this type of vault".into())) })
    }

    /// Where a secret is on this machine: how its files look. While that stays the same, so does the secret. `None`:
    /// only reading tells.
    fn stamp<'a>(&'a self, _: &'a str) -> Stamping<'a> {
        Box::pin(async { None })
    }
}

/// Opens one vault.
///
/// # Errors
/// What can't even be set up (a key that can't be read), as a sentence.
pub fn source(vault: &config::Vault, outbound: &config::Outbound) -> Result<Arc<dyn SecretSource>, String> {
    use config::VaultSource;
    Ok(match &vault.source {
        VaultSource::Sealed(config) => {
            Arc::new(sealed::Sealed::of(config).map_err(|error| error.to_string())?)
        }
        VaultSource::Environment => Arc::new(environment::Environment::new()),
        VaultSource::File(config) => Arc::new(file::File::new(config)),
        VaultSource::Command(config) => Arc::new(command::Command::new(config)),
        VaultSource::Hashicorp(source) => {
            Arc::new(hashicorp::Hashicorp::open(source, vault.lifetime.deadline, outbound)?)
        }
        VaultSource::AwsSecretsManager(vault) => {
            Arc::new(aws_secrets_manager::AwsSecretsManager::open(vault, outbound)?)
        }
        VaultSource::AzureKeyVault(vault) => Arc::new(azure_key_vault::AzureKeyVault::open(vault, outbound)?),
    })
}

/// Opens what gives one credential its tokens where that is no vault.
pub(super) fn tokens(
    entra: &config::Entra,
    outbound: &config::Outbound,
) -> Result<Arc<dyn SecretSource>, String> {
    Ok(Arc::new(entra::Entra::open(entra, outbound)?))
}

/// A token as it was read, with what the vault said of it.
pub(crate) struct Got {
    pub(crate) token: Token,
    pub(crate) version: Option<Arc<str>>,
    pub(crate) facts: Facts,
}

/// Reads a credential's secret and takes it for a token.
///
/// # Errors
/// See [`VaultError`].
pub(crate) async fn fetch_token(
    source: &dyn SecretSource,
    from: &CredentialSource,
    key: &FingerprintKey,
) -> Result<Got, VaultError> {
    token_of(source.fetch(from.secret()).await?, from, key)
}

/// As [`fetch_token`], of the version before the present one.
pub(in crate::vault) async fn fetch_previous(
    source: &dyn SecretSource,
    from: &CredentialSource,
    key: &FingerprintKey,
) -> Result<Got, VaultError> {
    token_of(source.fetch_previous(from.secret()).await?, from, key)
}

fn token_of(fetched: Fetched, from: &CredentialSource, key: &FingerprintKey) -> Result<Got, VaultError> {
    let Fetched { value, version, facts } = fetched;
    let scheme = match from {
        CredentialSource::Vault { .. } => Scheme::Basic,
        CredentialSource::Entra(_) => Scheme::Bearer,
    };
    let token = Token::new(value, scheme, key).map_err(|why| VaultError::Unusable(why.to_string().into()))?;
    Ok(Got { token, version, facts })
}
