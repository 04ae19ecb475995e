//! Asks Azure DevOps whom a token belongs to, before anything is written.

use std::{io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use http::{HeaderValue, Request, StatusCode, header, uri::PathAndQuery};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use secrecy::SecretString;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::vault::token::{FingerprintKey, NoToken, Scheme, Token};

const HOST: &str = "dev.azure.com";
/// For the whole of one question.
const DEADLINE: Duration = Duration::from_secs(30);
/// The longest answer that is read, in bytes.
const LONGEST: usize = 1 << 20;
/// Whom Azure DevOps takes somebody without a token for.
const ANONYMOUS: &str = "aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa";

/// Why it could not be told whom a token belongs to.
#[derive(Debug, thiserror::Error)]
pub enum WhoIsError {
    /// It is no token at all.
    #[error("this is no personal access token: {0}")]
    NoToken(#[from] NoToken),
    /// No way there.
    #[error("dev.azure.com can't be reached: {0}")]
    Unreachable(#[source] io::Error),
    /// The other end is not Azure DevOps; nothing was sent to it.
    #[error("the other end could not prove that it is dev.azure.com, and the token was not sent: {0}")]
    Tls(#[source] io::Error),
    /// Nothing came in time.
    #[error("dev.azure.com did not answer within 30 s")]
    Timeout,
    /// The token is not accepted.
    #[error("Azure DevOps does not accept the token for {organization}: {reason}")]
    Rejected {
        /// Where.
        organization: String,
        /// Azure DevOps' own words, or what its answer means.
        reason: String,
    },
    /// There is no such organization.
    #[error("Azure DevOps knows no organization named {0}")]
    NoOrganization(String),
    /// Anything else.
    #[error("Azure DevOps' answer can't be used: {0}")]
    Answer(String),
    /// This process lacks something.
    #[error("{0}")]
    System(String),
}

/// The way to Azure DevOps: where `dev.azure.com` is reached, and which authorities prove that it is it.
#[derive(Clone, Debug)]
pub struct Door {
    address: Option<SocketAddr>,
    tls: Arc<rustls::ClientConfig>,
}

impl Door {
    /// The real one: the name's own addresses, the platform's authorities (else the bundled ones).
    ///
    /// # Errors
    /// No TLS on this machine.
    pub fn real() -> Result<Self, WhoIsError> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        Self::new(None, roots)
    }

    /// Another address, proved by the authorities of a file.
    ///
    /// # Errors
    /// A file that holds no certificate.
    pub fn at(address: SocketAddr, ca: &Path) -> Result<Self, WhoIsError> {
        let unusable =
            |error: &dyn std::fmt::Display| WhoIsError::System(format!("{}: {error}", ca.display()));
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(ca).map_err(|error| unusable(&error))? {
            let certificate = certificate.map_err(|error| unusable(&error))?;
            roots.add(certificate).map_err(|error| unusable(&error))?;
        }
        Self::new(Some(address), roots)
    }

    fn new(address: Option<SocketAddr>, roots: RootCertStore) -> Result<Self, WhoIsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| WhoIsError::System(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { address, tls: Arc::new(tls) })
    }

    async fn connect(&self) -> Result<tokio_rustls::client::TlsStream<TcpStream>, WhoIsError> {
        let stream = match self.address {
            Some(address) => TcpStream::connect(address).await,
            None => TcpStream::connect((HOST, 443)).await,
        };
        let stream = stream.map_err(WhoIsError::Unreachable)?;
        let name = ServerName::try_from(HOST).map_err(|error| WhoIsError::System(error.to_string()))?;
        TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream).await.map_err(WhoIsError::Tls)
    }
}

/// Whom a token belongs to in an organization: `Sam Sample (sam@contoso.example)`. Within 30 s.
///
/// # Errors
/// See [`WhoIsError`].
pub async fn who_is(door: &Door, organization: &str, pat: &SecretString) -> Result<String, WhoIsError> {
    let data = ask(door, organization, "_apis/connectionData", pat).await?;
    let text = |pointer: &str| {
        let value = data.pointer("/authenticatedUser")?.pointer(pointer)?.as_str();
        value.map(printable).filter(|text| !text.is_empty())
    };
    let id = text("/id");
    if id.as_deref() == Some(ANONYMOUS) {
        let reason = "it belongs to nobody".into();
        return Err(WhoIsError::Rejected { organization: organization.into(), reason });
    }
    let name = text("/customDisplayName").or_else(|| text("/providerDisplayName"));
    let account = text("/properties/Account/$value");
    match (name, account) {
        (Some(name), Some(account)) => Ok(format!("{name} ({account})")),
        (Some(one), None) | (None, Some(one)) => Ok(one),
        (None, None) => id.ok_or_else(|| WhoIsError::Answer("its connectionData names no user".into())),
    }
}

/// The path of a repository that the token can read, `/contoso/web/_git/web`: for the lines to paste. `None`
/// where there is none, or it can't be told.
pub async fn a_repository(door: &Door, organization: &str, pat: &SecretString) -> Option<String> {
    let repositories = ask(door, organization, "_apis/git/repositories?api-version=7.1", pat).await.ok()?;
    let disabled = |repository: &Value| repository.get("isDisabled").and_then(Value::as_bool) == Some(true);
    let repository = repositories.get("value")?.as_array()?.iter().find(|one| !disabled(one))?;
    let segment = |pointer| {
        let name = repository.pointer(pointer)?.as_str()?;
        Some(utf8_percent_encode(name, SEGMENT).to_string())
    };
    let (project, name) = (segment("/project/name")?, segment("/name")?);
    Some(format!("/{organization}/{project}/_git/{name}"))
}

const SEGMENT: &percent_encoding::AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

async fn ask(door: &Door, organization: &str, what: &str, pat: &SecretString) -> Result<Value, WhoIsError> {
    let key = FingerprintKey::random().map_err(WhoIsError::System)?;
    let pat = Token::new(pat.clone(), Scheme::Basic, &key)?;
    let asked = exchange(door, organization, what, &pat);
    tokio::time::timeout(DEADLINE, asked).await.map_err(|_| WhoIsError::Timeout)?
}

async fn exchange(door: &Door, organization: &str, what: &str, pat: &Token) -> Result<Value, WhoIsError> {
    let answer = |error: &dyn std::fmt::Display| WhoIsError::Answer(error.to_string());
    let target = PathAndQuery::try_from(format!("/{organization}/{what}")).map_err(|error| answer(&error))?;
    let mut request = Request::new(Empty::<bytes::Bytes>::new());
    *request.uri_mut() = target.into();
    let headers = request.headers_mut();
    for (name, value) in [
        (header::HOST, HOST),
        (header::ACCEPT, "application/json"),
        (header::USER_AGENT, concat!("patgate/", env!("CARGO_PKG_VERSION"))),
        (header::HeaderName::from_static("x-tfs-fedauthredirect"), "Suppress"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let stream = door.connect().await?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| answer(&error))?;
    pat.authorize(request.headers_mut());
    // What breaks the connection is told by the sender, too.
    let connection = tokio::spawn(connection);
    let answered = sender.send_request(request).await.map_err(|error| answer(&error))?;
    let (head, body) = answered.into_parts();
    let body = Limited::new(body, LONGEST).collect().await.map_err(|error| answer(&error))?.to_bytes();
    connection.abort();
    verdict(organization, &head, &body)
}

/// A page for signing in never looks like success.
fn verdict(organization: &str, head: &http::response::Parts, body: &[u8]) -> Result<Value, WhoIsError> {
    let rejected = |reason: String| WhoIsError::Rejected { organization: organization.into(), reason };
    match head.status {
        StatusCode::OK => {
            let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
            serde_json::from_slice(body).map_err(|error| WhoIsError::Answer(error.to_string()))
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            let said = head.headers.get("x-tfs-serviceerror").and_then(|value| value.to_str().ok());
            let said = said.map(|said| printable(&percent_decode_str(said).decode_utf8_lossy()));
            Err(rejected(said.unwrap_or_else(|| format!("it answered {}", head.status))))
        }
        StatusCode::NON_AUTHORITATIVE_INFORMATION | StatusCode::FOUND => {
            Err(rejected("it asked for a sign-in instead".into()))
        }
        StatusCode::NOT_FOUND => Err(WhoIsError::NoOrganization(organization.into())),
        status => Err(WhoIsError::Answer(format!("status {status}"))),
    }
}

/// Text of another's making, fit for a terminal and a comment: one line, no control characters.
fn printable(text: &str) -> String {
    text.chars().filter(|char| !char.is_control()).take(200).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{Behaviour, Options, Organization};

    fn sample(folder: &Path) -> Organization {
        Organization::start(Options {
            folder: folder.join("sample"),
            organizations: vec!["contoso".into()],
            pat: Some("made-up-token".into()),
            address: ([127, 0, 0, 1], 0).into(),
        })
        .unwrap()
    }

    #[tokio::test]
    async fn the_owner_of_a_good_token_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let organization = sample(folder.path());
        let door = Door::at(organization.address(), organization.ca()).unwrap();
        let pat = SecretString::from("made-up-token");
        assert_eq!(who_is(&door, "contoso", &pat).await.unwrap(), "Sam Sample (sam@contoso.example)");
        assert_eq!(a_repository(&door, "contoso", &pat).await.unwrap(), "/contoso/web/_git/web");
        let seen = organization.seen();
        assert_eq!(seen[0].authorization, ["Basic Om1hZGUtdXAtdG9rZW4="]);
        assert_eq!(seen[0].header("x-tfs-fedauthredirect").collect::<Vec<_>>(), ["Suppress"]);
    }

    #[tokio::test]
    async fn what_is_wrong_with_a_token_is_told_in_azure_devops_words() {
        let folder = tempfile::tempdir().unwrap();
        let organization = sample(folder.path());
        let door = Door::at(organization.address(), organization.ca()).unwrap();
        let good = SecretString::from("made-up-token");
        for (behaviour, expected) in [
            (Behaviour::Expired, "The Personal Access Token used has expired."),
            (Behaviour::SignInPage, "asked for a sign-in"),
            (Behaviour::SignInRedirect, "asked for a sign-in"),
            (Behaviour::Stopped, "status 503"),
            (Behaviour::Garbage, "can't be used"),
            (Behaviour::Cut { after: 20 }, "can't be used"),
        ] {
            organization.behave(behaviour);
            let error = who_is(&door, "contoso", &good).await.unwrap_err().to_string();
            assert!(error.contains(expected), "{behaviour:?}: {error}");
        }
        organization.behave(Behaviour::Sound);
        let error = who_is(&door, "contoso", &SecretString::from("another")).await.unwrap_err();
        assert!(matches!(error, WhoIsError::Rejected { .. }), "{error}");
        let error = who_is(&door, "fabrikam", &good).await.unwrap_err();
        assert!(matches!(error, WhoIsError::NoOrganization(_)), "{error}");
    }

    #[tokio::test]
    async fn an_end_that_can_not_prove_its_name_gets_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let organization = sample(folder.path());
        let other = crate::sample::certificate::issue("another", &["dev.azure.com".into()], 2).unwrap();
        let ca = folder.path().join("other.pem");
        std::fs::write(&ca, other.authority).unwrap();
        let door = Door::at(organization.address(), &ca).unwrap();
        let error = who_is(&door, "contoso", &SecretString::from("made-up-token")).await.unwrap_err();
        assert!(matches!(error, WhoIsError::Tls(_)), "{error}");
        assert_eq!(organization.requests(), 0);
    }
}
