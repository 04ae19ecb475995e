//! A new connection to a host: address, way out, TLS. Nothing of a request is sent before the other end has
//! proved by its certificate that it is the host.

use std::{collections::BTreeMap, io, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use http::uri::Authority;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName},
};
use tokio::{io::BufReader, time::timeout};
use tokio_rustls::TlsConnector;

use super::{
    dial::dial,
    fault::Fault,
    pool::{Connection, Place},
    proxy, resolve,
};
use crate::{config, refusal::Refusal};

/// For the TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Every host of the closed list is reached here, and no other port.
const PORT: u16 = 443;

/// hyper's buffers, in bytes: large enough that a clone is not cut into small pieces, small enough that a
/// connection that waits costs little. It also bounds the head of an answer.
const BUFFER: usize = 128 * 1024;

/// What is read from the socket at once, in bytes: eight records of TLS. Only what was read into once takes memory.
const READ_AHEAD: usize = 128 * 1024;

/// The authorities whose certificates are believed: the platform's, else those that came with patgate. Cheap to
/// clone; one for all workers.
#[derive(Clone, Debug)]
pub struct Roots(Arc<RootCertStore>);

impl Roots {
    /// Reads the platform's roots. Blocks: to be called once, before the workers start.
    #[must_use]
    pub fn load() -> Self {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if store.is_empty() {
            store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        Self(Arc::new(store))
    }
}

impl Roots {
    /// As rustls takes them.
    pub(crate) fn store(&self) -> Arc<RootCertStore> {
        Arc::clone(&self.0)
    }
}

#[cfg(test)]
impl Roots {
    pub(super) fn of(certificates: Vec<CertificateDer<'static>>) -> Self {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(certificates);
        Self(Arc::new(store))
    }
}

/// How hosts are reached under one configuration. TLS sessions are resumed within it.
pub(crate) struct Connector {
    pub(super) generation: u64,
    addresses: BTreeMap<Arc<str>, SocketAddr>,
    proxy: Option<Authority>,
    no_proxy: Vec<Arc<str>>,
    tls: TlsConnector,
    lab: Option<(Vec<CertificateDer<'static>>, TlsConnector)>,
}

impl Connector {
    /// Takes what it needs of a configuration; the CA of `[upstream] ca` is believed for the hosts of
    /// `[upstream] addresses` alone, and is the only one that is believed for them.
    ///
    /// # Errors
    /// `internal`, where rustls does not accept its own defaults.
    pub(super) fn new(
        generation: u64,
        upstream: &config::Upstream,
        outbound: &config::Outbound,
        roots: &Roots,
    ) -> Result<Rc<Self>, Fault> {
        let lab = match &upstream.ca {
            Some((_, certificates)) => {
                let mut store = RootCertStore::empty();
                store.add_parsable_certificates(certificates.iter().cloned());
                Some((certificates.clone(), connector(Arc::new(store))?))
            }
            None => None,
        };
        Ok(Rc::new(Self {
            generation,
            addresses: upstream.addresses.clone(),
            proxy: outbound.proxy.clone(),
            no_proxy: outbound.no_proxy.clone(),
            tls: connector(Arc::clone(&roots.0))?,
            lab,
        }))
    }

    /// Whether it would be made just so for another configuration.
    pub(super) fn suits(&self, upstream: &config::Upstream, outbound: &config::Outbound) -> bool {
        self.addresses == upstream.addresses
            && self.proxy == outbound.proxy
            && self.no_proxy == outbound.no_proxy
            && self.lab.as_ref().map(|(ca, _)| ca) == upstream.ca.as_ref().map(|(_, ca)| ca)
    }

