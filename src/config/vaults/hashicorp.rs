//! `type = "hashicorp"`: HashiCorp Vault or OpenBao.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, sync::Arc};

use http::uri::Authority;
use rustls::pki_types::CertificateDer;

use super::{
    super::{
        disk::Base,
        network,
        parse::{Fields, Item},
        suggest,
        text::shown,
        tls,
    },
    Trust, VaultSource,
};

/// Where Kubernetes puts the token of a pod's service account.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

const METHODS: &[&str] = &["approle", "kubernetes", "jwt", "certificate", "token-file", "token-helper"];

/// HashiCorp Vault or OpenBao.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hashicorp {
    /// Scheme and authority, with no slash at the end: `https://vault.corp.example:8200`. Plain HTTP leads to
    /// loopback addresses alone.
    pub address: Arc<str>,
    /// Host to the address it is reached at. It keeps its name.
    pub addresses: BTreeMap<Arc<str>, SocketAddr>,
    /// Whose certificates are believed.
    pub trust: Trust,
    /// The namespace of every request, with no slash at either end.
    pub namespace: Option<Arc<str>>,
    /// The version of the KV engine. `None`: the vault is asked.
    pub kv: Option<Kv>,
    /// How patgate logs in.
    pub auth: HashicorpAuth,
}

/// A version of the KV engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kv {
    /// A value alone.
    V1,
    /// A value with its versions.
    V2,
}

/// How patgate logs in. Mounts are paths below `auth/`, with no slash at either end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashicorpAuth {
    /// A role and its secret.
    AppRole {
        /// Default `approle`.
        mount: Arc<str>,
        /// The role's id, which is no secret.
        role_id: Arc<str>,
        /// The file of the secret id, read at each login.
        secret_id_file: PathBuf,
        /// The file holds a response-wrapping token instead, which gives the secret id once.
        wrapped: bool,
    },
    /// A signed token of another authority: `kubernetes` and `jwt`.
    Jwt {
        /// Default `kubernetes` or `jwt`.
        mount: Arc<str>,
        /// The role to log in to.
        role: Arc<str>,
        /// The token's file, read at each login.
        token_file: PathBuf,
    },
    /// A TLS client certificate.
    Certificate {
        /// Default `cert`.
        mount: Arc<str>,
        /// The certificate role; `None`: any that the certificate fits.
        name: Option<Arc<str>>,
        /// The certificate and its key.
        identity: ClientIdentity,
    },
    /// A token of the vault in a file, which something else keeps fresh.
    TokenFile(PathBuf),
    /// A program that prints a token of the vault: its path and its arguments.
    TokenHelper(Vec<Arc<str>>),
}

/// A certificate that patgate shows of itself, proved to belong to its key. The key itself is not kept here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientIdentity {
    /// The certificate, then its chain.
    pub chain: Vec<CertificateDer<'static>>,
    /// The file of the private key.
    pub key: PathBuf,
}

/// The keys of such a vault.
pub(super) fn read(fields: &Fields<'_>, base: &Base) -> Option<VaultSource> {
    let addresses = addresses(fields);
    let address = fields
        .required("address", "write address = \"https://vault.corp.example:8200\"")
        .and_then(|item| address(&item, &addresses));
    let trust = Trust::read(fields, base);
    let namespace = fields
        .optional("namespace")
        .map(|item| path(&item, "write a namespace, such as \"platform\" or \"platform/build\""));
    let kv = fields.optional("kv").and_then(|item| item.count(1..=2));
    let kv = kv.map(|version| if version == 1 { Kv::V1 } else { Kv::V2 });
    let auth = fields
        .required("auth", "write auth = { method = \"approle\", … }")
        .and_then(|item| auth(&item, base));
    // A namespace that is wrong is none to go without.
    let namespace = match namespace {
        Some(namespace) => Some(namespace?),
        None => None,
    };
    Some(VaultSource::Hashicorp(Hashicorp {
        address: address?,
        addresses,
        trust,
        namespace,
        kv,
        auth: auth?,
    }))
}

/// `addresses = { "vault.corp.example" = "127.0.0.1:8200" }`.
fn addresses(fields: &Fields<'_>) -> BTreeMap<Arc<str>, SocketAddr> {
    let right = "write { \"vault.corp.example\" = \"127.0.0.1:8200\" }";
    let Some(table) = fields.optional("addresses").and_then(|item| item.table(right)) else {
        return BTreeMap::new();
    };
    let entries = table.entries().into_iter();
    entries
        .filter_map(|(host, item)| Some((host.to_ascii_lowercase().into(), network::socket_address(&item)?)))
        .collect()
}

