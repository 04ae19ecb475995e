//! Redirects: back to patgate where they lead to a host it serves, untouched elsewhere.
//!
//! What leads elsewhere is often a signed address of a blob: it is a secret of its own, for the client alone, and
//! never written anywhere.

use http::{
    HeaderMap, HeaderName, HeaderValue, Uri,
    header::{CONTENT_LOCATION, LOCATION},
};

use crate::config::PublicUrl;

/// The host whose paths stand at the root of patgate's own URL.
const ROOT: &str = "dev.azure.com";

/// The legacy form of [`ROOT`]: the organisation is a label of the name.
const LEGACY: &str = ".visualstudio.com";

/// Names of that form that are no organisation's.
const NO_ORGANIZATIONS: [&str; 9] =
    ["app", "docs", "login", "marketplace", "my", "ssh", "vs-ssh", "vsspsext", "www"];

/// Rewrites `Location` and `Content-Location` of an answer that came from `host`. `serves` tells whether patgate
/// answers for a host (lower case, without a port). A value that can't be read passes as it is.
pub(super) fn mend(headers: &mut HeaderMap, host: &str, public: &PublicUrl, serves: impl Fn(&str) -> bool) {
    const MENDED: [HeaderName; 2] = [LOCATION, CONTENT_LOCATION];
    for name in MENDED {
        if let Some(value) = headers.get_mut(name)
            && let Some(mended) = mended(value, host, public, &serves)
        {
            *value = mended;
        }
    }
}

fn mended(
    value: &HeaderValue,
    host: &str,
    public: &PublicUrl,
    serves: &impl Fn(&str) -> bool,
) -> Option<HeaderValue> {
    let bytes = value.as_bytes();
    if bytes.starts_with(b"/") && !bytes.starts_with(b"//") {
        // Relative to the host: right as it is, unless that host has a prefix here.
        return if host == ROOT { None } else { joined(&[b"/", host.as_bytes(), bytes]) };
    }
    let to = Uri::try_from(bytes).ok()?;
    let secure = to.scheme_str() == Some("https") && matches!(to.port_u16(), None | Some(443));
    let plain = to.authority().is_some_and(|authority| !authority.as_str().contains('@'));
    if !(secure && plain) {
        return None;
    }
    let name = to.host()?.to_ascii_lowercase();
    // From the first slash or question mark behind the authority on: the very bytes, fragment included.
    let rest = bytes.get("https://".len() + to.authority()?.as_str().len()..)?;
    let slash: &[u8] = if rest.starts_with(b"/") { b"" } else { b"/" };
    let base = public.to_string();
    let base = base.as_bytes();
    if name == ROOT {
        return joined(&[base, slash, rest]);
    }
    match legacy(&name) {
        Some(("", organization)) => joined(&[base, b"/", organization.as_bytes(), slash, rest]),
        Some((service, organization)) => {
            let host = format!("{service}.{ROOT}");
            let parts: [&[u8]; 7] = [base, b"/", host.as_bytes(), b"/", organization.as_bytes(), slash, rest];
            if serves(&host) { joined(&parts) } else { None }
        }
        None if serves(&name) => joined(&[base, b"/", name.as_bytes(), slash, rest]),
        None => None,
    }
}

/// The service and the organisation of a name of the older form: `contoso.visualstudio.com` (no service) or
/// `contoso.pkgs.visualstudio.com`.
fn legacy(name: &str) -> Option<(&str, &str)> {
    let labels = name.strip_suffix(LEGACY)?;
    let (organization, service) = labels.split_once('.').unwrap_or((labels, ""));
    let usual =
        !organization.is_empty() && !service.contains('.') && !NO_ORGANIZATIONS.contains(&organization);
    usual.then_some((service, organization))
}

fn joined(parts: &[&[u8]]) -> Option<HeaderValue> {
    HeaderValue::from_bytes(&parts.concat()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_to_a_served_host_comes_back_here() {
        let public =
            PublicUrl { scheme: http::uri::Scheme::HTTPS, authority: "patgate.corp:8443".parse().unwrap() };
        let serves = |name: &str| name == "pkgs.dev.azure.com" || name == "dev.azure.com";
        for (host, location, expected) in [
            (ROOT, "https://dev.azure.com/contoso/x?a=b", "https://patgate.corp:8443/contoso/x?a=b"),
            (ROOT, "HTTPS://DEV.azure.com:443/contoso", "https://patgate.corp:8443/contoso"),
            (ROOT, "https://dev.azure.com", "https://patgate.corp:8443/"),
            (ROOT, "https://dev.azure.com?x=%2F", "https://patgate.corp:8443/?x=%2F"),
            (ROOT, "https://pkgs.dev.azure.com/c/_p", "https://patgate.corp:8443/pkgs.dev.azure.com/c/_p"),
            (ROOT, "https://contoso.visualstudio.com/web", "https://patgate.corp:8443/contoso/web"),
            (ROOT, "https://contoso.visualstudio.com", "https://patgate.corp:8443/contoso/"),
            (
                ROOT,
                "https://contoso.pkgs.visualstudio.com/_p?a",
                "https://patgate.corp:8443/pkgs.dev.azure.com/contoso/_p?a",
            ),
            (ROOT, "/contoso/web", "/contoso/web"),
            ("pkgs.dev.azure.com", "/contoso/x", "/pkgs.dev.azure.com/contoso/x"),
            // Elsewhere, or not to be read in one way: untouched.
            (ROOT, "https://x.blob.core.windows.net/a?sig=s", "https://x.blob.core.windows.net/a?sig=s"),
            (ROOT, "https://feeds.dev.azure.com/c", "https://feeds.dev.azure.com/c"),
            (ROOT, "https://app.visualstudio.com/x", "https://app.visualstudio.com/x"),
            (ROOT, "https://a.feeds.visualstudio.com/x", "https://a.feeds.visualstudio.com/x"),
            (ROOT, "https://a.b.pkgs.visualstudio.com/x", "https://a.b.pkgs.visualstudio.com/x"),
            (ROOT, "https://dev.azure.com.evil/x", "https://dev.azure.com.evil/x"),
            (ROOT, "https://dev.azure.com@evil/x", "https://dev.azure.com@evil/x"),
            (ROOT, "https://evil@dev.azure.com/x", "https://evil@dev.azure.com/x"),
            (ROOT, "https://dev.azure.com:8443/x", "https://dev.azure.com:8443/x"),
            (ROOT, "http://dev.azure.com/x", "http://dev.azure.com/x"),
            (ROOT, "//evil/x", "//evil/x"),
            ("pkgs.dev.azure.com", "//evil/x", "//evil/x"),
            (ROOT, "x/y", "x/y"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(LOCATION, location.parse().unwrap());
            mend(&mut headers, host, &public, serves);
            assert_eq!(headers[LOCATION], expected, "{host} {location}");
        }
    }

    #[test]
    fn content_location_is_mended_too_and_absence_is_left_alone() {
        let public =
            PublicUrl { scheme: http::uri::Scheme::HTTP, authority: "127.0.0.1:8080".parse().unwrap() };
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_LOCATION, "https://dev.azure.com/c".parse().unwrap());
        mend(&mut headers, ROOT, &public, |_| false);
        assert_eq!(headers[CONTENT_LOCATION], "http://127.0.0.1:8080/c");
        assert!(!headers.contains_key(LOCATION));
    }
}
