//! One read of a vault for one credential, from its beginning to what comes of it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::time::{sleep, timeout};

use super::{Cache, Held, Trouble};
use crate::{
    audit::Event,
    clock,
    config::Credential,
    vault::{
        Got, Token, VaultError, fetch_previous,
        slot::{Conclusion, Doubt, Kept, Previous, Purpose, Slot},
    },
};

/// Between a denial and the read that confirms it: a file that is being replaced is there again by then.
const CONFIRMATION: Duration = Duration::from_millis(500);

/// The least time between two reads of a value that ends by itself.
const LEAST: Duration = Duration::from_secs(10);

/// Reads a vault once for one credential, and says what comes of it.
pub(super) async fn read(cache: Arc<Cache>, slot: Arc<Slot>, purpose: Purpose) {
    let mut unended = Unended(Some(&slot));
    let started = clock::now();
    // What changes after this look is read once more.
    let _ = timeout(slot.lifetime.deadline, slot.stamp()).await;
    let mut got = cache.fetch(&slot, purpose).await;
    if matches!(got, Err(Trouble::Vault(VaultError::Denied(_)))) && cache.get(&slot).await.is_some() {
        sleep(CONFIRMATION).await;
        got = cache.fetch(&slot, purpose).await;
    }
    let got = match got {
        Err(Trouble::Unasked(shut)) => Err(Conclusion::Unasked(shut)),
        Err(Trouble::Vault(error)) => recorded(&cache, &slot, purpose, Err(error)).await,
        Ok(got) => recorded(&cache, &slot, purpose, Ok(got)).await,
    };
    let conclusion = match got {
        Ok(got) => match slot.refuses(clock::now(), &got.token, purpose == Purpose::Asked) {
            Some(doubt) => Conclusion::Refused(doubt),
            None => keep(&cache, &slot, got, started).await,
        },
        Err(conclusion) => conclusion,
    };
    let instead = end_refused(&cache, &slot, &conclusion).await;
    unended.0 = None;
    slot.conclude(clock::now(), conclusion, instead);
    // The configuration may have lost it meanwhile, and nobody would put the value away.
    if !cache.is_placed(&slot) {
        cache.put_away(&slot).await;
    }
    cache.tidy().await;
}

/// Puts a read on record. A value whose read is not on record is not used; any other answer stands.
async fn recorded(
    cache: &Cache,
    slot: &Slot,
    purpose: Purpose,
    got: Result<Got, VaultError>,
) -> Result<Got, Conclusion> {
    let Some(purpose) = purpose.on_record() else { return got.map_err(Conclusion::Failed) };
    let recorded = cache.record(vault_read(&slot.credential, purpose, &got)).await;
    got.and_then(|got| recorded.map(|()| got)).map_err(Conclusion::Failed)
}

async fn keep(cache: &Cache, slot: &Slot, got: Got, read: Instant) -> Conclusion {
    let now = clock::now();
    let before = cache.get(slot).await;
    let previous = previous(slot, before.as_deref(), &got.token, now);
    let longest = slot.lifetime.refresh.saturating_add(slot.lifetime.stale_for);
    let left = got.facts.expires.map_or(Duration::MAX, |expires| left(expires, clock::timestamp()));
    let fresh = slot.lifetime.refresh.min((left / 4 * 3).max(LEAST).min(left));
    let ends = (read + longest).min(now.checked_add(left).unwrap_or(read + longest));
    let (mark, token) = (got.token.mark(), Arc::new(got.token));
    let version = got.version.unwrap_or_else(|| Arc::clone(token.fingerprint()));
    let hand = cache.put(slot, Held { token, version: Arc::clone(&version), read, fresh, ends }).await;
    let kept = Kept {
        _hand: hand,
        mark,
        version,
        read,
        read_at: clock::timestamp(),
        fresh,
        ends,
        expires: got.facts.expires,
        previous: false,
    };
    Conclusion::Good(kept, previous)
}

/// What may serve again should Azure DevOps refuse the value that was just read.
fn previous(slot: &Slot, before: Option<&Held>, new: &Token, now: Instant) -> Option<Previous> {
    let known = slot.look(|condition| condition.previous().cloned());
    let known = known.filter(|known| known.ends > now && !known.token.is(new));
    let Some(before) = before.filter(|before| !before.token.is(new)) else { return known };
    let (in_grace, doubted, expires) = slot.look(|condition| {
        let value = condition.value();
        let in_grace = value.is_some_and(|value| value.previous);
        (in_grace, condition.is_doubted(&before.token.mark()), value.and_then(|value| value.expires))
    });
    let grace = slot.credential.previous_grace;
    if in_grace || doubted || grace.is_zero() {
        return known;
    }
    let (token, version) = (Arc::clone(&before.token), Arc::clone(&before.version));
    Some(Previous { token, version, expires, ends: before.ends.min(now + grace) })
}

