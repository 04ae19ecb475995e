//! One credential: what is known of it, and what is to be done about it next.
//!
//! The value itself stands in the cache; here is everything else, in one place that only reads of the
//! vault change.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::{SecretSource, Token, VaultError, backoff::Backoff, choice::Budget, probe::Probe};
use crate::{
    clock,
    config::{Credential, Lifetime},
};

/// After a failure of the vault.
const AFTER_FAILURE: Backoff = Backoff { first: Duration::from_secs(1), last: Duration::from_secs(60) };

/// After Azure DevOps refused the value.
const AFTER_REJECTION: Backoff = Backoff { first: Duration::from_secs(5), last: Duration::from_secs(5 * 60) };

/// A refused value that the vault still gives is tried again after this. Azure DevOps may have refused it in an
/// hour of trouble of its own, or its owner may have extended it: the value is the same then.
const RETRIAL: Duration = Duration::from_secs(15 * 60);

/// Why a vault is read. The words stand in the audit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Requests wait for it; their own records name what they got.
    Request,
    Start,
    Refresh,
    Rejected,
}

impl Purpose {
    /// `None` where requests' own records cover it.
    pub(super) fn on_record(self) -> Option<&'static str> {
        match self {
            Self::Request => None,
            Self::Start => Some("start"),
            Self::Refresh => Some("refresh"),
            Self::Rejected => Some("rejected"),
        }
    }
}

/// Whether a read began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// The caller has to read, and to end it by [`Slot::conclude`].
    Mine,
    /// Somebody is reading.
    Theirs,
    /// The last one failed a moment ago.
    TooSoon,
}

/// What the clock asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Care {
    Nothing,
    Read(Purpose),
    /// The value has come to its end.
    Drop,
}

/// A value that Azure DevOps refused: known by its mark, for the value itself is gone.
#[derive(Clone, Debug)]
pub(super) struct Doubt {
    pub(super) mark: [u8; 32],
    pub(super) reason: Arc<str>,
}

/// What is known of a credential.
#[derive(Debug, Default)]
pub(super) struct Condition {
    /// Reads that have ended, however.
    pub(super) reads: u64,
    reading: bool,
    /// When the value that is kept was read.
    good: Option<Instant>,
    /// The last read's, if it failed: why, when, and how many in a row.
    failure: Option<(VaultError, Instant, u32)>,
    /// What the read under way is to be compared with.
    doubt: Option<Doubt>,
    /// The refused value, how often it was met again, and when Azure DevOps refused it.
    rejected: Option<(Doubt, u32, Instant)>,
    /// No read before this.
    not_before: Option<Instant>,
}

impl Condition {
    pub(super) fn failure(&self) -> Option<&VaultError> {
        self.failure.as_ref().map(|(error, ..)| error)
    }

    pub(super) fn rejected(&self) -> Option<&Doubt> {
        self.rejected.as_ref().map(|(doubt, ..)| doubt)
    }

    /// A refused value that this one is, if it is.
    fn refuses(&self, now: Instant, pat: &Token) -> Option<&Doubt> {
        let rejected = self.rejected.as_ref().filter(|(.., at)| now.saturating_duration_since(*at) < RETRIAL);
        let rejected = rejected.map(|(doubt, ..)| doubt);
        self.doubt.iter().chain(rejected).find(|doubt| pat.has_mark(&doubt.mark))
    }

    fn reject(&mut self, now: Instant, doubt: Doubt) {
        let before = self.rejected.take().filter(|(old, ..)| old.mark == doubt.mark);
        let (before, at) = before.map_or((0, now), |(_, before, at)| (before, at));
        self.good = None;
        self.not_before = Some(now + AFTER_REJECTION.wait(before));
        self.rejected = Some((doubt, before.saturating_add(1), at));
    }
}

/// How a read of the vault ended.
#[derive(Debug)]
pub(super) enum Conclusion {
    /// A value, which stands in the cache now.
    Good { read: Instant },
    /// The value that Azure DevOps refused.
    Refused(Doubt),
    /// None.
    Failed(VaultError),
}

/// One credential of one configuration.
pub(super) struct Slot {
    /// Never used twice in a process: what a read brings for one definition is never taken for another's.
    pub(super) id: u64,
    pub(super) credential: Arc<Credential>,
    pub(super) source: Arc<dyn SecretSource>,
    pub(super) lifetime: Lifetime,
    pub(super) probe: Probe,
    pub(super) budget: Budget,
    condition: watch::Sender<Condition>,
    used: AtomicBool,
}

impl Slot {
    pub(super) fn new(
        id: u64,
        credential: Arc<Credential>,
        source: Arc<dyn SecretSource>,
        lifetime: Lifetime,
    ) -> Self {
        let condition = watch::Sender::new(Condition::default());
        let (probe, budget, used) = (Probe::default(), Budget::new(clock::now()), AtomicBool::new(false));
        Self { id, credential, source, lifetime, probe, budget, condition, used }
    }

    /// Whether another configuration means the same secret.
    pub(super) fn serves(&self, credential: &Credential) -> bool {
        std::ptr::eq(&raw const *self.credential, credential) || self.credential.source == credential.source
    }

    pub(super) fn watch(&self) -> watch::Receiver<Condition> {
        self.condition.subscribe()
    }

    pub(super) fn look<T>(&self, at: impl FnOnce(&Condition) -> T) -> T {
        at(&self.condition.borrow())
    }

