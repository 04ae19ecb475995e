//! Stub.
use base64::Engine as _;
use http::HeaderMap;
use secrecy::{ExposeSecret as _, SecretString};

/// Stub.
#[derive(Clone)]
pub struct FingerprintKey;
impl FingerprintKey {
    /// Stub.
    pub fn random() -> Result<Self, String> {
        Ok(Self)
    }
}
/// Stub.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is empty")]
pub struct NoPat;
/// Stub.
pub struct Pat(http::HeaderValue);
impl Pat {
    /// Stub.
    #[allow(clippy::disallowed_methods, reason = "stub")]
    pub fn new(secret: SecretString, _: &FingerprintKey) -> Result<Self, NoPat> {
        let basic = base64::engine::general_purpose::STANDARD.encode(format!(":{}", secret.expose_secret()));
        format!("Basic {basic}").parse().map(Self).map_err(|_| NoPat)
    }
    /// Stub.
    pub fn authorize(&self, headers: &mut HeaderMap) {
        headers.insert("authorization", self.0.clone());
    }
}
