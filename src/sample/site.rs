//! What is where in a sample organisation.
//!
//! | path | is |
//! |---|---|
//! | `/{organization}/_apis/projects`, `…/connectionData`, `…/ResourceAreas`, `…/git/repositories` | as in Azure DevOps |
//! | `OPTIONS /{organization}/_apis` | the list of resources, short |
//! | `/{organization}/[{project}/]_git/[_full/\|_optimized/]{repository}/…` | git over smart HTTP |
//! | `/{organization}/[{project}/]_apis/sample/…` | one answer on request, see [`Site`] |

use std::{
    io,
    path::PathBuf,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, request::Parts};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;

use super::{
    answer::{self, Stream},
    api,
    behaviour::{Behaviour, Break, Broken},
    git,
    identity::{Digest, Identity, identify},
    on_request,
    seen::{Log, Seen},
    server::Garbled,
};

/// One sample organisation, or several that have the same projects.
///
/// On request, under `…/_apis/sample/`:
///
/// | path | answers |
/// |---|---|
/// | `echo` | what it saw of the request, as JSON; with `?credential=body` or `?credential=header` also the `Authorization`, with `?credential=sha256` its digest |
/// | `body` | the request's body, as it comes |
/// | `sink` | how many bytes the body had, and their SHA-256 |
/// | `early` | 413 at once, the body unread |
/// | `status?code=N` | that status |
/// | `location?to=URL&code=N` | a `Location` |
/// | `rate?left=N` | the headers that tell how much of its rate budget (200) an identity has left |
/// | `huge?bytes=N` | so many bytes, with their length; `&chunked=1`: without |
/// | `trickle?bytes=N&pause-ms=N` | so many bytes, one at a time |
/// | `slow?seconds=N` | late |
/// | `cut?after=N`, `hang?after=N` | a body that breaks, or falls silent, after so many bytes; `&chunked=1` |
/// | `silent` | nothing, ever |
/// | `garbage` | bytes that are not HTTP |
/// | `sign-in`, `sign-in?redirect=1` | the page for signing in, or the way there |
/// | `under-scoped` | the 401 of a token that lacks a scope |
#[derive(Debug)]
pub struct Site {
    organizations: Vec<String>,
    repositories: PathBuf,
    backend: PathBuf,
    accepted: Mutex<Vec<Digest>>,
    behaviour: Mutex<Behaviour>,
    log: Log,
}

/// A request's path, taken apart.
struct Place<'a> {
    organization: &'a str,
    project: Option<&'a str>,
    /// `_git` or `_apis`.
    route: &'a str,
    tail: &'a [String],
}

impl Site {
    pub(super) fn new(
        organizations: Vec<String>,
        repositories: PathBuf,
        backend: PathBuf,
        digest: Digest,
    ) -> Self {
        Self {
            organizations,
            repositories,
            backend,
            accepted: Mutex::new(vec![digest]),
            behaviour: Mutex::default(),
            log: Log::default(),
        }
    }

    pub(super) fn accept(&self, pats: &[&str]) {
        let digests = pats.iter().map(|pat| Digest::of(pat.as_bytes())).collect();
        *self.accepted.lock().unwrap_or_else(PoisonError::into_inner) = digests;
    }

    pub(super) fn behave(&self, behaviour: Behaviour) {
        *self.behaviour.lock().unwrap_or_else(PoisonError::into_inner) = behaviour;
    }

    pub(super) fn log(&self) -> &Log {
        &self.log
    }

