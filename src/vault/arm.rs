//! The step that gives a request its secret.
//!
//! What comes in: [`Recorded`]. What goes out: [`Armed`]. It must never give a secret to a request for an organization
//! that the credential is not for, nor one that an operator took out of use.

use std::{rc::Rc, sync::Arc};

use http::HeaderMap;

use super::{Token, Vaults, cache::Withheld};
use crate::{
    audit::{Recorded, Spent},
    config::Credential,
    limits::Rationed,
    refusal::{Refusal, Refused},
};

/// A request with its secret, on its way out.
#[derive(Debug)]
pub struct Armed {
    recorded: Recorded,
    token: Arc<Token>,
}

impl Armed {
    /// Strips any `Authorization` and sets ours. Marked sensitive.
    pub(crate) fn authorize(&self, headers: &mut HeaderMap) {
        self.token.authorize(headers);
    }
    /// Whether it is this very token.
    pub(crate) fn bears(&self, token: &Token) -> bool {
        self.token.is(token)
    }
    /// Whether these bytes hold the token, raw or as sent (for answers that echo it).
    pub(crate) fn occurs_in(&self, bytes: &[u8]) -> bool {
        self.token.occurs_in(bytes)
    }
    /// The token, for whoever must know when it is no more.
    pub(crate) fn token(&self) -> &Arc<Token> {
        &self.token
    }
    /// The request.
    pub(crate) fn recorded(&self) -> &Recorded {
        &self.recorded
    }
    /// See [`Self::recorded`].
    pub(crate) fn recorded_mut(&mut self) -> &mut Recorded {
        &mut self.recorded
    }
    /// Puts the secret away after an attempt. The returned handle names the value that was used, for
    /// [`Vaults::rejected`] and [`Vaults::probe_once`].
    pub(crate) fn disarm(self) -> (Spent, Arc<Token>) {
        (self.recorded.spend(), self.token)
    }
}

/// Asks, before an intent is written, whether the credential may be used at present.
///
/// # Errors
/// `credential-disabled`
pub async fn consult(vaults: Rc<Vaults>, rationed: Rationed) -> Result<Rationed, Box<Refused>> {
    let Some(disabled) = vaults.standing.disabled(&rationed.credential().name) else { return Ok(rationed) };
    let (known, rule, chosen, _) = rationed.into_parts();
    let mut vetted = *known.vetted;
    let mut entry = vetted.passage.entry;
    let facts = entry.facts_mut();
    facts.rule = Some(rule);
    facts.credential = Some(Arc::clone(&chosen.credential().name));
    facts.detail = Some(disabled.to_string().into());
    Err(Refused::new(Refusal::CredentialDisabled, vetted.wire, vetted.outgoing.body.take(), entry))
}

/// Takes the secret from the cache, or waits for the vault (single-flight, on the control thread).
///
/// # Errors
/// `vault-unavailable`, `credential-missing`, `credential-rejected`, `credential-elsewhere`, `credential-disabled`
pub async fn arm(vaults: Rc<Vaults>, mut recorded: Recorded) -> Result<Armed, Box<Refused>> {
    let credential = Arc::clone(recorded.credential());
    // Policy has asked this already; a secret that goes astray can't be called back.
    if !may_go_to(&credential, recorded.known().vetted.outgoing.target.organization()) {
        return Err(refuse(recorded, Refusal::CredentialElsewhere, None));
    }
    let taken = vaults.cache.take(&credential).await;
    // After the wait, and with no other before the secret is used.
    if let Some(disabled) = vaults.standing.disabled(&credential.name) {
        return Err(refuse(recorded, Refusal::CredentialDisabled, Some(&disabled.to_string())));
    }
    match taken {
        Ok(held) => {
            let facts = recorded.known_mut().vetted.passage.entry.facts_mut();
            facts.credential_version = Some(Arc::clone(&held.version));
            facts.fingerprint = Some(Arc::clone(held.token.fingerprint()));
            Ok(Armed { recorded, token: Arc::clone(&held.token) })
        }
        Err(withheld) => {
            let (why, detail) = match withheld {
                Withheld::Unavailable(detail) => (Refusal::VaultUnavailable, detail),
                Withheld::Missing(detail) => (Refusal::CredentialMissing, detail),
                Withheld::Rejected(detail) => (Refusal::CredentialRejected, detail),
            };
            Err(refuse(recorded, why, Some(&detail)))
        }
    }
}

pub(super) fn may_go_to(credential: &Credential, organization: &str) -> bool {
    credential.organizations.iter().any(|own| own.eq_ignore_ascii_case(organization))
}

#[expect(clippy::unnecessary_box_returns, reason = "a refusal is boxed from its making on")]
fn refuse(recorded: Recorded, why: Refusal, detail: Option<&str>) -> Box<Refused> {
    let (known, _, _) = recorded.spend().into_parts();
    let mut vetted = *known.vetted;
    let mut entry = vetted.passage.entry;
    if let Some(detail) = detail {
        entry.facts_mut().detail = Some(detail.into());
    }
    Refused::new(why, vetted.wire, vetted.outgoing.body.take(), entry)
}
