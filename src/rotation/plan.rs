//! What is to be rotated, and by what.

use std::{sync::Arc, time::Duration};

use aws_lc_rs::rand;
use secrecy::SecretString;

use crate::{
    config::{Config, Credential, CredentialSource},
    vault::{FingerprintKey, Scheme, Token, VaultError},
};

/// How long a rotation of another patgate's may take before it counts as given up.
const LEASE: Duration = Duration::from_mins(10);

/// The waits of a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Patience {
    /// For one request to Azure DevOps.
    pub(super) request: Duration,
    /// For one read or write of the vault.
    pub(super) vault: Duration,
    /// For a write that nobody waits for any more to arrive, or not.
    pub(super) settle: Duration,
    /// For the user's Entra token.
    pub(super) entra: Duration,
    /// Between two tries of the same step, while the new value is in memory.
    pub(super) pause: Duration,
    /// How often such a step is tried.
    pub(super) tries: u32,
    /// After a failure, the first wait and the longest.
    pub(super) after_failure: (Duration, Duration),
    /// For another patgate's rotation.
    pub(super) lease: Duration,
}

/// What is to be rotated, and by what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// The credential's name.
    pub(super) credential: Arc<str>,
    /// The vault's name.
    pub(super) vault: Arc<str>,
    /// What the vault calls the token.
    pub(super) secret: Arc<str>,
    /// The vault's name that gives the user's Entra token, and what it calls that.
    pub(super) entra: (Arc<str>, Arc<str>),
    pub(super) organization: Arc<str>,
    pub(super) every: Duration,
    pub(super) valid_for: Duration,
    pub(super) grace: Duration,
    /// `vso.…`, separated by spaces.
    pub(super) scope: String,
    /// What the names of its tokens begin with.
    pub(super) name: Arc<str>,
    pub(super) patience: Patience,
}

impl Patience {
    /// What fits a rotation every so often, and a vault with such a deadline.
    pub(super) fn of(every: Duration, vault: Duration, entra: Duration) -> Self {
        let (second, minute) = (Duration::from_secs(1), Duration::from_mins(1));
        Self {
            request: Duration::from_secs(30),
            vault,
            settle: vault,
            entra,
            pause: (every / 100).clamp(Duration::from_millis(50), 5 * second),
            tries: 5,
            after_failure: (
                (every / 100).clamp(Duration::from_millis(100), 30 * second),
                (every / 10).clamp(second, 60 * minute),
            ),
            lease: LEASE.min(every / 2),
        }
    }
}

impl Plan {
    /// What the configuration says of one credential; `None` where it is not rotated.
    pub(super) fn new(config: &Config, credential: &Credential) -> Option<Self> {
        let rotate = credential.rotate.as_ref()?;
        let CredentialSource::Vault { vault, secret } = &credential.source else { return None };
        let deadline = |name| config.vaults.get(name).map(|vault| vault.lifetime.deadline);
        Some(Self {
            credential: Arc::clone(&credential.name),
            vault: Arc::clone(vault),
            secret: Arc::clone(secret),
            entra: (Arc::clone(&rotate.vault), Arc::clone(&rotate.secret)),
            organization: Arc::clone(&rotate.organization),
            every: rotate.every,
            valid_for: rotate.valid_for,
            grace: rotate.grace,
            scope: rotate.scope.join(" "),
            name: Arc::clone(&rotate.name),
            patience: Patience::of(rotate.every, deadline(vault)?, deadline(&rotate.vault)?),
        })
    }

    /// The name of a rotation's token.
    pub(super) fn display_name(&self, rotation: &str) -> String {
        format!("{} #{rotation}", self.name)
    }

    /// The rotation in a token's name, if it has one of this credential's.
    pub(super) fn rotation_of<'a>(&self, display_name: &'a str) -> Option<&'a str> {
        let id = display_name.strip_prefix(&*self.name)?.strip_prefix(" #")?;
        let hexadecimal = id.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        (id.len() == 16 && hexadecimal).then_some(id)
    }
}

/// A rotation's id: 16 hexadecimal digits.
///
/// # Errors
/// Where the system gives no randomness.
pub(super) fn rotation_id() -> Result<String, String> {
    let mut id = [0; 8];
    rand::fill(&mut id).map_err(|_| "the system gives no random bytes".to_owned())?;
    Ok(format!("{:016x}", u64::from_be_bytes(id)))
}

/// By what a token's value is known again: a hash keyed with its rotation, so that it tells nothing of another's.
///
/// # Errors
/// It is no token.
pub(super) fn mark(rotation: &str, value: &SecretString) -> Result<String, VaultError> {
    let key = FingerprintKey::new(rotation.as_bytes());
    match Token::new(value.clone(), Scheme::Basic, &key) {
        Ok(token) => Ok(token.fingerprint().to_string()),
        Err(why) => Err(VaultError::Unusable(why.to_string().into())),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Every 7 days, valid for 14, a day's grace.
    pub(in crate::rotation) fn plan() -> Plan {
        let day = Duration::from_hours(24);
        Plan {
            credential: "web".into(),
            vault: "local".into(),
            secret: "web".into(),
            entra: ("user".into(), "token".into()),
            organization: "contoso".into(),
            every: 7 * day,
            valid_for: 14 * day,
            grace: day,
            scope: "vso.code vso.build".into(),
            name: "patgate web".into(),
            patience: Patience::of(7 * day, Duration::from_secs(5), Duration::from_secs(5)),
        }
    }

    #[test]
    fn a_tokens_name_tells_its_rotation_and_a_strangers_does_not() {
        let plan = plan();
        let id = rotation_id().unwrap();
        assert_eq!(plan.rotation_of(&plan.display_name(&id)), Some(&*id));
        for name in [
            "patgate web",
            "patgate web #",
            "patgate web #0123456789abcde",
            "patgate web #0123456789abcdef0",
            "patgate web #0123456789ABCDEF",
            "patgate web2 #0123456789abcdef",
            "a patgate web #0123456789abcdef",
            "patgate web # 123456789abcdef",
        ] {
            assert_eq!(plan.rotation_of(name), None, "{name}");
        }
    }

    #[test]
    fn a_mark_is_of_one_value_and_one_rotation() {
        let (one, two) = ("token-one".to_owned().into(), "token-two".to_owned().into());
        assert_eq!(mark("a", &one).unwrap(), mark("a", &one).unwrap());
        assert_ne!(mark("a", &one).unwrap(), mark("a", &two).unwrap());
        assert_ne!(mark("a", &one).unwrap(), mark("b", &one).unwrap());
        assert!(mark("a", &"no token".to_owned().into()).is_err());
    }

    #[test]
    fn waits_fit_what_is_rotated() {
        let weekly = plan().patience;
        assert_eq!(weekly.after_failure, (Duration::from_secs(30), Duration::from_hours(1)));
        assert_eq!(weekly.lease, Duration::from_mins(10));
        let lab = Patience::of(Duration::from_secs(3), Duration::from_secs(1), Duration::from_secs(1));
        assert_eq!(lab.after_failure, (Duration::from_millis(100), Duration::from_secs(1)));
        assert_eq!(lab.lease, Duration::from_millis(1500));
    }
}
