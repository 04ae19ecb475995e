//! Secrets in a local file, encrypted as a whole with age (<https://age-encryption.org/v1>).
//!
//! Inside is a JSON object from names to secrets. The key is an age identity (X25519), or a passphrase.

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, Read as _, Write as _},
    iter,
    path::{Path, PathBuf},
    sync::Arc,
};

use secrecy::SecretString;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tempfile::NamedTempFile;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use super::{
    Fetch, Fetched, SecretSource, VaultError, Write,
    private::{self, Readers, Unread},
    token::{self, NoToken},
};
use crate::config::SealedKey;

mod key;

use key::Key;
pub use key::generate_key;

/// The largest vault that is read, in bytes: room for a thousand tokens of the longest kind.
const LARGEST: usize = 2 * 1024 * 1024;

/// The longest name, in bytes.
const LONGEST_NAME: usize = 256;

/// A passphrase takes its time and its memory, by design.
const AT_ONCE: usize = 2;

/// What is wrong with a sealed vault, or with its key.
#[derive(Debug, thiserror::Error)]
pub enum SealedError {
    /// A file that can't be read, or that others can read.
    #[error("{0}")]
    Unread(String),
    /// A key that is none.
    #[error("{0}: {1}")]
    Key(String, &'static str),
    /// Another key sealed it.
    #[error("the key does not open {0}")]
    Locked(PathBuf),
    /// Cut off, altered, or something else.
    #[error("{0} is not a whole sealed vault")]
    Broken(PathBuf),
    /// A name that can't be one.
    #[error("a name has 1 to {LONGEST_NAME} bytes and no control characters")]
    Name,
    /// The secret could never be used.
    #[error("the secret is not usable: {0}")]
    Secret(#[from] NoToken),
    /// Nothing is overwritten.
    #[error("{0} exists already; it is not overwritten")]
    Exists(PathBuf),
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

    /// The names of what is in it, in order.
    ///
    /// # Errors
    /// A vault that can't be opened.
    pub fn names(&self) -> Result<Vec<String>, SealedError> {
        let sealed = private::read(&self.path, Readers::Owner, LARGEST)?;
        Ok(unseal(&self.path, &Key::read(&self.key)?, &sealed)?.into_keys().collect())
    }

    fn read(&self, name: &str) -> Result<Fetched, VaultError> {
        let key = Key::read(&self.key).map_err(|error| trouble(&error))?;
        let sealed = private::read(&self.path, Readers::Owner, LARGEST).map_err(|unread| match unread {
            // The whole vault is gone, which says nothing about this secret.
            Unread::Missing(_) => VaultError::Unavailable(unread.to_string().into()),
            other => other.into(),
        })?;
        let mut secrets = unseal(&self.path, &key, &sealed).map_err(|error| trouble(&error))?;
        let missing =
            || VaultError::Denied(format!("{} holds no secret named {name}", self.path.display()).into());
        let Secret(value) = secrets.remove(name).ok_or_else(missing)?;
        Ok(Fetched::new(value))
    }
}

impl SecretSource for Sealed {
    fn fetch<'a>(&'a self, secret: &'a str) -> Fetch<'a> {
        let (vault, name) = (self.clone(), secret.to_owned());
        let turns = Arc::clone(&self.turns);
        Box::pin(async move { private::aside(turns, move || vault.read(&name)).await? })
    }

    fn write<'a>(&'a self, secret: &'a str, value: &'a SecretString) -> Write<'a> {
        let (vault, name, value) = (self.clone(), secret.to_owned(), value.clone());
        let turns = Arc::clone(&self.turns);
        Box::pin(async move {
            let put = move || put(&vault.path, &vault.key, &name, &value).map_err(|error| trouble(&error));
            private::aside(turns, put).await??;
            Ok(None)
        })
    }
}

/// A vault or a key in the middle of being replaced is no answer about a secret.
fn trouble(error: &SealedError) -> VaultError {
    VaultError::Unavailable(error.to_string().into())
}