    /// Opens a connection to a host and starts its task on this thread.
    ///
    /// # Errors
    /// `upstream-unreachable`, `upstream-forbidden`, `upstream-tls`, `upstream-timeout`
    pub(super) async fn open(&self, host: &'static str) -> Result<Connection, Fault> {
        let (stream, tls) = match (self.addresses.get(host), &self.proxy) {
            (Some(address), _) => {
                let tls = self.lab.as_ref().map_or(&self.tls, |(_, tls)| tls);
                (dial(vec![*address], host).await?, tls)
            }
            (None, Some(proxy)) if !self.goes_direct(host) => {
                let port = proxy.port_u16().unwrap_or(80);
                let stream = dial(resolve::lookup(bare(proxy.host()), port).await?, proxy.as_str()).await?;
                (proxy::tunnel(stream, proxy, host, PORT).await?, &self.tls)
            }
            _ => (dial(resolve::resolve(host, PORT).await?, host).await?, &self.tls),
        };
        let name = ServerName::try_from(host)
            .map_err(|_| Fault::new(Refusal::Internal, format!("{host} is no name for a certificate")))?;
        // rustls reads 4 KiB at a time, which would be four system calls a record.
        let stream = BufReader::with_capacity(READ_AHEAD, stream);
        let stream = match timeout(HANDSHAKE, tls.connect(name, stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(handshake_failed(host, &error)),
            Err(_) => {
                return Err(Fault::new(
                    Refusal::UpstreamTimeout,
                    format!("{host} did not finish the TLS handshake within {} s", HANDSHAKE.as_secs()),
                ));
            }
        };
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(BUFFER)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| Fault::unreachable(format!("{host}: {error}")))?;
        // Its errors reach whoever waits for an answer or reads a body; nobody else has use for them.
        let task = tokio::task::spawn_local(async move { drop(connection.await) });
        Ok(Connection::new(Place { host, generation: self.generation }, sender, task.abort_handle()))
    }

