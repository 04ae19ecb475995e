//! What stands before a vault and, on command, fails: a TLS server that passes each request on to an upstream, or does
//! something else with it.
//!
//! Every connection carries one request, so that another behaviour holds from the next request on.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

/// What stands in every body that is made up here, and must be nowhere else.
pub const BODY_CANARY: &str = "canary-in-the-body-of-an-answer";

/// For anything that a peer does.
const PATIENCE: Duration = Duration::from_mins(1);

/// What happens to a request, or to its connection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Behaviour {
    /// It is passed on.
    Pass,
    /// The connection is closed before TLS.
    Kill,
    /// It is read, and there is no answer.
    Hang,
    /// It is passed on after this.
    Slow(Duration),
    /// This status, with a body of JSON.
    Status(u16),
    /// The upstream's answer, which breaks off in the middle of its body.
    HalfBody,
    /// 200, with JSON of another shape.
    WrongJson,
    /// 200, with a page of HTML.
    NoJson,
    /// 200, with ten megabytes.
    Huge,
    /// A certificate whose time is over.
    Expired,
    /// A certificate for another name.
    OtherName,
    /// A certificate of another authority.
    OtherAuthority,
}

/// What stands behind.
#[derive(Clone, Debug)]
pub enum Upstream {
    Plain(SocketAddr),
    Tls { address: SocketAddr, name: String, ca: PathBuf },
}

#[derive(Debug)]
struct Switch {
    behaviour: Behaviour,
    /// Only requests whose first line has this in it.
    only: String,
}

struct Shared {
    upstream: Upstream,
    client: Option<Arc<ClientConfig>>,
    good: Arc<ServerConfig>,
    expired: Arc<ServerConfig>,
    other_name: Arc<ServerConfig>,
    other_authority: Arc<ServerConfig>,
    switch: Mutex<Switch>,
    seen: Mutex<Vec<String>>,
    credentials: Mutex<Vec<String>>,
    stopped: AtomicBool,
}

/// See the module.
pub struct Faults {
    address: SocketAddr,
    ca: PathBuf,
    shared: Arc<Shared>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Faults {
    /// Listens on a free port of 127.0.0.1, with a certificate for `localhost`, `127.0.0.1` and these names. The
    /// authority's certificate goes into `folder`.
    pub fn start(folder: &Path, names: &[&str], upstream: Upstream) -> Self {
        let authority = Authority::new("the tests' authority");
        let stranger = Authority::new("another authority");
        let ca = folder.join("faults-ca.pem");
        fs::write(&ca, &authority.pem).unwrap();
        let names: Vec<&str> = ["localhost", "127.0.0.1"].into_iter().chain(names.iter().copied()).collect();
        let client = match &upstream {
            Upstream::Plain(_) => None,
            Upstream::Tls { ca, .. } => Some(client(ca)),
        };
        let shared = Arc::new(Shared {
            upstream,
            client,
            good: authority.server(&names, 2098),
            expired: authority.server(&names, 2021),
            other_name: authority.server(&["other.example"], 2098),
            other_authority: stranger.server(&names, 2098),
            switch: Mutex::new(Switch { behaviour: Behaviour::Pass, only: String::new() }),
            seen: Mutex::default(),
            credentials: Mutex::default(),
            stopped: AtomicBool::new(false),
        });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let own = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            for socket in listener.incoming() {
                if own.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(socket), shared) = (socket, Arc::clone(&own)) else { continue };
                // A client that goes away is what some tests are about.
                thread::spawn(move || drop(shared.serve(socket)));
            }
        });
        Self { address, ca, shared, thread: Some(thread) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The file of the authority's certificate.
    pub fn ca(&self) -> &Path {
        &self.ca
    }

    /// From the next request on.
    pub fn behave(&self, behaviour: Behaviour) {
        self.behave_for("", behaviour);
    }

    /// As [`Self::behave`], for requests whose first line has `part` in it; others are passed on.
    pub fn behave_for(&self, part: &str, behaviour: Behaviour) {
        *self.shared.switch.lock().unwrap() = Switch { behaviour, only: part.into() };
    }

    /// The first lines of all requests, such as `GET /v1/secret HTTP/1.1`.
    pub fn seen(&self) -> Vec<String> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// How many requests had `part` in their first line.
    pub fn count(&self, part: &str) -> usize {
        self.seen().iter().filter(|line| line.contains(part)).count()
    }

    /// Every token that a request bore, for looking whether it stands anywhere.
    pub fn credentials(&self) -> Vec<String> {
        self.shared.credentials.lock().unwrap().clone()
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        let _ = self.thread.take().map(thread::JoinHandle::join);
    }
}

