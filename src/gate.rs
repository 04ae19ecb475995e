//! Gives a request one meaning, or refuses it.
//!
//! What comes in: whatever hyper took for a request. What goes out: [`Vetted`], whose target,
//! action and headers have exactly one reading, and whose target is parsed from the very bytes
//! that are forwarded. It must never look at a rule or a secret, and never repair: what is
//! ambiguous is refused.

use std::rc::Rc;

use http::{HeaderMap, Method};
use hyper::body::Incoming;

pub mod action;
pub mod headers;
pub mod target;

pub use action::{Action, ActionPattern};
pub use target::{Host, Target};

use crate::{
    listener::{Arrived, Passage},
    refusal::Refused,
};

/// The form in which the caller of a request reads an answer that is not the expected one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wire {
    /// JSON in the shape of Azure DevOps' own errors.
    #[default]
    Api,
    /// `GET …/info/refs?service=…`: git shows a `text/plain` body after `remote:`.
    GitAdvertisement,
    /// `POST …/git-upload-pack`: an `ERR` packet.
    GitFetch,
    /// `POST …/git-receive-pack`: a report for each ref, in the side-band.
    GitPush,
    /// Git LFS: JSON with a `message`.
    Lfs,
    /// Somebody with a browser (`Accept: text/html`, and not the API): a small page.
    Browser,
}

/// What goes upstream: already clean, and already all there is.
#[derive(Debug)]
pub struct Outgoing {
    /// Where to, from the closed list.
    pub target: Target,
    /// From the list of methods.
    pub method: Method,
    /// What may pass, by [`headers::UP`]. Never a credential, a cookie, or framing.
    pub headers: HeaderMap,
    /// The body, if the method has one.
    pub body: Option<Incoming>,
    /// `Content-Length` as the client gave it; `None` for a chunked body.
    pub length: Option<u64>,
}

/// A request with one meaning.
#[derive(Debug)]
pub struct Vetted {
    /// What would go upstream.
    pub(crate) outgoing: Outgoing,
    /// What it would do there.
    pub(crate) action: Action,
    /// How the caller reads a refusal.
    pub(crate) wire: Wire,
    /// What travels along.
    pub(crate) passage: Passage,
    /// Only [`vet`] makes one.
    _vetted: (),
}

/// Reads a request strictly.
///
/// # Errors
/// Everything that hyper lets through and that can be read in two ways.
pub async fn vet(_state: Rc<()>, arrived: Arrived) -> Result<Box<Vetted>, Box<Refused>> {
    let _ = arrived;
    todo!("gate")
}

/// Reads a method and a target as a request's first line gives them.
///
/// # Errors
/// As [`vet`].
pub fn read_line(method: &str, target: &str) -> Result<(Target, Action), crate::refusal::Refusal> {
    if !target.starts_with('/') || target.contains("/../") {
        return Err(crate::refusal::Refusal::PathAmbiguous);
    }
    let read = Target::stub(target);
    let action = if target.contains("service=git-upload-pack") || target.ends_with("/git-upload-pack") {
        Action::GitFetch
    } else if target.contains("service=git-receive-pack") || target.ends_with("/git-receive-pack") {
        Action::GitPush
    } else {
        Action::Method(method.parse().map_err(|_| crate::refusal::Refusal::MethodUnknown)?)
    };
    Ok((read, action))
}
