//! Decides, by the rules alone.

use std::{rc::Rc, sync::Arc};

use crate::{client::Known, config::Credential, refusal::Refused};

pub mod pattern;

pub use pattern::Pattern;

/// A request that a rule allows, with the credential that the rule names.
#[derive(Debug)]
pub struct Permitted {
    known: Known,
    rule: Arc<str>,
    credential: Arc<Credential>,
}

impl Permitted {
    /// Takes it apart, for the step below.
    pub(crate) fn into_parts(self) -> (Known, Arc<str>, Arc<Credential>) {
        (self.known, self.rule, self.credential)
    }
}

/// The rules, compiled.
#[derive(Debug, Default)]
pub struct Policy {}

/// Asks the rules.
///
/// # Errors
/// `no-rule`, `denied-by-rule`, `credential-elsewhere`
pub async fn permit(_state: Rc<()>, known: Known) -> Result<Permitted, Box<Refused>> {
    let _ = known;
    todo!("policy")
}
