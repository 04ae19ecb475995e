//! Whole requests through the pipeline, to a host that is scripted byte by byte.

use std::{convert::Infallible, os::unix::fs::PermissionsExt, path::Path, rc::Rc, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;
use tower::Service;

use super::{Body, Roots, Upstream, rig, rig::Rig};
use crate::{
    app::Snapshot,
    audit::{Audit, Lane},
    limits::Counts,
    listener::{Arrived, Passage, Peer},
    pipeline::{Answer, Parts, pipeline},
    refusal::Refused,
    vault::Vaults,
};

const OLD: &str = "the-old-token-of-contoso-canary-0000000000000000000";
const NEW: &str = "the-new-token-of-contoso-canary-1111111111111111111";

/// A patgate with one client, one credential, and a scripted Azure DevOps.
struct House {
    rig: Rig,
    folder: tempfile::TempDir,
    parts: Parts,
    lane: Rc<Lane>,
    snapshot: Arc<Snapshot>,
    audit: Audit,
}

impl House {
    async fn new() -> Self {
        let rig = Rig::new().await;
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        let ca =
            format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(&rig.ca));
        std::fs::write(at.join("ca.pem"), ca).unwrap();
        store(at, OLD);
        std::fs::write(
            at.join("patgate.toml"),
            format!(
                r#"
public-url = "http://127.0.0.1:8080"
[[listen]]
address = "127.0.0.1:8080"
[audit]
folder = "audit"
durability = "os"
[vault.files]
type = "file"
[credential.web]
vault = "files"
secret = "{secret}"
organizations = ["contoso"]
[client.here]
addresses = ["127.0.0.0/8"]
[[rule]]
name = "all"
clients = ["here"]
paths = ["/contoso/**"]
allow = ["GET", "HEAD", "POST", "DELETE", "git:fetch", "git:push"]
credential = "web"
[upstream]
addresses = {{ "dev.azure.com" = "{address}" }}
ca = "ca.pem"
"#,
                secret = at.join("pat").display(),
                address = rig.address(),
            ),
        )
        .unwrap();
        let snapshot = Snapshot::read(&at.join("patgate.toml"), 1).map_err(|p| p.to_string()).unwrap();
        let audit = Audit::open(&snapshot.config.audit, false).unwrap();
        let vaults =
            Vaults::open(&snapshot.config, audit.clone(), tokio::runtime::Handle::current()).unwrap();
        let vaults = Rc::new(vaults);
        let metrics = Arc::new(crate::metrics::Metrics::new("0"));
        let upstream =
            Rc::new(Upstream::new(Roots::of(Vec::new()), Rc::clone(&vaults), Arc::clone(&metrics)));
        let parts = Parts { counts: Arc::new(Counts::default()), vaults, upstream };
        let lane = audit.lane(&metrics);
        Self { rig, folder, parts, lane, snapshot: Arc::new(snapshot), audit }
    }

    /// A client's connection.
    fn client(&self) -> DuplexStream {
        self.client_of(pipeline(&self.parts))
    }

    /// A client's connection to another pipeline.
    fn client_of<P>(&self, pipeline: P) -> DuplexStream
    where
        P: Service<Arrived, Response = http::Response<Body>, Error = Infallible> + Clone + 'static,
        P::Future: 'static,
    {
        let (near, far) = duplex(1 << 20);
        let (lane, snapshot) = (Rc::clone(&self.lane), Arc::clone(&self.snapshot));
        let service = hyper::service::service_fn(move |request: http::Request<Incoming>| {
            let (head, body) = request.into_parts();
            let peer = Peer { address: ([127, 0, 0, 1], 4000).into() };
            let passage = Passage {
                entry: lane.entry(Some(peer.address)),
                peer,
                listen: Arc::clone(&snapshot.config.listeners[0]),
                snapshot: Arc::clone(&snapshot),
                share: None,
                lifeline: crate::listener::Lifeline::default(),
            };
            let answer = pipeline.clone().call(Arrived { head, body, passage });
            async move { Ok::<_, Infallible>(answer.await.unwrap()) }
        });
        tokio::task::spawn_local(
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(far), service),
        );
        near
    }

    /// Sends a request and reads all that comes back.
    async fn ask(&self, request: &str) -> String {
        let mut client = self.client();
        client.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// The records so far: intents, outcomes and refusals of requests.
    fn records(self) -> Vec<serde_json::Value> {
        let Self { folder, parts, lane, audit, .. } = self;
        drop((parts, lane));
        audit.close(Duration::from_secs(5));
        let mut all = Vec::new();
        gather(folder.path().join("audit").as_path(), &mut all);
        let text = String::from_utf8_lossy(&all).into_owned();
        for secret in [OLD, NEW] {
            assert!(!text.contains(secret) && !text.contains(&basic(secret)), "{text}");
        }
        text.match_indices("{\"v\":1,")
            .filter_map(|(at, _)| {
                serde_json::Deserializer::from_str(&text[at..]).into_iter::<serde_json::Value>().next()?.ok()
            })
            .filter(|record| {
                ["intent", "outcome", "refusal"].contains(&record["kind"].as_str().unwrap_or(""))
            })
            .collect()
    }
}

