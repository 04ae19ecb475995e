//! From a host's name to addresses that a credential may be sent to.
//!
//! Whoever controls an answer of the DNS must not be able to point Azure DevOps' name at the machine itself, at
//! the metadata service of a cloud, or at another machine of the company's network: TLS would stop the secret,
//! but not the connection. The addresses that are checked are the ones that are connected to.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use tokio::{net::lookup_host, time::timeout};

use super::fault::Fault;
use crate::refusal::Refusal;

/// For one answer of the resolver.
const DEADLINE: Duration = Duration::from_secs(5);

/// More addresses than this are not tried.
const MOST: usize = 8;

/// Looks a host of the closed list up. Addresses alternate between the families, in the resolver's order.
///
/// # Errors
/// `upstream-unreachable` where there is no answer, `upstream-forbidden` where no address of it is public.
pub(super) async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, Fault> {
    let found = lookup(host, port).await?;
    let allowed: Vec<SocketAddr> = found.iter().copied().filter(|address| is_public(address.ip())).collect();
    match (allowed.is_empty(), found.first()) {
        (false, _) => Ok(interleave(allowed)),
        (true, Some(first)) => Err(Fault::new(
            Refusal::UpstreamForbidden,
            format!(
                "{host} leads to {}, which is not a public address; \
                 if that is meant, set it under [upstream] addresses",
                first.ip()
            ),
        )),
        (true, None) => Err(Fault::unreachable(format!("{host} has no address"))),
    }
}

/// Looks any host up, such as the company's own proxy, which may well have a private address.
///
/// # Errors
/// `upstream-unreachable` where there is no answer.
pub(super) async fn lookup(host: &str, port: u16) -> Result<Vec<SocketAddr>, Fault> {
    match timeout(DEADLINE, lookup_host((host, port))).await {
        Ok(Ok(found)) => Ok(found.collect()),
        Ok(Err(error)) => Err(Fault::unreachable(format!("{host} can't be looked up: {error}"))),
        Err(_) => {
            Err(Fault::unreachable(format!("{host} could not be looked up within {} s", DEADLINE.as_secs())))
        }
    }
}

/// First of one family, then of the other, so that one broken family costs one attempt (RFC 8305, section 4).
fn interleave(found: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = found.first().is_some_and(SocketAddr::is_ipv6);
    let (one, other): (Vec<_>, Vec<_>) = found.into_iter().partition(|a| a.is_ipv6() == first_is_v6);
    let (mut one, mut other) = (one.into_iter(), other.into_iter());
    let mut mixed = Vec::new();
    while mixed.len() < MOST {
        let before = mixed.len();
        mixed.extend(one.next());
        mixed.extend(other.next());
        if mixed.len() == before {
            break;
        }
    }
    mixed
}

/// Whether an address belongs to the public internet (the IANA registries of special-purpose addresses).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(v4: Ipv4Addr) -> bool {
    let [a, b, c, _] = v4.octets();
    let special = v4.is_private()
        || v4.is_loopback()
        || v4.is_link_local()
        || v4.is_multicast()
        || v4.is_broadcast()
        || v4.is_documentation()
        || a == 0
        || a >= 240
        || (a == 100 && (64..128).contains(&b)) // carrier-grade NAT; also a cloud's metadata, 100.100.100.200
        || (a == 168 && b == 63 && c == 129) // Azure's own wire server, 168.63.129.16
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && (18..20).contains(&b));
    !special
}

fn is_public_v6(v6: Ipv6Addr) -> bool {
    let segments = v6.segments();
    let [first, second, ..] = segments;
    if let Some(v4) = inner_v4(segments) {
        return is_public_v4(v4);
    }
    // 2000::/3 alone is handed out; of it, not Teredo, ORCHID, benchmarks and the like (2001::/23),
    // documentation (2001:db8::/32, 3fff::/20).
    (first & 0xe000) == 0x2000
        && !(first == 0x2001 && (second < 0x0200 || second == 0x0db8))
        && !(first == 0x3fff && second < 0x1000)
}

/// The IPv4 address that a mapped, compatible, translated (NAT64) or 6to4 address stands for.
fn inner_v4(segments: [u16; 8]) -> Option<Ipv4Addr> {
    let join = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    match segments {
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..] => Some(join(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_connected_to() {
        for (address, public) in [
            ("13.107.42.20", true),
            ("150.171.22.17", true),
            ("100.63.255.255", true),
            ("172.32.0.1", true),
            ("198.20.0.1", true),
            ("2620:1ec:21::19", true),
            ("2603:1030::1", true),
            ("::ffff:13.107.42.20", true),
            ("64:ff9b::13.107.42.20", true),
            ("0.0.0.0", false),
            ("0.1.2.3", false),
            ("10.0.0.1", false),
            ("100.64.0.1", false),
            ("100.100.100.200", false),
            ("127.0.0.1", false),
            ("127.9.9.9", false),
            ("168.63.129.16", false),
            ("169.254.169.254", false),
            ("172.16.0.1", false),
            ("172.31.255.255", false),
            ("192.0.0.192", false),
            ("192.0.2.1", false),
            ("192.168.1.1", false),
            ("198.18.0.1", false),
            ("224.0.0.1", false),
            ("240.0.0.1", false),
            ("255.255.255.255", false),
            ("::", false),
            ("::1", false),
            ("::7f00:1", false),
            ("::ffff:127.0.0.1", false),
            ("::ffff:169.254.169.254", false),
            ("::ffff:0:10.0.0.1", false),
            ("64:ff9b::10.0.0.1", false),
            ("64:ff9b:1::1", false),
            ("2002:a00:1::1", false),
            ("2001::1", false),
            ("2001:db8::1", false),
            ("3fff::1", false),
            ("fc00::1", false),
            ("fd00:ec2::254", false),
            ("fe80::1", false),
            ("fec0::1", false),
            ("ff02::1", false),
            ("100::1", false),
        ] {
            assert_eq!(is_public(address.parse().unwrap()), public, "{address}");
        }
    }

    #[test]
    fn families_alternate_and_their_number_is_bounded() {
        let v4 = |n: u8| SocketAddr::from(([1, 1, 1, n], 443));
        let v6 = |n: u16| SocketAddr::from(([0x2620, 0, 0, 0, 0, 0, 0, n], 443));
        assert_eq!(interleave(vec![v6(1), v6(2), v4(1)]), [v6(1), v4(1), v6(2)]);
        assert_eq!(interleave((1..=20).map(v4).collect()).len(), MOST);
        assert!(interleave(Vec::new()).is_empty());
    }

    #[tokio::test]
    async fn a_name_that_leads_to_this_machine_is_refused() {
        let fault = resolve("localhost", 443).await.unwrap_err();
        assert_eq!(fault.why, Refusal::UpstreamForbidden);
        assert!(fault.detail.contains("[upstream] addresses"), "{fault:?}");
    }
}
