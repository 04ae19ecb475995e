//! patgate with its secrets in a real OpenBao, and what fails in between.

use std::{
    fs,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    faults::{BODY_CANARY, Behaviour, Faults, Upstream},
    openbao::OpenBao,
    outages::{self, BRIEF_PATH, Blame, LONG_PATH, RULES, code, until},
    support::{PAT, TestProxy, patgate, secrets, setup, text},
};

const ROTATED: &str = "ROTATEDROTATEDROTATEDROTATEDROTATEDROTATEDROTATEDROTJQQJ99BKACAAAAAAAAAAAAASAZDOtest";

/// How often values are read again, and for how long the one of the vault `brief` is used past that.
const BRIEF: &str = "refresh = \"1s\"\nstale-for = \"2s\"\ndeadline = \"2s\"";
const LONG: &str = "refresh = \"1s\"\nstale-for = \"1h\"\ndeadline = \"2s\"";

/// A vault with the token in it, and what stands before it.
struct Desk {
    bao: OpenBao,
    faults: Faults,
    role_id: String,
    secret_id_file: PathBuf,
    secret_id: String,
}

impl Desk {
    fn new() -> Self {
        let bao = OpenBao::start();
        let role_id = bao.usual(&json!({}));
        bao.put("ado/web", &json!({ "pat": PAT, "note": BODY_CANARY }));
        let (secret_id_file, secret_id) = bao.secret_id();
        let ca = bao.path("ca.pem");
        let upstream = Upstream::Tls { address: bao.tls(), name: "vault.test".into(), ca };
        let faults = Faults::start(bao.folder.path(), &["vault.corp.example"], upstream);
        Self { bao, faults, role_id, secret_id_file, secret_id }
    }

    /// The vaults `brief` and `long`, with a credential each.
    fn configuration(&self) -> String {
        let vault = |name: &str, lifetime: &str, organization: &str| {
            format!(
                r#"
[vault.{name}]
type = "hashicorp"
address = "https://vault.corp.example:8200"
addresses = {{ "vault.corp.example" = "{address}" }}
ca = "{ca}"
auth = {{ method = "approle", role-id = "{role}", secret-id-file = "{file}" }}
{lifetime}
[credential.{name}]
vault = "{name}"
secret = "secret/ado/web#pat"
organizations = ["{organization}"]
"#,
                address = self.faults.address(),
                ca = self.faults.ca().display(),
                role = self.role_id,
                file = self.secret_id_file.display(),
            )
        };
        vault("brief", BRIEF, "contoso") + &vault("long", LONG, "fabrikam")
    }

    fn proxy(&self) -> TestProxy {
        setup().rules(RULES).with(&self.configuration()).start()
    }

    /// No secret of the vault stands in any output.
    fn assert_nothing_leaked(&self, proxy: &TestProxy) {
        let mut all = self.faults.credentials();
        assert!(!all.is_empty(), "no token was seen");
        all.extend([self.secret_id.clone(), self.bao.root().into(), ROTATED.into(), PAT.into()]);
        all.push(BODY_CANARY.into());
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        secrets::assert_absent(&all, &[&proxy.path("patgate.log"), &proxy.audit]);
    }
}

#[test]
#[ignore = "needs OpenBao"]
fn git_clones_with_a_token_from_the_vault_and_a_rotation_is_seen() {
    let desk = Desk::new();
    let mut proxy = desk.proxy();
    proxy.stop();
    // What the environment says of a vault chooses nothing: there is none at that address.
    proxy.launch_with(|command| {
        for name in ["VAULT_ADDR", "BAO_ADDR", "VAULT_AGENT_ADDR", "VAULT_PROXY_ADDR", "VAULT_HTTP_PROXY"] {
            command.env(name, "https://127.0.0.1:1");
        }
        command
            .env("VAULT_TOKEN", "canary")
            .env("VAULT_NAMESPACE", "canary")
            .env("VAULT_SKIP_VERIFY", "true");
        command.env("VAULT_CACERT", "/nowhere").env("VAULT_CLIENT_TIMEOUT", "0").env("VAULT_FORMAT", "x");
    });
    let work = proxy.path("work");
    fs::create_dir(&work).unwrap();
    proxy.git_ok(&work, &["clone", "-q", &proxy.url("/contoso/web/_git/web"), "web"]);
    assert!(work.join("web/.git").exists());

    desk.bao.put("ado/web", &json!({ "pat": ROTATED }));
    proxy.organization().accept(&[ROTATED]);
    // The first use with the old token is rejected, fetched again and retried within the request.
    assert_eq!(code(&proxy, BRIEF_PATH).0, 200, "{}", proxy.log());
    proxy.git_ok(&work, &["clone", "-q", &proxy.url("/contoso/web/_git/web"), "again"]);
    let outcome = proxy.record("an outcome with the version", |record| {
        record["kind"] == "outcome" && record["credential-version"] == "2"
    });
    assert_eq!(outcome["credential"], "brief");

    let mut test = patgate();
    test.args(["vault", "test", "--config"]).arg(proxy.config()).args(["brief", "long"]);
    let output = test.output().unwrap();
    let said = text(&output);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("brief: ok, from vault brief") && said.contains("version 2"), "{said}");
    desk.assert_nothing_leaked(&proxy);
}

