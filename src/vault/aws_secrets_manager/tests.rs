//! Against a server that answers as it is told to.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use aws_credential_types::Credentials;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::config::{Outbound, Trust};

/// What a server does with a request.
enum Act {
    Answer(u16, String),
    /// These bytes, and the end of the connection.
    Raw(Vec<u8>),
    Hang,
}

fn secret(name: &str) -> Value {
    json!({ "ARN": format!("arn:aws:secretsmanager:eu-west-1:123456789012:secret:{name}-AbCdEf"), "Name": name,
        "VersionId": "v1", "VersionStages": ["AWSCURRENT"], "SecretString": format!("token-{name}") })
}

fn refusal(code: &str) -> Act {
    Act::Answer(400, json!({ "__type": code, "message": "words" }).to_string())
}

/// The action and the body of each request, in order.
type Seen = Arc<Mutex<Vec<(String, Value)>>>;

async fn serve(
    act: impl Fn(usize, &str, &Value) -> Act + Send + Sync + 'static,
) -> (AwsSecretsManager, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let seen = Seen::default();
    let (act, log, count) = (Arc::new(act), Arc::clone(&seen), Arc::new(AtomicUsize::new(0)));
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let (act, log, count) = (Arc::clone(&act), Arc::clone(&log), Arc::clone(&count));
            tokio::spawn(async move {
                while let Some((action, body)) = request(&mut socket).await {
                    log.lock().unwrap().push((action.clone(), body.clone()));
                    match act(count.fetch_add(1, Ordering::Relaxed), &action, &body) {
                        Act::Answer(status, body) => {
                            let head = format!(
                                "HTTP/1.1 {status} X\r\ncontent-type: application/x-amz-json-1.1\r\n\
                                 content-length: {}\r\n\r\n",
                                body.len()
                            );
                            let _ = socket.write_all(format!("{head}{body}").as_bytes()).await;
                        }
                        Act::Raw(bytes) => {
                            let _ = socket.write_all(&bytes).await;
                            return;
                        }
                        Act::Hang => std::future::pending().await,
                    }
                }
            });
        }
    });
    (source(&url), seen)
}

async fn request(socket: &mut TcpStream) -> Option<(String, Value)> {
    let mut bytes = Vec::new();
    loop {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        if let Some(end) = end {
            let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
            let field = |name: &str| {
                let is = |line: &&str| line.split(':').next().unwrap().eq_ignore_ascii_case(name);
                head.lines().find(is).unwrap().split_once(':').unwrap().1.trim().to_owned()
            };
            let length: usize = field("content-length").parse().unwrap();
            if bytes.len() >= end + 4 + length {
                let action = field("x-amz-target").replace("secretsmanager.", "");
                return Some((action, serde_json::from_slice(&bytes[end + 4..]).unwrap()));
            }
        }
        let mut piece = [0; 4096];
        let read = socket.read(&mut piece).await.ok().filter(|read| *read > 0)?;
        bytes.extend_from_slice(&piece[..read]);
    }
}

fn vault(url: &str) -> config::AwsSecretsManager {
    config::AwsSecretsManager {
        region: "eu-west-1".into(),
        endpoint: Some(url.into()),
        sts_endpoint: Some(url.into()),
        trust: Trust::default(),
        assume_role: None,
        external_id: None,
        profile: None,
    }
}

fn source(url: &str) -> AwsSecretsManager {
    let vault = vault(url);
    let way = Way::new(&vault, &Outbound::default()).unwrap();
    let identity = Credentials::new("AKIATEST", "canary-of-aws", None, None, "test");
    AwsSecretsManager::with(&vault, &way, SharedCredentialsProvider::new(identity))
}

fn actions(seen: &Seen) -> Vec<String> {
    seen.lock().unwrap().iter().map(|(action, _)| action.clone()).collect()
}

