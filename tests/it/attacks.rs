//! patgate as a hostile tool on an allowed address, a hostile upstream, and a local user meet it.

use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use patgate::sample::Behaviour;

use crate::support::{PAT, TestProxy, patgate, secrets, setup};

mod http2;

const HOST: &str = "Host: localhost\r\n";
const GOOD: &str = "/contoso/_apis/projects";

/// The statuses of the answers in what came back on one connection.
fn statuses(answers: &str) -> Vec<u16> {
    answers.match_indices("HTTP/1.1 ").filter_map(|(at, _)| answers[at + 9..at + 12].parse().ok()).collect()
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\n{HOST}\r\n")
}

fn last(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n")
}

/// How many records there are of a kind, counting those that stand for several.
fn count(proxy: &TestProxy, kind: &str) -> u64 {
    let records = proxy.records();
    records.iter().filter(|record| record["kind"] == kind).map(|one| one["count"].as_u64().unwrap_or(1)).sum()
}

/// Waits until as many records of a kind are there, and no more.
fn settled(proxy: &TestProxy, kind: &str, expected: u64) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while count(proxy, kind) < expected && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(count(proxy, kind), expected, "{kind}: {:#?}", proxy.records());
}

#[test]
fn pipelined_requests_are_judged_and_recorded_one_by_one() {
    let proxy = setup().start();
    let before = proxy.organization().requests();
    let answers = proxy.raw(
        [
            get(GOOD),
            get("/fabrikam/_apis/projects"),
            get(GOOD),
            format!("POST /fabrikam/_apis/x HTTP/1.1\r\n{HOST}Content-Length: 3\r\n\r\nabc"),
            get("/contoso/_apis/tokens/pats"),
            get(GOOD),
            get("/contoso/../fabrikam/_apis/x"),
            get(GOOD),
        ]
        .concat()
        .as_bytes(),
    );
    // What is ambiguous ends the connection: nothing behind it is read.
    assert_eq!(statuses(&answers), [200, 403, 200, 403, 403, 200, 400], "{answers}");
    assert_eq!(proxy.organization().requests() - before, 3);
    settled(&proxy, "intent", 3);
    settled(&proxy, "outcome", 3);
    settled(&proxy, "refusal", 4);
}