    /// Whether `[outbound] no-proxy` names a host: itself, or by `.suffix` a domain it is in.
    fn goes_direct(&self, host: &str) -> bool {
        self.no_proxy.iter().any(|name| match name.strip_prefix('.') {
            Some(domain) => {
                host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }
            None => &**name == host,
        })
    }
}

/// An IPv6 address without the brackets that an authority puts around it.
fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// TLS 1.3 and 1.2 with a set of roots. No early data: what it carries could be replayed.
fn connector(roots: Arc<RootCertStore>) -> Result<TlsConnector, Fault> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Fault::new(Refusal::Internal, format!("TLS can't be set up: {error}")))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// A certificate that proves nothing is another matter than a connection that broke.
fn handshake_failed(host: &str, error: &io::Error) -> Fault {
    let tls = matches!(error.get_ref(), Some(inner) if inner.is::<rustls::Error>());
    let why = if tls { Refusal::UpstreamTls } else { Refusal::UpstreamUnreachable };
    Fault::new(why, format!("the TLS handshake with {host} failed: {error}"))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, date_time_ymd};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
    };

    use super::*;
    use crate::upstream::{
        exchange::exchange,
        network::Network,
        rig::{self, HOST, Rig},
    };

    #[test]
    fn no_proxy_names_a_host_or_a_domain() {
        let outbound = config::Outbound {
            proxy: None,
            no_proxy: vec!["dev.azure.com".into(), ".visualstudio.com".into()],
        };
        let roots = Roots::of(Vec::new());
        let connector = Connector::new(1, &config::Upstream::default(), &outbound, &roots).unwrap();
        for (host, direct) in [
            ("dev.azure.com", true),
            ("pkgs.dev.azure.com", false),
            ("contoso.visualstudio.com", true),
            ("notvisualstudio.com", false),
        ] {
            assert_eq!(connector.goes_direct(host), direct, "{host}");
        }
    }

    /// Opens a connection while the host takes one; yields what came of it, and what the host read.
    async fn opened(rig: &Rig) -> (Option<Refusal>, usize) {
        let (network, connector) = rig.network();
        let client = async {
            let opened = network.connection(&connector, HOST, false).await;
            let Ok(connection) = opened else { return opened.err().map(|fault| fault.why) };
            let (request, supply) = rig::get();
            let _ = exchange(connection, request, &supply, rig::PATIENCE).await;
            None
        };
        let host = async {
            match rig.accept().await {
                Ok(mut stream) => stream.read(&mut [0; 64]).await.unwrap_or(0),
                Err(_) => 0,
            }
        };
        tokio::join!(client, host)
    }

    #[test]
    fn nothing_is_sent_to_a_host_that_proves_another_name_or_none() {
        type Change = fn(&mut CertificateParams);
        let changes: [(&str, Change); 4] = [
            ("another name", |params| *params = CertificateParams::new(vec!["evil.test".into()]).unwrap()),
            ("a name that begins alike", |params| {
                *params = CertificateParams::new(vec!["dev.azure.com.evil.test".into()]).unwrap();
            }),
            ("expired", |params| params.not_after = date_time_ymd(2020, 1, 1)),
            ("not yet valid", |params| params.not_before = date_time_ymd(4000, 1, 1)),
        ];
        rig::run(async {
            for (what, change) in changes {
                let rig = Rig::with(change).await;
                assert_eq!(opened(&rig).await, (Some(Refusal::UpstreamTls), 0), "{what}");
            }
            let (mut rig, other) = (Rig::new().await, Rig::new().await);
            rig.ca = other.ca;
            assert_eq!(opened(&rig).await, (Some(Refusal::UpstreamTls), 0), "another authority");
            let good = Rig::new().await;
            assert!(matches!(opened(&good).await, (None, 1..)), "a good one is sent the request");
        });
    }

    #[test]
    fn the_authority_of_a_lab_is_believed_for_its_addresses_alone() {
        rig::run(async {
            let rig = Rig::new().await;
            let network = Network::new(Roots::of(vec![rig.ca.clone()]));
            let addresses = BTreeMap::from([(Arc::from(HOST), rig.address())]);
            let other = Rig::new().await;
            let upstream = config::Upstream { addresses, ca: Some(("lab.pem".into(), vec![other.ca])) };
            let connector = network.connector(1, &upstream, &config::Outbound::default()).unwrap();
            let (opened, _) = tokio::join!(network.connection(&connector, HOST, false), rig.accept());
            assert_eq!(opened.err().map(|fault| fault.why), Some(Refusal::UpstreamTls));
        });
    }

    #[test]
    fn through_a_proxy_tls_is_with_the_host_itself() {
        rig::run(async {
            let rig = Rig::new().await;
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let network = Network::new(Roots::of(vec![rig.ca.clone()]));
            let proxy = Some(listener.local_addr().unwrap().to_string().parse().unwrap());
            let outbound = config::Outbound { proxy, no_proxy: Vec::new() };
            let connector = network.connector(1, &config::Upstream::default(), &outbound).unwrap();
            let proxied = async {
                let (mut near, _) = listener.accept().await.unwrap();
                let asked = rig::read_until(&mut near, "\r\n\r\n").await;
                near.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                let mut far = TcpStream::connect(rig.address()).await.unwrap();
                tokio::task::spawn_local(async move {
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                });
                asked
            };
            let host = async {
                let mut stream = rig.accept().await.unwrap();
                rig::answer(&mut stream, "HTTP/1.1 204 No Content\r\n\r\n").await
            };
            let client = async {
                let connection =
                    network.connection(&connector, HOST, false).await.unwrap_or_else(|f| panic!("{f:?}"));
                let (request, supply) = rig::get();
                let answer = exchange(connection, request, &supply, rig::PATIENCE).await;
                answer.ok().map(|answer| answer.response.status().as_u16())
            };
            let (status, asked, head) = tokio::join!(client, proxied, host);
            assert_eq!(status, Some(204));
            assert!(asked.starts_with("CONNECT dev.azure.com:443 HTTP/1.1\r\n"), "{asked}");
            assert!(head.starts_with("GET /contoso/x?y HTTP/1.1\r\n"), "{head}");
        });
    }
}
