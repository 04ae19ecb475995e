//! `[[listen]]`, `[upstream]`, `[outbound]` and URLs: who is answered where, and what is reached how.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use http::uri::{Authority, Scheme, Uri};

use super::{
    Listen, Outbound, PublicUrl, Upstream,
    disk::Base,
    parse::{Fields, Item},
    suggest,
    text::shown,
    tls, units,
};

/// The hosts whose address `[upstream]` may set.
const HOSTS: &[&str] = &["dev.azure.com", "vssps.dev.azure.com"];

/// `[[listen]]`. `main` is `None` where `public-url` itself has a problem.
pub(super) fn listeners(root: &Fields<'_>, main: Option<&PublicUrl>, base: &Base) -> Vec<Arc<Listen>> {
    let sections = root.listed("listen");
    if sections.is_empty() && root.optional("listen").is_none() {
        let text = "is missing; write [[listen]] with an address such as \"127.0.0.1:8080\"";
        root.notes().absence(root.place(), "listen", text);
    }
    let mut taken: Vec<SocketAddr> = Vec::new();
    sections
        .into_iter()
        .filter_map(|fields| {
            let listen = listener(&fields, main, base, &mut taken);
            fields.finish();
            listen.map(Arc::new)
        })
        .collect()
}

fn listener(
    fields: &Fields<'_>,
    main: Option<&PublicUrl>,
    base: &Base,
    taken: &mut Vec<SocketAddr>,
) -> Option<Listen> {
    let address = fields
        .required("address", "write address = \"0.0.0.0:8443\"")
        .and_then(|item| socket_address(&item).map(|address| (address, item)));
    let http2 = fields.optional("http2").and_then(|item| item.boolean()).unwrap_or(false);
    let plain_text = fields.optional("plain-text").map(|item| (item.boolean().unwrap_or(false), item));
    let pair = (fields.optional("certificate"), fields.optional("key"));
    let tls = match &pair {
        (Some(certificate), Some(key)) => tls::listener(certificate, key, http2, base),
        (Some(certificate), None) => {
            certificate.problem("stands without its key; add key = \"certs/server.key\"");
            None
        }
        (None, Some(key)) => {
            key.problem("stands without its certificate; add certificate = \"certs/server.pem\"");
            None
        }
        (None, None) => None,
    };
    let encrypted = pair.0.is_some() || pair.1.is_some();
    if let (true, Some((true, item))) = (encrypted, &plain_text) {
        item.problem("contradicts the certificate; leave one of the two out");
    }
    let names = fields.optional("names").map(|item| hosts(&item)).unwrap_or_default();
    let public_url =
        fields.optional("public-url").and_then(|item| public_url(&item)).or_else(|| main.cloned());

    let (address, item) = address?;
    if taken.contains(&address) && address.port() != 0 {
        item.problem(format!("{address} is listened on twice; give each listener an address of its own"));
    }
    taken.push(address);
    let allowed = plain_text.is_some_and(|(allowed, _)| allowed);
    if !encrypted && !allowed && !units::is_loopback(address.ip()) {
        item.problem(format!(
            "{address} is not on loopback and would be plain HTTP; add certificate and key, or, behind something \
             that ends TLS, plain-text = true"
        ));
    }
    Some(Listen { address, tls, names, public_url: public_url?, http2 })
}

/// `[upstream]`.
pub(super) fn upstream(root: &Fields<'_>, base: &Base) -> Upstream {
    let section = root.optional("upstream").and_then(|item| item.table("write [upstream] above its keys"));
    let Some(fields) = section else { return Upstream::default() };
    let table = fields.optional("addresses");
    let ca = fields.optional("ca");
    fields.finish();

    let right = "write addresses = { \"dev.azure.com\" = \"127.0.0.1:9443\" }";
    let mut addresses = BTreeMap::new();
    for (host, item) in table.as_ref().and_then(|item| item.table(right)).iter().flat_map(Fields::entries) {
        let known = HOSTS.iter().find(|known| known.eq_ignore_ascii_case(host));
        if known.is_none() {
            item.problem(format!(
                "\"{}\" is not a host of Azure DevOps that can be set; {}",
                shown(host),
                suggest::instead(host, HOSTS)
            ));
        }
        if let (Some(host), Some(address)) = (known, socket_address(&item)) {
            addresses.insert(Arc::from(*host), address);
        }
    }
    if let (Some(ca), None) = (&ca, &table) {
        ca.problem(
            "counts for the hosts of `addresses` alone, and there are none; add addresses, or leave it out",
        );
    }
    Upstream { addresses, ca: ca.and_then(|item| tls::authorities(&item, base)) }
}

