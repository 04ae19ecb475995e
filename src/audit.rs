//! The record: an intent before a credential is used, an outcome after, a refusal otherwise.
//!
//! What comes in: facts. What goes out: [`Recorded`], once the intent is durable. It must never
//! lose an ending: [`Entry`] writes one when it is dropped, whoever drops it.

use std::{net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use http::Method;

use crate::{
    client::Known,
    config::Credential,
    limits::{Rationed, Share},
    refusal::{Refusal, Refused},
};

/// What is known of a request. Steps fill it in as they learn it.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The other end (canonical). `None` for patgate's own requests.
    pub peer: Option<SocketAddr>,
    /// As received; the gate sets it before it refuses anything, cut to what fits a record.
    pub method: Option<Method>,
    /// The upstream host.
    pub host: Option<&'static str>,
    /// The path as it is (or would be) forwarded, without the query.
    pub path: Option<Box<str>>,
    /// The query, its values already withheld but for the safe list (`gate::target`).
    pub query: Option<Box<str>>,
    /// `GET`, `git:fetch`, …
    pub action: Option<&'static str>,
    /// The client's name.
    pub client: Option<Arc<str>>,
    /// The rule that decided.
    pub rule: Option<Arc<str>>,
    /// The credential's name.
    pub credential: Option<Arc<str>>,
    /// The version that was sent, as the vault calls it.
    pub credential_version: Option<Arc<str>>,
    /// Keyed fingerprint of what was sent.
    pub fingerprint: Option<Arc<str>>,
    /// The first 8 bytes of the configuration's hash, in hex, and its generation.
    pub policy: Option<Arc<str>>,
    /// The status of the answer to the client.
    pub status: Option<u16>,
    /// The status of Azure DevOps' answer where it is not the same.
    pub upstream_status: Option<u16>,
    /// Body bytes from the client.
    pub bytes_in: u64,
    /// Body bytes to the client.
    pub bytes_out: u64,
    /// Azure DevOps' `ActivityId` / `X-VSS-E2EID`.
    pub activity: Option<Box<str>>,
    /// `X-VSS-UserData`: whom Azure DevOps took the credential for.
    pub acted_as: Option<Box<str>>,
    /// Detail for the operator, never for the caller.
    pub detail: Option<Box<str>>,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The answer was sent whole.
    Complete,
    /// The client went away, or stopped taking or giving bytes.
    ClientGone,
    /// Azure DevOps went away, or fell silent, in the middle of its answer.
    UpstreamGone,
    /// A step panicked.
    Panic,
    /// Refused (before or after the intent).
    Refused(Refusal),
}

/// The record of one request, until it is ended. Dropped without an ending, it writes one:
/// `panic` while the thread unwinds, else `client-gone`. Cheap to move (one pointer).
#[derive(Debug)]
pub struct Entry {/* boxed: Facts, id, lane, state (nothing written | intent written at …) */}

impl Entry {
    /// The request's id as clients see it in `X-Patgate-Request-Id`.
    #[must_use]
    pub fn id(&self) -> &str {
        todo!()
    }
    /// What is known so far.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        todo!()
    }
    /// What is known so far, to add to.
    pub fn facts_mut(&mut self) -> &mut Facts {
        todo!()
    }
    /// Writes the one final record: a refusal where no intent was written, else an outcome.
    pub fn end(self, ending: Ending) {
        todo!()
    }
}

/// One worker's way to the writer. Not `Send`: each worker has its own.
#[derive(Debug)]
pub struct Lane {}

impl Lane {
    /// Begins the record of a request.
    pub fn entry(self: &Rc<Self>, peer: Option<SocketAddr>) -> Entry {
        todo!()
    }
    /// A connection that ended before a request could be read (a malformed head, a failed handshake,
    /// a cap). Aggregated under flood like other refusals.
    pub fn connection(&self, peer: SocketAddr, why: Refusal, detail: &str) {
        todo!()
    }
}

