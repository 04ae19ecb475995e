//! The key of a sealed vault, from wherever it is kept.

use std::{
    env,
    fs::{File, OpenOptions},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Component, Path, PathBuf},
};

use age::{scrypt, x25519};
use secrecy::SecretString;
use zeroize::Zeroizing;

use super::{SealedError, content::Recipient, store::folder_of};
use crate::{
    config::SealedKey,
    vault::{
        private::{self, Readers},
        token::exposed,
    },
};

/// The largest key file, in bytes; age's own have about 190.
const LARGEST: usize = 16 * 1024;

/// More identities in one file are a mistake. While a key is replaced there are two.
const MOST: usize = 8;

/// 2^14: 16 MiB and well under a tenth of a second. A passphrase from a file is as long as one likes, and the
/// vault is opened at every read of every credential.
const WORK: u8 = 14;

/// Vaults that others sealed may ask for more, up to this.
const MOST_WORK: u8 = 18;

/// A key, to seal and to unseal.
pub(super) enum Key {
    /// Any of them opens the vault. The last one is the one in use. Never empty.
    Identities(Vec<x25519::Identity>),
    Passphrase(Box<scrypt::Identity>, SecretString),
}

impl Key {
    /// Reads it.
    pub(super) fn read(key: &SealedKey) -> Result<Self, SealedError> {
        match key {
            SealedKey::File(path) => identities(path, Readers::Owner),
            SealedKey::Systemd(name) => identities(&credential_of_systemd(name)?, Readers::Group),
            SealedKey::Passphrase(path) => passphrase(path),
        }
    }

    /// What opens a vault.
    pub(super) fn identities(&self) -> impl Iterator<Item = &dyn age::Identity> {
        let (identities, passphrase) = match self {
            Self::Identities(identities) => (identities.as_slice(), None),
            Self::Passphrase(identity, _) => ([].as_slice(), Some(&**identity as &dyn age::Identity)),
        };
        identities.iter().map(|identity| identity as &dyn age::Identity).chain(passphrase)
    }

    /// The public halves, the one in use last. A passphrase has none.
    pub(super) fn public(&self) -> Vec<String> {
        match self {
            Self::Identities(identities) => {
                identities.iter().map(|identity| identity.to_public().to_string()).collect()
            }
            Self::Passphrase(..) => Vec::new(),
        }
    }

    /// What seals a vault for those whose it is.
    pub(super) fn recipients(
        &self,
        named: &[Recipient],
    ) -> Result<Vec<Box<dyn age::Recipient>>, SealedError> {
        match self {
            Self::Passphrase(_, phrase) => {
                let mut recipient = scrypt::Recipient::new(phrase.clone());
                recipient.set_work_factor(WORK);
                Ok(vec![Box::new(recipient)])
            }
            Self::Identities(_) => {
                named.iter().map(|one| Ok(Box::new(public(&one.key)?) as Box<dyn age::Recipient>)).collect()
            }
        }
    }
}

/// Reads a public key.
pub(super) fn public(text: &str) -> Result<x25519::Recipient, SealedError> {
    text.parse().map_err(|_| SealedError::Recipient)
}

/// Makes a key in a file that only its owner can read. Gives its public half.
///
/// # Errors
/// A file that exists, a folder that can't be written.
pub fn generate_key(path: &Path) -> Result<String, SealedError> {
    let io = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => SealedError::Exists(path.to_owned()),
        _ => SealedError::Io(path.to_owned(), error),
    };
    let identity = x25519::Identity::generate();
    let public = identity.to_public().to_string();
    let text = file_of(&[identity]);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(io)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(io)?;
    File::open(folder_of(path)).and_then(|folder| folder.sync_all()).map_err(io)?;
    Ok(public)
}

/// The content of a key file.
pub(super) fn file_of(identities: &[x25519::Identity]) -> Zeroizing<String> {
    // Room for all of it: a buffer that grows leaves a copy behind.
    let mut text = Zeroizing::new(String::with_capacity(256 * identities.len()));
    for identity in identities {
        text.push_str("# key of a patgate vault, public key: ");
        text.push_str(&identity.to_public().to_string());
        text.push('\n');
        text.push_str(exposed(&identity.to_string()));
        text.push('\n');
    }
    text
}

