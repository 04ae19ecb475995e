//! Whether a request is meant for patgate: its `Host`, or `:authority`.
//!
//! A name that is not ours is a client that was led here by DNS (rebinding) or a cache that was led astray. And a
//! page of another site, open in a browser on an allowed address, must not write with a credential: browsers name
//! the site in `Origin`, and send such a form without asking first.

use std::net::{IpAddr, Ipv6Addr};

use http::{HeaderValue, Version, header, request::Parts};

use crate::{config::Listen, refusal::Refusal};

/// Refuses a request that names no host, several, or one that this listener does not answer for, and one that
/// would write for a page of another site.
///
/// # Errors
/// `host-unknown`
pub fn check(head: &Parts, listen: &Listen) -> Result<(), Refusal> {
    let mut hosts = head.headers.get_all(header::HOST).iter();
    let host = hosts.next().map(|value| value.to_str().map_err(|_| Refusal::HostUnknown)).transpose()?;
    if hosts.next().is_some() {
        return Err(Refusal::HostUnknown);
    }
    let authority = match head.version {
        Version::HTTP_2 => head.uri.authority().map(http::uri::Authority::as_str),
        _ => None,
    };
    let named = match (authority, host) {
        (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host) => {
            return Err(Refusal::HostUnknown);
        }
        (Some(named), _) | (None, Some(named)) => named,
        (None, None) => return Err(Refusal::HostUnknown),
    };
    if answers(named, listen) && !is_of_another_site(head, listen) {
        Ok(())
    } else {
        Err(Refusal::HostUnknown)
    }
}

/// Whether a page of another site makes this request, which would write. One that only reads shows that page
/// nothing, since no answer allows it to look.
pub(super) fn is_of_another_site(head: &Parts, listen: &Listen) -> bool {
    let is_own = |origin: &HeaderValue| {
        let text = origin.to_str().unwrap_or_default();
        let secure = text.strip_prefix("https://").map(|rest| (rest, 443));
        let Some((rest, usual)) = secure.or_else(|| text.strip_prefix("http://").map(|rest| (rest, 80)))
        else {
            return false;
        };
        split(rest).is_some_and(|(name, port)| is_own(name, Some(port.unwrap_or(usual)), listen))
    };
    !head.method.is_safe() && !head.headers.get_all(header::ORIGIN).iter().all(is_own)
}

fn answers(named: &str, listen: &Listen) -> bool {
    split(named).is_some_and(|(name, port)| is_own(name, port, listen))
}

fn is_own(name: &str, port: Option<u16>, listen: &Listen) -> bool {
    let public = &listen.public_url.authority;
    let scheme_port = if listen.public_url.scheme == http::uri::Scheme::HTTPS { 443 } else { 80 };
    let public_port = public.port_u16().unwrap_or(scheme_port);
    if port.is_some_and(|port| port != public_port && port != listen.address.port()) {
        return false;
    }
    let loopback = listen.address.ip().to_canonical().is_loopback();
    name.eq_ignore_ascii_case(public.host())
        || listen.names.iter().any(|own| name.eq_ignore_ascii_case(own))
        || (loopback && name.eq_ignore_ascii_case("localhost"))
        || address(name).is_some_and(|address| {
            address == listen.address.ip().to_canonical() || (loopback && address.is_loopback())
        })
}

/// The name (an IPv6 address in its brackets) and the port.
fn split(named: &str) -> Option<(&str, Option<u16>)> {
    let colon = named.rfind(':').filter(|colon| named.rfind(']').is_none_or(|bracket| bracket < *colon));
    let Some(colon) = colon else { return Some((named, None)) };
    let (name, port) = (named.get(..colon)?, named.get(colon + 1..)?);
    if port.is_empty() || port.len() > 5 || !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some((name, Some(port.parse().ok()?)))
}

