//! The story of a request.
//!
//! Each line below is one step. A step takes what only the step above it can make, and makes what
//! only the step below it takes, so the order is a matter of types: swapped, they do not compile.
//! A step that says no returns a [`Refused`](crate::refusal::Refused), which [`Answer`] alone turns
//! into words. Whatever happens, [`Entry`](crate::audit::Entry) writes the end of the story.

use std::{
    convert::Infallible,
    future::Future,
    panic::AssertUnwindSafe,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{Response, StatusCode, header};
use tower::{Service, ServiceBuilder, layer::layer_fn, util::service_fn};

use crate::{
    answer, audit, client, gate,
    limits::{self, Counts},
    listener::Arrived,
    policy,
    refusal::Refused,
    stage::stage,
    upstream::{self, Body, Upstream},
    vault::{self, Vaults},
};

/// What the steps of one worker work with.
#[derive(Clone)]
pub struct Parts {
    /// Counts of all workers.
    pub counts: Arc<Counts>,
    /// The vaults' cache.
    pub vaults: Rc<Vaults>,
    /// This worker's connections to Azure DevOps.
    pub upstream: Rc<Upstream>,
}

/// Builds the pipeline of one worker.
pub fn pipeline(
    parts: &Parts,
) -> impl Service<Arrived, Response = Response<Body>, Error = Infallible, Future: 'static> + Clone + use<> {
    let upstream = Rc::clone(&parts.upstream);
    ServiceBuilder::new()
        .layer(layer_fn(Answer))
        .layer(stage(Arc::clone(&parts.counts), limits::admit))
        .layer(stage((), gate::vet))
        .layer(stage((), client::identify))
        .layer(stage((), policy::permit))
        .layer(stage((Arc::clone(&parts.counts), Rc::clone(&parts.vaults)), limits::ration))
        .layer(stage(Rc::clone(&parts.vaults), vault::consult))
        .layer(stage((), audit::intend))
        .layer(stage(Rc::clone(&parts.vaults), vault::arm))
        .service(service_fn(move |armed| upstream::forward(Rc::clone(&upstream), armed)))
}

/// The outermost layer: a refusal becomes an answer, a panic a 500. The entry itself writes the record.
#[derive(Clone, Debug)]
pub(crate) struct Answer<S>(pub(crate) S);

impl<S> Service<Arrived> for Answer<S>
where
    S: Service<Arrived, Response = Response<Body>, Error = Box<Refused>>,
    S::Future: 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, arrived: Arrived) -> Self::Future {
        let snapshot = Arc::clone(&arrived.passage.snapshot);
        // Draining the body of a client that waits for `100 Continue` would ask for it.
        let waits = arrived.head.headers.contains_key(header::EXPECT);
        let steps = self.0.call(arrived);
        let answered = async move {
            match steps.await {
                Ok(response) => response,
                Err(mut refused) => {
                    refused.rest = refused.rest.filter(|_| !waits);
                    answer::answer(refused, &snapshot.config.limits).await.map(Body::from)
                }
            }
        };
        Box::pin(AssertUnwindSafe(answered).catch_unwind().map(|end| Ok(end.unwrap_or_else(|_| internal()))))
    }
}

/// The answer after a panic: constant, since nothing is known to be sound.
#[must_use]
pub fn internal() -> Response<Body> {
    constant(StatusCode::INTERNAL_SERVER_ERROR, "patgate: an internal fault\n")
}

/// The answer to `/_patgate/ready`, for balancers.
#[must_use]
pub fn ready(ready: bool) -> Response<Body> {
    if ready {
        constant(StatusCode::OK, "ready\n")
    } else {
        constant(StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
    }
}

fn constant(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    response
}
