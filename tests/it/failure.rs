//! Things break: each is refused or ended with its record, and service goes on without a restart.

use std::{
    fs,
    io::Write,
    net::TcpStream,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use patgate::sample::{self, Behaviour};

use crate::support::{PAT, TestProxy, patgate, secrets, setup, text, write_private};

const ROTATED: &str = "ROTATEDROTATEDROTATEDROTATEDROTATEDROTATEDROTATEDROTJQQJ99BKACAAAAAAAAAAAAASAZDOtest";

fn code(proxy: &TestProxy, path: &str) -> (u16, String) {
    let (status, body) = proxy.get(path, &[]);
    let code = serde_json::from_str::<serde_json::Value>(&body)
        .ok()
        .and_then(|body| Some(body["patgate"]["code"].as_str()?.to_owned()));
    (status, code.unwrap_or_default())
}

#[test]
fn a_vault_that_lost_the_secret_is_blamed_and_recovers() {
    let proxy = setup()
        .with("[vault.short]\ntype = \"file\"\nrefresh = \"1s\"\nstale-for = \"1s\"\n[credential.fabrikam]\nvault = \"short\"\nsecret = \"fabrikam.pat\"\norganizations = [\"fabrikam\"]\n")
        .with("[[rule]]\nname = \"other\"\nclients = [\"here\"]\npaths = [\"/fabrikam/**\"]\nallow = [\"GET\"]\ncredential = \"fabrikam\"\n")
        .start();
    assert_eq!(code(&proxy, "/fabrikam/_apis/projects"), (424, "credential-missing".into()));
    write_private(&proxy.path("fabrikam.pat"), PAT);
    let recovered = (0..100).any(|_| {
        thread::sleep(Duration::from_millis(200));
        code(&proxy, "/fabrikam/_apis/projects").0 == 200
    });
    assert!(recovered, "{}", proxy.log());
}

#[test]
fn an_upstream_that_is_gone_is_blamed_and_recovers() {
    let mut proxy = setup().start();
    assert_eq!(proxy.get("/contoso/_apis/projects", &[]).0, 200);
    let organization = proxy.organization.take().unwrap();
    let (address, seen) = (organization.address(), organization.requests());
    organization.stop();
    assert_eq!(code(&proxy, "/contoso/_apis/projects"), (502, "upstream-unreachable".into()));
    proxy.organization = Some(
        sample::Organization::start(sample::Options {
            folder: proxy.path("sample"),
            organizations: vec!["contoso".into()],
            pat: Some(PAT.into()),
            address,
        })
        .unwrap(),
    );
    assert_eq!(proxy.get("/contoso/_apis/projects", &[]).0, 200);
    assert_eq!(seen, 1);
}

#[test]
fn an_answer_that_breaks_off_is_never_ended_cleanly() {
    let proxy = setup().limits("body-idle = \"1s\"").start();
    for path in ["/contoso/_apis/sample/cut?after=100000", "/contoso/_apis/sample/hang?after=100000"] {
        let output = proxy.curl(path, &["-o", "/dev/null"]);
        assert!(!output.status.success(), "curl took {path} for whole");
    }
    proxy.record("the cut", |record| record["ending"] == "upstream-gone");
    assert_eq!(proxy.get("/contoso/_apis/projects", &[]).0, 200);
}

#[test]
fn an_upstream_that_is_silent_is_given_up() {
    let proxy = setup().limits("upstream-head = \"1s\"").start();
    assert_eq!(code(&proxy, "/contoso/_apis/sample/slow?seconds=30"), (504, "upstream-timeout".into()));
    assert_eq!(proxy.get("/contoso/_apis/projects", &[]).0, 200);
}

#[test]
fn a_client_that_leaves_has_its_record() {
    let proxy = setup().start();
    let output = proxy.curl(
        "/contoso/_apis/sample/huge?bytes=100000000000",
        &["--max-time", "1", "--limit-rate", "100k", "-o", "/dev/null"],
    );
    assert!(!output.status.success());
    let record = proxy.record("the client's leaving", |record| record["ending"] == "client-gone");
    assert!(record["bytes-out"].as_u64().unwrap() > 0, "{record}");
    assert_eq!(proxy.get("/contoso/_apis/projects", &[]).0, 200);
}

#[test]
fn an_expired_token_is_424_and_a_new_one_is_found_by_itself() {
    let proxy = setup().start();
    assert_eq!(proxy.get("/contoso/_apis/projects", &[]).0, 200);
    proxy.organization().behave(Behaviour::Expired);
    let (status, body) = proxy.get("/contoso/_apis/projects", &["-i"]);
    assert_eq!(status, 424, "{body}");
    assert!(!body.to_lowercase().contains("www-authenticate") && !body.contains("contoso.pat"), "{body}");
    proxy.record("the rejection", |record| record["kind"] == "credential-rejected");

    proxy.organization().behave(Behaviour::default());
    proxy.organization().accept(&[ROTATED]);
    write_private(&proxy.path("contoso.pat"), ROTATED);
    let recovered = (0..100).any(|_| {
        thread::sleep(Duration::from_millis(200));
        proxy.get("/contoso/_apis/projects", &[]).0 == 200
    });
    assert!(recovered, "{}", proxy.log());
    secrets::assert_absent(&[ROTATED], &[&proxy.path("patgate.log"), &proxy.audit]);
}

#[test]
fn a_rotation_costs_no_client_an_error() {
    let proxy = setup().start();
    assert_eq!(proxy.get("/contoso/_apis/projects", &[]).0, 200);
    write_private(&proxy.path("contoso.pat"), ROTATED);
    proxy.organization().accept(&[ROTATED]);
    // The first use with the old token is rejected, fetched again and retried within the request.
    assert_eq!(proxy.get("/contoso/_apis/projects", &[]).0, 200, "{}", proxy.log());
    let records = proxy.records();
    let intents: Vec<_> = records.iter().filter(|record| record["kind"] == "intent").collect();
    assert!(intents.len() >= 3, "the retry has an intent of its own: {intents:#?}");
}

#[test]
fn a_token_without_the_scope_is_not_taken_from_everyone() {
    let proxy = setup().start();
    proxy.organization().behave(Behaviour::UnderScoped);
    assert_eq!(code(&proxy, "/contoso/_apis/projects"), (403, "scope-missing".into()));
    proxy.organization().behave(Behaviour::default());
    assert_eq!(proxy.get("/contoso/_apis/projects", &[]).0, 200);
}

#[test]
fn a_sign_in_page_never_looks_like_success() {
    let proxy = setup().start();
    for behaviour in [Behaviour::SignInPage, Behaviour::SignInRedirect] {
        proxy.organization().behave(behaviour);
        let (status, body) = proxy.get("/contoso/_apis/projects", &[]);
        assert!(matches!(status, 424 | 403 | 502), "{status} {body}");
        assert!(!body.contains("<html"), "{body}");
    }
}

#[test]
fn a_location_leads_back_to_patgate() {
    let proxy = setup().start();
    let output =
        proxy.curl("/contoso/_apis/sample/location?to=https://dev.azure.com/contoso/_apis/projects", &["-i"]);
    let answer = String::from_utf8_lossy(&output.stdout);
    assert!(!answer.contains("https://dev.azure.com"), "{answer}");
    assert!(answer.contains(&format!("http://localhost:{}/contoso/", proxy.address.port())), "{answer}");
}

/// Waits until a request has the status.
fn until(proxy: &TestProxy, path: &str, status: u16) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while code(proxy, path).0 != status {
        assert!(
            Instant::now() < deadline,
            "{path} is not {status}: {:?}\n{}",
            code(proxy, path),
            proxy.log()
        );
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_sealed_vault_that_is_gone_serves_what_it_gave_and_recovers() {
    let mut proxy = setup().start();
    proxy.stop();
    let sealed = proxy.path("vault.age");
    let mut seal = patgate();
    seal.args(["vault", "seal", "--new-key", "--vault"]).arg(&sealed).arg("ado");
    let mut seal =
        seal.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().unwrap();
    seal.stdin.take().unwrap().write_all(PAT.as_bytes()).unwrap();
    let seal = seal.wait_with_output().unwrap();
    assert!(seal.status.success(), "{}", text(&seal));
    let own = fs::read_to_string(proxy.config()).unwrap();
    let vault =
        "type = \"sealed\"\npath = \"vault.age\"\nkey = \"vault.key\"\nrefresh = \"1s\"\nstale-for = \"3s\"";
    let secret = format!("{}/contoso.pat", proxy.folder.path().display());
    fs::write(proxy.config(), own.replace("type = \"file\"", vault).replace(&secret, "ado")).unwrap();
    proxy.launch();
    assert_eq!(proxy.get("/contoso/_apis/projects", &[]).0, 200, "{}", proxy.log());

    let away = proxy.path("away");
    fs::rename(&sealed, &away).unwrap();
    let gone = Instant::now();
    while gone.elapsed() < Duration::from_millis(1_500) {
        assert_eq!(proxy.get("/contoso/_apis/projects", &[]).0, 200, "while the last good value holds");
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    let refused = loop {
        let (status, why) = code(&proxy, "/contoso/_apis/projects");
        if status != 200 {
            break (status, why);
        }
        assert!(Instant::now() < deadline, "served for ever from a vault that is gone");
        thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(refused, (503, "vault-unavailable".into()));
    let went_up = proxy.organization().requests();
    code(&proxy, "/contoso/_apis/projects");
    assert_eq!(proxy.organization().requests(), went_up);
    fs::rename(&away, &sealed).unwrap();
    until(&proxy, "/contoso/_apis/projects", 200);
}

#[test]
fn a_secret_that_became_a_pipe_holds_nobody_up() {
    let proxy = setup()
        .with("[vault.short]\ntype = \"file\"\nrefresh = \"1s\"\nstale-for = \"1s\"\n[credential.fabrikam]\nvault = \"short\"\nsecret = \"fabrikam.pat\"\norganizations = [\"fabrikam\"]\n")
        .with("[[rule]]\nname = \"other\"\nclients = [\"here\"]\npaths = [\"/fabrikam/**\"]\nallow = [\"GET\"]\ncredential = \"fabrikam\"\n")
        .start();
    let pipe = proxy.path("fabrikam.pat");
    assert!(Command::new("mkfifo").args(["-m", "600"]).arg(&pipe).status().unwrap().success());
    let asked = Instant::now();
    let (status, why) = code(&proxy, "/fabrikam/_apis/projects");
    assert!(matches!(status, 424 | 503), "{status} {why}");
    assert!(asked.elapsed() < Duration::from_secs(5));
    assert_eq!(proxy.get("/contoso/_apis/projects", &[]).0, 200, "the other vault is not held up");
    fs::remove_file(&pipe).unwrap();
    write_private(&pipe, PAT);
    until(&proxy, "/fabrikam/_apis/projects", 200);
}

#[test]
fn a_client_that_leaves_in_the_middle_of_its_body_leaves_it_unended_upstream() {
    for framing in ["Content-Length: 10000000", "Transfer-Encoding: chunked"] {
        let proxy = setup().start();
        let mut socket = TcpStream::connect(proxy.address).unwrap();
        let head =
            format!("POST /contoso/_apis/sample/sink HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n");
        socket.write_all(head.as_bytes()).unwrap();
        socket.write_all(b"10000\r\n").unwrap();
        socket.write_all(&vec![b'x'; 65_536]).unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while proxy.organization().seen().last().is_none_or(|seen| seen.body_bytes() < 60_000) {
            assert!(Instant::now() < deadline, "the body does not come through: {}", proxy.log());
            thread::sleep(Duration::from_millis(10));
        }
        drop(socket);
        let record = proxy.record("the client's leaving", |record| {
            record["kind"] == "outcome" && record["path"] == "/contoso/_apis/sample/sink"
        });
        assert!(record["ending"] == "client-gone" || record["refusal"] == "body-incomplete", "{record}");
        let seen = proxy.organization().seen().pop().unwrap();
        assert!(!seen.body_is_whole(), "{framing}: half a body was ended as if it were whole");
        assert_eq!(proxy.get("/contoso/_apis/projects", &[]).0, 200);
    }
}

#[test]
fn a_slow_answer_passes_as_long_as_something_comes() {
    let proxy = setup().limits("body-idle = \"1s\"").start();
    let (status, body) = proxy.get("/contoso/_apis/sample/trickle?bytes=8&pause-ms=400", &[]);
    assert_eq!((status, body.as_str()), (200, "........"), "three seconds in all, never one without a byte");
    let (_, body) = proxy.get("/contoso/_apis/sample/trickle?bytes=3&pause-ms=4000", &[]);
    assert!(body.len() < 3, "{body}");
    proxy.record("its end", |record| record["ending"] == "upstream-gone");
}
