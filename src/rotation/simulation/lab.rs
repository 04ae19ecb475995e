//! A real vault and a real sample organisation, a clock to turn, and somebody who kills.

use std::{
    future::{Future, pending},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use http::Method;
use jiff::Timestamp;
use secrecy::SecretString;
use tempfile::TempDir;
use tokio::sync::Notify;

use super::super::{
    azure::{AzureDevOps, Whose},
    ledger::{Keep, Kept, Ledger},
    machine::Machine,
    plan::{Plan, mark, tests::plan},
    state::{State, Step, later},
};
use crate::{
    audit::Event,
    clock,
    config::{Outbound, SealedKey, Upstream},
    sample::{Options, Organization, Standing},
    vault::{
        Fetch, FingerprintKey, SecretSource, VaultError, Write,
        sealed::{self, Sealed},
        trial::Record,
    },
};

pub(super) const ENTRA: &str = "an-entra-token-of-sam";
pub(super) const BY_HAND: &str = "made-by-hand";

/// Kills whoever comes to the point that it was told; nobody gets further then.
#[derive(Default)]
pub(super) struct Killer {
    pub(super) left: AtomicI64,
    pub(super) armed: AtomicBool,
    pub(super) killed: Notify,
}

impl Killer {
    pub(super) fn at(point: i64) -> Arc<Self> {
        Arc::new(Self { left: AtomicI64::new(point), armed: AtomicBool::new(true), ..Self::default() })
    }

    pub(super) async fn point(&self) {
        if self.armed.load(Ordering::SeqCst) && self.left.fetch_sub(1, Ordering::SeqCst) <= 0 {
            self.killed.notify_one();
            pending::<()>().await;
        }
    }
}

/// What goes wrong with writes to the vault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Writes {
    #[default]
    Sound,
    /// Nothing is written.
    Failing,
    /// It is written, and the answer is lost.
    Unanswered,
}

/// The sealed vault, with points before and after each write.
pub(super) struct Vault {
    sealed: Sealed,
    file: PathBuf,
    key: SealedKey,
    killer: Arc<Killer>,
    writes: Arc<Mutex<Writes>>,
}

impl SecretSource for Vault {
    fn fetch<'a>(&'a self, secret: &'a str) -> Fetch<'a> {
        self.sealed.fetch(secret)
    }

    fn write<'a>(&'a self, secret: &'a str, value: &'a SecretString) -> Write<'a> {
        Box::pin(async move {
            self.killer.point().await;
            let lost = || Err(VaultError::Unavailable("no answer".into()));
            let writes = *self.writes.lock().unwrap();
            if writes == Writes::Failing {
                return lost();
            }
            sealed::put(&self.file, &self.key, secret, value, None).unwrap();
            self.killer.point().await;
            if writes == Writes::Unanswered { lost() } else { Ok(None) }
        })
    }
}

/// Gives the user's Entra token.
pub(super) struct Entra;

impl SecretSource for Entra {
    fn fetch<'a>(&'a self, _: &'a str) -> Fetch<'a> {
        Box::pin(async { Ok(crate::vault::Fetched::new(ENTRA.to_owned().into())) })
    }
}

/// The events, with a point before and after each, and a look at every revocation.
pub(super) struct Records {
    pub(super) killer: Arc<Killer>,
    pub(super) ledger: Ledger,
    pub(super) events: Arc<Mutex<Vec<Event>>>,
}

impl Record for Records {
    fn record(
        &self,
        event: Event,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<(), String>> + Send + '_>> {
        Box::pin(async move {
            self.killer.point().await;
            if let Event::Intent { facts, .. } = &event
                && facts.method == Some(Method::DELETE)
            {
                let state = self.ledger.load().await.unwrap().unwrap();
                let query = facts.query.as_deref().unwrap();
                let current = state.current.map(|current| current.authorization.replace('-', "%2D"));
                assert!(
                    !current.is_some_and(|current| query.contains(&current)),
                    "the one in use is revoked"
                );
            }
            self.events.lock().unwrap().push(event);
            self.killer.point().await;
            Ok(())
        })
    }
}

/// The ledger, with a point before and after each change.
pub(super) struct Points {
    killer: Arc<Killer>,
    ledger: Ledger,
}

impl Keep for Points {
    fn load(&self) -> Kept<'_, Option<State>> {
        self.ledger.load()
    }

    fn save<'a>(&'a self, state: &'a State) -> Kept<'a, ()> {
        Box::pin(async move {
            self.killer.point().await;
            self.ledger.save(state).await?;
            self.killer.point().await;
            Ok(())
        })
    }
}

pub(super) struct Lab {
    pub(super) folder: TempDir,
    pub(super) organization: Organization,
    /// How far the clock is ahead.
    pub(super) ahead: Arc<Mutex<Duration>>,
    pub(super) writes: Arc<Mutex<Writes>>,
    pub(super) events: Arc<Mutex<Vec<Event>>>,
    pub(super) plan: Arc<Plan>,
}