fn identities(path: &Path, readers: Readers) -> Result<Key, SealedError> {
    let no_key = |why| SealedError::Key(path.display().to_string(), why);
    let bytes = private::read(path, readers, LARGEST)?;
    let text = str::from_utf8(&bytes).map_err(|_| no_key("an age identity is text"))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let identities = lines
        .take(MOST + 1)
        .map(|line| line.parse().map_err(|_| no_key("this is not an age identity (AGE-SECRET-KEY-1…)")))
        .collect::<Result<Vec<x25519::Identity>, _>>()?;
    match identities.len() {
        0 => Err(no_key("an age identity is wanted (a line AGE-SECRET-KEY-1…)")),
        1..=MOST => Ok(Key::Identities(identities)),
        _ => Err(no_key("these are more identities than a vault's key has")),
    }
}

fn passphrase(path: &Path) -> Result<Key, SealedError> {
    let phrase = private::read_line(path, Readers::Owner, LARGEST)?;
    if exposed(&phrase).trim().is_empty() {
        return Err(SealedError::Key(path.display().to_string(), "the passphrase is empty"));
    }
    let mut identity = scrypt::Identity::new(SecretString::clone(&phrase));
    identity.set_max_work_factor(MOST_WORK);
    Ok(Key::Passphrase(Box::new(identity), phrase))
}

/// The file of a key, where it is in one.
pub(super) fn place(key: &SealedKey) -> Option<PathBuf> {
    match key {
        SealedKey::File(path) | SealedKey::Passphrase(path) => Some(path.clone()),
        SealedKey::Systemd(name) => credential_of_systemd(name).ok(),
    }
}

fn credential_of_systemd(name: &str) -> Result<PathBuf, SealedError> {
    let folder = env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    place_of_credential(folder.as_deref(), name)
}

/// systemd puts each credential into one file (systemd.exec(5), "CREDENTIALS").
fn place_of_credential(folder: Option<&Path>, name: &str) -> Result<PathBuf, SealedError> {
    let wrong = |why| SealedError::Key(format!("the systemd credential {name}"), why);
    let mut parts = Path::new(name).components();
    let (Some(Component::Normal(part)), None) = (parts.next(), parts.next()) else {
        return Err(wrong("its name has to be that of a file, without a folder"));
    };
    match folder {
        Some(folder) if folder.is_absolute() => Ok(folder.join(part)),
        _ => Err(wrong(
            "$CREDENTIALS_DIRECTORY is not set; the unit needs a line LoadCredential= or LoadCredentialEncrypted= for it",
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn a_new_key_is_private_and_never_replaces_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vault.key");
        generate_key(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(Key::read(&SealedKey::File(path.clone())).is_ok());
        let before = fs::read(&path).unwrap();
        assert!(matches!(generate_key(&path), Err(SealedError::Exists(_))));
        assert_eq!(fs::read(&path).unwrap(), before);
    }

    #[test]
    fn what_is_no_key_is_said_without_showing_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vault.key");
        generate_key(&path).unwrap();
        let whole = fs::read_to_string(&path).unwrap();
        let many = whole.repeat(MOST + 1);
        let then_garbage = format!("{whole}canary-no-key");
        for content in
            ["", "# only a remark\n", "canary-no-key", &then_garbage, &many, &whole[..whole.len() - 3]]
        {
            fs::write(&path, content).unwrap();
            let Err(error) = Key::read(&SealedKey::File(path.clone())) else { panic!("{content:?}") };
            let text = error.to_string();
            assert!(!text.contains("canary") && !text.contains("AGE-SECRET-KEY-1Q"), "{text}");
        }
        fs::write(&path, " \n").unwrap();
        assert!(Key::read(&SealedKey::Passphrase(path.clone())).is_err());
        fs::write(&path, &whole).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(Key::read(&SealedKey::File(path)), Err(SealedError::Unread(_))));
    }

    #[test]
    fn a_file_with_two_keys_has_both_and_the_last_is_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vault.key");
        let both = [x25519::Identity::generate(), x25519::Identity::generate()];
        let text = file_of(&both);
        assert!(text.len() <= 512, "the buffer grew");
        fs::write(&path, text.as_bytes()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let public = Key::read(&SealedKey::File(path)).unwrap().public();
        assert_eq!(public, both.map(|one| one.to_public().to_string()));
    }

    #[test]
    fn a_credential_of_systemd_is_one_file_of_its_folder() {
        let folder = Some(Path::new("/run/credentials/patgate.service"));
        assert_eq!(
            place_of_credential(folder, "vault-key").unwrap(),
            Path::new("/run/credentials/patgate.service/vault-key")
        );
        for name in ["", ".", "..", "../x", "a/b", "/etc/shadow"] {
            assert!(place_of_credential(folder, name).is_err(), "{name}");
        }
        assert!(place_of_credential(None, "vault-key").is_err());
        assert!(place_of_credential(Some(Path::new("run")), "vault-key").is_err());
    }
}
