//! A sample organisation: a stand-in for Azure DevOps to try policies and tests on.
//!
//! What comes in: requests over TLS, on a loopback address, with a made-up token. What goes out: what Azure
//! DevOps would answer: the projects, who the token belongs to, repositories served by git's own
//! `git http-backend`; on request also the answers nobody wants: late, endless, broken, or a page for
//! signing in. It must never listen on an address that another machine can reach, and never keep the token
//! it is given: a digest is enough to know it again.
//!
//! # On request
//! By path, for one request: `/{organization}/_apis/sample/…` ([`site`] says which). For every request:
//! [`Organization::behave`].
//!
//! # In its folder
//! `ca.pem` (the authority to trust), `server.pem`, `server.key`, `pat.sha256`, `issued.json` (digests
//! of the tokens that it issued), `address`, and
//! `repositories/{project}/{repository}.git`: any bare repository put there is served.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::Arc,
    thread::JoinHandle,
};

use tokio::sync::watch;

mod answer;
mod api;
pub mod behaviour;
pub mod certificate;
mod folder;
mod git;
mod identity;
pub mod issued;
mod on_request;
mod repository;
pub mod seen;
mod server;
pub mod site;
mod tokens;

pub use behaviour::Behaviour;
pub use folder::{Folder, LAST_ADDRESS};
pub use issued::{Governance, Issued, Mishap, Standing};
pub use repository::create as create_repository;
pub use seen::Seen;

/// How to start a sample organisation.
pub struct Options {
    /// Where it keeps its files. Made if it does not exist; what is there is used again.
    pub folder: PathBuf,
    /// What it answers for, the first path segment of a request. Compared without case.
    pub organizations: Vec<String>,
    /// The token it takes; `None`: the one that the folder has a digest of.
    pub pat: Option<String>,
    /// Where it listens: loopback only. Port 0 lets the system choose.
    pub address: SocketAddr,
}

/// Why a sample organisation could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another machine could reach it.
    #[error("{0} is not a loopback address; the sample organisation listens on 127.0.0.0/8 or ::1 alone")]
    NotLoopback(SocketAddr),
    /// The port is taken, or the address is not this machine's.
    #[error("{0}: {1}")]
    Address(SocketAddr, #[source] io::Error),
    /// A file could not be read or written.
    #[error("{0}: {1}")]
    Io(PathBuf, #[source] io::Error),
    /// The certificate could not be made or read.
    #[error("the sample organisation's certificate: {0}")]
    Certificate(String),
    /// `git` is not there, or failed.
    #[error("git: {0}")]
    Git(String),
    /// No token was given, and the folder knows none.
    #[error("{0} has no pat.sha256; start the sample organisation with a token first")]
    NoToken(PathBuf),
}

/// A sample organisation that runs on a thread of its own, until it is dropped.
#[derive(Debug)]
pub struct Organization {
    address: SocketAddr,
    ca: PathBuf,
    folder: PathBuf,
    site: Arc<site::Site>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Organization {
    /// Prepares the folder, listens, and serves on a thread of its own.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(options: Options) -> Result<Self, StartError> {
        if !options.address.ip().to_canonical().is_loopback() {
            return Err(StartError::NotLoopback(options.address));
        }
        let folder = Folder::prepare(&options.folder)?;
        let digest = folder.digest(options.pat.as_deref())?;
        let tls = folder.tls()?;
        let backend = git::backend().map_err(StartError::Git)?;
        repository::prepare(&folder.repositories()).map_err(StartError::Git)?;

        let at = |error| StartError::Address(options.address, error);
        let listener = TcpListener::bind(options.address).map_err(at)?;
        listener.set_nonblocking(true).map_err(at)?;
        let address = listener.local_addr().map_err(at)?;
        folder.remember(address)?;

        let register = issued::Register::open(folder.issued())?;
        let repositories = folder.repositories();
        let site = Arc::new(site::Site::new(options.organizations, repositories, backend, digest, register));
        let (stop, stopped) = watch::channel(false);
        let served = Arc::clone(&site);
        let thread = std::thread::Builder::new()
            .name("sample-org".into())
            .spawn(move || server::run(listener, tls, served, stopped))
            .map_err(at)?;
        let (ca, folder) = (folder.ca(), folder.path().to_path_buf());
        Ok(Self { address, ca, folder, site, stop, thread: Some(thread) })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The certificate of the authority to trust for it, PEM.
    #[must_use]
    pub fn ca(&self) -> &Path {
        &self.ca
    }

    /// Where its files are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// From now on takes these tokens and no others: a rotation.
    pub fn accept(&self, pats: &[&str]) {
        self.site.accept(pats);
    }

    /// From now on takes this Entra token of a user, besides those it takes already, for what a user does with his own tokens.
    /// It is forgotten when the organisation stops.
    pub fn accept_user(&self, token: &str) {
        self.site.register().accept_entra(token);
    }

    /// The tokens it issued, oldest first.
    #[must_use]
    pub fn issued(&self) -> Vec<Issued> {
        self.site.register().all()
    }

    /// What its administrators allow from now on.
    pub fn govern(&self, governance: Governance) {
        self.site.register().govern(governance);
    }

    /// What goes wrong from now on with requests of a method to the tokens' API; `None`: nothing.
    pub fn befall(&self, mishap: Option<(http::Method, Mishap)>) {
        self.site.register().fall(mishap);
    }

    /// Behaves like this from the next request on.
    pub fn behave(&self, behaviour: Behaviour) {
        self.site.behave(behaviour);
    }

    /// Keeps so many of the latest requests, from 1 to [`seen::MOST_KEPT`], for [`Self::seen`].
    pub fn keep(&self, count: usize) {
        self.site.log().keep(count);
    }

    /// The latest requests, oldest first, at most [`seen::KEPT`] or what [`Self::keep`] said.
    #[must_use]
    pub fn seen(&self) -> Vec<Arc<Seen>> {
        self.site.log().latest()
    }

    /// Forgets the requests seen so far; [`Self::requests`] goes on counting.
    pub fn forget(&self) {
        self.site.log().forget();
    }

    /// How many requests it has had since it started.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.site.log().count()
    }

    /// Stops it: every connection breaks, every git process ends.
    pub fn stop(self) {}

    /// Waits until it ends, which it does by [`Self::stop`] alone.
    pub fn wait(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Organization {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
        self.end();
    }
}

#[cfg(test)]
mod tests;
