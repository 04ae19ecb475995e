//! Back to the version before, within its grace and on record.

use super::*;

fn bench(grace: Duration) -> Bench {
    Bench::of(Ok("token-one"), Credential { previous_grace: grace, ..credential("secret") }, lifetime())
}

/// Rotates from one to two and waits until two is in use.
async fn rotate(bench: &Bench) -> Arc<Token> {
    assert!(bench.gives("token-one").await);
    bench.lab.set(Ok("token-two"));
    bench.asked(2).await;
    sleep(2 * SECOND).await;
    let two = bench.take().await.unwrap();
    assert!(two.occurs_in(b"token-two"));
    bench.journal.events();
    two
}

#[tokio::test(start_paused = true)]
async fn a_new_value_that_is_rejected_gives_way_to_the_one_before_for_its_grace() {
    let bench = bench(10 * MINUTE);
    let two = rotate(&bench).await;
    let rotated = clock::now();
    assert!(bench.reject(&two).await, "there is another value to try");
    assert!(bench.gives("token-one").await);
    assert_eq!(bench.journal.events(), ["rejected read", "rejected: expired", "previous"]);
    let health = bench.health();
    assert_eq!((health.state, health.previous_until.is_some()), (State::Rejected, true));
    assert!(bench.cache.is_usable(&bench.credential));
    while clock::now() - rotated < 9 * MINUTE {
        sleep(SECOND).await;
        assert!(bench.gives("token-one").await, "after {:?}", clock::now() - rotated);
    }
    while clock::now() - rotated < 11 * MINUTE {
        sleep(SECOND).await;
        let old = bench.gives("token-one").await;
        assert!(
            !old || clock::now() - rotated <= 10 * MINUTE,
            "{:?} is past its grace",
            clock::now() - rotated
        );
    }
    assert_eq!(bench.take().await.unwrap_err(), "rejected");
    assert_eq!(bench.values(), 0);
    bench.lab.set(Ok("token-three"));
    sleep(5 * MINUTE + 2 * SECOND).await;
    assert!(bench.gives("token-three").await);
    assert_eq!(bench.state(), "valid");
}

#[tokio::test(start_paused = true)]
async fn without_a_grace_the_one_before_is_never_used_again() {
    let bench = bench(Duration::ZERO);
    bench.lab.set_previous("token-one");
    let two = rotate(&bench).await;
    assert!(!bench.reject(&two).await);
    assert_eq!(bench.take().await.unwrap_err(), "rejected");
}

#[tokio::test(start_paused = true)]
async fn a_grace_counts_from_the_replacement_not_from_the_rejection() {
    let bench = bench(10 * MINUTE);
    let two = rotate(&bench).await;
    sleep(11 * MINUTE).await;
    assert!(!bench.reject(&two).await);
    assert_eq!(bench.take().await.unwrap_err(), "rejected");
}

#[tokio::test(start_paused = true)]
async fn the_one_before_serves_while_the_vault_is_silent_but_not_once_it_denies() {
    let bench = bench(10 * MINUTE);
    let two = rotate(&bench).await;
    bench.lab.set(Err(silence()));
    assert!(bench.reject(&two).await);
    assert!(bench.gives("token-one").await);
    bench.lab.set(Err(denial()));
    sleep(2 * MINUTE).await;
    assert!(bench.take().await.is_err(), "an answer ends it");
    assert_eq!(bench.values(), 0);
}

#[tokio::test(start_paused = true)]
async fn both_rejected_leave_nothing() {
    let bench = bench(10 * MINUTE);
    let two = rotate(&bench).await;
    assert!(bench.reject(&two).await);
    let one = bench.take().await.unwrap();
    assert!(!bench.reject(&one).await);
    assert_eq!(bench.take().await.unwrap_err(), "rejected");
    assert!(!bench.reject(&two).await, "a late answer brings nothing back");
}

#[tokio::test(start_paused = true)]
async fn a_vault_that_is_set_back_ends_the_matter() {
    let bench = bench(10 * MINUTE);
    let two = rotate(&bench).await;
    assert!(bench.reject(&two).await);
    bench.lab.set(Ok("token-one"));
    sleep(MINUTE).await;
    assert!(bench.gives("token-one").await);
    let health = bench.health();
    assert_eq!((health.state, health.previous_until), (State::Valid, None));
    sleep(20 * MINUTE).await;
    assert!(bench.gives("token-one").await, "its grace is of no more account");
}

#[tokio::test(start_paused = true)]
async fn a_cold_patgate_asks_the_vault_for_the_one_before() {
    let bench = bench(10 * MINUTE);
    bench.lab.set(Ok("token-two"));
    bench.lab.set_previous("token-one");
    let two = bench.take().await.unwrap();
    let first_seen = clock::now();
    assert!(bench.reject(&two).await);
    assert!(bench.gives("token-one").await);
    assert_eq!(
        bench.journal.events(),
        ["start read", "rejected read", "rejected: expired", "previous read", "previous"]
    );
    sleep((first_seen + 10 * MINUTE + SECOND).duration_since(clock::now())).await;
    assert_eq!(
        bench.take().await.unwrap_err(),
        "rejected",
        "its grace counts from the new one's first sight"
    );
    sleep(4 * MINUTE).await;
    assert_eq!(bench.take().await.unwrap_err(), "rejected", "and is not begun anew");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_on_record_does_not_come_back() {
    let bench = bench(10 * MINUTE);
    let two = rotate(&bench).await;
    *bench.journal.broken.lock().unwrap() = true;
    assert!(!bench.reject(&two).await);
    assert!(bench.take().await.is_err());
}
