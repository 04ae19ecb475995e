//! Which headers may pass, up and down: two tables, and everything else is dropped.
//!
//! To let one more pass, add its name to [`UP`] or [`DOWN`]. A header that carries a credential, names a
//! host, frames a body or tells whom Azure DevOps took the credential for never belongs there.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::refusal::Refusal;

/// How often a header may be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// More than one makes the request ambiguous.
    Once,
    /// Its values are a list.
    Any,
}

use Times::{Any, Once};

/// What may go to Azure DevOps, in lower case: what git, git-lfs, curl, npm, pip, twine, nuget, mvn and the
/// SDKs for Python, Node and Go send, without what they send as a credential.
pub const UP: &[(&str, Times)] = &[
    ("accept", Any),
    ("accept-charset", Any),
    ("accept-encoding", Any),
    ("accept-language", Any),
    ("cache-control", Any),
    ("content-disposition", Once),
    ("content-encoding", Once),
    ("content-language", Any),
    ("content-range", Once),
    ("content-type", Once),
    ("git-protocol", Once),
    ("if-match", Any),
    ("if-modified-since", Once),
    ("if-none-match", Any),
    ("if-range", Once),
    ("if-unmodified-since", Once),
    ("npm-command", Once),
    ("npm-scope", Once),
    ("npm-session", Once),
    ("pragma", Any),
    ("range", Once),
    ("user-agent", Once),
    ("x-nuget-client-version", Once),
    ("x-nuget-protocol-version", Once),
    ("x-nuget-session-id", Once),
    ("x-tfs-session", Once),
    ("x-tfs-version", Once),
    ("x-vss-e2eid", Once),
    ("x-vss-forcemsapassthrough", Once),
];

/// What may come back, in lower case. `Location` is mended by the upstream step before.
pub const DOWN: &[&str] = &[
    "accept-ranges",
    "activityid",
    "age",
    "allow",
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-md5",
    "content-range",
    "content-security-policy",
    "content-type",
    "date",
    "deprecation",
    "etag",
    "expires",
    "last-modified",
    "link",
    "location",
    "npm-notice",
    "pragma",
    "referrer-policy",
    "retry-after",
    "sunset",
    "vary",
    "warning",
    "x-content-type-options",
    "x-frame-options",
    "x-ms-continuationtoken",
    "x-nuget-warning",
    "x-packaging-migration",
    "x-ratelimit-delay",
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
    "x-ratelimit-resource",
    "x-tfs-processid",
    "x-tfs-session",
    "x-total-count",
    "x-vss-e2eid",
];

/// Makes Azure DevOps answer a credential that it refuses with a plain 401, not with a page for signing in.
const FED_AUTH_REDIRECT: HeaderName = HeaderName::from_static("x-tfs-fedauthredirect");

/// The most fields that are read.
pub const MAX_FIELDS: usize = 64;

/// Servers that honour these take a request for one with another method.
const OVERRIDES: &[&str] = &["x-http-method-override", "x-http-method", "x-method-override"];

/// Headers in which clients send credentials. None ever goes up; that there was one is on record.
const CREDENTIALS: &[&str] = &["authorization", "proxy-authorization", "cookie", "x-nuget-apikey", "npm-otp"];

/// What goes up of a request's headers.
///
/// # Errors
/// `head-malformed` (more than [`MAX_FIELDS`]), `header-ambiguous`, `expectation-unknown`
pub fn up(received: &HeaderMap) -> Result<HeaderMap, Refusal> {
    if received.len() > MAX_FIELDS {
        return Err(Refusal::HeadMalformed);
    }
    for (name, value) in received {
        check(name, value)?;
    }
    let mut up = select(received, |name| times(name).is_some());
    if up.keys_len() != up.len()
        && up.keys().any(|name| times(name) == Some(Once) && up.get_all(name).iter().nth(1).is_some())
    {
        return Err(Refusal::HeaderAmbiguous);
    }
    up.insert(FED_AUTH_REDIRECT, HeaderValue::from_static("Suppress"));
    Ok(up)
}

/// What comes back of an answer's headers.
#[must_use]
pub fn down(received: &HeaderMap) -> HeaderMap {
    select(received, |name| DOWN.binary_search(&name.as_str()).is_ok())
}

/// Whether the client sent something that is (or may be) a credential of its own.
#[must_use]
pub fn hold_credential(received: &HeaderMap) -> bool {
    CREDENTIALS.iter().any(|name| received.contains_key(*name))
}

