//! The files of a sample organisation.

use std::{
    fs,
    io::{self, Write},
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use super::{StartError, certificate, identity::Digest};

/// The file that holds the address it last listened on.
pub const LAST_ADDRESS: &str = "address";

/// Where a sample organisation keeps its files.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// Makes the folder (for its owner alone) if it does not exist.
    pub(super) fn prepare(path: &Path) -> Result<Self, StartError> {
        let repositories = path.join("repositories");
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&repositories)
            .map_err(|error| StartError::Io(repositories, error))?;
        let path = path.canonicalize().map_err(|error| StartError::Io(path.to_path_buf(), error))?;
        Ok(Self(path))
    }

    /// The address that the sample organisation of this folder last listened on, if it ever did.
    #[must_use]
    pub fn last_address(path: &Path) -> Option<SocketAddr> {
        fs::read_to_string(path.join(LAST_ADDRESS)).ok()?.trim().parse().ok()
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn ca(&self) -> PathBuf {
        self.0.join("ca.pem")
    }

    pub(super) fn repositories(&self) -> PathBuf {
        self.0.join("repositories")
    }

    /// The digests of the tokens that it issued.
    pub(super) fn issued(&self) -> PathBuf {
        self.0.join("issued.json")
    }

    /// The digest of the token that is taken; one that is given is remembered, by its digest.
    pub(super) fn digest(&self, pat: Option<&str>) -> Result<Digest, StartError> {
        let file = self.0.join("pat.sha256");
        if let Some(pat) = pat {
            let digest = Digest::of(pat.as_bytes());
            write(&file, 0o600, digest.to_hex().as_bytes())?;
            return Ok(digest);
        }
        match fs::read_to_string(&file) {
            Ok(text) => Digest::from_hex(text.trim()).ok_or_else(|| StartError::NoToken(self.0.clone())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(StartError::NoToken(self.0.clone())),
            Err(error) => Err(StartError::Io(file, error)),
        }
    }

    pub(super) fn remember(&self, address: SocketAddr) -> Result<(), StartError> {
        write(&self.0.join(LAST_ADDRESS), 0o600, address.to_string().as_bytes())
    }

    /// The certificate for Azure DevOps' names; made if it is not there.
    pub(super) fn tls(&self) -> Result<Arc<rustls::ServerConfig>, StartError> {
        let (chain, key) = (self.0.join("server.pem"), self.0.join("server.key"));
        if !(self.ca().is_file() && chain.is_file() && key.is_file()) {
            let names = ["dev.azure.com", "*.dev.azure.com", "*.visualstudio.com"].map(String::from);
            let issued = certificate::issue("patgate sample organisation", &names, 3_650)
                .map_err(|error| StartError::Certificate(error.to_string()))?;
            write(&key, 0o600, issued.key.as_bytes())?;
            write(&chain, 0o644, issued.certificate.as_bytes())?;
            write(&self.ca(), 0o644, issued.authority.as_bytes())?;
        }
        server_config(&chain, &key).map_err(|error| StartError::Certificate(error.to_string()))
    }
}

fn server_config(chain: &Path, key: &Path) -> Result<Arc<rustls::ServerConfig>, Box<dyn std::error::Error>> {
    let chain = CertificateDer::pem_file_iter(chain)?.collect::<Result<Vec<_>, _>>()?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(key)?)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Writes a file whole, with exactly this mode.
pub(super) fn write(path: &Path, mode: u32, content: &[u8]) -> Result<(), StartError> {
    let written = || -> io::Result<()> {
        let _ = fs::remove_file(path);
        fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?.write_all(content)
    };
    written().map_err(|error| StartError::Io(path.to_path_buf(), error))
}
