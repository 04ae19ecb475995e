//! Secrets: where they live, how long they are kept, and the one way they reach a request.
//!
//! What comes in: [`Recorded`](crate::audit::Recorded). What goes out: [`Armed`]. A secret is never printed, never
//! compared in the open, and never leaves but through [`Armed::authorize`].
//!
//! # Adding a secret source
//! One file in `vault/` that implements [`SecretSource`]; a variant of [`config::VaultSource`] with a file in
//! `config/vaults/`; an arm in [`source`]; one line in the contract test. What speaks HTTP gets its client from
//! `network.rs`.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
};

use crate::config::{self, Config, Credential, CredentialSource};

mod arm;
pub mod aws_secrets_manager;
#[cfg(test)]
mod azure;
mod azure_key_vault;
pub(crate) mod backoff;
mod breaker;
mod cache;
mod choice;
pub mod command;
#[cfg(test)]
mod contract;
mod entra;
pub mod environment;
pub mod file;
pub mod hashicorp;
pub mod health;
mod identity;
mod locked;
pub(crate) mod network;
mod private;
mod probe;
pub mod sealed;
mod slot;
mod source;
mod stamp;
mod standing;
pub mod token;
pub(crate) mod trial;

pub use arm::{Armed, arm, consult};
pub use cache::{Refreshed, Unrefreshed};
pub use choice::Chosen;
pub use health::{Health, State};
pub(crate) use private::without_line_end;
pub use source::{Facts, Fetch, Fetched, SecretSource, VaultError, Write, source};
pub use stamp::{Stamp, Stamping};
pub use token::{FingerprintKey, Scheme, Token};

pub(crate) use standing::Standing;

use cache::{Cache, Place};
use source::{Got, fetch_previous, fetch_token, tokens};

/// What was opened for one configuration.
#[derive(Default)]
struct Opened {
    vaults: BTreeMap<Arc<str>, (config::Vault, Arc<dyn SecretSource>)>,
    /// By the credential's name.
    tokens: BTreeMap<Arc<str>, (config::Entra, Arc<dyn SecretSource>)>,
}

/// The vaults, and the cache before them: `Clone + Send + Sync`.
#[derive(Clone)]
pub struct Vaults {
    cache: Arc<Cache>,
    standing: Arc<Standing>,
    /// For the next configuration alone; no request comes here.
    opened: Arc<Mutex<Opened>>,
}

impl fmt::Debug for Vaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vaults").field("health", &self.health()).finish()
    }
}

impl Vaults {
    /// Opens every vault of a configuration, and begins to read every credential. Loads run as tasks of
    /// `control`, the control thread's runtime.
    ///
    /// # Errors
    /// A vault that can't even be set up (key file unreadable, …), as a sentence with its name.
    pub fn open(
        config: &Config,
        audit: crate::audit::Audit,
        control: tokio::runtime::Handle,
    ) -> Result<Self, String> {
        let cache = Cache::new(control, Box::new(audit), FingerprintKey::random()?);
        let vaults = Self { cache, standing: Arc::default(), opened: Arc::default() };
        vaults.reconfigure(config)?;
        Ok(vaults)
    }

    /// Takes over another configuration; values of credentials that did not change are kept. Nothing changes
    /// where it fails. Call it right before the snapshot with the same configuration is put in force: a request
    /// that was decided on before, by a credential that changed, is refused with `vault-unavailable`.
    ///
    /// # Errors
    /// As [`Vaults::open`].
    pub fn reconfigure(&self, config: &Config) -> Result<(), String> {
        self.place(&config.vaults, &config.credentials, &config.outbound)
    }

