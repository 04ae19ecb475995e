//! Secrets: where they live, how long they are kept, and the one way they reach a request.
//!
//! What comes in: [`Recorded`]. What goes out: [`Armed`]. A secret is never printed, never
//! compared in the open, and never leaves but through [`Armed::authorize`].
//!
//! # Adding a secret source
//! One file in `vault/` that implements [`SecretSource`]; a variant of [`crate::config::Vault`];
//! an arm in [`open`]; one line in the contract test.

pub mod pat;
pub mod sealed;

use std::{future::Future, pin::Pin, rc::Rc, sync::Arc, time::Duration};

use http::HeaderMap;
use secrecy::SecretString;

use crate::{
    audit::{Recorded, Spent},
    client::Known,
    config::{Config, Credential},
    limits::Share,
    refusal::Refused,
};

/// What a vault gave.
pub struct Fetched {
    /// The secret.
    pub value: SecretString,
    /// What the vault calls this version of it, if it has versions; else a keyed fingerprint.
    pub version: Option<Arc<str>>,
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

/// Where secrets live. Called on the control thread alone.
pub trait SecretSource: Send + Sync {
    /// Reads one secret by the name that `[credential.x] secret` gives.
    fn fetch<'a>(&'a self, secret: &'a str) -> Fetch<'a>;
}

/// A token, ready to be sent. No `Display`, no `Serialize`, zeroised on drop.
pub struct Pat {/* … */}

/// The vaults, and the cache before them: `Clone + Send + Sync`.
#[derive(Clone)]
pub struct Vaults {/* … */}

impl Vaults {
    /// Opens every vault of a configuration. Loads run as tasks of `control`, the control thread's runtime.
    ///
    /// # Errors
    /// A vault that can't even be set up (key file unreadable, …), as a sentence with its name.
    pub fn open(
        config: &Config,
        audit: crate::audit::Audit,
        control: tokio::runtime::Handle,
    ) -> Result<Self, String> {
        todo!()
    }
    /// Takes over another configuration; values of credentials that did not change are kept.
    ///
    /// # Errors
    /// As [`Vaults::open`].
    pub fn reconfigure(&self, config: &Config) -> Result<(), String> {
        todo!()
    }
    /// Azure DevOps refused `used`: read the vault again, once. `true` if there is another value now, so that a
    /// retry makes sense; `false` marks the credential rejected until the vault gives another value
    /// (looked for with back-off), and `arm` refuses with `credential-rejected` meanwhile.
    pub async fn rejected(&self, credential: &Credential, used: &Arc<Pat>, reason: &str) -> bool {
        todo!()
    }
    /// Runs `probe` unless one ran for this credential and value within the last minute; callers meanwhile share its
    /// answer (single-flight). `true`: the credential is good.
    pub async fn probe_once<F: Future<Output = bool>>(
        &self,
        credential: &Credential,
        used: &Arc<Pat>,
        probe: F,
    ) -> bool {
        todo!()
    }
    /// The health of every credential: name, `valid` | `stale` | `rejected` | `unreachable` | `unused`.
    #[must_use]
    pub fn health(&self) -> Vec<(Arc<str>, &'static str)> {
        todo!()
    }
}

/// A request with its secret, on its way out.
pub struct Armed {
    recorded: Recorded,
    pat: Arc<Pat>,
}

impl Armed {
    /// Strips any `Authorization` and sets ours. Marked sensitive.
    pub(crate) fn authorize(&self, headers: &mut HeaderMap) {
        todo!()
    }
    /// Whether these bytes hold the token, raw or as sent (for answers that echo it).
    pub(crate) fn occurs_in(&self, bytes: &[u8]) -> bool {
        todo!()
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
    /// [`Vaults::rejected`] and [`Vaults::refetch`].
    pub(crate) fn disarm(self) -> (Spent, Arc<Pat>) {
        (self.recorded.spend(), self.pat)
    }
}

/// Takes the secret from the cache, or waits for the vault (single-flight, on the control thread).
///
/// # Errors
/// `vault-unavailable`, `credential-missing`, `credential-rejected`, `credential-elsewhere`
pub async fn arm(vaults: Rc<Vaults>, recorded: Recorded) -> Result<Armed, Box<Refused>> {
    todo!()
}
