//! Tokens that patgate makes anew: no client notices, every step is on record, and no kill loses access.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use patgate::{
    config::SealedKey,
    sample::{self, Standing},
    vault::sealed,
};
use serde_json::Value;

use crate::{
    load::Load,
    support::{PAT, Setup, TestProxy, secrets, setup, write_private},
};

const ENTRA: &str = "CANARY-an-entra-token-of-a-user-that-is-found-nowhere-else";

const RULES: &str = r#"
[[rule]]
name       = "all"
clients    = ["here"]
paths      = ["/contoso/**"]
allow      = ["git:fetch", "GET"]
credential = "rotated"
"#;

fn prepare(folder: &Path, organization: &sample::Organization) {
    let key = folder.join("vault.key");
    sealed::generate_key(&key).unwrap();
    let pat = PAT.to_owned().into();
    sealed::put(&folder.join("vault.sealed"), &SealedKey::File(key), "web", &pat, None).unwrap();
    write_private(&folder.join("entra.token"), ENTRA);
    organization.accept_user(ENTRA);
    organization.keep(1 << 18);
}

fn rotating(every: &str, grace: &str) -> Setup {
    let credential = format!(
        r#"
[state]
folder = "state"

[vault.local]
type      = "sealed"
path      = "vault.sealed"
key       = "vault.key"
refresh   = "200ms"
stale-for = "0s"

[credential.rotated]
vault         = "local"
secret        = "web"
organizations = ["contoso"]

[credential.rotated.rotate]
auth      = {{ method = "vault", vault = "files", secret = "entra.token" }}
every     = "{every}"
valid-for = "1h"
grace     = "{grace}"
scope     = ["vso.code", "vso.build"]
"#
    );
    setup().rules(RULES).with(&credential).prepare(prepare)
}

fn steps<'a>(records: &'a [Value], step: &'static str) -> impl Iterator<Item = &'a Value> {
    records.iter().filter(move |record| record["kind"] == "rotation" && record["step"] == step)
}

/// Waits until there are so many records of a step.
fn wait_for(proxy: &TestProxy, step: &'static str, count: usize) {
    let deadline = Instant::now() + Duration::from_mins(2);
    while steps(&proxy.records(), step).count() < count {
        assert!(Instant::now() < deadline, "not {count} times {step}:\n{}", proxy.log());
        thread::sleep(Duration::from_millis(200));
    }
}

fn standing(proxy: &TestProxy, standing: Standing) -> BTreeSet<String> {
    let issued = proxy.organization().issued().into_iter();
    issued.filter(|token| token.standing() == standing).map(|token| token.authorization_id).collect()
}

/// Every token that went up stands nowhere else.
fn assert_no_secret_is_left(proxy: &TestProxy) {
    let mut tokens = BTreeSet::new();
    for seen in proxy.organization().seen() {
        let Some(encoded) = seen.authorization[0].strip_prefix("Basic ") else { continue };
        tokens.insert(String::from_utf8(STANDARD.decode(encoded).unwrap()).unwrap()[1..].to_owned());
    }
    assert!(tokens.len() > 3, "{}", tokens.len());
    let tokens: Vec<_> = tokens.iter().map(String::as_str).chain([ENTRA]).collect();
    secrets::assert_absent(&tokens, &[&proxy.path("patgate.log"), &proxy.audit, &proxy.path("state")]);
}

