//! The layer that changes a request's type.
//!
//! A [`Stage`] runs one step of the pipeline, an `async fn(State, In) -> Result<Out, Refused>`,
//! and hands its product to the service below. The inner service must take exactly `Out`, so
//! two steps that stand in the wrong order do not compile.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower::{Layer, Service};

use crate::refusal::Refused;

/// A layer that runs `step` with a clone of `state` before the service below it.
pub fn stage<S, F>(state: S, step: F) -> StageLayer<S, F> {
    StageLayer { state, step }
}

/// See [`stage`].
#[derive(Clone, Debug)]
pub struct StageLayer<S, F> {
    state: S,
    step: F,
}

impl<S: Clone, F: Clone, Inner> Layer<Inner> for StageLayer<S, F> {
    type Service = Stage<S, F, Inner>;

    fn layer(&self, inner: Inner) -> Self::Service {
        Stage { state: self.state.clone(), step: self.step.clone(), inner }
    }
}

/// One step with all that follows it.
#[derive(Clone, Debug)]
pub struct Stage<S, F, Inner> {
    state: S,
    step: F,
    inner: Inner,
}

impl<S, F, Inner, In, Out, Step> Service<In> for Stage<S, F, Inner>
where
    S: Clone,
    F: Fn(S, In) -> Step,
    Step: Future<Output = Result<Out, Box<Refused>>>,
    Inner: Service<Out, Error = Box<Refused>> + Clone,
{
    type Response = Inner::Response;
    type Error = Box<Refused>;
    type Future = StageFuture<Step, Inner, Inner::Future>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: In) -> Self::Future {
        let step = (self.step)(self.state.clone(), request);
        StageFuture::Step { step, inner: self.inner.clone() }
    }
}

pin_project! {
    /// First the step, then the service below.
    #[project = StageProjection]
    #[allow(missing_docs, reason = "pin_project's variants are not named outside this module")]
    pub enum StageFuture<Step, Inner, Rest> {
        Step { #[pin] step: Step, inner: Inner },
        Rest { #[pin] rest: Rest },
    }
}

impl<Step, Inner, Out> Future for StageFuture<Step, Inner, Inner::Future>
where
    Step: Future<Output = Result<Out, Box<Refused>>>,
    Inner: Service<Out, Error = Box<Refused>>,
{
    type Output = Result<Inner::Response, Box<Refused>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let rest = match self.as_mut().project() {
                StageProjection::Step { step, inner } => inner.call(ready!(step.poll(cx))?),
                StageProjection::Rest { rest } => return rest.poll(cx),
            };
            self.set(Self::Rest { rest });
        }
    }
}
