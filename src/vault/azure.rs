//! Key Vault and Entra, against a stand-in for both.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use rustls::pki_types::{CertificateDer, pem::PemObject};
use tokio::time::timeout;

use super::{SecretSource, VaultError, azure_key_vault::AzureKeyVault, token::exposed};
use crate::config::{self, Identity, IdentityMethod, Outbound, Trust};

#[path = "../../tests/azure/stand_in.rs"]
#[expect(dead_code, unreachable_pub, reason = "it is shared with the integration tests")]
pub(super) mod stand_in;

mod identities;

use stand_in::{AUTHORITY, Azure, Behaviour, CLIENT, Certificate, TENANT, VAULT};

const PAT: &str = "CANARYPAT-one";

pub(super) fn secret(folder: &Path) -> IdentityMethod {
    IdentityMethod::ClientSecret {
        tenant_id: TENANT.into(),
        client_id: CLIENT.into(),
        secret_file: folder.join("client-secret"),
    }
}

fn lab(azure: &Azure) -> (Trust, BTreeMap<Arc<str>, std::net::SocketAddr>) {
    let ca = CertificateDer::from_pem_slice(azure.ca.as_bytes()).unwrap();
    let addresses = [(VAULT, azure.address), (AUTHORITY, azure.address), ("169.254.169.254", azure.metadata)];
    let addresses = addresses.into_iter().map(|(host, address)| (host.into(), address)).collect();
    (Trust { ca: Some(("azure-ca.pem".into(), vec![ca])) }, addresses)
}

pub(super) fn vault(azure: &Azure, method: IdentityMethod) -> Result<AzureKeyVault, String> {
    let (trust, addresses) = lab(azure);
    let identity = Identity { authority: AUTHORITY.into(), method };
    let vault = config::AzureKeyVault { host: VAULT.into(), trust, addresses, identity };
    AzureKeyVault::open(&vault, &Outbound::default())
}

/// The stand-in with one secret, and a folder with what an identity needs.
fn start() -> (Azure, tempfile::TempDir) {
    start_with(Certificate::Good)
}

fn start_with(certificate: Certificate) -> (Azure, tempfile::TempDir) {
    let azure = Azure::start_with(certificate);
    let folder = tempfile::tempdir().unwrap();
    azure.write(folder.path());
    azure.put("ado", PAT);
    (azure, folder)
}

async fn value(source: &dyn SecretSource, name: &str) -> Result<String, VaultError> {
    let fetched = source.fetch(name).await;
    fetched.map(|fetched| exposed(&fetched.value).to_owned())
}

/// `denied: words` and so on; what no error may hold is looked for in every one.
async fn verdict(source: &dyn SecretSource, name: &str) -> String {
    let said = match value(source, name).await {
        Ok(value) => return format!("ok: {value}"),
        Err(error) => {
            let kind = match error {
                VaultError::Denied(_) => "denied",
                VaultError::Unavailable(_) => "unavailable",
                VaultError::Unusable(_) => "unusable",
            };
            format!("{kind}: {error} {error:?}")
        }
    };
    assert!(!said.contains("CANARY") && !said.contains("eyJ"), "{said}");
    said
}