fn times(name: &HeaderName) -> Option<Times> {
    let found = UP.binary_search_by_key(&name.as_str(), |(name, _)| *name).ok()?;
    UP.get(found).map(|(_, times)| *times)
}

fn check(name: &HeaderName, value: &HeaderValue) -> Result<(), Refusal> {
    // `Content_Length` is `Content-Length` to servers that build variables from names.
    if name.as_str().contains('_') || OVERRIDES.contains(&name.as_str()) {
        return Err(Refusal::HeaderAmbiguous);
    }
    // Some servers trim 0x85 and 0xA0 as white space.
    if value.as_bytes().iter().any(|byte| !matches!(byte, b'\t' | b' '..=b'~')) {
        return Err(Refusal::HeaderAmbiguous);
    }
    if name == header::EXPECT && !value.as_bytes().eq_ignore_ascii_case(b"100-continue") {
        return Err(Refusal::ExpectationUnknown);
    }
    Ok(())
}

/// The headers that may pass and that `Connection` does not nominate for removal.
fn select(received: &HeaderMap, may_pass: impl Fn(&HeaderName) -> bool) -> HeaderMap {
    let mut selected = HeaderMap::with_capacity(received.len());
    for (name, value) in received {
        if may_pass(name) && !is_nominated(received, name) {
            selected.append(name, value.clone());
        }
    }
    selected
}

