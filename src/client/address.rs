//! Clients by the network they call from.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;

use crate::config::Client;

/// The clients by their networks; the longest prefix decides.
///
/// A look-up is a walk down a trie of at most 32 (IPv4) or 128 (IPv6) levels, whatever the number
/// of networks.
#[derive(Debug, Default)]
pub struct Table {
    v4: PrefixMap<Ipv4Net, Arc<Client>>,
    v6: PrefixMap<Ipv6Net, Arc<Client>>,
}

impl Table {
    /// The table of these clients. Of two clients with the very same network (which the configuration
    /// refuses) the one whose name sorts first keeps it.
    #[must_use]
    pub fn new(clients: &BTreeMap<Arc<str>, Arc<Client>>) -> Self {
        let mut table = Self::default();
        for client in clients.values() {
            for network in &client.addresses {
                match canonical(*network) {
                    IpNet::V4(network) => {
                        table.v4.entry(network).or_insert_with(|| Arc::clone(client));
                    }
                    IpNet::V6(network) => {
                        table.v6.entry(network).or_insert_with(|| Arc::clone(client));
                    }
                }
            }
        }
        table
    }

    /// The client of an address. IPv4-mapped IPv6 addresses count as IPv4.
    #[must_use]
    pub fn find(&self, address: IpAddr) -> Option<&Arc<Client>> {
        self.look_up(address).map(|(_, client)| client)
    }

    /// As [`Self::find`], with the network that decided.
    #[must_use]
    pub fn look_up(&self, address: IpAddr) -> Option<(IpNet, &Arc<Client>)> {
        match address.to_canonical() {
            IpAddr::V4(address) => {
                let host = Ipv4Net::from(address);
                self.v4.get_lpm(&host).map(|(network, client)| (IpNet::V4(network), client))
            }
            IpAddr::V6(address) => {
                let host = Ipv6Net::from(address);
                self.v6.get_lpm(&host).map(|(network, client)| (IpNet::V6(network), client))
            }
        }
    }
}

/// Without host bits; a network of mapped addresses (`::ffff:10.0.0.0/104`) as the IPv4 network it is.
fn canonical(network: IpNet) -> IpNet {
    let network = network.trunc();
    if let IpNet::V6(v6) = network
        && v6.prefix_len() >= MAPPED_LENGTH
        && let Some(address) = v6.addr().to_ipv4_mapped()
        && let Ok(v4) = Ipv4Net::new(address, v6.prefix_len() - MAPPED_LENGTH)
    {
        return IpNet::V4(v4);
    }
    network
}