    /// Answers a request, in the way that is in force.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Response<Stream> {
        let (head, body) = request.into_parts();
        let seen = Arc::new(Seen::new(&head));
        let number = self.log.add(Arc::clone(&seen));
        let body = Received { body, seen: Arc::clone(&seen) };
        if body.is_end_stream() {
            seen.complete();
        }
        let behaviour = *self.behaviour.lock().unwrap_or_else(PoisonError::into_inner);
        match behaviour {
            Behaviour::Late(time) => tokio::time::sleep(time).await,
            Behaviour::Silent => std::future::pending().await,
            _ => {}
        }
        let (mut answer, member) = self.decide(behaviour, &head, body, &seen).await;
        answer::dress(answer.headers_mut(), number, member);
        match behaviour {
            Behaviour::Garbage => {
                answer.extensions_mut().insert(Garbled);
                answer
            }
            Behaviour::Cut { after } => answer.map(|body| Stream::new(Broken::new(body, after, Break::Cut))),
            Behaviour::Hang { after } => {
                answer.map(|body| Stream::new(Broken::new(body, after, Break::Hang)))
            }
            _ => answer,
        }
    }

    /// The answer, and whether it is one to a member.
    async fn decide(
        &self,
        behaviour: Behaviour,
        head: &Parts,
        body: Received,
        seen: &Arc<Seen>,
    ) -> (Response<Stream>, bool) {
        let segments = segments(head.uri.path());
        let Some(place) = self.place(&segments) else {
            return (answer::error(StatusCode::NOT_FOUND, "HttpException", "There is nothing here."), false);
        };
        let connection_data = place.route == "_apis" && is(place.tail, &["connectiondata"]);
        let refused = match behaviour {
            Behaviour::SignInPage => Some(answer::sign_in_page()),
            Behaviour::SignInRedirect => Some(answer::sign_in_redirect()),
            Behaviour::Expired => Some(answer::unauthorized(
                place.organization,
                "Access Denied: The Personal Access Token used has expired.",
            )),
            Behaviour::Revoked => Some(answer::unauthorized(
                place.organization,
                "Access Denied: The Personal Access Token used has been revoked.",
            )),
            Behaviour::Stopped => Some(answer::error(
                StatusCode::SERVICE_UNAVAILABLE,
                "HostShutdownException",
                "TF24668: The following team project collection is stopped: sample.",
            )),
            _ => None,
        };
        if let Some(refused) = refused {
            return (refused, false);
        }
        let accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let identity = identify(&head.headers, &accepted);
        let discovery = place.route == "_apis"
            && (is(place.tail, &["resourceareas"])
                || (place.tail.is_empty() && head.method == Method::OPTIONS));
        match identity {
            Identity::Member => {}
            Identity::Anonymous if discovery => {}
            Identity::Anonymous | Identity::Unknown => {
                let git = place.route == "_git";
                return (answer::unknown(&head.method, &head.headers, place.organization, git), false);
            }
        }
        if behaviour == Behaviour::UnderScoped && !connection_data && !discovery {
            return (on_request::under_scoped(place.organization), true);
        }
        (self.serve(&place, head, body, seen).await, identity == Identity::Member)
    }

    async fn serve(
        &self,
        place: &Place<'_>,
        head: &Parts,
        body: Received,
        seen: &Arc<Seen>,
    ) -> Response<Stream> {
        if place.route == "_git" {
            return self.repository(place, head, body).await;
        }
        match place.tail {
            [sample, what] if sample == "sample" => {
                on_request::answer(what, place.organization, head, body, seen).await
            }
            tail => api::answer(place.organization, place.project, tail, &head.method),
        }
    }

    async fn repository(&self, place: &Place<'_>, head: &Parts, body: Received) -> Response<Stream> {
        let tail = match place.tail {
            [variant, rest @ ..] if variant == "_full" || variant == "_optimized" => rest,
            tail => tail,
        };
        let found = match tail {
            [repository, service @ ..] if is_service(service) => {
                let project = place.project.unwrap_or(repository);
                git::path_info(&self.repositories, project, repository, &service.join("/"))
            }
            _ => None,
        };
        let Some(path_info) = found else {
            let name = tail.first().map_or("", String::as_str);
            let words = format!(
                "TF401019: The Git repository with name or identifier {name} does not exist or you do not have \
                 permissions for the operation you are attempting."
            );
            let kind = "text/plain; charset=utf-8";
            return answer::answer(StatusCode::NOT_FOUND, kind, Stream::whole(words));
        };
        git::serve(&self.backend, &self.repositories, &path_info, head, body).await
    }

    fn place<'a>(&'a self, segments: &'a [String]) -> Option<Place<'a>> {
        let (organization, rest) = segments.split_first()?;
        let organization = self.organizations.iter().find(|name| name.eq_ignore_ascii_case(organization))?;
        let rest = match rest {
            [collection, rest @ ..] if collection == "defaultcollection" => rest,
            rest => rest,
        };
        let (project, route, tail) = match rest {
            [route, tail @ ..] if is_route(route) => (None, route, tail),
            [project, route, tail @ ..] if is_route(route) => (Some(project.as_str()), route, tail),
            _ => return None,
        };
        Some(Place { organization, project, route, tail })
    }
}

fn is_route(segment: &str) -> bool {
    segment == "_git" || segment == "_apis"
}

fn is_service(tail: &[String]) -> bool {
    is(tail, &["info", "refs"]) || is(tail, &["git-upload-pack"]) || is(tail, &["git-receive-pack"])
}

fn is(tail: &[String], expected: &[&str]) -> bool {
    tail.iter().map(String::as_str).eq(expected.iter().copied())
}

/// A path's segments, decoded and in lower case.
fn segments(path: &str) -> Vec<String> {
    path.split('/')
        .filter(|segment| !segment.is_empty())
        .map(|segment| percent_decode_str(segment).decode_utf8_lossy().to_lowercase())
        .collect()
}

/// A request's body, counted as it is read.
pub(super) struct Received {
    body: Incoming,
    seen: Arc<Seen>,
}

impl Body for Received {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => self.seen.add(frame.data_ref().map_or(0, Bytes::len)),
            Poll::Ready(None) => self.seen.complete(),
            _ => {}
        }
        polled.map_err(io::Error::other)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
