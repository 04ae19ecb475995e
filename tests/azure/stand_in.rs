//! A stand-in for Azure: Key Vault and Entra over TLS, and a machine's identity service over plain HTTP, as Microsoft
//! documents them. Unit and integration tests use it; there is no emulator that could be installed.
//!
//! Tokens are known beforehand ([`Azure::token`]), so that a sample organization can be told which to take.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, header, request::Parts};
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use serde_json::Value;
use tokio::sync::watch;

mod entra;
mod server;
mod vault;

pub use vault::Version;

pub const VAULT: &str = "corp.vault.azure.net";
pub const AUTHORITY: &str = "login.microsoftonline.com";
pub const TENANT: &str = "11111111-1111-1111-1111-111111111111";
pub const CLIENT: &str = "22222222-2222-2222-2222-222222222222";
pub const SECRET: &str = "CANARY8Q~client-secret-that-nobody-may-ever-see-in-a-log";
/// What App Service has its callers show.
pub const IDENTITY_HEADER: &str = "CANARYHEADER853b9a84-5bfa-4b22-a3f3-0b9a43d9ad8a";
/// The resource of Azure DevOps.
pub const AZURE_DEVOPS: &str = "499b84ac-1321-427f-aa17-267ca6975798";

pub type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// What certificate it shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certificate {
    Good,
    Expired,
    OfAnotherName,
}

/// How the vault, or the authority, behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Behaviour {
    #[default]
    Sound,
    Slow(Duration),
    Hang,
    /// A status, and the code of the innermost error.
    Status(u16, &'static str),
    /// 429, and how many seconds to wait.
    Throttle(u64),
    HalfABody,
    WrongJson,
    TenMegabytes,
    /// Somewhere else altogether.
    Redirect,
    /// A challenge for a token of another service.
    OtherResource,
    /// Takes no token, however fresh.
    NoTokenIsGood,
}

/// What it knows.
struct State {
    vault: Behaviour,
    authority: Behaviour,
    secrets: BTreeMap<String, Vec<Version>>,
    granted: bool,
    secret: String,
    certificate: Option<entra::Registered>,
    workload: Option<Vec<u8>>,
    /// Tokens in the order in which they were given, with their resource.
    issued: Vec<(String, String)>,
    /// How long a token lasts, in seconds.
    life: i64,
    proofs: Vec<String>,
    seen: Vec<String>,
}