/// Adds a secret to a vault, or replaces it; makes the vault where there is none. The file is replaced
/// as a whole: a reader, or a loss of power, meets the old one or the new one.
///
/// # Errors
/// A secret that is no token, a vault that can't be opened with this key, a folder that can't be written.
pub fn put(vault: &Path, key: &SealedKey, name: &str, secret: &SecretString) -> Result<(), SealedError> {
    if name.is_empty() || name.len() > LONGEST_NAME || name.chars().any(char::is_control) {
        return Err(SealedError::Name);
    }
    token::judge(token::exposed(secret), token::Scheme::Basic)?;
    let key = Key::read(key)?;
    let folder = folder_of(vault);
    let io = |error| SealedError::Io(vault.to_owned(), error);
    // Two that seal at once would each lose the other's secret. The lock goes with the handle.
    let lock = std::fs::File::open(folder).map_err(|error| SealedError::Io(folder.to_owned(), error))?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).map_err(|error| io(error.into()))?;

    let mut secrets = match private::read(vault, Readers::Owner, LARGEST) {
        Ok(sealed) => unseal(vault, &key, &sealed)?,
        Err(Unread::Missing(_)) => BTreeMap::new(),
        Err(unread) => return Err(unread.into()),
    };
    secrets.insert(name.to_owned(), Secret(secret.clone()));
    let sealed = seal(&key, &secrets).map_err(io)?;
    if sealed.len() > LARGEST {
        return Err(Unread::Large(vault.to_owned(), LARGEST).into());
    }
    replace(vault, folder, &lock, &sealed).map_err(io)
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The temporary file has mode 0600 from its first moment.
fn replace(path: &Path, folder: &Path, folder_handle: &std::fs::File, content: &[u8]) -> io::Result<()> {
    let mut file = NamedTempFile::new_in(folder)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    folder_handle.sync_all()
}

fn unseal(path: &Path, key: &Key, sealed: &[u8]) -> Result<BTreeMap<String, Secret>, SealedError> {
    let broken = || SealedError::Broken(path.to_owned());
    let decryptor = age::Decryptor::new_buffered(sealed).map_err(|_| broken())?;
    let mut reader = decryptor.decrypt(iter::once(key.identity())).map_err(|error| match error {
        age::DecryptError::NoMatchingKeys
        | age::DecryptError::DecryptionFailed
        | age::DecryptError::KeyDecryptionFailed
        | age::DecryptError::ExcessiveWork { .. } => SealedError::Locked(path.to_owned()),
        _ => broken(),
    })?;
    // What is inside is smaller than what it is sealed in, so the buffer never grows.
    let mut plain = Zeroizing::new(Vec::with_capacity(sealed.len()));
    reader.read_to_end(&mut plain).map_err(|_| broken())?;
    serde_json::from_slice(&plain).map_err(|_| broken())
}

fn seal(key: &Key, secrets: &BTreeMap<String, Secret>) -> io::Result<Vec<u8>> {
    // JSON writes one byte as six at most.
    let room =
        secrets.iter().map(|(name, secret)| 6 * (name.len() + token::exposed(&secret.0).len()) + 6).sum();
    let mut plain = Zeroizing::new(Vec::with_capacity(room));
    serde_json::to_writer(&mut *plain, secrets)?;
    let encryptor = age::Encryptor::with_recipients(iter::once(key.recipient())).map_err(io::Error::other)?;
    let mut sealed = Vec::with_capacity(plain.len() + 512);
    let mut writer = encryptor.wrap_output(&mut sealed)?;
    writer.write_all(&plain)?;
    writer.finish()?;
    Ok(sealed)
}

/// A secret inside the vault's JSON.
struct Secret(SecretString);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(token::exposed(&self.0))
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|secret| Self(secret.into()))
    }
}

