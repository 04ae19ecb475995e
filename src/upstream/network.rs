//! One worker's connections: those that wait, and the way to new ones.

use std::{cell::RefCell, rc::Rc};

use super::{
    connect::{Connector, Roots},
    fault::Fault,
    pool::{Connection, Place, Pool},
};
use crate::config;

/// See the module.
pub(super) struct Network {
    roots: Roots,
    pub(super) pool: Rc<Pool>,
    /// Of the newest configuration that a request came with.
    newest: RefCell<Option<Rc<Connector>>>,
}

impl Network {
    /// Without any connection.
    pub(super) fn new(roots: Roots) -> Self {
        Self { roots, pool: Rc::default(), newest: RefCell::new(None) }
    }

    /// How hosts are reached under one configuration. A request that still holds an older one than others gets
    /// what it says, but what is kept stays the newest.
    ///
    /// # Errors
    /// See [`Connector::new`].
    pub(super) fn connector(
        &self,
        generation: u64,
        upstream: &config::Upstream,
        outbound: &config::Outbound,
    ) -> Result<Rc<Connector>, Fault> {
        let mut newest = self.newest.borrow_mut();
        if let Some(connector) = newest.as_ref().filter(|connector| connector.generation == generation) {
            return Ok(Rc::clone(connector));
        }
        let connector = Connector::new(generation, upstream, outbound, &self.roots)?;
        if newest.as_ref().is_none_or(|newest| newest.generation < generation) {
            *newest = Some(Rc::clone(&connector));
            self.pool.keep_only(generation);
        }
        Ok(connector)
    }

    /// A connection to a host: one that waits, or, where there is none or a `fresh` one is asked for, a new one.
    ///
    /// # Errors
    /// See [`Connector::open`].
    pub(super) async fn connection(
        &self,
        connector: &Connector,
        host: &'static str,
        fresh: bool,
    ) -> Result<Connection, Fault> {
        let place = Place { host, generation: connector.generation };
        match if fresh { None } else { self.pool.take(place) } {
            Some(connection) => Ok(connection),
            // Boxed: a handshake's state is large, and rare.
            None => Box::pin(connector.open(host)).await,
        }
    }
}
