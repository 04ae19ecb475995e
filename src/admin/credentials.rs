//! What operators may do with credentials: look, read again, disable, enable.
//!
//! A change is on record, with who and why, before it takes effect; where it can't be recorded there is none.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::{sync::Mutex, time::timeout};

use crate::{
    app::Snapshot,
    audit::{Audit, Event},
    clock,
    config::{CredentialSource, users},
    metrics::Metrics,
    state::{Disabled, Document, State, Unkept},
    vault::Vaults,
};

/// The longest reason, in characters.
const REASON: usize = 500;
/// For the reads that an operator asked for. They go on where they take longer.
const READS: Duration = Duration::from_mins(1);

/// Who asks: a user of this machine, as the kernel says, or a signal.
#[derive(Clone, Debug)]
pub(crate) struct Operator {
    name: Arc<str>,
    uid: Option<u32>,
}

impl Operator {
    /// The user with this uid.
    pub(crate) fn of(uid: u32) -> Self {
        let name = users::name(uid).unwrap_or_else(|| uid.to_string().into());
        Self { name, uid: Some(uid) }
    }

    /// Whoever may send patgate a signal.
    pub(crate) fn signal(name: &str) -> Self {
        Self { name: name.into(), uid: None }
    }
}

/// Why an operation was not done, as a sentence for the operator.
#[derive(Debug)]
pub(crate) enum Declined {
    /// There is no such credential.
    Unknown(String),
    /// What was given is wrong.
    Wrong(String),
    /// It does not fit what is.
    Conflict(String),
    /// patgate can't at present.
    Unavailable(String),
}

impl Declined {
    /// The status of the answer.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Unknown(_) => StatusCode::NOT_FOUND,
            Self::Wrong(_) => StatusCode::BAD_REQUEST,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl fmt::Display for Declined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(why) | Self::Wrong(why) | Self::Conflict(why) | Self::Unavailable(why) => {
                f.write_str(why)
            }
        }
    }
}

/// The credentials of a running patgate, for operators.
pub(crate) struct Credentials {
    snapshot: Arc<ArcSwap<Snapshot>>,
    vaults: Vaults,
    state: State,
    audit: Audit,
    metrics: Arc<Metrics>,
    /// Disabled here, and not on the disk, or not yet: in force whatever a document says.
    unkept: std::sync::Mutex<BTreeMap<Arc<str>, Disabled>>,
    /// One change of the document at a time; nothing that has to be in force at once waits for it. What following the
    /// state met last, where it can't be read.
    changes: Mutex<Option<String>>,
}

impl Credentials {
    /// With what operators changed before in force.
    pub(crate) fn new(
        snapshot: Arc<ArcSwap<Snapshot>>,
        vaults: Vaults,
        state: State,
        audit: Audit,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let credentials = Self {
            snapshot,
            vaults,
            state,
            audit,
            metrics,
            unkept: std::sync::Mutex::default(),
            changes: Mutex::default(),
        };
        credentials.take_effect(&credentials.state.document());
        Arc::new(credentials)
    }

    fn take_effect(&self, document: &Document) {
        let mut disabled = document.disabled.clone();
        disabled.extend(self.unkept().clone());
        self.vaults.standing().set(&disabled);
        self.metrics.state(document.version);
    }

