//! Against a real OpenBao, which `tests/install` installs; `tests/run` runs them with `--ignored`.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use secrecy::SecretString;
use serde_json::{Value, json};

use super::{
    super::{
        SecretSource, VaultError,
        contract::{self, Filled},
        token::exposed,
    },
    Hashicorp,
};
use crate::config::{self, HashicorpAuth, Kv, Outbound, Trust};

#[allow(dead_code, unreachable_pub, reason = "shared with tests/real")]
#[path = "../../../tests/real/faults.rs"]
mod faults;
#[allow(dead_code, unreachable_pub, clippy::disallowed_methods, reason = "shared with tests/real")]
#[path = "../../../tests/real/openbao.rs"]
mod openbao;

mod life;
mod logins;

use faults::{Behaviour, Faults, Upstream};
use openbao::OpenBao;

const SECRET: &str = "secret/ado/web#pat";

/// A vault as a configuration has it, at an address whose certificate is of `ca`.
fn vault(address: SocketAddr, ca: &Path, auth: HashicorpAuth) -> config::Hashicorp {
    use rustls::pki_types::{CertificateDer, pem::PemObject as _};
    let certificates = CertificateDer::pem_file_iter(ca).unwrap().map(Result::unwrap).collect();
    config::Hashicorp {
        address: format!("https://localhost:{}", address.port()).into(),
        addresses: [("localhost".into(), address)].into(),
        trust: Trust { ca: Some((ca.into(), certificates)) },
        namespace: None,
        kv: None,
        auth,
    }
}

fn approle(role_id: &str, secret_id_file: &Path) -> HashicorpAuth {
    HashicorpAuth::AppRole {
        mount: "approle".into(),
        role_id: role_id.into(),
        secret_id_file: secret_id_file.into(),
        wrapped: false,
    }
}

fn open(vault: &config::Hashicorp) -> Hashicorp {
    // A proxy that is not there: what is on this machine, or re-addressed, is reached without one.
    let outbound = Outbound { proxy: Some("127.0.0.1:1".parse().unwrap()), no_proxy: Vec::new() };
    Hashicorp::open(vault, Duration::from_secs(5), &outbound).unwrap()
}

/// A vault with `AppRole` and one secret, and what stands before it.
struct Desk {
    bao: OpenBao,
    faults: Faults,
    vault: config::Hashicorp,
}

impl Desk {
    fn new() -> Self {
        Self::with(&json!({}))
    }

    /// With a role whose tokens are like this.
    fn with(token: &Value) -> Self {
        let bao = OpenBao::start();
        let role_id = bao.usual(token);
        bao.put("ado/web", &json!({ "pat": "canary-first", "other": "canary-other" }));
        let (file, _) = bao.secret_id();
        let faults = Faults::start(bao.folder.path(), &[], Upstream::Plain(bao.plain()));
        let vault = vault(faults.address(), faults.ca(), approle(&role_id, &file));
        Self { bao, faults, vault }
    }

    fn source(&self) -> Hashicorp {
        open(&self.vault)
    }

    fn logins(&self) -> usize {
        self.faults.count("/login")
    }
}

/// Value and version.
async fn read(source: &dyn SecretSource, secret: &str) -> Result<(String, Option<String>), VaultError> {
    let fetched = source.fetch(secret).await?;
    Ok((exposed(&fetched.value).to_owned(), fetched.version.map(|version| version.to_string())))
}

async fn denied(source: &dyn SecretSource, secret: &str) -> String {
    match read(source, secret).await {
        Err(VaultError::Denied(why)) => {
            assert!(!why.contains("canary"), "{why}");
            why.to_string()
        }
        other => panic!("{secret}: {other:?}"),
    }
}

struct InBao(Desk);

impl Filled for InBao {
    fn source(&self) -> Box<dyn SecretSource> {
        Box::new(self.0.source())
    }
    fn put(&self, name: &str, value: &[u8]) -> String {
        self.0.bao.put(&format!("ado/{name}"), &json!({ "pat": String::from_utf8_lossy(value) }));
        format!("secret/ado/{name}#pat")
    }
    fn forbid(&self, name: &str) -> bool {
        let path = name.strip_prefix("secret/").and_then(|rest| rest.strip_suffix("#pat")).unwrap();
        self.0.bao.policy("patgate", &format!("path \"secret/data/{path}\" {{ capabilities = [\"deny\"] }}"));
        true
    }
}

