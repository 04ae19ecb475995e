use std::sync::{Mutex, atomic::AtomicUsize};

use tokio::time::{advance, sleep};

use super::*;
use crate::{
    config::CredentialSource,
    vault::{Fetch, Fetched},
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// A vault under the test's control: it answers after a second.
struct Lab {
    answer: Mutex<Result<&'static str, VaultError>>,
    hangs: Mutex<bool>,
    calls: AtomicUsize,
}

impl Lab {
    fn new(answer: Result<&'static str, VaultError>) -> Arc<Self> {
        Arc::new(Self { answer: Mutex::new(answer), hangs: Mutex::new(false), calls: AtomicUsize::new(0) })
    }
    fn set(&self, answer: Result<&'static str, VaultError>) {
        *self.answer.lock().unwrap() = answer;
    }
    fn hang(&self, hangs: bool) {
        *self.hangs.lock().unwrap() = hangs;
    }
    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

impl SecretSource for Lab {
    fn fetch<'a>(&'a self, _: &'a str) -> Fetch<'a> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            sleep(SECOND).await;
            if *self.hangs.lock().unwrap() {
                std::future::pending::<()>().await;
            }
            let answer = self.answer.lock().unwrap().clone();
            answer.map(|value| Fetched::new(value.to_owned().into()))
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

struct Bench {
    cache: Arc<Cache>,
    lab: Arc<Lab>,
    journal: Journal,
    credential: Arc<Credential>,
}

fn credential(secret: &str) -> Arc<Credential> {
    Arc::new(Credential {
        name: "web".into(),
        source: CredentialSource::Vault { vault: "lab".into(), secret: secret.into() },
        organizations: vec!["contoso".into()],
        owner: None,
        expires: None,
        rotate: None,
    })
}

impl Bench {
    fn new(answer: Result<&'static str, VaultError>) -> Self {
        let (lab, journal, credential) = (Lab::new(answer), Journal::default(), credential("secret"));
        let key = FingerprintKey::new(&[1; 32]);
        let cache = Cache::new(Handle::current(), Box::new(journal.clone()), key);
        let bench = Self { cache, lab, journal, credential };
        bench.place(&bench.credential);
        bench
    }

    fn place(&self, credential: &Arc<Credential>) {
        let lifetime = Lifetime { refresh: 5 * MINUTE, stale_for: 60 * MINUTE, deadline: 5 * SECOND };
        let (credential, source) = (Arc::clone(credential), Arc::clone(&self.lab) as Arc<dyn SecretSource>);
        self.cache.place(vec![Place { credential, source, lifetime }]);
    }

    /// What a request gets: the value, or why not.
    async fn take(&self) -> Result<Arc<Token>, &'static str> {
        match self.cache.take(&self.credential).await {
            Ok(held) => Ok(Arc::clone(&held.token)),
            Err(Withheld::Unavailable(_)) => Err("unavailable"),
            Err(Withheld::Missing(_)) => Err("missing"),
            Err(Withheld::Rejected(_)) => Err("rejected"),
        }
    }

    async fn gives(&self, value: &str) -> bool {
        self.take().await.is_ok_and(|pat| pat.occurs_in(value.as_bytes()))
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

    fn health(&self) -> &'static str {
        self.cache.health()[0].1
    }
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_waiters_make_one_read() {
    let bench = Bench::new(Ok("token-one"));
    let waiters: Vec<_> = (0..10_000)
        .map(|_| {
            let (cache, credential) = (Arc::clone(&bench.cache), Arc::clone(&bench.credential));
            tokio::spawn(async move { cache.take(&credential).await.is_ok() })
        })
        .collect();
    for waiter in waiters {
        assert!(waiter.await.unwrap());
    }
    assert_eq!(bench.lab.calls(), 1);
    assert_eq!(bench.journal.events(), ["start read"]);
    assert_eq!(bench.health(), "valid");
}

#[tokio::test(start_paused = true)]
async fn waiters_that_vanish_end_no_read() {
    let bench = Bench::new(Ok("token-one"));
    for _ in 0..100 {
        assert!(timeout(Duration::from_millis(1), bench.take()).await.is_err());
    }
    assert!(bench.gives("token-one").await);
    assert_eq!(bench.lab.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_in_use_is_read_again_before_its_time_and_rotation_is_seen() {
    let bench = Bench::new(Ok("token-one"));
    assert!(bench.gives("token-one").await);
    bench.lab.set(Ok("token-two"));
    sleep(239 * SECOND).await;
    assert_eq!(bench.lab.calls(), 1, "not before 80 % of the time");
    sleep(40 * SECOND).await;
    assert_eq!(bench.lab.calls(), 2);
    assert!(bench.gives("token-two").await);
    assert_eq!(bench.journal.events(), ["start read", "refresh read"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_in_use_is_read_when_it_is_asked_for() {
    let bench = Bench::new(Ok("token-one"));
    sleep(10 * MINUTE).await;
    assert_eq!(bench.lab.calls(), 1);
    bench.lab.set(Ok("token-two"));
    assert!(bench.gives("token-two").await, "an old value is not used where the vault answers");
    assert_eq!(bench.journal.events(), ["start read"], "the request's own record covers its read");
}

#[tokio::test(start_paused = true)]
async fn silence_and_garbage_never_replace_a_good_value_until_stale_for_ends() {
    for trouble in [Err(silence()), Ok("gar bage"), Ok("")] {
        let bench = Bench::new(Ok("token-one"));
        assert!(bench.gives("token-one").await);
        bench.lab.set(trouble);
        for _ in 0..64 {
            sleep(MINUTE).await;
            assert!(bench.gives("token-one").await);
        }
        assert_eq!(bench.health(), "stale");
        sleep(2 * MINUTE).await;
        assert!(bench.take().await.is_err(), "five minutes and an hour are over");
        assert_eq!(bench.cache.held.iter().count(), 0, "and the value is gone");
        bench.lab.set(Ok("token-two"));
        sleep(MINUTE).await;
        assert!(bench.gives("token-two").await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_vault_that_hangs_holds_up_nobody_who_has_a_value() {
    let bench = Bench::new(Ok("token-one"));
    assert!(bench.gives("token-one").await);
    bench.lab.hang(true);
    for _ in 0..600 {
        sleep(SECOND).await;
        let before = clock::now();
        assert!(bench.gives("token-one").await);
        assert_eq!(clock::now(), before, "nobody waited");
    }
}

#[tokio::test(start_paused = true)]
async fn a_vault_that_hangs_holds_up_the_others_for_its_deadline_alone() {
    let bench = Bench::new(Ok("token-one"));
    bench.lab.hang(true);
    let before = clock::now();
    assert_eq!(bench.take().await.unwrap_err(), "unavailable");
    assert_eq!(clock::now() - before, 5 * SECOND);
    let before = clock::now();
    assert_eq!(bench.take().await.unwrap_err(), "unavailable");
    assert_eq!(clock::now(), before, "what failed a moment ago is not tried again");
    assert_eq!(bench.health(), "unreachable");
}

#[tokio::test(start_paused = true)]
async fn a_loop_of_errors_does_not_hammer_the_vault() {
    let bench = Bench::new(Err(silence()));
    for _ in 0..6_000 {
        advance(SECOND / 10).await;
        assert!(bench.take().await.is_err());
    }
    let calls = bench.lab.calls();
    assert!((10..40).contains(&calls), "{calls} reads in ten minutes");
    bench.lab.set(Ok("token-one"));
    sleep(62 * SECOND).await;
    assert!(bench.gives("token-one").await, "it recovers by itself");
}

#[tokio::test(start_paused = true)]
async fn a_denial_ends_the_value_once_it_is_confirmed() {
    let bench = Bench::new(Ok("token-one"));
    assert!(bench.gives("token-one").await);
    bench.lab.set(Err(denial()));
    sleep(300 * SECOND).await;
    assert_eq!(bench.take().await.unwrap_err(), "missing");
    assert_eq!(bench.health(), "missing");
    assert_eq!(bench.cache.held.iter().count(), 0);
    assert_eq!(bench.journal.events()[..2], ["start read", "refresh denied"]);
}

#[tokio::test(start_paused = true)]
async fn a_denial_that_is_not_confirmed_ends_nothing() {
    let bench = Bench::new(Ok("token-one"));
    assert!(bench.gives("token-one").await);
    bench.lab.set(Err(denial()));
    bench.asked(2).await;
    sleep(SECOND).await;
    bench.lab.set(Ok("token-two"));
    sleep(2 * SECOND).await;
    assert_eq!(bench.lab.calls(), 3);
    assert!(bench.gives("token-two").await);
}

#[tokio::test(start_paused = true)]
async fn a_rejected_value_is_read_again_and_another_one_is_worth_a_retry() {
    let bench = Bench::new(Ok("token-one"));
    let used = bench.take().await.unwrap();
    bench.lab.set(Ok("token-two"));
    let answers = futures_util::future::join_all(
        (0..100).map(|_| bench.cache.rejected(&bench.credential, &used, "expired")),
    );
    assert!(answers.await.iter().all(|retry| *retry));
    assert_eq!(bench.lab.calls(), 2, "a hundred refused requests make one read");
    assert!(bench.gives("token-two").await);
    assert!(bench.cache.rejected(&bench.credential, &used, "late").await, "an old one is known to be old");
    assert_eq!(bench.lab.calls(), 2);
    assert_eq!(bench.journal.events(), ["start read", "rejected read"]);
}

#[tokio::test(start_paused = true)]
async fn a_rejected_value_stays_out_while_the_vault_gives_no_other() {
    let bench = Bench::new(Ok("token-one"));
    let used = bench.take().await.unwrap();
    let answers = futures_util::future::join_all(
        (0..100).map(|_| bench.cache.rejected(&bench.credential, &used, "expired")),
    );
    assert!(!answers.await.iter().any(|retry| *retry));
    assert_eq!(bench.take().await.unwrap_err(), "rejected");
    assert_eq!(bench.health(), "rejected");
    assert!(!bench.cache.rejected(&bench.credential, &used, "expired").await);
    assert_eq!(bench.lab.calls(), 2);
    assert_eq!(bench.journal.events(), ["start read", "rejected read", "rejected: expired"]);

    sleep(14 * MINUTE).await;
    assert_eq!(bench.take().await.unwrap_err(), "rejected");
    let calls = bench.lab.calls();
    assert!((6..16).contains(&calls), "{calls} reads in a quarter of an hour");
    assert!(!bench.journal.events().contains(&"rejected: expired".to_owned()), "said once");

    bench.lab.set(Ok("token-two"));
    sleep(5 * MINUTE + 2 * SECOND).await;
    assert!(bench.gives("token-two").await);
    assert_eq!(bench.health(), "valid");
}

#[tokio::test(start_paused = true)]
async fn an_hour_of_refusals_takes_a_credential_for_no_longer_than_that() {
    let bench = Bench::new(Ok("token-one"));
    let used = bench.take().await.unwrap();
    let mut calls = 0;
    // Azure DevOps refuses whatever it is asked, and is asked again and again.
    for _ in 0..4 {
        assert!(!bench.cache.rejected(&bench.credential, &used, "sign in").await);
        assert_eq!(bench.take().await.unwrap_err(), "rejected");
        sleep(10 * MINUTE).await;
        assert_eq!(bench.take().await.unwrap_err(), "rejected", "not so soon");
        sleep(11 * MINUTE).await;
        assert!(bench.gives("token-one").await, "the same value is tried again");
        assert_eq!(bench.health(), "valid");
        assert!(bench.lab.calls() - calls < 25, "and the vault is not hammered meanwhile");
        calls = bench.lab.calls();
    }
}

#[tokio::test(start_paused = true)]
async fn a_rejected_value_is_out_even_where_the_vault_is_silent() {
    for trouble in [Err(silence()), Err(denial()), Ok("gar bage")] {
        let bench = Bench::new(Ok("token-one"));
        let used = bench.take().await.unwrap();
        bench.lab.set(trouble);
        assert!(!bench.cache.rejected(&bench.credential, &used, "revoked").await);
        assert_eq!(bench.take().await.unwrap_err(), "rejected");
        bench.lab.set(Ok("token-one"));
        sleep(MINUTE).await;
        assert_eq!(bench.take().await.unwrap_err(), "rejected", "the same value again");
        bench.lab.set(Ok("token-two"));
        sleep(5 * MINUTE).await;
        assert!(bench.gives("token-two").await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_that_began_before_the_rejection_proves_nothing() {
    let bench = Bench::new(Ok("token-one"));
    let used = bench.take().await.unwrap();
    bench.asked(2).await;
    let rejected = async {
        let answer = bench.cache.rejected(&bench.credential, &used, "revoked").await;
        assert!(answer, "the second read sees the new value");
    };
    let rotate = async {
        bench.asked(3).await;
        bench.lab.set(Ok("token-two"));
    };
    tokio::join!(rejected, rotate);
}

#[tokio::test(start_paused = true)]
async fn a_value_whose_read_is_not_on_record_is_not_used() {
    let bench = Bench::new(Ok("token-one"));
    *bench.journal.broken.lock().unwrap() = true;
    assert_eq!(bench.take().await.unwrap_err(), "unavailable");
    *bench.journal.broken.lock().unwrap() = false;
    sleep(10 * SECOND).await;
    assert!(bench.gives("token-one").await);
}

#[tokio::test(start_paused = true)]
async fn another_configuration_keeps_what_did_not_change_and_nothing_else() {
    let bench = Bench::new(Ok("token-one"));
    assert!(bench.gives("token-one").await);
    bench.place(&credential("secret"));
    assert!(bench.gives("token-one").await);
    assert_eq!(bench.lab.calls(), 1);

    bench.lab.set(Ok("token-two"));
    let other = credential("other");
    bench.place(&other);
    assert_eq!(bench.take().await.unwrap_err(), "unavailable", "decided on by the old one");
    assert!(bench.cache.take(&other).await.is_ok_and(|held| held.token.occurs_in(b"token-two")));
    assert_eq!(bench.cache.held.iter().count(), 1, "the old value is gone");
    bench.cache.place(vec![]);
    sleep(SECOND).await;
    assert_eq!(bench.cache.held.iter().count(), 0);
    assert!(bench.cache.health().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_read_under_way_while_its_credential_goes_leaves_no_value_behind() {
    let bench = Bench::new(Ok("token-one"));
    sleep(SECOND / 2).await;
    bench.cache.place(vec![]);
    sleep(5 * SECOND).await;
    assert_eq!(bench.lab.calls(), 1);
    assert_eq!(bench.cache.held.iter().count(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_house_keeping_ends_with_the_cache() {
    let bench = Bench::new(Ok("token-one"));
    assert!(bench.gives("token-one").await);
    let weak = Arc::downgrade(&bench.cache);
    drop(bench);
    sleep(2 * SECOND).await;
    assert!(weak.upgrade().is_none());
}
