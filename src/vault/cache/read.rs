//! One read of a vault for one credential, from its beginning to what comes of it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::sleep;

use super::{Cache, Held};
use crate::{
    audit::Event,
    clock,
    config::Credential,
    vault::{
        Got, VaultError,
        slot::{Conclusion, Doubt, Purpose, Slot},
    },
};

/// Between a denial and the read that confirms it: a file that is being replaced is there again by then.
const CONFIRMATION: Duration = Duration::from_millis(500);

/// Reads a vault once for one credential, and says what comes of it.
pub(super) async fn read(cache: Arc<Cache>, slot: Arc<Slot>, purpose: Purpose) {
    let mut unended = Unended(Some(&slot));
    let started = clock::now();
    let mut got = cache.fetch(&slot).await;
    if matches!(got, Err(VaultError::Denied(_))) && cache.held.contains_key(&slot.id) {
        sleep(CONFIRMATION).await;
        got = cache.fetch(&slot).await;
    }
    if let Some(purpose) = purpose.on_record()
        && let Err(error) = cache.record(vault_read(&slot.credential, purpose, &got)).await
    {
        // A value whose read is not on record is not used; any other answer stands.
        got = got.and(Err(error));
    }
    let conclusion = match got {
        Ok(got) => match slot.refuses(clock::now(), &got.token) {
            Some(doubt) => Conclusion::Refused(doubt),
            None => keep(&cache, &slot, got, started).await,
        },
        Err(error) => Conclusion::Failed(error),
    };
    end_refused(&cache, &slot, &conclusion).await;
    unended.0 = None;
    slot.conclude(clock::now(), conclusion);
}

async fn keep(cache: &Cache, slot: &Slot, got: Got, read: Instant) -> Conclusion {
    let Got { token, version, .. } = got;
    let version = version.unwrap_or_else(|| Arc::clone(token.fingerprint()));
    let (fresh, keep) = (slot.lifetime.refresh, slot.keep());
    let held = Held { token: Arc::new(token), version, read, fresh, keep };
    cache.held.insert(slot.id, Arc::new(held)).await;
    // The configuration may have lost it meanwhile, and nobody would put the value away.
    if !cache.is_placed(slot) {
        cache.held.invalidate(&slot.id).await;
    }
    Conclusion::Good { read }
}

/// Puts away a value that may no longer be used, and says so in the audit the first time.
async fn end_refused(cache: &Cache, slot: &Slot, conclusion: &Conclusion) {
    let doubt = match conclusion {
        Conclusion::Good { .. } => return,
        Conclusion::Refused(doubt) => Some(doubt.clone()),
        Conclusion::Failed(_) => slot.doubt(),
    };
    let denied = matches!(conclusion, Conclusion::Failed(VaultError::Denied(_)));
    let held = cache.held.get(&slot.id).await;
    if denied || doubt.is_some() {
        cache.held.invalidate(&slot.id).await;
    }
    let known = |doubt: &Doubt| slot.look(|now| now.rejected().is_some_and(|old| old.mark == doubt.mark));
    if let Some(doubt) = doubt.filter(|doubt| !known(doubt)) {
        let version = held.map(|held| Arc::clone(&held.version));
        let (credential, reason) = (Arc::clone(&slot.credential.name), (*doubt.reason).into());
        let event = Event::CredentialRejected { credential, version, reason };
        if let Err(error) = cache.record(event).await {
            tracing::warn!(credential = %slot.credential.name, %error, "a rejection is not on record");
        }
    }
    if let Conclusion::Failed(error) = conclusion {
        tracing::warn!(credential = %slot.credential.name, vault = %slot.credential.source.giver(), %error, "no secret");
    }
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
            slot.conclude(clock::now(), Conclusion::Failed(broke_off));
        }
    }
}
