//! Each way to log in.

use std::{io::Write as _, net::TcpListener, thread};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};

use super::*;
use crate::config::ClientIdentity;

/// Signs tokens as an identity provider does.
struct Provider(rcgen::KeyPair);

impl Provider {
    fn sign(&self, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", part(&json!({ "alg": "ES256", "typ": "JWT" })), part(claims));
        let key =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, self.0.serialized_der()).unwrap();
        let signature = key.sign(&SystemRandom::new(), text.as_bytes()).unwrap();
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

fn provider() -> Provider {
    Provider(rcgen::KeyPair::generate().unwrap())
}

/// What reads with this login, directly at the vault.
fn by(bao: &OpenBao, auth: HashicorpAuth) -> Hashicorp {
    open(&vault(bao.tls(), &bao.path("ca.pem"), auth))
}

fn filled() -> OpenBao {
    let bao = OpenBao::start();
    bao.usual(&json!({}));
    bao.put("ado/web", &json!({ "pat": "canary-first" }));
    bao
}

#[tokio::test]
#[ignore = "needs OpenBao"]
async fn a_signed_token_is_read_anew_at_each_login() {
    let (bao, provider) = (filled(), provider());
    bao.ok("POST", "sys/auth/jwt", &json!({ "type": "jwt" }));
    bao.ok("POST", "auth/jwt/config", &json!({ "jwt_validation_pubkeys": [provider.0.public_key_pem()] }));
    let role = json!({
        "role_type": "jwt", "bound_audiences": ["vault"], "user_claim": "sub", "bound_subject": "patgate",
        "token_policies": ["patgate"], "token_ttl": "1h",
    });
    bao.ok("POST", "auth/jwt/role/patgate", &role);
    let claims = |subject: &str| json!({ "sub": subject, "aud": "vault", "exp": 4_000_000_000_u64, "iat": 1_700_000_000 });
    let file = bao.private("jwt", &provider.sign(&claims("canary")));
    let auth = HashicorpAuth::Jwt { mount: "jwt".into(), role: "patgate".into(), token_file: file };
    let source = by(&bao, auth);
    assert!(denied(&source, SECRET).await.contains("login at auth/jwt/login"));
    bao.private("jwt", &provider.sign(&claims("patgate")));
    assert_eq!(read(&source, SECRET).await.unwrap().0, "canary-first");
}

const ISSUER: &str = "https://kubernetes.default.svc";

/// A Kubernetes API that knows one token.
fn kubernetes(token: String) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            let (_, review) = faults::read_request(&mut socket).unwrap().unwrap();
            let known = String::from_utf8_lossy(&review).contains(&token);
            let body = json!({
                "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
                "status": { "authenticated": known, "audiences": [ISSUER], "user": {
                    "username": "system:serviceaccount:build:patgate", "uid": "1-2-3",
                    "groups": ["system:serviceaccounts", "system:authenticated"],
                } },
            })
            .to_string();
            let length = body.len();
            let head = "HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nConnection: close\r\n";
            write!(socket, "{head}Content-Length: {length}\r\n\r\n{body}").unwrap();
        }
    });
    address
}

#[tokio::test]
#[ignore = "needs OpenBao"]
async fn a_pod_logs_in_with_its_service_account() {
    let (bao, provider) = (filled(), provider());
    let account = |name: &str| {
        provider.sign(&json!({
            "iss": ISSUER, "aud": [ISSUER],
            "sub": format!("system:serviceaccount:build:{name}"), "exp": 4_000_000_000_u64,
            "iat": 1_700_000_000, "nbf": 1_700_000_000,
            "kubernetes.io": { "namespace": "build", "serviceaccount": { "name": name, "uid": "1-2-3" } },
        }))
    };
    // No two signatures are the same.
    let own = account("patgate");
    let api = kubernetes(own.clone());
    bao.ok("POST", "sys/auth/cluster", &json!({ "type": "kubernetes" }));
    let config = json!({
        "kubernetes_host": format!("http://{api}"), "disable_local_ca_jwt": true,
        "kubernetes_ca_cert": bao.authority.pem,
        "token_reviewer_jwt": account("reviewer"),
    });
    bao.ok("POST", "auth/cluster/config", &config);
    let role = json!({
        "bound_service_account_names": ["patgate"], "bound_service_account_namespaces": ["build"],
        "token_policies": ["patgate"], "token_ttl": "1h",
    });
    bao.ok("POST", "auth/cluster/role/patgate", &role);
    let file = bao.private("service-account", &account("other"));
    // As Kubernetes mounts it.
    rustix::fs::chmod(&file, rustix::fs::Mode::from_raw_mode(0o644)).unwrap();
    let auth =
        HashicorpAuth::Jwt { mount: "cluster".into(), role: "patgate".into(), token_file: file.clone() };
    let source = by(&bao, auth);
    assert!(denied(&source, SECRET).await.contains("login at auth/cluster/login"));
    std::fs::write(&file, own).unwrap();
    assert_eq!(read(&source, SECRET).await.unwrap().0, "canary-first");
}

