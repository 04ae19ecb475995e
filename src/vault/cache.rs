//! The values that are kept, and the reads that bring them.
//!
//! Workers look into a moka cache. What is missing or old is read by a task of the control thread, one
//! for each credential at a time, whoever and how many wait for it; a waiter that vanishes ends nothing.

use std::{
    collections::{BTreeMap, HashMap},
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use moka::policy::EvictionPolicy;
use tokio::{runtime::Handle, time::timeout};

use super::{
    FingerprintKey, Got, SecretSource, Token, VaultError,
    breaker::{Breakers, Shut},
    choice::Budget,
    fetch_token,
    health::Health,
    slot::{Begin, Doubt, Purpose, Slot},
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

/// For a turn among the reads of one vault. Whoever waits for a value is answered long before.
const IN_LINE: Duration = Duration::from_mins(1);

/// For an event to be on record.
const RECORDING: Duration = Duration::from_secs(10);

mod held;
mod read;
mod round;

use held::{Cell, Keep};
pub(super) use held::{Hand, Held};
use read::read;
pub(super) use read::{in_force, vault_read};

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

/// Why there is no value to use. Details are for the operator.
#[derive(Debug)]
pub(super) enum Withheld {
    Unavailable(Arc<str>),
    Missing(Arc<str>),
    Rejected(Arc<str>),
}

/// Why a read that somebody asked for brought no value.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Unrefreshed {
    /// The configuration has no credential of this name.
    #[error("there is no credential of this name")]
    Unknown,
    /// The vault gave none. What was there before is kept as after any other read.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The read did not end in time.
    #[error("the vault did not answer in time")]
    Late,
}

/// What a read that somebody asked for brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refreshed {
    /// The version, as the vault calls it, else the fingerprint.
    pub version: Arc<str>,
    /// Whether it is another value than before.
    pub changed: bool,
}

/// What one credential is read from.
pub(super) struct Place {
    pub(super) credential: Arc<Credential>,
    pub(super) source: Arc<dyn SecretSource>,
    pub(super) lifetime: Lifetime,
}

/// Why a read brought nothing.
#[derive(Debug)]
enum Trouble {
    Vault(VaultError),
    /// The vault is down, and was not asked.
    Unasked(Shut),
}

