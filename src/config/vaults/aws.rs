//! `type = "aws-secrets-manager"`: AWS Secrets Manager.
//!
//! Credentials of AWS itself stand in no configuration: they come from where the AWS SDK looks for them.

use std::{net::IpAddr, sync::Arc};

use http::uri::{Authority, Scheme, Uri};

use super::{
    super::{
        disk::Base,
        parse::{Fields, Item},
        text::shown,
    },
    Trust, VaultSource,
};

/// One region's secrets, and as whom they are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwsSecretsManager {
    /// `eu-west-1`.
    pub region: Arc<str>,
    /// `scheme://host[:port]` of Secrets Manager; absent: the region's own. Plain HTTP on loopback only.
    pub endpoint: Option<Arc<str>>,
    /// The same of the Security Token Service, which gives credentials for a role.
    pub sts_endpoint: Option<Arc<str>>,
    /// Whose certificates both are believed by.
    pub trust: Trust,
    /// The ARN of a role that is taken on with the credentials that were found.
    pub assume_role: Option<Arc<str>>,
    /// What that role's trust policy may ask for.
    pub external_id: Option<Arc<str>>,
    /// A profile of `~/.aws`; absent: `AWS_PROFILE`, or `default`.
    pub profile: Option<Arc<str>>,
}

/// The keys of such a vault.
pub(super) fn read(fields: &Fields<'_>, base: &Base) -> Option<VaultSource> {
    let region = fields
        .required("region", "write the region that the secrets are in, such as \"eu-west-1\"")
        .and_then(|item| region(&item));
    let endpoint = fields.optional("endpoint").map(|item| endpoint(&item, "secretsmanager"));
    let sts_endpoint = fields.optional("sts-endpoint").map(|item| self::endpoint(&item, "sts"));
    let trust = Trust::read(fields, base);
    let assume_role = fields.optional("assume-role").map(|item| role(&item));
    let external_id = fields.optional("external-id").map(|item| (item.string().map(Arc::from), item));
    let profile = fields.optional("profile").map(|item| item.string().map(Arc::from));
    if let (Some((_, item)), None) = (&external_id, &assume_role) {
        item.problem("belongs to a role, and there is none; add assume-role, or leave it out");
    }
    Some(VaultSource::AwsSecretsManager(AwsSecretsManager {
        region: region?,
        endpoint: right(endpoint)?,
        sts_endpoint: right(sts_endpoint)?,
        trust,
        assume_role: right(assume_role)?,
        external_id: right(external_id.map(|(id, _)| id))?,
        profile: right(profile)?,
    }))
}

/// `None` for a key that is there and wrong.
#[expect(clippy::option_option, reason = "there or not, right or not")]
fn right<T>(key: Option<Option<T>>) -> Option<Option<T>> {
    match key {
        None => Some(None),
        Some(value) => value.map(Some),
    }
}

fn region(item: &Item<'_>) -> Option<Arc<str>> {
    const LONGEST: usize = 32;
    let text = item.string()?;
    let labels: Vec<&str> = text.split('-').collect();
    let place = |label: &&str| !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_lowercase());
    let is_region = match labels.as_slice() {
        [places @ .., number] => {
            places.len() >= 2
                && places.iter().all(place)
                && !number.is_empty()
                && number.bytes().all(|byte| byte.is_ascii_digit())
        }
        [] => false,
    };
    let wrong = || format!("\"{}\" is no region; write its code, such as eu-west-1", shown(text));
    item.check((is_region && text.len() <= LONGEST).then(|| text.into()).ok_or_else(wrong))
}

/// Scheme and authority, in lower case and without the scheme's own port.
fn endpoint(item: &Item<'_>, service: &str) -> Option<Arc<str>> {
    let text = item.string()?;
    let wrong = || {
        format!(
            "is not such a URL; write https://{service}.eu-west-1.amazonaws.com, with no user, path or query"
        )
    };
    let uri = text.parse::<Uri>().ok().filter(|uri| {
        matches!(uri.path(), "" | "/") && uri.query().is_none() && !text.contains(['#', '@', '\\'])
    });
    let parts = uri.and_then(|uri| Some((uri.scheme()?.clone(), uri.authority()?.clone())));
    let (scheme, authority) = item.check(parts.ok_or_else(wrong))?;
    let (host, port) = item.check(host_and_port(&authority).ok_or_else(wrong))?;
    let own = if scheme == Scheme::HTTPS { 443 } else { 80 };
    let plain = scheme == Scheme::HTTP;
    if !plain && scheme != Scheme::HTTPS {
        return item.check(Err(wrong()));
    }
    if plain && !is_loopback(&host) {
        return item.check(Err(
            "is plain HTTP to another machine, and would show secrets on the way; write https://".into(),
        ));
    }
    Some(match port {
        Some(port) if port != own => format!("{scheme}://{host}:{port}").into(),
        _ => format!("{scheme}://{host}").into(),
    })
}

fn host_and_port(authority: &Authority) -> Option<(String, Option<u16>)> {
    let host = authority.host().to_ascii_lowercase();
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let right = match inner {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.split('.').all(label),
    };
    let port = match authority.as_str().get(host.len()..)? {
        "" => None,
        rest => Some(rest.strip_prefix(':')?.parse().ok().filter(|port| *port != 0)?),
    };
    right.then_some((host, port))
}

/// Whether a host of a URL is this machine itself.
fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.to_canonical().is_loopback())
}

fn role(item: &Item<'_>) -> Option<Arc<str>> {
    let text = item.string()?;
    let parts: Vec<&str> = text.splitn(6, ':').collect();
    let is_role = matches!(parts.as_slice(),
        ["arn", partition, "iam", "", account, resource]
            if partition.starts_with("aws")
                && account.len() == 12
                && account.bytes().all(|byte| byte.is_ascii_digit())
                && resource.strip_prefix("role/").is_some_and(|name| !name.is_empty())
                && resource.bytes().all(|byte| byte.is_ascii_graphic()));
    let wrong = || {
        format!(
            "\"{}\" is no role; write its ARN, such as arn:aws:iam::123456789012:role/patgate",
            shown(text)
        )
    };
    item.check(is_role.then(|| text.into()).ok_or_else(wrong))
}

/// What such a vault calls a secret: its name or ARN, and perhaps `#` and a field of its JSON. No message shows
/// it: somebody may have written the secret itself.
pub(super) fn secret(item: &Item<'_>, text: &str) -> Option<Arc<str>> {
    const LONGEST: usize = 512;
    let (name, field) = match text.split_once('#') {
        Some((name, field)) => (name, Some(field)),
        None => (text, None),
    };
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"/_+=.@-".contains(&byte);
    let is_name = match name.strip_prefix("arn:") {
        Some(rest) => {
            let parts: Vec<&str> = rest.splitn(6, ':').collect();
            matches!(parts.as_slice(), [_, "secretsmanager", _, _, "secret", name] if !name.is_empty())
                && rest.bytes().all(|byte| known(byte) || byte == b':')
        }
        None => !name.is_empty() && name.bytes().all(known),
    };
    if !is_name || name.len() > LONGEST {
        item.problem(
            "is no name of a secret; write its name or ARN, and for a field of its JSON # and the field, such \
             as patgate/web-read or patgate/all#web-read",
        );
        return None;
    }
    if field.is_some_and(|field| field.is_empty() || field.chars().any(char::is_control)) {
        item.problem("names no field behind its #; write the field, or leave the # out");
        return None;
    }
    Some(text.into())
}