#[tokio::test]
#[ignore = "needs OpenBao"]
async fn a_client_certificate_logs_in() {
    let bao = filled();
    bao.ok("POST", "sys/auth/cert", &json!({ "type": "cert" }));
    let role = json!({
        "certificate": bao.authority.pem, "allowed_common_names": ["patgate.test"],
        "token_policies": ["patgate"], "token_ttl": "1h",
    });
    bao.ok("POST", "auth/cert/certs/patgate", &role);
    for (name, mount, role, good) in [
        ("patgate.test", "cert", Some("patgate"), true),
        ("patgate.test", "cert", None, true),
        ("other.test", "cert", Some("patgate"), false),
        ("patgate.test", "cert", Some("other"), false),
        ("patgate.test", "nowhere", None, false),
    ] {
        let (certificate, key) = bao.authority.leaf(&[name], 2098);
        let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
        let key = bao.private("client.key", &key);
        let auth = HashicorpAuth::Certificate {
            mount: mount.into(),
            name: role.map(Arc::from),
            identity: ClientIdentity { chain, key },
        };
        let source = by(&bao, auth);
        if good {
            assert_eq!(read(&source, SECRET).await.unwrap().0, "canary-first");
        } else {
            denied(&source, SECRET).await;
        }
    }
}

fn token(bao: &OpenBao, ttl: &str) -> String {
    let made = bao.ok("POST", "auth/token/create", &json!({ "policies": ["patgate"], "ttl": ttl }));
    made["auth"]["client_token"].as_str().unwrap().into()
}

#[tokio::test]
#[ignore = "needs OpenBao"]
async fn a_token_from_a_file_or_a_program_is_looked_for_again_when_it_is_revoked() {
    let bao = filled();
    let file = bao.private("token", &format!("{}\n", token(&bao, "1h")));
    let helper = ["/bin/cat".into(), file.to_str().unwrap().into()];
    let auths = [HashicorpAuth::TokenFile(file.clone()), HashicorpAuth::TokenHelper(helper.into())];
    let sources = auths.map(|auth| by(&bao, auth));
    for source in &sources {
        assert_eq!(read(source, SECRET).await.unwrap().0, "canary-first");
    }
    let old = std::fs::read_to_string(&file).unwrap();
    bao.ok("POST", "auth/token/revoke", &json!({ "token": old.trim() }));
    for source in &sources {
        let why = denied(source, SECRET).await;
        assert!(why.contains("forbids") && !why.contains(old.trim()), "{why}");
    }
    bao.private("token", &token(&bao, "1h"));
    for source in &sources {
        assert_eq!(read(source, SECRET).await.unwrap().0, "canary-first");
    }
    rustix::fs::chmod(&file, rustix::fs::Mode::from_raw_mode(0o644)).unwrap();
    let why = denied(&by(&bao, HashicorpAuth::TokenFile(file.clone())), SECRET).await;
    assert!(why.contains("can be read by others"), "{why}");
    bao.private("token", "");
    let empty = read(&by(&bao, HashicorpAuth::TokenFile(file)), SECRET).await.unwrap_err();
    assert!(matches!(&empty, VaultError::Unusable(why) if why.contains("is empty")), "{empty}");
}