#[tokio::test]
async fn what_the_vault_does_is_a_verdict() {
    let (azure, folder) = start();
    let source = vault(&azure, secret(folder.path())).unwrap();
    assert!(verdict(&source, "ado").await.starts_with("ok"));
    for (behaviour, expected) in [
        (
            Behaviour::Status(403, "ForbiddenByPolicy"),
            "denied: the vault refused: the identity may not do that (403 ForbiddenByPolicy)",
        ),
        (Behaviour::Status(403, "ForbiddenByFirewall"), "denied: the vault refused: the vault's firewall"),
        (
            Behaviour::Status(404, "SecretNotFound"),
            "denied: the vault refused: there is no such secret (404)",
        ),
        (Behaviour::Status(500, "InternalError"), "unavailable"),
        (Behaviour::Status(503, "Unavailable"), "unavailable"),
        (Behaviour::HalfABody, "unavailable: the vault did not answer: corp.vault.azure.net: "),
        (Behaviour::WrongJson, "unavailable: the vault did not answer: its answer is not one of Key Vault's"),
        (
            Behaviour::TenMegabytes,
            "unavailable: the vault did not answer: corp.vault.azure.net: its answer is longer than",
        ),
        (Behaviour::Redirect, "unavailable: the vault did not answer: it answered 302"),
        (
            Behaviour::NoTokenIsGood,
            "denied: the vault refused: it does not take the identity's token (401 Unauthorized)",
        ),
    ] {
        azure.vault_behaves(behaviour);
        let said = verdict(&source, "ado").await;
        assert!(said.starts_with(expected), "{behaviour:?}: {said}");
        azure.vault_behaves(Behaviour::Sound);
        assert_eq!(verdict(&source, "ado").await, format!("ok: {PAT}"), "it recovers by itself");
    }
    assert!(!azure.seen().iter().any(|seen| seen.contains("evil")));
}

#[tokio::test]
async fn whoever_stops_waiting_holds_up_nobody() {
    let (azure, folder) = start();
    let source = vault(&azure, secret(folder.path())).unwrap();
    azure.authority_behaves(Behaviour::Hang);
    assert!(timeout(Duration::from_millis(200), source.fetch("ado")).await.is_err());
    azure.authority_behaves(Behaviour::Sound);
    azure.vault_behaves(Behaviour::Hang);
    assert!(timeout(Duration::from_millis(200), source.fetch("ado")).await.is_err());
    azure.vault_behaves(Behaviour::Slow(Duration::from_millis(100)));
    assert_eq!(verdict(&source, "ado").await, format!("ok: {PAT}"));
}

#[tokio::test]
async fn a_hundred_reads_make_one_token() {
    let (azure, folder) = start();
    let source = vault(&azure, secret(folder.path())).unwrap();
    azure.authority_behaves(Behaviour::Slow(Duration::from_millis(50)));
    let all = futures_util::future::join_all((0..100).map(|_| source.fetch("ado"))).await;
    assert!(all.iter().all(Result::is_ok));
    assert_eq!(azure.tokens(), 1);
}

#[tokio::test]
async fn a_vault_that_throttles_is_left_alone() {
    let (azure, folder) = start();
    let source = vault(&azure, secret(folder.path())).unwrap();
    azure.vault_behaves(Behaviour::Throttle(30));
    let said = verdict(&source, "ado").await;
    assert!(said.contains("429") && said.contains("again in 30 s"), "{said}");
    let before = azure.seen().len();
    azure.vault_behaves(Behaviour::Sound);
    assert!(verdict(&source, "ado").await.starts_with("unavailable"));
    assert!(source.fetch_previous("ado").await.is_err());
    assert_eq!(azure.seen().len(), before);
}

#[tokio::test]
async fn a_token_that_the_vault_refuses_is_renewed_once() {
    let (azure, folder) = start();
    let source = vault(&azure, secret(folder.path())).unwrap();
    assert!(source.fetch("ado").await.is_ok());
    azure.revoke_tokens();
    assert_eq!(verdict(&source, "ado").await, format!("ok: {PAT}"));
    assert_eq!(azure.tokens(), 2);
}

#[tokio::test]
async fn a_challenge_for_another_service_gets_no_token() {
    let (azure, folder) = start();
    let source = vault(&azure, secret(folder.path())).unwrap();
    azure.vault_behaves(Behaviour::OtherResource);
    let said = verdict(&source, "ado").await;
    assert!(
        said.starts_with("unavailable: the vault did not answer: its challenge asks for a token for another"),
        "{said}"
    );
    assert_eq!(azure.tokens(), 0);
}

