//! A new key for a sealed vault.
//!
//! Wherever it is interrupted, the key file as it is opens the vault as it is: first the key file gets the new key
//! beside the old one, then the vault is sealed for the new one, then the old one leaves the key file. Begun again, it
//! goes on where it was.

use std::path::{Path, PathBuf};

use age::x25519;

use super::{
    SealedError,
    content::Recipient,
    key::{self, Key},
    store::{self, Lock},
};
use crate::{
    config::SealedKey,
    vault::private::{self, Readers},
};

/// What a rotation did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotated {
    /// The new public key.
    pub public: String,
    /// One that was interrupted was brought to its end.
    pub resumed: bool,
}

/// Gives a vault another key, in the same key file. `keep` is where the old key goes, for copies of the vault that
/// were made before; without it the old one is gone.
///
/// # Errors
/// A vault or a key that can't be read, a folder that can't be written, a file at `keep`.
pub fn rotate_key(vault: &Path, key: &Path, keep: Option<&Path>) -> Result<Rotated, SealedError> {
    rotate(vault, key, keep, &mut |_| Ok(()))
}

/// What is done already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The old key lies aside.
    Kept,
    /// The key file has both keys.
    Both,
    /// The vault is sealed for the new one.
    Sealed,
    /// The key file has the new one alone.
    Done,
}

fn rotate(
    vault: &Path,
    path: &Path,
    keep: Option<&Path>,
    after: &mut dyn FnMut(Step) -> Result<(), SealedError>,
) -> Result<Rotated, SealedError> {
    let lock = Lock::on(vault)?;
    let key = Key::read(&SealedKey::File(path.to_owned()))?;
    let mut content = store::read(vault, &key)?.ok_or_else(|| SealedError::Missing(vault.to_owned()))?;
    let Key::Identities(identities) = &key else { return Err(SealedError::Rotation) };

    let resumed = identities.len() > 1;
    let (new, old): (x25519::Identity, &[x25519::Identity]) = match identities.as_slice() {
        [old @ .., new] if resumed => (new.clone(), old),
        old => (x25519::Identity::generate(), old),
    };
    if let Some(keep) = keep {
        put_aside(&lock, keep, key::file_of(old).as_bytes())?;
        after(Step::Kept)?;
    }
    if !resumed {
        let both: Vec<_> = old.iter().chain([&new]).cloned().collect();
        lock.replace(path, key::file_of(&both).as_bytes())?;
        after(Step::Both)?;
    }
    let public = new.to_public().to_string();
    let olds: Vec<String> = old.iter().map(|one| one.to_public().to_string()).collect();
    content.recipients = exchange(content.recipients, &olds, &public);
    store::write(&lock, vault, &key, &content)?;
    after(Step::Sealed)?;
    lock.replace(path, key::file_of(&[new]).as_bytes())?;
    after(Step::Done)?;
    Ok(Rotated { public, resumed })
}

/// The new key takes the old ones' place among the recipients; others stay.
fn exchange(recipients: Vec<Recipient>, old: &[String], new: &str) -> Vec<Recipient> {
    let note = recipients.iter().find(|one| old.contains(&one.key)).and_then(|one| one.note.clone());
    let others = recipients.into_iter().filter(|one| one.key != new && !old.contains(&one.key));
    std::iter::once(Recipient { key: new.to_owned(), note }).chain(others).collect()
}