fn address(item: &Item<'_>, addresses: &BTreeMap<Arc<str>, SocketAddr>) -> Option<Arc<str>> {
    let right = "write https://vault.corp.example:8200, with no user, path or query";
    let text = item.string()?;
    let uri: Option<http::Uri> = text.parse().ok().filter(|_| !text.contains('#'));
    let parts = uri.map(http::Uri::into_parts);
    let Some((scheme, authority)) = parts.and_then(|parts| {
        let path = parts.path_and_query.as_ref().map_or("", |path| path.as_str());
        let authority = parts.authority.filter(network::is_plain)?;
        matches!(path, "" | "/").then_some((parts.scheme?, authority))
    }) else {
        return item.check(Err(format!("is not such a URL; {right}")));
    };
    let authority = authority.as_str().to_ascii_lowercase();
    match scheme.as_str() {
        "https" => {}
        "http" if is_loopback(&authority, addresses) => {}
        "http" => {
            let wrong =
                "would send tokens in the clear; write https:// (plain http:// is for loopback alone)";
            return item.check(Err(wrong.into()));
        }
        _ => return item.check(Err(format!("is not such a URL; {right}"))),
    }
    Some(format!("{scheme}://{authority}").into())
}

fn is_loopback(authority: &str, addresses: &BTreeMap<Arc<str>, SocketAddr>) -> bool {
    let Ok(authority) = authority.parse::<Authority>() else { return false };
    let host = authority.host();
    // Where the host is an address, no other one is looked up for it.
    if let Ok(ip) = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>() {
        return ip.is_loopback();
    }
    addresses.get(host).map_or(host == "localhost", |address| address.ip().is_loopback())
}

fn auth(item: &Item<'_>, base: &Base) -> Option<HashicorpAuth> {
    let fields = item.table("write { method = \"approle\", … }")?;
    let method = fields.required("method", "write method = \"approle\" or another way to log in")?;
    let name = method.string()?;
    if !METHODS.contains(&name) {
        let instead = suggest::instead(name, METHODS);
        method.problem(format!("\"{}\" is no way to log in; {instead}", shown(name)));
        return None;
    }
    let auth = match name {
        "approle" => approle(&fields, base),
        "kubernetes" | "jwt" => jwt(&fields, name, base),
        "certificate" => certificate(&fields, base),
        "token-file" => {
            let right = "name the file that holds a token of the vault";
            fields
                .required("token-file", right)
                .and_then(|item| base.path(&item))
                .map(HashicorpAuth::TokenFile)
        }
        _ => helper(&fields),
    };
    fields.finish();
    auth
}

fn mount(fields: &Fields<'_>, default: &str) -> Option<Arc<str>> {
    match fields.optional("mount") {
        Some(item) => path(&item, "write the path below auth/, such as \"approle\""),
        None => Some(default.into()),
    }
}

fn approle(fields: &Fields<'_>, base: &Base) -> Option<HashicorpAuth> {
    let mount = mount(fields, "approle");
    let role_id = fields
        .required("role-id", "write what `vault read auth/approle/role/ROLE/role-id` prints")
        .and_then(|item| item.string());
    let secret_id_file = fields
        .required("secret-id-file", "name the file that holds the secret id")
        .and_then(|item| base.path(&item));
    let wrapped = fields.optional("wrapped").and_then(|item| item.boolean()).unwrap_or(false);
    Some(HashicorpAuth::AppRole {
        mount: mount?,
        role_id: role_id?.into(),
        secret_id_file: secret_id_file?,
        wrapped,
    })
}

fn jwt(fields: &Fields<'_>, method: &str, base: &Base) -> Option<HashicorpAuth> {
    let mount = mount(fields, method);
    let role = fields
        .required("role", &format!("write the role below auth/{method}/role/"))
        .and_then(|item| item.string());
    let token_file = match (fields.optional("token-file"), method) {
        (Some(item), _) => base.path(&item),
        (None, "kubernetes") => Some(SERVICE_ACCOUNT.into()),
        (None, _) => fields
            .required("token-file", "name the file that holds the signed token")
            .and_then(|item| base.path(&item)),
    };
    Some(HashicorpAuth::Jwt { mount: mount?, role: role?.into(), token_file: token_file? })
}

