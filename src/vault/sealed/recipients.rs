//! For whom a vault is sealed: other instances, or a recovery key that lies somewhere safe.

use std::path::Path;

use super::{SealedError, content::Recipient, edit, key, open};
use crate::config::SealedKey;

/// More are a mistake: every one of them makes the file longer.
const MOST: usize = 100;

/// The longest note, in characters.
const LONGEST_NOTE: usize = 100;

/// For whom a vault is sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipients {
    /// All of them. Empty for a passphrase.
    pub all: Vec<Recipient>,
    /// The public keys of the key that opened it now.
    pub own: Vec<String>,
}

/// For whom a vault is sealed.
///
/// # Errors
/// A vault that can't be opened with this key.
pub fn recipients(vault: &Path, key: &SealedKey) -> Result<Recipients, SealedError> {
    let content = open(vault, key)?.ok_or_else(|| SealedError::Missing(vault.to_owned()))?;
    let own = key::Key::read(key)?.public();
    let mut all = content.recipients;
    // The first format named nobody: it was sealed for its one key.
    if all.is_empty() {
        all.extend(own.last().map(|key| Recipient { key: key.clone(), note: None }));
    }
    Ok(Recipients { all, own })
}

/// Seals a vault for one more public key. One that is there already gets the note.
///
/// # Errors
/// What is no public key, a vault with a passphrase, a vault that can't be opened or written.
pub fn add_recipient(
    vault: &Path,
    key: &SealedKey,
    public: &str,
    note: Option<&str>,
) -> Result<(), SealedError> {
    let public = key::public(public)?.to_string();
    if note.is_some_and(|note| note.chars().count() > LONGEST_NOTE || note.chars().any(char::is_control)) {
        return Err(SealedError::Recipients("a note has at most 100 characters, on one line"));
    }
    let note = note.map(str::to_owned);
    edit(vault, key, false, |content, key| {
        if key.public().is_empty() {
            return Err(SealedError::Recipients(
                "a vault with a passphrase has no recipients: age allows nothing beside a passphrase",
            ));
        }
        let full = content.recipients.len() >= MOST;
        match content.recipients.iter_mut().find(|one| one.key == public) {
            Some(known) => known.note = note.or_else(|| known.note.take()),
            None if full => {
                return Err(SealedError::Recipients("a vault has at most 100 recipients"));
            }
            None => content.recipients.push(Recipient { key: public, note }),
        }
        Ok(())
    })
}

/// Seals a vault without one of its public keys. It still opens every older copy of the file.
///
/// # Errors
/// A key that is not among the recipients, or the one that opens the vault now; a vault that can't be opened or written.
pub fn remove_recipient(vault: &Path, key: &SealedKey, public: &str) -> Result<(), SealedError> {
    let public = key::public(public)?.to_string();
    edit(vault, key, false, |content, key| {
        if key.public().contains(&public) {
            return Err(SealedError::Recipients(
                "that is the key which opens the vault now; remove it with another recipient's key, or use `patgate \
                 vault rotate-key`",
            ));
        }
        let before = content.recipients.len();
        content.recipients.retain(|one| one.key != public);
        if content.recipients.len() == before {
            return Err(SealedError::Recipients("that key is not among the vault's recipients"));
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::{
        super::{generate_key, put, tests::stored},
        *,
    };

    #[test]
    fn each_recipient_opens_the_vault_until_it_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let vault = folder.path().join("vault.age");
        let [own, other, third] = ["own", "other", "third"].map(|name| {
            let path = folder.path().join(name);
            generate_key(&path).unwrap();
            SealedKey::File(path)
        });
        let public = |key: &SealedKey| key::Key::read(key).unwrap().public().pop().unwrap();
        put(&vault, &own, "web", &"canary".to_owned().into(), None).unwrap();
        add_recipient(&vault, &own, &public(&other), Some("second instance")).unwrap();
        add_recipient(&vault, &own, &public(&other), None).unwrap();
        let now = recipients(&vault, &other).unwrap();
        assert_eq!(now.own, [public(&other)]);
        let all: Vec<_> = now.all.iter().map(|one| (one.key.clone(), one.note.clone())).collect();
        assert_eq!(all, [(public(&own), None), (public(&other), Some("second instance".to_owned()))]);

        // Either may change it, for both.
        put(&vault, &other, "web", &"canary-new".to_owned().into(), None).unwrap();
        for key in [&own, &other] {
            assert_eq!(stored(&vault, key, "web").unwrap(), "canary-new");
        }
        assert!(stored(&vault, &third, "web").is_err());

        for (key, whom, why) in [
            (&other, public(&other), "which opens the vault now"),
            (&other, public(&third), "not among"),
            (&other, "age1nonsense".to_owned(), "not a public key"),
        ] {
            let error = remove_recipient(&vault, key, &whom).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        remove_recipient(&vault, &other, &public(&own)).unwrap();
        assert!(stored(&vault, &own, "web").is_err());
        assert_eq!(stored(&vault, &other, "web").unwrap(), "canary-new");
    }

    #[test]
    fn what_is_no_public_key_and_a_passphrase_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let vault = folder.path().join("vault.age");
        let path = folder.path().join("key");
        generate_key(&path).unwrap();
        let secret_key = std::fs::read_to_string(&path).unwrap().lines().last().unwrap().to_owned();
        let key = SealedKey::File(path.clone());
        put(&vault, &key, "web", &"canary".to_owned().into(), None).unwrap();
        for text in ["", "ssh-ed25519 AAAA", "age1", secret_key.as_str()] {
            let error = add_recipient(&vault, &key, text, None).unwrap_err().to_string();
            assert!(error.contains("begins with age1") && !error.contains("SECRET"), "{error}");
        }
        let phrase = SealedKey::Passphrase(path.clone());
        let other = folder.path().join("other.age");
        put(&other, &phrase, "web", &"canary".to_owned().into(), None).unwrap();
        let public = key::Key::read(&key).unwrap().public().pop().unwrap();
        let error = add_recipient(&other, &phrase, &public, None).unwrap_err().to_string();
        assert!(error.contains("passphrase"), "{error}");
        assert_eq!(recipients(&other, &phrase).unwrap().all, []);
    }
}
