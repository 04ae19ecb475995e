//! Each way to prove an identity, and each way to fail.

use std::time::Duration;

use tokio::time::timeout;

use super::{
    PAT, lab, secret,
    stand_in::{self, AUTHORITY, Azure, Behaviour, CLIENT, SECRET, TENANT},
    start, vault, verdict,
};
use crate::{
    config::{self, Identity, IdentityMethod, Outbound},
    vault::{FingerprintKey, Scheme, SecretSource, Token, entra::Entra},
};

fn entra(azure: &Azure, method: IdentityMethod) -> Result<Entra, String> {
    let (trust, addresses) = lab(azure);
    let identity = Identity { authority: AUTHORITY.into(), method };
    Entra::open(&config::Entra { trust, addresses, identity }, &Outbound::default())
}

#[tokio::test]
async fn every_method_proves_the_identity() {
    let (azure, folder) = start();
    let (certificate, key) = azure.register_certificate();
    std::fs::write(folder.path().join("app.pem"), certificate).unwrap();
    stand_in::private(&folder.path().join("app.key"), &key);
    std::fs::write(folder.path().join("token"), azure.federate()).unwrap();
    let own = || (Some(TENANT.into()), Some(CLIENT.into()));
    let (tenant_id, client_id) = own();
    for method in [
        secret(folder.path()),
        IdentityMethod::ClientCertificate {
            tenant_id: TENANT.into(),
            client_id: CLIENT.into(),
            certificate: folder.path().join("app.pem"),
            key: folder.path().join("app.key"),
        },
        IdentityMethod::WorkloadIdentity {
            tenant_id,
            client_id,
            token_file: Some(folder.path().join("token")),
        },
        IdentityMethod::ManagedIdentity { client_id: None },
        IdentityMethod::ManagedIdentity { client_id: Some(CLIENT.into()) },
    ] {
        let source = vault(&azure, method.clone()).unwrap();
        assert_eq!(verdict(&source, "ado").await, format!("ok: {PAT}"), "{method:?}");
        assert_eq!(verdict(&source, "ado").await, format!("ok: {PAT}"), "{method:?}");
        let tokens = azure.tokens();
        let source = entra(&azure, method.clone()).unwrap();
        for n in 0..2 {
            assert_eq!(verdict(&source, "").await, format!("ok: {}", Azure::token(tokens + n)), "{method:?}");
        }
    }
    assert_eq!(azure.tokens(), 5 * 3, "a vault's token is kept, one for Azure DevOps is new each time");
}

#[tokio::test]
async fn what_the_identity_lacks_is_said() {
    let (azure, folder) = start();
    let path = |name: &str| folder.path().join(name);
    stand_in::private(&path("wrong"), "another secret");
    stand_in::private(&path("none"), "\n");
    std::fs::write(path("open"), SECRET).unwrap();
    let (certificate, key) = azure.register_certificate();
    std::fs::write(path("app.pem"), certificate).unwrap();
    stand_in::private(&path("app.key"), &key);
    let _ = azure.register_certificate();
    std::fs::write(path("token"), "CANARY no token").unwrap();
    let of_secret = |tenant: &str, client: &str, file: &str| IdentityMethod::ClientSecret {
        tenant_id: tenant.into(),
        client_id: client.into(),
        secret_file: path(file),
    };
    let workload = |file: &str| IdentityMethod::WorkloadIdentity {
        tenant_id: Some(TENANT.into()),
        client_id: Some(CLIENT.into()),
        token_file: Some(path(file)),
    };
    let certified = IdentityMethod::ClientCertificate {
        tenant_id: TENANT.into(),
        client_id: CLIENT.into(),
        certificate: path("app.pem"),
        key: path("app.key"),
    };
    for (method, expected) in [
        (
            of_secret(TENANT, CLIENT, "wrong"),
            "denied: the vault refused: Entra gives the identity no token: the secret of the application is wrong (AADSTS7000215)",
        ),
        (of_secret(TENANT, CLIENT, "none"), "unavailable"),
        (of_secret(TENANT, CLIENT, "absent"), "denied: the vault refused: there is no file"),
        (of_secret(TENANT, CLIENT, "open"), "denied: the vault refused: "),
        (
            of_secret("other-tenant", CLIENT, "client-secret"),
            "denied: the vault refused: Entra gives the identity no token: the tenant (tenant-id) is not known (AADSTS90002)",
        ),
        (
            of_secret(TENANT, "other", "client-secret"),
            "denied: the vault refused: Entra gives the identity no token: the application (client-id) is not known in the tenant (AADSTS700016)",
        ),
        (workload("token"), "denied: the vault refused: "),
        (workload("absent"), "unavailable: the vault did not answer: /"),
        (
            certified,
            "denied: the vault refused: Entra gives the identity no token: the application does not know the certificate (AADSTS700027)",
        ),
        (
            IdentityMethod::ManagedIdentity { client_id: Some("other".into()) },
            "denied: the vault refused: the machine does not have that identity (400)",
        ),
    ] {
        for source in [
            Box::new(vault(&azure, method.clone()).unwrap()) as Box<dyn SecretSource>,
            Box::new(entra(&azure, method.clone()).unwrap()),
        ] {
            let said = verdict(&*source, "ado").await;
            assert!(said.starts_with(expected), "{method:?}: {said}");
        }
    }
}