#[tokio::test]
async fn a_server_that_is_not_the_vault_gets_nothing() {
    for (certificate, words) in
        [(Certificate::Expired, "expired"), (Certificate::OfAnotherName, "not valid for name")]
    {
        let (azure, folder) = start_with(certificate);
        let source = vault(&azure, secret(folder.path())).unwrap();
        let said = verdict(&source, "ado").await;
        assert!(
            said.starts_with("unavailable: the vault did not answer: corp.vault.azure.net: no connection"),
            "{said}"
        );
        assert!(said.to_lowercase().contains(words), "{said}");
        assert_eq!(azure.seen(), [""; 0]);
    }
    let (azure, folder) = start();
    let (mut trust, addresses) = lab(&azure);
    trust.ca = lab(&Azure::start()).0.ca;
    let identity = Identity { authority: AUTHORITY.into(), method: secret(folder.path()) };
    let vault = config::AzureKeyVault { host: VAULT.into(), trust, addresses, identity };
    let source = AzureKeyVault::open(&vault, &Outbound::default()).unwrap();
    assert!(verdict(&source, "ado").await.contains("no connection"), "another authority's");
}

#[tokio::test]
async fn attributes_are_honoured_and_told() {
    let (azure, folder) = start();
    let source = vault(&azure, secret(folder.path())).unwrap();
    let now = jiff::Timestamp::now().as_second();
    let version = azure.put_with("ado", "CANARYPAT-two", |version| {
        (version.not_before, version.expires) = (Some(now - 10), Some(now + 3600));
    });
    let fetched = source.fetch("ado").await.unwrap();
    assert_eq!(fetched.version.as_deref(), Some(&*version));
    assert_eq!(fetched.facts.expires.map(jiff::Timestamp::as_second), Some(now + 3600));
    assert_eq!(fetched.facts.not_before.map(jiff::Timestamp::as_second), Some(now - 10));
    for (change, words) in [
        ((true, Some(now + 60), None), "denied: the vault refused: the secret is not valid before 2"),
        ((true, None, Some(now - 60)), "denied: the vault refused: the secret expired on 2"),
        ((false, None, None), "denied: the vault refused: the secret is disabled"),
    ] {
        azure.change("ado", |version| (version.enabled, version.not_before, version.expires) = change);
        let said = verdict(&source, "ado").await;
        assert!(said.starts_with(words), "{said}");
    }
    azure.grant(false);
    assert!(verdict(&source, "ado").await.contains("403 ForbiddenByRbac"));
}

#[tokio::test]
async fn versions_are_read_and_written() {
    let (azure, folder) = start();
    let source = vault(&azure, secret(folder.path())).unwrap();
    let previous = async |name: &str| {
        let fetched = source.fetch_previous(name).await;
        fetched.map(|fetched| exposed(&fetched.value).to_owned()).map_err(|error| error.to_string())
    };
    assert!(previous("ado").await.unwrap_err().contains("no earlier version"));
    let second = source.write("ado", &"CANARYPAT-two".to_owned().into()).await.unwrap().unwrap();
    let third = source.write("ado", &"CANARYPAT-three".to_owned().into()).await.unwrap().unwrap();
    assert_ne!(second, third);
    assert_eq!(verdict(&source, "ado").await, "ok: CANARYPAT-three");
    assert_eq!(verdict(&source, &format!("ado/{second}")).await, "ok: CANARYPAT-two");
    assert_eq!(previous("ado").await.unwrap(), "CANARYPAT-two");
    assert_eq!(previous(&format!("ado/{second}")).await.unwrap(), PAT);
    for n in 0..7 {
        azure.put("ado", &format!("CANARYPAT-{n}"));
    }
    assert_eq!(previous("ado").await.unwrap(), "CANARYPAT-5", "it may stand on another page");
    azure.change("ado", |version| version.enabled = false);
    assert_eq!(previous("ado").await.unwrap(), "CANARYPAT-5");
    azure.put_with("ado", "CANARYPAT-last", |_| ());
    assert_eq!(previous("ado").await.unwrap(), "CANARYPAT-5", "one that is disabled is passed over");
    assert!(previous("absent").await.is_err());
    let pinned = source.write(&format!("ado/{second}"), &"x".to_owned().into()).await.unwrap_err();
    assert!(pinned.to_string().contains("versions never change"), "{pinned}");
}
