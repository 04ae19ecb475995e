//! Which of a rule's credentials a request gets.
//!
//! What comes in: the credentials of the rule that allowed it. What goes out: one of them, and another where
//! Azure DevOps refused that one. It must never give one that the rule does not name.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderName, header::RETRY_AFTER};

use super::Vaults;
use crate::{
    clock,
    config::{Credential, Credentials, Order},
};

/// The longest time that an answer's word on a budget is believed. Azure DevOps counts over five minutes.
const BELIEVED: Duration = Duration::from_mins(5);

/// What is granted, in Azure DevOps' own units of load.
/// <https://learn.microsoft.com/azure/devops/integrate/concepts/rate-limits>
const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");

/// What a budget has before anything is known of it: Azure DevOps says nothing as long as all is well.
const WHOLE: u32 = 1000;

/// One of a rule's credentials.
#[derive(Debug)]
pub struct Chosen {
    credentials: Arc<Credentials>,
    at: usize,
    /// Those that this request is done with.
    tried: Vec<usize>,
}

impl Chosen {
    /// The one that was chosen.
    pub(crate) fn credential(&self) -> &Arc<Credential> {
        let others = self.at.checked_sub(1).and_then(|at| self.credentials.others.get(at));
        others.unwrap_or(&self.credentials.first)
    }

    /// Whether there is but one.
    fn is_only(&self) -> bool {
        self.credentials.others.is_empty()
    }
}

impl Vaults {
    /// Chooses the credential of a request. Where none can be used it is the first, which will say why.
    pub(crate) fn choose(&self, credentials: Arc<Credentials>) -> Chosen {
        let mut chosen = Chosen { credentials, at: 0, tried: Vec::new() };
        if !chosen.is_only() {
            chosen.at = self.best(&chosen).unwrap_or_default();
        }
        chosen
    }

    /// Turns to another that can be used, if there is one that this request has not tried.
    pub(crate) fn choose_another(&self, chosen: &mut Chosen) -> bool {
        if chosen.is_only() {
            return false;
        }
        chosen.tried.push(chosen.at);
        let Some(at) = self.best(chosen) else { return false };
        chosen.at = at;
        true
    }

    /// Takes note of what Azure DevOps says is left for the identity of a credential.
    pub(crate) fn note_budget(&self, chosen: &Chosen, headers: &HeaderMap) {
        if !chosen.is_only()
            && let Some(left) = left(headers)
        {
            self.cache.budget(chosen.credential(), |budget| budget.note(clock::now(), left));
        }
    }

    fn best(&self, chosen: &Chosen) -> Option<usize> {
        let now = clock::now();
        let usable = chosen.credentials.iter().enumerate().filter(|(at, credential)| {
            !chosen.tried.contains(at)
                && self.cache.is_usable(credential)
                && self.standing.disabled(&credential.name).is_none()
        });
        match chosen.credentials.order {
            Order::AsWritten => usable.map(|(at, _)| at).next(),
            Order::RateBudget => {
                let turn = self.cache.turn();
                let count = chosen.credentials.others.len() + 1;
                let left = |credential: &Credential| {
                    self.cache.budget(credential, |budget| budget.left(now)).unwrap_or(WHOLE)
                };
                // Where as much is left, they take turns.
                usable
                    .max_by_key(|(at, credential)| (left(credential), (at + turn) % count))
                    .map(|(at, _)| at)
            }
        }
    }
}

/// What is left, in thousandths, and for how long that holds.
fn left(headers: &HeaderMap) -> Option<(u32, Duration)> {
    let number = |name: &HeaderName| headers.get(name)?.to_str().ok()?.parse::<f64>().ok();
    let remaining = number(&REMAINING)?;
    let limit = number(&LIMIT).filter(|limit| *limit > 0.0).unwrap_or(200.0);
    let holds = number(&RETRY_AFTER).filter(|seconds| (0.0..300.0).contains(seconds));
    let holds = holds.map_or(BELIEVED, Duration::from_secs_f64);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0..=1000")]
    let thousandths = (remaining / limit * f64::from(WHOLE)).clamp(0.0, f64::from(WHOLE)) as u32;
    Some((thousandths, holds))
}

/// What is left of what Azure DevOps grants an identity, as far as it has said.
#[derive(Debug)]
pub(super) struct Budget {
    begun: Instant,
    /// Thousandths that are used up (upper half), and the second since the beginning until when that holds.
    used: AtomicU64,
}

impl Budget {
    pub(super) fn new(now: Instant) -> Self {
        Self { begun: now, used: AtomicU64::new(0) }
    }

    fn note(&self, now: Instant, (left, holds): (u32, Duration)) {
        let until = u32::try_from(self.since_begun(now).saturating_add(holds).as_secs()).unwrap_or(u32::MAX);
        self.used.store(u64::from(WHOLE.saturating_sub(left)) << 32 | u64::from(until), Relaxed);
    }

    fn since_begun(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.begun)
    }

    fn left(&self, now: Instant) -> u32 {
        let noted = self.used.load(Relaxed);
        let (used, until) = (u32::try_from(noted >> 32).unwrap_or(WHOLE), noted & u64::from(u32::MAX));
        if self.since_begun(now).as_secs() >= until { WHOLE } else { WHOLE.saturating_sub(used) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), http::HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn a_budget_is_read_as_azure_devops_writes_it() {
        for (pairs, expected) in [
            (&[][..], None),
            (&[("retry-after", "3")], None),
            (&[("x-ratelimit-remaining", "50"), ("x-ratelimit-limit", "200")], Some((250, BELIEVED))),
            (&[("x-ratelimit-remaining", "100")], Some((500, BELIEVED))),
            (
                &[("x-ratelimit-remaining", "0"), ("x-ratelimit-limit", "200"), ("retry-after", "12")],
                Some((0, Duration::from_secs(12))),
            ),
            (&[("x-ratelimit-remaining", "900"), ("x-ratelimit-limit", "0")], Some((1000, BELIEVED))),
            (&[("x-ratelimit-remaining", "-7")], Some((0, BELIEVED))),
            (&[("x-ratelimit-remaining", "1"), ("retry-after", "1e99")], Some((5, BELIEVED))),
            (&[("x-ratelimit-remaining", "much")], None),
            (&[("x-ratelimit-remaining", "NaN")], Some((0, BELIEVED))),
        ] {
            assert_eq!(left(&headers(pairs)), expected, "{pairs:?}");
        }
    }

    #[test]
    fn what_was_said_of_a_budget_is_forgotten_in_time() {
        let now = clock::now();
        let budget = Budget::new(now);
        assert_eq!(budget.left(now), WHOLE);
        budget.note(now, (40, Duration::from_mins(1)));
        assert_eq!(budget.left(now), 40);
        assert_eq!(budget.left(now + Duration::from_secs(58)), 40);
        assert_eq!(budget.left(now + Duration::from_secs(61)), WHOLE);
    }
}