/// `[outbound]`.
pub(super) fn outbound(root: &Fields<'_>) -> Outbound {
    let section = root.optional("outbound").and_then(|item| item.table("write [outbound] above its keys"));
    let Some(fields) = section else { return Outbound::default() };
    let proxy = fields.optional("proxy");
    let no_proxy = fields.optional("no-proxy");
    fields.finish();
    if let (Some(item), None) = (&no_proxy, &proxy) {
        item.problem("makes an exception from a proxy that is not there; add proxy, or leave it out");
    }
    Outbound {
        proxy: proxy.and_then(|item| proxy_authority(&item)),
        no_proxy: no_proxy.map(|item| hosts(&item)).unwrap_or_default(),
    }
}

fn proxy_authority(item: &Item<'_>) -> Option<Authority> {
    // The value may hold a password, so no message shows it.
    let right = "write the proxy as http://proxy.corp.example:8080, without user, password or path";
    let authority = item.string()?.parse::<Uri>().ok().filter(|uri| {
        uri.scheme() == Some(&Scheme::HTTP) && matches!(uri.path(), "" | "/") && uri.query().is_none()
    });
    let authority = authority
        .and_then(|uri| uri.authority().cloned())
        .filter(|authority| is_plain(authority) && authority.port_u16().is_some_and(|port| port != 0));
    item.check(authority.ok_or_else(|| format!("is not a proxy's URL; {right}")))
}

/// A URL that clients use: scheme and authority, nothing else.
pub(super) fn public_url(item: &Item<'_>) -> Option<PublicUrl> {
    let text = item.string()?;
    let wrong =
        || "is not such a URL; write https://patgate.corp.example, with no user, path or query".to_string();
    let parts = item.check(text.parse::<Uri>().map(Uri::into_parts).map_err(|_| wrong()))?;
    let path = parts.path_and_query.as_ref().map_or("", |path| path.as_str());
    match (parts.scheme, parts.authority) {
        (Some(scheme), Some(authority))
            if (scheme == Scheme::HTTP || scheme == Scheme::HTTPS)
                && matches!(path, "" | "/")
                && !text.contains('#')
                && is_plain(&authority) =>
        {
            let authority = item.check(canonical(&scheme, &authority).ok_or_else(wrong))?;
            Some(PublicUrl { scheme, authority })
        }
        _ => item.check(Err(wrong())),
    }
}

/// Lower case, and without the scheme's own port.
fn canonical(scheme: &Scheme, authority: &Authority) -> Option<Authority> {
    let own = if *scheme == Scheme::HTTPS { 443 } else { 80 };
    let host = authority.host().to_ascii_lowercase();
    match authority.port_u16() {
        Some(port) if port != own => format!("{host}:{port}").parse().ok(),
        _ => host.parse().ok(),
    }
}

/// A host and perhaps a port: no user, no empty host, no odd port.
pub(super) fn is_plain(authority: &Authority) -> bool {
    let bracketed = authority.host().starts_with('[');
    let host_ok = if bracketed {
        authority.host().trim_matches(['[', ']']).parse::<std::net::Ipv6Addr>().is_ok()
    } else {
        is_host(authority.host())
    };
    let port_ok = authority.as_str().len() == authority.host().len() || authority.port_u16().is_some();
    !authority.as_str().contains('@') && host_ok && port_ok
}

fn is_host(text: &str) -> bool {
    const LONGEST: usize = 253;
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    text.len() <= LONGEST && text.split('.').all(label)
}

fn hosts(item: &Item<'_>) -> Vec<Arc<str>> {
    let right = "write host names, such as [\"git.corp.example\"]";
    let mut hosts: Vec<Arc<str>> = Vec::new();
    for item in item.array(right).unwrap_or_default() {
        let Some(text) = item.string() else { continue };
        let host: Arc<str> = text.to_ascii_lowercase().into();
        let address = text.parse::<std::net::IpAddr>().is_ok();
        if !address && !is_host(text) {
            item.problem(format!(
                "\"{}\" is no host name; write git.corp.example, with no scheme, port or path",
                shown(text)
            ));
        } else if hosts.contains(&host) {
            item.problem(format!("{host} stands here twice; keep one"));
        } else {
            hosts.push(host);
        }
    }
    hosts
}

/// An IP address and a port.
pub(super) fn socket_address(item: &Item<'_>) -> Option<SocketAddr> {
    let text = item.string()?;
    item.check(text.parse().map_err(|_| {
        let right = "write an IP address and a port, such as 127.0.0.1:8443 or [::1]:8443";
        format!("\"{}\" is no address; {right}", shown(text))
    }))
}
