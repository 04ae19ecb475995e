//! Against a real `moto_server`: `tests/install` installs it, `cargo test --lib -- --ignored` runs these.

#![allow(dead_code, unreachable_pub, reason = "the harness is shared with the tests of the binary")]

use aws_credential_types::Credentials;
use base64::Engine as _;
use futures_util::future::join_all;
use secrecy::SecretString;
use serde_json::json;

use super::*;
use crate::{
    config::{Outbound, Trust},
    vault::{
        Fetched,
        contract::{Filled, keep},
    },
};

#[path = "../../../tests/real/moto.rs"]
mod moto;

use moto::{Moto, REGION};

pub(super) fn vault(endpoint: &str) -> config::AwsSecretsManager {
    config::AwsSecretsManager {
        region: REGION.into(),
        endpoint: Some(endpoint.into()),
        sts_endpoint: Some(endpoint.into()),
        trust: Trust::default(),
        assume_role: None,
        external_id: None,
        profile: None,
    }
}

pub(super) fn source(endpoint: &str, key: &str, secret: &str) -> AwsSecretsManager {
    let vault = vault(endpoint);
    let identity = Credentials::new(key, secret, None, None, "test");
    let way = Way::new(&vault, &Outbound::default()).unwrap();
    AwsSecretsManager::with(&vault, &way, SharedCredentialsProvider::new(identity))
}

/// What was read, as text, and its version.
fn shown(fetched: Result<Fetched, VaultError>) -> Result<(String, String), String> {
    let fetched = fetched.map_err(|error| error.to_string())?;
    let version = fetched.version.as_deref().unwrap_or_default().to_owned();
    Ok((exposed(&fetched.value).to_owned(), version))
}

/// Secrets in a server of its own.
struct Secrets(Moto);

impl Filled for Secrets {
    fn source(&self) -> Box<dyn SecretSource> {
        Box::new(source(&self.0.url(), "test", "test"))
    }
    fn put(&self, name: &str, value: &[u8]) -> String {
        const LONGEST: usize = 65_536;
        let value = &value[..value.len().min(LONGEST)];
        match str::from_utf8(value) {
            // It takes no empty value.
            Ok("") => self.0.put(name, "\r\n"),
            Ok(text) => self.0.put(name, text),
            Err(_) => {
                let bytes = base64::engine::general_purpose::STANDARD.encode(value);
                self.0.call("PutSecretValue", &json!({ "SecretId": name, "SecretBinary": bytes })).to_string()
            }
        };
        name.to_owned()
    }
    fn forbid(&self, name: &str) -> bool {
        self.0.call("DeleteSecret", &json!({ "SecretId": name }));
        true
    }
}

#[tokio::test]
#[ignore = "needs moto_server"]
async fn it_keeps_the_contract_of_every_source() {
    keep("aws-secrets-manager", &Secrets(Moto::start())).await;
}

#[tokio::test]
#[ignore = "needs moto_server"]
async fn the_stage_decides_which_version_is_read() {
    let moto = Moto::start();
    let source = source(&moto.url(), "test", "test");
    let one = moto.put("web", "token-one");
    assert!(source.fetch_previous("web").await.is_err(), "there is none before the first");
    let two = moto.put("web", "token-two");
    assert_eq!(shown(source.fetch("web").await), Ok(("token-two".into(), two.clone())));
    assert_eq!(shown(source.fetch_previous("web").await), Ok(("token-one".into(), one.clone())));

    // Moved back by hand, as after a rotation that went wrong.
    let back = json!({ "SecretId": "web", "VersionStage": "AWSCURRENT", "MoveToVersionId": one,
        "RemoveFromVersionId": two });
    moto.call("UpdateSecretVersionStage", &back);
    moto.put("other", "token-other");
    let (web, other) = tokio::join!(source.fetch("web"), source.fetch("other"));
    assert_eq!(shown(web).unwrap(), ("token-one".into(), one));
    assert_eq!(shown(other).unwrap().0, "token-other");
}

