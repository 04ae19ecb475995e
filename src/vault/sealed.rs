//! Secrets in a local file, encrypted as a whole with age (<https://age-encryption.org/v1>).
//!
//! Inside are names, each with its present and its previous value, and the public keys that the file is sealed for. The
//! key is an age identity (X25519), or a passphrase. Since it is one file, whoever changes it must be able to read it.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use secrecy::SecretString;
use tokio::sync::Semaphore;

use super::{
    Facts, Fetch, Fetched, SecretSource, Stamp, Stamping, VaultError, Write,
    private::{self, Unread},
    token::{self, NoToken, Scheme},
};
use crate::{
    clock,
    config::{self, SealedKey},
};

mod content;
mod key;
mod recipients;
mod rotate;
mod store;

pub use content::Recipient;
pub use key::generate_key;
pub use recipients::{Recipients, add_recipient, recipients, remove_recipient};
pub use rotate::{Rotated, rotate_key};

use content::{Content, Entry, Version};
use key::Key;
use store::Lock;

/// The longest name, in bytes.
const LONGEST_NAME: usize = 256;

/// A passphrase takes its time and its memory, by design.
const AT_ONCE: usize = 2;

/// Between the read of the key and that of the vault, a rotation may replace both.
const ATTEMPTS: usize = 3;

