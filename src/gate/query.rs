//! Reads the query as far as it decides, and withholds it from the record as far as it may tell.

use std::{borrow::Cow, fmt::Write as _};

use super::segments::hex;
use crate::refusal::Refusal;

/// Parameters that choose what a request does or to what. Given twice, one server takes the first
/// and another the last or both (ASP.NET joins them by a comma).
const DECIDING: &[&str] = &[
    "service",
    "api-version",
    "$batch",
    "$expand",
    "$format",
    "download",
    "filter",
    "id",
    "ids",
    "path",
    "project",
    "projectid",
    "repositoryid",
    "resolvelfs",
    "scopepath",
    "searchcriteria.repositoryid",
    "version",
    "versiondescriptor.version",
    "versiondescriptor.versiontype",
];

/// Parameters that would make a request another one on servers that honour them.
const OVERRIDING: &[&str] = &["_method", "x-http-method", "x-http-method-override", "x-method-override"];

/// Parameters whose values stand in the record: they are from small sets, or numbers.
const RECORDED: &[&str] = &[
    "service",
    "api-version",
    "$expand",
    "$format",
    "$skip",
    "$top",
    "skip",
    "top",
    "recursionlevel",
    "resolvelfs",
    "download",
];

/// What stands in place of a value that is withheld.
const WITHHELD: &str = "*";

/// The longest key or value that is recorded: shorter than any token of Azure DevOps (52 characters).
const RECORDED_LENGTH: usize = 48;

/// The longest query that is recorded, in bytes.
const RECORDED_QUERY: usize = 1024;

/// Refuses a query in which something that decides can be read in two ways.
pub(super) fn check(query: &str) -> Result<(), Refusal> {
    if !query.is_ascii() || query.bytes().any(|byte| byte.is_ascii_control()) {
        return Err(Refusal::QueryAmbiguous);
    }
    let mut seen = 0_u32;
    // Where a server takes `;` for a separator, what follows one is a parameter of its own.
    for hidden in query.split('&').flat_map(|pair| pair.split(';').skip(1)) {
        let key = decode(hidden.split_once('=').unwrap_or((hidden, "")).0)?;
        if is(key.trim(), DECIDING) || is(key.trim(), OVERRIDING) {
            return Err(Refusal::QueryAmbiguous);
        }
    }
    for (key, value) in pairs(query) {
        let key = decode(key)?;
        let value = decode(value)?;
        if key.contains(|c: char| c.is_control() || c == '%') || value.contains('\0') || is(&key, OVERRIDING)
        {
            return Err(Refusal::QueryAmbiguous);
        }
        if let Some(n) = DECIDING.iter().position(|deciding| deciding.eq_ignore_ascii_case(key.trim())) {
            // `service;` and the like are for no client to send: `;` separates parameters for some servers.
            if seen & (1 << n) != 0 || value.contains(';') {
                return Err(Refusal::QueryAmbiguous);
            }
            seen |= 1 << n;
        }
    }
    Ok(())
}

/// The decoded value of a parameter of a query that [`check`] let pass; keys compare without case.
pub(super) fn value<'a>(query: &'a str, wanted: &str) -> Option<Cow<'a, str>> {
    pairs(query).find_map(|(key, value)| {
        decode(key)
            .ok()
            .filter(|key| key.trim().eq_ignore_ascii_case(wanted))
            .and_then(|_| decode(value).ok())
    })
}

/// The query as it may be recorded: keys, and the values of a few.
pub(super) fn recorded(query: &str) -> Box<str> {
    let mut text = String::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        if text.len() > RECORDED_QUERY {
            text.push_str("&…");
            break;
        }
        let (key, value) = pair.split_once('=').unwrap_or((WITHHELD, ""));
        let key = if is_plain(key) { key } else { WITHHELD };
        let value = if is(key, RECORDED) && is_plain(value) { value } else { WITHHELD };
        let and = if text.is_empty() { "" } else { "&" };
        // Writing to a string can't fail.
        let _ = write!(text, "{and}{key}={value}");
    }
    text.into_boxed_str()
}

fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

fn is(key: &str, list: &[&str]) -> bool {
    list.iter().any(|one| one.eq_ignore_ascii_case(key))
}

fn is_plain(text: &str) -> bool {
    text.len() <= RECORDED_LENGTH
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"$-._,".contains(&byte))
}

fn decode(raw: &str) -> Result<Cow<'_, str>, Refusal> {
    if !raw.contains(['%', '+']) {
        return Ok(Cow::Borrowed(raw));
    }
    let mut decoded = Vec::with_capacity(raw.len());
    let mut rest = raw.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'%' => {
                decoded.push(hex(rest).ok_or(Refusal::QueryAmbiguous)?);
                rest = rest.get(2..).unwrap_or_default();
            }
            b'+' => decoded.push(b' '),
            _ => decoded.push(byte),
        }
    }
    String::from_utf8(decoded).map(Cow::Owned).map_err(|_| Refusal::QueryAmbiguous)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_doubled_parameter_that_decides_is_refused() {
        for query in [
            "service=git-upload-pack&service=git-receive-pack",
            "service=git-upload-pack&SERVICE=git-upload-pack",
            "service=git-upload-pack&%73ervice=git-receive-pack",
            "service=git-upload-pack&service%20=git-receive-pack",
            "service=git-upload-pack&+service=git-receive-pack",
            "service=git-upload-pack;service=git-receive-pack",
            "a=b;service=git-receive-pack&service=git-upload-pack",
            "a;%20API-version=1",
            "a=b;_method=DELETE",
            "service=git-upload-pack&service",
            "api-version=7.1&a=b&Api-Version=6.0",
            "path=/a&path=/b",
        ] {
            assert_eq!(check(query), Err(Refusal::QueryAmbiguous), "{query}");
        }
    }

    #[test]
    fn a_query_that_decodes_in_two_ways_is_refused() {
        for query in [
            "a=%",
            "a=%zz",
            "%2573ervice=x",
            "a%00=x",
            "a=%00",
            "a%0d%0a=x",
            "a=%ff",
            "é=1",
            "a=\u{1}",
            "_method=DELETE",
            "X-HTTP-Method-Override=PATCH",
        ] {
            assert_eq!(check(query), Err(Refusal::QueryAmbiguous), "{query}");
        }
    }

    #[test]
    fn what_clients_send_passes() {
        for query in [
            "",
            "service=git-upload-pack",
            "api-version=7.1-preview.1&$top=10",
            "%24expand=all",
            "searchCriteria.status=active&searchCriteria.status=all",
            "ids=1,2,3",
            "comment=50%25;%0Adone",
            "a=b;c=d",
            "a&b&&c=",
        ] {
            assert_eq!(check(query), Ok(()), "{query}");
        }
    }

    #[test]
    fn a_value_is_found_by_its_key_without_case() {
        assert_eq!(value("a=b&Service=git%2Dupload-pack", "service").as_deref(), Some("git-upload-pack"));
        assert_eq!(value("a=b&services=x", "service"), None);
        assert_eq!(value("service", "service").as_deref(), Some(""));
    }

    #[test]
    fn the_record_withholds_what_may_be_secret() {
        let token = "a".repeat(52);
        for (query, expected) in [
            ("service=git-upload-pack", "service=git-upload-pack"),
            ("api-version=7.1&$top=5&path=/secret", "api-version=7.1&$top=5&path=*"),
            (&format!("api-version={token}"), "api-version=*"),
            (&format!("{token}=1&{token}"), "*=*&*=*"),
            ("a%20b=1&&x=", "*=*&x=*"),
            ("service=a\u{1}b", "service=*"),
        ] {
            assert_eq!(&*recorded(query), expected, "{query}");
        }
        assert!(recorded(&"a=b&".repeat(5000)).len() < RECORDED_QUERY + 128);
    }
}