/// The length of `::ffff:0:0/96` (RFC 4291, section 2.5.5.2).
const MAPPED_LENGTH: u8 = 96;

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, path::PathBuf};

    use proptest::{
        prelude::*,
        test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
    };

    use super::*;
    use crate::config::Place;

    fn clients(networks: &[(&str, IpNet)]) -> BTreeMap<Arc<str>, Arc<Client>> {
        let mut by_name: BTreeMap<Arc<str>, Vec<IpNet>> = BTreeMap::new();
        for (name, network) in networks {
            by_name.entry(Arc::from(*name)).or_default().push(*network);
        }
        let place = Place { file: Arc::new(PathBuf::from("patgate.toml")), line: 1, column: 1 };
        by_name
            .into_iter()
            .map(|(name, addresses)| {
                let client = Client { name: Arc::clone(&name), addresses, owner: None, place: place.clone() };
                (name, Arc::new(client))
            })
            .collect()
    }

    #[test]
    fn the_longest_prefix_decides_in_both_families() {
        let networks: Vec<_> = [
            ("all", "10.0.0.0/8"),
            ("agents", "10.20.0.0/16"),
            ("one", "10.20.1.4/32"),
            ("six", "2001:db8::/32"),
            ("six-agents", "2001:db8:20::/48"),
            ("mapped", "::ffff:192.0.2.0/120"),
        ]
        .map(|(name, network)| (name, network.parse().unwrap()))
        .into();
        let table = Table::new(&clients(&networks));
        for (address, expected) in [
            ("10.1.2.3", Some("all")),
            ("10.20.1.3", Some("agents")),
            ("10.20.1.4", Some("one")),
            ("::ffff:10.20.1.4", Some("one")),
            ("::10.20.1.4", None),
            ("11.0.0.1", None),
            ("2001:db8:20::9", Some("six-agents")),
            ("2001:db8:21::9", Some("six")),
            ("2001:db9::1", None),
            ("192.0.2.77", Some("mapped")),
            ("::ffff:192.0.2.77", Some("mapped")),
            ("64:ff9b::10.20.1.4", None),
        ] {
            let found = table.find(address.parse().unwrap()).map(|client| &*client.name);
            assert_eq!(found, expected, "{address}");
        }
    }

    #[test]
    fn every_address_of_everybody_is_found_under_a_prefix_of_length_zero() {
        let networks = [("four", "0.0.0.0/0".parse().unwrap()), ("six", "::/0".parse().unwrap())];
        let table = Table::new(&clients(&networks));
        for (address, expected) in
            [("255.255.255.255", "four"), ("::ffff:0.0.0.0", "four"), ("::", "six"), ("ffff::", "six")]
        {
            assert_eq!(&*table.find(address.parse().unwrap()).unwrap().name, expected, "{address}");
        }
    }

    fn naive(networks: &[(&str, IpNet)], address: IpAddr) -> Option<String> {
        let bits = |address: IpAddr| match address {
            IpAddr::V4(address) => (32, u128::from(u32::from(address)) << 96),
            IpAddr::V6(address) => (128, u128::from(address)),
        };
        let (family, address) = match address {
            IpAddr::V6(six) if u128::from(six) >> 32 == 0xffff => (32, u128::from(six) << 96),
            other => bits(other),
        };
        networks
            .iter()
            .filter(|(_, network)| {
                let (width, start) = bits(network.addr());
                let length = u32::from(network.prefix_len());
                width == family && (length == 0 || (start ^ address) >> (128 - length) == 0)
            })
            .max_by_key(|(_, network)| network.prefix_len())
            .map(|(name, _)| (*name).to_owned())
    }

    /// Few bits vary, so that networks nest and addresses fall into them.
    fn address() -> impl Strategy<Value = IpAddr> {
        let few = || {
            prop::collection::vec(prop::sample::select(vec![0u8, 1, 10, 20, 128, 255]), 4)
                .prop_map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
        };
        prop_oneof![
            few().prop_map(|v4| IpAddr::V4(v4.into())),
            few().prop_map(|v4| IpAddr::V6(Ipv4Addr::from(v4).to_ipv6_mapped())),
            (few(), few())
                .prop_map(|(high, low)| { IpAddr::V6((u128::from(high) << 96 | u128::from(low)).into()) }),
            any::<u128>().prop_map(|v6| IpAddr::V6(v6.into())),
            any::<u32>().prop_map(|v4| IpAddr::V4(v4.into())),
        ]
    }

    fn network() -> impl Strategy<Value = IpNet> {
        (address(), 0u8..=128).prop_map(|(address, length)| match address.to_canonical() {
            address @ IpAddr::V4(_) => IpNet::new(address, length % 33).unwrap().trunc(),
            address @ IpAddr::V6(_) => IpNet::new(address, length).unwrap().trunc(),
        })
    }

    #[test]
    fn the_trie_and_a_naive_search_agree() {
        const NAMES: [&str; 24] = [
            "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q", "r", "s",
            "t", "u", "v", "w", "x",
        ];
        let config = Config { cases: 500, failure_persistence: None, ..Config::default() };
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
        let (mut looked_up, mut found) = (0usize, 0usize);
        let counts = std::cell::RefCell::new((&mut looked_up, &mut found));
        TestRunner::new_with_rng(config, rng)
            .run(
                &(prop::collection::vec(network(), 1..24), prop::collection::vec(address(), 200)),
                |(networks, addresses)| {
                    let mut named: Vec<(&str, IpNet)> = Vec::new();
                    for network in networks {
                        if named.iter().all(|(_, other)| *other != network) {
                            named.push((NAMES[named.len()], network));
                        }
                    }
                    let table = Table::new(&clients(&named));
                    for address in addresses {
                        let ours = table.find(address).map(|client| client.name.to_string());
                        let theirs = naive(&named, address);
                        let mut counts = counts.borrow_mut();
                        *counts.0 += 1;
                        *counts.1 += usize::from(theirs.is_some());
                        prop_assert_eq!(ours, theirs, "{} in {:?}", address, named);
                    }
                    Ok(())
                },
            )
            .unwrap();
        assert!(looked_up >= 100_000, "{looked_up}");
        assert!(found > looked_up / 10, "the addresses must fall into the networks: {found}");
    }
}
