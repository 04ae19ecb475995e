//! The life of patgate's own token.

use futures_util::future::join_all;

use super::*;

#[tokio::test]
#[ignore = "needs OpenBao"]
async fn all_reads_share_one_login_and_one_failure_of_it() {
    let desk = Desk::new();
    let source = desk.source();
    let all = async || join_all((0..64).map(|_| read(&source, SECRET))).await;
    desk.faults.behave_for("/login", Behaviour::Status(500));
    assert!(all().await.iter().all(|one| matches!(one, Err(VaultError::Unavailable(_)))));
    assert_eq!(desk.logins(), 1);
    desk.faults.behave(Behaviour::Pass);
    assert!(all().await.iter().all(Result::is_ok));
    assert_eq!(desk.logins(), 2);
    assert!(all().await.iter().all(Result::is_ok));
    assert_eq!(desk.logins(), 2);
}

#[tokio::test]
#[ignore = "needs OpenBao"]
async fn a_reader_that_leaves_does_not_take_the_login_with_it() {
    let desk = Desk::new();
    let source = Arc::new(desk.source());
    desk.faults.behave_for("/login", Behaviour::Slow(Duration::from_secs(1)));
    let own = Arc::clone(&source);
    let impatient = tokio::spawn(async move { read(&*own, SECRET).await.map(drop) });
    while desk.logins() == 0 {
        tokio::task::yield_now().await;
    }
    impatient.abort();
    assert!(impatient.await.unwrap_err().is_cancelled());
    assert_eq!(read(&*source, SECRET).await.unwrap().0, "canary-first");
    assert_eq!(desk.logins(), 1);
}

#[tokio::test]
#[ignore = "needs OpenBao"]
async fn a_revoked_token_is_replaced_once_and_what_is_forbidden_stays_so() {
    let desk = Desk::new();
    let source = desk.source();
    assert_eq!(read(&source, SECRET).await.unwrap().0, "canary-first");
    desk.bao.ok("POST", "sys/leases/revoke-prefix/auth/approle/login", &json!({}));
    let all = join_all((0..16).map(|_| read(&source, SECRET))).await;
    assert!(all.iter().all(Result::is_ok), "{all:?}");
    assert_eq!(desk.logins(), 2);
    for _ in 0..3 {
        denied(&source, "secret/forbidden/web#pat").await;
    }
    assert_eq!(desk.logins(), 2, "a young token that the vault knows is not the reason");
}

#[tokio::test]
#[ignore = "needs OpenBao"]
async fn a_token_is_renewed_while_it_can_be_and_then_got_anew() {
    let desk = Desk::with(&json!({ "token_ttl": "3s", "token_max_ttl": "9s" }));
    let source = desk.source();
    let begun = crate::clock::now();
    // Reads all the time, until the longest life of the first token is over.
    while desk.logins() < 2 {
        assert_eq!(read(&source, SECRET).await.unwrap().0, "canary-first");
        assert!(begun.elapsed().as_secs() < 30, "{:?}", desk.faults.seen());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(desk.faults.count("renew-self") >= 2, "{:?}", desk.faults.seen());
    assert!(begun.elapsed().as_secs() >= 7, "the first token had nine seconds");
    for token in desk.faults.credentials() {
        assert!(!format!("{:?}", source.fetch(SECRET).await.map(|it| it.value)).contains(&token));
    }
}

#[tokio::test]
#[ignore = "needs OpenBao"]
async fn a_token_that_cannot_be_renewed_is_got_anew_before_its_end() {
    let desk = Desk::with(&json!({ "token_ttl": "3s", "token_type": "batch" }));
    let source = desk.source();
    let begun = crate::clock::now();
    while desk.logins() < 3 {
        assert_eq!(read(&source, SECRET).await.unwrap().0, "canary-first");
        assert!(begun.elapsed().as_secs() < 30, "{:?}", desk.faults.seen());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(desk.faults.count("renew-self"), 0);
}

#[tokio::test]
#[ignore = "needs OpenBao"]
async fn nothing_outlives_the_source() {
    let desk = Desk::new();
    let source = desk.source();
    assert_eq!(read(&source, SECRET).await.unwrap().0, "canary-first");
    let session = Arc::downgrade(&source.session);
    drop(source);
    assert!(session.upgrade().is_none(), "the renewal holds nothing");

    // In the middle of a login.
    desk.faults.behave_for("/login", Behaviour::Hang);
    let source = Arc::new(desk.source());
    let (session, own) = (Arc::downgrade(&source.session), Arc::clone(&source));
    let reader = tokio::spawn(async move { read(&*own, SECRET).await.map(drop) });
    while desk.logins() < 2 {
        tokio::task::yield_now().await;
    }
    reader.abort();
    let _ = reader.await;
    drop(source);
    while session.upgrade().is_some() {
        tokio::task::yield_now().await;
    }
}
