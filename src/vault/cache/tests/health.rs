//! What is told of a credential, and what somebody asks for by hand.

use super::*;

const DAY: Duration = Duration::from_hours(24);

fn expiring(in_days: i64) -> Credential {
    let expires = clock::timestamp().checked_add(jiff::SignedDuration::from_hours(24 * in_days)).ok();
    Credential { expires, ..credential("secret") }
}

#[tokio::test(start_paused = true)]
async fn an_expiry_is_told_whoever_knows_it() {
    for (configured, told, state) in [
        (None, None, "valid"),
        (Some(15), None, "valid"),
        (Some(13), None, "expiring"),
        (Some(-1), None, "expired"),
        (Some(15), Some(13 * DAY), "expiring"),
        (None, Some(13 * DAY), "expiring"),
        (None, Some(15 * DAY), "valid"),
    ] {
        let credential = configured.map_or_else(|| credential("secret"), expiring);
        let bench = Bench::of(Ok("token-one"), credential, lifetime());
        if let Some(told) = told {
            bench.lab.expires_in(told);
        }
        assert!(bench.gives("token-one").await, "Azure DevOps decides, not the calendar");
        assert_eq!(bench.state(), state, "{configured:?} {told:?}");
        assert_eq!(bench.health().expires.is_some(), configured.is_some() || told.is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn health_tells_version_and_reading_and_since_when() {
    let bench = Bench::new(Ok("token-one"));
    let cold = bench.health();
    assert_eq!((cold.state, cold.version, cold.read), (State::Unused, None, None));
    let token = bench.take().await.unwrap();
    let valid = bench.health();
    assert_eq!(valid.version.as_ref(), Some(token.fingerprint()));
    assert!(valid.read.is_some() && valid.since >= cold.since && valid.detail.is_none());
    bench.reject(&token).await;
    let rejected = bench.health();
    assert_eq!((rejected.state, rejected.detail.as_deref()), (State::Rejected, Some("expired")));
    sleep(10 * SECOND).await;
    assert_eq!(bench.health().since, rejected.since, "since the change, not since the last look");
    assert!(!bench.cache.is_usable(&bench.credential));
}

#[tokio::test(start_paused = true)]
async fn a_value_is_not_used_past_its_own_end_and_is_read_before() {
    let bench = Bench::new(Ok("token-one"));
    bench.lab.expires_in(2 * MINUTE);
    assert!(bench.gives("token-one").await);
    bench.lab.set(Err(silence()));
    let mut calls = bench.lab.calls();
    sleep(95 * SECOND).await;
    assert!(bench.gives("token-one").await);
    assert!(bench.lab.calls() > calls, "it was asked for before its end");
    sleep(30 * SECOND).await;
    assert!(bench.take().await.is_err(), "stale-for does not reach past its end");
    calls = bench.lab.calls();
    bench.lab.set(Ok("token-two"));
    bench.lab.expires_in(60 * MINUTE);
    sleep(MINUTE + 2 * SECOND).await;
    assert!(bench.gives("token-two").await);
    assert!(bench.lab.calls() > calls);
}

#[tokio::test(start_paused = true)]
async fn a_value_about_to_end_is_not_asked_for_again_and_again() {
    let bench = Bench::new(Ok("token-one"));
    bench.lab.expires_in(MINUTE);
    for _ in 0..50 {
        sleep(SECOND).await;
        assert!(bench.gives("token-one").await);
    }
    assert!(bench.lab.calls() <= 6, "{} reads", bench.lab.calls());
}

#[tokio::test(start_paused = true)]
async fn a_refresh_reads_now_and_waits_for_its_end() {
    let bench = Bench::new(Ok("token-one"));
    let one = bench.take().await.unwrap();
    let same = bench.cache.refresh("web").await.unwrap();
    assert_eq!((&same.version, same.changed), (one.fingerprint(), false));
    bench.lab.set(Ok("token-two"));
    let asked = futures_util::future::join_all((0..100).map(|_| bench.cache.refresh("web"))).await;
    assert!(asked.iter().all(|refreshed| refreshed.as_ref().unwrap().changed));
    assert_eq!(bench.lab.calls(), 4, "a hundred who ask share one read, and one that began after they asked");
    assert!(bench.gives("token-two").await);
    assert_eq!(bench.journal.events(), ["start read", "asked read", "asked read", "asked read"]);
    bench.lab.set(Err(silence()));
    assert!(matches!(bench.cache.refresh("web").await, Err(Unrefreshed::Vault(VaultError::Unavailable(_)))));
    assert!(bench.gives("token-two").await, "a good value outlives it");
    assert!(matches!(bench.cache.refresh("other").await, Err(Unrefreshed::Unknown)));
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_meets_a_read_under_way_reads_once_more() {
    let bench = Bench::new(Ok("token-one"));
    sleep(SECOND / 2).await;
    let rotate = async {
        bench.asked(2).await;
        bench.lab.set(Ok("token-two"));
    };
    let (refreshed, ()) = tokio::join!(bench.cache.refresh("web"), rotate);
    assert!(refreshed.is_ok());
    assert!(bench.gives("token-two").await, "what was there when it was asked for");
}

#[tokio::test(start_paused = true)]
async fn a_refresh_gives_a_rejected_value_another_chance() {
    let bench = Bench::new(Ok("token-one"));
    let one = bench.take().await.unwrap();
    assert!(!bench.reject(&one).await);
    assert!(bench.cache.refresh("web").await.is_ok(), "its owner extended it: the value is the same");
    assert!(bench.gives("token-one").await);
    assert_eq!(bench.state(), "valid");
}

#[tokio::test(start_paused = true)]
async fn another_expiry_or_grace_costs_no_read() {
    let bench = Bench::new(Ok("token-one"));
    assert!(bench.gives("token-one").await);
    bench.lab.set(Err(silence()));
    bench.place(&[Arc::new(expiring(3))]);
    assert!(bench.gives("token-one").await);
    assert_eq!((bench.lab.calls(), bench.state()), (1, "expiring"));
}
