use super::*;

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
        assert_eq!(bench.state(), "stale");
        sleep(2 * MINUTE).await;
        assert!(bench.take().await.is_err(), "five minutes and an hour are over");
        assert_eq!(bench.values(), 0, "and the value is gone");
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
    assert_eq!(bench.state(), "unreachable");
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
async fn an_hour_without_any_vault_costs_no_request() {
    let bench = Bench::new(Ok("token-one"));
    assert!(bench.gives("token-one").await);
    // The worst moment: right before it would have been read again.
    sleep(239 * SECOND).await;
    assert!(bench.gives("token-one").await);
    bench.lab.hang(true);
    let (calls, since) = (bench.lab.calls(), clock::now());
    while clock::now() - since < 60 * MINUTE {
        sleep(SECOND).await;
        let before = clock::now();
        assert!(bench.gives("token-one").await, "after {:?}", clock::now() - since);
        assert_eq!(clock::now(), before, "nobody waited");
    }
    let calls = bench.lab.calls() - calls;
    assert!((30..120).contains(&calls), "{calls} reads in an hour");
    bench.lab.set(Ok("token-two"));
    bench.lab.hang(false);
    sleep(MINUTE + 2 * SECOND).await;
    assert!(bench.gives("token-two").await, "it recovers by itself");
}

fn hundred() -> Vec<Arc<Credential>> {
    let named = |n| Credential { name: format!("web-{n}").into(), ..credential("secret") };
    (0..100).map(|n| Arc::new(named(n))).collect()
}

#[tokio::test(start_paused = true)]
async fn a_hundred_credentials_do_not_hammer_a_vault_that_is_down() {
    let bench = Bench::new(Ok("token-one"));
    let hundred = hundred();
    bench.place(&hundred);
    sleep(20 * SECOND).await;
    assert_eq!(bench.lab.calls(), 101);
    for credential in &hundred {
        assert!(bench.take_of(credential).await.is_ok());
    }
    assert_eq!(bench.lab.most_at_once.load(Ordering::SeqCst), 8, "reads at a time");
    for trouble in [Some(silence()), None] {
        match trouble {
            Some(error) => bench.lab.set(Err(error)),
            None => bench.lab.hang(true),
        }
        sleep(6 * MINUTE).await;
        let (calls, _) = (bench.lab.calls(), bench.journal.events());
        for _ in 0..600 {
            sleep(SECOND).await;
            for credential in &hundred {
                assert!(bench.take_of(credential).await.is_ok(), "it keeps its value");
            }
        }
        let calls = bench.lab.calls() - calls;
        assert!((9..30).contains(&calls), "{calls} reads in ten minutes, for a hundred credentials");
        let events = bench.journal.events().len();
        assert!(events <= calls + 1, "{events} records of {calls} reads");
    }
    bench.lab.hang(false);
    bench.lab.set(Ok("token-two"));
    sleep(90 * SECOND).await;
    for credential in &hundred {
        let token = bench.take_of(credential).await.unwrap();
        assert!(token.occurs_in(b"token-two"), "{} recovers by itself", credential.name);
    }
}

#[tokio::test(start_paused = true)]
async fn a_cold_credential_of_a_vault_that_is_down_is_answered_at_once() {
    let bench = Bench::new(Err(silence()));
    let hundred = hundred();
    bench.place(&hundred);
    sleep(10 * SECOND).await;
    let calls = bench.lab.calls();
    for credential in &hundred {
        let before = clock::now();
        assert_eq!(bench.take_of(credential).await.unwrap_err(), "unavailable");
        assert!(clock::now() - before <= bench.lifetime.deadline + SECOND);
        assert!(!bench.cache.is_usable(credential));
    }
    assert!(bench.lab.calls() - calls <= 4, "{} reads", bench.lab.calls() - calls);
}

#[tokio::test(start_paused = true)]
async fn a_loop_of_denials_does_not_burn_the_vaults_quota() {
    let bench = Bench::new(Err(denial()));
    for _ in 0..6_000 {
        advance(SECOND / 10).await;
        assert!(bench.take().await.is_err());
    }
    let calls = bench.lab.calls();
    assert!((10..40).contains(&calls), "{calls} reads in ten minutes");
}
