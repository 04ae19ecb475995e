//! Caps and per-client counts.
//!
//! What is counted is counted by all workers together; a [`Share`] is given back when it is
//! dropped, whatever ended the request. Nothing here waits: over a cap is refused at once.

use std::{
    net::IpAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use dashmap::DashMap;

use crate::{
    client::Known,
    config::Limits,
    gate::Wire,
    listener::Arrived,
    policy::Permitted,
    refusal::{Refusal, Refused},
    vault::{Chosen, Vaults},
};

/// The counts, shared by all workers.
#[derive(Debug, Default)]
pub struct Counts {
    connections: Arc<AtomicUsize>,
    per_address: DashMap<IpAddr, usize>,
    in_flight: Arc<AtomicUsize>,
    per_client: DashMap<Arc<str>, Arc<AtomicUsize>>,
}

impl Counts {
    /// Connections open now.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }

    /// Requests under way now.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Relaxed)
    }

    /// Counts a connection, unless a cap is reached.
    #[must_use]
    pub fn connect(self: &Arc<Self>, address: IpAddr, limits: &Limits) -> Option<ConnectionShare> {
        let total = Share::of(&self.connections, limits.connections)?;
        let neighbourhood = neighbourhood(address);
        let mut count = self.per_address.entry(neighbourhood).or_default();
        if *count >= limits.connections_per_address {
            return None;
        }
        *count += 1;
        drop(count);
        Some(ConnectionShare { counts: Arc::clone(self), neighbourhood, _total: total })
    }

    fn client(&self, name: &Arc<str>) -> Arc<AtomicUsize> {
        if let Some(count) = self.per_client.get(name) {
            return Arc::clone(&count);
        }
        Arc::clone(&self.per_client.entry(Arc::clone(name)).or_default())
    }
}

/// One address, or for IPv6 its /64: a host owns a whole one.
fn neighbourhood(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into()),
    }
}

/// An open connection's place under the caps.
#[derive(Debug)]
pub struct ConnectionShare {
    counts: Arc<Counts>,
    neighbourhood: IpAddr,
    _total: Share,
}

impl Drop for ConnectionShare {
    fn drop(&mut self) {
        self.counts.per_address.remove_if_mut(&self.neighbourhood, |_, count| {
            *count -= 1;
            *count == 0
        });
    }
}

/// One under a cap, given back on drop.
#[derive(Debug)]
pub struct Share(Arc<AtomicUsize>);

impl Share {
    fn of(count: &Arc<AtomicUsize>, cap: usize) -> Option<Self> {
        let share = Self(Arc::clone(count));
        (count.fetch_add(1, Relaxed) < cap).then_some(share)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// A request's places under the cap for all and under its client's.
#[derive(Debug)]
pub struct Shares {
    _total: Option<Share>,
    _client: Share,
}

/// A request within its client's share.
#[derive(Debug)]
pub struct Rationed {
    known: Known,
    rule: Arc<str>,
    chosen: Chosen,
    shares: Shares,
}

impl Rationed {
    /// Takes it apart, for the step below.
    pub(crate) fn into_parts(self) -> (Known, Arc<str>, Chosen, Shares) {
        (self.known, self.rule, self.chosen, self.shares)
    }
}

/// The cap on requests under way in all.
///
/// # Errors
/// `too-many-requests`
pub async fn admit(counts: Arc<Counts>, mut arrived: Arrived) -> Result<Arrived, Box<Refused>> {
    let Some(share) = Share::of(&counts.in_flight, arrived.passage.snapshot.config.limits.in_flight) else {
        let Arrived { body, passage, .. } = arrived;
        return Err(Refused::new(Refusal::TooManyRequests, Wire::Api, Some(body), passage.entry));
    };
    arrived.passage.share = Some(share);
    Ok(arrived)
}

/// The client's share, and the credential that has most to give.
///
/// # Errors
/// `too-many-requests`
pub async fn ration(
    (counts, vaults): (Arc<Counts>, Rc<Vaults>),
    permitted: Permitted,
) -> Result<Rationed, Box<Refused>> {
    let (mut known, rule, credentials) = permitted.into_parts();
    let cap = known.vetted.passage.snapshot.config.limits.in_flight_per_client;
    let Some(client) = Share::of(&counts.client(&known.client.name), cap) else {
        let vetted = *known.vetted;
        return Err(Refused::new(
            Refusal::TooManyRequests,
            vetted.wire,
            vetted.outgoing.body,
            vetted.passage.entry,
        ));
    };
    let shares = Shares { _total: known.vetted.passage.share.take(), _client: client };
    Ok(Rationed { known, rule, chosen: vaults.choose(credentials), shares })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cap_holds_and_gives_back() {
        let counts = Arc::new(Counts::default());
        let limits = Limits { connections: 3, connections_per_address: 2, ..Limits::default() };
        let one: IpAddr = [10, 0, 0, 1].into();
        let first = counts.connect(one, &limits).unwrap();
        let _second = counts.connect(one, &limits).unwrap();
        assert!(counts.connect(one, &limits).is_none(), "the address has two already");
        let _third = counts.connect([10, 0, 0, 2].into(), &limits).unwrap();
        assert!(counts.connect([10, 0, 0, 3].into(), &limits).is_none(), "three in all");
        assert_eq!(counts.connections(), 3, "refused ones are not counted");
        drop(first);
        assert!(counts.connect(one, &limits).is_some());
    }

    #[test]
    fn addresses_of_one_ipv6_network_share_a_cap() {
        let counts = Arc::new(Counts::default());
        let limits = Limits { connections_per_address: 1, ..Limits::default() };
        let _held = counts.connect("2001:db8::1".parse().unwrap(), &limits).unwrap();
        assert!(counts.connect("2001:db8::ffff:1".parse().unwrap(), &limits).is_none());
        assert!(counts.connect("2001:db8:0:1::1".parse().unwrap(), &limits).is_some());
    }

    #[test]
    fn an_address_that_left_is_forgotten() {
        let counts = Arc::new(Counts::default());
        drop(counts.connect([10, 0, 0, 1].into(), &Limits::default()));
        assert!(counts.per_address.is_empty());
    }
}
