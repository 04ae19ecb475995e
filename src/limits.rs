//! Caps and per-client counts.

use std::{rc::Rc, sync::Arc};

use crate::{client::Known, config::Credential, listener::Arrived, policy::Permitted, refusal::Refused};

/// The counts, shared by all workers.
#[derive(Debug, Default)]
pub struct Counts {}

/// A share that is given back on drop.
#[derive(Debug, Default)]
pub struct Share {}

/// A request within its client's share.
#[derive(Debug)]
pub struct Rationed {
    known: Known,
    rule: Arc<str>,
    credential: Arc<Credential>,
    share: Share,
}

impl Rationed {
    /// Takes it apart, for the step below.
    pub(crate) fn into_parts(self) -> (Known, Arc<str>, Arc<Credential>, Share) {
        (self.known, self.rule, self.credential, self.share)
    }
}

/// The cap on requests under way in all.
///
/// # Errors
/// `too-many-requests`
pub async fn admit(_counts: Arc<Counts>, arrived: Arrived) -> Result<Arrived, Box<Refused>> {
    Ok(arrived)
}

/// The client's share.
///
/// # Errors
/// `too-many-requests`
pub async fn ration(_counts: Arc<Counts>, permitted: Permitted) -> Result<Rationed, Box<Refused>> {
    let (known, rule, credential) = permitted.into_parts();
    Ok(Rationed { known, rule, credential, share: Share::default() })
}

#[allow(dead_code, reason = "skeleton")]
fn _rc(_: Rc<()>) {}
