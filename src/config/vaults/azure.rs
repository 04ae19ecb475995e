//! `type = "azure-key-vault"`, and `[credential.NAME] type = "entra"`.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use super::{
    super::{
        disk::Base,
        parse::{Fields, Item},
        text::shown,
    },
    Lifetime, Trust, VaultSource,
    identity::{self, Identity},
};

/// The domains of Key Vault, and who gives tokens for them.
const CLOUDS: &[(&str, &str)] = &[
    (".vault.azure.net", "login.microsoftonline.com"),
    (".vault.azure.cn", "login.chinacloudapi.cn"),
    (".vault.usgovcloudapi.net", "login.microsoftonline.us"),
];

/// Where a virtual machine asks for its identity.
const METADATA: &str = "169.254.169.254";

/// Azure Key Vault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AzureKeyVault {
    /// Its host, such as `corp.vault.azure.net`. Lower case, in a domain of Key Vault's. Reached over TLS alone.
    pub host: Arc<str>,
    /// Whose certificates are believed, the authority's (of tokens) too.
    pub trust: Trust,
    /// Where hosts are reached, for labs; never what they are called.
    pub addresses: BTreeMap<Arc<str>, SocketAddr>,
    /// Who asks.
    pub identity: Identity,
}

/// An identity of Entra that Azure DevOps knows: a credential that makes its own tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entra {
    /// Whose certificates are believed.
    pub trust: Trust,
    /// Where hosts are reached, for labs; never what they are called.
    pub addresses: BTreeMap<Arc<str>, SocketAddr>,
    /// Who asks.
    pub identity: Identity,
}

impl Entra {
    /// How long a token is used. Its own end, an hour or more away, bounds both.
    #[must_use]
    pub const fn lifetime(&self) -> Lifetime {
        Lifetime {
            refresh: Duration::from_mins(30),
            stale_for: Duration::from_hours(24),
            deadline: Duration::from_secs(15),
            keep_when_denied: Duration::ZERO,
        }
    }
}

/// The keys of such a vault.
pub(super) fn read(fields: &Fields<'_>, base: &Base) -> Option<VaultSource> {
    let address = fields
        .required("address", "write address = \"https://NAME.vault.azure.net\"")
        .and_then(|item| item.check(host(item.string()?)));
    let authority = address.as_ref().map(|(_, authority)| *authority);
    let identity = identity::read(fields, base, authority);
    let (trust, addresses) = (Trust::read(fields, base), addresses(fields));
    let host = address?.0.into();
    Some(VaultSource::AzureKeyVault(AzureKeyVault { host, trust, addresses, identity: identity? }))
}

/// The keys of `[credential.NAME] type = "entra"`.
pub(super) fn entra(fields: &Fields<'_>, base: &Base) -> Option<Entra> {
    let identity = identity::read(fields, base, None);
    let (trust, addresses) = (Trust::read(fields, base), addresses(fields));
    Some(Entra { trust, addresses, identity: identity? })
}

/// What such a vault calls a secret: its name, or `name/version`. No message shows it.
pub(super) fn secret(item: &Item<'_>, text: &str) -> Option<Arc<str>> {
    if is_secret(text) {
        return Some(text.into());
    }
    item.problem(
        "is no name of a secret in Key Vault; write the name alone, such as \"ado-web-read\" (letters, digits and -), \
         or name/version",
    );
    None
}

/// A name of 1 to 127 characters, perhaps with a version.
fn is_secret(text: &str) -> bool {
    let (name, version) = text.split_once('/').map_or((text, None), |(name, version)| (name, Some(version)));
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    (1..=127).contains(&name.len())
        && name.bytes().all(plain)
        && version.is_none_or(|version| {
            (1..=64).contains(&version.len()) && version.bytes().all(|byte| byte.is_ascii_alphanumeric())
        })
}

