//! The way to Key Vault, to Entra and to a machine's own identity: the transport below Microsoft's libraries.

use std::{collections::BTreeMap, env, net::SocketAddr, sync::Arc};

use azure_core::{
    error::ErrorKind,
    http::{
        AsyncRawResponse, Body, HttpClient, Request, Url,
        headers::{HeaderName, HeaderValue, Headers},
    },
};
use bytes::Bytes;
use tokio::sync::Semaphore;

use super::refusal;
use crate::{
    config::{Identity, IdentityMethod, Outbound, Trust},
    vault::{VaultError, network},
};

/// Where a virtual machine asks for its identity.
const METADATA: &str = "169.254.169.254";

/// A file system that hangs keeps no more threads than these.
const AT_ONCE: usize = 4;

/// Goes to the hosts it was made for and nowhere else, whatever an answer or the environment may name.
pub(in crate::vault) struct Line {
    client: reqwest::Client,
    vault: Option<Arc<str>>,
    authority: Arc<str>,
    metadata: Option<Metadata>,
    turns: Arc<Semaphore>,
}

/// The machine's own service, that speaks plain HTTP and never leaves the machine.
struct Metadata {
    client: reqwest::Client,
    /// As it stands in URLs.
    host: String,
    port: u16,
    /// Where it is instead, in labs.
    address: Option<SocketAddr>,
}

/// Who is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Party {
    Vault,
    Authority,
    Metadata,
}

impl Line {
    /// A way to `vault`, if there is one, and to whoever gives the tokens of `identity`.
    ///
    /// # Errors
    /// As a sentence.
    pub(in crate::vault) fn new(
        vault: Option<&Arc<str>>,
        identity: &Identity,
        trust: &Trust,
        addresses: &BTreeMap<Arc<str>, SocketAddr>,
        outbound: &Outbound,
    ) -> Result<Arc<Self>, String> {
        let metadata = match identity.method {
            IdentityMethod::ManagedIdentity { .. } => {
                let (host, port) = metadata(|name| env::var(name).ok())?;
                // Never by a proxy: it would be asked for another machine's identity.
                let client = network::client(&Outbound::default(), trust, &BTreeMap::new(), None)?;
                let address = addresses.get(METADATA).filter(|_| host == METADATA).copied();
                Some(Metadata { client, host, port, address })
            }
            _ => None,
        };
        Ok(Arc::new(Self {
            client: network::client(outbound, trust, addresses, None)?,
            vault: vault.cloned(),
            authority: Arc::clone(&identity.authority),
            metadata,
            turns: Arc::new(Semaphore::new(AT_ONCE)),
        }))
    }

    /// Turns for reads of files.
    pub(super) fn turns(&self) -> Arc<Semaphore> {
        Arc::clone(&self.turns)
    }

    /// Who a URL belongs to. A vault's answer may hold a URL of a next page: it leads nowhere else.
    fn party(&self, url: &Url) -> Result<Party, VaultError> {
        let (host, port) = (url.host_str().unwrap_or_default(), url.port_or_known_default());
        if url.scheme() == "https" && port == Some(443) {
            if self.vault.as_deref() == Some(host) {
                return Ok(Party::Vault);
            }
            if *self.authority == *host {
                return Ok(Party::Authority);
            }
        }
        match &self.metadata {
            Some(own) if url.scheme() == "http" && own.host == host && port == Some(own.port) => {
                Ok(Party::Metadata)
            }
            _ => {
                Err(VaultError::Unavailable("its answer leads to another host, where no token may go".into()))
            }
        }
    }

    async fn send(&self, request: &Request) -> Result<AsyncRawResponse, VaultError> {
        let party = self.party(request.url())?;
        let bears =
            request.headers().iter().any(|(name, _)| name.as_str().eq_ignore_ascii_case("authorization"));
        if bears && party != Party::Vault {
            return Err(VaultError::Unavailable(
                "its answer leads to another host, where no token may go".into(),
            ));
        }
        let sent = self.built(party, request)?.send().await;
        let response = sent.map_err(|error| self.at(party, network::silence(&error)))?;
        let status = response.status();
        let headers = headers(response.headers());
        let body = network::body(response, network::ANSWER).await;
        let body = body.map_err(|error| self.at(party, error))?;
        // The libraries take some of these for a reason to try again, some for an answer that they can't read.
        if !status.is_success() {
            match party {
                Party::Vault => {}
                Party::Authority => return Err(refusal::of_authority(&self.authority, status, &body)),
                Party::Metadata => return Err(refusal::of_metadata(status)),
            }
        }
        Ok(AsyncRawResponse::from_bytes(status.as_u16().into(), headers, Bytes::from_owner(body)))
    }

    fn built(&self, party: Party, request: &Request) -> Result<reqwest::RequestBuilder, VaultError> {
        let mut url = request.url().clone();
        let mut client = &self.client;
        if let (Party::Metadata, Some(metadata)) = (party, &self.metadata) {
            client = &metadata.client;
            if let Some(address) = metadata.address {
                let moved = url.set_ip_host(address.ip()).and_then(|()| url.set_port(Some(address.port())));
                moved.map_err(|()| VaultError::Unavailable("its address can't be reached".into()))?;
            }
        }
        let method = http::Method::from_bytes(request.method().as_str().as_bytes());
        let method = method.map_err(|_| VaultError::Unavailable("its method is unknown".into()))?;
        let mut built = client.request(method, url);
        for (name, value) in request.headers().iter() {
            built = built.header(name.as_str(), value.as_str());
        }
        match request.body() {
            Body::Bytes(bytes) => Ok(built.body(bytes.clone())),
            Body::SeekableStream(_) => {
                Err(VaultError::Unavailable("a request that streams is not sent".into()))
            }
        }
    }

