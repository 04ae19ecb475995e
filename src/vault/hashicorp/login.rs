//! How patgate comes to a token of the vault: one function for each `auth.method`.

use std::{path::Path, sync::Arc, time::Duration};

use secrecy::SecretString;
use serde::{Deserialize, Deserializer, Serialize};
use tokio::sync::Semaphore;

use super::{
    super::{
        VaultError,
        private::{self, Readers},
        token::exposed,
    },
    helper,
    wire::{Ask, Wire},
    wrapped::Wrapped,
};
use crate::config::HashicorpAuth;

/// The longest secret id, token or signed token, in bytes.
pub(super) const LONGEST: usize = 64 * 1024;

/// A token of the vault, as a login gave it.
pub(super) struct Granted {
    pub(super) token: SecretString,
    /// `None`: it does not end.
    pub(super) lifetime: Option<Duration>,
    pub(super) renewable: bool,
}

/// `auth` of an answer to a login or a renewal.
#[derive(Deserialize)]
struct Auth {
    #[serde(deserialize_with = "secret")]
    client_token: SecretString,
    lease_duration: u64,
    renewable: bool,
}

#[derive(Deserialize)]
struct Authenticated {
    auth: Option<Auth>,
}

/// What a token says of itself.
#[derive(Deserialize)]
struct Looked {
    data: About,
}

#[derive(Deserialize)]
struct About {
    ttl: u64,
    #[serde(default)]
    renewable: bool,
}

/// A string that goes into its wrapper without a copy.
pub(super) fn secret<'de, D: Deserializer<'de>>(from: D) -> Result<SecretString, D::Error> {
    String::deserialize(from).map(SecretString::from)
}

/// What a login takes, ready to be used again.
pub(super) struct Login {
    auth: HashicorpAuth,
    wrapped: Wrapped,
    turns: Arc<Semaphore>,
}

impl Login {
    pub(super) fn new(auth: HashicorpAuth, namespace: Option<&str>) -> Self {
        Self { auth, wrapped: Wrapped::new(namespace), turns: Arc::new(Semaphore::new(1)) }
    }

    /// Logs in.
    ///
    /// # Errors
    /// What can't be read here, or the vault's refusal.
    pub(super) async fn login(&self, wire: &Wire) -> Result<Granted, VaultError> {
        match &self.auth {
            HashicorpAuth::AppRole { mount, role_id, secret_id_file, wrapped } => {
                let held = self.read(secret_id_file, Readers::Owner).await?;
                let secret_id =
                    if *wrapped { self.wrapped.open(wire, mount, secret_id_file, held).await? } else { held };
                let body = AppRole { role_id, secret_id: exposed(&secret_id) };
                post(wire, mount, &body, &secret_id).await
            }
            HashicorpAuth::Jwt { mount, role, token_file } => {
                // Kubernetes mounts it for everybody in the pod.
                let jwt = self.read(token_file, Readers::Anyone).await?;
                post(wire, mount, &Jwt { role, jwt: exposed(&jwt) }, &jwt).await
            }
            HashicorpAuth::Certificate { mount, name, .. } => {
                post(wire, mount, &Certificate { name: name.as_deref() }, &SecretString::default()).await
            }
            HashicorpAuth::TokenFile(path) => {
                let token = self.read(path, Readers::Owner).await?;
                looked_up(wire, token).await
            }
            HashicorpAuth::TokenHelper(command) => looked_up(wire, helper::run(command).await?).await,
        }
    }

    async fn read(&self, path: &Path, readers: Readers) -> Result<SecretString, VaultError> {
        let owned = path.to_owned();
        let read = move || private::read_line(&owned, readers, LONGEST);
        let text = private::aside(Arc::clone(&self.turns), read).await??;
        if exposed(&text).is_empty() {
            return Err(VaultError::Unusable(format!("{} is empty", path.display()).into()));
        }
        Ok(text)
    }
}

#[derive(Serialize)]
struct AppRole<'a> {
    role_id: &'a str,
    secret_id: &'a str,
}

#[derive(Serialize)]
struct Jwt<'a> {
    role: &'a str,
    jwt: &'a str,
}

#[derive(Serialize)]
struct Certificate<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
}

async fn post(
    wire: &Wire,
    mount: &str,
    body: &impl Serialize,
    secret: &SecretString,
) -> Result<Granted, VaultError> {
    let path = format!("auth/{mount}/login");
    let answer = wire.ask(Ask::post(&path, body, exposed(secret).len())).await?;
    if !answer.status.is_success() {
        return Err(answer.failure(&format!("patgate's login at {path}")));
    }
    granted(answer.json()?, || format!("the login at {path} gave no token").into())
}

/// A token that was not got by a login: the vault says how long it lives. One that may not even ask that is taken
/// for one that does not end; if the vault forbids its use, there will be another.
async fn looked_up(wire: &Wire, token: SecretString) -> Result<Granted, VaultError> {
    let about = look_up(wire, &token).await?;
    let About { ttl, renewable } = about.unwrap_or(About { ttl: 0, renewable: false });
    Ok(Granted { token, lifetime: lifetime(ttl), renewable })
}

async fn look_up(wire: &Wire, token: &SecretString) -> Result<Option<About>, VaultError> {
    let answer = wire.ask(Ask::get("auth/token/lookup-self").with(token)).await?;
    if answer.status.is_success() {
        return answer.json::<Looked>().map(|looked| Some(looked.data));
    }
    match answer.failure("the token's question about itself") {
        VaultError::Denied(_) => Ok(None),
        error => Err(error),
    }
}

/// Whether the vault still knows a token.
///
/// # Errors
/// No answer.
pub(super) async fn is_known(wire: &Wire, token: &SecretString) -> Result<bool, VaultError> {
    look_up(wire, token).await.map(|about| about.is_some())
}

/// Has a token's life prolonged, and gives what it is then.
///
/// # Errors
/// No answer, or the vault's refusal.
pub(super) async fn renew(wire: &Wire, token: &SecretString) -> Result<Option<Duration>, VaultError> {
    #[derive(Serialize)]
    struct Nothing {}
    let answer = wire.ask(Ask::post("auth/token/renew-self", &Nothing {}, 0).with(token)).await?;
    if !answer.status.is_success() {
        return Err(answer.failure("the renewal of patgate's token"));
    }
    let granted = granted(answer.json()?, || "the renewal gave no token".into())?;
    Ok(granted.lifetime)
}

fn granted(answer: Authenticated, why: impl FnOnce() -> Arc<str>) -> Result<Granted, VaultError> {
    let auth = answer.auth.filter(|auth| !exposed(&auth.client_token).is_empty());
    let auth = auth.ok_or_else(|| VaultError::Unavailable(why()))?;
    Ok(Granted {
        token: auth.client_token,
        lifetime: lifetime(auth.lease_duration),
        renewable: auth.renewable,
    })
}

fn lifetime(seconds: u64) -> Option<Duration> {
    (seconds > 0).then(|| Duration::from_secs(seconds))
}