fn wrapped(auth: HashicorpAuth) -> HashicorpAuth {
    match auth {
        HashicorpAuth::AppRole { mount, role_id, secret_id_file, .. } => {
            HashicorpAuth::AppRole { mount, role_id, secret_id_file, wrapped: true }
        }
        other => other,
    }
}

/// Has the answer to a request wrapped.
fn wrap(bao: &OpenBao, namespace: &str, path: &str) -> String {
    // The API takes the time in a header; `sys/wrapping/wrap` would leave another path of origin.
    let said = bao.wrapped(namespace, path);
    said["wrap_info"]["token"].as_str().unwrap().into()
}

#[tokio::test]
#[ignore = "needs OpenBao"]
async fn a_wrapped_secret_id_is_unwrapped_once_and_a_tampered_one_is_an_alarm() {
    let bao = OpenBao::start();
    let role_id = bao.usual(&json!({}));
    bao.put("ado/web", &json!({ "pat": "canary-first" }));
    let made = "auth/approle/role/patgate/secret-id";
    let file = bao.private("secret-id", &wrap(&bao, "", made));
    let auth = wrapped(approle(&role_id, &file));
    let source = by(&bao, auth.clone());
    assert_eq!(read(&source, SECRET).await.unwrap().0, "canary-first");
    // The token of the login is gone, and the wrapping token too; what it gave is still known.
    bao.ok("POST", "sys/leases/revoke-prefix/auth/approle/login", &json!({}));
    assert_eq!(read(&source, SECRET).await.unwrap().0, "canary-first");

    // Another process finds it used, as would patgate if it had been stolen.
    let thief = by(&bao, auth.clone());
    assert!(denied(&thief, SECRET).await.contains("is not valid any more"));
    bao.private("secret-id", &wrap(&bao, "", made));
    assert_eq!(read(&thief, SECRET).await.unwrap().0, "canary-first");

    // Something else, wrapped for patgate: not even unwrapped.
    bao.ok("POST", "sys/auth/other", &json!({ "type": "approle" }));
    bao.ok("POST", "auth/other/role/patgate", &json!({}));
    let theirs = wrap(&bao, "", "auth/other/role/patgate/secret-id");
    bao.private("secret-id", &theirs);
    let source = by(&bao, auth);
    assert!(denied(&source, SECRET).await.contains("does not wrap a secret id of auth/approle"));
    assert_eq!(bao.call("POST", "sys/wrapping/unwrap", &theirs, "", &json!({})).0, 200, "it was left alone");
}

#[tokio::test]
#[ignore = "needs OpenBao"]
async fn everything_happens_in_the_namespace() {
    let bao = OpenBao::start();
    bao.ok("POST", "sys/namespaces/team", &json!({}));
    bao.ok_in("team", "POST", "sys/mounts/secret", &json!({ "type": "kv", "options": { "version": "2" } }));
    let rules = json!({ "policy": "path \"secret/data/ado/*\" { capabilities = [\"read\"] }" });
    bao.ok_in("team", "PUT", "sys/policies/acl/patgate", &rules);
    bao.ok_in("team", "POST", "sys/auth/approle", &json!({ "type": "approle" }));
    let role = json!({ "token_policies": ["patgate"], "token_ttl": "1h" });
    bao.ok_in("team", "POST", "auth/approle/role/patgate", &role);
    let role_id = bao.ok_in("team", "GET", "auth/approle/role/patgate/role-id", &Value::Null);
    let role_id = role_id["data"]["role_id"].as_str().unwrap();
    bao.ok_in("team", "POST", "secret/data/ado/web", &json!({ "data": { "pat": "canary-team" } }));
    let file = bao.private("secret-id", &wrap(&bao, "team", "auth/approle/role/patgate/secret-id"));
    let vault = vault(bao.tls(), &bao.path("ca.pem"), wrapped(approle(role_id, &file)));
    let outside = open(&vault);
    denied(&outside, SECRET).await;
    bao.private("secret-id", &wrap(&bao, "team", "auth/approle/role/patgate/secret-id"));
    let inside = open(&config::Hashicorp { namespace: Some("team".into()), ..vault });
    assert_eq!(read(&inside, SECRET).await.unwrap(), ("canary-team".into(), Some("1".into())));
}
