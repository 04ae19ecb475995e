//! One credential: what is known of it, and what is to be done about it next.
//!
//! The value itself stands in the cache; here is everything else, in one place that only reads of the
//! vault change.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::sync::watch;

use super::{
    SecretSource, Stamp, Token, VaultError,
    backoff::Backoff,
    breaker::Breaker,
    choice::Budget,
    health::{Health, NOTICE, State},
    probe::Probe,
};
use crate::{
    clock,
    config::{Credential, CredentialSource, Lifetime},
};

mod condition;

pub(super) use condition::{Conclusion, Condition, Doubt, Kept};

/// Why a vault is read. The words stand in the audit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Requests wait for it; their own records name what they got.
    Request,
    Start,
    Refresh,
    Rejected,
    /// Somebody asked for it by hand.
    Asked,
}

impl Purpose {
    /// `None` where requests' own records cover it.
    pub(super) fn on_record(self) -> Option<&'static str> {
        match self {
            Self::Request => None,
            Self::Start => Some("start"),
            Self::Refresh => Some("refresh"),
            Self::Rejected => Some("rejected"),
            Self::Asked => Some("asked"),
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

/// The value before the present one, while it may serve again.
#[derive(Clone, Debug)]
pub(super) struct Previous {
    pub(super) token: Arc<Token>,
    pub(super) version: Arc<str>,
    pub(super) expires: Option<Timestamp>,
    pub(super) ends: Instant,
}

/// What outlives a change of the configuration that leaves the secret the same.
struct Shared {
    probe: Probe,
    /// How the files looked before the last read, where the secret comes from files.
    stamp: Mutex<Option<Stamp>>,
    budget: Budget,
    condition: watch::Sender<Condition>,
    used: AtomicBool,
    usable: AtomicBool,
}

/// One credential of one configuration.
pub(super) struct Slot {
    /// Never used twice in a process: what a read brings for one definition is never taken for another's.
    pub(super) id: u64,
    pub(super) credential: Arc<Credential>,
    pub(super) source: Arc<dyn SecretSource>,
    pub(super) breaker: Arc<Breaker>,
    pub(super) lifetime: Lifetime,
    shared: Arc<Shared>,
}

impl Slot {
    pub(super) fn new(
        id: u64,
        credential: Arc<Credential>,
        source: Arc<dyn SecretSource>,
        breaker: Arc<Breaker>,
        lifetime: Lifetime,
    ) -> Self {
        let condition = watch::Sender::new(Condition::new(clock::timestamp()));
        let (used, usable) = (AtomicBool::new(false), AtomicBool::new(true));
        let shared = Arc::new(Shared {
            probe: Probe::default(),
            stamp: Mutex::default(),
            budget: Budget::new(clock::now()),
            condition,
            used,
            usable,
        });
        Self { id, credential, source, breaker, lifetime, shared }
    }

    /// The same secret under another configuration, which may say other things of it.
    pub(super) fn under(&self, credential: Arc<Credential>) -> Self {
        Self {
            id: self.id,
            credential,
            source: Arc::clone(&self.source),
            breaker: Arc::clone(&self.breaker),
            lifetime: self.lifetime,
            shared: Arc::clone(&self.shared),
        }
    }

    /// Whether another configuration means the same secret.
    pub(super) fn serves(&self, credential: &Credential) -> bool {
        std::ptr::eq(&raw const *self.credential, credential) || self.credential.source == credential.source
    }

    pub(super) fn probe(&self) -> &Probe {
        &self.shared.probe
    }

    /// Looks at the files that the secret comes from, before they are read.
    pub(super) async fn stamp(&self) {
        if let Some(stamp) = self.source.stamp(self.credential.source.secret()).await {
            *self.shared.stamp.lock().unwrap_or_else(PoisonError::into_inner) = Some(stamp);
        }
    }

    /// Whether those files look otherwise than before the last read.
    pub(super) async fn has_changed(&self) -> bool {
        let Some(now) = self.source.stamp(self.credential.source.secret()).await else { return false };
        let before = self.shared.stamp.lock().unwrap_or_else(PoisonError::into_inner);
        before.as_ref().is_some_and(|before| *before != now)
    }

    pub(super) fn budget(&self) -> &Budget {
        &self.shared.budget
    }

    pub(super) fn watch(&self) -> watch::Receiver<Condition> {
        self.shared.condition.subscribe()
    }

    pub(super) fn look<T>(&self, at: impl FnOnce(&Condition) -> T) -> T {
        at(&self.shared.condition.borrow())
    }

    /// Changes what nobody waits for.
    fn change<T>(&self, change: impl FnOnce(&mut Condition) -> T) -> Option<T> {
        let mut result = None;
        self.shared.condition.send_if_modified(|condition| {
            result = Some(change(condition));
            false
        });
        result
    }

    /// Entries in use are read again before their time. Written only where it changes something, for
    /// every worker has this in its cache.
    pub(super) fn mark_used(&self) {
        if !self.shared.used.load(Ordering::Relaxed) {
            self.shared.used.store(true, Ordering::Relaxed);
        }
    }

    /// Whether a request that asks now has a prospect of a value. No lock is taken.
    pub(super) fn is_usable(&self) -> bool {
        self.shared.usable.load(Ordering::Relaxed)
    }

    /// Begins a read, if none is under way and the last failure is long enough ago.
    pub(super) fn begin(&self, now: Instant) -> Begin {
        self.begin_if(|condition| condition.not_before.is_none_or(|time| time <= now))
    }

    /// Begins a read, if none is under way.
    pub(super) fn begin_anyway(&self) -> Begin {
        self.begin_if(|_| true)
    }

    /// Begins a read because a value was refused. `Theirs`: for the same reason, or for another (`false`).
    pub(super) fn begin_doubting(&self, doubt: &Doubt) -> (Begin, bool) {
        let begin = self.begin_if(|condition| {
            condition.doubt = Some(doubt.clone());
            true
        });
        let same =
            |condition: &Condition| condition.doubt.as_ref().is_some_and(|other| other.mark == doubt.mark);
        (begin, begin == Begin::Theirs && self.look(same))
    }

    fn begin_if(&self, may: impl FnOnce(&mut Condition) -> bool) -> Begin {
        // Nobody waits for a beginning, so nobody is woken.
        let begin = self.change(|condition| {
            if condition.reading {
                Begin::Theirs
            } else if may(condition) {
                condition.reading = true;
                Begin::Mine
            } else {
                Begin::TooSoon
            }
        });
        begin.unwrap_or(Begin::Theirs)
    }

    /// A refused value that this one is, if it is. `anew`: see [`Condition::refuses`].
    pub(super) fn refuses(&self, now: Instant, token: &Token, anew: bool) -> Option<Doubt> {
        self.look(|condition| condition.refuses(now, token, anew).cloned())
    }

    /// The value that is in doubt at present, if no other takes its place.
    pub(super) fn doubt(&self) -> Option<Doubt> {
        self.look(|condition| condition.doubt.clone())
    }

    /// The value before the refused one, while it may serve.
    pub(super) fn before(&self, now: Instant, refused: &Doubt) -> Option<Previous> {
        self.look(|condition| condition.before(now, refused))
    }

    /// Until when the version before this value may serve, if this one is as new as that.
    pub(super) fn grace_of(&self, now: Instant, mark: &[u8; 32]) -> Option<Instant> {
        let met = self.look(|condition| condition.met(mark)).unwrap_or(now);
        Some(met + self.credential.previous_grace).filter(|ends| *ends > now)
    }

    /// Until when a value is kept that the vault says is gone: `None`, not at all.
    pub(super) fn bears_denial(&self, now: Instant) -> Option<Instant> {
        self.look(|condition| condition.bears_denial(now, self.lifetime.keep_when_denied))
    }

    /// Ends a read and wakes those who wait for it. `instead`: what stands in the cache in place of a refused value.
    pub(super) fn conclude(&self, now: Instant, conclusion: Conclusion, instead: Option<Kept>) {
        self.shared.condition.send_modify(|condition| {
            let good = matches!(conclusion, Conclusion::Good(..));
            condition.conclude(now, self.lifetime.keep_when_denied, conclusion, instead);
            if let Some(not_before) = &mut condition.not_before {
                *not_before += self.spread();
            }
            if good {
                self.shared.used.store(false, Ordering::Relaxed);
            }
            self.shared.usable.store(condition.is_usable(), Ordering::Relaxed);
        });
    }

    /// Notes that the value is no longer kept.
    pub(super) fn dropped(&self) {
        self.change(|condition| {
            condition.drop_value();
            self.shared.usable.store(condition.is_usable(), Ordering::Relaxed);
        });
    }

    /// Lets go of the value before the present one once its grace is over.
    pub(super) fn let_go(&self, now: Instant) {
        let over = |condition: &Condition| condition.previous.as_ref().is_some_and(|old| old.ends <= now);
        if self.look(over) {
            self.change(|condition| condition.previous = None);
        }
    }

    /// What is to be done, by the clock alone.
    pub(super) fn care(&self, now: Instant) -> Care {
        let age = |at: Instant| now.saturating_duration_since(at);
        let used = self.shared.used.load(Ordering::Relaxed);
        self.look(|condition| {
            if condition.reading {
                Care::Nothing
            } else if condition.value().is_some_and(|value| value.ends <= now) {
                Care::Drop
            } else if condition.not_before.is_some_and(|time| now < time) {
                Care::Nothing
            } else if condition.rejected().is_some() {
                Care::Read(Purpose::Rejected)
            } else if let (Some(error), Some(at)) = (condition.failure(), condition.failed_at()) {
                // An answer does not change by asking every minute; requests ask more often.
                let answered = !matches!(error, VaultError::Unavailable(_));
                if answered && !used && age(at) < self.lifetime.refresh {
                    Care::Nothing
                } else {
                    Care::Read(Purpose::Refresh)
                }
            } else if used && condition.value().is_some_and(|value| age(value.read) >= self.refresh_at(value))
            {
                Care::Read(Purpose::Refresh)
            } else {
                Care::Nothing
            }
        })
    }

    /// Between 80 and 90 % of the time, so that no request waits, and credentials do not all ask at once.
    fn refresh_at(&self, value: &Kept) -> Duration {
        let spread = u32::try_from(self.id % 11).unwrap_or_default();
        value.fresh / 100 * (80 + spread)
    }

    /// Credentials of a vault that is back do not all ask in the same moment.
    fn spread(&self) -> Duration {
        Duration::from_millis(self.id % 16 * 25)
    }

    /// The expiry that is known of it, whoever knows it first.
    fn expires(&self, condition: &Condition) -> Option<Timestamp> {
        // What gives its own tokens gives another one in time.
        let own = matches!(self.credential.source, CredentialSource::Entra(_));
        let told = condition.value().and_then(|value| value.expires).filter(|_| !own);
        [self.credential.expires, told].into_iter().flatten().min()
    }

    /// Notes the state that it is in now; gives it where it changed.
    pub(super) fn observe(&self, now: Instant, wall: Timestamp) -> Option<State> {
        let state = self.look(|condition| self.state(condition, now, wall));
        self.change(|condition| {
            let changed = condition.state.0 != state;
            if changed {
                condition.state = (state, wall);
            }
            changed.then_some(state)
        })?
    }

    fn state(&self, condition: &Condition, now: Instant, wall: Timestamp) -> State {
        match (condition.state(now), self.expires(condition)) {
            (State::Valid, Some(expires)) if expires <= wall => State::Expired,
            (State::Valid, Some(expires)) if expires.duration_since(wall) <= NOTICE => State::Expiring,
            (state, _) => state,
        }
    }

    /// All that may be said of it.
    pub(super) fn health(&self, now: Instant, wall: Timestamp) -> Health {
        self.observe(now, wall);
        self.look(|condition| {
            let (state, since) = condition.state;
            let value = condition.value();
            let rejection = condition.rejected().map(|doubt| Arc::clone(&doubt.reason));
            let failure = || condition.failure().map(|error| error.to_string().into());
            let ends = value.filter(|value| value.previous).map(|value| value.ends);
            let left = |ends: Instant| ends.saturating_duration_since(now);
            Health {
                credential: Arc::clone(&self.credential.name),
                state,
                since,
                version: value.map(|value| Arc::clone(&value.version)),
                read: value.map(|value| value.read_at),
                expires: self.expires(condition),
                previous_until: ends.and_then(|ends| wall.checked_add(left(ends)).ok()),
                detail: rejection.or_else(failure),
            }
        })
    }
}
