//! The cache before a vault under the tests' control, with paused time.

use std::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicUsize},
};

use tokio::time::{advance, sleep};

use super::*;
use crate::{
    config::CredentialSource,
    vault::{Facts, Fetch, Fetched, State},
};

mod denial;
mod grace;
mod health;
mod memory;
mod outage;
mod reads;
mod rejection;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);

/// A vault under the test's control: it answers after a second.
struct Lab {
    answer: Mutex<Result<&'static str, VaultError>>,
    previous: Mutex<Option<&'static str>>,
    facts: Mutex<Facts>,
    hangs: AtomicBool,
    calls: AtomicUsize,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
}

impl Lab {
    fn new(answer: Result<&'static str, VaultError>) -> Arc<Self> {
        Arc::new(Self {
            answer: Mutex::new(answer),
            previous: Mutex::default(),
            facts: Mutex::default(),
            hangs: AtomicBool::new(false),
            calls: AtomicUsize::new(0),
            at_once: AtomicUsize::new(0),
            most_at_once: AtomicUsize::new(0),
        })
    }
    fn set(&self, answer: Result<&'static str, VaultError>) {
        *self.answer.lock().unwrap() = answer;
    }
    fn set_previous(&self, value: &'static str) {
        *self.previous.lock().unwrap() = Some(value);
    }
    fn expires_in(&self, time: Duration) {
        self.facts.lock().unwrap().expires = clock::timestamp().checked_add(time).ok();
    }
    fn hang(&self, hangs: bool) {
        self.hangs.store(hangs, Ordering::SeqCst);
    }
    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

/// Counts a call as under way until it is dropped.
struct UnderWay<'a>(&'a Lab);

impl<'a> UnderWay<'a> {
    fn new(lab: &'a Lab) -> Self {
        let now = lab.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        lab.most_at_once.fetch_max(now, Ordering::SeqCst);
        Self(lab)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.at_once.fetch_sub(1, Ordering::SeqCst);
    }
}

impl SecretSource for Lab {
    fn fetch<'a>(&'a self, _: &'a str) -> Fetch<'a> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            let _under_way = UnderWay::new(self);
            sleep(SECOND).await;
            if self.hangs.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            let (answer, facts) = (self.answer.lock().unwrap().clone(), self.facts.lock().unwrap().clone());
            answer.map(|value| Fetched { facts, ..Fetched::new(value.to_owned().into()) })
        })
    }

    fn fetch_previous<'a>(&'a self, _: &'a str) -> Fetch<'a> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let previous = *self.previous.lock().unwrap();
        Box::pin(async move {
            previous
                .map(|value| Fetched::new(value.to_owned().into()))
                .ok_or(VaultError::Denied("none".into()))
        })
    }
}

fn silence() -> VaultError {
    VaultError::Unavailable("lab".into())
}

fn denial() -> VaultError {
    VaultError::Denied("lab".into())
}

#[derive(Clone, Default)]
struct Journal {
    events: Arc<Mutex<Vec<String>>>,
    broken: Arc<Mutex<bool>>,
}

impl Record for Journal {
    fn record(&self, event: Event) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + '_>> {
        Box::pin(async move {
            if *self.broken.lock().unwrap() {
                return Err("the disk is full".to_owned());
            }
            self.events.lock().unwrap().push(match event {
                Event::VaultRead { purpose, outcome, .. } => format!("{purpose} {outcome}"),
                Event::CredentialRejected { reason, .. } => format!("rejected: {reason}"),
                Event::CredentialPrevious { .. } => "previous".to_owned(),
                other => format!("{other:?}"),
            });
            Ok(())
        })
    }
}

impl Journal {
    fn events(&self) -> Vec<String> {
        std::mem::take(&mut self.events.lock().unwrap())
    }
}

/// A cache with one credential, `web`, unless a test places others.
struct Bench {
    cache: Arc<Cache>,
    lab: Arc<Lab>,
    journal: Journal,
    credential: Arc<Credential>,
    lifetime: Lifetime,
}

fn credential(secret: &str) -> Credential {
    Credential {
        name: "web".into(),
        source: CredentialSource::Vault { vault: "lab".into(), secret: secret.into() },
        organizations: vec!["contoso".into()],
        owner: None,
        expires: None,
        previous_grace: Duration::ZERO,
        rotate: None,
    }
}

fn lifetime() -> Lifetime {
    let keep_when_denied = Duration::ZERO;
    Lifetime { refresh: 5 * MINUTE, stale_for: 60 * MINUTE, deadline: 5 * SECOND, keep_when_denied }
}

impl Bench {
    fn new(answer: Result<&'static str, VaultError>) -> Self {
        Self::of(answer, credential("secret"), lifetime())
    }

    fn of(answer: Result<&'static str, VaultError>, credential: Credential, lifetime: Lifetime) -> Self {
        let (lab, journal) = (Lab::new(answer), Journal::default());
        let key = FingerprintKey::new(&[1; 32]);
        let cache = Cache::new(Handle::current(), Box::new(journal.clone()), key);
        let bench = Self { cache, lab, journal, credential: Arc::new(credential), lifetime };
        bench.place(&[Arc::clone(&bench.credential)]);
        bench
    }

    fn place(&self, credentials: &[Arc<Credential>]) {
        let place = |credential: &Arc<Credential>| Place {
            credential: Arc::clone(credential),
            source: Arc::clone(&self.lab) as Arc<dyn SecretSource>,
            lifetime: self.lifetime,
        };
        self.cache.place(credentials.iter().map(place).collect());
    }

    /// What a request gets: the value, or why not.
    async fn take(&self) -> Result<Arc<Token>, &'static str> {
        self.take_of(&self.credential).await
    }

    async fn take_of(&self, credential: &Credential) -> Result<Arc<Token>, &'static str> {
        match self.cache.take(credential).await {
            Ok(held) => Ok(Arc::clone(&held.token)),
            Err(Withheld::Unavailable(_)) => Err("unavailable"),
            Err(Withheld::Missing(_)) => Err("missing"),
            Err(Withheld::Rejected(_)) => Err("rejected"),
        }
    }

    async fn gives(&self, value: &str) -> bool {
        self.take().await.is_ok_and(|token| token.occurs_in(value.as_bytes()))
    }

    /// Azure DevOps refuses a value. Whether there is another one to try.
    async fn reject(&self, token: &Token) -> bool {
        self.cache.rejected(&self.credential, token, "expired").await
    }

    /// Waits until the vault has been asked so often.
    async fn asked(&self, times: usize) {
        let asked = async {
            while self.lab.calls() < times {
                sleep(SECOND / 100).await;
            }
        };
        timeout(10 * MINUTE, asked).await.unwrap();
    }

    /// How many values stand where workers look.
    fn values(&self) -> usize {
        self.cache.cells.iter().filter(|(_, cell)| cell.held.load().is_some()).count()
    }

    fn health(&self) -> Health {
        self.cache.health().remove(0)
    }

    fn state(&self) -> &'static str {
        self.health().state.as_str()
    }
}
