//! From hyper's requests to [`Arrived`], and from answers back to hyper.

use std::{convert::Infallible, future::Future, pin::Pin, rc::Rc, sync::Arc};

use http::{HeaderValue, Method, Request, Response, header};
use hyper::body::Incoming;
use tower::Service;

use super::{
    Arrived, Gatehouse, Life, Passage, Peer,
    timed::{Phase, Turn},
};
use crate::{pipeline, upstream::Body};

/// The requests of one connection.
pub(super) struct Requests<P> {
    pub(super) peer: Peer,
    pub(super) index: usize,
    pub(super) house: Rc<Gatehouse<P>>,
    pub(super) phase: Rc<Phase>,
}

impl<P> hyper::service::Service<Request<Incoming>> for Requests<P>
where
    P: Service<Arrived, Response = Response<Body>, Error = Infallible> + Clone + 'static,
    P::Future: 'static,
{
    type Response = Response<Taken>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Taken>, Infallible>>>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let turn = self.phase.begin();
        let house = &self.house;
        let leaving = *house.life.borrow() != Life::Serving;
        let only_reads = matches!(*request.method(), Method::GET | Method::HEAD);
        if only_reads && request.uri().path() == "/_patgate/ready" {
            let ready = !leaving && house.audit.is_available();
            return Box::pin(std::future::ready(Ok(Taken::of(pipeline::ready(ready), turn))));
        }
        let snapshot = house.snapshot.load_full();
        let Some(listen) = snapshot.config.listeners.get(self.index).map(Arc::clone) else {
            // Listeners do not change in a reload.
            return Box::pin(std::future::ready(Ok(Taken::of(pipeline::internal(), turn))));
        };
        let passage = Passage {
            entry: house.lane.entry(Some(self.peer.address)),
            peer: self.peer.clone(),
            listen,
            snapshot,
            share: None,
            lifeline: self.phase.lifeline(),
        };
        let (head, body) = request.into_parts();
        let answered = house.pipeline.clone().call(Arrived { head, body, passage });
        let multiplexed = self.phase.is_multiplexed();
        let life = house.life.clone();
        Box::pin(async move {
            let Ok(mut response) = answered.await;
            if *life.borrow() != Life::Serving && !multiplexed {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(Taken::of(response, turn))
        })
    }
}

pin_project_lite::pin_project! {
    /// An answer's body that tells its connection when it has ended.
    pub struct Taken {
        #[pin]
        body: Body,
        turn: Option<Turn>,
    }
}

impl Taken {
    /// An answer, for the client to take.
    fn of(response: Response<Body>, turn: Turn) -> Response<Self> {
        turn.offer();
        response.map(|body| Self { body, turn: Some(turn) })
    }
}

impl http_body::Body for Taken {
    type Data = bytes::Bytes;
    type Error = <Body as http_body::Body>::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Self::Data>, Self::Error>>> {
        let this = self.project();
        let polled = this.body.poll_frame(cx);
        if let Some(turn) = this.turn {
            // Asked for more only once the client took what there was.
            if polled.is_pending() { turn.taken() } else { turn.offer() }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