/// What is on record besides requests.
#[derive(Clone, Debug)]
pub enum Event {
    /// patgate started: version, configuration's hash.
    Start { version: &'static str, policy: Arc<str>, listeners: Vec<String> },
    /// patgate stops.
    Stop { reason: &'static str },
    /// A new configuration is in force.
    Configured { policy: Arc<str>, generation: u64 },
    /// A new configuration was refused; the old one stays.
    ConfigurationRefused { problems: usize, first: String },
    /// A vault was read for no single request.
    VaultRead {
        vault: Arc<str>,
        credential: Arc<str>,
        version: Option<Arc<str>>,
        purpose: &'static str,
        outcome: &'static str,
    },
    /// Azure DevOps refused a credential.
    CredentialRejected { credential: Arc<str>, version: Option<Arc<str>>, reason: Box<str> },
}

/// The audit as the rest of the process sees it: `Clone + Send + Sync`.
#[derive(Clone, Debug)]
pub struct Audit {}

/// Why the audit could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process writes here.
    #[error("another patgate is writing to {0}")]
    InUse(std::path::PathBuf),
    /// The folder can't be written.
    #[error("{0}: {1}")]
    Io(std::path::PathBuf, #[source] std::io::Error),
    /// What is there was altered: patgate does not add to it.
    #[error("{0}")]
    Altered(String),
}

impl Audit {
    /// Opens (or makes) the chain, repairs a torn tail, starts the writer's thread.
    /// `overlap`: whether another patgate may still be writing in this folder (a hand-over);
    /// then a chain of its own is begun or continued.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(config: &crate::config::Audit, overlap: bool) -> Result<Self, OpenError> {
        todo!()
    }
    /// A lane for the calling worker thread. Call within its runtime: it spawns the task that wakes waiters.
    pub fn lane(&self) -> Rc<Lane> {
        todo!()
    }
    /// Writes an event and waits until it is durable.
    ///
    /// # Errors
    /// When it can't be made durable.
    pub async fn event(&self, event: Event) -> Result<(), Unavailable> {
        todo!()
    }
    /// Whether intents are taken at present (for readiness).
    #[must_use]
    pub fn is_available(&self) -> bool {
        todo!()
    }
    /// Writes what is queued, syncs, and ends the thread. After the workers have ended.
    pub fn close(self, timeout: Duration) {
        todo!()
    }
}

/// The record can't be made durable at present.
#[derive(Debug, thiserror::Error)]
#[error("the audit can't be written: {0}")]
pub struct Unavailable(pub Arc<str>);

/// A request whose intent is durable, and whose credential has not been used for it.
#[derive(Debug)]
pub struct Recorded {
    known: Known,
    credential: Arc<Credential>,
    share: Share,
}

impl Recorded {
    /// Whom the request is from, and what it is.
    pub(crate) fn known(&self) -> &Known {
        &self.known
    }
    /// See [`Self::known`].
    pub(crate) fn known_mut(&mut self) -> &mut Known {
        &mut self.known
    }
    /// The credential that the intent names.
    pub(crate) fn credential(&self) -> &Arc<Credential> {
        &self.credential
    }
    /// The intent has been used: what is left may be recorded again, or ended.
    pub(crate) fn spend(self) -> Spent {
        Spent(self)
    }
}

/// A request whose intent has been used up by an attempt.
#[derive(Debug)]
pub struct Spent(Recorded);

impl Spent {
    /// Takes it apart, to end it.
    pub(crate) fn into_parts(self) -> (Known, Arc<Credential>, Share) {
        (self.0.known, self.0.credential, self.0.share)
    }
}

/// Writes the intent and waits until it is durable.
///
/// # Errors
/// `audit-unavailable`
pub async fn intend(_state: Rc<()>, rationed: Rationed) -> Result<Recorded, Box<Refused>> {
    let _ = rationed;
    todo!("audit")
}

/// A further attempt upstream for the same request (`purpose`: `retry`, or `probe` with the path that is
/// asked): its own durable intent.
///
/// # Errors
/// `audit-unavailable`
pub async fn intend_again(
    spent: Spent,
    purpose: &'static str,
    path: Option<&str>,
) -> Result<Recorded, Box<Refused>> {
    let _ = (spent, purpose, path);
    todo!("audit")
}