async fn read(source: &AwsSecretsManager, name: &str) -> Result<String, String> {
    let fetched = source.fetch(name).await.map_err(|error| error.to_string())?;
    Ok(exposed(&fetched.value).to_owned())
}

#[tokio::test]
async fn silence_is_told_apart_from_an_answer_and_asked_once_more_at_most() {
    let half = b"HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\n{\"SecretString\":\"canary".to_vec();
    let huge = format!("{{\"SecretString\":\"{}\"}}", "canary".repeat(500_000));
    let cases: Vec<(Act, &str, usize)> = vec![
        (refusal("ThrottlingException"), "unavailable", 2),
        (refusal("InternalServiceError"), "unavailable", 1),
        (Act::Answer(500, "<html>canary</html>".into()), "unavailable", 2),
        (Act::Answer(503, String::new()), "unavailable", 2),
        (Act::Answer(429, String::new()), "unavailable", 1),
        (Act::Raw(half), "unavailable", 2),
        (Act::Raw(b"canary\r\n\r\n".to_vec()), "unavailable", 2),
        (Act::Raw(Vec::new()), "unavailable", 2),
        (Act::Answer(200, "canary".into()), "unavailable", 1),
        (Act::Answer(200, "[\"canary\"]".into()), "unavailable", 1),
        (Act::Answer(200, huge), "unavailable", 2),
        (Act::Answer(302, String::new()), "unavailable", 1),
        (refusal("UnrecognizedClientException"), "unavailable", 1),
        (refusal("ExpiredTokenException"), "unavailable", 2),
        (refusal("ResourceNotFoundException"), "denied", 1),
        (refusal("AccessDeniedException"), "denied", 1),
        (refusal("InvalidRequestException"), "denied", 1),
        (refusal("DecryptionFailure"), "denied", 1),
        (Act::Answer(403, String::new()), "denied", 1),
        (Act::Answer(404, String::new()), "denied", 1),
        (Act::Answer(200, "{}".into()), "unavailable", 1),
        (Act::Answer(200, "{\"data\":\"canary\"}".into()), "unavailable", 1),
        (Act::Answer(200, "{\"ARN\":\"arn:aws:canary\"}".into()), "unusable", 1),
    ];
    for (n, (act, verdict, most)) in cases.into_iter().enumerate() {
        let (source, seen) = serve(move |_, _, _| match &act {
            Act::Answer(status, body) => Act::Answer(*status, body.clone()),
            Act::Raw(bytes) => Act::Raw(bytes.clone()),
            Act::Hang => Act::Hang,
        })
        .await;
        let error = source.fetch("web").await.err().unwrap();
        let got = match &error {
            VaultError::Unavailable(_) => "unavailable",
            VaultError::Denied(_) => "denied",
            VaultError::Unusable(_) => "unusable",
        };
        assert_eq!(got, verdict, "{n}: {error}");
        assert!(!error.to_string().contains("canary"), "{n}: {error}");
        assert!(actions(&seen).len() <= most, "{n}: {error}: {:?}", actions(&seen));
    }
}

#[tokio::test]
async fn a_vault_that_hangs_can_be_left_and_asked_again() {
    let (source, _) =
        serve(|n, _, _| if n == 0 { Act::Hang } else { Act::Answer(200, secret("web").to_string()) }).await;
    let left = tokio::time::timeout(Duration::from_millis(200), source.fetch("web")).await;
    assert!(left.is_err());
    assert_eq!(read(&source, "web").await.as_deref(), Ok("token-web"));
}