fn address(name: &str) -> Option<IpAddr> {
    let address = match name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
        Some(inner) => IpAddr::V6(inner.parse::<Ipv6Addr>().ok()?),
        None => IpAddr::V4(name.parse().ok()?),
    };
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PublicUrl;

    fn listen(address: &str, public: &str) -> Listen {
        let public = http::Uri::try_from(public).unwrap();
        Listen {
            address: address.parse().unwrap(),
            tls: None,
            names: vec!["git.corp.example".into()],
            public_url: PublicUrl {
                scheme: public.scheme().unwrap().clone(),
                authority: public.authority().unwrap().clone(),
            },
            http2: false,
        }
    }

    fn verdict(listen: &Listen, version: Version, uri: &str, hosts: &[&str]) -> bool {
        let mut request = http::Request::builder().version(version).uri(uri);
        for host in hosts {
            request = request.header(header::HOST, *host);
        }
        check(&request.body(()).unwrap().into_parts().0, listen).is_ok()
    }

    #[test]
    fn only_own_names_are_answered() {
        let corp = listen("10.0.0.5:8443", "https://patgate.corp.example");
        let local = listen("127.0.0.1:8443", "https://localhost:8443");
        let six = listen("[2001:db8::5]:8443", "https://[2001:db8::5]:8443");
        for (listen, host, answered) in [
            (&corp, "patgate.corp.example", true),
            (&corp, "PATGATE.corp.example:443", true),
            (&corp, "patgate.corp.example:8443", true),
            (&corp, "patgate.corp.example:80", false),
            (&corp, "git.corp.example", true),
            (&corp, "git.corp.example:8443", true),
            (&corp, "10.0.0.5:8443", true),
            (&corp, "10.0.0.6:8443", false),
            (&corp, "localhost:8443", false),
            (&corp, "127.0.0.1:8443", false),
            (&corp, "dev.azure.com", false),
            (&corp, "patgate.corp.example.", false),
            (&corp, "patgate.corp.example.evil", false),
            (&corp, "", false),
            (&corp, ":8443", false),
            (&corp, "a@patgate.corp.example", false),
            (&corp, "patgate.corp.example@evil", false),
            (&corp, "a@b/c", false),
            (&corp, "patgate.corp.example/c", false),
            (&corp, "patgate.corp.example:", false),
            (&corp, "patgate.corp.example:x", false),
            (&corp, "patgate.corp.example:+443", false),
            (&corp, "patgate.corp.example, evil", false),
            (&local, "localhost:8443", true),
            (&local, "LOCALHOST", true),
            (&local, "127.0.0.1:8443", true),
            (&local, "[::1]:8443", true),
            (&local, "127.0.0.1:1", false),
            (&local, "127.1:8443", false),
            (&local, "evil.example:8443", false),
            (&six, "[2001:DB8:0::5]:8443", true),
            (&six, "[2001:db8::5]", true),
            (&six, "[2001:db8::6]:8443", false),
            (&six, "2001:db8::5", false),
        ] {
            assert_eq!(verdict(listen, Version::HTTP_11, "/contoso", &[host]), answered, "{host}");
        }
    }

    #[test]
    fn a_page_of_another_site_writes_nothing() {
        let corp = listen("10.0.0.5:8443", "https://patgate.corp.example");
        let local = listen("127.0.0.1:8080", "http://localhost:8080");
        for (listen, method, origins, passes) in [
            (&corp, "POST", &[] as &[&str], true),
            (&corp, "POST", &["https://patgate.corp.example"], true),
            (&corp, "POST", &["https://git.corp.example:8443"], true),
            (&corp, "POST", &["https://evil.example"], false),
            (&corp, "POST", &["https://patgate.corp.example.evil.example"], false),
            (&corp, "POST", &["http://patgate.corp.example"], false),
            (&corp, "POST", &["null"], false),
            (&corp, "POST", &[""], false),
            (&corp, "POST", &["https://patgate.corp.example", "https://evil.example"], false),
            (&corp, "PATCH", &["https://evil.example"], false),
            (&corp, "DELETE", &["https://evil.example"], false),
            (&corp, "GET", &["https://evil.example"], true),
            (&corp, "OPTIONS", &["https://evil.example"], true),
            (&local, "POST", &["http://localhost:8080"], true),
            (&local, "POST", &["http://127.0.0.1:8080"], true),
            (&local, "POST", &["http://localhost:3000"], false),
            (&local, "POST", &["http://localhost"], false),
        ] {
            let host = listen.public_url.authority.as_str();
            let mut request =
                http::Request::builder().method(method).uri("/contoso").header(header::HOST, host);
            for origin in origins {
                request = request.header(header::ORIGIN, *origin);
            }
            let head = request.body(()).unwrap().into_parts().0;
            assert_eq!(check(&head, listen).is_ok(), passes, "{method} {origins:?}");
        }
    }

    #[test]
    fn one_host_is_needed_and_no_second() {
        let corp = listen("10.0.0.5:8443", "https://patgate.corp.example");
        let own = "patgate.corp.example";
        for version in [Version::HTTP_10, Version::HTTP_11] {
            assert!(verdict(&corp, version, "/contoso", &[own]));
            assert!(!verdict(&corp, version, "/contoso", &[]));
            assert!(!verdict(&corp, version, "/contoso", &[own, own]));
        }
        let url = "https://patgate.corp.example/contoso";
        for (uri, hosts, answered) in [
            (url, &[] as &[&str], true),
            (url, &["Patgate.corp.example"], true),
            (url, &["git.corp.example"], false),
            (url, &[own, own], false),
            ("https://a:b@patgate.corp.example/contoso", &[], false),
            ("https://evil/contoso", &[], false),
            ("/contoso", &[], false),
            ("/contoso", &[own], true),
        ] {
            assert_eq!(verdict(&corp, Version::HTTP_2, uri, hosts), answered, "{uri} {hosts:?}");
        }
    }
}
