//! Reads a secret only to see whether it could be used.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;

use super::{
    Facts, FingerprintKey, SecretSource, VaultError, cache::vault_read, fetch_token, source, token::Format,
    tokens,
};
use crate::config::{Config, Credential, CredentialSource, Lifetime};

pub(crate) use super::cache::Record;

/// What may be said of a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tried {
    pub(crate) format: Format,
    pub(crate) fingerprint: Arc<str>,
    pub(crate) version: Option<Arc<str>>,
    pub(crate) facts: Facts,
}

/// Reads one credential, and records that it was read.
///
/// # Errors
/// As the vault says, or where the read can't be recorded.
pub(crate) async fn try_credential(
    source: &dyn SecretSource,
    deadline: Duration,
    credential: &Credential,
    key: &FingerprintKey,
    record: &dyn Record,
) -> Result<Tried, VaultError> {
    let got = timeout(deadline, fetch_token(source, &credential.source, key)).await;
    let got =
        got.unwrap_or_else(|_| Err(VaultError::Unavailable(format!("nothing within {deadline:?}").into())));
    let recorded = record.record(vault_read(credential, "test", &got)).await;
    recorded.map_err(|why| VaultError::Unavailable(format!("its read is not on record: {why}").into()))?;
    let got = got?;
    let fingerprint = Arc::clone(got.token.fingerprint());
    Ok(Tried { format: got.token.format(), fingerprint, version: got.version, facts: got.facts })
}

/// What a credential is read from, and the time that a read may take.
///
/// # Errors
/// What can't be set up, as a sentence.
pub(crate) fn opened(
    config: &Config,
    credential: &Credential,
) -> Result<(Arc<dyn SecretSource>, Duration), String> {
    match &credential.source {
        CredentialSource::Entra(entra) => {
            Ok((tokens(entra, &config.outbound)?, Lifetime::default().deadline))
        }
        CredentialSource::Vault { vault, .. } => {
            let vault = config.vaults.get(vault).ok_or_else(|| format!("there is no vault {vault}"))?;
            Ok((source(vault, &config.outbound)?, vault.lifetime.deadline))
        }
    }
}
