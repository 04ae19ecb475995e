//! The steps in their order, from the one nearest to Azure DevOps. This compiles; with two of them swapped
//! it must not.
use std::task::{Context, Poll};

use patgate::{audit, client, gate, limits, listener::Arrived, policy, refusal::Refused, stage::stage, vault};
use tower::{Layer, Service};

#[derive(Clone)]
struct End;

impl Service<vault::Armed> for End {
    type Response = ();
    type Error = Box<Refused>;
    type Future = std::future::Ready<Result<(), Box<Refused>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Box<Refused>>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: vault::Armed) -> Self::Future {
        std::future::ready(Ok(()))
    }
}

fn state<T>() -> T {
    unimplemented!("this is only compiled")
}

fn takes_requests<S: Service<Arrived>>(_: S) {}

fn main() {
    let service = End;
    let service = stage(state(), vault::arm).layer(service);
    let service = stage(state(), audit::intend).layer(service);
    let service = stage(state(), limits::ration).layer(service);
    let service = stage(state(), policy::permit).layer(service);
    let service = stage(state(), client::identify).layer(service);
    let service = stage(state(), gate::vet).layer(service);
    takes_requests(service);
}
