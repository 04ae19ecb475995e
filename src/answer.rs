//! Turns a [`Refused`] into a response: the only place that does.
//!
//! What comes in: why, in which form the caller reads it ([`Wire`]), and the body that is still
//! to be read. What goes out: a response in that form. It must never answer 401 (tools would ask
//! for a password, or erase one), and never say anything of the configuration besides the `help`
//! that an operator wrote for this very purpose.
//!
//! The record is ended before the body is drained: a caller that sends slowly, or goes away
//! meanwhile, delays and changes nothing of it.

use bytes::Bytes;
use http::{HeaderValue, Method, Response, header};
use http_body::Body;
use http_body_util::Full;

use crate::{
    audit::Ending,
    config::Limits,
    gate::Wire,
    refusal::{Refusal, Refused},
};

pub mod drain;
pub mod form;
pub mod push;

#[cfg(test)]
mod documented;
#[cfg(test)]
mod tools;

use drain::Drained;
pub use form::{Said, render};
use push::Push;

/// Ends the record of a refused request, drains its body to a cap, and says why in the form that
/// the caller's tool shows to its user.
///
/// Reading the body of a request that waits for `100 Continue` would ask for it: such a request is
/// refused with `rest: None`, and hyper ends its connection.
pub async fn answer(refused: Box<Refused>, limits: &Limits) -> Response<Full<Bytes>> {
    let Refused { why, wire, rest, mut entry, help } = *refused;
    let id: Box<str> = entry.id().into();
    let head = entry.facts().method == Some(Method::HEAD);
    // Whoever may not even ask gets no 256 MiB of attention.
    let is_push = wire == Wire::GitPush && entry.facts().client.is_some();
    let said = Said { why, wire, help: help.as_deref(), id: &id, head };

    // Only the answer to a push depends on what its body says.
    let at_once = (wire != Wire::GitPush).then(|| render(&said, &Push::Unread));
    let facts = entry.facts_mut();
    facts.status = Some(said.status().as_u16());
    facts.bytes_out = at_once.as_ref().and_then(|answer| answer.body().size_hint().exact()).unwrap_or(0);
    entry.end(Ending::Refused(why));

    let (push, drained) = match rest {
        None => (Push::Unread, Drained::Whole),
        Some(body) if is_push => push::read(body, limits.body_idle).await,
        Some(body) => (Push::Unread, drain::drain(body, drain::SMALL, limits.body_idle).await),
    };
    finish(at_once.unwrap_or_else(|| render(&said, &push)), why, drained)
}

/// Marks the connection as ended where what follows on it can't be trusted or was not read.
fn finish(mut response: Response<Full<Bytes>>, why: Refusal, drained: Drained) -> Response<Full<Bytes>> {
    if drained == Drained::Unfinished || closes(why) {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Whether the bytes that follow on this connection may mean something else to somebody else
/// (request smuggling), or nothing shall follow.
fn closes(why: Refusal) -> bool {
    matches!(
        why,
        Refusal::HeadMalformed
            | Refusal::HeadTimeout
            | Refusal::MethodUnknown
            | Refusal::Framing
            | Refusal::HeaderAmbiguous
            | Refusal::ExpectationUnknown
            | Refusal::PathAmbiguous
            | Refusal::QueryAmbiguous
            | Refusal::HostUnknown
            | Refusal::BodyIncomplete
            | Refusal::Internal
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(why: Refusal) -> Said<'static> {
        Said { why, wire: Wire::Api, help: None, id: "1", head: false }
    }

    #[test]
    fn whatever_can_be_read_in_two_ways_ends_the_connection() {
        for (why, close) in [
            (Refusal::Framing, true),
            (Refusal::HeaderAmbiguous, true),
            (Refusal::PathAmbiguous, true),
            (Refusal::HostUnknown, true),
            (Refusal::NoRule, false),
            (Refusal::TooManyRequests, false),
            (Refusal::CredentialRejected, false),
        ] {
            let answer = finish(render(&said(why), &Push::Unread), why, Drained::Whole);
            assert_eq!(answer.headers().contains_key(header::CONNECTION), close, "{}", why.code());
        }
    }

    #[test]
    fn a_body_that_was_not_read_to_its_end_ends_the_connection() {
        let answer =
            finish(render(&said(Refusal::NoRule), &Push::Unread), Refusal::NoRule, Drained::Unfinished);
        assert_eq!(answer.headers()[header::CONNECTION], "close");
    }
}