#[tokio::test]
async fn reads_of_one_moment_are_one_request_and_each_has_its_own_answer() {
    let (source, seen) = serve(|_, action, _| {
        assert_eq!(action, "BatchGetSecretValue");
        let errors =
            json!([{ "SecretId": "gone", "ErrorCode": "ResourceNotFoundException", "Message": "words" }]);
        let values = [secret("a"), secret("b")];
        Act::Answer(200, json!({ "SecretValues": values, "Errors": errors }).to_string())
    })
    .await;
    let arn = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:b";
    let names = ["a", arn, "gone", "a", "a#field"];
    let read = join_all(names.iter().map(|name| read(&source, name))).await;
    assert_eq!(read[0].as_deref(), Ok("token-a"));
    assert_eq!(read[1].as_deref(), Ok("token-b"));
    assert!(read[2].as_ref().unwrap_err().contains("ResourceNotFoundException"), "{read:?}");
    assert_eq!(read[3].as_deref(), Ok("token-a"));
    assert!(read[4].as_ref().unwrap_err().contains("no JSON object"), "{read:?}");
    assert_eq!(seen.lock().unwrap().len(), 1);
    assert_eq!(seen.lock().unwrap()[0].1, json!({ "SecretIdList": ["a", arn, "gone"] }));
}

#[tokio::test]
async fn a_request_asks_for_twenty_secrets_at_most() {
    let (source, seen) = serve(|_, _, body| {
        let ids = body["SecretIdList"].as_array().unwrap();
        let values: Vec<_> = ids.iter().map(|id| secret(id.as_str().unwrap())).collect();
        Act::Answer(200, json!({ "SecretValues": values }).to_string())
    })
    .await;
    let names: Vec<String> = (0..64).map(|n| format!("web-{n}")).collect();
    let read = join_all(names.iter().map(|name| read(&source, name))).await;
    for (name, read) in names.iter().zip(read) {
        assert_eq!(read, Ok(format!("token-{name}")));
    }
    assert_eq!(seen.lock().unwrap().len(), 4);
}

#[tokio::test]
async fn where_a_batch_is_forbidden_secrets_are_read_one_by_one_from_then_on() {
    let (source, seen) = serve(|_, action, body| match action {
        "BatchGetSecretValue" => refusal("AccessDeniedException"),
        _ => Act::Answer(200, secret(body["SecretId"].as_str().unwrap()).to_string()),
    })
    .await;
    for _ in 0..2 {
        let (a, b) = tokio::join!(read(&source, "a"), read(&source, "b"));
        assert_eq!((a.as_deref(), b.as_deref()), (Ok("token-a"), Ok("token-b")));
    }
    let singles = ["GetSecretValue"; 4];
    assert_eq!(actions(&seen), [&["BatchGetSecretValue"], &singles[..]].concat());
    for (action, body) in seen.lock().unwrap().iter().filter(|(action, _)| action == "GetSecretValue") {
        assert_eq!(body["VersionStage"], "AWSCURRENT", "{action} {body}");
    }
}

#[tokio::test]
async fn a_batch_that_is_throttled_is_not_taken_apart() {
    let (source, seen) = serve(|_, _, _| refusal("ThrottlingException")).await;
    let (a, b) = tokio::join!(read(&source, "a"), read(&source, "b"));
    assert!(a.unwrap_err().contains("ThrottlingException") && b.is_err());
    assert!(actions(&seen).iter().all(|action| action == "BatchGetSecretValue"), "{:?}", actions(&seen));
}

#[tokio::test]
async fn who_waits_for_the_same_answer_does_not_depend_on_the_first_who_asked() {
    let (source, _) =
        serve(|_, _, _| Act::Answer(200, json!({ "SecretValues": [secret("a"), secret("b")] }).to_string()))
            .await;
    let mut first = Box::pin(source.fetch("a"));
    assert!((&mut first).now_or_never().is_none());
    let mut second = Box::pin(source.fetch("b"));
    assert!((&mut second).now_or_never().is_none());
    drop(first);
    assert_eq!(exposed(&second.await.unwrap().value), "token-b");
}