#[test]
fn the_rest_of_a_refused_body_is_never_read_as_a_request() {
    let proxy = setup().start();
    let hidden = get(GOOD);
    let many = hidden.repeat(3000);
    let post = |target: &str, more: &str| format!("POST {target} HTTP/1.1\r\n{HOST}{more}\r\n");
    let length = |body: &str| format!("Content-Length: {}\r\n", body.len());
    let refused = "/fabrikam/_apis/x";
    let chunk = |body: &str| format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let te = "Transfer-Encoding: chunked\r\n";
    for (name, request) in [
        ("small", post(refused, &length(&hidden)) + &hidden),
        ("large", post(refused, &length(&many)) + &many),
        ("chunked", post(refused, te) + &chunk(&hidden)),
        ("large and chunked", post(refused, te) + &chunk(&many)),
        ("expected", post(refused, &(length(&hidden) + "Expect: 100-continue\r\n")) + &hidden),
        ("expected and large", post(refused, &(length(&many) + "Expect: 100-continue\r\n")) + &many),
        ("a push", post("/fabrikam/web/_git/web/git-receive-pack", &length(&many)) + &many),
        ("no such address", post("/_patgate/ready", &length(&many)) + &many),
        ("ambiguous", post("/contoso//x", &length(&hidden)) + &hidden),
        ("an unknown method", format!("QUERY {refused} HTTP/1.1\r\n{HOST}{}\r\n{hidden}", length(&hidden))),
        ("a body on a GET", format!("GET {GOOD} HTTP/1.1\r\n{HOST}{}\r\n{hidden}", length(&hidden))),
        ("a body on a GET, chunked", format!("GET {GOOD} HTTP/1.1\r\n{HOST}{te}\r\n{}", chunk(&hidden))),
        (
            "a body for the balancer",
            format!("GET /_patgate/ready HTTP/1.1\r\n{HOST}{}\r\n{many}", length(&many)),
        ),
        ("lengths and chunks", post(refused, &(length("0\r\n\r\n") + te)) + "0\r\n\r\n" + &hidden),
        ("broken chunks", post(refused, te) + "5\r\nab\r\n" + &hidden),
        ("a size that is none", post(refused, te) + "0x3\r\nabc\r\n0\r\n\r\n" + &hidden),
        (
            "upgraded",
            format!(
                "GET {refused} HTTP/1.1\r\n{HOST}Connection: Upgrade, close\r\nUpgrade: h2c\r\n\r\n{hidden}"
            ),
        ),
        ("connected", format!("CONNECT /_patgate/ready HTTP/1.1\r\n{HOST}\r\n{hidden}")),
    ] {
        let before = proxy.organization().requests();
        let mut socket = TcpStream::connect(proxy.address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        // It may close before it has read everything.
        let _ = socket.write_all(request.as_bytes());
        let _ = socket.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(statuses(&answer).len() <= 1, "{name}: {answer}");
        assert_eq!(proxy.organization().requests(), before, "{name}: what was hidden in a body went up");
    }
    assert_eq!(count(&proxy, "intent"), 0);
}

#[test]
fn a_body_that_breaks_is_never_ended_cleanly_upstream() {
    let proxy = setup().start();
    for broken in [
        "5\r\nabc",
        "3\r\nabc\r\n0x3\r\nabc\r\n0\r\n\r\n",
        "3\r\nabc\r\nzz\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
    ] {
        let before = proxy.organization().requests();
        let mut socket = TcpStream::connect(proxy.address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let head = "POST /contoso/_apis/sample/sink HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
        socket.write_all(format!("{head}{broken}").as_bytes()).unwrap();
        socket.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        assert!(!answer.starts_with("HTTP/1.1 2"), "{broken:?}: {answer}");
        if proxy.organization().requests() > before {
            let seen = proxy.organization().seen().into_iter().next_back().unwrap();
            assert!(!seen.body_is_whole(), "{broken:?} looked whole to Azure DevOps");
        }
    }
}

#[test]
fn what_hyper_lets_through_goes_up_clean_or_not_at_all() {
    let proxy = setup().start();
    let head = |line: &str| format!("GET {GOOD} HTTP/1.1\r\n{HOST}{line}\r\nConnection: close\r\n\r\n");
    let post = |lines: &str| {
        format!(
            "POST /contoso/_apis/sample/sink HTTP/1.1\r\n{HOST}{lines}\r\nConnection: close\r\n\r\nabc\r\n0\r\n\r\n"
        )
    };
    for (name, request) in [
        ("obs-text", head("Accept: caf\u{e9}").into_bytes()),
        (
            "0x85",
            b"GET /contoso/_apis/projects HTTP/1.1\r\nHost: localhost\r\nAccept: a\x85\r\n\r\n".to_vec(),
        ),
        ("obs-fold", head("Accept: a\r\n b").into_bytes()),
        ("a leading space", head(" Accept: a").into_bytes()),
        ("an empty name", head(": a").into_bytes()),
        ("no colon", head("Accept").into_bytes()),
        ("a NUL", head("Accept: a\0b").into_bytes()),
        ("a bare CR", head("Accept: a\rb").into_bytes()),
        ("a space before the colon", head("Transfer-Encoding : chunked").into_bytes()),
        ("underscores", head("X_Forwarded_For: 10.0.0.1").into_bytes()),
        ("an override", head("X-Method-Override: DELETE").into_bytes()),
        ("two lengths", post("Content-Length: 3, 3").into_bytes()),
        ("an empty length", post("Content-Length: ").into_bytes()),
        ("a negative length", post("Content-Length: -1").into_bytes()),
        ("a hexadecimal length", post("Content-Length: 0x3").into_bytes()),
        ("2^64 bytes", post("Content-Length: 18446744073709551616").into_bytes()),
        ("xchunked", post("Transfer-Encoding: xchunked").into_bytes()),
        ("\\x0bchunked", post("Transfer-Encoding: \x0bchunked").into_bytes()),
        (",chunked", post("Transfer-Encoding: ,chunked").into_bytes()),
        ("chunked twice", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked").into_bytes()),
        ("identity", post("Transfer-Encoding: identity").into_bytes()),
        ("HTTP/0.9", b"GET /contoso/_apis/projects\r\n\r\n".to_vec()),
        ("HTTP/1.2", format!("GET {GOOD} HTTP/1.2\r\n{HOST}\r\n").into_bytes()),
        (
            "chunks of HTTP/1.0",
            format!("POST {GOOD} HTTP/1.0\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n").into_bytes(),
        ),
        ("two spaces", format!("GET  {GOOD} HTTP/1.1\r\n{HOST}\r\n").into_bytes()),
        ("a tab", format!("GET\t{GOOD} HTTP/1.1\r\n{HOST}\r\n").into_bytes()),
        ("an asterisk", format!("OPTIONS * HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n").into_bytes()),
        (
            "an authority",
            format!("GET dev.azure.com:443 HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n").into_bytes(),
        ),
        ("ftp", format!("GET ftp://evil/contoso HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n").into_bytes()),
        ("an empty host", format!("GET {GOOD} HTTP/1.1\r\nHost: \r\nConnection: close\r\n\r\n").into_bytes()),
        (
            "a host with a user",
            format!("GET {GOOD} HTTP/1.1\r\nHost: a@localhost\r\nConnection: close\r\n\r\n").into_bytes(),
        ),
        (
            "a host with a path",
            format!("GET {GOOD} HTTP/1.1\r\nHost: a@b/c\r\nConnection: close\r\n\r\n").into_bytes(),
        ),
        (
            "a host of Azure DevOps",
            format!("GET {GOOD} HTTP/1.1\r\nHost: dev.azure.com\r\nConnection: close\r\n\r\n").into_bytes(),
        ),
        ("raw UTF-8", last("/contoso/caf\u{e9}/_apis/x").into_bytes()),
        ("HTTP/2 in the clear", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
    ] {
        let answer = proxy.raw(&request);
        assert!(!answer.starts_with("HTTP/1.1 2") && statuses(&answer).len() <= 1, "{name}: {answer}");
    }
    assert_eq!(count(&proxy, "intent"), 0, "nothing of that went up");

    // What is read although it is written badly goes up written well, byte for byte the same as its twin.
    let mut seen = Vec::new();
    for request in [
        last("/contoso/_apis/sample/echo"),
        "GET /contoso/_apis/sample/echo HTTP/1.1\nHost: localhost\nConnection: close\n\n".to_owned(),
        last("/contoso/_apis/sample/echo#fragment"),
        format!(
            "GET /contoso/_apis/sample/echo HTTP/1.1\r\n{HOST}Connection: close, X-A\r\nX-A: b\r\nUpgrade: websocket\r\nTE: trailers\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nKeep-Alive: timeout=5\r\nProxy-Authorization: Basic eA==\r\nX-Forwarded-Host: evil\r\nX-Original-URL: /x\r\nX-Rewrite-URL: /x\r\nX-TFS-Impersonate: a\r\nX-VSS-Impersonate: a\r\nAuthorization: Bearer own\r\nCookie: UserAuthentication=own\r\nCookie: b=c\r\n\r\n"
        ),
    ] {
        let answer = proxy.raw(request.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 200"), "{request:?}: {answer}");
        let one = proxy.organization().seen().into_iter().next_back().unwrap();
        seen.push((one.method.clone(), one.target.clone(), one.headers.clone()));
    }
    assert!(seen.windows(2).all(|two| two[0] == two[1]), "{seen:#?}");
}

#[test]
fn trailers_go_nowhere() {
    let proxy = setup().start();
    let request = format!(
        "POST /contoso/_apis/sample/sink HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\nTE: trailers\r\n\
         Trailer: Authorization, Host, Content-Length\r\n\r\n3\r\nabc\r\n0\r\nAuthorization: Basic eDp5\r\n\
         Host: evil.example\r\nContent-Length: 5\r\nX-HTTP-Method-Override: DELETE\r\n\r\n"
    );
    let answer = proxy.raw((request + &last(GOOD)).as_bytes());
    assert_eq!(statuses(&answer), [200, 200], "{answer}");
    let seen = proxy.organization().seen();
    let sink = seen.iter().find(|seen| seen.target.ends_with("/sink")).unwrap();
    assert!(sink.body_is_whole() && sink.body_bytes() == 3, "{sink:?}");
    for one in &seen {
        assert_eq!(one.authorization.len(), 1, "{one:?}");
        assert_eq!(one.header("host").collect::<Vec<_>>(), ["dev.azure.com"], "{one:?}");
        assert_eq!(one.header("trailer").count() + one.header("te").count(), 0, "{one:?}");
    }
}

#[test]
fn a_head_that_trickles_is_cut_off_and_on_record() {
    let proxy = setup().limits("head = \"1s\"").start();
    let begun = Instant::now();
    let mut socket = TcpStream::connect(proxy.address).unwrap();
    let bytes = get(GOOD).bytes().cycle().filter(|byte| *byte != b'\n').take(1000).collect::<Vec<_>>();
    let ended = bytes.into_iter().any(|byte| {
        thread::sleep(Duration::from_millis(100));
        socket.write_all(&[byte]).is_err()
    });
    assert!(ended && begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    proxy.record("the slow head", |record| record["refusal"] == "head-timeout");
    assert_eq!(proxy.get(GOOD, &[]).0, 200);
}

#[test]
fn a_head_is_as_large_as_documented_and_no_larger() {
    let proxy = setup().start();
    let head = |size: usize| {
        let bare = last(GOOD).len() + "X-Pad: \r\n".len();
        format!(
            "GET {GOOD} HTTP/1.1\r\n{HOST}X-Pad: {}\r\nConnection: close\r\n\r\n",
            "x".repeat(size - bare)
        )
    };
    for (size, status) in [(32 * 1024 - 1, 200), (32 * 1024 + 1, 431), (100 * 1024, 431)] {
        assert_eq!(statuses(&proxy.raw(head(size).as_bytes())), [status], "{size}");
    }
    settled(&proxy, "connection", 2);
}

#[test]
fn a_client_that_takes_nothing_is_let_go_and_so_is_azure_devops() {
    let proxy = setup().limits("write-idle = \"1s\"").start();
    let mut socket = TcpStream::connect(proxy.address).unwrap();
    socket.write_all(last("/contoso/_apis/sample/huge?bytes=1000000000").as_bytes()).unwrap();
    let record = proxy.record("the client that takes nothing", |record| record["kind"] == "outcome");
    assert_eq!(record["ending"], "client-gone", "{record}");
    drop(socket);
    assert_eq!(proxy.get(GOOD, &[]).0, 200);
}

#[test]
fn connections_from_one_address_are_capped_and_others_are_served() {
    let proxy = setup().start();
    let held: Vec<_> = (0..300).map(|_| TcpStream::connect(proxy.address).unwrap()).collect();
    // From another address: not known to any rule, but served.
    let (status, body) = proxy.get(GOOD, &["--interface", "127.0.0.2"]);
    assert_eq!(status, 403, "{body}");
    assert!(!proxy.curl(GOOD, &[]).status.success(), "the address has all it may have");
    drop(held);
    let served = (0..100).any(|_| {
        thread::sleep(Duration::from_millis(50));
        proxy.get(GOOD, &["-o", "/dev/null"]).0 == 200
    });
    assert!(served, "places are given back");
    // 44 of the three hundred, and whoever came after them.
    let deadline = Instant::now() + Duration::from_secs(10);
    while count(&proxy, "connection") < 45 && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(100));
    }
    let refused = count(&proxy, "connection");
    assert!((45..60).contains(&refused), "{refused}");
    let records = proxy.records();
    assert!(
        records.iter().filter(|record| record["kind"] == "connection").count() < 45,
        "a flood is counted"
    );
}

#[test]
fn what_a_client_sends_to_steal_or_to_forge_comes_to_nothing() {
    let proxy = setup().start();
    let own = "own-canary-of-the-client-which-no-record-may-hold";
    let basic = {
        use base64::{Engine, engine::general_purpose::STANDARD};
        STANDARD.encode(format!(":{own}"))
    };
    let sas = "sv%3D2025%26sig%3Down-signature-of-the-client";
    for (path, arguments) in [
        (GOOD.to_owned(), vec!["-H".to_owned(), format!("Authorization: Basic {basic}")]),
        (GOOD.to_owned(), vec!["-H".to_owned(), format!("Cookie: UserAuthentication={own}")]),
        (GOOD.to_owned(), vec!["-H".to_owned(), format!("Proxy-Authorization: Bearer {own}")]),
        (GOOD.to_owned(), vec!["-H".to_owned(), format!("X-NuGet-ApiKey: {own}")]),
        (format!("{GOOD}?sig={own}&se=2026&token={own}"), vec![]),
        (format!("{GOOD}?{own}"), vec![]),
        (format!("/contoso/_apis/sample/location?to=https://x.blob.core.windows.net/a?{sas}"), vec![]),
        (format!("/contoso/_apis/x/{PAT}"), vec![]),
        (format!("/fabrikam/_apis/x/{PAT}"), vec![]),
        (format!("/contoso//{PAT}"), vec![]),
        (format!("/contoso/_apis/x?a={PAT}&{PAT}=b"), vec![]),
        ("/contoso/_apis/x%0a%7b%22v%22:1%7d".to_owned(), vec![]),
    ] {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).chain(["--path-as-is"]).collect();
        let (status, body) = proxy.get(&path, &arguments);
        assert!(status != 0 && !body.contains(PAT), "{path}: {status} {body}");
    }
    for seen in proxy.organization().seen() {
        assert!(!format!("{:?}", seen.headers).contains(own), "{seen:?}");
    }
    proxy.signal("-HUP");
    let log = proxy.path("patgate.log");
    let admin = metrics(proxy.admin);
    assert!(admin.contains("# EOF") && !admin.contains(own) && !admin.contains(PAT), "{admin}");
    secrets::assert_absent(&[own, "own-signature-of-the-client"], &[&log, &proxy.audit]);
    // One line a record, whatever was sent.
    let tail = patgate().args(["audit", "tail", "--all"]).arg(&proxy.audit).output().unwrap();
    let lines = String::from_utf8(tail.stdout).unwrap().lines().count();
    let records = proxy.records().len();
    assert!(lines <= records, "{lines} lines of {records} records");
}

#[test]
fn a_page_of_another_site_in_a_browser_here_writes_nothing() {
    let proxy = setup().start();
    let post = "/contoso/_apis/sample/sink";
    let form =
        ["-X", "POST", "-d", "a=b", "-H", "Content-Type: text/plain", "-H", "Sec-Fetch-Site: cross-site"];
    for origin in ["https://evil.example", "null", "http://localhost:1"] {
        let origin = format!("Origin: {origin}");
        let (status, body) = proxy.get(post, &[&form[..], &["-H", &origin]].concat());
        assert_eq!(status, 421, "{origin}: {body}");
    }
    assert_eq!(count(&proxy, "intent"), 0);
    proxy.record("the page", |record| record["detail"] == "a page of another site would write (Origin)");
    let own = format!("Origin: {}", proxy.url(""));
    assert_eq!(proxy.get(post, &[&form[..], &["-H", &own]].concat()).0, 200);
    // What it only asks for, it is not shown: nothing in the answer allows a page to look.
    let (_, answer) = proxy.get(GOOD, &["-i", "-H", "Origin: https://evil.example"]);
    assert!(!answer.to_lowercase().contains("access-control"), "{answer}");
}

fn metrics(admin: SocketAddr) -> String {
    let mut socket = TcpStream::connect(admin).unwrap();
    socket.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_flood_beyond_the_scope_makes_one_probe_and_takes_the_credential_from_nobody() {
    let proxy = setup().start();
    let flood = || {
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let answers = proxy.raw((get(GOOD).repeat(9) + &last(GOOD)).as_bytes());
                    assert!(statuses(&answers).iter().all(|status| matches!(status, 403 | 424)), "{answers}");
                });
            }
        });
    };
    let probes = || {
        let seen = proxy.organization().seen();
        seen.iter().filter(|seen| seen.target.to_lowercase().ends_with("connectiondata")).count()
    };
    let reads = || proxy.records().iter().filter(|record| record["kind"] == "vault-read").count();
    let read_before = reads();
    proxy.organization().behave(Behaviour::UnderScoped);
    flood();
    assert_eq!(probes(), 1);
    assert_eq!(reads(), read_before, "a scope is no matter for the vault");
    proxy.organization().behave(Behaviour::default());
    assert_eq!(proxy.get(GOOD, &[]).0, 200);

    proxy.organization().behave(Behaviour::Expired);
    let before = proxy.organization().requests();
    flood();
    flood();
    assert!(proxy.organization().requests() - before <= 8 * 2, "a dead token is not used on");
    assert!(reads() - read_before <= 4, "{} reads", reads() - read_before);
}