/// What is wrong with a sealed vault, or with its key.
#[derive(Debug, thiserror::Error)]
pub enum SealedError {
    /// A file that can't be read, or that others can read.
    #[error("{0}")]
    Unread(String),
    /// There is no vault.
    #[error("there is no vault {0}")]
    Missing(PathBuf),
    /// A key that is none.
    #[error("{0}: {1}")]
    Key(String, &'static str),
    /// Another key sealed it.
    #[error("the key does not open {0}")]
    Locked(PathBuf),
    /// Cut off, altered, or something else.
    #[error("{0} is not a whole sealed vault")]
    Broken(PathBuf),
    /// Written by a later version of patgate.
    #[error("{0} was sealed by a newer patgate (format {1}); use that one")]
    Newer(PathBuf, u32),
    /// A name that can't be one.
    #[error("a name has 1 to {LONGEST_NAME} bytes and no control characters")]
    Name,
    /// A name that is not in the vault.
    #[error("{0} holds no secret named {1}")]
    NoSecret(PathBuf, String),
    /// The secret could never be used.
    #[error("the secret is not usable: {0}")]
    Secret(#[from] NoToken),
    /// What was given is no public key.
    #[error(
        "this is not a public key of age; it is one line that begins with age1, as in the remark of a key file"
    )]
    Recipient,
    /// A change of the recipients that can't be made.
    #[error("{0}")]
    Recipients(&'static str),
    /// A key that is no file of identities.
    #[error("only a key in a file is replaced; see `patgate vault recipients --help` for the others")]
    Rotation,
    /// Nothing is overwritten.
    #[error("{0} exists already; it is not overwritten")]
    Exists(PathBuf),
    /// Another writer holds the lock.
    #[error("another process has been writing in {0} for long; try again when it has ended")]
    Busy(PathBuf),
    /// The file system says no.
    #[error("{0}: {1}")]
    Io(PathBuf, #[source] io::Error),
}

impl From<Unread> for SealedError {
    fn from(unread: Unread) -> Self {
        Self::Unread(unread.to_string())
    }
}

/// A vault in a file.
#[derive(Clone, Debug)]
pub struct Sealed {
    path: PathBuf,
    key: SealedKey,
    turns: Arc<Semaphore>,
}

impl Sealed {
    /// A vault whose key can be read now. The file itself may come later.
    ///
    /// # Errors
    /// A key that can't be read, or is none.
    pub fn open(path: &Path, key: &SealedKey) -> Result<Self, SealedError> {
        Key::read(key)?;
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        Ok(Self { path: path.to_owned(), key: key.clone(), turns })
    }

    /// As configured; see [`Self::open`].
    ///
    /// # Errors
    /// See [`Self::open`].
    pub(super) fn of(config: &config::Sealed) -> Result<Self, SealedError> {
        Self::open(&config.path, &config.key)
    }

    fn read(&self, name: &str) -> Result<Fetched, VaultError> {
        Ok(fetched(self.entry(name)?.present))
    }

    fn read_previous(&self, name: &str) -> Result<Fetched, VaultError> {
        let previous = self.entry(name)?.previous;
        previous.map(fetched).ok_or_else(|| {
            let text = format!("{} holds no earlier value of {name}", self.path.display());
            VaultError::Denied(text.into())
        })
    }

    fn entry(&self, name: &str) -> Result<Entry, VaultError> {
        // The whole vault is gone, which says nothing about this secret.
        let gone = || trouble(&SealedError::Missing(self.path.clone()));
        let mut content = match open(&self.path, &self.key) {
            Ok(content) => content.ok_or_else(gone)?,
            Err(SealedError::Unread(why)) => return Err(VaultError::Denied(why.into())),
            Err(error) => return Err(trouble(&error)),
        };
        let missing = || SealedError::NoSecret(self.path.clone(), name.to_owned());
        content.secrets.remove(name).ok_or_else(|| VaultError::Denied(missing().to_string().into()))
    }
}

fn fetched(version: Version) -> Fetched {
    let facts = Facts { expires: version.expires.map(|moment| moment.0), ..Facts::default() };
    let number = version.number.map(|number| number.to_string().into());
    Fetched { value: version.value.0, version: number, facts }
}

impl SecretSource for Sealed {
    fn fetch<'a>(&'a self, secret: &'a str) -> Fetch<'a> {
        let (vault, name) = (self.clone(), secret.to_owned());
        let turns = Arc::clone(&self.turns);
        Box::pin(async move { private::aside(turns, move || vault.read(&name)).await? })
    }

    fn fetch_previous<'a>(&'a self, secret: &'a str) -> Fetch<'a> {
        let (vault, name) = (self.clone(), secret.to_owned());
        let turns = Arc::clone(&self.turns);
        Box::pin(async move { private::aside(turns, move || vault.read_previous(&name)).await? })
    }

    fn write<'a>(&'a self, secret: &'a str, value: &'a SecretString) -> Write<'a> {
        let (vault, name, value) = (self.clone(), secret.to_owned(), value.clone());
        let turns = Arc::clone(&self.turns);
        Box::pin(async move {
            let put = private::aside(turns, move || put(&vault.path, &vault.key, &name, &value, None));
            match put.await? {
                Ok(number) => Ok(Some(number.to_string().into())),
                Err(error @ SealedError::Secret(_)) => Err(VaultError::Unusable(error.to_string().into())),
                Err(error @ (SealedError::Unread(_) | SealedError::Name)) => {
                    Err(VaultError::Denied(error.to_string().into()))
                }
                Err(error) => Err(trouble(&error)),
            }
        })
    }

    fn stamp<'a>(&'a self, _: &'a str) -> Stamping<'a> {
        let (path, key) = (self.path.clone(), key::place(&self.key));
        let turns = Arc::clone(&self.turns);
        Box::pin(async move {
            let look = move || Stamp::of([Some(path.as_path()), key.as_deref()].into_iter().flatten());
            private::aside(turns, look).await.ok()
        })
    }
}

/// A vault or a key in the middle of being replaced is no answer about a secret.
fn trouble(error: &SealedError) -> VaultError {
    VaultError::Unavailable(error.to_string().into())
}

/// Opens a vault. `None`: there is no file.
fn open(vault: &Path, key: &SealedKey) -> Result<Option<Content>, SealedError> {
    let mut opened = Ok(None);
    for _ in 0..ATTEMPTS {
        opened = store::read(vault, &Key::read(key)?);
        if !matches!(opened, Err(SealedError::Locked(_))) {
            break;
        }
    }
    opened
}