    /// Entries in use are read again before their time. Written only where it changes something, for
    /// every worker has this in its cache.
    pub(super) fn mark_used(&self) {
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }

    /// Begins a read, if none is under way and the last failure is long enough ago.
    pub(super) fn begin(&self, now: Instant) -> Begin {
        self.begin_if(|condition| condition.not_before.is_none_or(|time| time <= now))
    }

    /// Begins a read because a value was refused. `Theirs`: for the same reason, or for another (`false`).
    pub(super) fn begin_doubting(&self, doubt: &Doubt) -> (Begin, bool) {
        let mut same = false;
        let begin = self.begin_if(|condition| {
            condition.doubt = Some(doubt.clone());
            true
        });
        if begin == Begin::Theirs {
            same =
                self.look(|condition| condition.doubt.as_ref().is_some_and(|other| other.mark == doubt.mark));
        }
        (begin, same)
    }

    fn begin_if(&self, may: impl FnOnce(&mut Condition) -> bool) -> Begin {
        let mut begin = Begin::TooSoon;
        // Nobody waits for a beginning, so nobody is woken.
        self.condition.send_if_modified(|condition| {
            if condition.reading {
                begin = Begin::Theirs;
            } else if may(condition) {
                condition.reading = true;
                begin = Begin::Mine;
            }
            false
        });
        begin
    }

    /// A refused value that this one is, if it is.
    pub(super) fn refuses(&self, now: Instant, pat: &Token) -> Option<Doubt> {
        self.look(|condition| condition.refuses(now, pat).cloned())
    }

    /// The value that is in doubt at present, if no other takes its place.
    pub(super) fn doubt(&self) -> Option<Doubt> {
        self.look(|condition| condition.doubt.clone())
    }

    /// Ends a read and wakes those who wait for it.
    pub(super) fn conclude(&self, now: Instant, conclusion: Conclusion) {
        self.condition.send_modify(|condition| {
            condition.reads += 1;
            condition.reading = false;
            let doubt = condition.doubt.take();
            match conclusion {
                Conclusion::Good { read } => {
                    condition.good = Some(read);
                    condition.failure = None;
                    condition.rejected = None;
                    condition.not_before = None;
                    self.used.store(false, Ordering::Relaxed);
                }
                Conclusion::Refused(refused) => {
                    condition.failure = None;
                    condition.reject(now, refused);
                }
                Conclusion::Failed(error) => {
                    let before = condition.failure.as_ref().map_or(0, |(_, _, n)| *n);
                    condition.not_before = Some(now + AFTER_FAILURE.wait(before));
                    if let VaultError::Denied(_) = error {
                        condition.good = None;
                    }
                    condition.failure = Some((error, now, before.saturating_add(1)));
                    if let Some(doubt) = doubt {
                        condition.reject(now, doubt);
                    }
                }
            }
        });
    }

    /// Notes that the value is no longer kept.
    pub(super) fn dropped(&self) {
        self.condition.send_modify(|condition| condition.good = None);
    }

    /// What is to be done, by the clock alone.
    pub(super) fn care(&self, now: Instant) -> Care {
        let age = |at: Instant| now.saturating_duration_since(at);
        let used = self.used.load(Ordering::Relaxed);
        self.look(|condition| {
            if condition.reading {
                Care::Nothing
            } else if condition.good.is_some_and(|read| age(read) >= self.keep()) {
                Care::Drop
            } else if condition.not_before.is_some_and(|time| now < time) {
                Care::Nothing
            } else if condition.rejected.is_some() {
                Care::Read(Purpose::Rejected)
            } else if let Some((error, at, _)) = &condition.failure {
                // An answer does not change by asking every minute; requests ask more often.
                let answered = !matches!(error, VaultError::Unavailable(_));
                if answered && !used && age(*at) < self.lifetime.refresh {
                    Care::Nothing
                } else {
                    Care::Read(Purpose::Refresh)
                }
            } else if used && condition.good.is_some_and(|read| age(read) >= self.refresh_at()) {
                Care::Read(Purpose::Refresh)
            } else {
                Care::Nothing
            }
        })
    }

    /// Whether a request that takes it now is likely to get a value.
    pub(super) fn is_usable(&self) -> bool {
        self.look(|condition| {
            condition.rejected.is_none() && (condition.good.is_some() || condition.failure.is_none())
        })
    }

    /// For how long a value is kept at most.
    pub(super) fn keep(&self) -> Duration {
        self.lifetime.refresh.saturating_add(self.lifetime.stale_for)
    }

    /// Between 80 and 90 % of the time, so that no request waits, and credentials do not all ask at once.
    fn refresh_at(&self) -> Duration {
        let spread = u32::try_from(self.id % 11).unwrap_or_default();
        self.lifetime.refresh / 100 * (80 + spread)
    }

    /// One word for health and metrics.
    pub(super) fn health(&self, now: Instant) -> &'static str {
        self.look(|condition| {
            if condition.rejected.is_some() {
                return "rejected";
            }
            match (condition.good, condition.failure()) {
                (Some(read), Some(_)) if now.saturating_duration_since(read) >= self.lifetime.refresh => {
                    "stale"
                }
                (Some(_), _) => "valid",
                (None, Some(VaultError::Unavailable(_))) => "unreachable",
                (None, Some(VaultError::Denied(_) | VaultError::Unusable(_))) => "missing",
                (None, None) => "unused",
            }
        })
    }
}
