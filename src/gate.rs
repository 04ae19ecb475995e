//! Gives a request one meaning, or refuses it.
//!
//! What comes in: whatever hyper took for a request. What goes out: [`Vetted`], whose target,
//! action and headers have exactly one reading, and whose target is parsed from the very bytes
//! that are forwarded. It must never look at a rule or a secret, and never repair: what is
//! ambiguous is refused.

use http::{HeaderMap, Method, Version, request::Parts, uri::PathAndQuery};
use hyper::body::{Body as _, Incoming};

pub mod action;
pub mod authority;
pub(crate) mod characters;
pub mod framing;
pub mod headers;
pub mod host;
mod normal;
mod query;
mod record;
mod segments;
pub mod target;
mod way_in;
mod wire;

pub use action::{Action, ActionPattern};
pub use framing::Framing;
pub use host::Host;
pub use target::Target;
pub use wire::Wire;

use crate::{
    config::Listen,
    listener::{Arrived, Passage},
    refusal::{Refusal, Refused},
};

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
    _seal: (),
}

/// Reads a request strictly.
///
/// # Errors
/// Everything that hyper lets through and that can be read in two ways.
pub async fn vet((): (), arrived: Arrived) -> Result<Box<Vetted>, Box<Refused>> {
    let Arrived { head, body, mut passage } = arrived;
    let facts = passage.entry.facts_mut();
    record::received(&head, facts);
    let is_empty = body.is_end_stream();
    let Reading { target, action, headers, framing, wire } = match read(&head, &passage.listen) {
        // HTTP/2 can send a body that its head does not announce.
        Ok(Reading { framing: Framing::None, wire, .. }) if !is_empty => {
            return Err(Refused::new(Refusal::Framing, wire, Some(body), passage.entry));
        }
        Ok(reading) => reading,
        Err((why, wire)) => {
            // What is refused for another reason than its target has one, which belongs on record.
            if let Ok(target) = received(&head).and_then(Target::parse) {
                record::target(&target, facts);
                facts.action = Action::read(&head.method, &target).ok().map(|action| action.as_str());
            }
            if why == Refusal::HostUnknown && authority::is_of_another_site(&head, &passage.listen) {
                facts.detail = Some("a page of another site would write (Origin)".into());
            }
            let rest = (!is_empty).then_some(body);
            return Err(Refused::new(why, wire, rest, passage.entry));
        }
    };
    record::target(&target, facts);
    facts.action = Some(action.as_str());
    let (body, length) = match framing {
        Framing::None => (None, None),
        Framing::Streamed if is_empty => (Some(body), Some(0)),
        Framing::Streamed => (Some(body), None),
        Framing::Length(length) => (Some(body), Some(length)),
    };
    let outgoing = Outgoing { target, method: head.method, headers, body, length };
    Ok(Box::new(Vetted { outgoing, action, wire, passage, _seal: () }))
}

/// The one meaning of a head.
#[derive(Debug)]
pub struct Reading {
    /// Where it is going.
    pub target: Target,
    /// What it would do there.
    pub action: Action,
    /// What goes up of its headers.
    pub headers: HeaderMap,
    /// How its body is framed.
    pub framing: Framing,
    /// How its sender reads a refusal.
    pub wire: Wire,
}

/// Reads a head strictly, for a listener.
///
/// # Errors
/// Why it can't be read in one way, and the form in which its sender reads that.
pub fn read(head: &Parts, listen: &Listen) -> Result<Reading, (Refusal, Wire)> {
    let wire = Wire::guess(head);
    let refused = |why| (why, wire);
    action::check_method(&head.method).map_err(refused)?;
    let headers = headers::up(&head.headers).map_err(refused)?;
    let received = received(head).map_err(refused)?;
    authority::check(head, listen).map_err(refused)?;
    let target = Target::parse(received).map_err(refused)?;
    let action = Action::read(&head.method, &target).map_err(refused)?;
    let wire = Wire::of(&action, head, &target);
    let framing = Framing::read(head).map_err(|why| (why, wire))?;
    Ok(Reading { target, action, headers, framing, wire })
}

/// The target in origin form. HTTP/2 always names scheme and authority besides; in HTTP/1 that is the form for
/// forward proxies, and an authority alone is for `CONNECT`.
fn received(head: &Parts) -> Result<&PathAndQuery, Refusal> {
    let is_origin_form = head.uri.authority().is_none() && head.uri.scheme().is_none();
    if !is_origin_form && head.version != Version::HTTP_2 {
        return Err(Refusal::PathAmbiguous);
    }
    head.uri.path_and_query().ok_or(Refusal::PathAmbiguous)
}

