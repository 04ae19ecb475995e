//! The last step: the request goes to Azure DevOps, and the answer comes back.
//!
//! What comes in: [`Armed`]. What goes out: the answer, streamed, and the end of its record. It must never let a
//! client choose an authority, send anything before TLS has proved the other end, end a body cleanly that did
//! not end, or take a sign-in page for an answer. Each attempt that may reach Azure DevOps has its own intent.

use std::{rc::Rc, sync::Arc};

use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING},
    uri::PathAndQuery,
};
use http_body::Body as _;

mod body;
mod connect;
mod dial;
mod exchange;
mod fault;
mod flow;
mod idle;
#[cfg(test)]
mod journey;
mod location;
mod network;
mod pool;
mod proxy;
mod renew;
mod resolve;
#[cfg(test)]
mod rig;
mod supply;
mod verdict;

pub use body::{Body, BodyError};
pub use connect::Roots;

use self::{
    body::Outcome,
    connect::Connector,
    exchange::{Answer, exchange},
    fault::Fault,
    flow::Lease,
    network::Network,
    supply::{Supply, Up},
    verdict::Verdict,
};
use crate::{
    answer::form::REQUEST_ID,
    app::Snapshot,
    audit::{Spent, intend_again},
    client::Known,
    clock,
    gate::{Host, Vetted, headers},
    metrics::Metrics,
    refusal::Refused,
    vault::{self, Armed, Vaults},
};

/// What is kept of an id or a name that Azure DevOps gives, in characters.
const FACT: usize = 128;

/// One worker's way to Azure DevOps.
pub struct Upstream {
    network: Network,
    vaults: Rc<Vaults>,
    metrics: Arc<Metrics>,
}

impl Upstream {
    /// Without any connection. Addresses, CA, proxy and limits are those of each request's configuration.
    #[must_use]
    pub fn new(roots: Roots, vaults: Rc<Vaults>, metrics: Arc<Metrics>) -> Self {
        Self { network: Network::new(roots), vaults, metrics }
    }
}

/// What stays the same over all attempts of one request.
struct Trip {
    upstream: Rc<Upstream>,
    snapshot: Arc<Snapshot>,
    connector: Rc<Connector>,
    supply: Rc<Supply>,
    host: &'static str,
}

/// Sends the request, once more where that is certain to do no harm, and brings the answer.
///
/// # Errors
/// `upstream-unreachable`, `upstream-forbidden`, `upstream-tls`, `upstream-timeout`, `upstream-garbled`,
/// `upstream-withheld`, `body-incomplete`, `scope-missing`, `credential-rejected`; for a further attempt also
/// those of [`intend_again`] and [`vault::arm`].
pub async fn forward(upstream: Rc<Upstream>, mut armed: Armed) -> Result<Response<Body>, Box<Refused>> {
    let vetted = &mut armed.recorded_mut().known_mut().vetted;
    let snapshot = Arc::clone(&vetted.passage.snapshot);
    upstream.metrics.own_time(clock::now().saturating_duration_since(vetted.passage.entry.started()));
    let config = &snapshot.config;
    let outgoing = &mut vetted.outgoing;
    let supply = Supply::new(outgoing.body.take(), outgoing.length, config.limits.body_idle);
    let host = outgoing.target.host().authority();
    let connector = match upstream.network.connector(snapshot.generation, &config.upstream, &config.outbound)
    {
        Ok(connector) => connector,
        Err(fault) => return refuse(armed.disarm().0, fault, None, &supply),
    };
    let trip = Trip { upstream, snapshot, connector, supply, host };

    let mut renewed = false;
    loop {
        let (sent, answer) = trip.attempt(armed).await?;
        match Verdict::of(answer.response.status(), answer.response.headers()) {
            Verdict::Answer => return trip.deliver(sent, answer),
            // Boxed: seldom, and large.
            verdict => {
                let used = Arc::clone(sent.recorded().credential());
                armed = Box::pin(trip.renew(sent, answer, verdict, renewed)).await?;
                renewed = Arc::ptr_eq(&used, armed.recorded().credential());
            }
        }
    }
}

