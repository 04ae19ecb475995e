use super::*;

#[tokio::test(start_paused = true)]
async fn a_denial_ends_the_value_once_it_is_confirmed() {
    let bench = Bench::new(Ok("token-one"));
    assert!(bench.gives("token-one").await);
    bench.lab.set(Err(denial()));
    sleep(300 * SECOND).await;
    assert_eq!(bench.take().await.unwrap_err(), "missing");
    assert_eq!(bench.state(), "missing");
    assert_eq!(bench.values(), 0);
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
async fn a_denied_value_is_kept_as_long_as_the_configuration_bears_it() {
    let patience = Lifetime { keep_when_denied: 5 * MINUTE, ..lifetime() };
    let bench = Bench::of(Ok("token-one"), credential("secret"), patience);
    assert!(bench.gives("token-one").await);
    bench.lab.set(Err(denial()));
    bench.asked(3).await;
    sleep(2 * SECOND).await;
    let denied = clock::now();
    while clock::now() - denied < 295 * SECOND {
        assert!(bench.gives("token-one").await, "after {:?}", clock::now() - denied);
        assert_eq!(bench.state(), "missing");
        sleep(SECOND).await;
    }
    sleep(10 * SECOND).await;
    assert_eq!(bench.take().await.unwrap_err(), "missing");
    assert_eq!(bench.values(), 0);
    bench.lab.set(Ok("token-two"));
    sleep(MINUTE + 2 * SECOND).await;
    assert!(bench.gives("token-two").await);
    assert_eq!(bench.state(), "valid");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_in_force_is_denied_whatever_vault_gave_it() {
    let bench = Bench::new(Ok("token-one"));
    bench.lab.facts.lock().unwrap().expires = clock::timestamp().checked_sub(SECOND).ok();
    assert_eq!(bench.take().await.unwrap_err(), "missing");
    *bench.lab.facts.lock().unwrap() =
        Facts { not_before: clock::timestamp().checked_add(10 * MINUTE).ok(), expires: None };
    sleep(MINUTE).await;
    assert_eq!(bench.take().await.unwrap_err(), "missing");
    let detail = bench.health().detail.unwrap();
    assert!(detail.contains("it is good from"), "{detail}");
}
