//! Files that hold a secret: read only if nobody else can read them.

use std::{
    fs::OpenOptions,
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::fs::OFlags;
use secrecy::SecretString;
use tokio::sync::Semaphore;
use zeroize::{Zeroize as _, Zeroizing};

use super::VaultError;

/// Who may read a file besides its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readers {
    /// Nobody; of a file of root's also the group, where patgate is not root.
    Owner,
    /// The group: systemd gives a service its credentials by an access list, which the mode shows as the group's.
    Group,
}

/// Why a file was not read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unread {
    #[error("there is no file {0}")]
    Missing(PathBuf),
    #[error("{0} can't be read by this user")]
    Forbidden(PathBuf),
    #[error("{0} can be read by others (mode {1:03o}); `chmod 600` makes it private")]
    Open(PathBuf, u32),
    #[error(
        "{0} belongs to the user with the id {1}; it has to belong to the user that patgate runs as, or to root"
    )]
    Foreign(PathBuf, u32),
    #[error("{0} is not a file")]
    NoFile(PathBuf),
    #[error("{0} is larger than {1} bytes")]
    Large(PathBuf, usize),
    #[error("{0} is not text")]
    NoText(PathBuf),
    #[error("{0}: {1}")]
    Failed(PathBuf, io::Error),
}

impl From<Unread> for VaultError {
    fn from(unread: Unread) -> Self {
        let text = unread.to_string().into();
        match unread {
            Unread::Missing(_) | Unread::Forbidden(_) | Unread::Open(..) | Unread::Foreign(..) => {
                Self::Denied(text)
            }
            Unread::NoFile(_) | Unread::Large(..) | Unread::NoText(_) => Self::Unusable(text),
            Unread::Failed(..) => Self::Unavailable(text),
        }
    }
}

/// Reads a whole file of at most `cap` bytes. Links are followed, for mounted secrets are links to `..data/`;
/// what is judged is what is read.
pub(super) fn read(path: &Path, readers: Readers, cap: usize) -> Result<Zeroizing<Vec<u8>>, Unread> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Unread::Missing(path.to_owned()),
        io::ErrorKind::PermissionDenied => Unread::Forbidden(path.to_owned()),
        _ => Unread::Failed(path.to_owned(), error),
    };
    // A named pipe would hold up the thread.
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(failed)?;
    let about = file.metadata().map_err(failed)?;
    if !about.is_file() {
        return Err(Unread::NoFile(path.to_owned()));
    }
    let own = about.uid() == rustix::process::geteuid().as_raw();
    // Kubernetes mounts secrets as root's, for a group that patgate is in.
    let others = if own && readers == Readers::Owner { 0o077 } else { 0o037 };
    if about.mode() & others != 0 {
        return Err(Unread::Open(path.to_owned(), about.mode() & 0o777));
    }
    if about.uid() != 0 && !own {
        return Err(Unread::Foreign(path.to_owned(), about.uid()));
    }
    // Room for all of it and one more: a buffer that grows leaves a copy behind.
    let room = usize::try_from(about.len()).unwrap_or(cap).min(cap) + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    file.take(cap as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > cap {
        return Err(Unread::Large(path.to_owned(), cap));
    }
    Ok(bytes)
}

/// As [`read`], as text, without the line's end that editors put at the end of a file.
pub(super) fn read_line(path: &Path, readers: Readers, cap: usize) -> Result<SecretString, Unread> {
    let mut bytes = read(path, readers, cap)?;
    match String::from_utf8(std::mem::take(&mut *bytes)) {
        Ok(text) => Ok(without_line_end(text)),
        Err(error) => {
            error.into_bytes().zeroize();
            Err(Unread::NoText(path.to_owned()))
        }
    }
}

/// Runs blocking work aside from the control thread. Each piece holds a turn until it ends, even where
/// nobody waits for it any more.
pub(super) async fn aside<T: Send + 'static>(
    turns: Arc<Semaphore>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, VaultError> {
    let broke_off = || VaultError::Unavailable("the read broke off".into());
    let turn = turns.acquire_owned().await.map_err(|_| broke_off())?;
    let work = tokio::task::spawn_blocking(move || {
        let done = work();
        drop(turn);
        done
    });
    work.await.map_err(|_| broke_off())
}

/// Takes one line's end off the end.
pub(crate) fn without_line_end(text: String) -> SecretString {
    let text = Zeroizing::new(text);
    let line = text.strip_suffix('\n').map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
    SecretString::from(line)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;
    use crate::vault::token::exposed;

    #[test]
    fn only_a_file_that_nobody_else_can_read_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        fs::write(&path, "value\n").unwrap();
        for (mode, owner, group) in [
            (0o600, true, true),
            (0o400, true, true),
            (0o440, false, true),
            (0o660, false, false),
            (0o604, false, false),
            (0o644, false, false),
            (0o610, false, false),
        ] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(read(&path, Readers::Owner, 64).is_ok(), owner, "{mode:o}");
            assert_eq!(read(&path, Readers::Group, 64).is_ok(), group, "{mode:o}");
        }
    }

    #[test]
    fn what_is_no_file_or_too_large_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(read(folder.path(), Readers::Owner, 64), Err(Unread::NoFile(_))));
        assert!(matches!(read(&folder.path().join("none"), Readers::Owner, 64), Err(Unread::Missing(_))));
        assert!(matches!(read(Path::new("/dev/zero"), Readers::Owner, 64), Err(Unread::NoFile(_))));
        let path = folder.path().join("large");
        fs::write(&path, [b'a'; 65]).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(matches!(read(&path, Readers::Owner, 64), Err(Unread::Large(..))));
        assert!(read(&path, Readers::Owner, 65).is_ok());
    }

    #[test]
    fn one_line_end_is_taken_off() {
        for (text, line) in
            [("a", "a"), ("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n"), ("\n", ""), ("a\r", "a\r")]
        {
            assert_eq!(exposed(&without_line_end(text.to_owned())), line);
        }
    }
}
