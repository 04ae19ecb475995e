//! The values that are kept, and the reads that bring them.
//!
//! Workers look into a moka cache. What is missing or old is read by a task of the control thread, one
//! for each credential at a time, whoever and how many wait for it; a waiter that vanishes ends nothing.

use std::{
    collections::{BTreeMap, HashMap},
    future::Future,
    pin::Pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use moka::{Expiry, policy::EvictionPolicy};
use tokio::{
    runtime::Handle,
    time::{MissedTickBehavior, interval, timeout},
};

use super::{
    FingerprintKey, Got, SecretSource, Token, VaultError,
    choice::Budget,
    fetch_token,
    slot::{Begin, Care, Doubt, Purpose, Slot},
};
use crate::{
    audit::{Audit, Event},
    clock,
    config::{Credential, Lifetime},
};

/// Far more than anybody configures.
const MOST: u64 = 100_000;

/// What a waiter grants on top of the vault's own deadline.
const GRACE: Duration = Duration::from_secs(1);

/// For an event to be on record.
const RECORDING: Duration = Duration::from_secs(10);

/// How often values are looked after.
const ROUND: Duration = Duration::from_secs(1);

mod read;

use read::read;
pub(super) use read::vault_read;

/// Where reads that serve no single request are recorded.
pub(crate) trait Record: Send + Sync {
    /// Waits until it is durable. The error is a sentence.
    fn record(&self, event: Event) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + '_>>;
}

impl Record for Audit {
    fn record(&self, event: Event) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + '_>> {
        Box::pin(async move { self.event(event).await.map_err(|error| error.to_string()) })
    }
}

/// A value that may be used.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) token: Arc<Token>,
    /// As the vault calls it, else the fingerprint.
    pub(super) version: Arc<str>,
    read: Instant,
    fresh: Duration,
    keep: Duration,
}

/// Why there is no value to use. Details are for the operator.
#[derive(Debug)]
pub(super) enum Withheld {
    Unavailable(Arc<str>),
    Missing(Arc<str>),
    Rejected(Arc<str>),
}

/// moka's own clock ends a value even where nobody looks after it.
struct Keep;

impl Expiry<u64, Arc<Held>> for Keep {
    fn expire_after_create(&self, _: &u64, held: &Arc<Held>, _: Instant) -> Option<Duration> {
        Some(held.keep)
    }
    fn expire_after_update(
        &self,
        _: &u64,
        held: &Arc<Held>,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(held.keep)
    }
}

/// What one credential is read from.
pub(super) struct Place {
    pub(super) credential: Arc<Credential>,
    pub(super) source: Arc<dyn SecretSource>,
    pub(super) lifetime: Lifetime,
}

/// The values of all credentials, for all workers.
pub(super) struct Cache {
    held: moka::future::Cache<u64, Arc<Held>>,
    slots: ArcSwap<HashMap<Arc<str>, Arc<Slot>>>,
    control: Handle,
    record: Box<dyn Record>,
    key: FingerprintKey,
    ids: AtomicU64,
    turns: AtomicUsize,
}

impl Cache {
    /// An empty one, looked after by `control`.
    pub(super) fn new(control: Handle, record: Box<dyn Record>, key: FingerprintKey) -> Arc<Self> {
        let held = moka::future::Cache::builder()
            .max_capacity(MOST)
            .eviction_policy(EvictionPolicy::lru())
            .expire_after(Keep)
            .build();
        let (slots, ids, turns) = (ArcSwap::default(), AtomicU64::new(0), AtomicUsize::new(0));
        let cache = Arc::new(Self { held, slots, control, record, key, ids, turns });
        cache.control.spawn(look_after(Arc::downgrade(&cache)));
        cache
    }

    /// Takes over another set of credentials. Those that mean the same as before keep what is known of them;
    /// the others are read.
    pub(super) fn place(self: &Arc<Self>, places: Vec<Place>) {
        let old = self.slots.load_full();
        let slots = places.into_iter().map(|Place { credential, source, lifetime }| {
            let name = Arc::clone(&credential.name);
            let kept =
                old.get(&name).filter(|slot| slot.serves(&credential) && Arc::ptr_eq(&slot.source, &source));
            let slot = kept.cloned().unwrap_or_else(|| {
                let id = self.ids.fetch_add(1, Ordering::Relaxed);
                Arc::new(Slot::new(id, credential, source, lifetime))
            });
            (name, slot)
        });
        let slots: HashMap<_, _> = slots.collect();
        let new: Vec<_> = slots.values().cloned().collect();
        self.slots.store(Arc::new(slots));
        for slot in new {
            if old.get(&slot.credential.name).is_none_or(|before| before.id != slot.id) {
                self.begin(&slot, Purpose::Start);
            }
        }
        let gone: Vec<u64> = old.values().filter(|slot| !self.is_placed(slot)).map(|slot| slot.id).collect();
        let held = self.held.clone();
        self.control.spawn(async move {
            for id in gone {
                held.invalidate(&id).await;
            }
        });
    }