/// Puts away what may no longer be used, and says so in the audit the first time. Gives what stands in its place, if
/// the one before it may serve.
async fn end_refused(cache: &Cache, slot: &Slot, conclusion: &Conclusion) -> Option<Kept> {
    let denied = matches!(conclusion, Conclusion::Failed(VaultError::Denied(_)));
    let again = match conclusion {
        Conclusion::Good(..) => return None,
        Conclusion::Refused(again) => Some(again.clone()),
        Conclusion::Failed(_) | Conclusion::Unasked(_) => None,
    };
    let held = cache.get(slot).await;
    if denied && slot.bears_denial(clock::now()).is_none() {
        cache.cells.invalidate(&slot.id).await;
    }
    let in_doubt = slot.doubt().filter(|doubt| again.as_ref().is_none_or(|again| again.mark != doubt.mark));
    for doubt in in_doubt.iter().chain(&again) {
        end_one(cache, slot, doubt, held.as_deref()).await;
    }
    // A vault that says "gone" ends the one before as well.
    if denied || cache.get(slot).await.is_some() {
        return None;
    }
    fall_back(cache, slot, &again.or(in_doubt)?).await
}

async fn end_one(cache: &Cache, slot: &Slot, doubt: &Doubt, held: Option<&Held>) {
    let refused = held.filter(|held| held.token.has_mark(&doubt.mark));
    if refused.is_some() {
        cache.cells.invalidate(&slot.id).await;
    }
    if slot.look(|condition| condition.has_rejected(&doubt.mark)) {
        return;
    }
    let version = refused.map(|held| Arc::clone(&held.version));
    let (credential, reason) = (Arc::clone(&slot.credential.name), (*doubt.reason).into());
    if let Err(error) = cache.record(Event::CredentialRejected { credential, version, reason }).await {
        tracing::warn!(credential = %slot.credential.name, %error, "a rejection is not on record");
    }
}

/// Goes back to the value before a refused one, within its grace and on record.
async fn fall_back(cache: &Cache, slot: &Slot, refused: &Doubt) -> Option<Kept> {
    let now = clock::now();
    let previous = match slot.before(now, refused) {
        Some(previous) => previous,
        None => earlier(cache, slot, refused).await?,
    };
    let (read_at, left) = (clock::timestamp(), previous.ends.saturating_duration_since(now));
    let event = Event::CredentialPrevious {
        credential: Arc::clone(&slot.credential.name),
        version: Arc::clone(&previous.version),
        until: read_at.checked_add(left).unwrap_or(read_at),
    };
    if let Err(error) = cache.record(event).await {
        tracing::warn!(credential = %slot.credential.name, %error, "the version before is not used");
        return None;
    }
    let Previous { token, version, expires, ends } = previous;
    let mark = token.mark();
    let held = Held { token, version: Arc::clone(&version), read: now, fresh: left, ends };
    let hand = cache.put(slot, held).await;
    Some(Kept { _hand: hand, mark, version, read: now, read_at, fresh: left, ends, expires, previous: true })
}

/// Asks the vault for the version before, where patgate itself has not seen it.
async fn earlier(cache: &Cache, slot: &Slot, refused: &Doubt) -> Option<Previous> {
    let ends = slot.grace_of(clock::now(), &refused.mark)?;
    let fetch = fetch_previous(&*slot.source, &slot.credential.source, &cache.key);
    let silent = |_| Err(VaultError::Unavailable("nothing in time".into()));
    let got = timeout(slot.lifetime.deadline, fetch).await.unwrap_or_else(silent).and_then(in_force);
    cache.record(vault_read(&slot.credential, "previous", &got)).await.ok()?;
    let Got { token, version, facts } = got.ok()?;
    if token.has_mark(&refused.mark) || slot.look(|condition| condition.is_doubted(&token.mark())) {
        return None;
    }
    let version = version.unwrap_or_else(|| Arc::clone(token.fingerprint()));
    let now = clock::now();
    let over = facts.expires.and_then(|expires| now.checked_add(left(expires, clock::timestamp())));
    let ends = over.map_or(ends, |over| ends.min(over));
    Some(Previous { token: Arc::new(token), version, expires: facts.expires, ends })
}

/// What is left until a moment.
fn left(until: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(until.duration_since(now)).unwrap_or_default()
}

/// Refuses what is not good yet, or no longer, whichever vault it comes from.
pub(in crate::vault) fn in_force(got: Got) -> Result<Got, VaultError> {
    let now = clock::timestamp();
    if let Some(expires) = got.facts.expires.filter(|expires| *expires <= now) {
        return Err(VaultError::Denied(format!("it expired on {expires}").into()));
    }
    if let Some(from) = got.facts.not_before.filter(|from| *from > now) {
        return Err(VaultError::Denied(format!("it is good from {from} on").into()));
    }
    Ok(got)
}

/// The event for a read that serves no single request.
pub(in crate::vault) fn vault_read(
    credential: &Credential,
    purpose: &'static str,
    got: &Result<Got, VaultError>,
) -> Event {
    let (version, outcome) = match got {
        Ok(got) => (Some(got.version.as_ref().unwrap_or(got.token.fingerprint()).clone()), "read"),
        Err(VaultError::Unavailable(_)) => (None, "unavailable"),
        Err(VaultError::Denied(_)) => (None, "denied"),
        Err(VaultError::Unusable(_)) => (None, "unusable"),
    };
    let (vault, credential) = (credential.source.giver(), Arc::clone(&credential.name));
    Event::VaultRead { vault, credential, version, purpose, outcome }
}

/// A read that breaks off (a panic, the end of the control thread) is a failed read: nobody waits for it forever.
struct Unended<'a>(Option<&'a Arc<Slot>>);

impl Drop for Unended<'_> {
    fn drop(&mut self) {
        if let Some(slot) = self.0 {
            let broke_off = VaultError::Unavailable("the read broke off".into());
            slot.conclude(clock::now(), Conclusion::Failed(broke_off), None);
        }
    }
}
