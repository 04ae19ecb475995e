//! The record: an intent before a credential is used, an outcome after, a refusal otherwise.
//!
//! What comes in: facts. What goes out: [`Recorded`], once the intent is durable. It must never
//! lose an ending: [`Entry`] writes one when it is dropped, whoever drops it.

use std::{
    net::SocketAddr,
    path::PathBuf,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use http::Method;
use tokio::sync::oneshot;

use crate::{
    client::Known,
    config::Credential,
    limits::{Rationed, Shares},
    metrics::Metrics,
    refusal::{Refusal, Refused},
    vault::Chosen,
};

mod chain;
mod disk;
mod entry;
mod event;
mod flood;
mod frame;
mod journal;
mod lane;
mod open;
mod queue;
mod record;
mod sentence;
pub mod tail;
#[cfg(test)]
mod tests;
mod torn;
pub mod verify;
mod writer;

pub use entry::Entry;
pub use event::Event;
pub use lane::{Lane, request_id};

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
    /// An operator cut it, with the credential that it used.
    Cut,
    /// A step panicked.
    Panic,
    /// Refused (before or after the intent).
    Refused(Refusal),
}

impl Ending {
    /// Whether the answer was sent whole.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        *self == Self::Complete
    }

    /// The word in the record.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::ClientGone => "client-gone",
            Self::UpstreamGone => "upstream-gone",
            Self::Cut => "cut",
            Self::Panic => "panic",
            Self::Refused(_) => "refused",
        }
    }
}

/// How long an event waits for the disk.
const EVENT_PATIENCE: Duration = Duration::from_secs(5);

/// The audit as the rest of the process sees it: `Clone + Send + Sync`.
#[derive(Clone, Debug)]
pub struct Audit {
    shared: Arc<queue::Shared>,
    folder: Arc<PathBuf>,
}

/// What the writer has done since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statistics {
    /// Records written.
    pub records: u64,
    /// Batches written; with `disk` durability, as many syncs.
    pub batches: u64,
    /// Writes and syncs that failed.
    pub failures: u64,
}

/// Why the audit could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process, with this id where it is known, writes here.
    #[error("another patgate{process} is writing to {path}", process = process(*.1), path = .0.display())]
    InUse(PathBuf, Option<u32>),
    /// The folder can't be written.
    #[error("{path}: {error}", path = .0.display(), error = .1)]
    Io(PathBuf, #[source] std::io::Error),
    /// What is there was altered: patgate does not add to it.
    #[error(
        "the audit was altered: {0}; `patgate audit verify` tells more, and a new folder lets patgate start"
    )]
    Altered(String),
}

fn process(pid: Option<u32>) -> String {
    pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
}

impl Audit {
    /// Opens (or makes) the chain, repairs a torn tail, starts the writer's thread. The last two
    /// segments of each chain nobody else writes are proved on the way; [`verify`] proves all.
    /// `overlap`: whether another patgate may still be writing in this folder (a hand-over);
    /// then a chain of its own is begun or continued.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(config: &crate::config::Audit, overlap: bool) -> Result<Self, OpenError> {
        open::open(config, overlap, &mut || Box::new(disk::Local))
    }

    /// A lane for the calling worker thread, whose endings `metrics` counts. Call within its runtime: it spawns the task that wakes waiters.
    #[must_use]
    pub fn lane(&self, metrics: &Arc<Metrics>) -> Rc<Lane> {
        Lane::open(Arc::clone(&self.shared), Arc::clone(metrics))
    }

    /// The folder of the chain that this process writes.
    #[must_use]
    pub fn folder(&self) -> &std::path::Path {
        &self.folder
    }

    /// Writes an event and waits until it is durable (as far as the configured durability goes), for
    /// 5 seconds at most.
    ///
    /// # Errors
    /// When it can't be made durable.
    pub async fn event(&self, event: Event) -> Result<(), Unavailable> {
        let mut records = Vec::new();
        let mut time = record::Timekeeper::new(self.shared.base);
        record::event(&mut records, &event, &journal::hex(&journal::boot()), &mut time);
        let (waiter, told) = oneshot::channel();
        self.shared.push(queue::Batch { records, owner: queue::Owner::Event(Some(waiter)) });
        match tokio::time::timeout(EVENT_PATIENCE, told).await {
            Ok(Ok(told)) => told,
            // The writer has ended, or the disk does not answer.
            Ok(Err(_)) | Err(_) => Err(self.shared.unavailable()),
        }
    }

    /// Whether intents are taken at present (for readiness).
    #[must_use]
    pub fn is_available(&self) -> bool {
        self.shared.accepts().is_ok()
    }

    /// What the writer has done, for metrics.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        Statistics {
            records: self.shared.records.load(Ordering::Relaxed),
            batches: self.shared.batches.load(Ordering::Relaxed),
            failures: self.shared.failures.load(Ordering::Relaxed),
        }
    }

    /// Writes what is queued, syncs, and ends the thread. After the workers have ended. Blocks for
    /// `timeout` at most; a disk that does not answer by then keeps what it was given.
    pub fn close(self, timeout: Duration) {
        if !self.shared.close(timeout) {
            tracing::error!(folder = %self.folder.display(), "the audit could not be written to its end");
        }
    }
}

/// The record can't be made durable at present.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the audit can't be written: {0}")]
pub struct Unavailable(pub Arc<str>);

/// A request whose intent is durable, and whose credential has not been used for it.
#[derive(Debug)]
pub struct Recorded {
    known: Known,
    chosen: Chosen,
    shares: Shares,
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
        self.chosen.credential()
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
    pub(crate) fn into_parts(self) -> (Known, Chosen, Shares) {
        (self.0.known, self.0.chosen, self.0.shares)
    }

    /// Which credential was chosen, to choose another for a further attempt. The next intent names it.
    pub(crate) fn chosen_mut(&mut self) -> &mut Chosen {
        &mut self.0.chosen
    }
}

/// Writes the intent and waits until it is durable.
///
/// # Errors
/// `audit-unavailable`
pub async fn intend(_state: (), rationed: Rationed) -> Result<Recorded, Box<Refused>> {
    let (mut known, rule, chosen, shares) = rationed.into_parts();
    let entry = &mut known.vetted.passage.entry;
    entry.facts_mut().rule = Some(rule);
    entry.facts_mut().credential = Some(Arc::clone(&chosen.credential().name));
    match entry.intend(None, None).await {
        Ok(()) => Ok(Recorded { known, chosen, shares }),
        Err(why) => Err(unrecorded(known, &why)),
    }
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
    let Spent(mut recorded) = spent;
    let entry = &mut recorded.known.vetted.passage.entry;
    entry.facts_mut().credential = Some(Arc::clone(&recorded.chosen.credential().name));
    match entry.intend(Some(purpose), path).await {
        Ok(()) => Ok(recorded),
        Err(why) => Err(unrecorded(recorded.known, &why)),
    }
}

#[expect(clippy::unnecessary_box_returns, reason = "the steps' error, which is boxed")]
fn unrecorded(mut known: Known, why: &Unavailable) -> Box<Refused> {
    let rest = known.vetted.outgoing.body.take();
    let vetted = *known.vetted;
    let mut entry = vetted.passage.entry;
    entry.facts_mut().detail = Some(why.0.as_ref().into());
    Refused::new(Refusal::AuditUnavailable, vetted.wire, rest, entry)
}