/// Nothing is overwritten, but one that was interrupted may find its own file.
fn put_aside(lock: &Lock, path: &Path, content: &[u8]) -> Result<(), SealedError> {
    let there = path.try_exists().map_err(|error| SealedError::Io(PathBuf::from(path), error))?;
    if !there {
        return lock.replace(path, content);
    }
    match private::read(path, Readers::Owner, content.len()) {
        Ok(same) if *same == content => Ok(()),
        _ => Err(SealedError::Exists(path.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{
        super::{Sealed, add_recipient, generate_key, names, put, tests::stored},
        *,
    };

    /// A vault with two secrets, its key file, and a copy of the key from elsewhere.
    struct Desk(tempfile::TempDir);

    impl Desk {
        fn new() -> Self {
            let desk = Self(tempfile::tempdir().unwrap());
            generate_key(&desk.key()).unwrap();
            for name in ["one", "two"] {
                put(&desk.vault(), &desk.source(), name, &format!("canary-{name}").into(), None).unwrap();
            }
            desk
        }
        fn vault(&self) -> PathBuf {
            self.0.path().join("vault.age")
        }
        fn key(&self) -> PathBuf {
            self.0.path().join("vault.key")
        }
        fn source(&self) -> SealedKey {
            SealedKey::File(self.key())
        }
        fn opens(&self) {
            assert_eq!(stored(&self.vault(), &self.source(), "one").unwrap(), "canary-one");
        }
    }

    #[test]
    fn the_new_key_opens_the_vault_and_the_old_one_does_not() {
        let desk = Desk::new();
        let old = desk.0.path().join("old.key");
        let before = fs::read(desk.key()).unwrap();
        let rotated = rotate_key(&desk.vault(), &desk.key(), Some(&old)).unwrap();
        assert!(!rotated.resumed);
        assert_eq!(fs::read(&old).unwrap(), before);
        desk.opens();
        assert!(stored(&desk.vault(), &SealedKey::File(old.clone()), "one").is_err());
        assert_eq!(Key::read(&desk.source()).unwrap().public(), [rotated.public]);
        assert!(matches!(rotate_key(&desk.vault(), &desk.key(), Some(&old)), Err(SealedError::Exists(_))));
    }

    #[test]
    fn interrupted_anywhere_the_key_opens_the_vault_and_the_next_run_ends_it() {
        for stop in [Step::Kept, Step::Both, Step::Sealed, Step::Done] {
            let desk = Desk::new();
            let old = desk.0.path().join("old.key");
            let before = fs::read(desk.key()).unwrap();
            let mut killed = |step| if step == stop { Err(SealedError::Rotation) } else { Ok(()) };
            let interrupted = rotate(&desk.vault(), &desk.key(), Some(&old), &mut killed);
            assert!(interrupted.is_err(), "{stop:?}");
            desk.opens();
            put(&desk.vault(), &desk.source(), "three", &"canary-three".to_owned().into(), None).unwrap();
            desk.opens();
            if stop != Step::Done {
                let ended = rotate_key(&desk.vault(), &desk.key(), Some(&old)).unwrap();
                assert_eq!(ended.resumed, stop != Step::Kept, "{stop:?}");
            }
            assert_eq!(Key::read(&desk.source()).unwrap().public().len(), 1, "{stop:?}");
            assert_eq!(names(&desk.vault(), &desk.source()).unwrap().len(), 3);
            assert_eq!(fs::read(&old).unwrap(), before, "{stop:?}");
            assert!(stored(&desk.vault(), &SealedKey::File(old), "one").is_err(), "{stop:?}");
        }
    }

    #[test]
    fn other_recipients_stay() {
        let desk = Desk::new();
        let recovery = desk.0.path().join("recovery.key");
        generate_key(&recovery).unwrap();
        let public = Key::read(&SealedKey::File(recovery.clone())).unwrap().public();
        add_recipient(&desk.vault(), &desk.source(), &public[0], Some("recovery")).unwrap();
        rotate_key(&desk.vault(), &desk.key(), None).unwrap();
        desk.opens();
        assert_eq!(stored(&desk.vault(), &SealedKey::File(recovery), "two").unwrap(), "canary-two");
    }

    #[tokio::test]
    async fn whoever_reads_meanwhile_always_finds_the_secret() {
        let desk = Desk::new();
        let (vault, source) = (desk.vault(), desk.source());
        let ended = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut reads = 0;
                while !ended.load(std::sync::atomic::Ordering::Relaxed) || reads == 0 {
                    let opened = Sealed::open(&vault, &source).unwrap();
                    opened.read("one").unwrap_or_else(|error| panic!("{error}"));
                    reads += 1;
                }
            });
            for _ in 0..50 {
                rotate_key(&desk.vault(), &desk.key(), None).unwrap();
            }
            ended.store(true, std::sync::atomic::Ordering::Relaxed);
            reader.join().unwrap();
        });
    }
}