fn certificate(fields: &Fields<'_>, base: &Base) -> Option<HashicorpAuth> {
    let mount = mount(fields, "cert");
    let name = fields.optional("name").and_then(|item| item.string()).map(Arc::from);
    let certificate =
        fields.required("certificate", "name the file of the certificate, then its chain (PEM)");
    let key = fields.required("key", "name the file of the certificate's private key (PEM)");
    let (chain, key) = tls::identity(&certificate?, &key?, base)?;
    Some(HashicorpAuth::Certificate { mount: mount?, name, identity: ClientIdentity { chain, key } })
}

fn helper(fields: &Fields<'_>) -> Option<HashicorpAuth> {
    let right =
        "write the program's whole path and its arguments, such as [\"/usr/local/bin/vault-token\", \"get\"]";
    let items = fields.required("command", right)?.array(right)?;
    let words: Option<Vec<Arc<str>>> = items.iter().map(|item| item.string().map(Arc::from)).collect();
    let words = words?;
    if !words.first().is_some_and(|program| program.starts_with('/')) {
        items.first()?.problem(format!("is no whole path, and no folder is searched for programs; {right}"));
        return None;
    }
    Some(HashicorpAuth::TokenHelper(words))
}

/// A path of Vault's, of plain segments, without a slash at either end.
fn path(item: &Item<'_>, right: &str) -> Option<Arc<str>> {
    let text = item.string()?;
    let text = text.strip_suffix('/').unwrap_or(text);
    let plain = text.split('/').all(is_plain_segment);
    item.check(if plain { Ok(text.into()) } else { Err(format!("is no path of plain names; {right}")) })
}

/// What can stand between two slashes: nothing that means another place.
fn is_plain_segment(segment: &str) -> bool {
    !matches!(segment, "" | "." | "..")
        && !segment.chars().any(|c| c.is_control() || matches!(c, '?' | '#' | '\\'))
}

/// `mount/path#field`, as its path and its field. `None`: it is not.
pub(crate) fn path_and_field(text: &str) -> Option<(&str, &str)> {
    let (path, field) = text.split_once('#')?;
    let plain = path.contains('/') && path.split('/').all(is_plain_segment);
    (plain && !field.is_empty() && !field.chars().any(char::is_control)).then_some((path, field))
}

/// What such a vault calls a secret. No message shows it: somebody may have written the secret itself.
pub(super) fn secret(item: &Item<'_>, text: &str) -> Option<Arc<str>> {
    if path_and_field(text).is_none() {
        item.problem(
            "is no secret of such a vault; write mount/path#field, such as secret/ado/web#pat (for KV version 2 \
             without the data/ that its API has)",
        );
        return None;
    }
    Some(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_a_path_and_a_field() {
        for (text, parts) in [
            ("secret/ado/web#pat", Some(("secret/ado/web", "pat"))),
            ("team/kv/ado#a b", Some(("team/kv/ado", "a b"))),
            ("secret/ado#pat#old", Some(("secret/ado", "pat#old"))),
            ("secret/ado", None),
            ("secret#pat", None),
            ("secret/ado#", None),
            ("#pat", None),
            ("/secret/ado#pat", None),
            ("secret//ado#pat", None),
            ("secret/ado/#pat", None),
            ("secret/../sys/auth#pat", None),
            ("secret/./ado#pat", None),
            ("secret/ado?version=1#pat", None),
            ("secret\\ado/x#pat", None),
            ("secret/a\ndo#pat", None),
            ("secret/ado#p\nat", None),
        ] {
            assert_eq!(path_and_field(text), parts, "{text}");
        }
    }

    #[test]
    fn plain_http_leads_to_loopback_alone() {
        let addresses = BTreeMap::from([
            ("vault.test".into(), "127.0.0.1:8200".parse().unwrap()),
            ("localhost".into(), "10.0.0.1:8200".parse().unwrap()),
            ("10.0.0.1".into(), "127.0.0.1:8200".parse().unwrap()),
        ]);
        for (authority, bare, moved) in [
            ("127.0.0.1:8200", true, true),
            ("127.9.9.9", true, true),
            ("[::1]:8200", true, true),
            ("localhost:8200", true, false),
            ("vault.test:8200", false, true),
            ("vault.corp.example", false, false),
            ("10.0.0.1:8200", false, false),
            ("localhost.corp.example", false, false),
        ] {
            assert_eq!(is_loopback(authority, &BTreeMap::new()), bare, "{authority}");
            assert_eq!(is_loopback(authority, &addresses), moved, "{authority}");
        }
    }
}