/// Seals what [`put`] would refuse, to see what a reader makes of it.
#[cfg(test)]
pub(super) fn put_anything(vault: &Path, key: &SealedKey, name: &str, secret: &str) {
    let key = Key::read(key).unwrap();
    let mut secrets = match private::read(vault, Readers::Owner, LARGEST) {
        Ok(sealed) => unseal(vault, &key, &sealed).unwrap(),
        Err(_) => BTreeMap::new(),
    };
    secrets.insert(name.to_owned(), Secret(secret.to_owned().into()));
    let folder = folder_of(vault);
    replace(vault, folder, &std::fs::File::open(folder).unwrap(), &seal(&key, &secrets).unwrap()).unwrap();
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    fn secret(value: &str) -> SecretString {
        value.to_owned().into()
    }

    fn new_key(folder: &Path) -> SealedKey {
        let path = folder.join("vault.key");
        generate_key(&path).unwrap();
        SealedKey::File(path)
    }

    fn stored(vault: &Path, key: &SealedKey, name: &str) -> Result<String, VaultError> {
        let fetched = Sealed::open(vault, key).unwrap().read(name)?;
        Ok(token::exposed(&fetched.value).to_owned())
    }

    #[test]
    fn what_was_put_is_found_and_the_file_does_not_show_it() {
        let folder = tempfile::tempdir().unwrap();
        let (vault, key) = (folder.path().join("vault.age"), new_key(folder.path()));
        put(&vault, &key, "one", &secret("canary-one")).unwrap();
        put(&vault, &key, "two", &secret("canary-\"two\"")).unwrap();
        put(&vault, &key, "one", &secret("canary-new")).unwrap();
        assert_eq!(stored(&vault, &key, "one").unwrap(), "canary-new");
        assert_eq!(stored(&vault, &key, "two").unwrap(), "canary-\"two\"");
        assert_eq!(Sealed::open(&vault, &key).unwrap().names().unwrap(), ["one", "two"]);
        let bytes = fs::read(&vault).unwrap();
        assert!(!bytes.windows(6).any(|window| window == b"canary"));
        assert_eq!(fs::metadata(&vault).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing is left behind");
    }

    #[test]
    fn a_passphrase_opens_what_it_sealed_and_nothing_else_does() {
        let folder = tempfile::tempdir().unwrap();
        let vault = folder.path().join("vault.age");
        let passphrase = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            SealedKey::Passphrase(path)
        };
        let key = passphrase("right", "correct horse battery\n");
        put(&vault, &key, "one", &secret("canary")).unwrap();
        assert_eq!(stored(&vault, &key, "one").unwrap(), "canary");
        for wrong in [passphrase("wrong", "correct horse"), new_key(folder.path())] {
            assert!(matches!(stored(&vault, &wrong, "one"), Err(VaultError::Unavailable(_))));
            assert!(matches!(put(&vault, &wrong, "two", &secret("x")), Err(SealedError::Locked(_))));
        }
        assert_eq!(stored(&vault, &key, "one").unwrap(), "canary");
    }

    #[test]
    fn a_broken_vault_is_trouble_and_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let (vault, key) = (folder.path().join("vault.age"), new_key(folder.path()));
        put(&vault, &key, "one", &secret("canary")).unwrap();
        let whole = fs::read(&vault).unwrap();
        let mut altered = whole.clone();
        *altered.last_mut().unwrap() ^= 1;
        for content in
            [b"".as_slice(), b"age", &whole[..whole.len() / 2], &whole[..whole.len() - 1], &altered]
        {
            fs::write(&vault, content).unwrap();
            assert!(matches!(stored(&vault, &key, "one"), Err(VaultError::Unavailable(_))));
            assert!(put(&vault, &key, "two", &secret("x")).is_err());
            assert_eq!(fs::read(&vault).unwrap(), content);
        }
    }

    #[test]
    fn an_unusable_secret_or_name_is_not_sealed() {
        let folder = tempfile::tempdir().unwrap();
        let (vault, key) = (folder.path().join("vault.age"), new_key(folder.path()));
        for value in ["", "a b", "{\"pat\":1}"] {
            assert!(
                matches!(put(&vault, &key, "one", &secret(value)), Err(SealedError::Secret(_))),
                "{value}"
            );
        }
        for name in ["", "a\nb", &"n".repeat(LONGEST_NAME + 1)] {
            assert!(matches!(put(&vault, &key, name, &secret("x")), Err(SealedError::Name)), "{name}");
        }
        assert!(!vault.exists());
    }

    #[test]
    fn two_that_seal_at_once_lose_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (vault, key) = (folder.path().join("vault.age"), new_key(folder.path()));
        std::thread::scope(|scope| {
            for n in 0..8 {
                let (vault, key) = (&vault, &key);
                scope.spawn(move || put(vault, key, &format!("n{n}"), &secret("canary")).unwrap());
            }
        });
        assert_eq!(Sealed::open(&vault, &key).unwrap().names().unwrap().len(), 8);
    }
}