    fn unkept(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Disabled>> {
        self.unkept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of them, also such as are disabled and no more in the configuration.
    pub(crate) fn list(&self) -> Value {
        let snapshot = self.snapshot.load();
        let (document, disabled) = (self.state.document(), self.vaults.standing().all());
        let health = self.vaults.health();
        let known = snapshot.config.credentials.values().map(|credential| {
            let health = health.iter().find(|health| health.credential == credential.name);
            let moment = |moment: Option<Timestamp>| moment.map(|moment| format!("{moment:.0}"));
            json!({
                "credential": credential.name,
                "configured": true,
                "state": health.map(|health| health.state.as_str()),
                "since": moment(health.map(|health| health.since)),
                "kind": match credential.source {
                    CredentialSource::Vault { .. } => "pat",
                    CredentialSource::Entra(_) => "entra",
                },
                "vault": credential.source.giver(),
                "organizations": credential.organizations,
                "owner": credential.owner,
                "version": health.and_then(|health| health.version.clone()),
                "read": moment(health.and_then(|health| health.read)),
                "expires": moment(health.and_then(|health| health.expires).or(credential.expires)),
                "previous-until": moment(health.and_then(|health| health.previous_until)),
                "detail": health.and_then(|health| health.detail.clone()),
                "disabled": disabled.get(&credential.name).map(told),
            })
        });
        let absent = disabled.iter().filter(|(name, _)| !snapshot.config.credentials.contains_key(*name));
        let absent = absent.map(|(name, disabled)| {
            json!({ "credential": name, "configured": false, "state": "disabled", "disabled": told(disabled) })
        });
        json!({
            "state-version": document.version,
            "kept": self.state.is_kept(),
            "credentials": known.chain(absent).collect::<Vec<_>>(),
        })
    }

    /// Reads one credential from its vault.
    ///
    /// # Errors
    /// There is none of that name; the audit can't be written.
    pub(crate) async fn refresh(&self, operator: &Operator, name: &str) -> Result<Value, Declined> {
        let snapshot = self.snapshot.load_full();
        let Some(credential) = snapshot.config.credentials.get(name) else { return Err(self.unknown(name)) };
        let asked =
            Asked { operation: "refresh", credential: Some(&credential.name), reason: None, cut: false };
        self.record(operator, &asked, "asked", None).await?;
        tracing::info!(credential = name, operator = &*operator.name, "reading the vault");
        Ok(self.read(&credential.name).await)
    }

    /// Reads all credentials from their vaults.
    ///
    /// # Errors
    /// The audit can't be written.
    pub(crate) async fn refresh_all(&self, operator: &Operator) -> Result<Value, Declined> {
        let asked = Asked { operation: "refresh", credential: None, reason: None, cut: false };
        self.record(operator, &asked, "asked", None).await?;
        tracing::info!(operator = &*operator.name, "reading all vaults");
        let snapshot = self.snapshot.load_full();
        let reads = snapshot.config.credentials.keys().map(|name| self.read(name));
        Ok(json!({ "credentials": join_all(reads).await }))
    }

    async fn read(&self, name: &Arc<str>) -> Value {
        let read = match timeout(READS, self.vaults.refresh(name)).await {
            Ok(read) => read.map_err(|why| why.to_string()),
            Err(_) => Err("the vault is still being read".into()),
        };
        let (version, changed) = read.as_ref().ok().map(|read| (&read.version, read.changed)).unzip();
        json!({
            "credential": name,
            "read": read.is_ok(),
            "version": version,
            "changed": changed,
            "state": self.state_of(name),
            "error": read.as_ref().err(),
        })
    }

    fn state_of(&self, name: &Arc<str>) -> Option<&'static str> {
        let health = self.vaults.health();
        health.iter().find(|health| health.credential == *name).map(|health| health.state.as_str())
    }

    /// Takes a credential out of use, for the next request of every worker; with `cut` what is under way ends too. One
    /// that is disabled already stays so since then, for the new reason.
    ///
    /// # Errors
    /// There is none of that name; the reason is none; the audit can't be written. Where the state can't be, it is disabled
    /// all the same, which the error says.
    pub(crate) async fn disable(
        &self,
        operator: &Operator,
        name: &str,
        reason: &str,
        cut: bool,
    ) -> Result<Value, Declined> {
        let reason = sound(reason)?;
        let before = self.vaults.standing().disabled(name);
        let configured =
            self.snapshot.load().config.credentials.get_key_value(name).map(|(name, _)| Arc::clone(name));
        let Some(name) = configured.or_else(|| before.as_ref().map(|_| name.into())) else {
            return Err(self.unknown(name));
        };
        let asked = Asked { operation: "disable", credential: Some(&name), reason: Some(&reason), cut };
        self.record(operator, &asked, "asked", None).await?;
        let since = before.as_ref().map_or_else(moment, |before| before.since);
        let disabled = Disabled { since, by: Arc::clone(&operator.name), reason: Arc::clone(&reason), cut };
        let said = told(&disabled);
        // In force before it is written: a disk that is slow must not keep a credential in use.
        self.unkept().insert(Arc::clone(&name), disabled.clone());
        self.take_effect(&self.state.document());
        tracing::warn!(credential = &*name, operator = &*operator.name, reason = &*reason, cut, "disabled");
        let _turn = self.changes.lock().await;
        let key = Arc::clone(&name);
        let insert = move |document: &mut Document| drop(document.disabled.insert(key, disabled));
        match self.change(insert).await {
            Ok(()) => {
                self.unkept().remove(&name);
                Ok(json!({
                    "credential": name, "state": "disabled", "kept": self.state.is_kept(), "disabled": said,
                }))
            }
            Err(why) => {
                self.record_failure(operator, &asked, "unkept", &why).await;
                Err(Declined::Unavailable(format!(
                    "{name} is disabled, but only until this process ends, for it could not be kept: {why}"
                )))
            }
        }
    }

    /// Lets a credential be used again.
    ///
    /// # Errors
    /// It is not disabled; the reason is none; the audit or the state can't be written: it stays disabled.
    pub(crate) async fn enable(
        &self,
        operator: &Operator,
        name: &str,
        reason: &str,
    ) -> Result<Value, Declined> {
        let reason = sound(reason)?;
        let _turn = self.changes.lock().await;
        let disabled = self.vaults.standing().all().get_key_value(name).map(|(name, _)| Arc::clone(name));
        let Some(name) = disabled else {
            let configured = self.snapshot.load().config.credentials.contains_key(name);
            let conflict = || Declined::Conflict(format!("{name} is not disabled"));
            return Err(if configured { conflict() } else { self.unknown(name) });
        };
        let asked = Asked { operation: "enable", credential: Some(&name), reason: Some(&reason), cut: false };
        self.record(operator, &asked, "asked", None).await?;
        let key = Arc::clone(&name);
        if let Err(why) = self.change(move |document| drop(document.disabled.remove(&key))).await {
            self.record_failure(operator, &asked, "failed", &why).await;
            return Err(Declined::Unavailable(format!("{name} stays disabled: {why}")));
        }
        self.unkept().remove(&name);
        self.take_effect(&self.state.document());
        tracing::warn!(credential = &*name, operator = &*operator.name, reason = &*reason, "enabled");
        Ok(json!({ "credential": name, "state": self.state_of(&name), "kept": self.state.is_kept() }))
    }

    /// Looks, where a newer process owns the state, at what that one wrote. To be called every now and then.
    pub(crate) async fn follow(&self) {
        let mut met = self.changes.lock().await;
        let state = self.state.clone();
        let followed = tokio::task::spawn_blocking(move || state.follow()).await;
        let error = match followed {
            Ok(Ok(Some(document))) => {
                tracing::info!(
                    version = document.version,
                    "the state, as the new process wrote it, is in force"
                );
                self.take_effect(&document);
                None
            }
            Ok(Ok(None)) | Err(_) => None,
            Ok(Err(error)) => Some(error),
        };
        // Once, and not every second.
        if let Some(error) = error.as_ref().filter(|error| met.as_ref() != Some(*error)) {
            tracing::warn!(error, "the state that a new process owns can't be read; the old one stays");
        }
        *met = error;
    }

    /// Makes a change durable, and puts it in force.
    async fn change(&self, change: impl FnOnce(&mut Document) + Send + 'static) -> Result<(), String> {
        let state = self.state.clone();
        let changed = tokio::task::spawn_blocking(move || state.change(change)).await;
        let document =
            changed.map_err(|_| "the change broke off".to_owned())?.map_err(|why: Unkept| why.to_string())?;
        self.take_effect(&document);
        Ok(())
    }

    fn unknown(&self, name: &str) -> Declined {
        let snapshot = self.snapshot.load();
        let all: Vec<_> = snapshot.config.credentials.keys().map(|name| &**name).collect();
        Declined::Unknown(format!("there is no credential {name}; there are {}", all.join(", ")))
    }

    /// What was asked is on record already; this is what came of it.
    async fn record_failure(&self, operator: &Operator, asked: &Asked<'_>, outcome: &'static str, why: &str) {
        if let Err(unrecorded) = self.record(operator, asked, outcome, Some(why)).await {
            tracing::error!(why, %unrecorded, "a change that failed is not on record as failed");
        }
    }

    async fn record(
        &self,
        operator: &Operator,
        asked: &Asked<'_>,
        outcome: &'static str,
        detail: Option<&str>,
    ) -> Result<(), Declined> {
        let event = Event::Operation {
            operator: Arc::clone(&operator.name),
            uid: operator.uid,
            operation: asked.operation,
            credential: asked.credential.map(Arc::clone),
            reason: asked.reason.map(Arc::clone),
            cut: asked.cut,
            outcome,
            detail: detail.map(Into::into),
        };
        let recorded = self.audit.event(event).await;
        recorded.map_err(|why| {
            Declined::Unavailable(format!("nothing was changed, for it can't be on record: {why}"))
        })
    }
}

/// An operation as it is recorded.
struct Asked<'a> {
    operation: &'static str,
    credential: Option<&'a Arc<str>>,
    reason: Option<&'a Arc<str>>,
    cut: bool,
}

