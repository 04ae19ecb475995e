//! Secrets: where they live, how long they are kept, and the one way they reach a request.
//!
//! What comes in: [`Recorded`]. What goes out: [`Armed`]. A secret is never printed, never
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
    pin::Pin,
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
};

use http::HeaderMap;
use secrecy::SecretString;

use crate::{
    audit::{Recorded, Spent},
    config::{self, Config, Credential, CredentialSource, Lifetime},
    refusal::{Refusal, Refused},
};

mod backoff;
mod breaker;
mod cache;
mod choice;
#[cfg(test)]
mod contract;
pub mod environment;
pub mod file;
pub mod health;
mod locked;
pub(crate) mod network;
mod private;
mod probe;
pub mod sealed;
mod slot;
pub mod token;
pub(crate) mod trial;

pub use cache::{Refreshed, Unrefreshed};
pub use choice::Chosen;
pub use health::{Health, State};
pub(crate) use private::without_line_end;
pub use token::{FingerprintKey, Scheme, Token};

use cache::{Cache, Place, Withheld};

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
}

/// Opens one vault.
///
/// # Errors
/// What can't even be set up (a key that can't be read), as a sentence.
pub fn source(vault: &config::Vault, _outbound: &config::Outbound) -> Result<Arc<dyn SecretSource>, String> {
    use config::VaultSource;
    Ok(match &vault.source {
        VaultSource::Sealed(config::Sealed { path, key }) => {
            Arc::new(sealed::Sealed::open(path, key).map_err(|error| error.to_string())?)
        }
        VaultSource::Environment => Arc::new(environment::Environment::new()),
        VaultSource::File => Arc::new(file::File::new()),
        VaultSource::Command(_)
        | VaultSource::Hashicorp(_)
        | VaultSource::AwsSecretsManager(_)
        | VaultSource::AzureKeyVault(_) => return Err("this type of vault is not built".into()),
    })
}

/// Opens what gives one credential its tokens where that is no vault.
fn tokens(_: &config::Entra, _outbound: &config::Outbound) -> Result<Arc<dyn SecretSource>, String> {
    Err("credentials of Entra are not built".into())
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
async fn fetch_previous(
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
        let vaults = Self { cache, opened: Arc::default() };
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
                    (source, Lifetime::default())
                }
            };
            places.push(Place { credential: Arc::clone(credential), source, lifetime });
        }
        self.cache.place(places);
        *opened = new;
        Ok(())
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
        self.cache.health()
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

    /// As [`Vaults::refresh`], of every credential at the same time, in the order of their names.
    pub async fn refresh_all(&self) -> Vec<(Arc<str>, Result<Refreshed, Unrefreshed>)> {
        let all = self.health().into_iter().map(|Health { credential, .. }| async {
            let refreshed = self.refresh(&credential).await;
            (credential, refreshed)
        });
        futures_util::future::join_all(all).await
    }

    /// Whether a request that takes this credential now has a prospect of a token: there is one, or nothing speaks
    /// against there being one. Made for each request: no lock is taken, no clock is read.
    #[must_use]
    pub fn usable(&self, credential: &Credential) -> bool {
        self.cache.is_usable(credential)
    }
}

/// A request with its secret, on its way out.
#[derive(Debug)]
pub struct Armed {
    recorded: Recorded,
    token: Arc<Token>,
}

impl Armed {
    /// Strips any `Authorization` and sets ours. Marked sensitive.
    pub(crate) fn authorize(&self, headers: &mut HeaderMap) {
        self.token.authorize(headers);
    }
    /// Whether these bytes hold the token, raw or as sent (for answers that echo it).
    pub(crate) fn occurs_in(&self, bytes: &[u8]) -> bool {
        self.token.occurs_in(bytes)
    }
    /// The token, for whoever must know when it is no more.
    pub(crate) fn token(&self) -> &Arc<Token> {
        &self.token
    }
    /// The request.
    pub(crate) fn recorded(&self) -> &Recorded {
        &self.recorded
    }
    /// See [`Self::recorded`].
    pub(crate) fn recorded_mut(&mut self) -> &mut Recorded {
        &mut self.recorded
    }
    /// Puts the secret away after an attempt. The returned handle names the value that was used, for
    /// [`Vaults::rejected`] and [`Vaults::probe_once`].
    pub(crate) fn disarm(self) -> (Spent, Arc<Token>) {
        (self.recorded.spend(), self.token)
    }
}

/// Takes the secret from the cache, or waits for the vault (single-flight, on the control thread).
///
/// # Errors
/// `vault-unavailable`, `credential-missing`, `credential-rejected`, `credential-elsewhere`
pub async fn arm(vaults: Rc<Vaults>, mut recorded: Recorded) -> Result<Armed, Box<Refused>> {
    let credential = Arc::clone(recorded.credential());
    // Policy has asked this already; a secret that goes astray can't be called back.
    if !may_go_to(&credential, recorded.known().vetted.outgoing.target.organization()) {
        return Err(refuse(recorded, Refusal::CredentialElsewhere, None));
    }
    match vaults.cache.take(&credential).await {
        Ok(held) => {
            let facts = recorded.known_mut().vetted.passage.entry.facts_mut();
            facts.credential_version = Some(Arc::clone(&held.version));
            facts.fingerprint = Some(Arc::clone(held.token.fingerprint()));
            Ok(Armed { recorded, token: Arc::clone(&held.token) })
        }
        Err(withheld) => {
            let (why, detail) = match withheld {
                Withheld::Unavailable(detail) => (Refusal::VaultUnavailable, detail),
                Withheld::Missing(detail) => (Refusal::CredentialMissing, detail),
                Withheld::Rejected(detail) => (Refusal::CredentialRejected, detail),
            };
            Err(refuse(recorded, why, Some(&detail)))
        }
    }
}

fn may_go_to(credential: &Credential, organization: &str) -> bool {
    credential.organizations.iter().any(|own| own.eq_ignore_ascii_case(organization))
}

#[expect(clippy::unnecessary_box_returns, reason = "a refusal is boxed from its making on")]
fn refuse(recorded: Recorded, why: Refusal, detail: Option<&str>) -> Box<Refused> {
    let (known, _, _) = recorded.spend().into_parts();
    let mut vetted = *known.vetted;
    let mut entry = vetted.passage.entry;
    if let Some(detail) = detail {
        entry.facts_mut().detail = Some(detail.into());
    }
    Refused::new(why, vetted.wire, vetted.outgoing.body.take(), entry)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use config::{Lifetime, Outbound, SealedKey, Vault, VaultSource};

    use super::*;
    use crate::vault::cache::Record;

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
        let vaults = Vaults { cache, opened: Arc::default() };
        let outbound = Outbound::default();

        let lifetime = Lifetime::default();
        let web = credential("web", &secret);
        let credentials = BTreeMap::from([(Arc::clone(&web.name), Arc::clone(&web))]);
        let files = BTreeMap::from([("local".into(), Vault { source: VaultSource::File, lifetime })]);
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
