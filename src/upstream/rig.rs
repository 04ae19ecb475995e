//! For the tests of this folder: a host on loopback with a certificate of its own authority, scripted byte by
//! byte, and clients' bodies as hyper's server gives them.

use std::{cell::RefCell, collections::BTreeMap, convert::Infallible, rc::Rc, sync::Arc, time::Duration};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    net::{TcpListener, TcpStream},
    runtime::{Builder, LocalOptions},
    sync::oneshot,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{
    connect::{Connector, Roots},
    exchange::Answer,
    flow::{Account, Flow, Lease},
    network::Network,
    supply::{Supply, Up},
    uses::{InUse, Uses},
};
use crate::{audit::Ending, config};

pub(super) const HOST: &str = "dev.azure.com";
pub(super) const PATIENCE: Duration = Duration::from_mins(3);

/// Runs a test on a runtime like a worker's.
pub(super) fn run(test: impl Future<Output = ()>) {
    Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap().block_on(test);
}

/// A stand-in for Azure DevOps.
pub(super) struct Rig {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    pub(super) ca: CertificateDer<'static>,
}

impl Rig {
    /// With a good certificate.
    pub(super) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// With a certificate that was tampered with.
    pub(super) async fn with(change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![HOST.to_owned()]).unwrap();
        change(&mut params);
        let certificate = params.signed_by(&key, &issuer).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let server = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            )
            .unwrap();
        Self {
            listener: TcpListener::bind("127.0.0.1:0").await.unwrap(),
            acceptor: TlsAcceptor::from(Arc::new(server)),
            ca: issuer.der().clone(),
        }
    }

    pub(super) fn address(&self) -> std::net::SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// A worker's network that reaches [`HOST`] here.
    pub(super) fn network(&self) -> (Network, Rc<Connector>) {
        let addresses = BTreeMap::from([(Arc::from(HOST), self.address())]);
        let upstream = config::Upstream { addresses, ca: Some(("lab.pem".into(), vec![self.ca.clone()])) };
        let network = Network::new(Roots::of(Vec::new()));
        let connector = network.connector(1, &upstream, &config::Outbound::default()).unwrap();
        (network, connector)
    }

    /// The next connection, TLS and all.
    pub(super) async fn accept(&self) -> std::io::Result<TlsStream<TcpStream>> {
        let (stream, _) = self.listener.accept().await?;
        stream.set_nodelay(true)?;
        self.acceptor.accept(stream).await
    }
}

/// Reads until `end` has been seen.
pub(super) async fn read_until(stream: &mut (impl AsyncReadExt + Unpin), end: &str) -> String {
    let mut text = String::new();
    while !text.ends_with(end) {
        text.push(char::from(stream.read_u8().await.unwrap()));
    }
    text
}

/// Reads a head, then answers.
pub(super) async fn answer(stream: &mut TlsStream<TcpStream>, answer: &str) -> String {
    let head = read_until(stream, "\r\n\r\n").await;
    stream.write_all(answer.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    head
}

/// A request without a body.
pub(super) fn get() -> (Request<Up>, Rc<Supply>) {
    request(None, None)
}

/// A request with a client's body.
pub(super) fn request(body: Option<Incoming>, length: Option<u64>) -> (Request<Up>, Rc<Supply>) {
    let method = if body.is_some() { "POST" } else { "GET" };
    let supply = Supply::new(body, length, Duration::from_mins(2));
    let request =
        Request::builder().method(method).uri("/contoso/x?y").header("host", HOST).body(Up::new(&supply));
    (request.unwrap(), supply)
}

/// A body as hyper's server gives it, and the client's end of it, which has sent `head` and `begun`.
pub(super) async fn client(head: &str, begun: &str) -> (Incoming, DuplexStream) {
    let (mut near, far) = duplex(1 << 20);
    let (give, given) = oneshot::channel();
    let give = RefCell::new(Some(give));
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let _ = give.borrow_mut().take().unwrap().send(request.into_body());
        std::future::pending::<Result<http::Response<Empty<Bytes>>, Infallible>>()
    });
    tokio::task::spawn_local(
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(far), service),
    );
    near.write_all(format!("POST / HTTP/1.1\r\nhost: x\r\n{head}\r\n\r\n{begun}").as_bytes()).await.unwrap();
    (given.await.unwrap(), near)
}

/// Bytes in, bytes out, and the ending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Last(pub(super) u64, pub(super) u64, pub(super) Option<Ending>);

/// What an account was told.
#[derive(Clone, Default)]
pub(super) struct Told(Rc<RefCell<Vec<Last>>>);

impl Account for Told {
    fn close(self, bytes_in: u64, bytes_out: u64, ending: Option<Ending>) {
        self.0.borrow_mut().push(Last(bytes_in, bytes_out, ending));
    }
}

impl Told {
    pub(super) fn all(&self) -> Vec<Last> {
        self.0.borrow().clone()
    }
}

/// The body of an answer, on its way down.
pub(super) fn flow(network: &Network, supply: &Rc<Supply>, answer: Answer, told: &Told) -> Flow<Told> {
    flow_of(network, supply, answer, told, Rc::<Uses>::default().begin(&"web".into()))
}

/// As [`flow`], with the use of a credential that can be cut.
pub(super) fn flow_of(
    network: &Network,
    supply: &Rc<Supply>,
    answer: Answer,
    told: &Told,
    in_use: Rc<InUse>,
) -> Flow<Told> {
    let Answer { response, connection } = answer;
    let lease = Lease { connection, pool: Rc::clone(&network.pool), in_use };
    Flow::new(response.into_body(), lease, Rc::clone(supply), Duration::from_mins(2), told.clone())
}

/// Reads a body to its end.
pub(super) async fn drain(flow: &mut Flow<Told>) -> Result<Vec<u8>, super::BodyError> {
    let mut all = Vec::new();
    while let Some(piece) = std::future::poll_fn(|cx| flow.poll_piece(cx)).await {
        all.extend_from_slice(&piece?);
    }
    Ok(all)
}

/// All that is left of a client's body.
pub(super) async fn collect(up: Up) -> Vec<u8> {
    up.collect().await.unwrap().to_bytes().to_vec()
}