/// Whether a header concerns this connection alone (RFC 9110, section 7.6.1).
fn is_nominated(received: &HeaderMap, name: &HeaderName) -> bool {
    received.get_all(header::CONNECTION).iter().any(|value| {
        let mut options = value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        options.any(|option| option.eq_ignore_ascii_case(name.as_str().as_bytes()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&str, &str)| {
            (
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_bytes(value.as_bytes()).unwrap(),
            )
        };
        let mut map = HeaderMap::new();
        for line in lines {
            let (name, value) = pair(line);
            map.append(name, value);
        }
        map
    }

    fn lines(map: &HeaderMap) -> Vec<String> {
        map.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect()
    }

    #[test]
    fn the_tables_are_sorted_and_hold_nothing_that_must_not_pass() {
        assert!(UP.is_sorted_by_key(|(name, _)| *name));
        assert!(DOWN.is_sorted());
        let never = [
            "authorization",
            "proxy-authorization",
            "cookie",
            "set-cookie",
            "www-authenticate",
            "host",
            "connection",
            "keep-alive",
            "proxy-connection",
            "te",
            "trailer",
            "transfer-encoding",
            "content-length",
            "upgrade",
            "http2-settings",
            "forwarded",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-tfs-impersonate",
            "x-vss-userdata",
            "x-vss-authorizationendpoint",
            "x-vss-resourcetenant",
            "strict-transport-security",
            "expect",
            "x-original-url",
            "x-rewrite-url",
            "x-http-method-override",
            "x-nuget-apikey",
            "origin",
            "referer",
        ];
        for name in never {
            assert!(!DOWN.contains(&name) && !UP.iter().any(|(up, _)| *up == name), "{name}");
        }
    }

    #[test]
    fn what_tools_send_goes_up_and_what_they_must_not_send_does_not() {
        let received = headers(&[
            ("Host", "patgate.corp"),
            ("User-Agent", "git/2.47.3"),
            ("Accept", "*/*"),
            ("Accept-Encoding", "deflate, gzip"),
            ("Git-Protocol", "version=2"),
            ("Content-Type", "application/x-git-upload-pack-request"),
            ("Content-Length", "10"),
            ("Transfer-Encoding", "chunked"),
            ("Authorization", "Basic OnNlY3JldA=="),
            ("Cookie", "a=b"),
            ("Proxy-Authorization", "Basic x"),
            ("Proxy-Connection", "keep-alive"),
            ("Forwarded", "for=1.2.3.4"),
            ("X-Forwarded-For", "1.2.3.4"),
            ("X-Forwarded-Host", "evil"),
            ("X-Original-URL", "/evil"),
            ("X-TFS-Impersonate", "x"),
            ("X-TFS-FedAuthRedirect", "Allow"),
            ("X-VSS-Anything", "x"),
            ("X-NuGet-ApiKey", "x"),
            ("Keep-Alive", "1"),
            ("TE", "trailers"),
            ("Trailer", "Authorization"),
            ("Upgrade", "h2c"),
            ("Expect", "100-Continue"),
        ]);
        assert_eq!(
            lines(&up(&received).unwrap()),
            [
                "user-agent: git/2.47.3",
                "accept: */*",
                "accept-encoding: deflate, gzip",
                "git-protocol: version=2",
                "content-type: application/x-git-upload-pack-request",
                "x-tfs-fedauthredirect: Suppress",
            ]
        );
        assert!(hold_credential(&received));
        assert!(!hold_credential(&headers(&[("Accept", "*/*")])));
    }

    #[test]
    fn a_nominated_header_is_stripped_but_never_one_that_patgate_sets() {
        let received = headers(&[
            ("Connection", "close, Accept ,x-tfs-fedauthredirect"),
            ("Connection", "GIT-protocol"),
            ("Accept", "*/*"),
            ("Git-Protocol", "version=2"),
            ("Pragma", "no-cache"),
        ]);
        assert_eq!(lines(&up(&received).unwrap()), ["pragma: no-cache", "x-tfs-fedauthredirect: Suppress"]);
    }

    #[test]
    fn an_ambiguous_header_is_refused() {
        use Refusal::{ExpectationUnknown, HeaderAmbiguous};
        for (name, value, why) in [
            ("Content_Length", "3", HeaderAmbiguous),
            ("X_Forwarded_For", "1.2.3.4", HeaderAmbiguous),
            ("X-HTTP-Method-Override", "DELETE", HeaderAmbiguous),
            ("X-HTTP-Method", "DELETE", HeaderAmbiguous),
            ("X-Method-Override", "DELETE", HeaderAmbiguous),
            ("Accept", "caf\u{e9}", HeaderAmbiguous),
            ("X-Unknown", "\u{85}", HeaderAmbiguous),
            ("Expect", "100-continue, x", ExpectationUnknown),
            ("Expect", "", ExpectationUnknown),
        ] {
            assert_eq!(up(&headers(&[(name, value)])), Err(why), "{name}: {value}");
        }
        for name in ["Content-Type", "Git-Protocol", "Content-Encoding", "Range", "User-Agent"] {
            assert_eq!(up(&headers(&[(name, "a"), (name, "a")])), Err(HeaderAmbiguous), "{name}");
        }
        assert!(up(&headers(&[("Accept", "a"), ("Accept", "b")])).is_ok());
    }

    #[test]
    fn more_fields_than_the_cap_are_refused() {
        let many = |count| headers(&vec![("accept", "a"); count]);
        assert!(up(&many(MAX_FIELDS)).is_ok());
        assert_eq!(up(&many(MAX_FIELDS + 1)), Err(Refusal::HeadMalformed));
    }

    #[test]
    fn an_answer_keeps_what_tools_read_and_loses_what_tells_on_the_credential() {
        let received = headers(&[
            ("Content-Type", "application/json"),
            ("Set-Cookie", "VstsSession=x"),
            ("WWW-Authenticate", "Basic realm=\"https://tfs\""),
            ("X-VSS-UserData", "guid:owner@contoso.com"),
            ("X-VSS-AuthorizationEndpoint", "https://vssps.dev.azure.com/contoso/"),
            ("X-VSS-ResourceTenant", "guid"),
            ("X-VSS-SenderDeploymentId", "guid"),
            ("Strict-Transport-Security", "max-age=31536000"),
            ("P3P", "x"),
            ("Server", "x"),
            ("Connection", "close, Age"),
            ("Transfer-Encoding", "chunked"),
            ("Content-Length", "3"),
            ("Age", "1"),
            ("Retry-After", "5"),
            ("X-RateLimit-Remaining", "0"),
            ("X-MS-ContinuationToken", "x"),
            ("ETag", "\"1\""),
            ("ActivityId", "guid"),
            ("Location", "https://dev.azure.com/contoso"),
            ("Link", "<a>"),
            ("Link", "<b>"),
        ]);
        assert_eq!(
            lines(&down(&received)),
            [
                "content-type: application/json",
                "retry-after: 5",
                "x-ratelimit-remaining: 0",
                "x-ms-continuationtoken: x",
                "etag: \"1\"",
                "activityid: guid",
                "location: https://dev.azure.com/contoso",
                "link: <a>",
                "link: <b>",
            ]
        );
    }
}