    /// Says who it was that did not answer.
    fn at(&self, party: Party, error: VaultError) -> VaultError {
        let who = match party {
            Party::Vault => self.vault.as_deref().unwrap_or_default(),
            Party::Authority => &self.authority,
            Party::Metadata => "the machine's identity service",
        };
        match error {
            VaultError::Unavailable(why) => VaultError::Unavailable(format!("{who}: {why}").into()),
            other => other,
        }
    }
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Line").field("authority", &self.authority).finish_non_exhaustive()
    }
}

#[async_trait::async_trait]
impl HttpClient for Line {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        // Of a kind that no policy of the libraries' tries again.
        self.send(request).await.map_err(|error| azure_core::Error::new(ErrorKind::Other, error))
    }
}

/// Where the machine's identity is asked for: App Service and its like say so, a virtual machine has a fixed place.
fn metadata(variable: impl Fn(&str) -> Option<String>) -> Result<(String, u16), String> {
    let Some(endpoint) = variable("IDENTITY_ENDPOINT").filter(|_| variable("IDENTITY_HEADER").is_some())
    else {
        return Ok((METADATA.to_owned(), 80));
    };
    let wrong = "IDENTITY_ENDPOINT, by which the platform says where the machine's identity is, is no plain HTTP \
                 URL of this machine (loopback, or 169.254.0.0/16); unset it, or use another method";
    let url: Url = endpoint.parse().map_err(|_| wrong.to_owned())?;
    let host = url.host_str().unwrap_or_default();
    let near = host == "localhost"
        || host.parse().is_ok_and(|ip: std::net::Ipv4Addr| ip.is_loopback() || ip.is_link_local())
        || host == "[::1]";
    match url.port_or_known_default() {
        Some(port) if near && url.scheme() == "http" => Ok((host.to_owned(), port)),
        _ => Err(wrong.to_owned()),
    }
}

fn headers(map: &http::HeaderMap) -> Headers {
    let mut headers = Headers::new();
    for (name, value) in map {
        if let Ok(value) = value.to_str() {
            headers.insert(HeaderName::from(name.as_str().to_owned()), HeaderValue::from(value.to_owned()));
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(method: IdentityMethod) -> Arc<Line> {
        let identity = Identity { authority: "login.microsoftonline.com".into(), method };
        let vault = "corp.vault.azure.net".into();
        let trust = Trust::default();
        Line::new(Some(&vault), &identity, &trust, &BTreeMap::new(), &Outbound::default()).unwrap()
    }

    #[test]
    fn a_token_goes_to_its_own_hosts_alone() {
        let line = line(IdentityMethod::ManagedIdentity { client_id: None });
        for (url, party) in [
            ("https://corp.vault.azure.net/secrets/x", Some(Party::Vault)),
            ("https://CORP.vault.azure.net:443/", Some(Party::Vault)),
            ("https://login.microsoftonline.com/t/oauth2/v2.0/token", Some(Party::Authority)),
            ("http://169.254.169.254/metadata/identity/oauth2/token", Some(Party::Metadata)),
            ("http://169.254.169.254:8080/", None),
            ("https://169.254.169.254/", None),
            ("http://corp.vault.azure.net/", None),
            ("https://corp.vault.azure.net:8443/", None),
            ("https://other.vault.azure.net/", None),
            ("https://corp.vault.azure.net.evil.example/", None),
            ("https://evil.example/", None),
        ] {
            assert_eq!(line.party(&url.parse().unwrap()).ok(), party, "{url}");
        }
    }

    #[test]
    fn only_a_managed_identity_asks_the_machine() {
        let line = line(IdentityMethod::AzureCli { tenant_id: None });
        assert!(line.party(&"http://169.254.169.254/".parse().unwrap()).is_err());
    }

    #[test]
    fn the_platform_names_a_place_on_this_machine() {
        let of = |endpoint: &'static str| {
            metadata(move |name| {
                Some(if name == "IDENTITY_ENDPOINT" { endpoint } else { "header" }.to_owned())
            })
        };
        for (endpoint, place) in [
            ("http://localhost:42356/msi/token", Some(("localhost", 42356))),
            ("http://127.0.0.1:41741/msi/token/", Some(("127.0.0.1", 41741))),
            ("http://169.254.129.4:8081/msi/token", Some(("169.254.129.4", 8081))),
            ("http://[::1]/token", Some(("[::1]", 80))),
            ("https://localhost/token", None),
            ("http://10.0.0.1/token", None),
            ("http://localhost.evil.example/token", None),
            ("http://localhost@evil.example/token", None),
            ("no url", None),
        ] {
            let expected = place.map(|(host, port)| (host.to_owned(), port));
            assert_eq!(of(endpoint).ok(), expected, "{endpoint}");
        }
        assert_eq!(metadata(|_| None).unwrap(), (METADATA.to_owned(), 80));
    }
}
