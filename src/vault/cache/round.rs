//! What the clock asks for: reads before their time, endings, and what an operator is told without asking.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::Cache;
use crate::{
    clock,
    vault::{
        health::{Health, State},
        slot::{Care, Purpose, Slot},
    },
};

/// How often values are looked after.
const ROUND: Duration = Duration::from_secs(1);

/// For a look at files.
const LOOK: Duration = Duration::from_secs(1);

/// After a start, before the first word of an expiry: a process that is started again and again says nothing of it.
const FIRST_NOTICE: Duration = Duration::from_mins(1);

/// Between two words of the same expiry.
const NEXT_NOTICE: Duration = Duration::from_hours(24);

/// What ends a token without a word; Azure DevOps tells nobody.
const SILENT_ENDS: &str = "besides its own expiry, a token ends with its owner's account, after 90 days in which \
                           the owner did not sign in, and when a policy of the organization shortens lifetimes";

/// Looks after all credentials until the cache is gone.
pub(super) async fn look_after(cache: Weak<Cache>) {
    let mut rounds = interval(ROUND);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut notices = Notices::new(clock::now());
    let mut reasons = Reasons::default();
    loop {
        rounds.tick().await;
        let Some(cache) = cache.upgrade() else { return };
        let slots = cache.slots.load_full();
        for slot in slots.values() {
            let now = clock::now();
            slot.let_go(now);
            look_at(&cache, slot, now).await;
            let changed = slot.observe(now, clock::timestamp()).is_some();
            let health = slot.health(now, clock::timestamp());
            if reasons.are_new(&health) || changed {
                tell(&health);
            }
            if let Some(notice) =
                notices.due(&slot.credential.name, now, || health.notice(clock::timestamp()))
            {
                let (credential, owner) = (&slot.credential.name, slot.credential.owner.as_deref());
                tracing::warn!(%credential, owner, "the credential {credential} {notice}; {SILENT_ENDS}");
            }
        }
        reasons.0.retain(|credential, _| slots.contains_key(credential));
        cache.tidy().await;
    }
}

/// Why credentials are not as they should be, as it was told last: a vault that was dead and now is sealed has something
/// else wrong with it.
#[derive(Default)]
struct Reasons(HashMap<Arc<str>, Arc<str>>);

impl Reasons {
    fn are_new(&mut self, health: &Health) -> bool {
        let told = matches!(health.state, State::Stale | State::Unreachable | State::Missing);
        let Some(detail) = health.detail.as_ref().filter(|_| told) else { return false };
        self.0
            .insert(Arc::clone(&health.credential), Arc::clone(detail))
            .is_none_or(|before| before != *detail)
    }
}

/// Reads again what comes from files of this machine as soon as they look otherwise, until the cache is gone. Apart
/// from the other rounds: a file system that hangs keeps nothing else waiting.
pub(super) async fn watch_files(cache: Weak<Cache>) {
    let mut rounds = interval(ROUND);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        let Some(cache) = cache.upgrade() else { return };
        let slots = cache.slots.load_full();
        let looks = slots.values().map(|slot| async move {
            let changed = timeout(LOOK, slot.has_changed()).await.unwrap_or_default();
            changed.then_some(slot)
        });
        for slot in join_all(looks).await.into_iter().flatten() {
            cache.go_on(slot, slot.begin_anyway(), Purpose::Refresh);
        }
    }
}

/// Reads again what is in use before its time, drops what has come to its end.
async fn look_at(cache: &Arc<Cache>, slot: &Arc<Slot>, now: Instant) {
    match slot.care(now) {
        Care::Nothing => {}
        Care::Read(purpose) => {
            cache.begin(slot, purpose);
        }
        Care::Drop => {
            cache.put_away(slot).await;
        }
    }
}

/// One line for each change of state, or of its reason, not one for each read that failed.
fn tell(health: &Health) {
    let Health { credential, state, detail, .. } = health;
    let detail = detail.as_deref().unwrap_or("no more is known");
    match state {
        State::Valid => tracing::info!(%credential, "the credential {credential} is valid"),
        State::Unused => tracing::info!(%credential, "the credential {credential} is not in use"),
        // The day's notice says it; or the operation's own line did.
        State::Expiring | State::Expired | State::Disabled => {}
        State::Rejected => tracing::warn!(
            %credential,
            "Azure DevOps rejects the credential {credential}: {detail}; {SILENT_ENDS}"
        ),
        State::Stale => tracing::warn!(
            %credential,
            "the credential {credential} is stale: its last value is kept, for {detail}"
        ),
        State::Unreachable | State::Missing => {
            tracing::warn!(%credential, "the credential {credential} is {state}: {detail}");
        }
    }
}

/// When an expiry was last told, by the credential's name.
struct Notices {
    begun: Instant,
    told: HashMap<Arc<str>, Instant>,
}

impl Notices {
    fn new(begun: Instant) -> Self {
        Self { begun, told: HashMap::new() }
    }

    /// What is to be told of an expiry now: once a day.
    fn due(
        &mut self,
        credential: &Arc<str>,
        now: Instant,
        notice: impl FnOnce() -> Option<String>,
    ) -> Option<String> {
        let early = now.saturating_duration_since(self.begun) < FIRST_NOTICE;
        let told = self.told.get(credential);
        if early || told.is_some_and(|at| now.saturating_duration_since(*at) < NEXT_NOTICE) {
            return None;
        }
        let notice = notice()?;
        self.told.insert(Arc::clone(credential), now);
        Some(notice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expiry_is_told_once_a_day_and_not_at_each_start() {
        let begun = clock::now();
        let mut notices = Notices::new(begun);
        let (web, docs) = (Arc::from("web"), Arc::from("docs"));
        let mut told = Vec::new();
        for minute in 0..3 * 24 * 60 {
            let now = begun + Duration::from_mins(1) * minute;
            told.extend(notices.due(&web, now, || Some("expires".into())).map(|_| minute));
            assert!(notices.due(&docs, now, || None).is_none());
        }
        assert_eq!(told, [1, 1 + 24 * 60, 1 + 2 * 24 * 60]);
    }
}
