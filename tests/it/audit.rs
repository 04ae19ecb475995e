//! The record, as those who read it see it.

use std::{
    fs,
    time::{Duration, Instant},
};

use crate::support::{TestProxy, patgate, setup, text};

#[test]
fn a_flipped_byte_is_pointed_at() {
    let mut proxy = setup().start();
    for _ in 0..5 {
        assert_eq!(proxy.get("/contoso/_apis/projects", &[]).0, 200);
    }
    proxy.stop();
    let copy = proxy.path("copy");
    let copied = std::process::Command::new("cp").arg("-r").arg(&proxy.audit).arg(&copy).status().unwrap();
    assert!(copied.success());
    let segment = fs::read_dir(copy.join("chain-1"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "seg"))
        .unwrap();
    let mut bytes = fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&segment, bytes).unwrap();
    let verified = patgate().args(["audit", "verify"]).arg(&copy).output().unwrap();
    assert_eq!(verified.status.code(), Some(3), "{}", text(&verified));
    assert!(text(&verified).contains(".seg"), "{}", text(&verified));
}

#[test]
fn the_tail_names_client_rule_credential_path_and_status() {
    let proxy = setup().start();
    assert_eq!(proxy.get("/contoso/_apis/projects", &[]).0, 200);
    proxy.record("the use", |record| record["kind"] == "outcome");
    let output = patgate().args(["audit", "tail", "--config"]).arg(proxy.config()).output().unwrap();
    let said = text(&output);
    for part in ["here", "git", "contoso", "/contoso/_apis/projects", "200"] {
        assert!(said.contains(part), "{part} is missing: {said}");
    }
    assert!(!said.contains('\u{1b}'), "colour although it is no terminal: {said}");
}

#[test]
fn a_flood_of_refusals_is_counted_and_does_not_fill_the_disk() {
    let proxy = setup().start();
    let requests: Vec<String> = (0..400)
        .map(|_| "GET /unknown/_apis/x HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned())
        .chain(["GET /unknown/_apis/x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".to_owned()])
        .collect();
    proxy.raw(requests.concat().as_bytes());
    let sum = || {
        let records = proxy.records();
        let refusals: Vec<_> =
            records.iter().filter(|record| record["refusal"] == "no-rule").cloned().collect();
        let count: u64 = refusals.iter().map(|record| record["count"].as_u64().unwrap_or(1)).sum();
        (refusals.len(), count)
    };
    let settled = (0..100).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(100));
        sum().1 == 401
    });
    let (records, count) = sum();
    assert!(settled, "{count} of 401 are on record");
    assert!(records < 200, "{records} records for 401 refusals");
}

/// Asks until the answer has the status; gives how long that took.
fn until(proxy: &TestProxy, status: u16) -> Duration {
    let begun = Instant::now();
    while proxy.get("/contoso/_apis/projects", &[]).0 != status {
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "not {status} after five seconds:\n{}",
            proxy.log()
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    begun.elapsed()
}

#[test]
fn a_folder_that_is_deleted_is_no_record_and_is_made_again() {
    let mut proxy = setup().start();
    assert_eq!(proxy.get("/contoso/_apis/projects", &[]).0, 200);
    proxy.record("its end", |record| record["kind"] == "outcome");
    fs::remove_dir_all(&proxy.audit).unwrap();
    let before = proxy.organization().requests();
    let (status, body) = proxy.get("/contoso/_apis/projects", &[]);
    assert!(status == 503 && body.contains("audit-unavailable"), "{status} {body}");
    assert_eq!(proxy.organization().requests(), before, "something went up without a record");
    println!("again after {:?}", until(&proxy, 200));
    assert!(proxy.is_ready());

    // Deleted while nobody asks: noticed all the same.
    fs::remove_dir_all(&proxy.audit).unwrap();
    let begun = Instant::now();
    while !proxy.audit.join("chain-1/lock").exists() {
        assert!(begun.elapsed() < Duration::from_secs(5), "{}", proxy.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    until(&proxy, 200);
    proxy.record("the gap", |record| record["kind"] == "gap");
    let again = patgate().args(["serve", "--config"]).arg(proxy.config()).output().unwrap();
    assert!(!again.status.success());
    assert_eq!(proxy.stop(), Some(0));
    let verified = patgate().args(["audit", "verify"]).arg(&proxy.audit).output().unwrap();
    assert_eq!(verified.status.code(), Some(2), "{}", text(&verified));
    assert!(text(&verified).contains("gap"), "{}", text(&verified));
    proxy.unverified = true;
    proxy.launch();
    assert_eq!(proxy.get("/contoso/_apis/projects", &[]).0, 200);
}
