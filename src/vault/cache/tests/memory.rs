//! A value that was replaced or put away is gone from memory, not only out of use.

use std::sync::Weak;

use super::*;

/// The value in use, as something that sees it die.
async fn watched(bench: &Bench) -> Weak<Token> {
    Arc::downgrade(&bench.take().await.unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_replaced_value_dies_when_the_new_one_is_in_use() {
    let bench = Bench::new(Ok("token-one"));
    let one = watched(&bench).await;
    bench.lab.set(Ok("token-two"));
    bench.cache.refresh("web").await.unwrap();
    assert!(one.upgrade().is_none());
}

#[tokio::test(start_paused = true)]
async fn every_way_out_of_the_cache_is_an_end() {
    let bench = Bench::new(Ok("token-one"));
    let one = watched(&bench).await;
    let used = bench.take().await.unwrap();
    bench.reject(&used).await;
    drop(used);
    assert!(one.upgrade().is_none(), "rejected");

    let bench = Bench::new(Ok("token-one"));
    let one = watched(&bench).await;
    bench.lab.set(Err(denial()));
    assert!(bench.cache.refresh("web").await.is_err());
    assert!(one.upgrade().is_none(), "denied");

    let bench = Bench::new(Ok("token-one"));
    let one = watched(&bench).await;
    bench.cache.place(vec![]);
    sleep(2 * SECOND).await;
    assert!(one.upgrade().is_none(), "no longer configured");

    let bench = Bench::new(Ok("token-one"));
    let one = watched(&bench).await;
    bench.lab.hang(true);
    sleep(66 * MINUTE).await;
    assert!(one.upgrade().is_none(), "past its time");
}

#[tokio::test(start_paused = true)]
async fn the_one_before_dies_with_its_grace() {
    let grace = Credential { previous_grace: 10 * MINUTE, ..credential("secret") };
    let bench = Bench::of(Ok("token-one"), grace, lifetime());
    let one = watched(&bench).await;
    bench.lab.set(Ok("token-two"));
    bench.cache.refresh("web").await.unwrap();
    sleep(9 * MINUTE).await;
    assert!(one.upgrade().is_some());
    sleep(MINUTE + 2 * SECOND).await;
    assert!(one.upgrade().is_none());
}