    fn place(
        &self,
        vaults: &BTreeMap<Arc<str>, config::Vault>,
        credentials: &BTreeMap<Arc<str>, Arc<Credential>>,
        outbound: &config::Outbound,
    ) -> Result<(), String> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let mut new = Opened::default();
        for (name, vault) in vaults {
            let source = match opened.vaults.get(name).filter(|(before, _)| before == vault) {
                Some((_, source)) => Arc::clone(source),
                None => source(vault, outbound).map_err(|why| format!("vault {name}: {why}"))?,
            };
            if opened.vaults.get(name).is_none_or(|(before, _)| before != vault) {
                tracing::info!(vault = %name, "vault {name}: {}", vault.lifetime);
            }
            new.vaults.insert(Arc::clone(name), (vault.clone(), source));
        }
        let mut places = Vec::with_capacity(credentials.len());
        for credential in credentials.values() {
            let name = &credential.name;
            let (source, lifetime) = match &credential.source {
                CredentialSource::Vault { vault, .. } => {
                    let (vault, source) = new
                        .vaults
                        .get(vault)
                        .ok_or_else(|| format!("credential {name}: there is no vault {vault}"))?;
                    (Arc::clone(source), vault.lifetime)
                }
                CredentialSource::Entra(entra) => {
                    let source = match opened.tokens.get(name).filter(|(before, _)| before == entra) {
                        Some((_, source)) => Arc::clone(source),
                        None => tokens(entra, outbound).map_err(|why| format!("credential {name}: {why}"))?,
                    };
                    new.tokens.insert(Arc::clone(name), (entra.clone(), Arc::clone(&source)));
                    (source, entra.lifetime())
                }
            };
            places.push(Place { credential: Arc::clone(credential), source, lifetime });
        }
        self.cache.place(places);
        *opened = new;
        Ok(())
    }

    /// What reads and writes a vault of the configuration, past the cache.
    pub(crate) fn source(&self, vault: &str) -> Option<Arc<dyn SecretSource>> {
        let opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        opened.vaults.get(vault).map(|(_, source)| Arc::clone(source))
    }

    /// What fingerprints of this process are keyed with.
    pub(crate) fn fingerprint_key(&self) -> FingerprintKey {
        self.cache.fingerprint_key()
    }

    /// Azure DevOps refused `used`: read the vault again, once. `true` if there is another value now, so that a
    /// retry makes sense: what the vault gives now, or the one before within its grace; `false` marks the credential rejected until the vault gives another value
    /// (looked for with back-off) or a quarter of an hour is over, and `arm` refuses with `credential-rejected` meanwhile.
    pub async fn rejected(&self, credential: &Credential, used: &Arc<Token>, reason: &str) -> bool {
        self.cache.rejected(credential, used, reason).await
    }

    /// Runs `probe` unless one ran for this credential and value within the last minute; callers meanwhile share its
    /// answer (single-flight). `true`: the credential is good, or nothing is proved against it.
    pub async fn probe_once<F: Future<Output = bool>>(
        &self,
        credential: &Credential,
        used: &Arc<Token>,
        probe: F,
    ) -> bool {
        self.cache.probe_once(credential, used, probe).await
    }

    /// The health of every credential, in the order of their names.
    #[must_use]
    pub fn health(&self) -> Vec<Health> {
        let mut health = self.cache.health();
        let disabled = self.standing.all();
        for one in &mut health {
            if let Some(disabled) = disabled.get(&one.credential) {
                one.state = State::Disabled;
                one.since = disabled.since;
            }
        }
        health
    }

    /// What operators have disabled.
    pub(crate) fn standing(&self) -> &Arc<Standing> {
        &self.standing
    }

    /// Reads one credential's vault now, whatever failed a moment ago, and waits for the end of that: for twice the
    /// vault's deadline at most, and once more where a read is under way. Many who ask share one read, which has a
    /// record. A value that Azure DevOps refused is taken for good again, for its owner may have extended it.
    ///
    /// # Errors
    /// See [`Unrefreshed`]. What was there before is kept as after any other read.
    pub async fn refresh(&self, credential: &str) -> Result<Refreshed, Unrefreshed> {
        self.cache.refresh(credential).await
    }
}

#[cfg(test)]
mod tests {
    use std::{path::Path, pin::Pin};

    use config::{Lifetime, Outbound, SealedKey, Vault, VaultSource};

    use super::*;
    use crate::vault::{arm::may_go_to, cache::Record};

    struct NoRecord;

    impl Record for NoRecord {
        fn record(
            &self,
            _: crate::audit::Event,
        ) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + '_>> {
            Box::pin(async { Ok(()) })
        }
    }

    fn credential(name: &str, secret: &Path) -> Arc<Credential> {
        Arc::new(Credential {
            name: name.into(),
            source: CredentialSource::Vault {
                vault: "local".into(),
                secret: secret.to_str().unwrap().into(),
            },
            organizations: vec!["contoso".into(), "fabrikam".into()],
            owner: None,
            expires: None,
            previous_grace: std::time::Duration::ZERO,
            rotate: None,
        })
    }

    #[test]
    fn a_credential_goes_to_its_own_organizations_alone() {
        let credential = credential("web", Path::new("x"));
        for (organization, may) in [
            ("contoso", true),
            ("Contoso", true),
            ("fabrikam", true),
            ("contoso2", false),
            ("contos", false),
            ("", false),
        ] {
            assert_eq!(may_go_to(&credential, organization), may, "{organization}");
        }
    }

    #[tokio::test]
    async fn a_configuration_that_cannot_be_opened_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let secret = folder.path().join("pat");
        std::fs::write(&secret, "token-one\n").unwrap();
        rustix::fs::chmod(&secret, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
        let key = FingerprintKey::new(&[1; 32]);
        let cache = Cache::new(tokio::runtime::Handle::current(), Box::new(NoRecord), key);
        let vaults = Vaults { cache, standing: Arc::default(), opened: Arc::default() };
        let outbound = Outbound::default();

        let lifetime = Lifetime::default();
        let web = credential("web", &secret);
        let credentials = BTreeMap::from([(Arc::clone(&web.name), Arc::clone(&web))]);
        let files = BTreeMap::from([(
            "local".into(),
            Vault {
                source: VaultSource::File(config::FileVault { readable_by: config::ReadableBy::Owner }),
                lifetime,
            },
        )]);
        vaults.place(&files, &credentials, &outbound).unwrap();
        let held = vaults.cache.take(&web).await.unwrap();
        assert!(held.token.occurs_in(b"token-one"));

        let key = SealedKey::File(folder.path().join("none.key"));
        let path = folder.path().join("vault.age");
        let broken = BTreeMap::from([(
            "local".into(),
            Vault { source: VaultSource::Sealed(config::Sealed { path, key }), lifetime },
        )]);
        let why = vaults.place(&broken, &credentials, &outbound).unwrap_err();
        assert!(why.starts_with("vault local: ") && why.contains("none.key"), "{why}");
        assert!(
            vaults.place(&BTreeMap::new(), &credentials, &outbound).unwrap_err().contains("no vault local")
        );

        std::fs::remove_file(&secret).unwrap();
        vaults.place(&files, &credentials, &outbound).unwrap();
        assert!(vaults.cache.take(&web).await.is_ok(), "what did not change is not read again");
        assert_eq!(vaults.health()[0].state, State::Valid);
    }
}