/// The values of all credentials, for all workers.
pub(super) struct Cache {
    cells: moka::future::Cache<u64, Arc<Cell>>,
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
        let cells = moka::future::Cache::builder()
            .max_capacity(MOST)
            .eviction_policy(EvictionPolicy::lru())
            .expire_after(Keep)
            .build();
        let (slots, ids, turns) = (ArcSwap::default(), AtomicU64::new(0), AtomicUsize::new(0));
        let cache = Arc::new(Self { cells, slots, control, record, key, ids, turns });
        cache.control.spawn(round::look_after(Arc::downgrade(&cache)));
        cache.control.spawn(round::watch_files(Arc::downgrade(&cache)));
        cache
    }

    /// Takes over another set of credentials. Those that mean the same as before keep what is known of them;
    /// the others are read.
    pub(super) fn place(self: &Arc<Self>, places: Vec<Place>) {
        let old = self.slots.load_full();
        let mut breakers = Breakers::of(old.values().map(|slot| (&slot.source, &slot.breaker)));
        let slots = places.into_iter().map(|Place { credential, source, lifetime }| {
            let name = Arc::clone(&credential.name);
            let kept =
                old.get(&name).filter(|slot| slot.serves(&credential) && Arc::ptr_eq(&slot.source, &source));
            let slot = if let Some(slot) = kept {
                slot.under(credential)
            } else {
                let id = self.ids.fetch_add(1, Ordering::Relaxed);
                let breaker = breakers.before(&source, || credential.source.giver());
                Slot::new(id, credential, source, breaker, lifetime)
            };
            (name, Arc::new(slot))
        });
        let slots: HashMap<_, _> = slots.collect();
        let new: Vec<_> = slots.values().cloned().collect();
        self.slots.store(Arc::new(slots));
        for slot in new {
            if old.get(&slot.credential.name).is_none_or(|before| before.id != slot.id) {
                self.begin(&slot, Purpose::Start);
            }
        }
        let gone: Vec<_> = old.values().filter(|slot| !self.is_placed(slot)).cloned().collect();
        let cache = Arc::clone(self);
        self.control.spawn(async move {
            for slot in gone {
                cache.put_away(&slot).await;
            }
        });
    }

    /// The value to use for a request.
    pub(super) async fn take(self: &Arc<Self>, credential: &Credential) -> Result<Arc<Held>, Withheld> {
        let slot = self.slot(credential).ok_or_else(|| {
            Withheld::Unavailable("the configuration of the credential changed meanwhile".into())
        })?;
        let held = match self.get(&slot).await {
            Some(held) if clock::now().saturating_duration_since(held.read) < held.fresh => Ok(held),
            held => self.wait(&slot, held).await,
        };
        // After the wait, for a read that ends counts uses from anew.
        slot.mark_used();
        held
    }

    /// Whether a request that takes this credential now has a prospect of a value. Takes no lock.
    pub(super) fn is_usable(&self, credential: &Credential) -> bool {
        let slots = self.slots.load();
        slots.get(&credential.name).is_some_and(|slot| slot.serves(credential) && slot.is_usable())
    }

    /// Looks at a credential's budget, if it has a place.
    pub(super) fn budget<T>(&self, credential: &Credential, at: impl FnOnce(&Budget) -> T) -> Option<T> {
        self.slot(credential).map(|slot| at(slot.budget()))
    }

    /// A number that is another each time, so that equals take turns.
    pub(super) fn turn(&self) -> usize {
        self.turns.fetch_add(1, Ordering::Relaxed)
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
        if let Some(held) = self.get(slot).await.filter(|held| held.is_kept()) {
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
            if let Some(held) = self.get(&slot).await
                && !held.token.is(used)
            {
                return true;
            }
            if slot.look(|condition| condition.has_rejected(&doubt.mark)) {
                return false;
            }
            let seen = slot.look(|condition| condition.reads);
            let (begin, same) = slot.begin_doubting(&doubt);
            self.go_on(&slot, begin, Purpose::Rejected);
            let ended = changes.wait_for(|condition| condition.reads > seen);
            let _ = timeout(slot.lifetime.deadline.saturating_add(GRACE), ended).await;
            if begin == Begin::Mine || same {
                break;
            }
        }
        self.get(&slot).await.is_some_and(|held| !held.token.is(used))
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
            Some(slot) => slot.probe().once(used.mark(), probe).await,
            None => true,
        }
    }

    /// See [`super::Vaults::refresh`].
    pub(super) async fn refresh(self: &Arc<Self>, name: &str) -> Result<Refreshed, Unrefreshed> {
        let slot = self.slots.load().get(name).cloned().ok_or(Unrefreshed::Unknown)?;
        let mut changes = slot.watch();
        let mark = || slot.look(|condition| condition.value().map(|value| value.mark));
        let before = mark();
        // As above: what a read that began before brings may be older than the question.
        for _ in 0..2 {
            let seen = slot.look(|condition| condition.reads);
            let begin = self.go_on(&slot, slot.begin_anyway(), Purpose::Asked);
            let ended = changes.wait_for(|condition| condition.reads > seen);
            let patience = slot.lifetime.deadline.saturating_mul(2) + GRACE;
            timeout(patience, ended).await.map_err(|_| Unrefreshed::Late)?.map_err(|_| Unrefreshed::Late)?;
            if begin == Begin::Mine {
                break;
            }
        }
        slot.look(|condition| match (condition.failure(), condition.value()) {
            (Some(error), _) => Err(error.clone().into()),
            (None, Some(value)) => {
                Ok(Refreshed { version: Arc::clone(&value.version), changed: Some(value.mark) != before })
            }
            (None, None) => Err(Unrefreshed::Late),
        })
    }

    /// In the order of the names.
    pub(super) fn health(&self) -> Vec<Health> {
        let (now, wall) = (clock::now(), clock::timestamp());
        let slots = self.slots.load();
        let sorted: BTreeMap<_, _> =
            slots.iter().map(|(name, slot)| (Arc::clone(name), slot.health(now, wall))).collect();
        sorted.into_values().collect()
    }

    fn slot(&self, credential: &Credential) -> Option<Arc<Slot>> {
        // A request that was decided on by the configuration before must not get another secret by the same name.
        let slots = self.slots.load();
        let slot = slots.get(&credential.name).filter(|slot| slot.serves(credential))?;
        // What may go elsewhere now may be another secret, though it has the same name.
        (slot.credential.organizations == credential.organizations).then(|| Arc::clone(slot))
    }

    /// Whether the configuration still has it.
    fn is_placed(&self, slot: &Slot) -> bool {
        self.slots.load().get(&slot.credential.name).is_some_and(|placed| placed.id == slot.id)
    }

    fn begin(self: &Arc<Self>, slot: &Arc<Slot>, purpose: Purpose) -> Begin {
        self.go_on(slot, slot.begin(clock::now()), purpose)
    }

    /// Reads what is this task's to read.
    fn go_on(self: &Arc<Self>, slot: &Arc<Slot>, begin: Begin, purpose: Purpose) -> Begin {
        if begin == Begin::Mine {
            self.control.spawn(read(Arc::clone(self), Arc::clone(slot), purpose));
        }
        begin
    }

    /// What stands there for a credential, fresh or not.
    async fn get(&self, slot: &Slot) -> Option<Arc<Held>> {
        // A cell that was emptied since moka gave it out has a successor, if there is any value.
        for _ in 0..2 {
            if let Some(held) = self.cells.get(&slot.id).await?.held.load_full() {
                return Some(held);
            }
        }
        None
    }

    /// Puts a value where workers look. It stays for as long as the hand on it.
    async fn put(&self, slot: &Slot, held: Held) -> Hand {
        let ends = held.ends;
        let cell = Arc::new(Cell { held: ArcSwapOption::from_pointee(held), ends });
        self.cells.insert(slot.id, Arc::clone(&cell)).await;
        Hand(cell)
    }

    /// Ends a credential's value.
    async fn put_away(&self, slot: &Slot) {
        self.cells.invalidate(&slot.id).await;
        slot.dropped();
        self.tidy().await;
    }

    /// moka's house-keeping.
    async fn tidy(&self) {
        self.cells.run_pending_tasks().await;
    }

    /// Reads a vault once, unless it is down.
    async fn fetch(&self, slot: &Slot, purpose: Purpose) -> Result<Got, Trouble> {
        let Ok(Some(_turn)) = timeout(IN_LINE, slot.breaker.turn()).await else {
            let why = "other reads of this vault took all the time there was";
            return Err(Trouble::Vault(VaultError::Unavailable(why.into())));
        };
        // Asked only now: the vault may have been found to be down meanwhile.
        let pass = slot.breaker.enter(clock::now(), slot.id, purpose == Purpose::Asked);
        let pass = pass.map_err(Trouble::Unasked)?;
        let fetch = fetch_token(&*slot.source, &slot.credential.source, &self.key);
        let got = timeout(slot.lifetime.deadline, fetch).await.unwrap_or_else(|_| {
            Err(VaultError::Unavailable(format!("nothing within {:?}", slot.lifetime.deadline).into()))
        });
        match &got {
            Err(VaultError::Unavailable(why)) => pass.silent(clock::now(), why),
            _ => pass.answered(),
        }
        got.and_then(read::in_force).map_err(Trouble::Vault)
    }

    async fn record(&self, event: Event) -> Result<(), VaultError> {
        let recorded = timeout(RECORDING, self.record.record(event)).await;
        let recorded = recorded.unwrap_or_else(|_| Err("the audit did not answer".to_owned()));
        recorded.map_err(|why| VaultError::Unavailable(format!("its read is not on record: {why}").into()))
    }
}

#[cfg(test)]
mod tests;
