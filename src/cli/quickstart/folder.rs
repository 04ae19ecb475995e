//! The folder that quickstart leaves: its owner alone can read it.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use crate::{
    config::SealedKey,
    sample::certificate,
    vault::sealed::{self, SealedError},
};

use super::{configuration, plan::Plan};

/// How long the certificate is good for, in days: the most that every system's TLS takes.
const DAYS: u16 = 825;

/// Why the folder could not be filled.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// It is there already, and nothing is overwritten.
    #[error("{0} exists already, and was left as it is")]
    Exists(PathBuf),
    /// A file or folder can't be made.
    #[error("{0}: {1}")]
    Io(PathBuf, #[source] io::Error),
    /// The certificate can't be made.
    #[error("the certificate can't be made: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The token can't be sealed.
    #[error("the vault: {0}")]
    Vault(#[from] SealedError),
}

/// A folder of quickstart's.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// Makes a new one.
    ///
    /// # Errors
    /// One that is there already, empty or not.
    pub fn create(path: &Path) -> Result<Self, FolderError> {
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            fs::create_dir_all(parent).map_err(|error| FolderError::Io(parent.to_owned(), error))?;
        }
        make(path).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => FolderError::Exists(path.to_owned()),
            _ => FolderError::Io(path.to_owned(), error),
        })?;
        Self::open(path)
    }

    /// One that is there.
    ///
    /// # Errors
    /// One that can't be reached.
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        path.canonicalize().map(Self).map_err(|error| FolderError::Io(path.to_owned(), error))
    }

    /// The folder itself, absolute.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.0.join("patgate.toml")
    }

    /// The authority that clients have to trust.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.0.join("certs/ca.pem")
    }

    /// The sample organisation's own folder.
    #[must_use]
    pub fn sample(&self) -> PathBuf {
        self.0.join("sample")
    }

    /// Seals the tokens, makes the certificate, writes the configuration.
    ///
    /// # Errors
    /// Whatever can't be made; what was made before it stays until [`Self::remove`].
    pub fn fill(&self, plan: &Plan) -> Result<(), FolderError> {
        let in_folder = |error| FolderError::Io(self.0.clone(), error);
        make(&self.0.join("certs")).map_err(in_folder)?;
        make(&self.0.join("audit")).map_err(in_folder)?;
        let issued = certificate::issue("patgate quickstart", &plan.names(), DAYS)?;
        self.write("certs/ca.pem", &issued.authority)?;
        self.write("certs/server.pem", &issued.certificate)?;
        self.write("certs/server.key", &issued.key)?;

        let (key, vault) = (self.0.join("vault.key"), self.0.join("vault.sealed"));
        sealed::generate_key(&key)?;
        let key = SealedKey::File(key);
        for member in &plan.members {
            sealed::put(&vault, &key, &member.name, &member.pat, None)?;
        }
        self.write("patgate.toml", &configuration::text(plan))
    }

    /// Takes back what [`Self::create`] made.
    pub fn remove(self) {
        let _ = fs::remove_dir_all(self.0);
    }

    fn write(&self, name: &str, content: &str) -> Result<(), FolderError> {
        let path = self.0.join(name);
        let mut options = fs::OpenOptions::new();
        options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(content.as_bytes()))
            .map_err(|error| FolderError::Io(path, error))
    }
}

fn make(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::cli::quickstart::plan::Member;

    fn plan() -> Plan {
        Plan {
            listen: "127.0.0.1:8443".parse().unwrap(),
            admin: "127.0.0.1:9443".parse().unwrap(),
            members: vec![Member {
                name: "contoso".into(),
                pat: "a-token-nobody-else-sees".into(),
                owner: "Sam".into(),
                repository: None,
            }],
            sample: None,
        }
    }

    fn walk(folder: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        entries
            .flat_map(
                |path| if path.is_dir() { [vec![path.clone()], walk(&path)].concat() } else { vec![path] },
            )
            .collect()
    }

    #[test]
    fn nobody_else_reads_it_and_no_file_holds_the_token() {
        let desk = tempfile::tempdir().unwrap();
        let folder = Folder::create(&desk.path().join("deep/quickstart")).unwrap();
        folder.fill(&plan()).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(folder.path()), 0o700);
        let paths = walk(folder.path());
        for name in ["patgate.toml", "vault.key", "vault.sealed", "certs/ca.pem", "certs/server.key", "audit"]
        {
            assert!(paths.contains(&folder.path().join(name)), "{name}: {paths:?}");
        }
        for path in paths {
            assert_eq!(mode(&path) & 0o077, 0, "{}", path.display());
            if path.is_file() {
                let content = fs::read(&path).unwrap();
                for needle in
                    ["a-token-nobody-else-sees", "YS10b2tlbi1ub2JvZHktZWxzZS1zZWVz", "OmEtdG9rZW4tbm9ib2R5"]
                {
                    let found = content.windows(needle.len()).any(|window| window == needle.as_bytes());
                    assert!(!found, "{}", path.display());
                }
            }
        }
    }

    #[test]
    fn what_is_there_is_never_overwritten() {
        let desk = tempfile::tempdir().unwrap();
        let path = desk.path().join("quickstart");
        Folder::create(&path).unwrap();
        assert!(matches!(Folder::create(&path), Err(FolderError::Exists(_))));
        Folder::open(&path).unwrap().remove();
        assert!(!path.exists());
    }
}