impl Trip {
    /// One attempt, and a second on a connection of its own where a waiting one turned out to be dead.
    async fn attempt(&self, mut armed: Armed) -> Result<(Armed, Answer), Box<Refused>> {
        let patience = self.snapshot.config.limits.upstream_head;
        let mut fresh = false;
        let mut unsent = None;
        loop {
            let connection = self.upstream.network.connection(&self.connector, self.host, fresh).await;
            let failed = match connection {
                Ok(mut connection) => {
                    connection.carry(armed.token());
                    let request =
                        unsent.take().map_or_else(|| self.request(&armed), |request: Box<_>| *request);
                    match exchange(connection, request, &self.supply, patience).await {
                        Ok(answer) => return Ok((armed, answer)),
                        Err(failed) => failed,
                    }
                }
                Err(fault) => return self.refuse(armed.disarm().0, fault, None),
            };
            let again = failed.stale && !fresh;
            fresh = true;
            match failed.unsent {
                // Not a byte of it was sent: still the attempt that the intent is about.
                Some(request) if again => unsent = Some(request),
                None if again && self.may_repeat(&armed) => {
                    let (spent, _) = armed.disarm();
                    armed = Box::pin(self.arm_again(spent, "retry", None)).await?;
                }
                _ => return self.refuse(armed.disarm().0, failed.fault, None),
            }
        }
    }

    /// Whether the same request may reach Azure DevOps twice: it changes nothing, and none of its body was used.
    fn may_repeat(&self, armed: &Armed) -> bool {
        armed.recorded().known().vetted.outgoing.method.is_safe() && self.supply.is_untouched()
    }

    /// A further attempt: first its own intent, then the secret.
    async fn arm_again(
        &self,
        spent: Spent,
        purpose: &'static str,
        path: Option<&str>,
    ) -> Result<Armed, Box<Refused>> {
        let armed = match intend_again(spent, purpose, path).await {
            Ok(recorded) => vault::arm(Rc::clone(&self.upstream.vaults), recorded).await,
            Err(refused) => Err(refused),
        };
        armed.map_err(|mut refused| {
            refused.rest = refused.rest.take().or_else(|| self.supply.rest());
            refused
        })
    }

    /// The request as it is sent. Its authority is the host's own, its target the one that was decided on.
    fn request(&self, armed: &Armed) -> Request<Up> {
        let outgoing = &armed.recorded().known().vetted.outgoing;
        let body = Up::new(&self.supply);
        let mut headers = outgoing.headers.clone();
        frame(&mut headers, &outgoing.method, &body);
        let path = outgoing.target.path_and_query().clone();
        assemble(armed, self.host, outgoing.method.clone(), path, headers, body)
    }

    /// The answer on its way to the client: headers filtered, redirects mended, the body still to come.
    fn deliver(&self, armed: Armed, answer: Answer) -> Result<Response<Body>, Box<Refused>> {
        let Answer { response, connection } = answer;
        let (head, incoming) = response.into_parts();
        let mut passed = headers::down(&head.headers);
        let facts =
            [fact(&head.headers, &["activityid", "x-vss-e2eid"]), fact(&head.headers, &["x-vss-userdata"])];
        // Of all headers, not only of those that pass: what is recorded of the others is cut, and a part of a
        // token is not recognised any more.
        let echoed = verdict::holds(&head.headers, |bytes| armed.occurs_in(bytes));
        let (spent, _) = armed.disarm();
        if echoed {
            return self.refuse(spent, Fault::echo(), Some(head.status));
        }
        measure(&mut passed, &head.headers, incoming.size_hint().exact());
        let (known, chosen, share) = spent.into_parts();
        self.upstream.vaults.note_budget(&chosen, &head.headers);
        let Known { vetted, .. } = known;
        let Vetted { passage, .. } = *vetted;
        let serves = |name: &str| Host::parse(name).is_some();
        location::mend(&mut passed, self.host, &passage.listen.public_url, serves);
        let mut entry = passage.entry;
        if let Ok(id) = HeaderValue::from_str(entry.id()) {
            passed.insert(REQUEST_ID, id);
        }
        let [activity, acted_as] = facts;
        let record = entry.facts_mut();
        record.status = Some(head.status.as_u16());
        record.activity = activity;
        record.acted_as = acted_as;
        let lease = Lease { connection, pool: Rc::clone(&self.upstream.network.pool) };
        let idle = self.snapshot.config.limits.body_idle;
        let outcome = Outcome { entry, share };
        let body = Body::stream(incoming, lease, Rc::clone(&self.supply), idle, outcome);
        let mut response = Response::new(body);
        *response.status_mut() = head.status;
        *response.headers_mut() = passed;
        Ok(response)
    }

    /// Ends the request without an answer of Azure DevOps; `status` is what that would have been.
    fn refuse<T>(&self, spent: Spent, fault: Fault, status: Option<StatusCode>) -> Result<T, Box<Refused>> {
        refuse(spent, fault, status, &self.supply)
    }
}

