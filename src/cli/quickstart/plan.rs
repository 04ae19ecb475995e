//! What quickstart is going to set up.

use std::net::{IpAddr, SocketAddr, TcpListener};

use secrecy::SecretString;

/// An organization with its token and the token's owner.
#[derive(Debug)]
pub struct Member {
    /// The organization, in lower case.
    pub name: String,
    /// Its token.
    pub pat: SecretString,
    /// Whom the token belongs to, as Azure DevOps says.
    pub owner: String,
    /// The path of a repository to show, `/contoso/web/_git/web`, if one is known.
    pub repository: Option<String>,
}

/// All that goes into a new folder.
#[derive(Debug)]
pub struct Plan {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Where health and metrics are, on loopback.
    pub admin: SocketAddr,
    /// The organizations, at least one.
    pub members: Vec<Member>,
    /// Where the sample organisation listens, if `dev.azure.com` is to be it.
    pub sample: Option<SocketAddr>,
}

impl Plan {
    /// The URL that clients use.
    #[must_use]
    pub fn public_url(&self) -> String {
        let ip = self.listen.ip();
        let host = match ip {
            _ if ip.is_loopback() || ip.is_unspecified() => "localhost".to_owned(),
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        match self.listen.port() {
            443 => format!("https://{host}"),
            port => format!("https://{host}:{port}"),
        }
    }

    /// The names that the certificate is for.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
        let ip = self.listen.ip();
        if !ip.is_loopback() && !ip.is_unspecified() {
            names.push(ip.to_string());
        }
        names
    }
}

/// An organization's name as the configuration has it: in lower case.
///
/// # Errors
/// Where it can't be one, as a sentence.
pub fn organization(name: &str) -> Result<String, String> {
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let edges = !name.starts_with('-') && !name.ends_with('-');
    if !name.is_empty() && name.len() <= 50 && plain && edges {
        return Ok(name.to_ascii_lowercase());
    }
    Err(format!(
        "{name:?} is no organization's name; write the part after https://dev.azure.com/: \
         1 to 50 letters, digits and inner hyphens"
    ))
}

/// Whether an address can be listened on.
///
/// # Errors
/// Where it can't, as a sentence.
pub fn is_free(address: SocketAddr) -> Result<(), String> {
    TcpListener::bind(address).map(drop).map_err(|error| format!("can't listen on {address}: {error}"))
}

/// This port of loopback if it is free, else one that is.
#[must_use]
pub fn loopback_port(preferred: u16, taken: &[u16]) -> SocketAddr {
    let at =
        |port| TcpListener::bind((IpAddr::from([127, 0, 0, 1]), port)).and_then(|bound| bound.local_addr());
    let preferred_one = if taken.contains(&preferred) { None } else { at(preferred).ok() };
    let found = preferred_one.or_else(|| at(0).ok());
    found.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], preferred)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_organizations_name_has_one_form() {
        for (name, expected) in [
            ("Contoso", Some("contoso")),
            ("contoso-2", Some("contoso-2")),
            ("", None),
            ("-contoso", None),
            ("contoso-", None),
            ("contoso/web", None),
            ("https://dev.azure.com/contoso", None),
            ("contoso.visualstudio.com", None),
            ("kont\u{f6}r", None),
        ] {
            assert_eq!(organization(name).ok().as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn the_url_is_one_that_the_certificate_is_for() {
        for (listen, url, named) in [
            ("127.0.0.1:8443", "https://localhost:8443", "127.0.0.1"),
            ("0.0.0.0:443", "https://localhost", "localhost"),
            ("10.1.2.3:8443", "https://10.1.2.3:8443", "10.1.2.3"),
            ("[2001:db8::1]:8443", "https://[2001:db8::1]:8443", "2001:db8::1"),
        ] {
            let plan = Plan {
                listen: listen.parse().unwrap(),
                admin: "127.0.0.1:9443".parse().unwrap(),
                members: Vec::new(),
                sample: None,
            };
            assert_eq!(plan.public_url(), url);
            assert!(plan.names().iter().any(|name| name == named), "{listen}");
        }
    }

    #[test]
    fn a_taken_port_is_noticed_and_another_is_found() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        assert!(is_free(address).unwrap_err().contains(&address.to_string()));
        assert_ne!(loopback_port(address.port(), &[]).port(), address.port());
    }
}
