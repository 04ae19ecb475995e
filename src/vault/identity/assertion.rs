//! What an application shows Entra in place of a secret: its platform's token, or what its certificate signed.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use aws_lc_rs::{
    digest::{SHA256, digest},
    rand::{self, SystemRandom},
    rsa::KeyPair,
    signature::{KeyPair as _, RSA_PSS_SHA256},
};
use azure_core::{error::ErrorKind, http::ClientMethodOptions};
use azure_identity::ClientAssertion;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::json;
use tokio::sync::Semaphore;
use x509_parser::parse_x509_certificate;
use zeroize::Zeroizing;

use crate::{
    clock,
    vault::{
        VaultError,
        private::{self, Readers},
    },
};

/// The largest file, in bytes, of a certificate, a key or a token.
const LARGEST: usize = 64 * 1024;

/// How long an assertion is good for, in seconds. Entra takes up to ten minutes.
const LIFE: i64 = 5 * 60;

/// Clocks differ, in seconds.
const SKEW: i64 = 60;

/// The file in which the platform (Kubernetes) keeps the workload's token. It is renewed about every hour.
#[derive(Debug)]
pub(super) struct TokenFile {
    pub(super) path: PathBuf,
    pub(super) turns: Arc<Semaphore>,
}

/// An application's certificate and key, in files.
#[derive(Debug)]
pub(super) struct Signed {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
    pub(super) client_id: Arc<str>,
    /// The URL that gives tokens.
    pub(super) audience: String,
    pub(super) turns: Arc<Semaphore>,
}

/// A certificate with its key.
pub(super) struct Certificate {
    der: CertificateDer<'static>,
    key: KeyPair,
    /// In seconds since the epoch.
    until: i64,
}

impl Certificate {
    /// Reads both, and sees that they belong together.
    pub(super) fn read(certificate: &Path, key: &Path) -> Result<Self, VaultError> {
        let unusable =
            |path: &Path, why: &str| VaultError::Denied(format!("{} {why}", path.display()).into());
        // A certificate is no secret; whoever may change it is another question.
        let chain = public(certificate)?;
        let der = CertificateDer::from_pem_slice(&chain)
            .map_err(|_| unusable(certificate, "holds no certificate in PEM"))?;
        let pem = private::read(key, Readers::Owner, LARGEST)?;
        let pair = match PrivateKeyDer::from_pem_slice(&pem) {
            Ok(PrivateKeyDer::Pkcs8(pkcs8)) => KeyPair::from_pkcs8(pkcs8.secret_pkcs8_der()).ok(),
            Ok(PrivateKeyDer::Pkcs1(pkcs1)) => KeyPair::from_der(pkcs1.secret_pkcs1_der()).ok(),
            _ => None,
        };
        let pair = pair.ok_or_else(|| {
            unusable(key, "holds no RSA key of 2048 to 8192 bits in PEM, unencrypted; Entra takes no other")
        })?;
        let (public, until) = {
            let (_, parsed) = parse_x509_certificate(&der)
                .map_err(|_| unusable(certificate, "holds no certificate that can be read"))?;
            let until = parsed.validity().not_after.timestamp();
            (parsed.public_key().subject_public_key.data.to_vec(), until)
        };
        if public != pair.public_key().as_ref() {
            return Err(unusable(certificate, "is not the certificate of the key beside it"));
        }
        Ok(Self { der, key: pair, until })
    }

    /// A JSON Web Token as Entra wants it of a certificate's owner.
    fn sign(&self, client_id: &str, audience: &str, now: i64) -> Result<Zeroizing<String>, VaultError> {
        if self.until <= now {
            let until = jiff::Timestamp::from_second(self.until).unwrap_or_default();
            return Err(VaultError::Denied(
                format!("the certificate of the identity expired on {until}").into(),
            ));
        }
        let failed = || VaultError::Unavailable("the proof of the identity could not be signed".into());
        let mut id = [0; 16];
        rand::fill(&mut id).map_err(|_| failed())?;
        let thumbprint = URL_SAFE_NO_PAD.encode(digest(&SHA256, &self.der));
        let header = json!({ "alg": "PS256", "typ": "JWT", "x5t#S256": thumbprint });
        let claims = json!({
            "aud": audience, "iss": client_id, "sub": client_id, "jti": URL_SAFE_NO_PAD.encode(id),
            "iat": now, "nbf": now - SKEW, "exp": now + LIFE,
        });
        let mut text = Zeroizing::new(String::with_capacity(2048));
        URL_SAFE_NO_PAD.encode_string(header.to_string(), &mut text);
        text.push('.');
        URL_SAFE_NO_PAD.encode_string(claims.to_string(), &mut text);
        let mut signature = vec![0; self.key.public_modulus_len()];
        self.key
            .sign(&RSA_PSS_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature)
            .map_err(|_| failed())?;
        text.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut text);
        Ok(text)
    }
}

#[async_trait::async_trait]
impl ClientAssertion for TokenFile {
    async fn secret(&self, _: Option<ClientMethodOptions<'_>>) -> azure_core::Result<String> {
        let path = self.path.clone();
        // Kubernetes itself gives the mode of this file, and its tokens end within the hour.
        blocking(Arc::clone(&self.turns), move || {
            let bytes = public(&path)?;
            let text = str::from_utf8(&bytes).unwrap_or_default().trim();
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
            if text.is_empty() || !text.bytes().all(plain) {
                let text = format!("{} holds no token of a workload", path.display());
                return Err(VaultError::Denied(text.into()));
            }
            Ok(text.to_owned())
        })
        .await
    }
}

#[async_trait::async_trait]
impl ClientAssertion for Signed {
    async fn secret(&self, _: Option<ClientMethodOptions<'_>>) -> azure_core::Result<String> {
        let (certificate, key) = (self.certificate.clone(), self.key.clone());
        let (client_id, audience) = (Arc::clone(&self.client_id), self.audience.clone());
        let now = jiff::Timestamp::try_from(clock::wall()).map_or(0, jiff::Timestamp::as_second);
        blocking(Arc::clone(&self.turns), move || {
            let signed = Certificate::read(&certificate, &key)?.sign(&client_id, &audience, now)?;
            Ok(signed.to_string())
        })
        .await
    }
}

/// Reads a file whose mode is for others to choose.
fn public(path: &Path) -> Result<Zeroizing<Vec<u8>>, VaultError> {
    let failed =
        |error: std::io::Error| VaultError::Unavailable(format!("{}: {error}", path.display()).into());
    let file = File::open(path).map_err(failed)?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(LARGEST + 1));
    file.take(LARGEST as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > LARGEST {
        let text = format!("{} is larger than {} KiB", path.display(), LARGEST / 1024);
        return Err(VaultError::Denied(text.into()));
    }
    Ok(bytes)
}

async fn blocking(
    turns: Arc<Semaphore>,
    work: impl FnOnce() -> Result<String, VaultError> + Send + 'static,
) -> azure_core::Result<String> {
    let done = private::aside(turns, work).await;
    done.flatten().map_err(|error| azure_core::Error::new(ErrorKind::Credential, error))
}
