//! Reads a secret only to see whether it could be used.

use std::sync::Arc;

use tokio::time::timeout;

use super::{FingerprintKey, VaultError, cache::vault_read, fetch_pat, pat::Format, source};
use crate::config::{Credential, Vault};

pub(crate) use super::cache::Record;

/// What may be said of a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tried {
    pub(crate) format: Format,
    pub(crate) fingerprint: Arc<str>,
    pub(crate) version: Option<Arc<str>>,
}

/// Reads one credential, and records that it was read.
///
/// # Errors
/// As the vault says, or where the read can't be recorded.
pub(crate) async fn try_credential(
    vault: &Vault,
    credential: &Credential,
    key: &FingerprintKey,
    record: &dyn Record,
) -> Result<Tried, VaultError> {
    let source = source(vault).map_err(|why| VaultError::Unavailable(why.into()))?;
    let deadline = vault.lifetime().deadline;
    let got = timeout(deadline, fetch_pat(&*source, &credential.secret, key)).await;
    let got =
        got.unwrap_or_else(|_| Err(VaultError::Unavailable(format!("nothing within {deadline:?}").into())));
    let recorded = record.record(vault_read(credential, "test", &got)).await;
    recorded.map_err(|why| VaultError::Unavailable(format!("its read is not on record: {why}").into()))?;
    let (pat, version) = got?;
    Ok(Tried { format: pat.format(), fingerprint: Arc::clone(pat.fingerprint()), version })
}