#[tokio::test]
async fn a_secret_that_was_rotated_is_taken_up() {
    let (azure, folder) = start();
    let source = entra(&azure, secret(folder.path())).unwrap();
    assert!(source.fetch("").await.is_ok());
    azure.rotate_secret("another-secret");
    assert!(verdict(&source, "").await.starts_with("denied"));
    stand_in::private(&folder.path().join("client-secret"), "another-secret\n");
    assert!(source.fetch("").await.is_ok());
}

#[tokio::test]
async fn a_certificate_that_does_not_fit_its_key_is_refused_at_the_start() {
    let (azure, folder) = start();
    let path = |name: &str| folder.path().join(name);
    let (certificate, _) = azure.register_certificate();
    let (_, key) = azure.register_certificate();
    let elliptic = rcgen::KeyPair::generate().unwrap();
    std::fs::write(path("app.pem"), &certificate).unwrap();
    for (key, words) in [
        (key.as_str(), "is not the certificate of the key beside it"),
        (elliptic.serialize_pem().as_str(), "holds no RSA key"),
        ("no key", "holds no RSA key"),
    ] {
        stand_in::private(&path("app.key"), key);
        let method = IdentityMethod::ClientCertificate {
            tenant_id: TENANT.into(),
            client_id: CLIENT.into(),
            certificate: path("app.pem"),
            key: path("app.key"),
        };
        let why = vault(&azure, method).err().unwrap();
        assert!(why.contains(words), "{why}");
    }
}

#[tokio::test]
async fn what_the_authority_does_is_a_verdict() {
    let (azure, folder) = start();
    for method in [secret(folder.path()), IdentityMethod::ManagedIdentity { client_id: None }] {
        let source = entra(&azure, method).unwrap();
        for behaviour in [
            Behaviour::Status(404, "x"),
            Behaviour::Status(500, "x"),
            Behaviour::Throttle(30),
            Behaviour::HalfABody,
            Behaviour::WrongJson,
            Behaviour::TenMegabytes,
            Behaviour::Redirect,
        ] {
            azure.authority_behaves(behaviour);
            let before = azure.seen().len();
            let said = timeout(Duration::from_secs(20), verdict(&source, "")).await.unwrap();
            assert!(said.starts_with("unavailable"), "{behaviour:?}: {said}");
            assert_eq!(azure.seen().len(), before + 1, "{behaviour:?}: nothing is tried again by itself");
        }
        azure.authority_behaves(Behaviour::Sound);
        assert!(verdict(&source, "").await.starts_with("ok"));
    }
}

#[tokio::test]
async fn a_machines_identity_is_never_asked_for_by_a_proxy() {
    let (azure, _folder) = start();
    let (trust, addresses) = lab(&azure);
    let method = IdentityMethod::ManagedIdentity { client_id: None };
    let identity = Identity { authority: AUTHORITY.into(), method };
    // Nobody listens there.
    let outbound = Outbound { proxy: Some("127.0.0.1:1".parse().unwrap()), ..Outbound::default() };
    let source = Entra::open(&config::Entra { trust, addresses, identity }, &outbound).unwrap();
    assert_eq!(verdict(&source, "").await, format!("ok: {}", Azure::token(0)));
}

#[tokio::test]
async fn a_token_of_entra_knows_its_end_and_can_be_sent() {
    let (azure, folder) = start();
    let source = entra(&azure, secret(folder.path())).unwrap();
    let fetched = source.fetch("").await.unwrap();
    let left = fetched.facts.expires.unwrap().as_second() - jiff::Timestamp::now().as_second();
    assert!((3590..3600).contains(&left), "{left}");
    assert!(Token::new(fetched.value, Scheme::Bearer, &FingerprintKey::new(&[1; 32])).is_ok());
    azure.tokens_last(-1);
    assert!(verdict(&source, "").await.starts_with("unavailable"));
}
