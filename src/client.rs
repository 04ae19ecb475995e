//! Finds out who is calling.
//!
//! What comes in: [`Vetted`], with the address of the other end of the connection. What goes out:
//! [`Known`]. It must never take an address from a header.

use std::{net::IpAddr, rc::Rc, sync::Arc};

use crate::{config::Client, gate::Vetted, refusal::Refused};

/// A request of a named client.
#[derive(Debug)]
pub struct Known {
    pub(crate) vetted: Box<Vetted>,
    pub(crate) client: Arc<Client>,
    _known: (),
}

/// The clients by their networks; the longest prefix decides.
#[derive(Debug, Default)]
pub struct Table {}

impl Table {
    /// The client of an address. IPv4-mapped IPv6 addresses count as IPv4.
    #[must_use]
    pub fn find(&self, address: IpAddr) -> Option<&Arc<Client>> {
        let _ = address;
        todo!("client")
    }
}

/// Finds the client of a request.
///
/// # Errors
/// `client-unknown`
pub async fn identify(_state: Rc<()>, vetted: Box<Vetted>) -> Result<Known, Box<Refused>> {
    let _ = vetted;
    todo!("client")
}