impl Shared {
    fn serve(&self, socket: TcpStream) -> std::io::Result<()> {
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        socket.set_nodelay(true)?;
        let config = match self.switch.lock().unwrap().behaviour {
            Behaviour::Kill => return Ok(()),
            Behaviour::Expired => &self.expired,
            Behaviour::OtherName => &self.other_name,
            Behaviour::OtherAuthority => &self.other_authority,
            _ => &self.good,
        };
        let connection = ServerConnection::new(Arc::clone(config)).map_err(std::io::Error::other)?;
        let mut stream = StreamOwned::new(connection, socket);
        let Some((head, body)) = read_request(&mut stream)? else { return Ok(()) };
        let first = head.lines().next().unwrap_or_default().to_owned();
        let behaviour = {
            let switch = self.switch.lock().unwrap();
            if first.contains(&switch.only) { switch.behaviour } else { Behaviour::Pass }
        };
        self.note(&first, &head);
        match behaviour {
            Behaviour::Kill => return Ok(()),
            Behaviour::Hang => {
                // Until the client has had enough.
                let _ = stream.read(&mut [0; 1]);
                return Ok(());
            }
            Behaviour::Slow(by) => {
                thread::sleep(by);
                stream.write_all(&self.pass(&head, &body)?)?;
            }
            Behaviour::Status(status) => {
                let body = format!("{{\"errors\":[\"{BODY_CANARY}\"]}}");
                stream.write_all(answer(status, "application/json", &body).as_bytes())?;
            }
            Behaviour::HalfBody => {
                let whole = self.pass(&head, &body)?;
                let start = whole.windows(4).position(|four| four == b"\r\n\r\n").map_or(0, |at| at + 4);
                stream.write_all(&whole[..start + (whole.len() - start) / 2])?;
                stream.flush()?;
                return Ok(());
            }
            Behaviour::WrongJson => {
                let body = format!("{{\"data\":[\"{BODY_CANARY}\"],\"auth\":\"{BODY_CANARY}\"}}");
                stream.write_all(answer(200, "application/json", &body).as_bytes())?;
            }
            Behaviour::NoJson => {
                let body = format!("<html>{BODY_CANARY}</html>");
                stream.write_all(answer(200, "text/html", &body).as_bytes())?;
            }
            Behaviour::Huge => {
                let body = format!("{{\"data\":{{\"data\":{{\"pat\":\"{}\"}}}}}}", "a".repeat(10_000_000));
                stream.write_all(answer(200, "application/json", &body).as_bytes())?;
            }
            Behaviour::Pass | Behaviour::Expired | Behaviour::OtherName | Behaviour::OtherAuthority => {
                stream.write_all(&self.pass(&head, &body)?)?;
            }
        }
        stream.conn.send_close_notify();
        stream.flush()
    }

    fn note(&self, first: &str, head: &str) {
        self.seen.lock().unwrap().push(first.into());
        for line in head.lines() {
            let Some((name, value)) = line.split_once(':') else { continue };
            if ["x-vault-token", "authorization"].contains(&name.to_ascii_lowercase().as_str()) {
                let value = value.trim();
                let value = value.strip_prefix("Bearer ").unwrap_or(value).to_owned();
                let mut credentials = self.credentials.lock().unwrap();
                if !credentials.contains(&value) {
                    credentials.push(value);
                }
            }
        }
    }

    /// The upstream's whole answer.
    fn pass(&self, head: &str, body: &[u8]) -> std::io::Result<Vec<u8>> {
        let mut lines = head.lines();
        let mut request = format!("{}\r\n", lines.next().unwrap_or_default());
        for line in lines.filter(|line| {
            let name = line.split(':').next().unwrap_or_default();
            !line.is_empty() && !name.eq_ignore_ascii_case("connection")
        }) {
            request.extend([line, "\r\n"]);
        }
        request.push_str("connection: close\r\n\r\n");
        let (address, tls) = match &self.upstream {
            Upstream::Plain(address) => (address, None),
            Upstream::Tls { address, name, .. } => (address, Some(name)),
        };
        let socket = TcpStream::connect(address)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        match (tls, &self.client) {
            (Some(name), Some(client)) => {
                let name = name.clone().try_into().map_err(std::io::Error::other)?;
                let connection =
                    ClientConnection::new(Arc::clone(client), name).map_err(std::io::Error::other)?;
                exchange(StreamOwned::new(connection, socket), &request, body)
            }
            _ => exchange(socket, &request, body),
        }
    }
}

fn exchange(mut stream: impl Read + Write, head: &str, body: &[u8]) -> std::io::Result<Vec<u8>> {
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    stream.flush()?;
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => Err(error),
        _ => Ok(answer),
    }
}

/// Head and body of one request; `None` where the client came for nothing.
pub fn read_request(stream: &mut impl Read) -> std::io::Result<Option<(String, Vec<u8>)>> {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        match stream.read(&mut piece)? {
            0 => return Ok(None),
            n => bytes.extend_from_slice(&piece[..n]),
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().unwrap())
    });
    assert!(!head.to_ascii_lowercase().contains("transfer-encoding"), "bodies in chunks are not passed on");
    let mut body = bytes.split_off(end);
    while body.len() < length.unwrap_or(0) {
        match stream.read(&mut piece)? {
            0 => return Ok(None),
            n => body.extend_from_slice(&piece[..n]),
        }
    }
    Ok(Some((head, body)))
}

fn answer(status: u16, kind: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status} Made Up\r\ncontent-type: {kind}\r\nretry-after: 1\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{body}",
        body.len()
    )
}

/// Signs the servers' certificates.
pub struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    pub pem: String,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: rcgen::Issuer::new(params, key), pem }
    }

    /// A certificate and its key, in PEM, for these names until that year; for a server or a client.
    pub fn leaf(&self, names: &[&str], until: i32) -> (String, String) {
        let names: Vec<String> = names.iter().map(|&name| name.into()).collect();
        let mut params = rcgen::CertificateParams::new(names.clone()).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, names[0].clone());
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        params.extended_key_usages =
            vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth, rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn server(&self, names: &[&str], until: i32) -> Arc<ServerConfig> {
        let (certificate, key) = self.leaf(names, until);
        let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        Arc::new(config)
    }
}

fn client(ca: &Path) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let pem = fs::read(ca).unwrap();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