fn gather(folder: &Path, all: &mut Vec<u8>) {
    let mut entries: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for entry in entries {
        if entry.is_dir() {
            gather(&entry, all);
        } else {
            all.extend(std::fs::read(entry).unwrap());
        }
    }
}

fn store(folder: &Path, pat: &str) {
    let path = folder.join("pat");
    std::fs::write(&path, pat).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

fn basic(pat: &str) -> String {
    STANDARD.encode(format!(":{pat}"))
}

/// Answers the requests of one connection; yields their heads.
async fn script<const N: usize>(rig: &Rig, answers: [&str; N]) -> (Vec<String>, TlsStream<TcpStream>) {
    let mut stream = rig.accept().await.unwrap();
    let mut heads = Vec::new();
    for answer in answers {
        heads.push(rig::answer(&mut stream, answer).await);
    }
    (heads, stream)
}

const GET: &str = "GET /contoso/web/_apis/x HTTP/1.1\r\nhost: 127.0.0.1:8080\r\nconnection: close\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-vss-userdata: id:me@contoso.example\r\n\
                  x-vss-e2eid: abc\r\nset-cookie: a=b\r\n\r\nok";
const UNAUTHORIZED: &str =
    "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Basic realm=\"x\"\r\ncontent-length: 0\r\n\r\n";
const EXPIRED: &str = "HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\nx-tfs-serviceerror: \
                       Access%20Denied%3A%20The%20Personal%20Access%20Token%20used%20has%20expired.\r\n\r\n";
const SOMEBODY: &str = "HTTP/1.1 200 OK\r\ncontent-length: 58\r\n\r\n\
                        {\"authenticatedUser\":{\"id\":\"fb80544b-0000-4000-8000-00000\"}}";

fn kinds(records: &[serde_json::Value]) -> Vec<String> {
    records.iter().map(|record| record["kind"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_request_goes_up_with_the_credential_and_comes_back_without_a_trace_of_it() {
    rig::run(async {
        let house = House::new().await;
        let (answer, (heads, _stream)) = tokio::join!(house.ask(GET), script(&house.rig, [OK]));
        assert!(heads[0].starts_with("GET /contoso/web/_apis/x HTTP/1.1\r\n"), "{heads:?}");
        assert!(heads[0].contains(&format!("authorization: Basic {}\r\n", basic(OLD))), "{heads:?}");
        assert!(heads[0].contains("host: dev.azure.com\r\n"), "{heads:?}");
        assert!(heads[0].contains("x-tfs-fedauthredirect: Suppress\r\n"), "{heads:?}");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nok"), "{answer}");
        assert!(!answer.contains("me@contoso") && !answer.contains("cookie"), "{answer}");
        let records = house.records();
        assert_eq!(kinds(&records), ["intent", "outcome"], "{records:?}");
        let outcome = records[1].to_string();
        assert!(outcome.contains("me@contoso.example") && outcome.contains("abc"), "{outcome}");
    });
}

#[test]
fn an_expired_token_is_fetched_again_and_the_body_replayed() {
    rig::run(async {
        let house = House::new().await;
        let post = "POST /contoso/web/_apis/x HTTP/1.1\r\nhost: 127.0.0.1:8080\r\nconnection: close\r\n\
                    content-length: 4\r\n\r\nbody";
        let host = async {
            let mut stream = house.rig.accept().await.unwrap();
            let first = rig::read_until(&mut stream, "\r\n\r\nbody").await;
            store(house.folder.path(), NEW);
            stream.write_all(EXPIRED.as_bytes()).await.unwrap();
            // A connection ends with the token that it carried.
            let mut stream = house.rig.accept().await.unwrap();
            let second = rig::read_until(&mut stream, "\r\n\r\nbody").await;
            stream.write_all(OK.as_bytes()).await.unwrap();
            (first, second, stream)
        };
        let (answer, (first, second, _stream)) = tokio::join!(house.ask(post), host);
        assert!(first.contains(&basic(OLD)) && second.contains(&basic(NEW)), "{first}{second}");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        let records = house.records();
        assert_eq!(kinds(&records), ["intent", "intent", "outcome"], "{records:?}");
        assert_eq!(records[1]["purpose"], "retry", "{records:?}");
    });
}

#[test]
fn an_expired_token_without_another_is_told_as_a_failed_dependency() {
    rig::run(async {
        let house = House::new().await;
        let (answer, _) = tokio::join!(house.ask(GET), script(&house.rig, [EXPIRED]));
        assert!(answer.starts_with("HTTP/1.1 424 "), "{answer}");
        assert!(answer.contains("credential-rejected") && !answer.contains("expired."), "{answer}");
        let records = house.records();
        assert_eq!(kinds(&records), ["intent", "outcome"], "{records:?}");
    });
}

#[test]
fn a_401_of_a_living_token_is_a_missing_scope() {
    rig::run(async {
        let house = House::new().await;
        let host = async {
            let (_, first) = script(&house.rig, [UNAUTHORIZED]).await;
            let somebody = SOMEBODY.replace("58", &length(SOMEBODY));
            let (heads, second) = script(&house.rig, [&*somebody]).await;
            (heads, first, second)
        };
        let (answer, (heads, ..)) = tokio::join!(house.ask(GET), host);
        assert!(heads[0].starts_with("GET /contoso/_apis/connectionData HTTP/1.1\r\n"), "{heads:?}");
        assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("scope-missing"), "{answer}");
        assert!(!answer.to_lowercase().contains("www-authenticate"), "{answer}");
        let records = house.records();
        assert_eq!(kinds(&records), ["intent", "intent", "outcome"], "{records:?}");
        assert_eq!(records[1]["purpose"], "probe", "{records:?}");
    });
}

fn length(answer: &str) -> String {
    answer.split_once("\r\n\r\n").unwrap().1.len().to_string()
}

#[test]
fn a_probe_that_fails_too_condemns_the_token() {
    rig::run(async {
        let house = House::new().await;
        let host = async {
            let (_, first) = script(&house.rig, [UNAUTHORIZED]).await;
            (first, script(&house.rig, [UNAUTHORIZED]).await)
        };
        let (answer, _) = tokio::join!(house.ask(GET), host);
        assert!(answer.starts_with("HTTP/1.1 424 "), "{answer}");
        // From now on nothing is sent with it.
        let answer = house.ask(GET).await;
        assert!(answer.starts_with("HTTP/1.1 424 "), "{answer}");
    });
}

#[test]
fn an_answer_that_holds_the_credential_up_is_withheld() {
    rig::run(async {
        let house = House::new().await;
        let echo =
            format!("HTTP/1.1 200 OK\r\netag: \"Basic {}\"\r\ncontent-length: 2\r\n\r\nok", basic(OLD));
        let (answer, _) = tokio::join!(house.ask(GET), script(&house.rig, [&*echo]));
        assert!(answer.starts_with("HTTP/1.1 502 ") && answer.contains("upstream-withheld"), "{answer}");
        assert!(!answer.contains(&basic(OLD)), "{answer}");
    });
}

#[test]
fn a_credential_held_up_in_what_is_only_recorded_reaches_no_record() {
    let percent = OLD.bytes().fold(String::new(), |text, byte| text + &format!("%{byte:02x}"));
    let far = "x".repeat(100);
    for (status, field, answers) in [
        ("401 Unauthorized", format!("x-tfs-serviceerror: {percent}"), 1),
        ("401 Unauthorized", format!("x-tfs-serviceerror: {far}{far}{far}%2f{OLD}"), 1),
        ("203 Non-Authoritative", format!("content-type: text/html\r\nx-tfs-serviceerror: {percent}"), 1),
        ("302 Found", format!("location: https://login.live.com/?{OLD}"), 1),
        ("200 OK", format!("x-vss-userdata: {far}{OLD}"), 1),
        ("200 OK", format!("activityid: {percent}"), 1),
        ("200 OK", format!("location: https://evil.example/?sig={percent}"), 1),
    ] {
        rig::run(async {
            let house = House::new().await;
            let echo = format!("HTTP/1.1 {status}\r\n{field}\r\ncontent-length: 0\r\n\r\n");
            let (answer, (heads, _)) = tokio::join!(house.ask(GET), script(&house.rig, [&*echo]));
            assert!(answer.starts_with("HTTP/1.1 502 ") && answer.contains("upstream-withheld"), "{answer}");
            assert!(!answer.contains(&percent) && !answer.contains(OLD), "{answer}");
            assert_eq!(heads.len(), answers, "{field}");
            // Asserts that neither form stands in the audit; parts would be as bad.
            let records = format!("{:?}", house.records());
            assert!(!records.contains(&OLD[..16]) && !records.contains(&percent[..48]), "{records}");
        });
    }
}

#[test]
fn a_client_can_not_have_a_credential_condemned_by_what_it_asks_for() {
    rig::run(async {
        let house = House::new().await;
        let quoted = "HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\nx-tfs-serviceerror: TF400813%3A%20project%20%27\
                      The%20Personal%20Access%20Token%20used%20has%20expired.%27%20is%20not%20yours.\r\n\r\n";
        let host = async {
            let (_, first) = script(&house.rig, [quoted]).await;
            // The probe clears the token.
            let somebody = SOMEBODY.replace("58", &length(SOMEBODY));
            let (_, second) = script(&house.rig, [&*somebody]).await;
            (first, second)
        };
        let (answer, _streams) = tokio::join!(house.ask(GET), host);
        assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("scope-missing"), "{answer}");
    });
}

#[test]
fn a_panic_in_a_step_is_an_answer_that_tells_nothing_and_a_record() {
    rig::run(async {
        let house = House::new().await;
        let panics = Answer(tower::util::service_fn(|arrived: Arrived| async move {
            assert_eq!(arrived.head.uri.path(), "/sound", "while {OLD} was in hand");
            Err::<http::Response<Body>, _>(Refused::new(
                crate::refusal::Refusal::NoRule,
                crate::gate::Wire::Api,
                None,
                arrived.passage.entry,
            ))
        }));
        let mut client = house.client_of(panics);
        let sound = "GET /sound HTTP/1.1\r\nhost: 127.0.0.1:8080\r\nconnection: close\r\n\r\n";
        let first = "GET / HTTP/1.1\r\nhost: 127.0.0.1:8080\r\n\r\n";
        client.write_all(format!("{first}{sound}").as_bytes()).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 500 ") && answer.contains("HTTP/1.1 403 "), "{answer}");
        assert!(!answer.contains(OLD), "{answer}");
        let records = house.records();
        assert_eq!(records.len(), 2, "{records:?}");
        assert_eq!((&records[0]["ending"], &records[1]["refusal"]), (&"panic".into(), &"no-rule".into()));
    });
}

#[test]
fn a_redirect_comes_back_to_patgate() {
    rig::run(async {
        let house = House::new().await;
        let redirect =
            "HTTP/1.1 302 Found\r\nlocation: https://dev.azure.com/contoso/y\r\ncontent-length: 0\r\n\r\n";
        let (answer, _) = tokio::join!(house.ask(GET), script(&house.rig, [redirect]));
        assert!(answer.contains("location: http://127.0.0.1:8080/contoso/y\r\n"), "{answer}");
    });
}

#[test]
fn an_answer_cut_short_cuts_the_client() {
    rig::run(async {
        let house = House::new().await;
        let cut = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n";
        let host = async { drop(script(&house.rig, [cut]).await) };
        let (answer, ()) = tokio::join!(house.ask(GET), host);
        assert!(answer.ends_with("half\r\n") || !answer.contains("half"), "{answer}");
        let records = house.records();
        assert!(records.last().unwrap().to_string().contains("upstream-gone"), "{records:?}");
    });
}

#[test]
fn a_get_that_meets_a_dying_connection_is_sent_again_under_its_own_intent() {
    rig::run(async {
        let house = House::new().await;
        let host = async {
            let (_, mut first) = script(&house.rig, [OK]).await;
            // The second request on it is read, and never answered.
            rig::read_until(&mut first, "\r\n\r\n").await;
            drop(first);
            script(&house.rig, [OK]).await
        };
        let client = async {
            let first = house.ask(GET).await;
            (first, house.ask(GET).await)
        };
        let ((first, second), _) = tokio::join!(client, host);
        assert!(first.ends_with("ok") && second.ends_with("ok"), "{first}{second}");
        let records = house.records();
        assert_eq!(kinds(&records), ["intent", "outcome", "intent", "intent", "outcome"], "{records:?}");
    });
}

#[test]
fn an_answer_to_head_keeps_its_length_and_the_connection_serves_on() {
    rig::run(async {
        let house = House::new().await;
        let head = GET.replace("GET", "HEAD");
        let long = "HTTP/1.1 200 OK\r\ncontent-length: 1234\r\n\r\n";
        let client = async { (house.ask(&head).await, house.ask(GET).await) };
        let ((head, get), _) = tokio::join!(client, script(&house.rig, [long, OK]));
        assert!(head.contains("content-length: 1234\r\n") && head.ends_with("\r\n\r\n"), "{head}");
        assert!(get.ends_with("\r\n\r\nok"), "{get}");
        let records = house.records();
        assert_eq!(kinds(&records), ["intent", "outcome", "intent", "outcome"], "{records:?}");
    });
}

#[test]
fn a_vanished_client_is_on_record_and_azure_devops_is_cut_off() {
    rig::run(async {
        let house = House::new().await;
        let begun = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n";
        let client = async {
            let mut client = house.client();
            client.write_all(GET.as_bytes()).await.unwrap();
            rig::read_until(&mut client, "half").await;
        };
        let ((), (_, mut stream)) = tokio::join!(client, script(&house.rig, [begun]));
        assert!(stream.read_to_end(&mut Vec::new()).await.is_err(), "not cut");
        let records = house.records();
        assert!(records.last().unwrap().to_string().contains("client-gone"), "{records:?}");
        assert_eq!(records.last().unwrap()["bytes-out"], 4, "{records:?}");
    });
}

fn disable(house: &House, cut: bool) {
    let since = jiff::Timestamp::UNIX_EPOCH;
    let disabled = crate::state::Disabled { since, by: "root".into(), reason: "it leaked".into(), cut };
    house.parts.vaults.standing().set(&[("web".into(), disabled)].into());
}

#[test]
fn a_disabled_credential_is_refused_before_an_intent_is_written() {
    rig::run(async {
        let house = House::new().await;
        disable(&house, false);
        let answer = house.ask(GET).await;
        assert!(answer.starts_with("HTTP/1.1 424 ") && answer.contains("credential-disabled"), "{answer}");
        assert!(!answer.contains("it leaked"), "{answer}");
        let records = house.records();
        assert_eq!(kinds(&records), ["refusal"], "{records:?}");
        assert_eq!((&records[0]["credential"], &records[0]["rule"]), (&"web".into(), &"all".into()));
        assert!(records[0]["detail"].as_str().unwrap().contains("it leaked"), "{records:?}");
    });
}

#[test]
fn a_request_that_is_cut_before_its_answer_is_told_so_and_its_connection_closed() {
    rig::run(async {
        let post = "POST /contoso/web/_apis/x HTTP/1.1\r\nhost: 127.0.0.1:8080\r\nconnection: close\r\n\
                    content-length: 4\r\n\r\nbody";
        for (request, end) in [(GET, "\r\n\r\n"), (post, "\r\n\r\nbody")] {
            let house = House::new().await;
            let host = async {
                let mut stream = house.rig.accept().await.unwrap();
                rig::read_until(&mut stream, end).await;
                disable(&house, true);
                stream.read_to_end(&mut Vec::new()).await.is_err()
            };
            let (answer, cut) = tokio::join!(house.ask(request), host);
            assert!(cut, "the connection to the host was not cut");
            assert!(
                answer.starts_with("HTTP/1.1 424 ") && answer.contains("credential-disabled"),
                "{answer}"
            );
            let records = house.records();
            assert_eq!(kinds(&records), ["intent", "outcome"], "{records:?}");
            assert_eq!(records[1]["refusal"], "credential-disabled", "{records:?}");
        }
    });
}

#[test]
fn without_a_cut_what_is_under_way_goes_on() {
    rig::run(async {
        let house = House::new().await;
        let host = async {
            let mut stream = house.rig.accept().await.unwrap();
            rig::read_until(&mut stream, "\r\n\r\n").await;
            disable(&house, false);
            stream.write_all(OK.as_bytes()).await.unwrap();
            stream
        };
        let (answer, _stream) = tokio::join!(house.ask(GET), host);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    });
}

#[test]
fn a_credential_that_is_disabled_meanwhile_is_not_taken_for_another_attempt() {
    rig::run(async {
        let house = House::new().await;
        let host = async {
            let mut stream = house.rig.accept().await.unwrap();
            rig::read_until(&mut stream, "\r\n\r\n").await;
            store(house.folder.path(), NEW);
            disable(&house, false);
            stream.write_all(EXPIRED.as_bytes()).await.unwrap();
            stream
        };
        let (answer, _stream) = tokio::join!(house.ask(GET), host);
        assert!(answer.starts_with("HTTP/1.1 424 ") && answer.contains("credential-disabled"), "{answer}");
    });
}
