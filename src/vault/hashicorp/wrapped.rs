//! A secret id that comes wrapped: whoever delivers it never sees it, and whoever took it on the way is found out.

use std::path::Path;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::{
    super::{VaultError, token::exposed},
    login::secret,
    wire::{Ask, Wire},
};

/// What was unwrapped, and what it was wrapped in.
struct Opened {
    wrapping: SecretString,
    secret_id: SecretString,
}

/// The secret id of the file's present token: a token gives it once, so it is kept.
pub(super) struct Wrapped {
    namespace: Option<Box<str>>,
    opened: Mutex<Option<Opened>>,
}

#[derive(Serialize)]
struct Token<'a> {
    token: &'a str,
}

#[derive(Deserialize)]
struct LookedUp {
    data: Origin,
}

#[derive(Deserialize)]
struct Origin {
    creation_path: String,
}

#[derive(Deserialize)]
struct Unwrapped {
    data: SecretId,
}

#[derive(Deserialize)]
struct SecretId {
    #[serde(deserialize_with = "secret")]
    secret_id: SecretString,
}

impl Wrapped {
    pub(super) fn new(namespace: Option<&str>) -> Self {
        Self { namespace: namespace.map(Box::from), opened: Mutex::new(None) }
    }

    /// Gives the secret id that `wrapping`, the content of `file`, was made for.
    ///
    /// # Errors
    /// No answer; or an alarm, which is on the log as well: the token was used by somebody else, or wraps something
    /// else than a secret id of this mount.
    pub(super) async fn open(
        &self,
        wire: &Wire,
        mount: &str,
        file: &Path,
        wrapping: SecretString,
    ) -> Result<SecretString, VaultError> {
        let mut opened = self.opened.lock().await;
        if let Some(opened) = &*opened
            && exposed(&opened.wrapping) == exposed(&wrapping)
        {
            return Ok(opened.secret_id.clone());
        }
        let body = Token { token: exposed(&wrapping) };
        let answer = wire.ask(Ask::post("sys/wrapping/lookup", &body, exposed(&wrapping).len())).await?;
        if !answer.status.is_success() {
            return Err(match answer.failure("the wrapping token") {
                VaultError::Denied(_) => used(file),
                error => error,
            });
        }
        let origin = answer.json::<LookedUp>()?.data.creation_path;
        if !self.is_secret_id(&origin, mount) {
            return Err(alarm(format!(
                "the token in {} does not wrap a secret id of auth/{mount}: somebody may have put it there; revoke \
                 the secret id that was meant, and deliver another",
                file.display()
            )));
        }
        let answer =
            wire.ask(Ask::post("sys/wrapping/unwrap", &serde_json::Map::new(), 0).with(&wrapping)).await?;
        if !answer.status.is_success() {
            return Err(match answer.failure("the wrapping token") {
                VaultError::Denied(_) => used(file),
                error => error,
            });
        }
        let secret_id = answer.json::<Unwrapped>()?.data.secret_id;
        *opened = Some(Opened { wrapping, secret_id: secret_id.clone() });
        Ok(secret_id)
    }

    /// Whether a response came from `auth/MOUNT/role/ROLE/secret-id`.
    fn is_secret_id(&self, origin: &str, mount: &str) -> bool {
        let own = self.namespace.as_deref().and_then(|own| origin.strip_prefix(own)?.strip_prefix('/'));
        let role = own
            .unwrap_or(origin)
            .strip_prefix("auth/")
            .and_then(|rest| rest.strip_prefix(mount)?.strip_prefix("/role/")?.strip_suffix("/secret-id"));
        role.is_some_and(|role| !role.is_empty() && !role.contains('/'))
    }
}

fn used(file: &Path) -> VaultError {
    alarm(format!(
        "the wrapping token in {} is not valid any more: its time is over, or somebody else used it; if patgate did \
         not, revoke the secret id, and deliver another",
        file.display()
    ))
}

fn alarm(text: String) -> VaultError {
    tracing::error!(alarm = "wrapping-token", "{text}");
    VaultError::Denied(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_secret_id_of_the_own_mount_is_unwrapped() {
        for (namespace, origin, mount, own) in [
            (None, "auth/approle/role/patgate/secret-id", "approle", true),
            (None, "auth/team/build/role/patgate/secret-id", "team/build", true),
            (Some("team"), "auth/approle/role/patgate/secret-id", "approle", true),
            (Some("team"), "team/auth/approle/role/patgate/secret-id", "approle", true),
            (Some("team"), "other/auth/approle/role/patgate/secret-id", "approle", false),
            (None, "auth/other/role/patgate/secret-id", "approle", false),
            (None, "auth/approle/role//secret-id", "approle", false),
            (None, "auth/approle/role/a/b/secret-id", "approle", false),
            (None, "auth/approle/role/patgate/custom-secret-id", "approle", false),
            (None, "sys/wrapping/wrap", "approle", false),
            (None, "secret/data/ado", "approle", false),
            (None, "", "approle", false),
        ] {
            assert_eq!(Wrapped::new(namespace).is_secret_id(origin, mount), own, "{namespace:?} {origin}");
        }
    }
}