#[test]
#[ignore = "needs OpenBao"]
fn each_failure_of_the_vault_is_blamed_rightly_and_is_over_when_the_vault_is_back() {
    let desk = Desk::new();
    let proxy = desk.proxy();
    let mut all = vec![
        ("killed", "", Behaviour::Kill, Blame::Unavailable),
        ("hung", "", Behaviour::Hang, Blame::Unavailable),
        ("slow", "", Behaviour::Slow(Duration::from_secs(5)), Blame::Unavailable),
        ("403 to everything", "", Behaviour::Status(403), Blame::Missing),
        ("403 to a read", "/v1/secret/", Behaviour::Status(403), Blame::Missing),
        ("404", "/v1/secret/", Behaviour::Status(404), Blame::Missing),
        ("429", "", Behaviour::Status(429), Blame::Unavailable),
        ("500", "", Behaviour::Status(500), Blame::Unavailable),
        ("half a body", "", Behaviour::HalfBody, Blame::Unavailable),
        ("wrong JSON", "", Behaviour::WrongJson, Blame::Unavailable),
        ("no JSON", "", Behaviour::NoJson, Blame::Unavailable),
        ("10 MB", "", Behaviour::Huge, Blame::Unavailable),
        ("an expired certificate", "", Behaviour::Expired, Blame::Unavailable),
        ("another name", "", Behaviour::OtherName, Blame::Unavailable),
        ("another authority", "", Behaviour::OtherAuthority, Blame::Unavailable),
    ];
    if std::env::var_os("PATGATE_LONG").is_none() {
        // As the others of their kind; each costs seconds.
        all.retain(|(name, ..)| !["no JSON", "another authority"].contains(name));
    }
    outages::each(&proxy, &desk.faults, &all);
    desk.assert_nothing_leaked(&proxy);
}

#[test]
#[ignore = "needs OpenBao"]
fn a_vault_that_dies_and_comes_back_sealed_is_waited_for() {
    let mut desk = Desk::new();
    let proxy = desk.proxy();
    until(&proxy, BRIEF_PATH, (200, ""), "before");
    // Another vault to patgate, with a login of its own.
    until(&proxy, LONG_PATH, (200, ""), "before");
    desk.bao.kill();
    until(&proxy, BRIEF_PATH, (503, "vault-unavailable"), "dead");
    desk.bao.launch();
    until(&proxy, BRIEF_PATH, (503, "vault-unavailable"), "sealed");
    let deadline = Instant::now() + Duration::from_mins(1);
    while !proxy.log().contains("it is sealed") {
        assert!(Instant::now() < deadline, "{}", proxy.log());
        code(&proxy, BRIEF_PATH);
        thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(code(&proxy, LONG_PATH).0, 200, "it lives on what the vault gave");
    desk.bao.unseal();
    until(&proxy, BRIEF_PATH, (200, ""), "open again");

    // The login's token is gone, the secret deleted, and there again: each is seen without a restart.
    desk.bao.ok("POST", "sys/leases/revoke-prefix/auth/approle/login", &json!({}));
    desk.bao.put("ado/web", &json!({ "pat": ROTATED }));
    proxy.organization().accept(&[ROTATED]);
    assert_eq!(code(&proxy, BRIEF_PATH).0, 200, "{}", proxy.log());
    desk.bao.ok("DELETE", "secret/data/ado/web", &Value::Null);
    until(&proxy, BRIEF_PATH, (424, "credential-missing"), "deleted");
    desk.bao.ok("POST", "secret/undelete/ado/web", &json!({ "versions": [2] }));
    until(&proxy, BRIEF_PATH, (200, ""), "undeleted");
    desk.assert_nothing_leaked(&proxy);
}

#[test]
#[ignore = "needs OpenBao"]
fn a_vault_that_is_silent_from_the_start_is_503_in_time() {
    let desk = Desk::new();
    desk.faults.behave(Behaviour::Hang);
    let proxy = desk.proxy();
    let asked = Instant::now();
    assert_eq!(code(&proxy, BRIEF_PATH), (503, "vault-unavailable".into()));
    assert!(asked.elapsed() < Duration::from_secs(4), "{:?}", asked.elapsed());
    desk.faults.behave(Behaviour::Pass);
    until(&proxy, BRIEF_PATH, (200, ""), "answering");
    desk.assert_nothing_leaked(&proxy);
}
