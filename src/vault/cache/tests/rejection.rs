use super::*;

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
    assert_eq!(bench.state(), "rejected");
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
    assert_eq!(bench.state(), "valid");
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
        assert_eq!(bench.state(), "valid");
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