/// The vault's host, and who usually gives tokens for it.
fn host(address: &str) -> Result<(String, &'static str), String> {
    let right = "write https://NAME.vault.azure.net, as Azure shows it (.vault.azure.cn and \
                 .vault.usgovcloudapi.net are known too)";
    let shown = shown(address);
    let Some(host) = address.strip_prefix("https://") else {
        return Err(format!("\"{shown}\" does not begin with https://; {right}"));
    };
    let host = host.strip_suffix('/').unwrap_or(host).to_ascii_lowercase();
    let cloud = CLOUDS.iter().find_map(|(domain, authority)| Some((host.strip_suffix(domain)?, authority)));
    let Some((name, authority)) = cloud else {
        return Err(format!("\"{shown}\" is not in a domain of Key Vault's; {right}"));
    };
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if !(3..=24).contains(&name.len()) || !plain || name.starts_with('-') || name.ends_with('-') {
        return Err(format!("\"{shown}\" is no address of a key vault; {right}"));
    }
    Ok((host, authority))
}

fn addresses(fields: &Fields<'_>) -> BTreeMap<Arc<str>, SocketAddr> {
    let right = "write addresses = { \"corp.vault.azure.net\" = \"127.0.0.1:9443\" }";
    let table = fields.optional("addresses").and_then(|item| item.table(right));
    let entries = table.iter().flat_map(Fields::entries);
    entries
        .filter_map(|(name, item)| {
            let name = if name == METADATA { Ok(name.to_owned()) } else { identity::host(name) };
            let name = item.check(name);
            let address = item.string().and_then(|text| {
                let address = text.parse::<SocketAddr>().ok().filter(|address| address.port() != 0);
                let wrong = format!("\"{}\" is no address with a port; {right}", shown(text));
                item.check(address.ok_or(wrong))
            })?;
            // Plain HTTP, for a machine's identity, leaves the machine on no way.
            let name = name?;
            if name == METADATA && !is_near(address.ip()) {
                item.problem(format!("{address} is another machine's; {METADATA} is asked without TLS, so write a loopback address"));
                return None;
            }
            Some((name.into(), address))
        })
        .collect()
}

fn is_near(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_one_of_a_key_vault_and_brings_its_authority() {
        for (address, expected) in [
            ("https://corp.vault.azure.net", ("corp.vault.azure.net", "login.microsoftonline.com")),
            ("https://Corp-1.vault.azure.net/", ("corp-1.vault.azure.net", "login.microsoftonline.com")),
            ("https://corp.vault.azure.cn", ("corp.vault.azure.cn", "login.chinacloudapi.cn")),
            (
                "https://corp.vault.usgovcloudapi.net",
                ("corp.vault.usgovcloudapi.net", "login.microsoftonline.us"),
            ),
        ] {
            assert_eq!(host(address), Ok((expected.0.to_owned(), expected.1)), "{address}");
        }
        for address in [
            "corp.vault.azure.net",
            "http://corp.vault.azure.net",
            "https://corp.vault.azure.net:8443",
            "https://corp.vault.azure.net/secrets/x",
            "https://corp.vault.azure.net.evil.example",
            "https://evil.example/.vault.azure.net",
            "https://user@corp.vault.azure.net",
            "https://evil.example?.vault.azure.net",
            "https://a.b.vault.azure.net",
            "https://.vault.azure.net",
            "https://vault.azure.net",
            "https://corp.managedhsm.azure.net",
            "https://127.0.0.1",
        ] {
            let wrong = host(address).unwrap_err();
            assert!(wrong.contains("write https://NAME.vault.azure.net"), "{address}: {wrong}");
        }
    }

    #[test]
    fn a_secret_is_a_name_and_perhaps_a_version() {
        for (text, good) in [
            ("ado-web-read", true),
            ("ado-web-read/0123456789abcdef0123456789abcdef", true),
            ("A1", true),
            ("", false),
            ("a_b", false),
            ("a/", false),
            ("/b", false),
            ("a/b/c", false),
            ("a/../b", false),
            ("a?x=1", false),
            ("https://corp.vault.azure.net/secrets/a", false),
            (&"a".repeat(128), false),
        ] {
            assert_eq!(is_secret(text), good, "{text}");
        }
    }
}