/// Reads a method and a target as they would stand in a request, for policy tests and `explain`.
///
/// # Errors
/// As [`read`], but for what headers can be wrong.
pub fn read_line(method: &str, target: &str) -> Result<(Target, Action), Refusal> {
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| Refusal::MethodUnknown)?;
    action::check_method(&method)?;
    let target = PathAndQuery::try_from(target).map_err(|_| Refusal::PathAmbiguous)?;
    let target = Target::parse(&target)?;
    let action = Action::read(&method, &target)?;
    Ok((target, action))
}

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::PublicUrl;

    pub(super) fn listen() -> Listen {
        let authority = http::uri::Authority::from_static("patgate.example:8443");
        Listen {
            address: ([127, 0, 0, 1], 8443).into(),
            tls: None,
            names: Vec::new(),
            public_url: PublicUrl { scheme: http::uri::Scheme::HTTPS, authority },
            http2: false,
        }
    }

    /// Lines of a head, the first being method and target. A `Host` is added unless one is there.
    pub(super) fn head(text: &str) -> Parts {
        let mut lines = text.lines().map(str::trim);
        let (method, target) = lines.next().unwrap().split_once(' ').unwrap();
        let mut request = http::Request::builder().method(method).uri(target);
        for line in lines.clone() {
            let (name, value) = line.split_once(':').unwrap();
            request = request.header(name, value.trim());
        }
        if !lines.any(|line| line.to_ascii_lowercase().starts_with("host:")) {
            request = request.header("host", "patgate.example:8443");
        }
        request.body(()).unwrap().into_parts().0
    }

    pub(super) fn verdict(head: &Parts) -> Result<Reading, (Refusal, Wire)> {
        read(head, &listen())
    }

    #[test]
    fn what_hyper_lets_through_is_refused_here() {
        use Refusal::{
            ExpectationUnknown, Framing, HeaderAmbiguous, HostUnknown, MethodUnknown, OrganizationMissing,
            PathAmbiguous, QueryAmbiguous, TargetUnknown,
        };
        for (text, why) in [
            ("get /contoso/web", MethodUnknown),
            ("G!T /contoso/web", MethodUnknown),
            ("CONNECT dev.azure.com:443", MethodUnknown),
            ("TRACE /contoso/web", MethodUnknown),
            ("GET http://dev.azure.com/contoso", PathAmbiguous),
            ("GET ftp://dev.azure.com/contoso", PathAmbiguous),
            ("GET @evil", PathAmbiguous),
            ("GET dev.azure.com:443", PathAmbiguous),
            ("OPTIONS *", PathAmbiguous),
            ("GET //evil/a", PathAmbiguous),
            ("GET ///", PathAmbiguous),
            ("GET /contoso/../other", PathAmbiguous),
            ("GET /contoso/%2e%2e/other", PathAmbiguous),
            ("GET /contoso/a%2fb", PathAmbiguous),
            ("GET /contoso/a;x=1", PathAmbiguous),
            ("GET /contoso/caf\u{e9}", PathAmbiguous),
            (
                "GET /contoso/web/_git/web/info/refs?service=git-upload-pack&service=git-receive-pack",
                QueryAmbiguous,
            ),
            ("GET /evil.example/contoso", TargetUnknown),
            ("GET /_patgate/ready", TargetUnknown),
            ("OPTIONS /_apis", OrganizationMissing),
            ("GET /contoso\nHost: ", HostUnknown),
            ("GET /contoso\nHost: evil", HostUnknown),
            ("GET /contoso\nHost: a@b/c", HostUnknown),
            ("GET /contoso\nHost: patgate.example\nHost: patgate.example", HostUnknown),
            ("POST /contoso/web\nTransfer-Encoding: gzip, chunked", Framing),
            ("POST /contoso/web\nTransfer-Encoding: ,chunked", Framing),
            ("POST /contoso/web\nTransfer-Encoding: chunked\nTransfer-Encoding: chunked", Framing),
            ("POST /contoso/web\nTransfer-Encoding: chunked\nContent-Length: 3", Framing),
            ("GET /contoso/web\nContent-Length: 3", Framing),
            ("HEAD /contoso/web\nTransfer-Encoding: chunked", Framing),
            ("POST /contoso/web\nContent_Length: 3", HeaderAmbiguous),
            ("POST /contoso/web\nX-HTTP-Method-Override: DELETE", HeaderAmbiguous),
            ("POST /contoso/web\nAccept: caf\u{e9}", HeaderAmbiguous),
            ("POST /contoso/web\nExpect: 200-ok", ExpectationUnknown),
        ] {
            assert_eq!(verdict(&head(text)).map(drop).map_err(|(why, _)| why), Err(why), "{text}");
        }
    }

    #[test]
    fn a_request_of_a_tool_is_read() {
        let read = verdict(&head(
            "POST /contoso/web/_git/web/git-upload-pack
            Host: localhost:8443
            Content-Type: application/x-git-upload-pack-request
            Content-Encoding: gzip
            Content-Length: 1024
            Expect: 100-continue
            Connection: keep-alive, git-protocol
            Git-Protocol: version=2
            Authorization: Basic OnNlY3JldA==",
        ))
        .unwrap();
        assert_eq!(
            (read.action, read.wire, read.framing),
            (Action::GitFetch, Wire::GitFetch, Framing::Length(1024))
        );
        assert_eq!(read.target.path(), "/contoso/web/_git/web/git-upload-pack");
        let up: Vec<_> = read.headers.keys().map(http::HeaderName::as_str).collect();
        assert_eq!(up, ["content-type", "content-encoding", "x-tfs-fedauthredirect"]);
    }

    #[test]
    fn the_older_name_of_a_host_is_read_as_the_newer() {
        let read =
            verdict(&head("GET /Contoso.visualstudio.com/DefaultCollection/Web/_apis/wit/workitems?ids=1"))
                .unwrap();
        assert_eq!(
            read.target.path_and_query().as_str(),
            "/Contoso/DefaultCollection/Web/_apis/wit/workitems?ids=1"
        );
        assert_eq!(
            read.target.canonical().collect::<Vec<_>>(),
            ["contoso", "web", "_apis", "wit", "workitems"]
        );
    }

    proptest! {
        #[test]
        fn no_head_makes_it_panic(
            target in proptest::collection::vec(any::<u8>(), 0..40),
            method in "[A-Za-z!]{1,8}",
            name in "[a-zA-Z_-]{1,12}",
            value in proptest::collection::vec(any::<u8>(), 0..24),
        ) {
            let target = [b"/c/".as_slice(), &target].concat();
            let request = http::Request::builder()
                .method(method.as_str())
                .uri(target.as_slice())
                .header("host", "localhost:8443")
                .header(name.as_str(), value.as_slice());
            if let Ok(request) = request.body(()) {
                let _ = verdict(&request.into_parts().0);
            }
        }
    }
}
