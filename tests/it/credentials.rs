//! The life of a credential, seen from outside.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use socket2::{Domain, Socket, Type};

use crate::{
    rotation::{self, basic, token},
    support::{PAT, TestProxy, setup, write_private},
};

const TIMES: usize = 10;

#[test]
fn a_rotation_in_files_costs_no_client_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pat");
    rotation::survives("type = \"file\"", &path.display().to_string(), TIMES, |value| {
        let new = folder.path().join("new");
        write_private(&new, value);
        fs::rename(&new, &path).unwrap();
    });
}

#[test]
fn a_rotation_in_a_sealed_vault_costs_no_client_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let (vault, key) = (folder.path().join("vault.sealed"), folder.path().join("vault.key"));
    let section = format!("type = \"sealed\"\npath = \"{}\"\nkey = \"{}\"", vault.display(), key.display());
    rotation::survives(&section, "rotated", TIMES, |value| rotation::seal(&vault, value));
}

/// The credentials that `/readyz` shows as not sound.
fn degraded(proxy: &TestProxy) -> Vec<Value> {
    let page = admin(proxy, "/readyz");
    serde_json::from_str::<Value>(&page).unwrap()["degraded"].as_array().unwrap().clone()
}

fn admin(proxy: &TestProxy, path: &str) -> String {
    let mut socket = TcpStream::connect(proxy.admin).unwrap();
    write!(socket, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

#[test]
fn an_expiry_that_is_near_is_told_and_stops_nothing() {
    let soon = jiff::Timestamp::now().checked_add(jiff::SignedDuration::from_hours(24 * 5)).unwrap();
    let past = jiff::Timestamp::now().checked_sub(jiff::SignedDuration::from_hours(24 * 5)).unwrap();
    let mut proxy = setup().start();
    for (expires, state) in [(soon, "expiring"), (past, "expired")] {
        proxy.stop();
        let config = fs::read_to_string(proxy.config()).unwrap();
        let config: String = config
            .lines()
            .filter(|line| !line.starts_with("expires"))
            .map(|line| format!("{line}\n"))
            .collect();
        let with = format!("[credential.contoso]\nexpires = {expires:.0}\n");
        fs::write(proxy.config(), config.replace("[credential.contoso]\n", &with)).unwrap();
        proxy.launch();
        assert_eq!(proxy.get("/contoso/_apis/projects", &[]).0, 200);
        let degraded = degraded(&proxy);
        assert_eq!((&degraded[0]["credential"], &degraded[0]["state"]), (&"contoso".into(), &state.into()));
        let metrics = admin(&proxy, "/metrics");
        for line in [
            format!("patgate_credential_state{{credential=\"contoso\",state=\"{state}\"}} 1"),
            format!(
                "patgate_credential_expires_timestamp_seconds{{credential=\"contoso\"}} {}",
                expires.as_second()
            ),
        ] {
            assert!(metrics.lines().any(|l| l == line), "{line}\n{metrics}");
        }
    }
}

#[test]
fn a_new_token_that_azure_devops_refuses_gives_way_to_the_one_before_on_record() {
    let proxy = setup()
        .with("[vault.quick]\ntype = \"file\"\nrefresh = \"500ms\"\n")
        .with("[credential.graced]\nvault = \"quick\"\nsecret = \"graced.pat\"\norganizations = [\"contoso\"]\nprevious-grace = \"1h\"\n")
        .rules("[[rule]]\nname = \"all\"\nclients = [\"here\"]\npaths = [\"/contoso/**\"]\nallow = [\"GET\"]\ncredential = \"graced\"\n")
        .start();
    write_private(&proxy.path("graced.pat"), PAT);
    until(&proxy, "the first token serves", || proxy.get("/contoso/_apis/projects", &[]).0 == 200);
    // A token that was put into the vault before it was made, or a slip of the hand.
    write_private(&proxy.path("graced.pat"), &token(1));
    let fallen_back = || proxy.records().iter().any(|record| record["kind"] == "credential-previous");
    until(&proxy, "it falls back", || {
        assert_eq!(proxy.get("/contoso/_apis/projects", &[]).0, 200, "{}", proxy.log());
        fallen_back()
    });
    let degraded = degraded(&proxy);
    assert!(
        degraded.iter().any(|one| one["credential"] == "graced" && one["state"] == "rejected"),
        "{degraded:?}"
    );
    proxy.organization().accept(&[&token(2)]);
    write_private(&proxy.path("graced.pat"), &token(2));
    until(&proxy, "the next one takes over", || {
        let answered = proxy.get("/contoso/_apis/projects", &[]).0;
        answered == 200
            && proxy.organization().seen().last().is_some_and(|seen| seen.authorization == [basic(&token(2))])
    });
}

fn until(proxy: &TestProxy, what: &str, mut is: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_mins(1);
    while !is() {
        assert!(Instant::now() < deadline, "{what}: not in time\n{}", proxy.log());
        thread::sleep(Duration::from_millis(50));
    }
}

/// Clients that have a token each, by their addresses.
const CLIENTS: u8 = 64;

#[test]
fn sixty_four_clients_never_get_each_others_token() {
    let requests: u32 =
        std::env::var("PATGATE_TEST_REQUESTS").ok().and_then(|n| n.parse().ok()).unwrap_or(12_800);
    let folder = tempfile::tempdir().unwrap();
    let (mut rules, mut extra, mut tokens) = (String::new(), String::new(), Vec::new());
    extra.push_str("[vault.quick]\ntype = \"file\"\nrefresh = \"500ms\"\n");
    for n in 1..=CLIENTS {
        let (path, value) = (folder.path().join(format!("pat-{n}")), token(n.into()));
        write_private(&path, &value);
        tokens.push(value);
        let mut section = format!(
            "[client.c{n}]\naddresses = [\"127.0.1.{n}/32\"]\n\
             [credential.c{n}]\nvault = \"quick\"\nsecret = \"{}\"\norganizations = [\"contoso\"]\n",
            path.display()
        );
        extra.push_str(&section);
        section = format!(
            "[[rule]]\nname = \"r{n}\"\nclients = [\"c{n}\"]\npaths = [\"/contoso/**\"]\nallow = [\"GET\"]\n\
             credential = \"c{n}\"\n"
        );
        rules.push_str(&section);
    }
    let proxy = setup().rules(&rules).with(&extra).limits("connections-per-address = 256").start();
    let all: Vec<_> = tokens.iter().map(String::as_str).collect();
    proxy.organization().accept(&all);
    let (address, each) = (proxy.address, requests / u32::from(CLIENTS));
    let threads: Vec<_> = (1..=CLIENTS)
        .zip(tokens)
        .map(|(n, token)| thread::spawn(move || client(address, n, &basic(&token), each)))
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    println!("{requests} requests of {CLIENTS} clients, each answered with the hash of its own token");
}

/// One client: so many requests on connections that are kept, each of which must go up with this very token.
fn client(address: SocketAddr, n: u8, header: &str, requests: u32) {
    let wanted = hex(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, header.as_bytes()).as_ref());
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 1, n], 0)).into()).unwrap();
    socket.connect(&address.into()).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_mins(2))).unwrap();
    let mut read = Vec::new();
    for number in 0..requests {
        let target = "/contoso/_apis/sample/echo?credential=sha256";
        write!(stream, "GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        read.clear();
        let body = loop {
            let mut piece = [0; 4096];
            let some = stream.read(&mut piece).unwrap();
            assert!(some > 0, "closed after {number} requests: {}", String::from_utf8_lossy(&read));
            read.extend_from_slice(&piece[..some]);
            if let Some(body) = whole(&read) {
                break body;
            }
        };
        let told: Value = serde_json::from_str(&body).unwrap_or_else(|_| panic!("{body}"));
        assert_eq!(told["authorization-sha256"], wanted, "client {n}, request {number}");
    }
}

/// The body of an answer that has come whole.
fn whole(answer: &[u8]) -> Option<String> {
    let text = str::from_utf8(answer).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    })?;
    (body.len() >= length).then(|| body.to_owned())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

#[test]
fn a_file_that_changes_is_read_again_at_once() {
    let proxy = setup().start();
    let fetched = |times: usize| {
        proxy.record("a read of the vault", |_| {
            let reads = proxy.records();
            reads.iter().filter(|record| record["kind"] == "vault-read").count() == times
        })
    };
    fetched(1);
    write_private(&proxy.path("contoso.pat"), "another-token");
    // Long before the five minutes after which a token is read again, and though nobody uses it.
    fetched(2);
    let uses = || proxy.organization().seen().last().map(|seen| seen.authorization.clone());
    proxy.organization().accept(&["another-token"]);
    assert_eq!(proxy.get("/contoso/_apis/projects", &[]).0, 200);
    assert_eq!(uses(), Some(vec![super::rotation::basic("another-token")]));
}