#[tokio::test]
#[ignore = "needs moto_server"]
async fn many_are_read_at_once_each_with_its_own_answer() {
    let moto = Moto::start();
    let source = source(&moto.url(), "test", "test");
    for n in 0..45 {
        moto.put(&format!("team/web-{n}"), &format!("token-{n}"));
    }
    moto.put("all", r#"{"read":"token-r","write":"token-w"}"#);
    moto.call("DeleteSecret", &json!({ "SecretId": "team/web-7" }));
    let names: Vec<String> = (0..46)
        .map(|n| format!("team/web-{n}"))
        .chain(["all#read", "all#write", "all#admin"].map(str::to_owned))
        .collect();
    for _ in 0..2 {
        let read = join_all(names.iter().map(|name| async { shown(source.fetch(name).await) })).await;
        for (n, read) in read.iter().enumerate() {
            match n {
                7 => assert!(read.as_ref().unwrap_err().contains("marked deleted"), "{read:?}"),
                45 => assert!(read.as_ref().unwrap_err().contains("ResourceNotFound"), "{read:?}"),
                46 => assert_eq!(read.as_ref().unwrap().0, "token-r"),
                47 => assert_eq!(read.as_ref().unwrap().0, "token-w"),
                48 => assert!(read.as_ref().unwrap_err().ends_with("there are: read, write"), "{read:?}"),
                _ => assert_eq!(read.as_ref().unwrap().0, format!("token-{n}")),
            }
        }
    }
}

#[tokio::test]
#[ignore = "needs moto_server"]
async fn what_holds_no_text_is_not_usable() {
    let moto = Moto::start();
    let source = source(&moto.url(), "test", "test");
    let bytes = base64::engine::general_purpose::STANDARD.encode([0, 1, 2]);
    moto.call("CreateSecret", &json!({ "Name": "binary", "SecretBinary": bytes }));
    let binary = source.fetch("binary").await;
    assert!(
        matches!(&binary, Err(VaultError::Unusable(why)) if why.contains("SecretString")),
        "{:?}",
        binary.err()
    );
    moto.call("CreateSecret", &json!({ "Name": "none" }));
    assert!(matches!(source.fetch("none").await, Err(VaultError::Denied(_))));
}

#[tokio::test]
#[ignore = "needs moto_server"]
async fn a_write_is_made_once_and_keeps_the_other_fields() {
    let moto = Moto::start();
    let source = source(&moto.url(), "test", "test");
    moto.put("web", "token-one");
    let new = SecretString::from("token-two");
    let version = source.write("web", &new).await.unwrap().unwrap();
    assert_eq!(shown(source.fetch("web").await), Ok(("token-two".into(), version.to_string())));
    assert_eq!(shown(source.fetch_previous("web").await).unwrap().0, "token-one");
    assert_eq!(source.write("web", &new).await.unwrap(), Some(version), "what is there is not written again");
    assert_eq!(shown(source.fetch_previous("web").await).unwrap().0, "token-one");

    moto.put("all", r#"{"z":1.00,"web":"token-one"}"#);
    source.write("all#web", &new).await.unwrap();
    assert_eq!(shown(source.fetch("all").await).unwrap().0, r#"{"z":1.00,"web":"token-two"}"#);
    source.write("all#more", &SecretString::from("token-three")).await.unwrap();
    assert_eq!(shown(source.fetch("all#more").await).unwrap().0, "token-three");
    assert_eq!(shown(source.fetch("all#web").await).unwrap().0, "token-two");

    for secret in ["gone", "gone#web", "web#field"] {
        assert!(source.write(secret, &new).await.is_err(), "{secret}");
    }
}

#[tokio::test]
#[ignore = "needs moto_server"]
async fn iam_decides_what_is_read_and_no_batch_is_needed() {
    // A secret (a refused put, and a create, each), two users, their keys, a policy.
    let moto = Moto::strict_after(9);
    for secret in ["web", "other"] {
        moto.put(secret, &format!("token-{secret}"));
    }
    let user = |name: &str| {
        moto.iam(&format!("Action=CreateUser&UserName={name}"));
        let key = moto.iam(&format!("Action=CreateAccessKey&UserName={name}"));
        let part =
            |tag: &str| key.split(&format!("<{tag}>")).nth(1).unwrap().split('<').next().unwrap().to_owned();
        source(&moto.url(), &part("AccessKeyId"), &part("SecretAccessKey"))
    };
    let (patgate, nobody) = (user("patgate"), user("nobody"));
    let allowed = json!({ "Version": "2012-10-17", "Statement": [
        { "Effect": "Allow", "Action": "secretsmanager:GetSecretValue", "Resource": "*" }] });
    moto.iam(&format!("Action=PutUserPolicy&UserName=patgate&PolicyName=read&PolicyDocument={allowed}"));

    for _ in 0..2 {
        let (web, other) = tokio::join!(patgate.fetch("web"), patgate.fetch("other"));
        assert_eq!(shown(web).unwrap().0, "token-web");
        assert_eq!(shown(other).unwrap().0, "token-other");
    }
    let refused = patgate.write("web", &SecretString::from("token-new")).await;
    assert!(matches!(refused, Err(VaultError::Denied(_))), "{refused:?}");
    let refused = nobody.fetch("web").await;
    assert!(matches!(refused, Err(VaultError::Denied(_))), "{:?}", refused.err());
    let stranger = source(&moto.url(), "AKIAUNKNOWN", "secret");
    assert!(shown(stranger.fetch("web").await).is_err());
}