impl Lab {
    pub(super) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let organization = Organization::start(Options {
            folder: folder.path().join("sample"),
            organizations: vec!["contoso".into()],
            pat: Some(BY_HAND.into()),
            address: ([127, 0, 0, 1], 0).into(),
        })
        .unwrap();
        organization.accept_user(ENTRA);
        sealed::generate_key(&folder.path().join("vault.key")).unwrap();
        let mut plan = plan();
        plan.patience.settle = Duration::from_millis(1);
        plan.patience.pause = Duration::from_millis(1);
        plan.patience.tries = 2;
        let lab = Self {
            organization,
            folder,
            ahead: Arc::default(),
            writes: Arc::default(),
            events: Arc::default(),
            plan: Arc::new(plan),
        };
        sealed::put(&lab.file(), &lab.key(), "web", &BY_HAND.to_owned().into(), None).unwrap();
        lab
    }

    pub(super) fn file(&self) -> PathBuf {
        self.folder.path().join("vault.sealed")
    }

    pub(super) fn key(&self) -> SealedKey {
        SealedKey::File(self.folder.path().join("vault.key"))
    }

    pub(super) fn upstream(&self) -> Upstream {
        use rustls::pki_types::{CertificateDer, pem::PemObject as _};
        let ca = self.organization.ca().to_owned();
        let certificates = CertificateDer::pem_file_iter(&ca).unwrap().map(Result::unwrap).collect();
        let hosts = ["dev.azure.com", "vssps.dev.azure.com"];
        let addresses = hosts.map(|host| (host.into(), self.organization.address()));
        Upstream { addresses: addresses.into_iter().collect(), ca: Some((ca, certificates)) }
    }

    pub(super) fn ledger(&self, instance: &str) -> Ledger {
        let ledger = Ledger::new(&self.folder.path().join(instance), &self.plan.credential);
        ledger.prepare().unwrap();
        ledger
    }

    pub(super) fn azure(&self, record: Arc<dyn Record>) -> AzureDevOps {
        let key = FingerprintKey::new(&[1; 32]);
        AzureDevOps::new(&self.upstream(), &Outbound::default(), record, key).unwrap()
    }

    /// A patgate of its own, with its own state.
    pub(super) fn machine(&self, instance: &str, killer: &Arc<Killer>) -> Machine {
        let ledger = self.ledger(instance);
        let events = Arc::clone(&self.events);
        let record: Arc<dyn Record> =
            Arc::new(Records { killer: Arc::clone(killer), ledger: ledger.clone(), events });
        let ahead = Arc::clone(&self.ahead);
        Machine {
            plan: Arc::clone(&self.plan),
            azure: self.azure(Arc::clone(&record)),
            vault: Arc::new(Vault {
                sealed: Sealed::open(&self.file(), &self.key()).unwrap(),
                file: self.file(),
                key: self.key(),
                killer: Arc::clone(killer),
                writes: Arc::clone(&self.writes),
            }),
            entra: Arc::new(Entra),
            record,
            keep: Arc::new(Points { killer: Arc::clone(killer), ledger }),
            refresh: Box::new(|| Box::pin(async {})),
            disabled: Box::new(|| false),
            now: Box::new(move || later(clock::timestamp(), *ahead.lock().unwrap())),
        }
    }

    /// A turn that nobody kills.
    pub(super) async fn turn(&self) -> State {
        self.machine("one", &Arc::default()).turn(false).await.unwrap()
    }

    /// A turn that is killed; `None`: it was.
    pub(super) async fn turn_killed(&self, killer: &Arc<Killer>) -> Option<State> {
        let machine = self.machine("one", killer);
        let turn = Box::pin(machine.turn(false));
        tokio::select! {
            biased;
            state = turn => Some(state.unwrap()),
            () = killer.killed.notified() => None,
        }
    }

    pub(super) fn pass(&self, time: Duration) {
        *self.ahead.lock().unwrap() += time;
    }

    pub(super) fn now(&self) -> Timestamp {
        later(clock::timestamp(), *self.ahead.lock().unwrap())
    }

    pub(super) async fn value(&self) -> SecretString {
        Sealed::open(&self.file(), &self.key()).unwrap().fetch("web").await.unwrap().value
    }

    /// What must hold at every moment.
    pub(super) async fn assert_sound(&self, when: &str) {
        self.assert_access(when).await;
        let state = self.ledger("one").load().await.unwrap();
        let known = state.map_or(0, |state| {
            let under_way = usize::from(matches!(state.step, Step::Created(_) | Step::Written(_)));
            usize::from(state.current.is_some()) + state.retiring.len() + under_way
        });
        assert!(self.active().len() <= known + 1, "{when}: more than one token that nobody knows of");
    }

    pub(super) async fn assert_access(&self, when: &str) {
        let record =
            Arc::new(Records { killer: Arc::default(), ledger: self.ledger("none"), events: Arc::default() });
        let whose = self.azure(record).whose(&self.plan, &self.value().await).await.unwrap();
        assert!(matches!(whose, Whose::User(_)), "{when}: the vault's token does not work");
    }

    /// The ids of the tokens that count.
    pub(super) fn active(&self) -> Vec<String> {
        let issued = self.organization.issued().into_iter();
        let active = issued.filter(|token| token.standing() == Standing::Active);
        active.map(|token| token.authorization_id).collect()
    }

    /// One token counts, it is the one in use, and the vault holds it.
    pub(super) async fn assert_at_rest(&self, state: &State, when: &str) {
        let current = state.current.as_ref().unwrap();
        assert_eq!((&state.step, state.trouble.as_deref()), (&Step::Idle, None), "{when}");
        assert_eq!(self.active(), std::slice::from_ref(&current.authorization), "{when}: {:?}", self.steps());
        let held = mark(&current.rotation, &self.value().await).unwrap();
        assert_eq!(current.mark.as_ref(), Some(&held), "{when}: the vault holds it");
        assert!(state.retiring.is_empty() && state.lost.is_empty(), "{when}: {state:?}");
    }

    pub(super) fn steps(&self) -> Vec<&'static str> {
        let events = self.events.lock().unwrap();
        events
            .iter()
            .filter_map(|event| match event {
                Event::Rotation { step, .. } => Some(*step),
                _ => None,
            })
            .collect()
    }

    /// Goes on until the next token is in use and the one before is gone.
    pub(super) async fn to_the_end(&self) -> State {
        self.turn().await;
        self.pass(self.plan.grace);
        self.turn().await
    }
}
