//! The key of a sealed vault, from wherever it is kept.

use std::{
    env,
    fs::OpenOptions,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Component, Path, PathBuf},
};

use age::{scrypt, x25519};
use secrecy::SecretString;

use super::{SealedError, folder_of};
use crate::{
    config::SealedKey,
    vault::{
        private::{self, Readers},
        token::exposed,
    },
};

/// The largest key file, in bytes; age's own have about 190.
const LARGEST: usize = 16 * 1024;

/// 2^14: 16 MiB and well under a tenth of a second. A passphrase from a file is as long as one likes, and the
/// vault is opened at every read of every credential.
const WORK: u8 = 14;

/// Vaults that others sealed may ask for more, up to this.
const MOST_WORK: u8 = 18;

/// A key, to seal and to unseal.
pub(super) enum Key {
    Identity(Box<x25519::Identity>, Box<x25519::Recipient>),
    Passphrase(Box<scrypt::Identity>, Box<scrypt::Recipient>),
}

impl Key {
    /// Reads it.
    pub(super) fn read(key: &SealedKey) -> Result<Self, SealedError> {
        match key {
            SealedKey::File(path) => identity(path, Readers::Owner),
            SealedKey::Systemd(name) => identity(&credential_of_systemd(name)?, Readers::Group),
            SealedKey::Passphrase(path) => passphrase(path),
        }
    }

    pub(super) fn identity(&self) -> &dyn age::Identity {
        match self {
            Self::Identity(identity, _) => &**identity,
            Self::Passphrase(identity, _) => &**identity,
        }
    }

    pub(super) fn recipient(&self) -> &dyn age::Recipient {
        match self {
            Self::Identity(_, recipient) => &**recipient,
            Self::Passphrase(_, recipient) => &**recipient,
        }
    }
}

/// Makes a key in a file that only its owner can read.
///
/// # Errors
/// A file that exists, a folder that can't be written.
pub fn generate_key(path: &Path) -> Result<(), SealedError> {
    let identity = x25519::Identity::generate();
    let text = identity.to_string();
    let io = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => SealedError::Exists(path.to_owned()),
        _ => SealedError::Io(path.to_owned(), error),
    };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(io)?;
    writeln!(file, "# key of a patgate vault, public key: {}", identity.to_public()).map_err(io)?;
    file.write_all(exposed(&text).as_bytes()).and_then(|()| file.write_all(b"\n")).map_err(io)?;
    file.sync_all().map_err(io)?;
    std::fs::File::open(folder_of(path)).and_then(|folder| folder.sync_all()).map_err(io)
}

fn identity(path: &Path, readers: Readers) -> Result<Key, SealedError> {
    let no_key = |why| SealedError::Key(path.display().to_string(), why);
    let bytes = private::read(path, readers, LARGEST)?;
    let text = str::from_utf8(&bytes).map_err(|_| no_key("an age identity is text"))?;
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let (Some(line), None) = (lines.next(), lines.next()) else {
        return Err(no_key("one age identity is wanted (a line AGE-SECRET-KEY-1…)"));
    };
    let identity: x25519::Identity =
        line.parse().map_err(|_| no_key("this is not an age identity (AGE-SECRET-KEY-1…)"))?;
    let recipient = identity.to_public();
    Ok(Key::Identity(Box::new(identity), Box::new(recipient)))
}

fn passphrase(path: &Path) -> Result<Key, SealedError> {
    let phrase = private::read_line(path, Readers::Owner, LARGEST)?;
    if exposed(&phrase).trim().is_empty() {
        return Err(SealedError::Key(path.display().to_string(), "the passphrase is empty"));
    }
    let mut identity = scrypt::Identity::new(SecretString::clone(&phrase));
    identity.set_max_work_factor(MOST_WORK);
    let mut recipient = scrypt::Recipient::new(phrase);
    recipient.set_work_factor(WORK);
    Ok(Key::Passphrase(Box::new(identity), Box::new(recipient)))
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
        _ => Err(wrong("$CREDENTIALS_DIRECTORY is not set; the unit needs a line LoadCredential= for it")),
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
        let twice = format!("{whole}{whole}");
        for content in ["", "# only a remark\n", "canary-no-key", &twice, &whole[..whole.len() - 3]] {
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