    /// The value to use for a request.
    pub(super) async fn take(self: &Arc<Self>, credential: &Credential) -> Result<Arc<Held>, Withheld> {
        let slot = self.slot(credential).ok_or_else(|| {
            Withheld::Unavailable("the configuration of the credential changed meanwhile".into())
        })?;
        let held = match self.held.get(&slot.id).await {
            Some(held) if clock::now().saturating_duration_since(held.read) < held.fresh => Ok(held),
            held => self.wait(&slot, held).await,
        };
        // After the wait, for a read that ends counts uses from anew.
        slot.mark_used();
        held
    }

    /// Begins a read where one is due, and waits for it, but not where an old value bridges the vault's trouble.
    async fn wait(self: &Arc<Self>, slot: &Arc<Slot>, old: Option<Arc<Held>>) -> Result<Arc<Held>, Withheld> {
        let mut changes = slot.watch();
        let (seen, in_trouble) = slot.look(|condition| (condition.reads, condition.failure().is_some()));
        let bridged = in_trouble && old.as_deref().is_some_and(Held::is_kept);
        // Where no request gets what is read, the read has a record of its own.
        let purpose = if slot.look(|condition| condition.rejected().is_some()) {
            Purpose::Rejected
        } else if bridged {
            Purpose::Refresh
        } else {
            Purpose::Request
        };
        let begin = self.begin(slot, purpose);
        if begin != Begin::TooSoon && !bridged {
            let ended = changes.wait_for(|condition| condition.reads > seen);
            let _ = timeout(slot.lifetime.deadline.saturating_add(GRACE), ended).await;
        }
        if let Some(held) = self.held.get(&slot.id).await.filter(|held| held.is_kept()) {
            return Ok(held);
        }
        Err(slot.look(|condition| {
            if let Some(doubt) = condition.rejected() {
                return Withheld::Rejected(Arc::clone(&doubt.reason));
            }
            match condition.failure() {
                Some(error @ VaultError::Unavailable(_)) => Withheld::Unavailable(error.to_string().into()),
                Some(error) => Withheld::Missing(error.to_string().into()),
                None => Withheld::Unavailable("the vault did not answer in time".into()),
            }
        }))
    }

    /// See [`super::Vaults::rejected`].
    pub(super) async fn rejected(
        self: &Arc<Self>,
        credential: &Credential,
        used: &Token,
        reason: &str,
    ) -> bool {
        let Some(slot) = self.slot(credential) else { return false };
        let doubt = Doubt { mark: used.mark(), reason: reason.into() };
        let mut changes = slot.watch();
        // Once for a read that began before, once for our own.
        for _ in 0..2 {
            if let Some(held) = self.held.get(&slot.id).await
                && !held.token.is(used)
            {
                return true;
            }
            if slot.look(|condition| condition.rejected().is_some_and(|known| known.mark == doubt.mark)) {
                return false;
            }
            let seen = slot.look(|condition| condition.reads);
            let (begin, same) = slot.begin_doubting(&doubt);
            if begin == Begin::Mine {
                self.control.spawn(read(Arc::clone(self), Arc::clone(&slot), Purpose::Rejected));
            }
            let ended = changes.wait_for(|condition| condition.reads > seen);
            let _ = timeout(slot.lifetime.deadline.saturating_add(GRACE), ended).await;
            if begin == Begin::Mine || same {
                break;
            }
        }
        self.held.get(&slot.id).await.is_some_and(|held| !held.token.is(used))
    }

