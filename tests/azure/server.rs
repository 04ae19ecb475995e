//! Speaks TLS and HTTP, and misbehaves as it is told.

use std::{
    convert::Infallible,
    net::TcpListener,
    sync::{Arc, Mutex, PoisonError},
};

use http::{Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt as _, Limited, StreamBody};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::json;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::{AUTHORITY, Behaviour, Body, Certificate, State, VAULT, documented, entra, text, vault, whole};

pub(super) fn tls(certificate: Certificate) -> (String, Arc<rustls::ServerConfig>) {
    let names = match certificate {
        Certificate::OfAnotherName => vec!["other.vault.azure.net".to_owned()],
        _ => vec![VAULT.to_owned(), AUTHORITY.to_owned()],
    };
    let mut authority = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
    authority.distinguished_name.push(rcgen::DnType::CommonName, "the stand-in's authority");
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let ca = authority.self_signed(&authority_key).unwrap().pem();
    let mut leaf = rcgen::CertificateParams::new(names).unwrap();
    if certificate == Certificate::Expired {
        leaf.not_before = rcgen::date_time_ymd(2020, 1, 1);
        leaf.not_after = rcgen::date_time_ymd(2020, 12, 31);
    }
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = leaf.signed_by(&key, &rcgen::Issuer::new(authority, authority_key)).unwrap();
    let chain = vec![CertificateDer::from(leaf.der().to_vec())];
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    (ca, Arc::new(config))
}

pub(super) async fn until(mut stopped: watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stop| *stop).await;
}

pub(super) async fn accept(
    listener: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    state: Arc<Mutex<State>>,
) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        let (state, tls) = (Arc::clone(&state), tls.clone());
        tokio::spawn(async move {
            let secure = tls.is_some();
            let service = service_fn(move |request| answer(Arc::clone(&state), request, secure));
            match tls {
                Some(tls) => {
                    let Ok(stream) = TlsAcceptor::from(tls).accept(stream).await else { return };
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                }
                None => {
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                }
            }
        });
    }
}

async fn answer(
    state: Arc<Mutex<State>>,
    request: Request<Incoming>,
    secure: bool,
) -> Result<Response<Body>, Infallible> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, 1 << 20)
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes)
        .unwrap_or_default();
    let host = text(&head.headers, "host").split(':').next().unwrap_or_default().to_owned();
    let lock = || state.lock().unwrap_or_else(PoisonError::into_inner);
    lock().seen.push(format!("{} {host} {}", head.method, head.uri.path()));
    let is_vault = secure && host == VAULT;
    let behaviour = if is_vault { lock().vault } else { lock().authority };
    match behaviour {
        Behaviour::Slow(time) => tokio::time::sleep(time).await,
        Behaviour::Hang => std::future::pending().await,
        _ => {}
    }
    let sound = {
        let mut state = lock();
        if is_vault {
            vault::answer(&mut state, &head, &body)
        } else if secure && host == AUTHORITY {
            entra::token(&mut state, &head, &body)
        } else if secure {
            documented(421, &json!({ "error": { "code": "Misdirected", "message": "who is that?" } }))
        } else {
            entra::metadata(&mut state, &head)
        }
    };
    // A challenge comes before all else.
    if sound.status() == StatusCode::UNAUTHORIZED && is_vault {
        return Ok(sound);
    }
    Ok(match behaviour {
        Behaviour::Status(status, code) => documented(
            status,
            &json!({ "error": {
                "code": "Forbidden", "message": "CANARYWORDS of the vault", "innererror": { "code": code }
            } }),
        ),
        Behaviour::Throttle(seconds) => {
            let mut throttled = documented(
                429,
                &json!({ "error": { "code": "Throttled", "message": "Request was not processed because too many \
                        requests were received. Reason: VaultRequestTypeLimitReached" } }),
            );
            throttled.headers_mut().insert(header::RETRY_AFTER, seconds.into());
            throttled
        }
        Behaviour::HalfABody => half(sound).await,
        Behaviour::WrongJson => {
            documented(200, &json!({ "id": 7, "value": ["CANARYVALUE"], "access_token": 1 }))
        }
        Behaviour::TenMegabytes => {
            Response::new(whole(format!("{{\"value\":\"{}\"}}", "x".repeat(10 << 20))))
        }
        Behaviour::Redirect => {
            let mut redirect = documented(302, &json!({}));
            redirect.headers_mut().insert(header::LOCATION, "https://evil.example/".parse().unwrap());
            redirect
        }
        _ => sound,
    })
}

/// The head as it was, half of the body, and the connection breaks.
async fn half(answer: Response<Body>) -> Response<Body> {
    let (mut head, body) = answer.into_parts();
    let whole = body.collect().await.unwrap().to_bytes();
    head.headers.insert(header::CONTENT_LENGTH, whole.len().into());
    let pieces =
        [Ok(Frame::data(whole.slice(..whole.len() / 2))), Err(std::io::ErrorKind::ConnectionReset.into())];
    let body = StreamBody::new(futures_util::stream::iter(pieces));
    Response::from_parts(head, body.boxed_unsync())
}
