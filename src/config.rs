//! The configuration, as values that are already true.
//!
//! `config/file.rs` reads what was typed and collects *every* problem with its place;
//! what it yields is a [`Config`], in which names resolve, paths are absolute, files were readable
//! and numbers are in range. Nothing below checks them again.
//!
//! What comes in: a path. What goes out: a [`Config`], or [`Problems`]. It must never hold a secret, show a value
//! that may be one, or stop at the first problem.
//!
//! # Adding a key
//! A field of its struct here; one line in the file that reads its section, which makes the key known there; its
//! line in `config/full.toml`; a fixture with its wrong values in `tests/fixtures/config/bad`; and, if only a new
//! process takes it over, a line in [`unreloadable`].

use std::{
    collections::BTreeMap, net::SocketAddr, num::NonZeroUsize, path::PathBuf, sync::Arc, time::Duration,
};

use ipnet::IpNet;

use crate::{gate::ActionPattern, policy::Pattern};

mod admin;
mod change;
mod clients;
mod disk;
mod environment;
mod expects;
pub mod file;
#[cfg(test)]
mod fixtures;
mod include;
mod network;
mod notes;
mod parse;
pub mod problem;
mod rules;
mod sections;
mod suggest;
mod text;
mod tls;
mod units;
pub(crate) mod users;
mod vaults;

pub use admin::socket_of;
pub use change::unreloadable;
pub use environment::environment_problems;
pub use problem::{Place, Problem, Problems};
pub(crate) use units::timestamp;
pub(crate) use vaults::path_and_field;
pub use vaults::{
    AwsSecretsManager, AzureKeyVault, ClientIdentity, CommandFormat, CommandVault, Credential,
    CredentialSource, Entra, FileVault, Hashicorp, HashicorpAuth, Identity, IdentityMethod, Kv, Lifetime,
    ReadableBy, Rotate, Sealed, SealedKey, Trust, Vault, VaultSource,
};

/// One whole configuration: the main file and all that it includes.
#[derive(Debug)]
pub struct Config {
    /// The main file, absolute.
    pub file: PathBuf,
    /// Every file whose content this depends on: the main one, includes, certificates, keys, CAs.
    /// A change of any of them is a reason to read again.
    pub sources: Vec<PathBuf>,
    /// SHA-256 over the names and contents of the configuration files, for the audit.
    pub hash: [u8; 32],
    /// The URL that clients use, without a trailing slash and without a path.
    pub public_url: PublicUrl,
    /// How many worker threads. Default: one a core.
    pub workers: NonZeroUsize,
    /// Where clients connect.
    pub listeners: Vec<Arc<Listen>>,
    /// Health and metrics, and the socket for operators.
    pub admin: Option<Admin>,
    /// The folder of what has to be remembered over a restart. Absent: what operators change ends with the process.
    pub state: Option<PathBuf>,
    /// The record.
    pub audit: Audit,
    /// Caps and deadlines.
    pub limits: Limits,
    /// How Azure DevOps' hosts are reached, for labs.
    pub upstream: Upstream,
    /// The way out of the company's network.
    pub outbound: Outbound,
    /// By name.
    pub vaults: BTreeMap<Arc<str>, Vault>,
    /// By name.
    pub credentials: BTreeMap<Arc<str>, Arc<Credential>>,
    /// By name.
    pub clients: BTreeMap<Arc<str>, Arc<Client>>,
    /// In order: the first that matches decides.
    pub rules: Vec<Rule>,
    /// Policy tests.
    pub expects: Vec<Expect>,
    /// What is not wrong, but probably not meant.
    pub warnings: Vec<Problem>,
}

/// `http` or `https`, and an authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrl {
    /// `http` or `https`.
    pub scheme: http::uri::Scheme,
    /// Host, and port where it is not the scheme's own.
    pub authority: http::uri::Authority,
}

impl std::fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}", self.scheme, self.authority)
    }
}

/// One listening address.
#[derive(Debug)]
pub struct Listen {
    /// The address.
    pub address: SocketAddr,
    /// Absent: plain HTTP.
    pub tls: Option<ListenTls>,
    /// `Host` values answered besides the public URL's and the address itself. Lower case, without a port.
    pub names: Vec<Arc<str>>,
    /// The URL used in answers to what came in here.
    pub public_url: PublicUrl,
    /// Whether HTTP/2 is spoken.
    pub http2: bool,
}

/// Certificate and key, read and matched as a pair.
#[derive(Debug)]
pub struct ListenTls {
    /// The file of the chain.
    pub certificate: PathBuf,
    /// The file of the private key.
    pub key: PathBuf,
    /// Both, parsed and proved to belong together, ALPN set.
    pub server: Arc<rustls::ServerConfig>,
}

/// Where patgate tells of itself, and is told.
#[derive(Clone, Debug)]
pub struct Admin {
    /// The second listener, which only reads. Loopback only.
    pub address: Option<SocketAddr>,
    /// Where operators change things.
    pub socket: Option<AdminSocket>,
}

/// A Unix socket, for some users of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminSocket {
    /// Its file.
    pub path: PathBuf,
    /// The uids of the users that may use it. Default: root, and the user that patgate runs as.
    pub admins: Vec<u32>,
}

impl AdminSocket {
    /// Whether it is for users besides root and the one that patgate runs as.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.admins.iter().any(|uid| *uid != 0 && *uid != rustix::process::geteuid().as_raw())
    }
}

