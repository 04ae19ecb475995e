//! What is under way when a credential is disabled: it ends by itself, or is cut, in this process and in the one before.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use patgate::sample::Behaviour;
use serde_json::Value;

use crate::{
    credential::{code, done, listed, operated, refused},
    handover::{activated, terminate},
    support::{TestProxy, patgate, text},
};

fn is_of(path: &'static str, kind: &'static str) -> impl Fn(&Value) -> bool {
    move |record| record["kind"] == kind && record["path"].as_str().is_some_and(|found| found.ends_with(path))
}

/// curl that goes on beside the test.
fn beside(proxy: &TestProxy, path: &str, arguments: &[&str]) -> Child {
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--noproxy", "*", "--max-time", "60", "-w", "\n%{http_code}"]).args(arguments);
    curl.arg(proxy.url(path)).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn ended(child: Child, within: Duration) -> (Output, Duration) {
    let begun = Instant::now();
    let output = child.wait_with_output().unwrap();
    assert!(begun.elapsed() < within, "{:?}: {}", begun.elapsed(), text(&output));
    (output, begun.elapsed())
}

#[test]
fn without_a_cut_what_is_under_way_comes_to_its_end() {
    let proxy = operated().start();
    let slow = beside(&proxy, "/contoso/_apis/sample/trickle?bytes=30&pause-ms=100", &[]);
    proxy.record("the slow one", is_of("/sample/trickle", "intent"));
    done(&proxy, &["disable", "contoso", "--reason", "it leaked"]);
    assert_eq!(code(&proxy), refused());
    let (output, _) = ended(slow, Duration::from_secs(20));
    assert_eq!(text(&output), format!("{}\n200", ".".repeat(30)));
    proxy.record("its end", |record| {
        is_of("/sample/trickle", "outcome")(record) && record["ending"] == "complete"
    });
}

#[test]
fn a_cut_ends_a_clone_within_a_second_and_git_fails() {
    let proxy = operated().start();
    let folder = proxy.path("work");
    fs::create_dir(&folder).unwrap();
    // What does not compress, so that the pack is long and what comes before it is not.
    proxy.git_ok(&folder, &["clone", "-q", &proxy.url("/contoso/web/_git/web"), "whole"]);
    let whole = folder.join("whole");
    let mut noise = vec![0; 1 << 20];
    fs::File::open("/dev/urandom").unwrap().read_exact(&mut noise).unwrap();
    fs::write(whole.join("noise.bin"), noise).unwrap();
    proxy.git_ok(&whole, &["add", "."]);
    proxy.git_ok(&whole, &["commit", "-qm", "noise"]);
    proxy.git_ok(&whole, &["push", "-q", "origin", "HEAD"]);
    proxy.organization().behave(Behaviour::Hang { after: 100_000 });
    let clone = Command::new("git")
        .current_dir(&folder)
        .args(["clone", "-q", &proxy.url("/contoso/web/_git/web"), "web"])
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("HOME", proxy.folder.path())
        .env("no_proxy", "*")
        .env("GIT_TERMINAL_PROMPT", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let has_begun = || {
        let packs = fs::read_dir(folder.join("web/.git/objects/pack")).into_iter().flatten();
        packs.into_iter().any(|pack| pack.unwrap().metadata().is_ok_and(|about| about.len() > 0))
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    while !has_begun() {
        assert!(Instant::now() < deadline, "{}", proxy.log());
        thread::sleep(Duration::from_millis(10));
    }
    let hangs = proxy.record("the clone", is_of("/git-upload-pack", "intent"));
    done(&proxy, &["disable", "contoso", "--reason", "it leaked", "--cut"]);
    let (output, took) = ended(clone, Duration::from_secs(2));
    assert!(!output.status.success(), "git took it for whole");
    println!("git had failed {took:?} after the answer to the operator: {}", text(&output));
    let outcome =
        proxy.record("its end", |record| record["kind"] == "outcome" && record["id"] == hangs["id"]);
    assert_eq!(outcome["ending"], "cut", "{outcome}");
    assert!(outcome["bytes-out"].as_u64().is_some_and(|bytes| bytes > 0 && bytes <= 100_000), "{outcome}");
    assert_eq!(proxy.record("the operation", |record| record["kind"] == "operation")["cut"], "yes");
    proxy.organization().behave(Behaviour::Sound);
    assert_eq!(code(&proxy), refused());
    done(&proxy, &["enable", "contoso", "--reason", "over"]);
    assert_eq!(code(&proxy).0, 200);
}

#[test]
fn a_cut_reaches_answers_in_every_stage_and_clients_that_do_not_read() {
    let mut proxy = operated().start();
    let answer = beside(&proxy, "/contoso/_apis/sample/hang?after=100000", &["-o", "/dev/null"]);
    let chunked = beside(&proxy, "/contoso/_apis/sample/hang?after=100001&chunked=1", &["-o", "/dev/null"]);
    let waiting = beside(&proxy, "/contoso/_apis/sample/slow?seconds=59", &[]);
    // One that takes nothing of what would fill every buffer between.
    let mut unread = TcpStream::connect(proxy.address).unwrap();
    let huge = "GET /contoso/_apis/sample/huge?bytes=2000000000 HTTP/1.1\r\nHost: localhost\r\n\r\n";
    unread.write_all(huge.as_bytes()).unwrap();
    // One that does not come to the end of its own body.
    let mut push = TcpStream::connect(proxy.address).unwrap();
    let head =
        "POST /contoso/_apis/sample/sink HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nbegun";
    push.write_all(head.as_bytes()).unwrap();
    for path in ["after=100000", "after=100001&chunked=1", "seconds=59", "bytes=2000000000"] {
        proxy.record(path, |record| record["kind"] == "intent" && record["query"].as_str().is_some());
    }
    let count = |proxy: &TestProxy, kind: &str| {
        proxy.records().iter().filter(|record| record["kind"] == kind).count()
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    while count(&proxy, "intent") < 5 {
        assert!(Instant::now() < deadline, "{}", proxy.log());
        thread::sleep(Duration::from_millis(20));
    }
    done(&proxy, &["disable", "contoso", "--reason", "it leaked", "--cut"]);
    let begun = Instant::now();
    while count(&proxy, "outcome") < 5 {
        assert!(begun.elapsed() < Duration::from_secs(5), "{:#?}", proxy.records());
        thread::sleep(Duration::from_millis(20));
    }
    println!("all five had ended {:?} after the answer to the operator", begun.elapsed());
    for child in [answer, chunked] {
        let (output, _) = ended(child, Duration::from_secs(2));
        assert!(!output.status.success(), "curl took it for whole: {}", text(&output));
    }
    let (output, _) = ended(waiting, Duration::from_secs(2));
    assert!(
        text(&output).contains("credential-disabled") && text(&output).ends_with("\n424"),
        "{}",
        text(&output)
    );
    push.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut told = [0; 12];
    push.read_exact(&mut told).unwrap();
    assert_eq!(&told, b"HTTP/1.1 424");
    let mut endings: Vec<_> = proxy
        .records()
        .iter()
        .filter(|record| record["kind"] == "outcome")
        .map(|record| record["ending"].as_str().unwrap().to_owned())
        .collect();
    endings.sort();
    assert_eq!(endings, ["cut", "cut", "cut", "refused", "refused"]);
    drop((unread, push));
    assert_eq!(proxy.stop(), Some(0));
}

#[test]
fn a_second_patgate_does_not_take_the_state_or_the_socket_and_a_successor_does() {
    let mut proxy = operated().drain_delay("0s").start();
    proxy.stop();
    let listener = std::net::TcpListener::bind(proxy.address).unwrap();
    let mut old = activated(&proxy, &listener);
    // Others, on addresses and audits of their own.
    let config = fs::read_to_string(proxy.config()).unwrap();
    let (port, free) = (proxy.address.port().to_string(), crate::support::free_address().port().to_string());
    let admin = crate::support::free_address().to_string();
    let second = config.replace(&port, &free).replace(&proxy.admin.to_string(), &admin);
    let second =
        second.replace(&format!("folder = \"{}\"", proxy.audit.display()), "folder = \"other-audit\"");
    fs::write(proxy.path("second.toml"), &second).unwrap();
    fs::write(proxy.path("third.toml"), second.replace("folder = \"state\"", "folder = \"other-state\""))
        .unwrap();
    for (name, exit, said) in [
        ("second.toml", 75, "uses the state in"),
        ("third.toml", 69, "is the socket of another patgate that runs"),
    ] {
        let output = patgate().args(["serve", "--config"]).arg(proxy.path(name)).output().unwrap();
        assert_eq!(output.status.code(), Some(exit), "{}", text(&output));
        assert!(text(&output).contains(said), "{}", text(&output));
    }

    let trickle =
        beside(&proxy, "/contoso/_apis/sample/trickle?bytes=590&pause-ms=100", &["-o", "/dev/null"]);
    proxy.record("the slow one", is_of("/sample/trickle", "intent"));
    let new = activated(&proxy, &listener);
    terminate(&old);
    // The new one is asked; the old one, which still answers, follows.
    done(&proxy, &["disable", "contoso", "--reason", "it leaked", "--cut"]);
    assert_eq!(code(&proxy), refused());
    let (output, took) = ended(trickle, Duration::from_secs(10));
    assert!(!output.status.success(), "curl took it for whole");
    println!("the old process followed within {took:?}");
    assert!(old.wait().unwrap().success(), "{}", proxy.log());
    assert!(proxy.path("admin.sock").exists(), "the old process took the new one's socket away");
    assert_eq!(listed(&proxy)["state-version"], 1);
    proxy
        .record("its end", |record| is_of("/sample/trickle", "outcome")(record) && record["ending"] == "cut");
    terminate(&new);
    assert!(new.wait_with_output().unwrap().status.success());
}