#[test]
fn a_post_is_sent_once_whatever_becomes_of_the_connection() {
    let proxy = setup().start();
    let posts = || {
        let seen = proxy.organization().seen();
        seen.iter().filter(|seen| seen.method == "POST").count()
    };
    for (n, what) in ["garbage", "cut?after=0", "early"].iter().enumerate() {
        // A connection that has served before may be found dead: that is when a retry would be.
        assert_eq!(proxy.get(GOOD, &[]).0, 200);
        let path = format!("/contoso/_apis/sample/{what}");
        let _ = proxy.curl(&path, &["-X", "POST", "-d", "a=b"]);
        assert_eq!(posts(), n + 1, "{what}");
    }
}

fn assert_private(path: &Path) {
    let mode = fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode & 0o077, 0, "{} has mode {mode:o}", path.display());
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            assert_private(&entry.unwrap().path());
        }
    }
}

#[test]
fn what_lies_on_the_disk_is_for_its_owner_alone() {
    let proxy = setup().start();
    assert_eq!(proxy.get(GOOD, &[]).0, 200);
    assert_private(&proxy.audit);
    let limits = fs::read_to_string(format!("/proc/{}/limits", proxy.pid())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
    let command = fs::read(format!("/proc/{}/cmdline", proxy.pid())).unwrap();
    assert!(!String::from_utf8_lossy(&command).contains(PAT));
}

#[test]
fn an_audit_that_others_may_take_away_is_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let proxy = setup().audit(folder.path()).start();
    assert!(proxy.log().contains("others may write into the audit's folder"), "{}", proxy.log());
}

#[test]
fn what_others_may_read_or_choose_is_refused_at_the_start() {
    let proxy = setup().tls().start();
    let check = |change: &dyn Fn(&mut std::process::Command)| {
        let mut command = patgate();
        command.args(["serve", "--config"]).arg(proxy.config());
        change(&mut command);
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for name in ["HTTPS_PROXY", "all_proxy", "AWS_ENDPOINT_URL", "AZURE_AUTHORITY_HOST"] {
        let (code, said) = check(&|command| {
            command.env(name, "http://me:hunter2@evil.example");
        });
        assert_eq!(code, Some(78), "{said}");
        assert!(said.contains(name) && !said.contains("hunter2"), "{said}");
    }
    let key = proxy.path("server.key");
    for mode in [0o640, 0o604] {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
        let (code, said) = check(&|_| {});
        assert_eq!(code, Some(78), "{said}");
        assert!(said.contains("server.key"), "{said}");
    }
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
}
