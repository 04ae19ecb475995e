use super::*;

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
    assert_eq!(bench.state(), "valid");
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
    bench.place(&[Arc::new(credential("secret"))]);
    assert!(bench.gives("token-one").await);
    assert_eq!(bench.lab.calls(), 1);

    bench.lab.set(Ok("token-two"));
    let other = Arc::new(credential("other"));
    bench.place(&[Arc::clone(&other)]);
    assert_eq!(bench.take().await.unwrap_err(), "unavailable", "decided on by the old one");
    assert!(bench.cache.take(&other).await.is_ok_and(|held| held.token.occurs_in(b"token-two")));
    assert_eq!(bench.values(), 1, "the old value is gone");
    bench.cache.place(vec![]);
    sleep(SECOND).await;
    assert_eq!(bench.values(), 0);
    assert!(bench.cache.health().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_read_under_way_while_its_credential_goes_leaves_no_value_behind() {
    let bench = Bench::new(Ok("token-one"));
    sleep(SECOND / 2).await;
    bench.cache.place(vec![]);
    sleep(5 * SECOND).await;
    assert_eq!(bench.lab.calls(), 1);
    assert_eq!(bench.values(), 0);
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

#[tokio::test(start_paused = true)]
async fn a_request_of_the_old_configuration_gets_no_secret_that_is_for_other_organizations_now() {
    let bench = Bench::new(Ok("token-one"));
    assert!(bench.gives("token-one").await);
    let mut moved = credential("secret");
    moved.organizations = vec!["fabrikam".into()];
    let moved = Arc::new(moved);
    bench.place(&[Arc::clone(&moved)]);
    assert!(matches!(bench.cache.take(&bench.credential).await, Err(Withheld::Unavailable(_))));
    assert!(bench.cache.take(&moved).await.is_ok());
}
