//! Git's protocol for credential helpers (git-credential(1), "INPUT/OUTPUT FORMAT").

use http::Uri;
use jiff::Timestamp;
use secrecy::SecretString;
use zeroize::Zeroizing;

use crate::vault::VaultError;

/// What a helper said.
pub(super) struct Answer {
    pub(super) password: SecretString,
    pub(super) expires: Option<Timestamp>,
}

/// What is asked for a URL. `None`: it is none.
pub(super) fn request(url: &str) -> Option<Zeroizing<Vec<u8>>> {
    let uri: Uri = url.parse().ok()?;
    let (authority, scheme) = (uri.authority()?.as_str(), uri.scheme_str()?);
    let (user, host) = match authority.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, authority),
    };
    let mut text = Zeroizing::new(format!("protocol={scheme}\nhost={host}\n"));
    let path = uri.path().trim_start_matches('/');
    for (name, value) in [("path", Some(path).filter(|path| !path.is_empty())), ("username", user)] {
        if let Some(value) = value {
            text.extend([name, "=", value, "\n"]);
        }
    }
    text.push('\n');
    Some(Zeroizing::new(text.as_bytes().to_vec()))
}

/// Reads an answer. Lines that are not known are left out, as the protocol wants it.
pub(super) fn answer(text: &str, asked: &str) -> Result<Answer, VaultError> {
    let none = || {
        let host =
            asked.parse::<Uri>().ok().and_then(|uri| uri.host().map(str::to_owned)).unwrap_or_default();
        VaultError::Denied(format!("the helper knows no password for {host}").into())
    };
    let (mut password, mut expires) = (None, None);
    for line in text.lines().take_while(|line| !line.is_empty()) {
        match line.split_once('=') {
            Some(("password", value)) => password = Some(SecretString::from(value)),
            Some(("password_expiry_utc", value)) => {
                expires = value.parse().ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
            }
            Some(("quit", "1" | "true")) => return Err(none()),
            _ => {}
        }
    }
    Ok(Answer { password: password.ok_or_else(none)?, expires })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::token::exposed;

    #[test]
    fn a_url_becomes_lines() {
        for (url, lines) in [
            ("https://dev.azure.com", "protocol=https\nhost=dev.azure.com\n\n"),
            ("https://dev.azure.com/contoso", "protocol=https\nhost=dev.azure.com\npath=contoso\n\n"),
            (
                "https://contoso@dev.azure.com:8443/a/b",
                "protocol=https\nhost=dev.azure.com:8443\npath=a/b\nusername=contoso\n\n",
            ),
        ] {
            assert_eq!(request(url).unwrap().as_slice(), lines.as_bytes(), "{url}");
        }
        for no_url in ["", "absent", "/path", "[\"list\"]"] {
            assert!(request(no_url).is_none(), "{no_url}");
        }
    }

    #[test]
    fn the_password_is_taken_and_no_more() {
        let url = "https://dev.azure.com/contoso";
        for (text, password, expires) in [
            ("password=canary\n", "canary", None),
            ("protocol=https\nusername=me\npassword=a=b\nother\n", "a=b", None),
            ("password=canary\npassword_expiry_utc=1700000000\n", "canary", Some(1_700_000_000)),
            ("password=canary\npassword_expiry_utc=soon\noauth_refresh_token=x\n", "canary", None),
            ("password=first\n\npassword=second\n", "first", None),
        ] {
            let answer = answer(text, url).unwrap();
            assert_eq!(exposed(&answer.password), password, "{text}");
            assert_eq!(answer.expires.map(Timestamp::as_second), expires, "{text}");
        }
        for nothing in ["", "\n", "username=me\n", "quit=1\npassword=x\n", "password=x\nquit=true\n"] {
            let Err(VaultError::Denied(why)) = answer(nothing, url) else { panic!("{nothing}") };
            assert_eq!(&*why, "the helper knows no password for dev.azure.com");
        }
    }
}