/// Where and how uses are recorded.
#[derive(Clone, Debug)]
pub struct Audit {
    /// The folder; each process keeps its own chain in a sub-folder.
    pub folder: PathBuf,
    /// What an intent waits for.
    pub durability: Durability,
    /// A segment is closed at this size in bytes. Default 256 MiB.
    pub segment_size: u64,
    /// A segment is closed at this age. Default 1 h.
    pub segment_age: Duration,
    /// With less free space than this in bytes, no intent is taken. Default 64 MiB.
    pub reserve: u64,
}

/// What an intent waits for before its credential is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// `fdatasync`: survives loss of power.
    Disk,
    /// `write`: survives the death of the process.
    Os,
    /// Handed to the writer: survives nothing.
    Memory,
}

/// `[limits]`.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Open connections in all. Default 10,000.
    pub connections: usize,
    /// Open connections of one address (IPv6: of one /64). Default 256.
    pub connections_per_address: usize,
    /// Requests under way in all. Default 4,096.
    pub in_flight: usize,
    /// Requests under way of one client. Default 1,024.
    pub in_flight_per_client: usize,
    /// For the TLS handshake. Default 5 s.
    pub handshake: Duration,
    /// For a request's head, from its first byte. Default 10 s.
    pub head: Duration,
    /// Between two pieces of a body, either way. Default 120 s.
    pub body_idle: Duration,
    /// For the head of Azure DevOps' answer, which may itself delay a request by 30 s. Default 180 s.
    pub upstream_head: Duration,
    /// For a client to take what is written to it. Default 120 s.
    pub write_idle: Duration,
    /// For the next request on a connection. Default 60 s.
    pub keep_alive: Duration,
    /// How long new connections are still taken after the signal to stop. Default 5 s.
    pub drain_delay: Duration,
    /// How long requests under way may go on after that. Default 30 min.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            connections_per_address: 256,
            in_flight: 4_096,
            in_flight_per_client: 1_024,
            handshake: Duration::from_secs(5),
            head: Duration::from_secs(10),
            body_idle: Duration::from_mins(2),
            upstream_head: Duration::from_mins(3),
            write_idle: Duration::from_mins(2),
            keep_alive: Duration::from_mins(1),
            drain_delay: Duration::from_secs(5),
            drain: Duration::from_mins(30),
        }
    }
}

/// `[upstream]`: where a host is reached, never what it is called.
#[derive(Debug, Default)]
pub struct Upstream {
    /// Host (of the closed list) to the address it is reached at. Such an address may be loopback or private.
    pub addresses: BTreeMap<Arc<str>, SocketAddr>,
    /// Replaces the roots for the hosts of `addresses` alone: the file and its certificates.
    pub ca: Option<(PathBuf, Vec<rustls::pki_types::CertificateDer<'static>>)>,
}

/// `[outbound]`.
#[derive(Clone, Debug, Default)]
pub struct Outbound {
    /// An HTTP proxy that takes `CONNECT`, as `host:port`.
    pub proxy: Option<http::uri::Authority>,
    /// Hosts that are reached without it. Lower case.
    pub no_proxy: Vec<Arc<str>>,
}

/// A named caller.
#[derive(Debug)]
pub struct Client {
    /// Its name.
    pub name: Arc<str>,
    /// Its networks, canonical: no host bits, no mapped addresses.
    pub addresses: Vec<IpNet>,
    /// Whom to ask.
    pub owner: Option<Arc<str>>,
    /// For messages.
    pub place: Place,
}

/// `[[rule]]`.
#[derive(Debug)]
pub struct Rule {
    /// Its name, unique.
    pub name: Arc<str>,
    /// Whom it is about.
    pub clients: RuleClients,
    /// What it is about; empty (for a deny alone): everything.
    pub paths: Vec<Pattern>,
    /// Which actions; for an allow with its credential.
    pub verdict: RuleVerdict,
    /// Added to what a refused user sees.
    pub help: Option<Arc<str>>,
    /// Not in force from then on.
    pub until: Option<jiff::Timestamp>,
    /// For messages.
    pub place: Place,
}

/// Whom a rule is about.
#[derive(Debug)]
pub enum RuleClients {
    /// `["*"]`: any client that has a name.
    Any,
    /// These.
    Named(Vec<Arc<str>>),
}

/// What a rule says.
#[derive(Debug)]
pub enum RuleVerdict {
    /// These actions, with one of these credentials.
    Allow(Vec<ActionPattern>, Arc<Credentials>),
    /// Not these actions.
    Deny(Vec<ActionPattern>),
}

/// The credentials of a rule. All may go to the same organisations, so any of them can take another's place.
#[derive(Debug)]
pub struct Credentials {
    /// The one that is preferred.
    pub first: Arc<Credential>,
    /// Those that take its place, in order.
    pub others: Box<[Arc<Credential>]>,
    /// Which is taken where several could be.
    pub order: Order,
}

impl Credentials {
    /// A single one.
    #[must_use]
    pub fn one(credential: Arc<Credential>) -> Self {
        Self { first: credential, others: Box::default(), order: Order::AsWritten }
    }

    /// All of them, as they were written.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Credential>> {
        std::iter::once(&self.first).chain(&self.others)
    }
}

/// Which of several credentials is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The first that can be used.
    AsWritten,
    /// Of those that can be used, the one whose identity has most left of what Azure DevOps grants it.
    RateBudget,
}

/// `[[expect]]`: a policy test.
#[derive(Debug)]
pub struct Expect {
    /// The caller's address.
    pub from: std::net::IpAddr,
    /// `GET`.
    pub method: http::Method,
    /// `/contoso/web/_apis/…?…`, as it would stand in the request.
    pub target: String,
    /// Whether it is to be allowed.
    pub allowed: bool,
    /// By which rule.
    pub rule: Option<Arc<str>>,
    /// For messages.
    pub place: Place,
}