fn state(proxy: &TestProxy) -> Value {
    let text = fs::read(proxy.path("state/rotation/rotated.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// The step that stands on disk.
fn under_way(proxy: &TestProxy) -> Option<String> {
    let text = fs::read(proxy.path("state/rotation/rotated.json")).ok()?;
    let state: Value = serde_json::from_slice(&text).ok()?;
    Some(state["step"]["is"].as_str()?.to_owned())
}

#[test]
fn rotated_ten_times_under_load_no_client_sees_an_error() {
    let mut proxy = rotating("1s", "1s").start();
    let load = Load::start(proxy.address, 4);
    wait_for(&proxy, "revoked", 10);
    let answered = load.end_whole();
    assert!(answered > 500, "{answered}");
    let url = format!("http://{}/metrics", proxy.admin);
    let metrics = Command::new("curl").args(["-sS", "--noproxy", "*", &url]).output().unwrap();
    let metrics = String::from_utf8(metrics.stdout).unwrap();
    assert!(
        metrics.contains("patgate_rotation_state{credential=\"rotated\",state=\"failing\"} 0"),
        "{metrics}"
    );
    assert_eq!(proxy.stop(), Some(0));

    let records = proxy.records();
    let created: Vec<_> = steps(&records, "created").collect();
    let revoked: BTreeSet<_> =
        steps(&records, "revoked").map(|record| record["authorization"].to_string()).collect();
    assert_eq!(created.len(), proxy.organization().issued().len(), "each token is on record");
    assert_eq!(revoked.len(), standing(&proxy, Standing::Revoked).len(), "each revocation is on record");
    assert!(steps(&records, "failed").next().is_none(), "{}", proxy.log());
    for made in created {
        let of = |record: &&Value| record["rotation"] == made["rotation"];
        let known: Vec<_> =
            records.iter().filter(of).map(|record| record["step"].as_str().unwrap()).collect();
        let whole = ["creating", "created", "written", "in-use", "revoked"];
        assert!(known.len() >= 3 && whole.starts_with(&known), "{known:?}");
    }
    let state = state(&proxy);
    let left = state["retiring"].as_array().unwrap().len() + 1;
    assert!(standing(&proxy, Standing::Active).len() <= left, "{state}");
    assert_no_secret_is_left(&proxy);
}

#[test]
fn killed_ten_times_while_it_rotates_access_is_never_lost() {
    let mut proxy = rotating("1s", "500ms").start();
    for round in 0..10 {
        let load = Load::start(proxy.address, 2);
        let step = ["creating", "created", "written"][round % 3];
        let deadline = Instant::now() + Duration::from_mins(1);
        // Each takes milliseconds; where it is when the process is gone depends on everything.
        while under_way(&proxy).as_deref() != Some(step) {
            assert!(Instant::now() < deadline, "never {step}:\n{}", proxy.log());
            thread::sleep(Duration::from_micros(200));
        }
        proxy.kill();
        load.end();
        proxy.launch();
        let (status, body) = proxy.get("/contoso/_apis/projects", &[]);
        assert_eq!(status, 200, "round {round}: {body}\n{}", proxy.log());
    }
    let so_far = steps(&proxy.records(), "revoked").count();
    let load = Load::start(proxy.address, 2);
    wait_for(&proxy, "revoked", so_far + 4);
    load.end_whole();
    assert_eq!(proxy.stop(), Some(0));

    let state = state(&proxy);
    let known = format!("{} {} {}", state["current"], state["retiring"], state["step"]);
    for token in standing(&proxy, Standing::Active) {
        assert!(known.contains(&token), "{token} counts and nobody knows of it: {state}");
    }
    assert_no_secret_is_left(&proxy);
    let records = proxy.records();
    let intents = records.iter().filter(|record| record["kind"] == "intent" && record["purpose"] == "rotate");
    let calls = intents.filter(|record| record["host"] == "vssps.dev.azure.com").count();
    let seen = proxy.organization().seen();
    let seen = seen.iter().filter(|seen| seen.target.contains("/_apis/tokens/pats")).count();
    assert!(seen <= calls, "{seen} calls with {calls} intents");
    let of = |step| steps(&records, step).count();
    assert!(of("lost") + of("abandoned") > 0, "no kill came in the middle");
    let unknown = records.iter().filter(|record| record["ending"] == "unknown").count();
    println!(
        "{} in use; {} lost and {} abandoned on the way; {unknown} calls and requests cut",
        of("in-use"),
        of("lost"),
        of("abandoned")
    );
}

#[test]
fn a_policy_that_forbids_new_tokens_is_said_and_costs_no_request() {
    let proxy = rotating("1s", "1s").start();
    wait_for(&proxy, "in-use", 1);
    let governance = sample::Governance { no_creation: true, ..sample::Governance::default() };
    proxy.organization().govern(governance);
    let load = Load::start(proxy.address, 2);
    wait_for(&proxy, "failed", 3);
    load.end_whole();
    let failed = proxy.record("the failure", |record| record["step"] == "failed");
    let detail = failed["detail"].as_str().unwrap();
    assert!(detail.contains("disablePatCreationPolicyViolation"), "{detail}");
    assert!(proxy.log().contains("the token is not rotated"));
    proxy.organization().govern(sample::Governance::default());
    let before = steps(&proxy.records(), "in-use").count();
    wait_for(&proxy, "in-use", before + 1);
}
