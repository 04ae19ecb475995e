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
    /// The newest configuration that a request came with, and how hosts are reached under it.
    newest: RefCell<Option<(u64, Rc<Connector>)>>,
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
        match newest.as_mut() {
            Some((known, connector)) if *known == generation => return Ok(Rc::clone(connector)),
            // Reloads seldom change the network: what is open stays open.
            Some((known, connector)) if connector.suits(upstream, outbound) => {
                *known = generation.max(*known);
                return Ok(Rc::clone(connector));
            }
            _ => {}
        }
        let connector = Connector::new(generation, upstream, outbound, &self.roots)?;
        if newest.as_ref().is_none_or(|(known, _)| *known < generation) {
            *newest = Some((generation, Rc::clone(&connector)));
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

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

    use super::*;
    use crate::upstream::rig::HOST;

    fn at(port: u16) -> config::Upstream {
        let addresses = BTreeMap::from([(Arc::from(HOST), SocketAddr::from(([127, 0, 0, 1], port)))]);
        config::Upstream { addresses, ca: None }
    }

    #[test]
    fn a_reload_makes_a_new_connector_only_where_the_network_changed() {
        let network = Network::new(Roots::of(Vec::new()));
        let direct = config::Outbound::default();
        let proxied =
            config::Outbound { proxy: Some("proxy.corp:8080".parse().unwrap()), no_proxy: Vec::new() };
        let first = network.connector(1, &at(1), &direct).unwrap();
        for (generation, port, outbound, same) in [
            (1, 1, &direct, true),
            (2, 1, &direct, true),
            (3, 2, &direct, false),
            (4, 1, &proxied, false),
            (5, 1, &direct, false),
        ] {
            let connector = network.connector(generation, &at(port), outbound).unwrap();
            assert_eq!(Rc::ptr_eq(&connector, &first), same, "{generation}");
        }
        // A request that still holds an old configuration does not bring it back.
        let newest = network.connector(5, &at(1), &direct).unwrap();
        assert!(!Rc::ptr_eq(&network.connector(3, &at(2), &direct).unwrap(), &newest));
        assert!(Rc::ptr_eq(&network.connector(5, &at(1), &direct).unwrap(), &newest));
    }
}
