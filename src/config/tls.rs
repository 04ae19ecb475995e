//! Certificates and keys: read as a pair, proved to belong together, and in date.

use std::{path::Path, sync::Arc, time::UNIX_EPOCH};

use rustls::{
    ServerConfig,
    crypto::{KeyProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::{CertifiedKey, SingleCertAndKey},
};
use x509_parser::{certificate::X509Certificate, prelude::FromDer, time::ASN1Time};

use super::{
    ListenTls,
    disk::{self, Base},
    parse::Item,
};
use crate::clock;

/// A certificate that ends sooner is worth a warning.
const SOON: i64 = 14 * 24 * 60 * 60;

/// Reads what `certificate` and `key` of a listener name.
pub(super) fn listener(
    certificate: &Item<'_>,
    key: &Item<'_>,
    http2: bool,
    base: &Base,
) -> Option<ListenTls> {
    let chain = chain(certificate, base);
    let private = private_key(key, base);
    let ((certificate_path, chain), (key_path, private)) = (chain?, private?);
    for der in &chain {
        in_date(certificate, der, &certificate_path, true);
    }
    let server = key.check(server(chain, private, http2, &certificate_path, &key_path))?;
    Some(ListenTls { certificate: certificate_path, key: key_path, server: Arc::new(server) })
}

/// Reads what patgate shows of itself: the chain, and the file of its key, which is proved to belong to it.
pub(super) fn identity(
    certificate: &Item<'_>,
    key: &Item<'_>,
    base: &Base,
) -> Option<(Vec<CertificateDer<'static>>, std::path::PathBuf)> {
    let chain = chain(certificate, base);
    let private = private_key(key, base);
    let ((certificate_path, chain), (key_path, private)) = (chain?, private?);
    for der in &chain {
        in_date(certificate, der, &certificate_path, true);
    }
    let pair = pair(aws_lc_rs::default_provider().key_provider, chain, private, &certificate_path, &key_path);
    Some((key.check(pair)?.cert, key_path))
}

/// Reads the certificates of a CA file.
pub(super) fn authorities(
    item: &Item<'_>,
    base: &Base,
) -> Option<(std::path::PathBuf, Vec<CertificateDer<'static>>)> {
    let (path, certificates) = chain(item, base)?;
    for der in &certificates {
        in_date(item, der, &path, false);
    }
    Some((path, certificates))
}

fn chain(item: &Item<'_>, base: &Base) -> Option<(std::path::PathBuf, Vec<CertificateDer<'static>>)> {
    let path = base.path(item)?;
    let pem = disk::read_named(item, &path, "name a file of certificates in PEM form")?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok).collect();
    let sections = CertificateDer::pem_slice_iter(&pem).count();
    if certificates.is_empty() || certificates.len() != sections {
        item.problem(format!(
            "{} is not a file of certificates; it should hold -----BEGIN CERTIFICATE----- sections (PEM)",
            path.display()
        ));
        return None;
    }
    for der in &certificates {
        if X509Certificate::from_der(der).is_err() {
            item.problem(format!(
                "{} holds a section that is no X.509 certificate; write the server's certificate, then its chain",
                path.display()
            ));
            return None;
        }
    }
    Some((path, certificates))
}

fn private_key(item: &Item<'_>, base: &Base) -> Option<(std::path::PathBuf, PrivateKeyDer<'static>)> {
    let path = base.path(item)?;
    let pem = disk::read_named(item, &path, "name a file with a private key in PEM form")?;
    disk::private(item, &path);
    let key = PrivateKeyDer::from_pem_slice(&pem);
    // The content is secret and stays out of the message; so does the parser's error, which may quote it.
    drop(zeroize::Zeroizing::new(pem));
    let wrong = |_| {
        let path = path.display();
        format!(
            "{path} holds no private key that can be used; it should hold one unencrypted \
             -----BEGIN PRIVATE KEY----- section (PEM)"
        )
    };
    let key = item.check(key.map_err(wrong))?;
    Some((path, key))
}

fn server(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    http2: bool,
    certificate_path: &Path,
    key_path: &Path,
) -> Result<ServerConfig, String> {
    let provider = aws_lc_rs::default_provider();
    let pair = pair(provider.key_provider, chain, key, certificate_path, key_path)?;
    let mut server = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|error| format!("TLS can't be set up ({error}); use another key"))?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(pair)));
    let protocols: &[&[u8]] = if http2 { &[b"h2", b"http/1.1"] } else { &[b"http/1.1"] };
    server.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(server)
}

/// A certificate with the key that it was made for.
fn pair(
    keys: &dyn KeyProvider,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    certificate_path: &Path,
    key_path: &Path,
) -> Result<CertifiedKey, String> {
    let (certificate_path, key_path) = (certificate_path.display(), key_path.display());
    let key = keys.load_private_key(key).map_err(|_| {
        format!("{key_path} holds a key of a kind that is not known; use RSA (2048 bits or more), ECDSA or Ed25519")
    })?;
    let pair = CertifiedKey::new(chain, key);
    pair.keys_match().map_err(|_| {
        format!(
            "{key_path} is not the key of {certificate_path}; name the key that the certificate was made for"
        )
    })?;
    Ok(pair)
}

/// `strict`: a certificate that is out of date is a problem, not only a warning.
fn in_date(item: &Item<'_>, der: &CertificateDer<'_>, path: &Path, strict: bool) {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else { return };
    let now = clock::wall()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_secs()).ok())
        .unwrap_or_default();
    let (path, subject) = (path.display(), certificate.subject());
    let (begin, end) = (certificate.validity().not_before, certificate.validity().not_after);
    let text = if end.timestamp() < now {
        format!("the certificate \"{subject}\" of {path} expired on {}; renew it", date(end))
    } else if begin.timestamp() > now {
        format!(
            "the certificate \"{subject}\" of {path} is valid from {} on; use one that is valid, or set the clock",
            date(begin)
        )
    } else if end.timestamp() - now < SOON {
        let text = format!("the certificate \"{subject}\" of {path} expires on {}; renew it", date(end));
        return item.warning(text);
    } else {
        return;
    };
    if strict { item.problem(text) } else { item.warning(text) }
}

fn date(time: ASN1Time) -> String {
    jiff::Timestamp::from_second(time.timestamp())
        .map_or_else(|_| time.to_string(), |moment| moment.strftime("%Y-%m-%d").to_string())
}
