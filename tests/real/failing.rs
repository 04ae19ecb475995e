//! Secrets Manager and Key Vault that fail in every way: what a client is told, and that it is over when they are back.

use std::{path::Path, time::Duration};

use serde_json::json;

use crate::{
    aws::KEYS,
    faults::{BODY_CANARY, Behaviour, Faults, Upstream},
    moto::{Moto, REGION},
    outages::{self, Blame, Outage, RULES},
    support::{PAT, TestProxy, certificate, secrets, setup},
};

#[path = "../azure/stand_in.rs"]
mod stand_in;

use stand_in::{AUTHORITY, Azure, CLIENT, SECRET, TENANT, VAULT};

/// What every vault does that is silent, at requests whose first line has `part` in it.
fn silences(part: &'static str) -> Vec<Outage> {
    [
        ("hung", Behaviour::Hang),
        ("slow", Behaviour::Slow(Duration::from_secs(3))),
        ("429", Behaviour::Status(429)),
        ("500", Behaviour::Status(500)),
        ("half a body", Behaviour::HalfBody),
        ("wrong JSON", Behaviour::WrongJson),
        ("no JSON", Behaviour::NoJson),
        ("10 MB", Behaviour::Huge),
    ]
    .map(|(name, behaviour)| (name, part, behaviour, Blame::Unavailable))
    .to_vec()
}

/// What no connection survives.
const UNREACHED: [Outage; 4] = [
    ("killed", "", Behaviour::Kill, Blame::Unavailable),
    ("an expired certificate", "", Behaviour::Expired, Blame::Unavailable),
    ("another name", "", Behaviour::OtherName, Blame::Unavailable),
    ("another authority", "", Behaviour::OtherAuthority, Blame::Unavailable),
];

/// What it answers of the secret.
fn answers(part: &'static str) -> [Outage; 2] {
    [
        ("403", part, Behaviour::Status(403), Blame::Missing),
        ("404", part, Behaviour::Status(404), Blame::Missing),
    ]
}

/// The vaults `brief` and `long` of these lines, with a credential each.
fn configuration(lines: &str, secret: &str) -> String {
    let vault = |name: &str, stale_for: &str, organization: &str| {
        format!(
            "[vault.{name}]\n{lines}\nrefresh = \"300ms\"\nstale-for = \"{stale_for}\"\ndeadline = \"1s\"\n\
             [credential.{name}]\nvault = \"{name}\"\nsecret = \"{secret}\"\norganizations = [\"{organization}\"]\n"
        )
    };
    vault("brief", "1s", "contoso") + &vault("long", "1h", "fabrikam")
}

/// Neither these nor what went to the vault with a request stands in any output.
fn assert_nothing_leaked(proxy: &TestProxy, faults: &Faults, more: &[&str]) {
    let credentials = faults.credentials();
    assert!(!credentials.is_empty(), "nothing was seen");
    let mut all = vec![BODY_CANARY, PAT];
    all.extend(credentials.iter().map(String::as_str));
    all.extend(more);
    secrets::assert_absent(&all, &[&proxy.path("patgate.log"), &proxy.audit]);
}

/// A Secrets Manager, and patgate that reaches it through what fails.
fn secrets_manager(folder: &Path) -> (Moto, Faults, TestProxy) {
    certificate(folder);
    let moto = Moto::tls(folder);
    moto.put("ado/web", &json!({ "note": BODY_CANARY, "pat": PAT }).to_string());
    let address = moto.url().rsplit_once('/').unwrap().1.replace("localhost", "127.0.0.1").parse().unwrap();
    let upstream = Upstream::Tls { address, name: "localhost".into(), ca: folder.join("ca.pem") };
    let faults = Faults::start(folder, &[], upstream);
    let lines = format!(
        "type = \"aws-secrets-manager\"\nregion = \"{REGION}\"\nendpoint = \"https://localhost:{}\"\nca = \"{}\"",
        faults.address().port(),
        faults.ca().display()
    );
    let configuration = configuration(&lines, "ado/web#pat");
    let proxy = setup().environment(&KEYS).rules(RULES).with(&configuration).start();
    (moto, faults, proxy)
}

#[test]
#[ignore = "needs moto_server"]
fn each_failure_of_secrets_manager_is_blamed_rightly_and_over_when_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let (_moto, faults, proxy) = secrets_manager(folder.path());
    let all = [&UNREACHED[..], &answers(""), &silences("")].concat();
    outages::each(&proxy, &faults, &all);
    assert_nothing_leaked(&proxy, &faults, &[KEYS[1].1]);
    // The log speaks of the vault in patgate's words.
    assert!(!proxy.log().contains("aws_smithy_runtime"), "{}", proxy.log());
}

/// A Key Vault with its authority, and patgate that reaches both through what fails.
fn key_vault(folder: &Path) -> (Azure, Faults, TestProxy) {
    let azure = Azure::start();
    azure.write(folder);
    azure.put("ado", PAT);
    let upstream =
        Upstream::Tls { address: azure.address, name: VAULT.into(), ca: folder.join("azure-ca.pem") };
    let faults = Faults::start(folder, &[VAULT, AUTHORITY], upstream);
    let at = faults.address();
    let lines = format!(
        "type = \"azure-key-vault\"\naddress = \"https://{VAULT}\"\nca = \"{}\"\n\
         addresses = {{ \"{VAULT}\" = \"{at}\", \"{AUTHORITY}\" = \"{at}\" }}\n\
         auth = {{ method = \"client-secret\", tenant-id = \"{TENANT}\", client-id = \"{CLIENT}\", secret-file = \"{}\" }}",
        faults.ca().display(),
        folder.join("client-secret").display(),
    );
    let proxy = setup().rules(RULES).with(&configuration(&lines, "ado")).start();
    (azure, faults, proxy)
}

fn assert_key_vault_kept(azure: &Azure, faults: &Faults, proxy: &TestProxy) {
    let tokens: Vec<_> = (0..azure.tokens()).map(Azure::token).collect();
    let mut more: Vec<_> = tokens.iter().map(String::as_str).collect();
    more.push(SECRET);
    assert_nothing_leaked(proxy, faults, &more);
}

#[test]
#[ignore = "takes most of a minute"]
fn each_failure_of_key_vault_is_blamed_rightly_and_over_when_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let (azure, faults, proxy) = key_vault(folder.path());
    let all = [&UNREACHED[..], &answers("/secrets/"), &silences("/secrets/")].concat();
    outages::each(&proxy, &faults, &all);
    assert_key_vault_kept(&azure, &faults, &proxy);
}

/// The vault is well, and nobody can log in.
#[test]
#[ignore = "takes most of a minute"]
fn each_failure_of_entra_is_not_blamed_on_the_secret() {
    let folder = tempfile::tempdir().unwrap();
    let (azure, faults, proxy) = key_vault(folder.path());
    // Tokens are made anew all the time.
    azure.tokens_last(2);
    azure.revoke_tokens();
    outages::each(&proxy, &faults, &silences("/oauth2/"));
    assert_key_vault_kept(&azure, &faults, &proxy);
}
