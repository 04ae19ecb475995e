//! The way to vaults that speak HTTP, and the only place where a client for them is made.
//!
//! What comes in: where the configuration lets such a client go. What goes out: a client that follows no redirect,
//! reads nothing from the environment, and believes the vault's own authority or the platform's, over TLS 1.2 at
//! least. It must never keep an answer of unbounded size.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use http::StatusCode;
use reqwest::{Client, NoProxy, Proxy, Response, redirect};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer},
};
use zeroize::Zeroizing;

use super::VaultError;
use crate::{
    config::{Outbound, Trust},
    upstream::Roots,
};

/// For a connection, its TLS included.
const CONNECT: Duration = Duration::from_secs(5);

/// The most that is read of an answer, in bytes.
pub(crate) const ANSWER: usize = 1024 * 1024;

/// Whom a vault is to believe, where it asks for a certificate.
pub(crate) type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// Makes a client. `addresses` changes where a host is reached, never what it is called; a host that stands there is
/// reached without the proxy.
///
/// # Errors
/// What rustls or the client do not accept, as a sentence.
pub(crate) fn client(
    outbound: &Outbound,
    trust: &Trust,
    addresses: &BTreeMap<Arc<str>, SocketAddr>,
    identity: Option<Identity>,
) -> Result<Client, String> {
    #[expect(clippy::disallowed_methods, reason = "the one place")]
    let mut builder = Client::builder()
        .tls_backend_preconfigured(tls(trust, identity)?)
        .redirect(redirect::Policy::none())
        .referer(false)
        .retry(reqwest::retry::never())
        .no_proxy()
        .http1_only()
        .pool_idle_timeout(Duration::from_secs(30))
        .pool_max_idle_per_host(4)
        .connect_timeout(CONNECT);
    if let Some(proxy) = &outbound.proxy {
        let direct = outbound.no_proxy.iter().chain(addresses.keys());
        let direct: Vec<&str> = direct.map(|host| &**host).collect();
        let proxy = Proxy::all(format!("http://{proxy}"))
            .map_err(|_| "the proxy of [outbound] is no address".to_owned())?;
        builder = builder.proxy(proxy.no_proxy(NoProxy::from_string(&direct.join(","))));
    }
    for (host, address) in addresses {
        builder = builder.resolve(host, *address);
    }
    builder.build().map_err(|error| format!("its HTTP client can't be set up: {error}"))
}

/// How a vault is believed. Its own authority, where it has one, is the only one.
///
/// # Errors
/// As [`client`].
pub(crate) fn tls(trust: &Trust, identity: Option<Identity>) -> Result<ClientConfig, String> {
    let store = match &trust.ca {
        Some((_, certificates)) => {
            let mut store = RootCertStore::empty();
            store.add_parsable_certificates(certificates.iter().cloned());
            Arc::new(store)
        }
        None => Roots::load().store(),
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|error| format!("its TLS can't be set up: {error}"))?
        .with_root_certificates(store);
    match identity {
        None => Ok(builder.with_no_client_auth()),
        Some((certificates, key)) => builder
            .with_client_auth_cert(certificates, key)
            .map_err(|error| format!("its certificate and key can't be used: {error}")),
    }
}

/// Reads an answer's body.
///
/// # Errors
/// It breaks off, or is longer than `cap` bytes.
pub(crate) async fn body(mut response: Response, cap: usize) -> Result<Zeroizing<Vec<u8>>, VaultError> {
    let mut whole = Zeroizing::new(Vec::with_capacity(16 * 1024));
    while let Some(piece) = response.chunk().await.map_err(|error| silence(&error))? {
        if whole.len() + piece.len() > cap {
            return Err(VaultError::Unavailable(
                format!("its answer is longer than {} KiB", cap / 1024).into(),
            ));
        }
        if whole.len() + piece.len() > whole.capacity() {
            // A buffer that grows by itself leaves a copy behind.
            let mut larger =
                Zeroizing::new(Vec::with_capacity((whole.capacity() * 2 + piece.len()).min(cap)));
            larger.extend_from_slice(&whole);
            whole = larger;
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole)
}

/// What a request that brought no answer means. The text names neither URL nor header.
pub(crate) fn silence(error: &reqwest::Error) -> VaultError {
    let mut why = if error.is_timeout() {
        "it took too long".to_owned()
    } else if error.is_connect() {
        "no connection".to_owned()
    } else {
        "the connection broke off".to_owned()
    };
    // The innermost cause says what the operator needs: refused, unknown name, a certificate that is not right.
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    if !std::ptr::addr_eq(std::ptr::from_ref(cause), std::ptr::from_ref(error)) {
        why = format!("{why} ({cause})");
    }
    VaultError::Unavailable(why.into())
}

/// What a status other than success means, where the vault's own words do not say better.
pub(crate) fn failure(status: StatusCode) -> VaultError {
    let text = format!("it answered {status}").into();
    match status {
        StatusCode::UNAUTHORIZED
        | StatusCode::FORBIDDEN
        | StatusCode::NOT_FOUND
        | StatusCode::GONE
        | StatusCode::BAD_REQUEST => VaultError::Denied(text),
        _ => VaultError::Unavailable(text),
    }
}
