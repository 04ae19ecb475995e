//! What is known of one credential, and what one more answer changes about it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use super::{Backoff, Previous};
use crate::vault::{Token, VaultError, breaker::Shut, cache::Hand, health::State};

/// After a failure of the vault.
const AFTER_FAILURE: Backoff = Backoff { first: Duration::from_secs(1), last: Duration::from_mins(1) };

/// After Azure DevOps refused the value.
const AFTER_REJECTION: Backoff = Backoff { first: Duration::from_secs(5), last: Duration::from_mins(5) };

/// A refused value that the vault still gives is tried again after this. Azure DevOps may have refused it in an
/// hour of trouble of its own, or its owner may have extended it: the value is the same then.
const RETRIAL: Duration = Duration::from_mins(15);

/// Refused values that are remembered: the present one, the one before it, and their kin.
const REMEMBERED: usize = 4;

/// A value that Azure DevOps refused: known by its mark, for the value itself is gone.
#[derive(Clone, Debug)]
pub(in crate::vault) struct Doubt {
    pub(in crate::vault) mark: [u8; 32],
    pub(in crate::vault) reason: Arc<str>,
}

/// What the vault still gives though Azure DevOps refused it.
#[derive(Debug)]
struct Rejected {
    doubt: Doubt,
    met: u32,
    at: Instant,
}

#[derive(Debug)]
struct Failure {
    error: VaultError,
    at: Instant,
    row: u32,
}

/// What stands in the cache, and ends there with this.
#[derive(Debug)]
pub(in crate::vault) struct Kept {
    pub(in crate::vault) _hand: Hand,
    pub(in crate::vault) mark: [u8; 32],
    pub(in crate::vault) version: Arc<str>,
    pub(in crate::vault) read: Instant,
    pub(in crate::vault) read_at: Timestamp,
    /// For how long nobody asks for another.
    pub(in crate::vault) fresh: Duration,
    /// It is used no longer, whatever happens.
    pub(in crate::vault) ends: Instant,
    /// What the vault says of its end.
    pub(in crate::vault) expires: Option<Timestamp>,
    /// It is the one before the present one.
    pub(in crate::vault) previous: bool,
}

/// How a read of the vault ended.
#[derive(Debug)]
pub(in crate::vault) enum Conclusion {
    /// A value, which stands in the cache now, and the one before it, if that may still serve.
    Good(Kept, Option<Previous>),
    /// The value that Azure DevOps refused.
    Refused(Doubt),
    /// None.
    Failed(VaultError),
    /// The vault is down, and was not asked.
    Unasked(Shut),
}

/// What is known of a credential.
#[derive(Debug)]
pub(in crate::vault) struct Condition {
    /// Reads that have ended, however.
    pub(in crate::vault) reads: u64,
    pub(super) reading: bool,
    pub(super) value: Option<Kept>,
    pub(super) previous: Option<Previous>,
    /// The present value, by its mark, and when it was met first.
    met: Option<([u8; 32], Instant)>,
    failure: Option<Failure>,
    /// Since when the vault says that there is no value, while one is still kept.
    denied: Option<Instant>,
    /// What the read under way is to be compared with.
    pub(super) doubt: Option<Doubt>,
    rejected: Vec<Rejected>,
    /// No read before this.
    pub(super) not_before: Option<Instant>,
    pub(super) state: (State, Timestamp),
}

impl Condition {
    pub(super) fn new(at: Timestamp) -> Self {
        Self {
            reads: 0,
            reading: false,
            value: None,
            previous: None,
            met: None,
            failure: None,
            denied: None,
            doubt: None,
            rejected: Vec::new(),
            not_before: None,
            state: (State::Unused, at),
        }
    }

    pub(in crate::vault) fn value(&self) -> Option<&Kept> {
        self.value.as_ref()
    }

    pub(in crate::vault) fn previous(&self) -> Option<&Previous> {
        self.previous.as_ref()
    }

    pub(in crate::vault) fn failure(&self) -> Option<&VaultError> {
        self.failure.as_ref().map(|failure| &failure.error)
    }

    /// When the last read failed.
    pub(super) fn failed_at(&self) -> Option<Instant> {
        self.failure.as_ref().map(|failure| failure.at)
    }

    /// What Azure DevOps refused last, while nothing else was found.
    pub(in crate::vault) fn rejected(&self) -> Option<&Doubt> {
        self.rejected.last().map(|rejected| &rejected.doubt)
    }

    /// Whether this very value was refused, and nothing else was found since.
    pub(in crate::vault) fn has_rejected(&self, mark: &[u8; 32]) -> bool {
        self.rejected.iter().any(|rejected| rejected.doubt.mark == *mark)
    }

    /// Whether it was refused, or is said to have been.
    pub(in crate::vault) fn is_doubted(&self, mark: &[u8; 32]) -> bool {
        self.has_rejected(mark) || self.doubt.as_ref().is_some_and(|doubt| doubt.mark == *mark)
    }