/// See [`Trip::refuse`].
fn refuse<T>(
    spent: Spent,
    fault: Fault,
    status: Option<StatusCode>,
    supply: &Supply,
) -> Result<T, Box<Refused>> {
    let (known, _, _) = spent.into_parts();
    let Known { vetted, .. } = known;
    let Vetted { wire, passage, .. } = *vetted;
    let mut entry = passage.entry;
    let record = entry.facts_mut();
    record.detail = Some(fault.detail.into());
    record.upstream_status = status.map(|status| status.as_u16());
    record.bytes_in = supply.bytes();
    Err(Refused::new(fault.why, wire, supply.rest(), entry))
}

/// A request from its parts: the authority of a host from the closed list, and the credential last.
fn assemble(
    armed: &Armed,
    host: &'static str,
    method: Method,
    path: PathAndQuery,
    mut headers: HeaderMap,
    body: Up,
) -> Request<Up> {
    headers.insert(HOST, HeaderValue::from_static(host));
    armed.authorize(&mut headers);
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = Uri::from(path);
    *request.headers_mut() = headers;
    request
}

/// Sets the framing by the body alone: hyper would believe whatever stands there already.
fn frame(headers: &mut HeaderMap, method: &Method, body: &Up) {
    headers.remove(TRANSFER_ENCODING);
    headers.remove(CONTENT_LENGTH);
    let bodied = matches!(*method, Method::POST | Method::PUT | Method::PATCH);
    match body.length() {
        Some(0) if !bodied => {}
        Some(length) => drop(headers.insert(CONTENT_LENGTH, length.into())),
        None => {}
    }
}

/// Sets the length of an answer by its body. A `HEAD` or a 304 has none to tell it by: there the header itself
/// counts, which hyper has found to be a number; elsewhere it might contradict `Transfer-Encoding`.
fn measure(passed: &mut HeaderMap, upstream: &HeaderMap, length: Option<u64>) {
    passed.remove(TRANSFER_ENCODING);
    passed.remove(CONTENT_LENGTH);
    let value = match length {
        Some(0) => upstream.get(CONTENT_LENGTH).cloned(),
        Some(length) => Some(length.into()),
        None => None,
    };
    if let Some(value) = value {
        passed.insert(CONTENT_LENGTH, value);
    }
}

/// The first of some headers that is there, as printable ASCII, cut to a length.
fn fact(headers: &HeaderMap, names: &[&str]) -> Option<Box<str>> {
    let value = names.iter().find_map(|name| headers.get(*name))?;
    let text: String = value.as_bytes().iter().take(FACT).map(|byte| char::from(*byte)).collect();
    text.chars().all(|c| c == ' ' || c.is_ascii_graphic()).then(|| text.into())
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    const OLD: [(HeaderName, &str); 2] = [(CONTENT_LENGTH, "99"), (TRANSFER_ENCODING, "gzip, chunked")];

    fn old() -> HeaderMap {
        OLD.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    fn length(headers: &HeaderMap) -> Option<&str> {
        assert!(!headers.contains_key(TRANSFER_ENCODING));
        headers.get(CONTENT_LENGTH).map(|value| value.to_str().unwrap())
    }

    #[test]
    fn a_request_is_framed_by_its_body_alone() {
        rig::run(async {
            for (method, head, given, expected) in [
                (Method::GET, None, None, None),
                (Method::DELETE, None, None, None),
                (Method::POST, None, None, Some("0")),
                (Method::PATCH, Some("content-length: 0"), Some(0), Some("0")),
                (Method::POST, Some("content-length: 4"), Some(4), Some("4")),
                (Method::POST, Some("transfer-encoding: chunked"), None, None),
            ] {
                let body = match head {
                    Some(head) => Some(rig::client(head, "").await.0),
                    None => None,
                };
                let (_, supply) = rig::request(body, given);
                let mut headers = old();
                frame(&mut headers, &method, &Up::new(&supply));
                assert_eq!(length(&headers), expected, "{method} {head:?}");
            }
        });
    }

    #[test]
    fn an_answer_is_measured_by_its_body_and_where_it_has_none_by_its_head() {
        for (body, expected) in [(Some(0), Some("99")), (Some(7), Some("7")), (None, None)] {
            let mut passed = old();
            measure(&mut passed, &old(), body);
            assert_eq!(length(&passed), expected, "{body:?}");
        }
    }

    #[test]
    fn a_fact_is_printable_and_of_bounded_length() {
        let long = "x".repeat(FACT + 1);
        for (value, expected) in [
            ("a-b", Some("a-b")),
            ("fb80:somebody@contoso.example", Some("fb80:somebody@contoso.example")),
            ("tab\there", None),
            ("\u{e9}", None),
            (&long, Some(&long[1..])),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("x-vss-e2eid", HeaderValue::from_bytes(value.as_bytes()).unwrap());
            assert_eq!(fact(&headers, &["activityid", "x-vss-e2eid"]).as_deref(), expected);
        }
    }
}
