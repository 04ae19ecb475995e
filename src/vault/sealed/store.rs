//! The file of a sealed vault: read and replaced as a whole, by one writer at a time.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::{FlockOperation, Mode};
use zeroize::Zeroizing;

use super::{
    SealedError,
    content::{Content, NoContent},
    key::Key,
};
use crate::{
    clock,
    vault::private::{self, Readers, Unread},
};

/// The largest vault that is read, in bytes: room for a thousand tokens of the longest kind.
pub(super) const LARGEST: usize = 2 * 1024 * 1024;

/// For another writer to end. Each takes a fraction of a second.
const PATIENCE: Duration = Duration::from_secs(10);

/// A folder in which nobody else changes a vault. It ends with the handle, so also with the process.
pub(super) struct Lock {
    folder: PathBuf,
    handle: File,
}

impl Lock {
    /// Waits for other writers. Two at once would each lose what the other one wrote.
    pub(super) fn on(vault: &Path) -> Result<Self, SealedError> {
        let folder = folder_of(vault).to_owned();
        let io = |error: io::Error| SealedError::Io(folder.clone(), error);
        let handle = File::open(&folder).map_err(io)?;
        let began = clock::now();
        loop {
            match rustix::fs::flock(&handle, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Self { folder, handle }),
                Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR)
                    if clock::now().saturating_duration_since(began) < PATIENCE => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Err(SealedError::Busy(folder)),
                Err(error) => return Err(io(error.into())),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Puts a file in the place of another: a reader, or a loss of power, meets the old one or the new one.
    pub(super) fn replace(&self, path: &Path, content: &[u8]) -> Result<(), SealedError> {
        let io = |error| SealedError::Io(path.to_owned(), error);
        let folder = folder_of(path);
        let other = if folder == self.folder { None } else { Some(File::open(folder).map_err(io)?) };
        replace(path, content).map_err(io)?;
        other.as_ref().unwrap_or(&self.handle).sync_all().map_err(io)
    }
}

/// The new file's name is fixed, so what a writer that was killed left behind is not there for ever.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new");
    let new = path.with_file_name(name);
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    let written = file
        .write_all(content)
        .and_then(|()| keep_owner(&file, path))
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written
}

/// What root replaces stays readable for the user, or the group, that it was there for.
fn keep_owner(file: &File, replaced: &Path) -> io::Result<()> {
    let (Ok(before), now) = (fs::metadata(replaced), file.metadata()?) else { return Ok(()) };
    let same = before.uid() == now.uid() && before.gid() == now.gid();
    let (owner, group) = (rustix::fs::Uid::from_raw(before.uid()), rustix::fs::Gid::from_raw(before.gid()));
    // Only root may give a file away; for others the new one is their own.
    if !same && rustix::fs::fchown(file, Some(owner), Some(group)).is_err() {
        return Ok(());
    }
    Ok(rustix::fs::fchmod(file, Mode::from_raw_mode(before.mode() & 0o640))?)
}

/// Where a file is; the folder of the process for a mere name.
pub(super) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Opens a vault. `None`: there is no file.
pub(super) fn read(vault: &Path, key: &Key) -> Result<Option<Content>, SealedError> {
    match private::read(vault, Readers::Owner, LARGEST) {
        Ok(sealed) => unseal(vault, key, &sealed).map(Some),
        Err(Unread::Missing(_)) => Ok(None),
        Err(unread) => Err(unread.into()),
    }
}

/// Seals a vault anew, for its recipients.
pub(super) fn write(lock: &Lock, vault: &Path, key: &Key, content: &Content) -> Result<(), SealedError> {
    let sealed = seal(vault, key, content)?;
    if sealed.len() > LARGEST {
        return Err(Unread::Large(vault.to_owned(), LARGEST).into());
    }
    lock.replace(vault, &sealed)
}

fn unseal(path: &Path, key: &Key, sealed: &[u8]) -> Result<Content, SealedError> {
    let broken = || SealedError::Broken(path.to_owned());
    let decryptor = age::Decryptor::new_buffered(sealed).map_err(|_| broken())?;
    let mut reader = decryptor.decrypt(key.identities()).map_err(|error| match error {
        age::DecryptError::NoMatchingKeys
        | age::DecryptError::DecryptionFailed
        | age::DecryptError::KeyDecryptionFailed
        | age::DecryptError::ExcessiveWork { .. } => SealedError::Locked(path.to_owned()),
        _ => broken(),
    })?;
    // What is inside is smaller than what it is sealed in, so the buffer never grows.
    let mut plain = Zeroizing::new(Vec::with_capacity(sealed.len()));
    reader.read_to_end(&mut plain).map_err(|_| broken())?;
    Content::parse(&plain).map_err(|why| match why {
        NoContent::Broken => broken(),
        NoContent::Newer(format) => SealedError::Newer(path.to_owned(), format),
    })
}

fn seal(vault: &Path, key: &Key, content: &Content) -> Result<Vec<u8>, SealedError> {
    let io = |error| SealedError::Io(vault.to_owned(), error);
    let recipients = key.recipients(&content.recipients)?;
    let plain = content.write().map_err(io)?;
    let sealed = || {
        let encryptor =
            age::Encryptor::with_recipients(recipients.iter().map(|one| &**one)).map_err(io::Error::other)?;
        let mut sealed = Vec::with_capacity(plain.len() + 512);
        let mut writer = encryptor.wrap_output(&mut sealed)?;
        writer.write_all(&plain)?;
        writer.finish()?;
        Ok(sealed)
    };
    sealed().map_err(io)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_is_replaced_keeps_its_mode_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vault.age");
        let lock = Lock::on(&path).unwrap();
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        fs::write(folder.path().join(".vault.age.new"), "of a writer that was killed").unwrap();
        lock.replace(&path, b"one").unwrap();
        assert_eq!(mode(), 0o600);
        for (before, after) in [(0o640, 0o640), (0o400, 0o400), (0o666, 0o640)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(before)).unwrap();
            lock.replace(&path, b"two").unwrap();
            assert_eq!(mode(), after, "{before:o}");
        }
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_writer_waits_for_the_one_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vault.age");
        let first = Lock::on(&path).unwrap();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| Lock::on(&path).map(drop));
            first.replace(&path, b"first").unwrap();
            assert!(!second.is_finished(), "the second one holds it as well");
            drop(first);
            second.join().unwrap().unwrap();
        });
    }
}