    /// See [`super::Vaults::refresh`].
    pub(super) async fn refresh(self: &Arc<Self>, name: &str) -> Result<(), Arc<str>> {
        let slot = self.slots.load().get(name).cloned();
        let slot = slot.ok_or("the configuration does not have it any more")?;
        let mut changes = slot.watch();
        // Once for a read that began before, and may have seen what was there before; once for our own.
        for _ in 0..2 {
            let seen = slot.look(|condition| condition.reads);
            let begin = self.begin(&slot, Purpose::Refresh);
            if begin == Begin::TooSoon {
                return Err("the vault failed a moment ago".into());
            }
            let ended = changes.wait_for(|condition| condition.reads > seen);
            if timeout(slot.lifetime.deadline.saturating_add(GRACE), ended).await.is_err() {
                return Err("the vault did not answer in time".into());
            }
            if begin == Begin::Mine {
                break;
            }
        }
        slot.look(|condition| condition.failure().map_or(Ok(()), |error| Err(error.to_string().into())))
    }

    /// What fingerprints are keyed with.
    pub(super) fn fingerprint_key(&self) -> FingerprintKey {
        self.key.clone()
    }

    /// See [`super::Vaults::probe_once`].
    pub(super) async fn probe_once<F>(&self, credential: &Credential, used: &Token, probe: F) -> bool
    where
        F: Future<Output = bool>,
    {
        match self.slot(credential) {
            Some(slot) => slot.probe.once(used.mark(), probe).await,
            None => true,
        }
    }

    /// Names and conditions, in the order of the names.
    pub(super) fn health(&self) -> Vec<(Arc<str>, &'static str)> {
        let now = clock::now();
        let slots = self.slots.load();
        let sorted: BTreeMap<_, _> =
            slots.iter().map(|(name, slot)| (Arc::clone(name), slot.health(now))).collect();
        sorted.into_iter().collect()
    }

    /// Whether a request that takes this credential now is likely to get a value.
    pub(super) fn is_usable(&self, credential: &Credential) -> bool {
        self.slot(credential).is_some_and(|slot| slot.is_usable())
    }

    /// Looks at a credential's budget, if it has a place.
    pub(super) fn budget<T>(&self, credential: &Credential, at: impl FnOnce(&Budget) -> T) -> Option<T> {
        self.slot(credential).map(|slot| at(&slot.budget))
    }

    /// A number that is another each time, so that equals take turns.
    pub(super) fn turn(&self) -> usize {
        self.turns.fetch_add(1, Ordering::Relaxed)
    }

    fn slot(&self, credential: &Credential) -> Option<Arc<Slot>> {
        // A request that was decided on by the configuration before must not get another secret by the same name.
        self.slots.load().get(&credential.name).filter(|slot| slot.serves(credential)).cloned()
    }

    /// Whether the configuration still has it.
    fn is_placed(&self, slot: &Slot) -> bool {
        self.slots.load().get(&slot.credential.name).is_some_and(|placed| placed.id == slot.id)
    }

    fn begin(self: &Arc<Self>, slot: &Arc<Slot>, purpose: Purpose) -> Begin {
        let begin = slot.begin(clock::now());
        if begin == Begin::Mine {
            self.control.spawn(read(Arc::clone(self), Arc::clone(slot), purpose));
        }
        begin
    }

    async fn fetch(&self, slot: &Slot) -> Result<Got, VaultError> {
        let fetch = fetch_token(&*slot.source, &slot.credential.source, &self.key);
        timeout(slot.lifetime.deadline, fetch).await.unwrap_or_else(|_| {
            Err(VaultError::Unavailable(format!("nothing within {:?}", slot.lifetime.deadline).into()))
        })
    }

    async fn record(&self, event: Event) -> Result<(), VaultError> {
        let recorded = timeout(RECORDING, self.record.record(event)).await;
        let recorded = recorded.unwrap_or_else(|_| Err("the audit did not answer".to_owned()));
        recorded.map_err(|why| VaultError::Unavailable(format!("its read is not on record: {why}").into()))
    }
}

impl Held {
    fn is_kept(&self) -> bool {
        clock::now().saturating_duration_since(self.read) < self.keep
    }
}

/// Reads again what is in use before its time, drops what has come to its end.
async fn look_after(cache: Weak<Cache>) {
    let mut rounds = interval(ROUND);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        let Some(cache) = cache.upgrade() else { return };
        let slots = cache.slots.load_full();
        for slot in slots.values() {
            match slot.care(clock::now()) {
                Care::Nothing => {}
                Care::Read(purpose) => {
                    cache.begin(slot, purpose);
                }
                Care::Drop => {
                    cache.held.invalidate(&slot.id).await;
                    slot.dropped();
                }
            }
        }
        // moka keeps what was removed until somebody does its house-keeping: secrets would linger.
        cache.held.run_pending_tasks().await;
    }
}

#[cfg(test)]
mod tests;