#[tokio::test]
#[ignore = "needs OpenBao"]
async fn openbao_keeps_the_contract() {
    contract::keep("hashicorp", &InBao(Desk::new())).await;
}

#[tokio::test]
#[ignore = "needs OpenBao"]
async fn both_versions_of_the_engine_are_read_wherever_they_are_mounted() {
    let desk = Desk::new();
    let bao = &desk.bao;
    bao.ok("POST", "old/ado/web", &json!({ "pat": "canary-old" }));
    bao.ok("POST", "sys/mounts/team/kv", &json!({ "type": "kv", "options": { "version": "2" } }));
    bao.ok("POST", "team/kv/data/ado/a b", &json!({ "data": { "p#t": "canary-team" } }));
    bao.policy("patgate", "path \"+/data/ado/*\" { capabilities = [\"read\"] }\npath \"old/ado/*\" { capabilities = [\"read\"] }\npath \"team/kv/data/ado/*\" { capabilities = [\"read\"] }");
    let source = desk.source();
    assert_eq!(read(&source, SECRET).await.unwrap(), ("canary-first".into(), Some("1".into())));
    assert_eq!(read(&source, "old/ado/web#pat").await.unwrap(), ("canary-old".into(), None));
    assert_eq!(read(&source, "team/kv/ado/a b#p#t").await.unwrap(), ("canary-team".into(), Some("1".into())));
    bao.put("ado/web", &json!({ "pat": "canary-second" }));
    assert_eq!(read(&source, SECRET).await.unwrap(), ("canary-second".into(), Some("2".into())));

    // Where a policy forbids the question for the mount, and where the configuration answers it.
    let questions = desk.faults.count("internal/ui/mounts");
    assert_eq!(questions, 3, "a mount is asked for once");
    desk.faults.behave_for("internal/ui/mounts", Behaviour::Status(403));
    let source = desk.source();
    assert_eq!(read(&source, SECRET).await.unwrap().0, "canary-second");
    assert_eq!(read(&source, "old/ado/web#pat").await.unwrap().0, "canary-old");
    for (kv, secret, value) in [(Kv::V2, SECRET, "canary-second"), (Kv::V1, "old/ado/web#pat", "canary-old")]
    {
        let before = desk.faults.count("internal/ui/mounts");
        let source = open(&config::Hashicorp { kv: Some(kv), ..desk.vault.clone() });
        assert_eq!(read(&source, secret).await.unwrap().0, value);
        assert_eq!(desk.faults.count("internal/ui/mounts"), before);
    }
}