fn told(disabled: &Disabled) -> Value {
    let Disabled { since, by, reason, cut } = disabled;
    json!({ "since": since.to_string(), "by": by, "reason": reason, "cut": cut })
}

/// Now, to a second.
fn moment() -> Timestamp {
    let now = clock::timestamp();
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

/// A reason that says something, on one line.
fn sound(reason: &str) -> Result<Arc<str>, Declined> {
    let reason = reason.trim();
    let wrong = |why: String| Err(Declined::Wrong(why));
    if reason.is_empty() {
        return wrong("the reason is empty; it stands in the audit, so say why".into());
    }
    if reason.chars().count() > REASON {
        return wrong(format!("the reason has more than {REASON} characters; shorten it"));
    }
    if reason.chars().any(char::is_control) {
        return wrong("the reason holds control characters; write it on one line".into());
    }
    Ok(reason.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_says_something_on_one_line() {
        let long = "x".repeat(REASON + 1);
        for (reason, good) in [
            ("it leaked", true),
            (" it leaked ", true),
            ("", false),
            ("  ", false),
            ("a\nb", false),
            (&long, false),
        ] {
            assert_eq!(sound(reason).is_ok(), good, "{reason:?}");
        }
        assert_eq!(&*sound(" ü ").unwrap(), "ü");
    }
}
