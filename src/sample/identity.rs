//! Whether a request proves who it is from, the way Azure DevOps wants it proved.

use std::fmt::Write;

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, header::AUTHORIZATION};

/// SHA-256 of a token: all that the sample organisation keeps of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Digest([u8; 32]);

impl Digest {
    pub(super) fn of(token: &[u8]) -> Self {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token);
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.as_ref());
        Self(bytes)
    }

    pub(super) fn to_hex(self) -> String {
        hex(&self.0)
    }

    pub(super) fn from_hex(hex: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        if hex.len() != 64 {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(bytes))
    }
}

/// Bytes in hex.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// What is taken: digests of PATs, and of tokens of Entra.
#[derive(Clone, Debug, Default)]
pub(super) struct Accepted {
    pub(super) pats: Vec<Digest>,
    pub(super) entra: Vec<Digest>,
}

/// What a request proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Identity {
    /// One good token.
    Member,
    /// Nothing was offered.
    Anonymous,
    /// What was offered is not one good token.
    Unknown,
}

/// The digest of the one `Bearer` token that is offered.
pub(super) fn bearer(headers: &HeaderMap) -> Option<Digest> {
    after(one(headers)?, b"Bearer ").map(Digest::of)
}

/// The digest of the one `Basic` password that is offered. The user name does not matter; base64 has to be
/// canonical and padded, as Azure DevOps wants it.
pub(super) fn basic(headers: &HeaderMap) -> Option<Digest> {
    let pair = STANDARD.decode(after(one(headers)?, b"Basic ")?).ok()?;
    Some(Digest::of(pair.splitn(2, |&byte| byte == b':').nth(1)?))
}

/// The one `Authorization`: a second is never an improvement.
fn one(headers: &HeaderMap) -> Option<&[u8]> {
    let mut offered = headers.get_all(AUTHORIZATION).iter();
    match (offered.next(), offered.next()) {
        (Some(value), None) => Some(value.as_bytes()),
        _ => None,
    }
}

/// What follows the name of a scheme.
fn after<'a>(value: &'a [u8], scheme: &[u8]) -> Option<&'a [u8]> {
    let (name, rest) = value.split_at_checked(scheme.len())?;
    name.eq_ignore_ascii_case(scheme).then_some(rest)
}

/// Whose request it is, by its `Authorization`. The password of `Basic` may be a token of Entra too; `Bearer` is for
/// those alone.
pub(super) fn identify(headers: &HeaderMap, accepted: &Accepted) -> Identity {
    if !headers.contains_key(AUTHORIZATION) {
        return Identity::Anonymous;
    }
    let good = basic(headers)
        .is_some_and(|digest| accepted.pats.contains(&digest) || accepted.entra.contains(&digest))
        || bearer(headers).is_some_and(|digest| accepted.entra.contains(&digest));
    if good { Identity::Member } else { Identity::Unknown }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_good_value_is_a_member_and_nothing_else_is() {
        let accepted = Accepted { pats: vec![Digest::of(b"pat")], entra: vec![Digest::of(b"entra")] };
        let cases: [(&[&str], Identity); 15] = [
            (&["Basic OnBhdA=="], Identity::Member),
            (&["basic OnBhdA=="], Identity::Member),
            (&["Basic YW55OnBhdA=="], Identity::Member), // any:pat
            (&[], Identity::Anonymous),
            (&["Basic OnBhdA==", "Basic OnBhdA=="], Identity::Unknown),
            (&["Basic OnBhdA"], Identity::Unknown),
            (&["Basic OnBhdA==="], Identity::Unknown),
            (&["Bearer pat"], Identity::Unknown),
            (&["Basic OnBhdHg="], Identity::Unknown), // :patx
            (&["Bearer entra"], Identity::Member),
            (&["bearer entra"], Identity::Member),
            (&["Basic OmVudHJh"], Identity::Member), // :entra
            (&["Bearer entra", "Bearer entra"], Identity::Unknown),
            (&["Bearer  entra"], Identity::Unknown),
            (&["Bearer"], Identity::Unknown),
        ];
        for (values, expected) in cases {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, value.parse().unwrap());
            }
            assert_eq!(identify(&headers, &accepted), expected, "{values:?}");
        }
    }

    #[test]
    fn a_digest_survives_its_hex_form() {
        let digest = Digest::of(b"pat");
        assert_eq!(Digest::from_hex(&digest.to_hex()), Some(digest));
        assert_eq!(Digest::from_hex("abc"), None);
        assert_eq!(Digest::from_hex(&"zz".repeat(32)), None);
    }
}
