//! Reads and writes of the vaults, each on record.

use std::{sync::Arc, time::Duration};

use secrecy::SecretString;
use tokio::time::{sleep, timeout};

use super::{
    super::{
        azure::Trouble,
        plan::mark,
        state::{Made, State},
    },
    Machine,
};
use crate::{
    audit::Event,
    vault::{Fetched, SecretSource, Token, VaultError},
};

impl Machine {
    /// Writes a value to the vault, again if it does not answer.
    pub(super) async fn write(&self, value: &SecretString) -> Result<(), Trouble> {
        let plan = &self.plan;
        let event = |version: Option<Arc<str>>, outcome| Event::VaultWrite {
            vault: Arc::clone(&plan.vault),
            credential: Arc::clone(&plan.credential),
            version,
            purpose: "rotate",
            outcome,
        };
        let mut tries = 1;
        loop {
            self.record.record(event(None, "intended")).await.map_err(Trouble::Unrecorded)?;
            let written = timeout(plan.patience.vault, self.vault.write(&plan.secret, value)).await;
            let written = written.unwrap_or_else(|_| Err(silence(plan.patience.vault)));
            let outcome = match &written {
                Ok(version) => event(version.clone(), "written"),
                Err(error) => event(None, word(error)),
            };
            let recorded = self.record.record(outcome).await;
            match written {
                // The vault has it, whether that is on record or not; a rotation that ends here goes on from there.
                Ok(_) => return recorded.map_err(Trouble::Unrecorded),
                Err(error @ VaultError::Unavailable(_)) if tries < plan.patience.tries => {
                    tracing::warn!(credential = %plan.credential, %error, "the new token is not in the vault yet");
                    sleep(plan.patience.pause * tries).await;
                    tries += 1;
                }
                Err(error) => return Err(self.vault_trouble(&error)),
            }
        }
    }

    /// The vault's value, if it is this token's.
    pub(super) async fn holds(&self, state: &State, made: &Made) -> Result<Option<SecretString>, Trouble> {
        match self.read().await {
            Ok(value) => {
                let there = mark(&made.rotation, &value).ok();
                Ok((there.is_some() && there == made.mark).then_some(value))
            }
            // There was none before, and there is none now.
            Err(VaultError::Denied(_) | VaultError::Unusable(_)) if state.current.is_none() => Ok(None),
            Err(error) => Err(self.vault_trouble(&error)),
        }
    }

    /// Reads the vault, past the cache.
    pub(super) async fn read(&self) -> Result<SecretString, VaultError> {
        let deadline = self.plan.patience.vault;
        self.fetch(&*self.vault, &self.plan.vault, &self.plan.secret, deadline).await
    }

    /// The user's Entra token.
    pub(super) async fn entra(&self) -> Result<Token, Trouble> {
        let (vault, secret) = &self.plan.entra;
        let fetched = self.fetch(&*self.entra, vault, secret, self.plan.patience.entra).await;
        let said = |error| Trouble::Vault(format!("vault {vault}, for the Entra token: {error}"));
        let value = fetched.map_err(said)?;
        self.azure.entra(value)
    }

    async fn fetch(
        &self,
        source: &dyn SecretSource,
        vault: &Arc<str>,
        secret: &str,
        deadline: Duration,
    ) -> Result<SecretString, VaultError> {
        let got = timeout(deadline, source.fetch(secret)).await.unwrap_or_else(|_| Err(silence(deadline)));
        let (version, outcome) = match &got {
            Ok(fetched) => (fetched.version.clone(), "read"),
            Err(error) => (None, word(error)),
        };
        let (vault, credential) = (Arc::clone(vault), Arc::clone(&self.plan.credential));
        let event = Event::VaultRead { vault, credential, version, purpose: "rotate", outcome };
        let unrecorded = |why| VaultError::Unavailable(format!("its read is not on record: {why}").into());
        self.record.record(event).await.map_err(unrecorded)?;
        got.map(|Fetched { value, .. }| value)
    }

    pub(super) fn vault_trouble(&self, error: &VaultError) -> Trouble {
        Trouble::Vault(format!("vault {}: {error}", self.plan.vault))
    }
}

fn silence(deadline: Duration) -> VaultError {
    VaultError::Unavailable(format!("nothing within {deadline:?}").into())
}

/// What the audit calls an error.
fn word(error: &VaultError) -> &'static str {
    match error {
        VaultError::Unavailable(_) => "unavailable",
        VaultError::Denied(_) => "denied",
        VaultError::Unusable(_) => "unusable",
    }
}