    /// A refused value that this one is, if it is. `anew`: somebody asks that it be tried again.
    pub(super) fn refuses(&self, now: Instant, token: &Token, anew: bool) -> Option<&Doubt> {
        let recent = |rejected: &&Rejected| !anew && now.saturating_duration_since(rejected.at) < RETRIAL;
        let rejected = self.rejected.iter().filter(recent).map(|rejected| &rejected.doubt);
        self.doubt.iter().chain(rejected).find(|doubt| token.has_mark(&doubt.mark))
    }

    /// The value before the refused one, while it may serve.
    pub(super) fn before(&self, now: Instant, refused: &Doubt) -> Option<Previous> {
        let previous = self.previous.as_ref().filter(|previous| previous.ends > now)?;
        let mark = previous.token.mark();
        (mark != refused.mark && !self.is_doubted(&mark)).then(|| previous.clone())
    }

    /// When a value was met first.
    pub(super) fn met(&self, mark: &[u8; 32]) -> Option<Instant> {
        self.met.filter(|(known, _)| known == mark).map(|(_, at)| at)
    }

    /// Until when a value is kept that the vault says is gone: `None`, not at all.
    pub(super) fn bears_denial(&self, now: Instant, patience: Duration) -> Option<Instant> {
        let until = self.denied.unwrap_or(now) + patience;
        let ends = self.value.as_ref()?.ends.min(until);
        (ends > now).then_some(ends)
    }

    /// Takes in how a read ended. `instead`: what stands in the cache in place of a refused value.
    pub(super) fn conclude(
        &mut self,
        now: Instant,
        patience: Duration,
        conclusion: Conclusion,
        instead: Option<Kept>,
    ) {
        self.reads += 1;
        self.reading = false;
        let doubt = self.doubt.take();
        let mut refused: Vec<_> = doubt.into_iter().collect();
        match conclusion {
            Conclusion::Good(kept, previous) => {
                self.met = Some((kept.mark, self.met(&kept.mark).unwrap_or(now)));
                self.previous = previous;
                self.value = Some(kept);
                self.failure = None;
                self.denied = None;
                self.rejected.clear();
                self.not_before = None;
                refused.clear();
            }
            Conclusion::Refused(again) => {
                self.failure = None;
                self.denied = None;
                refused.retain(|doubt| doubt.mark != again.mark);
                refused.push(again);
            }
            Conclusion::Failed(error) => self.fail(now, patience, error),
            Conclusion::Unasked(Shut { until, why }) => {
                let row = self.failure.as_ref().map_or(0, |failure| failure.row);
                self.failure = Some(Failure { error: VaultError::Unavailable(why), at: now, row });
                self.not_before = Some(until);
            }
        }
        for doubt in refused {
            self.reject(now, doubt);
        }
        if instead.is_some() {
            self.value = instead;
        }
    }

    fn fail(&mut self, now: Instant, patience: Duration, error: VaultError) {
        let row = self.failure.as_ref().map_or(0, |failure| failure.row);
        self.not_before = Some(now + AFTER_FAILURE.wait(row));
        if let VaultError::Denied(_) = error {
            if let (Some(ends), Some(value)) = (self.bears_denial(now, patience), &mut self.value) {
                value.ends = ends;
                self.denied.get_or_insert(now);
            } else {
                self.value = None;
                self.previous = None;
            }
        }
        self.failure = Some(Failure { error, at: now, row: row.saturating_add(1) });
    }

    fn reject(&mut self, now: Instant, doubt: Doubt) {
        let known = self.rejected.iter().position(|rejected| rejected.doubt.mark == doubt.mark);
        let (met, at) = match known.map(|at| self.rejected.remove(at)) {
            Some(known) => (known.met, known.at),
            None => (0, now),
        };
        if self.value.as_ref().is_some_and(|value| value.mark == doubt.mark) {
            self.value = None;
        }
        if self.previous.as_ref().is_some_and(|previous| previous.token.has_mark(&doubt.mark)) {
            self.previous = None;
        }
        self.not_before = Some(now + AFTER_REJECTION.wait(met));
        if self.rejected.len() >= REMEMBERED {
            self.rejected.remove(0);
        }
        self.rejected.push(Rejected { doubt, met: met.saturating_add(1), at });
    }

    /// The value has come to its end.
    pub(super) fn drop_value(&mut self) {
        self.value = None;
        self.denied = None;
    }

    /// Whether a request that asks now has a prospect of a value.
    pub(super) fn is_usable(&self) -> bool {
        self.value.is_some() || (self.failure.is_none() && self.rejected.is_empty())
    }

    /// Its state, but for what the calendar says.
    pub(super) fn state(&self, now: Instant) -> State {
        if !self.rejected.is_empty() {
            return State::Rejected;
        }
        match (&self.value, self.failure()) {
            (Some(_), Some(_)) if self.denied.is_some() => State::Missing,
            (Some(value), Some(_)) if now.saturating_duration_since(value.read) >= value.fresh => {
                State::Stale
            }
            (Some(_), _) => State::Valid,
            (None, Some(VaultError::Unavailable(_))) => State::Unreachable,
            (None, Some(VaultError::Denied(_) | VaultError::Unusable(_))) => State::Missing,
            (None, None) => State::Unused,
        }
    }
}