#[tokio::test]
async fn a_write_whose_answer_was_lost_is_sent_with_the_same_token() {
    let (source, seen) = serve(|_, action, _| match action {
        "GetSecretValue" => Act::Answer(200, secret("web").to_string()),
        _ => Act::Raw(Vec::new()),
    })
    .await;
    for _ in 0..2 {
        assert!(source.write("web", &SecretString::from("token-new")).await.is_err());
    }
    let seen = seen.lock().unwrap();
    let puts: Vec<_> =
        seen.iter().filter(|(action, _)| action == "PutSecretValue").map(|(_, body)| body).collect();
    assert!(puts.len() >= 2);
    for put in &puts {
        assert_eq!(put["ClientRequestToken"], puts[0]["ClientRequestToken"]);
        assert_eq!(put["SecretString"], "token-new");
    }
}

#[tokio::test]
async fn a_refused_write_does_not_quote_the_value() {
    let (source, _) = serve(|_, action, _| match action {
        "GetSecretValue" => Act::Answer(200, secret("web").to_string()),
        _ => Act::Answer(
            400,
            json!({ "__type": "ValidationException", "message": "'canary' is too long" }).to_string(),
        ),
    })
    .await;
    let error = source.write("web", &SecretString::from("canary")).await.unwrap_err();
    assert!(matches!(error, VaultError::Denied(_)) && !error.to_string().contains("canary"), "{error}");
}

#[test]
fn each_partition_has_its_own_endpoints() {
    for (region, secrets, sts) in [
        ("eu-west-1", "secretsmanager.eu-west-1.amazonaws.com", "sts.eu-west-1.amazonaws.com"),
        ("us-gov-west-1", "secretsmanager.us-gov-west-1.amazonaws.com", "sts.us-gov-west-1.amazonaws.com"),
        ("cn-north-1", "secretsmanager.cn-north-1.amazonaws.com.cn", "sts.cn-north-1.amazonaws.com.cn"),
        ("us-iso-east-1", "secretsmanager.us-iso-east-1.c2s.ic.gov", "sts.us-iso-east-1.c2s.ic.gov"),
    ] {
        assert_eq!(standard_secrets(region).as_deref(), Some(&*format!("https://{secrets}")));
        assert_eq!(standard_sts(region).as_deref(), Some(&*format!("https://{sts}")));
    }
}

#[test]
fn a_request_token_is_of_all_it_is_about() {
    let token = request_token("web", "v1", "value");
    assert_eq!(token.len(), 64);
    assert_eq!(token, request_token("web", "v1", "value"));
    for other in [("we", "bv1", "value"), ("web", "v2", "value"), ("web", "v1", "other")] {
        assert_ne!(token, request_token(other.0, other.1, other.2));
    }
}

#[tokio::test]
async fn the_company_proxy_is_asked_for_the_endpoint_and_its_refusal_is_silence() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = listener.local_addr().unwrap().to_string();
    let outbound = Outbound { proxy: Some(proxy.parse().unwrap()), no_proxy: Vec::new() };
    let vault =
        config::AwsSecretsManager { endpoint: None, sts_endpoint: None, ..vault("http://127.0.0.1:1") };
    let way = Way::new(&vault, &outbound).unwrap();
    let identity = Credentials::new("AKIATEST", "canary-of-aws", None, None, "test");
    let source = AwsSecretsManager::with(&vault, &way, SharedCredentialsProvider::new(identity));
    let answer = async {
        let mut heads = Vec::new();
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut head = [0; 1024];
            let read = socket.read(&mut head).await.unwrap();
            heads.push(String::from_utf8_lossy(&head[..read]).into_owned());
            socket.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            if heads.len() == 2 {
                return heads;
            }
        }
    };
    let (error, heads) = tokio::join!(source.fetch("web"), answer);
    let error = error.err().unwrap();
    assert!(matches!(error, VaultError::Unavailable(_)), "{error}");
    for head in heads {
        assert!(
            head.starts_with("CONNECT secretsmanager.eu-west-1.amazonaws.com:443 HTTP/1.1\r\n"),
            "{head}"
        );
    }
}
