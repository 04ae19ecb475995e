//! Finds out who is calling.
//!
//! What comes in: [`Vetted`], with the address of the other end of the connection. What goes out:
//! [`Known`]. It must never take an address from a header.
//!
//! # Adding a proof
//! One file in `client/` that turns what the connection or the request shows into a client; a key of
//! [`crate::config::Client`]; a line in [`identify`], before the address: a proof that is offered
//! and fails must never fall back to it.

use std::sync::Arc;

use crate::{
    config::Client,
    gate::Vetted,
    refusal::{Refusal, Refused},
};

pub mod address;

pub use address::Table;

/// A request of a named client.
#[derive(Debug)]
pub struct Known {
    pub(crate) vetted: Box<Vetted>,
    pub(crate) client: Arc<Client>,
    /// Only [`identify`] makes one.
    _identified: (),
}

/// Finds the client of a request by the address of the connection's other end.
///
/// # Errors
/// `client-unknown`
pub async fn identify((): (), mut vetted: Box<Vetted>) -> Result<Known, Box<Refused>> {
    let address = vetted.passage.peer.address.ip();
    let Some(client) = vetted.passage.snapshot.clients.find(address).map(Arc::clone) else {
        let Vetted { outgoing, wire, passage, .. } = *vetted;
        return Err(Refused::new(Refusal::ClientUnknown, wire, outgoing.body, passage.entry));
    };
    vetted.passage.entry.facts_mut().client = Some(Arc::clone(&client.name));
    Ok(Known { vetted, client, _identified: () })
}