#[tokio::test]
#[ignore = "needs OpenBao"]
async fn what_is_not_there_any_more_is_denied_and_said() {
    let desk = Desk::new();
    let (bao, source) = (&desk.bao, desk.source());
    assert!(denied(&source, "secret/ado/none#pat").await.contains("there is no secret/ado/none"));
    let fields = denied(&source, "secret/ado/web#pta").await;
    assert!(fields.contains(r#"no field "pta"; its fields: "other", "pat""#), "{fields}");
    assert!(denied(&source, "secret/other/web#pat").await.contains("forbids"), "no policy allows it");
    bao.put("ado/gone", &json!({ "pat": "canary" }));
    bao.ok("DELETE", "secret/data/ado/gone", &Value::Null);
    assert!(denied(&source, "secret/ado/gone#pat").await.contains("is deleted in its version 1"));
    bao.ok("PUT", "secret/destroy/ado/gone", &json!({ "versions": [1] }));
    assert!(denied(&source, "secret/ado/gone#pat").await.contains("is destroyed in its version 1"));
    assert_eq!(read(&source, SECRET).await.unwrap().0, "canary-first");
}

#[tokio::test]
#[ignore = "needs OpenBao"]
async fn what_the_vault_knows_of_its_end_is_told() {
    let desk = Desk::new();
    let (bao, source) = (&desk.bao, desk.source());
    let end = async || source.fetch(SECRET).await.unwrap().facts.expires;
    assert_eq!(end().await, None);
    bao.ok("POST", "secret/metadata/ado/web", &json!({ "custom_metadata": { "expires": "2098-01-31" } }));
    assert_eq!(end().await.unwrap().to_string(), "2098-01-31T00:00:00Z");
    bao.ok("POST", "secret/metadata/ado/web", &json!({ "delete_version_after": "2h" }));
    bao.put("ado/web", &json!({ "pat": "canary-second" }));
    let now = jiff::Timestamp::try_from(crate::clock::wall()).unwrap();
    let left = end().await.unwrap().duration_since(now);
    assert!((1..=2).contains(&left.as_hours()), "{left}");
}

#[tokio::test]
#[ignore = "needs OpenBao"]
async fn a_write_keeps_the_other_fields_and_the_version_before_it_is_found() {
    let desk = Desk::new();
    let (bao, source) = (&desk.bao, desk.source());
    let previous = async || {
        let fetched = source.fetch_previous(SECRET).await?;
        Ok::<_, VaultError>((exposed(&fetched.value).to_owned(), fetched.version.unwrap().to_string()))
    };
    assert!(previous().await.unwrap_err().to_string().contains("no earlier version"));
    let second = SecretString::from("canary-\"second\"");
    let forbidden = source.write(SECRET, &second).await.unwrap_err();
    assert!(matches!(&forbidden, VaultError::Denied(why) if why.contains("forbids a write")), "{forbidden}");

    let path = |mount: &str, all: &str| format!("path \"{mount}/*\" {{ capabilities = [{all}] }}\n");
    for (round, all) in ["\"read\", \"patch\"", "\"read\", \"update\""].into_iter().enumerate() {
        bao.policy("patgate", &path("secret/data/ado", all));
        let before = read(&source, SECRET).await.unwrap();
        let value = SecretString::from(format!("canary-\"{round}\""));
        let version = source.write(SECRET, &value).await.unwrap().unwrap();
        assert_eq!(*version, *(round + 2).to_string());
        assert_eq!(read(&source, SECRET).await.unwrap(), (exposed(&value).into(), Some(version.to_string())));
        assert_eq!(read(&source, "secret/ado/web#other").await.unwrap().0, "canary-other", "{all}");
        assert_eq!(previous().await.unwrap(), (before.0, before.1.unwrap()));
    }
    // Somebody else was faster: what was read is not what is there.
    desk.faults.behave_for("POST /v1/secret/data", Behaviour::Slow(Duration::from_secs(1)));
    let before = desk.faults.count("POST /v1/secret/data");
    let (written, ()) = tokio::join!(source.write(SECRET, &second), async {
        while desk.faults.count("POST /v1/secret/data") == before {
            tokio::task::yield_now().await;
        }
        bao.put("ado/web", &json!({ "pat": "canary-theirs" }));
    });
    let why = written.unwrap_err();
    assert!(matches!(&why, VaultError::Unavailable(why) if why.contains("by somebody else")), "{why}");
    assert_eq!(read(&source, SECRET).await.unwrap().0, "canary-theirs");
    desk.faults.behave(Behaviour::Pass);

    // A secret that is new, and version 1 of the engine.
    let rules = path("secret/data/ado", "\"create\", \"read\", \"update\"")
        + &path("old/ado", "\"create\", \"read\", \"update\"");
    bao.policy("patgate", &rules);
    assert_eq!(source.write("secret/ado/new#pat", &second).await.unwrap().as_deref(), Some("1"));
    assert_eq!(read(&source, "secret/ado/new#pat").await.unwrap().0, exposed(&second));
    for name in ["a", "b"] {
        let secret = format!("old/ado/web#{name}");
        assert_eq!(source.write(&secret, &second).await.unwrap(), None);
        assert_eq!(read(&source, &secret).await.unwrap().0, exposed(&second));
    }
    assert_eq!(read(&source, "old/ado/web#a").await.unwrap().0, exposed(&second));
    let old = source.fetch_previous("old/ado/web#a").await.map(drop).unwrap_err();
    assert!(old.to_string().contains("version 1, which keeps no earlier versions"), "{old}");
}

#[tokio::test]
#[ignore = "needs OpenBao"]
async fn silence_is_told_apart_from_a_refusal() {
    let desk = Desk::new();
    let source = desk.source();
    assert_eq!(read(&source, SECRET).await.unwrap().0, "canary-first");
    for (behaviour, word) in [
        (Behaviour::Kill, "no connection"),
        (Behaviour::Status(429), "no more requests"),
        (Behaviour::Status(500), "500"),
        (Behaviour::Status(307), "standby"),
        (Behaviour::HalfBody, "broke off"),
        (Behaviour::WrongJson, "not what a vault answers"),
        (Behaviour::NoJson, "not what a vault answers"),
        (Behaviour::Huge, "longer than 1024 KiB"),
        (Behaviour::Expired, "expired"),
        (Behaviour::OtherName, "not valid for name"),
        (Behaviour::OtherAuthority, "UnknownIssuer"),
    ] {
        desk.faults.behave(behaviour);
        // With a token at hand, and where there is none yet.
        for source in [&source, &desk.source()] {
            match read(source, SECRET).await {
                Err(VaultError::Unavailable(why)) => {
                    assert!(why.contains(word), "{behaviour:?}: {why}");
                    assert!(!why.contains("canary"), "{behaviour:?}: {why}");
                }
                other => panic!("{behaviour:?}: {other:?}"),
            }
        }
        desk.faults.behave(Behaviour::Pass);
        assert_eq!(read(&source, SECRET).await.unwrap().0, "canary-first", "after {behaviour:?}");
    }
    for status in [400, 403, 404] {
        desk.faults.behave_for("/v1/secret/", Behaviour::Status(status));
        denied(&source, SECRET).await;
        desk.faults.behave_for("/login", Behaviour::Status(status));
        denied(&desk.source(), SECRET).await;
        desk.faults.behave(Behaviour::Pass);
        assert_eq!(read(&source, SECRET).await.unwrap().0, "canary-first", "after {status}");
    }
}

#[tokio::test]
#[ignore = "needs OpenBao"]
async fn a_limit_of_the_rate_and_a_seal_are_silence() {
    let desk = Desk::new();
    let (bao, source) = (&desk.bao, desk.source());
    assert_eq!(read(&source, SECRET).await.unwrap().0, "canary-first");
    bao.ok("POST", "sys/quotas/rate-limit/one", &json!({ "path": "secret/", "rate": 1, "interval": "60s" }));
    let _ = read(&source, SECRET).await;
    let limited = read(&source, SECRET).await.unwrap_err();
    assert!(matches!(&limited, VaultError::Unavailable(why) if why.contains("429")), "{limited}");
    bao.ok("DELETE", "sys/quotas/rate-limit/one", &Value::Null);
    assert_eq!(read(&source, SECRET).await.unwrap().0, "canary-first");

    bao.seal();
    let sealed = read(&source, SECRET).await.unwrap_err();
    assert!(matches!(&sealed, VaultError::Unavailable(why) if &**why == "it is sealed"), "{sealed}");
    bao.unseal();
    assert_eq!(read(&source, SECRET).await.unwrap().0, "canary-first");
}

#[tokio::test]
#[ignore = "needs OpenBao"]
async fn the_vaults_own_tls_and_plain_loopback_are_reached_by_their_names() {
    let desk = Desk::new();
    let bao = &desk.bao;
    let direct = vault(bao.tls(), &bao.path("ca.pem"), desk.vault.auth.clone());
    assert_eq!(read(&open(&direct), SECRET).await.unwrap().0, "canary-first");
    let addresses = [("vault.test".into(), bao.tls())].into();
    let mut named = config::Hashicorp { addresses, ..direct };
    for address in ["https://vault.test:8200", "https://vault.test"] {
        named.address = address.into();
        assert_eq!(read(&open(&named), SECRET).await.unwrap().0, "canary-first", "{address}");
    }
    let plain = config::Hashicorp {
        address: format!("http://{}", bao.plain()).into(),
        trust: Trust::default(),
        ..named
    };
    assert_eq!(read(&open(&plain), SECRET).await.unwrap().0, "canary-first");
}
