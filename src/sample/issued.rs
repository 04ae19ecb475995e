//! The personal access tokens that a sample organisation issued: their digests, and how long they count.

use std::{
    fs,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::Method;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{StartError, folder, identity::Digest};
use crate::clock;

/// Tokens that are kept, at most; Azure DevOps' own limit is not documented.
const MOST: usize = 10_000;

/// What can be known of a token once it was issued. The token itself is shown once, and not kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Issued {
    /// A UUID.
    pub authorization_id: String,
    /// Free text; two tokens may have the same.
    pub display_name: String,
    /// `vso.…`, separated by spaces.
    pub scope: String,
    /// When it was made.
    pub valid_from: Timestamp,
    /// When it ends.
    pub valid_to: Timestamp,
    /// Whether it was revoked.
    pub revoked: bool,
    /// Lower case; `None`: every one of its owner's.
    pub(super) organization: Option<String>,
    pub(super) digest: String,
}

/// Whether a token counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It was never issued here.
    Unknown,
    /// It counts.
    Active,
    /// Its time is over.
    Expired,
    /// Its owner ended it.
    Revoked,
}

impl Issued {
    /// Whether it counts now.
    #[must_use]
    pub fn standing(&self) -> Standing {
        match self {
            Self { revoked: true, .. } => Standing::Revoked,
            Self { valid_to, .. } if *valid_to <= now() => Standing::Expired,
            _ => Standing::Active,
        }
    }
}

/// What an organisation's administrators allow. The default allows everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Governance {
    /// "Enforce maximum personal access token lifespan": longer ones are shortened, not refused.
    pub lifespan: Option<Duration>,
    /// "Restrict personal access token creation".
    pub no_creation: bool,
    /// "Restrict full-scoped personal access tokens".
    pub no_full_scope: bool,
    /// "Restrict global personal access tokens".
    pub no_global: bool,
}

/// What goes wrong with requests to the tokens' API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mishap {
    /// 429, to be tried again after so many seconds.
    Throttled(u64),
    /// 500, and nothing was done.
    Failing,
    /// What was asked for is done, and the answer is lost.
    Unanswered,
}

/// All tokens that were issued, in a file.
#[derive(Debug)]
pub(super) struct Register {
    file: PathBuf,
    tokens: Mutex<Vec<Issued>>,
    /// Of the Entra tokens that may manage them.
    entra: Mutex<Vec<Digest>>,
    governance: Mutex<Governance>,
    mishap: Mutex<Option<(Method, Mishap)>>,
}

impl Register {
    /// Reads the file, if it is there.
    pub(super) fn open(file: PathBuf) -> Result<Self, StartError> {
        let tokens = match fs::read(&file) {
            Ok(json) => serde_json::from_slice(&json)
                .map_err(|error| StartError::Io(file.clone(), std::io::Error::other(error)))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(StartError::Io(file, error)),
        };
        Ok(Self {
            file,
            tokens: Mutex::new(tokens),
            entra: Mutex::default(),
            governance: Mutex::default(),
            mishap: Mutex::default(),
        })
    }

    /// Every token, oldest first.
    pub(super) fn all(&self) -> Vec<Issued> {
        locked(&self.tokens).clone()
    }

    /// Changes the tokens, and writes them down before anybody is told. `false`: it could not be written, and
    /// nothing has changed.
    pub(super) fn change(&self, change: impl FnOnce(&mut Vec<Issued>)) -> bool {
        let mut tokens = locked(&self.tokens);
        let mut changed = tokens.clone();
        change(&mut changed);
        let written = changed.len() <= MOST
            && serde_json::to_vec(&changed).is_ok_and(|json| folder::write(&self.file, 0o600, &json).is_ok());
        if written {
            *tokens = changed;
        }
        written
    }

    /// Whether a token counts in an organisation.
    pub(super) fn standing(&self, digest: Digest, organization: &str) -> Standing {
        let hex = digest.to_hex();
        let here = |token: &&Issued| {
            token.digest == hex
                && token.organization.as_deref().is_none_or(|own| own.eq_ignore_ascii_case(organization))
        };
        locked(&self.tokens).iter().find(here).map_or(Standing::Unknown, Issued::standing)
    }

    pub(super) fn accept_user(&self, token: &str) {
        locked(&self.entra).push(Digest::of(token.as_bytes()));
    }

    pub(super) fn is_user(&self, digest: Digest) -> bool {
        locked(&self.entra).contains(&digest)
    }

    pub(super) fn govern(&self, governance: Governance) {
        *locked(&self.governance) = governance;
    }

    pub(super) fn governance(&self) -> Governance {
        *locked(&self.governance)
    }

    pub(super) fn fall(&self, mishap: Option<(Method, Mishap)>) {
        *locked(&self.mishap) = mishap;
    }

    pub(super) fn mishap(&self, method: &Method) -> Option<Mishap> {
        locked(&self.mishap).as_ref().filter(|(of, _)| of == method).map(|(_, mishap)| *mishap)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The wall clock.
pub(super) fn now() -> Timestamp {
    clock::timestamp()
}
