//! What a reload can't change while patgate runs.

use super::{Audit, Config, Listen};

/// The keys that differ between two configurations and that only a new process takes over, dotted.
///
/// Clients, rules, credentials, vaults, limits, expectations and the content of certificates, keys and CAs change
/// live, so they are never named. An empty answer: `new` may replace `old`.
#[must_use]
pub fn unreloadable(old: &Config, new: &Config) -> Vec<String> {
    let mut keys = Vec::new();
    let mut differs = |key: &str, differs: bool| {
        if differs && !keys.iter().any(|known| known == key) {
            keys.push(key.to_owned());
        }
    };
    differs("public-url", old.public_url != new.public_url);
    differs("workers", old.workers != new.workers);
    differs("listen", old.listeners.len() != new.listeners.len());
    for (old, new) in old.listeners.iter().zip(&new.listeners) {
        listen(old, new, &mut differs);
    }
    differs(
        "admin.address",
        old.admin.as_ref().map(|admin| admin.address) != new.admin.as_ref().map(|admin| admin.address),
    );
    differs("state.folder", old.state != new.state);
    audit(&old.audit, &new.audit, &mut differs);
    differs("upstream.addresses", old.upstream.addresses != new.upstream.addresses);
    differs(
        "upstream.ca",
        old.upstream.ca.as_ref().map(|(path, _)| path) != new.upstream.ca.as_ref().map(|(path, _)| path),
    );
    differs("outbound.proxy", old.outbound.proxy != new.outbound.proxy);
    differs("outbound.no-proxy", old.outbound.no_proxy != new.outbound.no_proxy);
    keys
}

fn listen(old: &Listen, new: &Listen, differs: &mut impl FnMut(&str, bool)) {
    differs("listen.address", old.address != new.address);
    differs("listen.certificate", old.tls.is_some() != new.tls.is_some());
    differs("listen.names", old.names != new.names);
    differs("listen.public-url", old.public_url != new.public_url);
    differs("listen.http2", old.http2 != new.http2);
}

fn audit(old: &Audit, new: &Audit, differs: &mut impl FnMut(&str, bool)) {
    differs("audit.folder", old.folder != new.folder);
    differs("audit.durability", old.durability != new.durability);
    differs("audit.segment-size", old.segment_size != new.segment_size);
    differs("audit.segment-age", old.segment_age != new.segment_age);
    differs("audit.reserve", old.reserve != new.reserve);
}