/// It runs on a thread of its own, until it is dropped.
pub struct Azure {
    pub address: SocketAddr,
    pub metadata: SocketAddr,
    /// The authority to trust, PEM.
    pub ca: String,
    state: Arc<Mutex<State>>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Azure {
    pub fn start() -> Self {
        Self::start_with(Certificate::Good)
    }

    pub fn start_with(certificate: Certificate) -> Self {
        let (ca, tls) = server::tls(certificate);
        let bind = || {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            listener.set_nonblocking(true).unwrap();
            (listener.local_addr().unwrap(), listener)
        };
        let ((address, secure), (metadata, plain)) = (bind(), bind());
        let state = Arc::new(Mutex::new(State {
            vault: Behaviour::Sound,
            authority: Behaviour::Sound,
            secrets: BTreeMap::new(),
            granted: true,
            secret: SECRET.into(),
            certificate: None,
            workload: None,
            issued: Vec::new(),
            life: 3599,
            proofs: Vec::new(),
            seen: Vec::new(),
        }));
        let (stop, stopped) = watch::channel(false);
        let served = Arc::clone(&state);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                tokio::select! {
                    () = server::accept(secure, Some(tls), Arc::clone(&served)) => {}
                    () = server::accept(plain, None, served) => {}
                    () = server::until(stopped) => {}
                }
            });
            runtime.shutdown_background();
        });
        Self { address, metadata, ca, state, stop, thread: Some(thread) }
    }

    /// The token that is given as the `n`-th, from 0: as long as real ones.
    pub fn token(n: usize) -> String {
        format!(
            "eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiJ9.CANARYTOKEN{n:06}{}.c2lnbmF0dXJl",
            "aGVsbG8x".repeat(180)
        )
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new version of a secret; its id.
    pub fn put(&self, name: &str, value: &str) -> String {
        self.put_with(name, value, |_| ())
    }

    /// As [`Self::put`], with other attributes.
    pub fn put_with(&self, name: &str, value: &str, change: impl FnOnce(&mut Version)) -> String {
        let mut state = self.lock();
        let version = vault::add(&mut state.secrets, name, value);
        change(version);
        version.id.clone()
    }

    /// Changes the present version of a secret.
    pub fn change(&self, name: &str, change: impl FnOnce(&mut Version)) {
        change(self.lock().secrets.get_mut(name).unwrap().last_mut().unwrap());
    }

    /// The values of a secret, oldest first.
    pub fn values(&self, name: &str) -> Vec<String> {
        let state = self.lock();
        let versions = state.secrets.get(name).into_iter().flatten();
        versions.map(|version| version.value.clone()).collect()
    }

    pub fn vault_behaves(&self, behaviour: Behaviour) {
        self.lock().vault = behaviour;
    }

    /// Entra, and the machine's identity service.
    pub fn authority_behaves(&self, behaviour: Behaviour) {
        self.lock().authority = behaviour;
    }

    /// Whether the identity may do anything in the vault.
    pub fn grant(&self, granted: bool) {
        self.lock().granted = granted;
    }

    /// How long tokens last that are given from now on, in seconds.
    pub fn tokens_last(&self, seconds: i64) {
        self.lock().life = seconds;
    }

    /// Every token that was given is good no more.
    pub fn revoke_tokens(&self) {
        for (token, _) in &mut self.lock().issued {
            token.clear();
        }
    }

    /// How many tokens were given.
    pub fn tokens(&self) -> usize {
        self.lock().issued.len()
    }

    /// The application's secret is another one now.
    pub fn rotate_secret(&self, secret: &str) {
        self.lock().secret = secret.into();
    }

    /// Requests so far: `METHOD host /path`.
    pub fn seen(&self) -> Vec<String> {
        self.lock().seen.clone()
    }

    /// A certificate and its key, both PEM, that the application knows from now on.
    pub fn register_certificate(&self) -> (String, String) {
        let (registered, certificate, key) = entra::certificate();
        self.lock().certificate = Some(registered);
        (certificate, key)
    }

    /// The token of a workload that has a federated credential from now on.
    pub fn federate(&self) -> String {
        let (public, token) = entra::workload();
        self.lock().workload = Some(public);
        token
    }

    /// What patgate's `addresses` says of it.
    pub fn addresses(&self) -> String {
        let Self { address, metadata, .. } = self;
        format!(
            "{{ \"{VAULT}\" = \"{address}\", \"{AUTHORITY}\" = \"{address}\", \"169.254.169.254\" = \"{metadata}\" }}"
        )
    }

    /// Writes its authority and the application's secret into a folder: `azure-ca.pem` and `client-secret`.
    pub fn write(&self, folder: &Path) {
        std::fs::write(folder.join("azure-ca.pem"), &self.ca).unwrap();
        private(&folder.join("client-secret"), SECRET);
    }
}

impl Drop for Azure {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Writes a file that nobody else may read.
pub fn private(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

fn whole(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A JSON document with a status.
fn documented(status: u16, document: &Value) -> Response<Body> {
    let mut answer = Response::new(whole(document.to_string()));
    *answer.status_mut() = StatusCode::from_u16(status).unwrap();
    answer.headers_mut().insert(header::CONTENT_TYPE, "application/json; charset=utf-8".parse().unwrap());
    answer
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// The pairs of a form, or of a query.
fn pairs(encoded: &str) -> BTreeMap<String, String> {
    let decoded = |text: &str| {
        let text = text.replace('+', " ");
        percent_encoding::percent_decode_str(&text).decode_utf8_lossy().into_owned()
    };
    let pairs = encoded.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (decoded(name), decoded(value))).collect()
}

fn query(head: &Parts) -> BTreeMap<String, String> {
    pairs(head.uri.query().unwrap_or_default())
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}