/// Changes a vault, alone: it is read, changed, and replaced as a whole. `make`: where there is none, one is made.
fn edit<T>(
    vault: &Path,
    key: &SealedKey,
    make: bool,
    change: impl FnOnce(&mut Content, &Key) -> Result<T, SealedError>,
) -> Result<T, SealedError> {
    let lock = Lock::on(vault)?;
    let key = Key::read(key)?;
    let mut content = match store::read(vault, &key)? {
        Some(content) => content,
        None if make => Content::default(),
        None => return Err(SealedError::Missing(vault.to_owned())),
    };
    if content.recipients.is_empty() {
        content.recipients.extend(key.public().pop().map(|key| Recipient { key, note: None }));
    }
    let done = change(&mut content, &key)?;
    store::write(&lock, vault, &key, &content)?;
    Ok(done)
}

/// Adds a secret to a vault, or replaces it; makes the vault where there is none. What was there before is kept as the
/// previous value. Gives the number of the version.
///
/// # Errors
/// A secret that is no token, a vault that can't be opened with this key, a folder that can't be written.
pub fn put(
    vault: &Path,
    key: &SealedKey,
    name: &str,
    secret: &SecretString,
    expires: Option<Timestamp>,
) -> Result<u64, SealedError> {
    if name.is_empty() || name.len() > LONGEST_NAME || name.chars().any(char::is_control) {
        return Err(SealedError::Name);
    }
    token::judge(token::exposed(secret), Scheme::Basic)?;
    edit(vault, key, true, |content, _| Ok(content.put(name, secret, now(), expires)))
}

/// Takes a secret out of a vault, with its previous value.
///
/// # Errors
/// A vault that can't be opened with this key, or that holds no such name; a folder that can't be written.
pub fn remove(vault: &Path, key: &SealedKey, name: &str) -> Result<(), SealedError> {
    let missing = || SealedError::NoSecret(vault.to_owned(), name.to_owned());
    edit(vault, key, false, |content, _| content.secrets.remove(name).map(drop).ok_or_else(missing))
}

/// To the second: more would say nothing.
fn now() -> Timestamp {
    let now = clock::timestamp();
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

/// A name in a vault, and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// What its present version is called; `None` if it was sealed before versions were counted.
    pub version: Option<u64>,
    /// When the present value was sealed; `None` as above.
    pub sealed: Option<Timestamp>,
    /// When the present value expires, as was said when it was sealed.
    pub expires: Option<Timestamp>,
    /// The version before it, and when that one was sealed, as far as known.
    pub previous: Option<(Option<u64>, Option<Timestamp>)>,
}

/// What is in a vault, in the order of the names.
///
/// # Errors
/// A vault that can't be opened.
pub fn list(vault: &Path, key: &SealedKey) -> Result<Vec<Listed>, SealedError> {
    let content = open(vault, key)?.ok_or_else(|| SealedError::Missing(vault.to_owned()))?;
    let listed = content.secrets.into_iter().map(|(name, Entry { present, previous })| Listed {
        name,
        version: present.number,
        sealed: present.sealed.map(|moment| moment.0),
        expires: present.expires.map(|moment| moment.0),
        previous: previous.map(|version| (version.number, version.sealed.map(|moment| moment.0))),
    });
    Ok(listed.collect())
}

/// Seals what [`put`] would refuse, to see what a reader makes of it.
#[cfg(test)]
pub(super) fn put_anything(vault: &Path, key: &SealedKey, name: &str, secret: &str) {
    edit(vault, key, true, |content, _| Ok(content.put(name, &secret.to_owned().into(), now(), None)))
        .unwrap();
}

#[cfg(test)]
pub(super) fn names(vault: &Path, key: &SealedKey) -> Result<Vec<String>, SealedError> {
    Ok(list(vault, key)?.into_iter().map(|listed| listed.name).collect())
}

#[cfg(test)]
mod tests;
